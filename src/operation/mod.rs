//! The protocol's verbs, one file each, and the road that every request takes.
//!
//! ```text
//!   bytes ─▶ receive ─▶ Request ─▶ role ─▶ identify │ get │ enumerate │ pull │ invoke │ config ─▶ bytes
//!               └───────────── Fault ◀──────┴──────────────────┘
//! ```
//!
//! A verb asks the provider registry and writes the answer; whatever goes wrong on the way is a
//! [`Fault`] and becomes an envelope here, in [`Server::handle`].

mod class;
mod config;
mod contexts;
mod cursor;
mod enumerate;
mod exchange;
mod get;
mod identify;
mod invoke;
mod page;
mod pull;
mod related;
mod running;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::audit::Audit;
use crate::clock::SharedClock;
use crate::framing::Charset;
use crate::handler::{Answer, Caller, Handler, Identity, Message};
use crate::provider::{Context, Registry};
use crate::text::catalog::operation as texts;
use crate::wsman::fault::{Fault, FaultHeaders, table};
use crate::wsman::request::{
    Client, Headers, Incoming, Limits, Operation, Received, Rejected, Request, receive,
};

pub use contexts::ContextLimits;

use contexts::Contexts;
use exchange::{Exchange, message_id};
use identify::Identities;
use running::{Running, Turn};

/// What the server promises and what it allows.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Size and time of one operation.
    pub limits: Limits,
    /// Open enumerations.
    pub contexts: ContextLimits,
    /// Is Basic offered at all?
    pub basic: bool,
    /// Also over plain HTTP from other hosts?
    pub allow_unencrypted: bool,
    /// Is there a listener with TLS?
    pub https: bool,
    /// May users log on with a certificate there?
    pub client_certificates: bool,
    /// Requests that one user may have under way; `None` for any number.
    pub user_requests: Option<usize>,
    /// Where it is told who has called what.
    pub audit: Audit,
    /// Open connections, told in `winrm/config`.
    pub connections: usize,
    /// The name of this host, told in faults.
    pub machine: String,
}

/// Answers WS-Management messages from the providers.
pub struct Server {
    registry: Arc<Registry>,
    contexts: Contexts,
    identities: Identities,
    running: Arc<Running>,
    settings: Settings,
    clock: SharedClock,
}

impl Server {
    /// A server over these providers.
    #[must_use]
    pub fn new(registry: Arc<Registry>, settings: Settings, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            registry,
            contexts: Contexts::new(settings.contexts),
            identities: Identities::new(&settings),
            running: Arc::default(),
            settings,
            clock,
        })
    }

    /// Forgets enumerations that nobody pulls any more; to be called every few seconds.
    pub fn sweep(&self) {
        self.contexts.sweep(self.clock.elapsed());
    }

    /// How many requests are under way.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.running.all()
    }

    /// How many enumerations are open.
    #[must_use]
    pub fn open_enumerations(&self) -> usize {
        self.contexts.len()
    }

    /// Carries out a request; `None` is an empty answer.
    async fn carry_out(
        &self,
        caller: &Caller,
        headers: &Headers,
        operation: Operation,
        charset: Charset,
    ) -> Result<Option<String>, Fault> {
        let Some(identity) = &caller.identity else {
            return Err(table::ACCESS_DENIED.fault(texts::AUTHENTICATION_NEEDED.text()));
        };
        let context = Context {
            identity: identity.clone(),
            schema: self.registry.schema().clone(),
            timeout: headers.timeout,
        };
        let turn = self.begin(identity)?;
        let exchange = Exchange::new(context, headers, charset, caller.peer);
        match operation {
            // Identify has an answer of its own, without headers.
            Operation::Identify | Operation::End => return Ok(None),
            Operation::Get(target) => get::get(self, &exchange, &target),
            Operation::GetClass(class) => class::get(&exchange, &class),
            Operation::GetConfig(part) => config::get(self, &exchange, part),
            Operation::Enumerate(wish) => enumerate::enumerate(self, &exchange, &wish),
            Operation::Pull(wish) => pull::pull(self, &exchange, &wish),
            Operation::Release(context) => pull::release(self, &exchange, &context),
            Operation::Invoke(call) => invoke::invoke(self, &exchange, call, turn).await,
        }
        .map(Some)
    }

    /// Rule Q-22.
    fn begin(&self, identity: &Identity) -> Result<Turn, Fault> {
        let limit = self.settings.user_requests;
        self.running.begin(&identity.user, limit).ok_or_else(|| {
            let text = texts::TOO_MANY_REQUESTS
                .with("user", &identity.user)
                .with("limit", limit.unwrap_or_default());
            table::QUOTA_MAX_OPERATIONS.fault(text)
        })
    }

    /// The fault as an answer of at most `max` octets: what the client wants returned (rule H-13) is left
    /// out where it alone would break its own limit (rule H-20).
    fn refuse(&self, rejected: &Rejected, client: Client, charset: Charset, max: usize) -> Answer {
        let id = message_id();
        let mut headers = FaultHeaders {
            message_id: &id,
            relates_to: rejected.relates_to.as_deref(),
            reply_parameters: &rejected.reply_parameters,
            client,
            machine: &self.settings.machine,
        };
        if rejected.fault.is_internal() {
            let reason = rejected.fault.text.render();
            tracing::error!(activity = headers.activity(), %reason, "internal error");
        }
        let mut envelope = rejected.fault.envelope(&headers);
        if charset.octets(&envelope) > max && !headers.reply_parameters.is_empty() {
            headers.reply_parameters = &[];
            envelope = rejected.fault.envelope(&headers);
        }
        answer(500, envelope, charset)
    }
}

#[async_trait]
impl Handler for Server {
    async fn handle(&self, caller: Caller, message: Message) -> Answer {
        let incoming = Incoming {
            content_type: message.content_type.as_deref(),
            user_agent: &caller.user_agent,
            host: &caller.host,
            body: &message.body,
        };
        let Received {
            charset,
            client,
            request,
        } = receive(&incoming, self.registry.schema(), &self.settings.limits);
        let Request { headers, operation } = match request {
            Ok(request) => request,
            Err(rejected) => {
                let max = self.settings.limits.max_envelope_size;
                return self.refuse(&rejected, client, charset, max);
            }
        };
        if matches!(operation, Operation::Identify) {
            return self.identities.answer(&caller, charset);
        }
        match self.carry_out(&caller, &headers, operation, charset).await {
            Ok(Some(envelope)) => answer(200, envelope, charset),
            Ok(None) => Answer {
                status: 200,
                content_type: "",
                body: Bytes::new(),
            },
            Err(fault) => {
                let rejected = Rejected {
                    fault,
                    relates_to: headers.message_id,
                    reply_parameters: headers.reply_parameters,
                };
                self.refuse(&rejected, client, charset, headers.max_envelope_size)
            }
        }
    }

    fn body_limit(&self) -> usize {
        self.settings.limits.max_envelope_size
    }
}

fn answer(status: u16, envelope: String, charset: Charset) -> Answer {
    Answer {
        status,
        content_type: charset.content_type(),
        body: charset.encode(envelope).into(),
    }
}
