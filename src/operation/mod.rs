//! The verbs of WS-Management (Get, Enumerate, Invoke, …), one file each, and the path that every request takes.
//! "Operation" means one such request here, as in OperationTimeout; work on snapshot sets is in `snapshot`.
//!
//! ```text
//!   bytes ─▶ receive ─▶ Request ─┬─▶ identify ────────────────────────────────────────────────────▶ bytes
//!               │                └─▶ known user, fresh view, quota
//!               │                      └─▶ get │ class │ config │ enumerate │ pull │ release ─────▶ bytes
//!               │                          invoke (role, audit) ──────────────────────────────────▶ bytes
//!               └──────────────▶ Fault ◀───┘
//! ```
//!
//! A verb asks the provider registry and writes the answer. Any error on the way is a [`Fault`] and becomes an envelope
//! here, in [`Server::handle`].

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
mod share;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::audit::Audit;
use crate::auth::throttle::ByKey;
use crate::clock::SharedClock;
use crate::framing::Charset;
use crate::handler::{Answer, Caller, Handler, Identity, Message};
use crate::provider::{Context, Pace, Registry};
use crate::text::catalog::operation as texts;
use crate::wsman::fault::{Attempt, Fault, FaultHeaders, table};
use crate::wsman::request::{
    Client, Glance, Headers, Incoming, Operation, Received, Rejected, Request, RequestLimits,
    attempt, receive,
};

pub use contexts::ContextLimits;

use contexts::Contexts;
use exchange::{Exchange, message_id};
use identify::IdentifyReplies;
use running::{Running, Turn};
use workers::{Failed, Workers};

/// Messages up to this size, in octets, are parsed on the async thread; larger ones on a worker. Any method call or
/// short query is smaller, and takes a fraction of a millisecond.
const SMALL: usize = 8 * 1024;
/// Most characters of what a fault quotes that is too large for its client.
const QUOTES: [usize; 2] = [256, 32];

/// Configuration of the protocol layer: limits, and what Identify and `winrm/config` report.
#[derive(Debug, Clone, Default)]
pub struct ProtocolSettings {
    /// Size and time of one request.
    pub limits: RequestLimits,
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
    /// The audit log; records method calls.
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
    identify_replies: IdentifyReplies,
    running: Arc<Running>,
    workers: Workers,
    /// Calls that a role does not allow, by user and method.
    denied: ByKey<(Arc<str>, String)>,
    settings: ProtocolSettings,
    clock: SharedClock,
}

impl Server {
    /// A server over these providers.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        settings: ProtocolSettings,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            contexts: Contexts::new(settings.contexts),
            identify_replies: IdentifyReplies::new(&settings),
            running: Arc::default(),
            workers: Workers::new(),
            denied: ByKey::default(),
            settings,
            clock,
        })
    }

    /// Waits until there is an enumeration that may have to be swept.
    pub async fn enumerates(&self) {
        self.contexts.any().await;
    }

    /// Forgets enumerations that nobody pulls any more; to be called every few seconds as long as there are some.
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
        began: Duration,
        turn: Option<Turn>,
    ) -> Result<Option<String>, Fault> {
        let Some(identity) = &caller.identity else {
            return Err(table::ACCESS_DENIED.fault(texts::AUTHENTICATION_NEEDED.text()));
        };
        let ready = tokio::time::timeout(self.left(headers, began), self.registry.ready());
        if ready.await.is_err() {
            return Err(late(headers));
        }
        let context = Context {
            identity: identity.clone(),
            language: headers.language,
            schema: self.registry.schema().clone(),
            timeout: headers.timeout,
            pace: Pace::default(),
        };
        let turn = turn.map_or_else(|| self.begin(identity), Ok)?;
        if self.left(headers, began).is_zero() {
            return Err(late(headers));
        }
        let exchange = Exchange::new(context, headers, charset, caller.peer, began);
        match operation {
            // Identify has an answer of its own, without headers.
            Operation::Identify | Operation::End => return Ok(None),
            Operation::Get(target) => get::get(self, &exchange, &target),
            Operation::GetClass(class) => class::get(&exchange, &class),
            Operation::GetConfig(part) => config::get(self, &exchange, part),
            Operation::Enumerate(wish) => enumerate::enumerate(self, &exchange, wish).await,
            Operation::Pull(wish) => pull::pull(self, &exchange, &wish).await,
            Operation::Release(context) => pull::release(self, &exchange, &context),
            Operation::Invoke(call) => invoke::invoke(self, &exchange, call, turn).await,
        }
        .map(Some)
    }

    /// What is left of the time of an operation.
    fn left(&self, headers: &Headers, began: Duration) -> Duration {
        let gone = self.clock.elapsed().saturating_sub(began);
        headers.timeout.saturating_sub(gone)
    }

    /// Parses a message: on this thread if it is small, else on a worker (a long query is slow to parse), within the time
    /// of its operation. Returns the deadline, too, and the place among the requests of its user that a large message has
    /// from here on: it waits, and the client may be gone already.
    async fn read(
        &self,
        reading: &Arc<Reading>,
        began: Duration,
    ) -> (Received, Duration, Option<Turn>) {
        if reading.is_small() {
            return (reading.read(), began + reading.limits.timeout, None);
        }
        let glance = reading.glance();
        let due = began + glance.time;
        let identity = reading.caller.identity.as_ref();
        let turn = match identity.map(|identity| self.begin(identity)).transpose() {
            Ok(turn) => turn,
            Err(fault) => return (glance.refused(fault), due, None),
        };
        let received = match self.in_its_place(reading, due, Reading::read).await {
            Ok(received) => received,
            Err(Failed::Broken) => glance.refused(page::broken()),
            Err(Failed::Late) => {
                let text = texts::READ_TIMED_OUT.with("seconds", glance.time.as_secs_f32());
                glance.refused(table::OPERATION_TIMEDOUT.fault(text))
            }
        };
        (received, due, turn)
    }

    /// What has begun is not waited for beyond the moment `due`; it keeps its place until it has ended.
    async fn in_its_place<T: Send + 'static>(
        &self,
        reading: &Arc<Reading>,
        due: Duration,
        read: fn(&Reading) -> T,
    ) -> Result<T, Failed> {
        if reading.is_small() {
            return Ok(read(reading));
        }
        let left = || match due.saturating_sub(self.clock.elapsed()) {
            Duration::ZERO => Err(Failed::Late),
            left => Ok(left),
        };
        let user = reading.caller.identity.as_ref().map(|i| i.user.clone());
        let evaluation = self.workers.begin(&user.unwrap_or_default());
        let place = self.workers.place(&evaluation, left()?).await?;
        let reading = reading.clone();
        let done = self.workers.run(place, move || read(&reading));
        let done = tokio::time::timeout(left()?, done).await;
        done.map_err(|_| Failed::Late)?
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

    /// The fault as an answer of at most as many octets as the client takes: what it wants returned (rule H-13), what it is
    /// told again of its request (rule F-11), and then all but the beginning of what is quoted is left out where that would
    /// break its own limit (rule H-20).
    async fn refuse(
        &self,
        rejected: Rejected,
        reading: &Arc<Reading>,
        (client, charset): (Client, Charset),
        due: Duration,
    ) -> Answer {
        let attempt = match rejected.fault.status {
            Some(_) if client != Client::Omi && reading.caller.identity.is_some() => {
                self.in_its_place(reading, due, Reading::attempt).await
            }
            _ => Ok(None),
        };
        let attempt = attempt.unwrap_or_default();
        let id = message_id();
        let mut headers = FaultHeaders {
            message_id: &id,
            relates_to: rejected.relates_to.as_deref(),
            reply_parameters: &rejected.reply_parameters,
            language: rejected.language,
            client,
            machine: &self.settings.machine,
            attempt: attempt.as_ref(),
        };
        if rejected.fault.is_internal() {
            let reason = rejected.fault.text.english();
            tracing::error!(activity = headers.activity(), %reason, "internal error");
        }
        let mut envelope = rejected.fault.envelope(&headers);
        let is_long = |envelope: &String| charset.octets(envelope) > rejected.max;
        let optional = !headers.reply_parameters.is_empty() || headers.attempt.is_some();
        if is_long(&envelope) && optional {
            headers.reply_parameters = "";
            headers.attempt = None;
            envelope = rejected.fault.envelope(&headers);
        }
        for most in QUOTES {
            if is_long(&envelope) {
                let text = rejected.fault.text.clone().shortened(most);
                let short = Fault {
                    text,
                    ..rejected.fault.clone()
                };
                envelope = short.envelope(&headers);
            }
        }
        answer(500, envelope, charset)
    }
}

/// A message, and what it is read with.
struct Reading {
    registry: Arc<Registry>,
    limits: RequestLimits,
    caller: Caller,
    message: Message,
}

impl Reading {
    fn is_small(&self) -> bool {
        self.message.body.len() <= SMALL
    }

    fn glance(&self) -> Glance {
        Glance::at(&self.incoming(), &self.limits)
    }

    fn incoming(&self) -> Incoming<'_> {
        Incoming {
            content_type: self.message.content_type.as_deref(),
            user_agent: &self.caller.user_agent,
            host: &self.caller.host,
            anonymous: self.caller.identity.is_none(),
            body: &self.message.body,
        }
    }

    fn read(&self) -> Received {
        receive(&self.incoming(), self.registry.schema(), &self.limits)
    }

    fn attempt(&self) -> Option<Attempt> {
        attempt(&self.incoming(), self.registry.schema(), &self.limits)
    }
}

#[async_trait]
impl Handler for Server {
    async fn handle(&self, caller: Caller, message: Message) -> Answer {
        let began = self.clock.elapsed().saturating_sub(caller.waited);
        let reading = Arc::new(Reading {
            registry: self.registry.clone(),
            limits: self.settings.limits.clone(),
            caller,
            message,
        });
        let (received, due, turn) = self.read(&reading, began).await;
        let Received {
            charset,
            client,
            request,
        } = received;
        let caller = &reading.caller;
        let Request { headers, operation } = match request {
            Ok(request) => request,
            Err(rejected) => {
                let to = (client, charset);
                return self.refuse(*rejected, &reading, to, due).await;
            }
        };
        if matches!(operation, Operation::Identify) {
            return self.identify_replies.answer(caller, charset);
        }
        match self
            .carry_out(caller, &headers, operation, charset, began, turn)
            .await
        {
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
                    language: headers.language,
                    max: headers.max_envelope_size,
                };
                let (to, due) = ((client, charset), began + headers.timeout);
                self.refuse(rejected, &reading, to, due).await
            }
        }
    }

    fn body_limit(&self) -> usize {
        self.settings.limits.max_envelope_size
    }
}

/// The time of the operation was up before it had begun.
fn late(headers: &Headers) -> Fault {
    let text = texts::LATE.with("seconds", headers.timeout.as_secs_f32());
    table::OPERATION_TIMEDOUT.fault(text)
}

fn answer(status: u16, envelope: String, charset: Charset) -> Answer {
    Answer {
        status,
        content_type: charset.content_type(),
        body: charset.encode(envelope).into(),
    }
}
