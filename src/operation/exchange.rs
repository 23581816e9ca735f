//! What every verb needs of the request it answers: the caller, the headers, the size limit of the answer.

use std::net::SocketAddr;
use std::time::Duration;

use crate::framing::Charset;
use crate::id::WireId;
use crate::provider::Context;
use crate::soap::{Reply, ReplyHeaders, Vocabulary};
use crate::text::catalog::operation as texts;
use crate::wsman::enumeration::{Budget, Count};
use crate::wsman::fault::{Fault, table};
use crate::wsman::request::Headers;

/// The most items of one page, whatever the client asks for (rule Q-3).
pub(super) const ITEMS_MAX: usize = 32_000;

/// One request whose headers are read and whose user is known.
pub(super) struct Exchange<'a> {
    /// For the providers.
    pub(super) context: Context,
    /// The headers of the request.
    pub(super) headers: &'a Headers,
    /// `a:Action` of the answer.
    action: String,
    /// `a:MessageID` of the answer.
    message_id: String,
    charset: Charset,
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// When the request arrived, by the monotonic clock; its OperationTimeout runs from then on.
    pub(super) began: Duration,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        context: Context,
        headers: &'a Headers,
        charset: Charset,
        peer: SocketAddr,
        began: Duration,
    ) -> Self {
        Self {
            context,
            headers,
            action: format!("{}Response", headers.action),
            message_id: message_id(),
            charset,
            peer,
            began,
        }
    }

    /// The headers of the answer.
    pub(super) fn reply_headers(&self) -> ReplyHeaders<'_> {
        ReplyHeaders {
            action: &self.action,
            message_id: &self.message_id,
            relates_to: self.headers.message_id.as_deref(),
            reply_parameters: &self.headers.reply_parameters,
        }
    }

    /// The answer up to the start of its body.
    pub(super) fn reply(&self, vocabulary: Vocabulary) -> Reply {
        Reply::new(&self.reply_headers(), vocabulary)
    }

    /// The finished answer, if it is not larger than the client allows (rule H-20).
    pub(super) fn finish(&self, reply: Reply) -> Result<String, Fault> {
        let envelope = reply.finish();
        let size = self.octets(&envelope);
        let limit = self.headers.max_envelope_size;
        if size <= limit {
            return Ok(envelope);
        }
        let text = texts::ANSWER_TOO_LARGE
            .with("size", size)
            .with("limit", limit);
        Err(table::MAX_ENVELOPE_SIZE_EXCEEDED.fault(text))
    }

    /// How many octets an answer takes.
    pub(super) fn octets(&self, envelope: &str) -> usize {
        self.charset.mark() + self.charset.octets(envelope)
    }

    /// What a page may hold.
    pub(super) fn budget(&self, items: usize, characters: Option<usize>) -> Budget {
        Budget {
            items: items.min(ITEMS_MAX),
            octets: self.headers.max_envelope_size,
            characters,
            charset: self.charset,
        }
    }

    /// The estimate of all items, if the client wants it (rule H-27).
    pub(super) fn count(&self, total: Option<u64>) -> Count {
        match (self.headers.wants_count, total) {
            (false, _) => Count::Unasked,
            (true, None) => Count::Unknown,
            (true, Some(n)) => Count::Known(n),
        }
    }
}

/// A fresh `a:MessageID`.
pub(super) fn message_id() -> String {
    format!("uuid:{}", WireId::random())
}
