//! One kept-alive HTTP or HTTPS connection that is opened when needed and opened again when the server closed it.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::tls::{self, Trust, connector};

use super::error::Error;

/// The largest answer that is read, in octets.
const ANSWER_MAX: usize = 64 << 20;

/// The longest that a server says without an envelope and is told, in octets.
const SAID_MAX: usize = 4 << 10;

/// What a client with a certificate sends as `Authorization`, as others do.
const MUTUAL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual";

/// User and password for Basic.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A server and the connection to it.
pub(super) struct Connection {
    url: String,
    host: String,
    port: u16,
    path: String,
    user: String,
    authorization: HeaderValue,
    /// HTTPS, for the server of that name.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    open: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Connection {
    /// Logs on with user and password, or without them by the certificate of `trust`.
    pub(super) fn new(
        url: &str,
        credentials: Option<&Credentials>,
        trust: &Trust,
    ) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Url {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|e| wrong(&format!("{e}")))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if credentials.is_some() => false,
            Some("http") => return Err(wrong("a certificate is shown over https:// only")),
            _ => return Err(wrong("only http:// and https:// are spoken")),
        };
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match secure {
            true => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong("its host is no name that a certificate could have"))?;
                Some((connector(trust)?, name))
            }
            false => None,
        };
        let mut authorization = HeaderValue::try_from(match credentials {
            Some(credentials) => basic(credentials),
            None => MUTUAL.to_owned(),
        })
        .map_err(|_| wrong("user and password cannot be sent"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            url: url.to_owned(),
            host,
            port: uri.port_u16().unwrap_or(if secure { 5986 } else { 5985 }),
            path: match uri.path() {
                "" | "/" => "/wsman".to_owned(),
                path => path.to_owned(),
            },
            user: credentials.map_or_else(String::new, |c| c.user.clone()),
            authorization,
            tls,
            open: Mutex::new(None),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends an envelope; gives the status (200 or 500) and the envelope that came back.
    pub(super) async fn post(
        &self,
        envelope: String,
        limit: Duration,
    ) -> Result<(u16, Bytes), Error> {
        match tokio::time::timeout(limit, self.exchange(envelope)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                url: self.url.clone(),
                seconds: limit.as_secs(),
            }),
        }
    }

    async fn exchange(&self, envelope: String) -> Result<(u16, Bytes), Error> {
        let mut open = self.open.lock().await;
        // Taken out, so that a call that is given up leaves no half-read connection behind.
        let mut sender = match open.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        if sender.ready().await.is_err() {
            sender = self.connect().await?;
        }
        let response = sender
            .send_request(self.request(envelope)?)
            .await
            .map_err(|e| self.unreachable(&e))?;
        let status = response.status().as_u16();
        if status == 401 {
            return Err(self.unauthorized(&response));
        }
        if !is_envelope(status, &response) {
            return Err(self.refused(status, said(response).await));
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|e| self.unreachable(&*e))?
            .to_bytes();
        *open = Some(sender);
        Ok((status, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| self.unreachable(&e))?;
        // Without it a request waits for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(|e| self.unreachable(&e))?;
        let Some((connector, name)) = &self.tls else {
            return self.speak(stream).await;
        };
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(|e| self.no_tls(&e))?;
        self.speak(stream).await
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(&e))?;
        tokio::spawn(async move {
            // Whoever waits for an answer gets the error as well.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn request(&self, envelope: String) -> Result<Request<Full<Bytes>>, Error> {
        let host = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        Request::post(&self.path)
            .header(HOST, host)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/soap+xml;charset=UTF-8")
            .header(USER_AGENT, concat!("groupshot/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(envelope))
            .map_err(|e| Error::Url {
                url: self.url.clone(),
                reason: e.to_string(),
            })
    }

    fn unreachable(&self, cause: &(dyn std::error::Error + 'static)) -> Error {
        let mut innermost = cause;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Error::Unreachable {
            url: self.url.clone(),
            reason: innermost.to_string(),
        }
    }

    /// The error of a failed handshake; it also says what to do about an untrusted certificate.
    fn no_tls(&self, cause: &std::io::Error) -> Error {
        let known = cause.get_ref().and_then(|e| e.downcast_ref());
        let reason = known.map_or_else(|| cause.to_string(), |e| tls::words(e).to_owned());
        let hint = match reason.contains("certificate") {
            true => "; --ca FILE names whom to believe",
            false => "",
        };
        Error::Unreachable {
            url: self.url.clone(),
            reason: format!("TLS: {reason}{hint}"),
        }
    }

    fn unauthorized<B>(&self, response: &Response<B>) -> Error {
        let offered = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let basic = offered
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("basic")));
        Error::Unauthorized {
            url: self.url.clone(),
            user: self.user.clone(),
            reason: match (basic, self.user.is_empty()) {
                (_, true) => "its certificate stands for no user".to_owned(),
                (true, false) => "user or password are wrong".to_owned(),
                (false, false) => {
                    "Basic authentication is not offered on this connection".to_owned()
                }
            },
        }
    }

    /// With the words of the server, or else with what the status means.
    fn refused(&self, status: u16, said: Option<String>) -> Error {
        let reason = match status {
            403 => "this user may not use the service",
            404 => "there is no WS-Management service at this path",
            413 => "the request is larger than the server takes",
            503 => "the server is busy or shutting down",
            _ => "this is not how a WS-Management service answers",
        };
        Error::Http {
            url: self.url.clone(),
            status,
            reason: said.unwrap_or_else(|| reason.to_owned()),
        }
    }
}

/// Text in place of an envelope is for whoever asked.
fn is_envelope<B>(status: u16, response: &Response<B>) -> bool {
    matches!(status, 200 | 500) && !is_plain(response)
}

fn is_plain<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next());
    essence.is_some_and(|it| it.trim().eq_ignore_ascii_case("text/plain"))
}

/// The first line of what a server says in words for people.
async fn said<B>(response: Response<B>) -> Option<String>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !is_plain(&response) {
        return None;
    }
    let body = Limited::new(response.into_body(), SAID_MAX);
    let bytes = body.collect().await.ok()?.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next()?.trim().trim_end_matches('.');
    (!line.is_empty()).then(|| line.to_owned())
}

fn basic(credentials: &Credentials) -> String {
    let pair = format!("{}:{}", credentials.user, credentials.password);
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {pair}")
}
