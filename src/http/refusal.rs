//! Answers that carry no envelope: a status, the headers that belong to it, one line of plain text.

use bytes::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use crate::text::Text;
use crate::text::catalog::http as texts;

use super::TransportLimits;
use super::reply::Reply;

/// Why a request gets no further.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: Text,
    challenges: &'static [&'static str],
    /// The rest of the connection cannot be understood or is not wanted.
    pub(super) close: bool,
    /// It says no more than that a client has to log on first.
    pub(super) asks: bool,
}

impl Refusal {
    fn new(status: StatusCode, text: Text) -> Self {
        Self {
            status,
            text,
            challenges: &[],
            close: false,
            asks: false,
        }
    }

    fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    pub(super) fn bad_request(reason: &str) -> Self {
        let text = texts::BAD_REQUEST.with("reason", reason);
        Self::new(StatusCode::BAD_REQUEST, text).closing()
    }

    /// 401, or 403 where no scheme is open: a 401 without a challenge would lead nowhere.
    pub(super) fn unauthorized(challenges: &'static [&'static str], secure: bool) -> Self {
        if challenges.is_empty() {
            let text = match secure {
                true => texts::NO_USER.text(),
                false => texts::NO_SCHEME.text(),
            };
            return Self {
                asks: true,
                ..Self::new(StatusCode::FORBIDDEN, text)
            };
        }
        Self {
            challenges,
            asks: true,
            ..Self::new(StatusCode::UNAUTHORIZED, texts::UNAUTHORIZED.text())
        }
    }

    /// A page sends it that this server does not know; `whose` is its origin, or how it belongs to this server.
    pub(super) fn cross_site(whose: &str) -> Self {
        let text = texts::CROSS_SITE.with("origin", whose);
        Self::new(StatusCode::FORBIDDEN, text)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, texts::NOT_FOUND.text())
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, texts::METHOD.text())
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let text = texts::TOO_LARGE.with("limit", limit);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    pub(super) fn media_type(found: &str) -> Self {
        let text = texts::MEDIA_TYPE.with("found", found);
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    }

    pub(super) fn coding(found: &str) -> Self {
        let text = texts::CODING.with("found", found);
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    }

    pub(super) fn too_slow(limits: &TransportLimits) -> Self {
        let text = texts::TOO_SLOW
            .with("seconds", limits.packet_retrieval.as_secs())
            .with("rate", limits.rate)
            .with("grace", limits.grace.as_secs());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text).closing()
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, texts::INTERNAL.text())
    }

    pub(super) fn too_many_connections(limit: usize) -> Self {
        let text = texts::USER_OVERLOAD.with("limit", limit);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text).closing()
    }

    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, texts::STOPPING.text()).closing()
    }

    pub(super) fn into_response(self) -> Response<Reply> {
        let line = format!("{}\n", self.text.english());
        let mut response = Response::new(Reply::from(Bytes::from(line)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain;charset=UTF-8"),
        );
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        for challenge in self.challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The whole answer to a connection that is one too many, before hyper has seen it.
pub(super) fn overload() -> Vec<u8> {
    let line = texts::OVERLOAD.text().english();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain;charset=UTF-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{line}\n",
        line.len() + 1
    )
    .into_bytes()
}
