//! Identify: who this is and what it speaks, before anything else. DSP0226 11, rules O-1 and O-2.

use bytes::Bytes;

use crate::framing::Charset;
use crate::handler::{Answer, Caller};
use crate::wsman::identify::{Product, envelope};

use super::ProtocolSettings;

const VENDOR: &str = "Groupshot";
/// [DSP0226] annex C: HTTP with Basic, HTTPS with Basic, HTTPS with certificates on both sides.
const HTTP_BASIC: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/http/basic";
const HTTPS_BASIC: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/basic";
const HTTPS_MUTUAL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual";

/// The answers, which never change while the server runs.
pub(super) struct IdentifyReplies {
    for_users: Bytes,
    for_anyone: Bytes,
}

impl IdentifyReplies {
    pub(super) fn new(settings: &ProtocolSettings) -> Self {
        let answer = |version, profiles: &[&str]| {
            let product = Product {
                vendor: VENDOR,
                version,
                security_profiles: profiles,
            };
            Bytes::from(envelope(&product))
        };
        let profiles: Vec<&str> = [
            (HTTP_BASIC, settings.basic),
            (HTTPS_BASIC, settings.basic && settings.https),
            (HTTPS_MUTUAL, settings.client_certificates && settings.https),
        ]
        .into_iter()
        .filter_map(|(profile, offered)| offered.then_some(profile))
        .collect();
        Self {
            for_users: answer(Some(env!("CARGO_PKG_VERSION")), &profiles),
            for_anyone: answer(None, &[]),
        }
    }

    pub(super) fn answer(&self, caller: &Caller, charset: Charset) -> Answer {
        let envelope = match &caller.identity {
            Some(_) => &self.for_users,
            None => &self.for_anyone,
        };
        let body = match charset {
            Charset::Utf8 => envelope.clone(),
            _ => charset
                .encode(String::from_utf8_lossy(envelope).into_owned())
                .into(),
        };
        Answer {
            status: 200,
            content_type: charset.content_type(),
            body,
        }
    }
}
