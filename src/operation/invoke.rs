//! Method calls: the action is the class URI and the method's name. DSP0227 9, rules I-1, I-10 to I-15.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::audit::{self, About, Event, Place, Written};
use crate::cim::{Method, Path, Value};
use crate::handler::{Identity, Role};
use crate::provider::{Arguments, Context, Error, Outcome, Registry, Status, roles};
use crate::soap::Vocabulary;
use crate::text::catalog::operation as texts;
use crate::wscim;
use crate::wsman::fault::{Fault, Tried, table};
use crate::wsman::request::{self, Target};

use super::Server;
use super::exchange::Exchange;
use super::get::unfound;
use super::running::Turn;

/// Calls the method, if the user may, and answers with its output.
pub(super) async fn invoke(
    server: &Server,
    exchange: &Exchange<'_>,
    call: request::Invoke,
    turn: Turn,
) -> Result<String, Fault> {
    let identity = &exchange.context.identity;
    let class = &call.target.class;
    if let Err(refused) = roles::check(identity, class, &call.method) {
        drop(turn);
        let method = format!("{}.{}", call.target.path.class, call.method.name);
        // Rate-limited: a user without the role could otherwise flood the audit log.
        if let Some(times) = server.denied.happened((identity.user.clone(), method)) {
            let arguments = Arguments::new(call.method.clone(), call.arguments);
            let about = about(server, exchange, &call.target, &arguments);
            let mut entry = Entry::new(server, exchange, (&call.target.path, &call.method), about);
            entry.times = times;
            let left = server.left(exchange.headers, exchange.began);
            entry.is(None, Some(&refused.status), None);
            let told = async {
                entry.wait(left).await;
                entry.written().await;
            };
            let _late = tokio::time::timeout(left, told).await;
        }
        return Err(Failure::Called(refused).fault(&call.target.path));
    }
    let reads = roles::required(class, call.method.name.as_str()) == Some(Role::Reader);
    let method = call.method.clone();
    let work = Work {
        registry: server.registry.clone(),
        context: exchange.context.clone(),
        target: call.target,
        arguments: Arguments::new(Method::clone(&method), call.arguments),
        method: method.clone(),
        _turn: turn,
    };
    let (path, limit) = (work.target.path.clone(), exchange.headers.timeout);
    let left = server.left(exchange.headers, exchange.began);
    let outcome = match reads {
        true => tokio::time::timeout(left, work.call())
            .await
            .map_err(|_| timed_out(&method, limit))?,
        // A task of its own: neither the timeout nor a client that hangs up stops what has begun.
        false => {
            let about = about(server, exchange, &work.target, &work.arguments);
            let mut entry = Entry::new(server, exchange, (&work.target.path, &method), about);
            entry.outcome.1 = Some("NotBegun".to_owned());
            if !entry.wait(left).await {
                return Err(super::late(exchange.headers));
            }
            entry.outcome.1 = Some("Interrupted".to_owned());
            let left = server.left(exchange.headers, exchange.began);
            let work = tokio::spawn(work.call_audited(entry));
            match tokio::time::timeout(left, work).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_panic)) => return Err(broken(&method)),
                Err(_) => return Err(timed_out(&method, limit)),
            }
        }
    };
    let outcome = outcome.map_err(|failure| failure.fault(&path))?;
    let answer = write(exchange, &method, &outcome);
    let (size, limit) = (exchange.octets(&answer), exchange.headers.max_envelope_size);
    if size <= limit {
        return Ok(answer);
    }
    Err(match outcome.changed {
        true => table::UNREPORTABLE_SUCCESS.fault(
            texts::UNREPORTABLE
                .with("method", &method.name)
                .with("size", size)
                .with("limit", limit),
        ),
        false => table::MAX_ENVELOPE_SIZE_EXCEEDED.fault(
            texts::ANSWER_TOO_LARGE
                .with("size", size)
                .with("limit", limit),
        ),
    })
}

/// A call with everything that it needs.
struct Work {
    registry: Arc<Registry>,
    context: Context,
    target: Target,
    method: Arc<Method>,
    arguments: Arguments,
    /// It is under way until its end, whether somebody waits for the answer or not.
    _turn: Turn,
}

/// Why a call has no outcome.
enum Failure {
    /// The object is not to be found.
    Sought(Error),
    /// The method raised it, or nobody may call it.
    Called(Error),
}

impl Failure {
    const fn status(&self) -> &Status {
        match self {
            Self::Sought(error) | Self::Called(error) => &error.status,
        }
    }

    fn fault(self, path: &Path) -> Fault {
        match self {
            Self::Sought(error) => unfound(error, path),
            Self::Called(error) => Fault::from_status(error.status, error.text, Tried::Invoke),
        }
    }
}

impl Work {
    async fn call(self) -> Result<Outcome, Failure> {
        let Target { class, path } = &self.target;
        let found = self.registry.get(&self.context, class, path);
        let found = found.map_err(Failure::Sought)?;
        self.registry
            .call(&self.context, &found, &self.method, self.arguments)
            .await
            .map_err(Failure::Called)
    }

    /// The call, and its line in the audit log.
    async fn call_audited(self, mut entry: Entry) -> Result<Outcome, Failure> {
        let (registry, context, target) = (
            self.registry.clone(),
            self.context.clone(),
            self.target.clone(),
        );
        let outcome = match AssertUnwindSafe(self.call()).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(panic) => {
                entry.written().await;
                resume_unwind(panic)
            }
        };
        if let Ok(done) = &outcome {
            let results: Vec<_> = done
                .outputs
                .iter()
                .map(|(name, value)| (*name, value))
                .collect();
            let made = registry.about(&context, &target.class, &target.path, &results);
            entry.about = std::mem::take(&mut entry.about).and(&made);
        }
        match &outcome {
            Ok(done) => entry.is(done.return_value.as_u64(), None, job(done)),
            Err(failure) => entry.is(None, Some(failure.status()), None),
        }
        entry.written().await;
        outcome
    }
}

/// A line of the audit log in the making. It is written in any case, by a panic too.
struct Entry {
    place: Option<Place>,
    peer: SocketAddr,
    identity: Identity,
    method: String,
    object: String,
    about: About,
    outcome: (Option<u64>, Option<String>, Option<String>),
    /// So many calls like it.
    times: u64,
}

impl Entry {
    fn new(
        server: &Server,
        exchange: &Exchange<'_>,
        (path, method): (&Path, &Method),
        about: About,
    ) -> Self {
        Self {
            place: Some(server.settings.audit.place()),
            peer: exchange.peer,
            identity: exchange.context.identity.clone(),
            method: format!("{}.{}", path.class, method.name),
            object: audit::shortened(&path.to_string()),
            about,
            outcome: (None, None, None),
            times: 1,
        }
    }

    /// Waits up to `limit` until the audit log has room for the line; whether it has.
    async fn wait(&mut self, limit: Duration) -> bool {
        match &mut self.place {
            Some(place) => tokio::time::timeout(limit, place.wait()).await.is_ok(),
            None => false,
        }
    }

    /// Sets the outcome. Of an error only the status name is logged: its text may quote what the client sent.
    fn is(&mut self, result: Option<u64>, fault: Option<&Status>, job: Option<String>) {
        self.outcome = (result, fault.map(|f| format!("{f:?}")), job);
    }

    /// Writes it, and waits until that is done.
    async fn written(mut self) {
        if let Some(written) = self.write() {
            written.await;
        }
    }

    fn write(&mut self) -> Option<Written> {
        let place = self.place.take()?;
        let (result, fault, job) = std::mem::take(&mut self.outcome);
        let (user, role) = (&*self.identity.user, self.identity.role.to_string());
        // How a call ended that was not refused so early is told by whoever works on it.
        if let Some(fault) = &fault {
            let (method, object) = (self.method.as_str(), self.object.as_str());
            let times = self.times;
            tracing::warn!(method, object, user, role, fault, times, "Call refused");
        }
        let event = Event::Call {
            user,
            role: &role,
            method: std::mem::take(&mut self.method),
            object: std::mem::take(&mut self.object),
            result,
            fault,
            job,
            times: self.times,
            about: self.about.brief(),
        };
        Some(place.record(&self.peer, &event))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _nobody_waits = self.write();
    }
}

/// What the call is about, as far as its parameters tell.
fn about(
    server: &Server,
    exchange: &Exchange<'_>,
    target: &Target,
    arguments: &Arguments,
) -> About {
    let values: Vec<(&str, &Value)> = arguments.named().collect();
    server
        .registry
        .about(&exchange.context, &target.class, &target.path, &values)
}

fn write(exchange: &Exchange<'_>, method: &Method, outcome: &Outcome) -> String {
    let headers = exchange.headers;
    let mut reply = exchange.reply(Vocabulary::Transfer);
    wscim::write_output(
        reply.body(),
        &headers.resource_uri,
        method,
        &outcome.outputs,
        &outcome.return_value,
        headers.style(),
    );
    reply.finish()
}

fn timed_out(method: &Method, limit: Duration) -> Fault {
    let text = texts::TIMED_OUT
        .with("method", &method.name)
        .with("seconds", limit.as_secs_f32());
    table::OPERATION_TIMEDOUT.fault(text)
}

fn broken(method: &Method) -> Fault {
    table::INTERNAL_ERROR.fault(texts::BROKEN_METHOD.with("method", &method.name))
}

/// The id of the job that an answer names.
fn job(outcome: &Outcome) -> Option<String> {
    let (_, value) = outcome.outputs.iter().find(|(name, _)| *name == "Job")?;
    value.as_reference()?.text("InstanceID").map(str::to_owned)
}
