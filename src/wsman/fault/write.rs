//! A fault as an envelope (rules F-1 to F-6, F-10 to F-12).

use crate::soap::{Reply, ReplyHeaders, Vocabulary};
use crate::text::Language;
use crate::wsman::request::Client;
use crate::xml::Writer;

use super::provider::{self, Attempt};
use super::{Action, Code, Extra, Fault, cim_error};

const DETAIL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/";
const F: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault";

/// What a fault envelope needs besides the fault.
#[derive(Debug, Clone, Copy)]
pub struct FaultHeaders<'a> {
    /// `a:MessageID`: `uuid:` and a fresh GUID in upper case.
    pub message_id: &'a str,
    /// `a:RelatesTo`, if the request's MessageID could be read.
    pub relates_to: Option<&'a str>,
    /// Header blocks that the request's ReplyTo asks to be returned, as markup.
    pub reply_parameters: &'a str,
    /// What it is written in.
    pub language: Language,
    /// Who gets it.
    pub client: Client,
    /// The name of this host.
    pub machine: &'a str,
    /// What the request wanted, where a provider said no.
    pub attempt: Option<&'a Attempt>,
}

impl FaultHeaders<'_> {
    /// What an internal error is found by in the log (rule F-24): the GUID of the answer's MessageID.
    #[must_use]
    pub fn activity(&self) -> &str {
        self.message_id.trim_start_matches("uuid:")
    }
}

impl Fault {
    /// The action of the envelope. OMI's client knows the actions of WS-Enumeration and WS-Transfer faults
    /// only in a misspelt form, so it gets that of WS-Management (rule F-2).
    #[must_use]
    pub fn action(&self, client: Client) -> &'static str {
        match (client, self.kind.action) {
            (Client::Omi, Action::N | Action::X) => Action::W.uri(),
            (_, action) => action.uri(),
        }
    }

    /// The envelope.
    #[must_use]
    pub fn envelope(&self, to: &FaultHeaders<'_>) -> String {
        let headers = ReplyHeaders {
            action: self.action(to.client),
            message_id: to.message_id,
            relates_to: to.relates_to,
            reply_parameters: to.reply_parameters,
        };
        let mut reply =
            Reply::with_headers(&headers, Vocabulary::Fault, |w| self.header_blocks(w, to));
        let w = reply.body();
        let text = self.text.render(to.language);
        w.raw("<s:Fault><s:Code><s:Value>");
        w.raw(self.code());
        w.raw("</s:Value>");
        if !self.kind.subcode.is_empty() {
            w.raw("<s:Subcode><s:Value>");
            w.raw(self.kind.subcode);
            w.raw("</s:Value></s:Subcode>");
        }
        w.raw("</s:Code><s:Reason>");
        w.element("s", "Text", &[("xml:lang", to.language.tag())], &text);
        w.raw("</s:Reason><s:Detail>");
        self.detail(w, &text, to);
        w.raw("</s:Detail></s:Fault>");
        reply.finish()
    }

    fn code(&self) -> &'static str {
        match self.kind.code {
            Code::Sender => "s:Sender",
            Code::Receiver => "s:Receiver",
            Code::VersionMismatch => "s:VersionMismatch",
            Code::MustUnderstand => "s:MustUnderstand",
        }
    }

    fn header_blocks(&self, w: &mut Writer, to: &FaultHeaders<'_>) {
        if self.is_internal() {
            w.element("p", "ActivityId", &[], to.activity());
        }
        match &self.extra {
            Extra::NotUnderstood { namespace, local } => w.empty(
                "s",
                "NotUnderstood",
                &[("qname", &format!("q:{local}")), ("xmlns:q", namespace)],
            ),
            Extra::Upgrade => {
                w.raw(r#"<s:Upgrade><s:SupportedEnvelope qname="s:Envelope"/></s:Upgrade>"#);
            }
            Extra::None | Extra::Action(_) | Extra::Dialects(_) => {}
        }
    }

    fn detail(&self, w: &mut Writer, text: &str, to: &FaultHeaders<'_>) {
        if let Extra::Action(action) = &self.extra {
            w.element("a", "Action", &[], action);
        }
        if let Extra::Dialects(dialects) = &self.extra {
            for dialect in *dialects {
                w.element("n", "SupportedDialect", &[], dialect);
            }
        }
        if !self.kind.detail.is_empty() {
            w.open("w", "FaultDetail", &[]);
            w.raw(DETAIL);
            w.raw(self.kind.detail);
            w.close("w", "FaultDetail");
        }
        if let Some(status) = self.status {
            cim_error::write(w, status, text, to.client == Client::Omi);
        }
        let number = self.kind.number.to_string();
        let attributes = [("xmlns:f", F), ("Code", &*number), ("Machine", to.machine)];
        w.open("f", "WSManFault", &attributes);
        w.open("f", "Message", &[]);
        w.text(text);
        if let Some(status) = self.status
            && to.client != Client::Omi
        {
            let about = (status, &*number);
            provider::write(w, about, text, to.machine, to.attempt);
        }
        w.close("f", "Message");
        w.close("f", "WSManFault");
    }
}
