//! An envelope that goes: prefixes, headers in Windows' order, body (rules N-1, N-5, H-5).

use super::ns;
use crate::xml::Writer;

/// The prefixes that an answer declares besides `s`, `a`, `w` and `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    /// `x`: answers of WS-Transfer, and of methods.
    Transfer,
    /// `n`: answers of WS-Enumeration.
    Enumeration,
    /// `e`, `x`, `n` and `b`: faults.
    Fault,
}

/// The headers of an answer.
#[derive(Debug, Clone, Copy)]
pub struct ReplyHeaders<'a> {
    /// `a:Action`.
    pub action: &'a str,
    /// `a:MessageID`: `uuid:` and a fresh GUID in upper case.
    pub message_id: &'a str,
    /// `a:RelatesTo`: the request's MessageID as it came; `None` if it could not be read (rule F-5).
    pub relates_to: Option<&'a str>,
    /// Header blocks that the request's ReplyTo asks to be returned (rule H-13), as markup.
    pub reply_parameters: &'a str,
}

/// An answer under construction: the frame is written, the body is the caller's.
#[derive(Debug)]
pub struct Reply {
    writer: Writer,
}

impl Reply {
    /// What [`Reply::finish`] adds.
    pub const TAIL: &str = "</s:Body></s:Envelope>";

    /// Writes everything up to the start of the body.
    #[must_use]
    pub fn new(headers: &ReplyHeaders<'_>, vocabulary: Vocabulary) -> Self {
        Self::with_headers(headers, vocabulary, |_| ())
    }

    /// [`Reply::new`] with further header blocks behind the usual ones.
    #[must_use]
    pub fn with_headers(
        headers: &ReplyHeaders<'_>,
        vocabulary: Vocabulary,
        more: impl FnOnce(&mut Writer),
    ) -> Self {
        let mut w = Writer::with_capacity(4096);
        w.raw(match vocabulary {
            Vocabulary::Transfer => TRANSFER_START,
            Vocabulary::Enumeration => ENUMERATION_START,
            Vocabulary::Fault => FAULT_START,
        });
        w.element("a", "Action", &[], headers.action);
        w.element("a", "MessageID", &[], headers.message_id);
        w.element("a", "To", &[], ns::ANONYMOUS);
        if let Some(id) = headers.relates_to {
            w.element("a", "RelatesTo", &[], id);
        }
        more(&mut w);
        w.raw(headers.reply_parameters);
        w.raw("</s:Header><s:Body>");
        Self { writer: w }
    }

    /// What is written so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.writer.as_str()
    }

    /// Where the body goes.
    pub fn body(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Closes body and envelope.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.writer.raw(Self::TAIL);
        self.writer.into_string()
    }
}

/// The start of an envelope: `s`, `a`, then the given ones, then `w` and `p`.
macro_rules! start {
    ($($more:literal),*) => {
        concat!(
            r#"<s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope""#,
            r#" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing""#,
            $($more,)*
            r#" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd""#,
            r#" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header>"#,
        )
    };
}

const TRANSFER_START: &str = start!(r#" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer""#);
const ENUMERATION_START: &str =
    start!(r#" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration""#);
const FAULT_START: &str = start!(
    r#" xmlns:e="http://schemas.xmlsoap.org/ws/2004/08/eventing""#,
    r#" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer""#,
    r#" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration""#,
    r#" xmlns:b="http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd""#
);
