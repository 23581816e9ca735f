//! The body of an answer that may be sent before its request is there as a whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::body;

/// The octets of an answer, and what is still to come of the request.
///
/// A client that has its final answer before it has sent its body may send it all the same, and mostly cannot tell
/// that nobody wants it. So the body is read to its end, by its own length or chunks, and forgotten: what follows it
/// is the next request, and nothing within it can be one (RFC 9110 section 10.1.1, RFC 9112 section 9.6).
#[derive(Debug)]
pub(super) struct Reply {
    octets: Full<Bytes>,
    rest: Option<Incoming>,
}

impl Reply {
    /// Behind this answer the rest of the request is read.
    pub(super) fn before(self, rest: Incoming) -> Self {
        Self {
            rest: Some(rest),
            ..self
        }
    }
}

impl From<Bytes> for Reply {
    fn from(octets: Bytes) -> Self {
        Self {
            octets: Full::new(octets),
            rest: None,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // Only now: reading the body before the head of the answer is written would make hyper send 100 (Continue).
        if let Some(rest) = self.rest.take() {
            tokio::spawn(body::forget(rest));
        }
        Pin::new(&mut self.octets).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.octets.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.octets.size_hint()
    }
}
