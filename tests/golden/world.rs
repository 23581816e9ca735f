//! The server that answers: everything behind HTTP, over simulated machines, at a standing clock.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groupshot::cim::Schema;
use groupshot::clock::{ManualClock, SharedClock};
use groupshot::engine::Compute;
use groupshot::engine::drivers::Drivers;
use groupshot::engine::sim::{self, Sim};
use groupshot::framing::Charset;
use groupshot::handler::{Caller, Handler, Message};
use groupshot::id::{JobId, VmId};
use groupshot::inventory::JobState;
use groupshot::job::Jobs;
use groupshot::operation::{ContextLimits, ProtocolSettings, Server};
use groupshot::provider::virtualization;
use groupshot::snapshot::{self, Coordinator};
use groupshot::store::Store;
use groupshot::store::memory::MemoryStore;
use groupshot::wscim::Family;

use super::ask::{Ask, epr};

/// The host.
pub(super) const HOST: &str = "HV01";
/// The collection of both machines.
pub(super) const COLLECTION: &str = "C0110000-0000-4000-8000-000000000001";
/// Both families.
pub(super) const FAMILIES: [Family; 2] = [Family::Dmtf, Family::Wmi];

/// What a test may turn.
#[derive(Default)]
pub(super) struct Options {
    pub(super) inline_wait: Duration,
    pub(super) contexts: Option<ContextLimits>,
}

/// A server with two machines.
pub(super) struct World {
    server: Arc<Server>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) sim: Arc<Sim>,
    pub(super) jobs: Arc<Jobs>,
    data: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(super) async fn with(options: Options) -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap());
        let shared: SharedClock = clock.clone();
        let sim = Sim::new(data.path(), 2, "2025-12-31T23:59:59Z".parse().unwrap()).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let jobs = Jobs::new(store.clone(), shared.clone(), Duration::from_secs(3600));
        let coordinator = Coordinator::new(snapshot::Deps {
            store: store.clone(),
            jobs: jobs.clone(),
            compute: sim.clone(),
            storage: Drivers::new(vec![sim.clone()]),
            frozen: Arc::default(),
            audit: Default::default(),
            clock: shared.clone(),
            data_dir: data.path().canonicalize().unwrap(),
            // One machine after the other, so that progress comes in one order.
            exports: snapshot::Exports::default(),
            limits: snapshot::Limits {
                parallel: 1,
                ..snapshot::Limits::default()
            },
            guard: env!("CARGO_BIN_EXE_groupshot").into(),
        });
        coordinator.recover().await.unwrap();
        let deps = virtualization::Deps {
            schema: Arc::new(Schema::builtin()),
            store,
            jobs: jobs.clone(),
            machines: sim.observe(),
            coordinator,
            clock: shared.clone(),
            host: HOST.into(),
            inline_wait: options.inline_wait,
            kept: Arc::default(),
        };
        let settings = ProtocolSettings {
            contexts: options.contexts.unwrap_or_default(),
            basic: true,
            connections: 300,
            machine: HOST.to_owned(),
            ..ProtocolSettings::default()
        };
        let registry = Arc::new(virtualization::registry(deps).unwrap());
        let server = Server::new(registry, settings, shared);
        Self {
            server,
            clock,
            sim,
            jobs,
            data,
        }
    }

    /// A server with a collection of both machines.
    pub(super) async fn with_collection(options: Options) -> Self {
        let world = Self::with(options).await;
        let define = format!("<p:Name>both</p:Name><p:Id>{COLLECTION}</p:Id><p:Type>0</p:Type>");
        world.call(&management("DefineCollection", &define)).await;
        for number in [1, 2] {
            world.call(&add_member(Family::Wmi, number)).await;
        }
        world
    }

    /// Calls a method that must answer 0.
    async fn call(&self, ask: &Ask) {
        let reply = self.send(ask).await;
        assert!(reply.text.contains("<p:ReturnValue>0<"), "{}", reply.text);
    }

    pub(super) async fn send(&self, ask: &Ask) -> Reply {
        let caller = Caller {
            identity: ask.identity.clone(),
            peer: "127.0.0.1:1".parse().unwrap(),
            secure: false,
            waited: Duration::ZERO,
            user_agent: ask.user_agent.into(),
            host: "".into(),
        };
        let message = Message {
            content_type: ask.content_type.clone(),
            body: Bytes::from(ask.bytes()),
        };
        let answer = self.server.handle(caller, message).await;
        let (text, charset) = Charset::decode(&answer.body, None).unwrap();
        Reply {
            status: answer.status,
            content_type: answer.content_type.to_owned(),
            utf16: charset != Charset::Utf8,
            text: text.into_owned(),
            asked_action: ask.action.clone().unwrap_or_default(),
            asked_message_id: ask.message_id.clone().filter(|_| ask.raw.is_none()),
            data: self.data.path().display().to_string(),
        }
    }

    /// Sends and returns the id of the job that the answer names.
    pub(super) async fn start(&self, ask: &Ask) -> JobId {
        self.send(ask).await.job()
    }

    /// Waits until the status of a running job says so.
    pub(super) async fn until(&self, job: JobId, words: &str) {
        let says = || {
            self.jobs
                .get(job)
                .is_some_and(|j| j.status.english().contains(words))
        };
        let wait = async {
            while !says() {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "the job never says {words}");
    }

    /// Waits for the end of a job.
    pub(super) async fn ended(&self, job: JobId) -> JobState {
        let ended = self.jobs.wait(job, Duration::from_secs(60)).await;
        let state = ended.expect("the job is there").state;
        assert!(state.is_terminal(), "job {job} has not ended");
        state
    }
}

/// The machine of that number, counted from 1.
pub(super) fn machine(number: u32) -> VmId {
    sim::machine_id(number)
}

/// A call of the management service, WMI form.
pub(super) fn management(method: &str, parameters: &str) -> Ask {
    Ask::invoke(
        Family::Wmi,
        "Msvm_CollectionManagementService",
        method,
        parameters,
    )
}

/// A call of AddMember.
pub(super) fn add_member(family: Family, number: u32) -> Ask {
    let id = machine(number).to_string();
    let member = epr(
        family,
        "Msvm_ComputerSystem",
        &[("CreationClassName", "Msvm_ComputerSystem"), ("Name", &id)],
    );
    let parameters = format!("<p:Member>{member}</p:Member>{}", collection(family));
    Ask::invoke(
        family,
        "Msvm_CollectionManagementService",
        "AddMember",
        &parameters,
    )
}

/// The parameter `Collection`.
pub(super) fn collection(family: Family) -> String {
    let epr = epr(
        family,
        "Msvm_VirtualSystemCollection",
        &[("CollectionID", COLLECTION)],
    );
    format!("<p:Collection>{epr}</p:Collection>")
}

/// A call of CreateSnapshot; `more` are further parameters.
pub(super) fn create_snapshot(family: Family, kind: u16, more: &str) -> Ask {
    let parameters = format!(
        "{}{more}<p:SnapshotType>{kind}</p:SnapshotType>",
        collection(family)
    );
    Ask::invoke(
        family,
        "Msvm_CollectionSnapshotService",
        "CreateSnapshot",
        &parameters,
    )
}

/// An answer, and what of its request the answer is held against.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) utf16: bool,
    pub(super) text: String,
    pub(super) asked_action: String,
    pub(super) asked_message_id: Option<String>,
    data: String,
}

impl Reply {
    /// The enumeration context.
    pub(super) fn context(&self) -> String {
        super::rules::element(&self.text, "n:EnumerationContext")
            .unwrap_or_else(|| panic!("no context: {}", self.text))
            .to_owned()
    }

    /// The job.
    pub(super) fn job(&self) -> JobId {
        self.selector("<p:Job>", "InstanceID").parse().unwrap()
    }

    /// A selector of the reference that follows `element`.
    pub(super) fn selector(&self, element: &str, name: &str) -> &str {
        let rest = self.text.split_once(element).map(|(_, rest)| rest);
        rest.and_then(|r| r.split_once(&format!("<w:Selector Name=\"{name}\">")))
            .and_then(|(_, r)| r.split('<').next())
            .unwrap_or_else(|| panic!("no {name} behind {element}: {}", self.text))
    }

    /// Does a fault name a file of the server?
    pub(super) fn leaks(&self) -> bool {
        self.text.contains("<s:Fault>") && self.text.contains(&self.data)
    }

    /// The answer as it stands in a golden file: one element a line, random parts replaced by names.
    pub(super) fn page(&self) -> String {
        if self.text.is_empty() {
            return format!("<!-- {}, no body -->\n", self.status);
        }
        let text = self
            .text
            .replace(&self.data, "/data")
            .replace(
                &format!("OS: {} SP", env!("CARGO_PKG_VERSION")),
                "OS: {version} SP",
            )
            .replace("><", ">\n<");
        format!(
            "<!-- {} {} -->\n{}\n",
            self.status,
            self.content_type,
            without_random_guids(&text)
        )
    }
}

/// Replaces each upper-case GUID that is not fixed by the tests by a number, in the order they come.
fn without_random_guids(text: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = (0..rest.len()).find(|at| guid_at(rest, *at)) {
        let guid = &rest[at..at + 36];
        out += &rest[..at];
        if fixed(guid) {
            out += guid;
        } else {
            let number = seen.iter().position(|g| *g == guid).unwrap_or(seen.len());
            if number == seen.len() {
                seen.push(guid);
            }
            write!(out, "{{guid-{}}}", number + 1).unwrap();
        }
        rest = &rest[at + 36..];
    }
    out + rest
}

fn guid_at(text: &str, at: usize) -> bool {
    let Some(guid) = text.get(at..at + 36) else {
        return false;
    };
    guid.bytes().enumerate().all(|(n, b)| match n {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_digit() || (b'A'..=b'F').contains(&b),
    })
}

/// Ids of the tests and of the simulation.
fn fixed(guid: &str) -> bool {
    ["5EED51B0-", "C0110000-", "00000000-"]
        .iter()
        .any(|start| guid.starts_with(start))
}
