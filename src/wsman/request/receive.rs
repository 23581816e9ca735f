//! From the bytes of a body to a request, or to what is needed to word the refusal.

use std::borrow::Cow;
use std::time::Duration;

use crate::cim::Schema;
use crate::framing::{Charset, Media, Unsupported};
use crate::soap::Envelope;
use crate::text::Language;
use crate::text::catalog::{operation, wire};
use crate::wsman::fault::{Fault, table};
use crate::xml;

use super::{Client, Request, RequestLimits, headers, parse};

/// A message as HTTP hands it over.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The `Content-Type` header, if any.
    pub content_type: Option<&'a str>,
    /// The `User-Agent` header; empty if absent.
    pub user_agent: &'a str,
    /// The `Host` header; empty if absent.
    pub host: &'a str,
    /// Has nobody logged on? Then nothing but Identify is read.
    pub anonymous: bool,
    /// The body.
    pub body: &'a [u8],
}

/// What came of a message.
#[derive(Debug)]
pub struct Received {
    /// The character set of the request; the answer is written in it (rule T-6).
    pub charset: Charset,
    /// What the client is known to need.
    pub client: Client,
    /// The request.
    pub request: Result<Request, Box<Rejected>>,
}

/// A request that is answered by a fault before it is carried out.
#[derive(Debug)]
pub struct Rejected {
    /// Why.
    pub fault: Fault,
    /// `a:MessageID`, if it could be read (rule F-5).
    pub relates_to: Option<String>,
    /// Header blocks to be returned (rule H-13), as markup.
    pub reply_parameters: String,
    /// What the fault is written in.
    pub language: Language,
    /// Most octets of the fault (rule H-20).
    pub max: usize,
}

impl From<Fault> for Rejected {
    /// Of a request of which nothing is known.
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            relates_to: None,
            reply_parameters: String::new(),
            language: Language::default(),
            max: headers::ENVELOPE_MIN,
        }
    }
}

impl From<Fault> for Box<Rejected> {
    fn from(fault: Fault) -> Self {
        Self::new(fault.into())
    }
}

/// How much of a message is looked at before it is read. A usual header has less than 4 KiB.
const GLANCED: usize = 16 << 10;

/// What the header of a message tells before the message is read.
#[derive(Debug, Clone)]
pub struct Glance {
    /// How long the operation may take.
    pub time: Duration,
    charset: Charset,
    client: Client,
    relates_to: Option<String>,
    reply_parameters: String,
    language: Language,
    max: usize,
}

impl Glance {
    /// Looks at the header, as far as it is whole within the first 16384 octets of the message. It takes little time,
    /// however long the message is.
    #[must_use]
    pub fn at(message: &Incoming<'_>, limits: &RequestLimits) -> Self {
        let mut glance = Self {
            time: limits.timeout,
            charset: Charset::default(),
            client: Client::of(message.user_agent, ""),
            relates_to: None,
            reply_parameters: String::new(),
            language: Language::default(),
            max: headers::ENVELOPE_MIN,
        };
        // A character may be cut in two.
        let starts = (0..4).map(|less| Incoming {
            body: message.body.get(..GLANCED - less).unwrap_or(message.body),
            ..*message
        });
        let Some((text, charset)) = starts.into_iter().find_map(|start| decode(&start).ok()) else {
            return glance;
        };
        glance.charset = charset;
        let document = xml::parse_first(&text).ok();
        let root = document.as_ref().map(xml::Document::root);
        if let Some(envelope) = root.and_then(Envelope::header_only) {
            glance.time = headers::time(&envelope, limits);
            glance.client = Client::of(message.user_agent, &headers::to(&envelope));
            glance.relates_to = headers::message_id(&envelope);
            glance.reply_parameters = headers::reply_parameters(&envelope);
            glance.language = headers::language(&envelope);
            // One that says nothing so far may do so further on.
            glance.max = headers::fault_size(&envelope, limits).unwrap_or(glance.max);
        }
        glance
    }

    /// What comes of the message where it is not read, for this reason.
    #[must_use]
    pub fn refused(self, fault: Fault) -> Received {
        Received {
            charset: self.charset,
            client: self.client,
            request: Err(Box::new(Rejected {
                fault,
                relates_to: self.relates_to,
                reply_parameters: self.reply_parameters,
                language: self.language,
                max: self.max,
            })),
        }
    }
}

/// Reads a message. Takes any bytes, and never panics.
#[must_use]
pub fn receive(message: &Incoming<'_>, schema: &Schema, limits: &RequestLimits) -> Received {
    let (charset, client, request) = match decode(message) {
        Ok((text, charset)) => {
            let (client, request) = read(&text, message, schema, limits);
            (charset, client, request)
        }
        Err(fault) => (
            Charset::default(),
            Client::of(message.user_agent, ""),
            Err(fault.into()),
        ),
    };
    Received {
        charset,
        client,
        request,
    }
}

pub(super) fn decode<'a>(message: &Incoming<'a>) -> Result<(Cow<'a, str>, Charset), Fault> {
    let declared = match Media::parse(message.content_type) {
        Ok(Media::Soap(declared)) => declared,
        Ok(Media::Encrypted) => {
            return Err(table::UNSUPPORTED_FEATURE.fault(wire::ENCRYPTED.text()));
        }
        Err(Unsupported::Media(media)) => {
            return Err(table::UNSUPPORTED_MEDIA.fault(wire::MEDIA_TYPE.with("media", media)));
        }
        Err(Unsupported::Charset(name)) => {
            return Err(table::CHARACTER_SET.fault(wire::CHARSET.with("charset", name)));
        }
    };
    Charset::decode(message.body, declared).map_err(|e| {
        let text = wire::BAD_TEXT
            .with("charset", e.charset.name())
            .with("at", e.at);
        table::CHARACTER_SET.fault(text)
    })
}

fn read(
    text: &str,
    message: &Incoming<'_>,
    schema: &Schema,
    limits: &RequestLimits,
) -> (Client, Result<Request, Box<Rejected>>) {
    let unknown = Client::of(message.user_agent, "");
    // Its header may be whole all the same.
    let refused = |fault: Fault| {
        let max = Glance::at(message, limits).max;
        Box::new(Rejected {
            max,
            ..Rejected::from(fault)
        })
    };
    let document = match xml::parse(text) {
        Ok(document) => document,
        Err(e) => {
            let text = wire::NOT_XML.with("cause", &e.kind).with("at", e.at);
            return (
                unknown,
                Err(refused(table::SCHEMA_VALIDATION_ERROR.fault(text))),
            );
        }
    };
    let envelope = match Envelope::parse(document.root()) {
        Ok(envelope) => envelope,
        Err(e) => return (unknown, Err(refused(e.into()))),
    };
    let client = Client::of(message.user_agent, &headers::to(&envelope));
    let request = match message.anonymous && !parse::asks_identity(&envelope) {
        true => Err(table::ACCESS_DENIED.fault(operation::AUTHENTICATION_NEEDED.text())),
        false => Request::parse(&envelope, schema, limits, message.host),
    };
    let request = request.map_err(|fault| {
        Box::new(Rejected {
            fault,
            relates_to: headers::message_id(&envelope),
            reply_parameters: headers::reply_parameters(&envelope),
            language: headers::language(&envelope),
            max: headers::fault_size(&envelope, limits).unwrap_or(limits.max_envelope_size),
        })
    });
    (client, request)
}

impl Client {
    /// The client program by its `User-Agent` and by how it writes `a:To`: OMI's library sends the scheme
    /// in upper case and, in some builds, no `User-Agent`.
    #[must_use]
    pub fn of(user_agent: &str, to: &str) -> Self {
        let shouts = to.starts_with("HTTP://") || to.starts_with("HTTPS://");
        let omi = user_agent.contains("xplat http client") || (user_agent.is_empty() && shouts);
        if omi { Self::Omi } else { Self::Other }
    }
}
