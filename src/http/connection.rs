//! One HTTP request and its response: the checks before the handler (framing, origin, Host, path, method, user, body,
//! media type), then the handler.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::audit::{self, Audit, Event};
use crate::auth::throttle::{ByKey, ByNetwork, Throttle};
use crate::auth::{Authenticator, Channel};
use crate::handler::{Answer, Caller, Handler, Identity, Message};

use super::TransportLimits;
use super::body::{self, BodyError};
use super::handshake::Peer;
use super::origin::{self, Origin};
use super::places::{Place, TooMany};
use super::refusal::Refusal;
use super::reply::Reply;

/// Set by `Test-WSMan` to ask for Identify without authentication (T-16).
const WSMANIDENTIFY: HeaderName = HeaderName::from_static("wsmanidentify");

/// Largest message from an unauthenticated caller; an Identify has a few hundred octets.
const ANONYMOUS_BODY: usize = 32 << 10;

/// Characters of a refused path that are logged.
const PATH_SHOWN: usize = 100;

/// What every connection of a listener shares.
pub(super) struct Shared {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) auth: Arc<Authenticator>,
    pub(super) limits: TransportLimits,
    pub(super) allowed_origins: Vec<Origin>,
    pub(super) audit: Audit,
    /// Rate limit of the log line about users with too many connections.
    pub(super) crowded_users: Throttle,
    /// Rate limit, by status, of the log lines about requests refused before any SOAP is read.
    pub(super) refused: ByKey<u16>,
    /// Lines about requests that a page of somebody else's has sent.
    pub(super) cross_site: ByNetwork,
    /// Connections and running handlers.
    pub(super) tasks: TaskTracker,
}

/// Answers the requests of one connection.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
    peer: SocketAddr,
    secure: bool,
    certificate: Option<Peer>,
}

/// A request that the handler may see.
struct Admitted {
    identity: Option<Identity>,
    body: Bytes,
}

impl Connection {
    /// For a new connection without TLS.
    pub(super) fn plain(shared: Arc<Shared>, peer: SocketAddr, place: Place) -> Self {
        Self {
            shared,
            place,
            peer,
            secure: false,
            certificate: None,
        }
    }

    /// For a new connection with TLS, the handshake done.
    pub(super) fn secure(
        shared: Arc<Shared>,
        peer: SocketAddr,
        place: Place,
        certificate: Option<Peer>,
    ) -> Self {
        Self {
            secure: true,
            certificate,
            ..Self::plain(shared, peer, place)
        }
    }

    /// Answers one request. What goes wrong is an answer too.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        self.place.phase.begin();
        let came = Instant::now();
        let (head, mut body) = request.into_parts();
        let response = match self.admit(&head, &mut body).await {
            Ok(admitted) => self.pass_on(&head, admitted, came).await,
            Err(refusal) => {
                self.tell(&head, &refusal);
                refuse(refusal, &head.headers, body).await
            }
        };
        self.place.phase.answering();
        response
    }

    /// Everything that is decided without the handler, cheapest first.
    async fn admit(&self, head: &Parts, body: &mut Incoming) -> Result<Admitted, Refusal> {
        if self.place.phase.has_two_lengths() {
            let reason = "it says twice how long its body is (by two headers of Content-Length, or by one and Transfer-Encoding)";
            return Err(Refusal::bad_request(reason));
        }
        if !is_plainly_chunked(&head.headers) {
            let reason = "its Transfer-Encoding is something other than chunked, once";
            return Err(Refusal::bad_request(reason));
        }
        self.keep_pages_out(head).await?;
        if !names_its_host(head) {
            return Err(Refusal::bad_request("it needs exactly one header Host"));
        }
        let anonymous = is_anonymous(head)?;
        if head.method != Method::POST {
            return Err(Refusal::method());
        }
        let identity = match anonymous {
            true => None,
            false => Some(self.authenticate(&head.headers).await?),
        };
        let bytes = self.read(body, anonymous).await?;
        if !bytes.is_empty() {
            media_type(&head.headers)?;
        }
        Ok(Admitted {
            identity,
            body: bytes,
        })
    }

    /// Refuses cross-site requests, whatever their path, before authentication, so that a web page cannot try passwords
    /// through a browser.
    async fn keep_pages_out(&self, head: &Parts) -> Result<(), Refusal> {
        let Some(whose) = origin::stranger(&head.headers, &self.shared.allowed_origins) else {
            return Ok(());
        };
        let whose = audit::shortened(&whose);
        if let Some(times) = self.shared.cross_site.happened(self.peer.ip()) {
            let event = Event::CrossSite {
                origin: &whose,
                method: head.method.as_str(),
                path: &audit::shortened(head.uri.path()),
                times,
            };
            self.shared.audit.record(&self.peer, &event).await;
        }
        Err(Refusal::cross_site(&whose))
    }

    /// Logs a refusal, rate-limited by status. Not logged: the challenge to an unauthenticated client, and failed logons,
    /// which `auth` logs.
    fn tell(&self, head: &Parts, refusal: &Refusal) {
        let status = refusal.status.as_u16();
        let credentials = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let basic = credentials.and_then(|c| c.get(..6));
        let basic = basic.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "));
        // `auth` has logged why a password was not accepted.
        let asked = status == 401 && basic || refusal.asks && credentials.is_none();
        if !asked && let Some(times) = self.shared.refused.happened(status) {
            let path: String = head.uri.path().chars().take(PATH_SHOWN).collect();
            let why = refusal.text.english();
            tracing::warn!(peer = %self.peer, status, method = %head.method, ?path, why, times, "request refused");
        }
    }

    /// Logs that a connection ends because of what the client sent, or did not send in time. hyper has answered with
    /// `status`, if at all.
    pub(super) fn tell_end(&self, status: u16, why: &dyn Display) {
        if let Some(times) = self.shared.refused.happened(status) {
            tracing::warn!(peer = %self.peer, status, %why, times, "request refused");
        }
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let channel = Channel {
            peer: self.peer.ip(),
            secure: self.secure,
            certificate: self.certificate.as_ref().and_then(Peer::certificate),
        };
        let auth = &self.shared.auth;
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let known = auth.check(channel, authorization).await;
        let identity =
            known.ok_or_else(|| Refusal::unauthorized(auth.challenges(channel), self.secure))?;
        self.place.belongs_to(&identity.user).map_err(|TooMany| {
            let limit = self.shared.limits.user_connections;
            if let Some(times) = self.shared.crowded_users.happened() {
                tracing::warn!(user = %identity.user, peer = %self.peer, limit, times, "too many connections of one user");
            }
            Refusal::too_many_connections(limit)
        })?;
        Ok(identity)
    }

    async fn read(&self, body: &mut Incoming, anonymous: bool) -> Result<Bytes, Refusal> {
        let mut limit = self.shared.handler.body_limit();
        if anonymous {
            limit = limit.min(ANONYMOUS_BODY);
        }
        let limits = &self.shared.limits;
        self.place.phase.reading();
        let read = body::read(body, limit, limits).await;
        self.place.phase.working();
        read.map_err(|e| match e {
            BodyError::TooLarge => Refusal::too_large(limit),
            BodyError::TooSlow => Refusal::too_slow(limits),
            BodyError::Broken => {
                Refusal::bad_request("its body is cut off or its chunks are broken")
            }
        })
    }

    /// The handler runs in a task of its own: a client that goes away does not cut its work in two, and a
    /// panic ends this answer only.
    async fn pass_on(&self, head: &Parts, admitted: Admitted, came: Instant) -> Response<Reply> {
        let Admitted { identity, body } = admitted;
        if body.is_empty() && identity.is_some() {
            // The first leg of a logon: authenticated, no body.
            return Response::new(Reply::from(Bytes::new()));
        }
        let text = |name| head.headers.get(name).and_then(|v| v.to_str().ok());
        let caller = Caller {
            identity,
            peer: self.peer,
            secure: self.secure,
            waited: came.elapsed(),
            user_agent: Arc::from(text(USER_AGENT).unwrap_or_default()),
            host: Arc::from(text(HOST).unwrap_or_default()),
        };
        let message = Message {
            content_type: text(CONTENT_TYPE).map(str::to_owned),
            body,
        };
        let handler = Arc::clone(&self.shared.handler);
        let work = async move { handler.handle(caller, message).await };
        match self.shared.tasks.spawn(work).await {
            Ok(answer) => written(answer),
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a request made the server panic");
                Refusal::internal().into_response()
            }
            Err(_) => Refusal::stopping().into_response(),
        }
    }
}

/// A request of HTTP/1.1 has one Host (RFC 9112 section 3.2); older ones need none.
fn names_its_host(head: &Parts) -> bool {
    match head.headers.get_all(HOST).iter().count() {
        0 => head.version < Version::HTTP_11,
        count => count == 1,
    }
}

/// Without a Transfer-Encoding, or with exactly one that is `chunked` and no more (RFC 9112 section 6.1): any other,
/// and a server in front may see another end of the body than we do.
fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Does this ask for Identify without authentication? Refuses any path that is not ours (T-2, T-16).
fn is_anonymous(head: &Parts) -> Result<bool, Refusal> {
    let path = head.uri.path();
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.eq_ignore_ascii_case("/wsman-anon/identify") {
        return Ok(true);
    }
    if !path.eq_ignore_ascii_case("/wsman") {
        return Err(Refusal::not_found());
    }
    let asked = head.headers.get(WSMANIDENTIFY);
    let asked = asked.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"unauthenticated"));
    Ok(asked && !head.headers.contains_key(AUTHORIZATION))
}

/// T-4, T-14. No Content-Type is SOAP.
fn media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let found = String::from_utf8_lossy(coding.as_bytes());
        return Err(Refusal::coding(&found));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    match value.to_str() {
        Ok(text) if is_soap_media_type(text) => Ok(()),
        _ => Err(Refusal::media_type(&String::from_utf8_lossy(
            value.as_bytes(),
        ))),
    }
}

/// Is that `Content-Type` one of SOAP 1.2 (or `text/xml`, which old scripts send)? Its parameters are not
/// looked at; an empty one counts as none (T-4).
fn is_soap_media_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    ["", "application/soap+xml", "text/xml"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
}

/// A refusal. What the header alone decides is told at once, and the body is read behind the answer: who waits for
/// 100 (Continue) hears it without sending one, and may log on over the same connection. A body that was already too
/// large is got out of the way first.
async fn refuse(mut refusal: Refusal, headers: &HeaderMap, mut body: Incoming) -> Response<Reply> {
    if refusal.close || body.is_end_stream() {
        return refusal.into_response();
    }
    if refusal.status == StatusCode::PAYLOAD_TOO_LARGE {
        refusal.close = headers.contains_key(EXPECT) || !body::discard(&mut body).await;
        return refusal.into_response();
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    refusal.close = announced > body::DISCARD;
    let response = refusal.into_response();
    match announced > body::DISCARD {
        true => response,
        false => response.map(|answer| answer.before(body)),
    }
}

fn written(answer: Answer) -> Response<Reply> {
    let mut response = Response::new(Reply::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !answer.content_type.is_empty() {
        let value = HeaderValue::from_static(answer.content_type);
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}
