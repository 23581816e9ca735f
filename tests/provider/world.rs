//! A registry over simulated machines, and short ways to ask it.

use std::sync::Arc;
use std::time::Duration;

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Class, Instance, Path, Schema, Value};
use groupshot::clock::SystemClock;
use groupshot::engine::Compute;
use groupshot::engine::drivers::Drivers;
use groupshot::engine::sim::{self, Fault, Sim, Step, Trouble};
use groupshot::handler::{Identity, Role};
use groupshot::id::{JobId, VmId};
use groupshot::inventory::Job;
use groupshot::job::Jobs;
use groupshot::provider::virtualization::{Deps, registry};
use groupshot::provider::{Arguments, Context, Depth, Error, Outcome, Pace, Registry};
use groupshot::snapshot::{self, Coordinator, Exports, Limits};
use groupshot::store::Store;
use groupshot::store::memory::MemoryStore;
use groupshot::text::Language;

pub(super) const HOST: &str = "TESTHOST";
pub(super) const SNAPSHOTS: &str = "Msvm_CollectionSnapshotService";
pub(super) const VM_SNAPSHOTS: &str = "Msvm_VirtualSystemSnapshotService";
pub(super) const MANAGEMENT: &str = "Msvm_CollectionManagementService";

pub(super) struct World {
    pub(super) registry: Arc<Registry>,
    pub(super) schema: Arc<Schema>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) sim: Arc<Sim>,
    _directory: tempfile::TempDir,
}

impl World {
    pub(super) async fn new(machines: u32) -> Self {
        Self::waiting(machines, Duration::ZERO).await
    }

    /// A world whose methods wait so long for their own job.
    pub(super) async fn waiting(machines: u32, inline_wait: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = SystemClock::shared();
        let schema = Arc::new(Schema::builtin());
        let store = Arc::new(MemoryStore::new());
        let jobs = Jobs::new(store.clone(), clock.clone(), Duration::from_mins(10));
        let sim = Sim::new(directory.path(), machines, clock.now()).unwrap();
        let coordinator = Coordinator::new(snapshot::Deps {
            store: store.clone(),
            jobs: jobs.clone(),
            compute: sim.clone(),
            storage: Drivers::new(vec![sim.clone()]),
            frozen: Arc::default(),
            audit: Default::default(),
            clock: clock.clone(),
            data_dir: directory.path().to_owned(),
            exports: Exports::default(),
            limits: Limits::default(),
            guard: env!("CARGO_BIN_EXE_groupshot").into(),
        });
        coordinator.recover().await.unwrap();
        let registry = Arc::new(
            registry(Deps {
                schema: schema.clone(),
                store: store.clone(),
                jobs: jobs.clone(),
                machines: sim.observe(),
                coordinator,
                clock,
                host: Arc::from(HOST),
                inline_wait,
                kept: Arc::default(),
            })
            .unwrap(),
        );
        Self {
            registry,
            schema,
            store,
            jobs,
            sim,
            _directory: directory,
        }
    }

    pub(super) fn ctx(&self) -> Context {
        self.ctx_of("admin", Role::Administrator)
    }

    pub(super) fn ctx_of(&self, user: &str, role: Role) -> Context {
        Context {
            identity: Identity {
                user: Arc::from(user),
                role,
            },
            language: Language::EnUs,
            schema: self.schema.clone(),
            timeout: Duration::from_secs(60),
            pace: Pace::default(),
        }
    }

    pub(super) fn class(&self, name: &str) -> &Arc<Class> {
        self.schema.class(VIRTUALIZATION_V2, name).unwrap()
    }

    pub(super) fn all(&self, class: &str) -> Vec<Instance> {
        self.registry
            .enumerate(&self.ctx(), self.class(class), Depth::Deep)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    pub(super) fn get(&self, path: &Path) -> Result<Instance, Error> {
        self.registry.find(&self.ctx(), path)
    }

    /// Calls a method of the only instance of a service.
    pub(super) async fn call(
        &self,
        service: &str,
        method: &str,
        arguments: &[(&str, Value)],
    ) -> Outcome {
        let path = self.all(service)[0].path().unwrap();
        self.call_as(&self.ctx(), &path, method, arguments)
            .await
            .unwrap()
    }

    pub(super) async fn call_as(
        &self,
        ctx: &Context,
        path: &Path,
        method: &str,
        arguments: &[(&str, Value)],
    ) -> Result<Outcome, Error> {
        let method = self.class(path.class.as_str()).method(method).unwrap();
        let values = method.parameters.iter().map(|p| {
            let given = arguments.iter().find(|(name, _)| p.name == **name);
            given.map_or(Value::Null, |(_, value)| value.clone())
        });
        for (name, _) in arguments {
            assert!(method.parameter(name).is_some(), "no parameter {name}");
        }
        let arguments = Arguments::new(method.clone(), values.collect());
        let found = self.registry.find(ctx, path)?;
        self.registry.call(ctx, &found, method, arguments).await
    }

    /// A group of machines with these numbers.
    pub(super) async fn group(&self, name: &str, machines: &[u32]) -> Path {
        let group = self.define(name, 0).await;
        for number in machines {
            self.add(&group, &machine(*number)).await;
        }
        group
    }

    /// A group of groups.
    pub(super) async fn group_of_groups(&self, name: &str, groups: &[&Path]) -> Path {
        let above = self.define(name, 1).await;
        for group in groups {
            self.add(&above, group).await;
        }
        above
    }

    async fn define(&self, name: &str, kind: u16) -> Path {
        let arguments = [("Name", name.into()), ("Type", kind.into())];
        let outcome = self.call(MANAGEMENT, "DefineCollection", &arguments).await;
        assert_eq!(returned(&outcome), 0, "{outcome:?}");
        reference(&outcome, "DefinedCollection")
    }

    async fn add(&self, group: &Path, member: &Path) {
        let arguments = [
            ("Member", member.clone().into()),
            ("Collection", group.clone().into()),
        ];
        let outcome = self.call(MANAGEMENT, "AddMember", &arguments).await;
        assert_eq!(returned(&outcome), 0, "{outcome:?}");
    }

    /// CreateSnapshot of the group.
    pub(super) async fn create(&self, group: &Path, kind: u16, settings: &str) -> Outcome {
        let arguments = [
            ("Collection", group.clone().into()),
            ("SnapshotType", kind.into()),
            ("SnapshotSettings", settings.into()),
        ];
        self.call(SNAPSHOTS, "CreateSnapshot", &arguments).await
    }

    /// A snapshot set of the group, made; its path.
    pub(super) async fn snapshot(&self, group: &Path, kind: u16) -> Path {
        let outcome = self.create(group, kind, "").await;
        assert_eq!(returned(&outcome), 4096, "{}", self.reason(&outcome));
        let job = self.ended(&outcome).await;
        assert_eq!(job.state.number(), 7, "{:?}", job.error);
        reference(&outcome, "ResultingSnapshotCollection")
    }

    /// The job that the outcome names, once it has ended.
    pub(super) async fn ended(&self, outcome: &Outcome) -> Job {
        let job = self.jobs.wait(job_id(outcome), Duration::from_secs(60));
        let job = job.await.unwrap();
        assert!(job.state.is_terminal(), "{job:?}");
        job
    }

    /// CreateSnapshot of the group whose job hangs in its cut until [`Sim::release`].
    pub(super) async fn hanging(&self, group: &Path) -> Outcome {
        self.sim.order(Fault {
            machine: machine_id(1),
            disk: None,
            step: Step::Cut,
            trouble: Trouble::Hang,
            times: 1,
        });
        let outcome = self.create(group, 1, "").await;
        assert_eq!(returned(&outcome), 4096, "{}", self.reason(&outcome));
        while self.sim.hanging() == 0 {
            tokio::task::yield_now().await;
        }
        outcome
    }

    /// Why a call was refused.
    pub(super) fn reason(&self, outcome: &Outcome) -> String {
        let job = self.get(&reference(outcome, "Job")).unwrap();
        text(&job, "ErrorDescription").to_owned()
    }

    pub(super) fn revision(&self) -> u64 {
        self.store.state().revision
    }
}

/// A test that fails while a simulated step hangs must not hang itself.
impl Drop for World {
    fn drop(&mut self) {
        self.sim.release();
    }
}

pub(super) fn machine_id(number: u32) -> VmId {
    sim::machine_id(number)
}

pub(super) fn machine(number: u32) -> Path {
    Path::new(VIRTUALIZATION_V2, "Msvm_ComputerSystem")
        .key("CreationClassName", "Msvm_ComputerSystem")
        .key("Name", machine_id(number).to_string())
}

pub(super) fn returned(outcome: &Outcome) -> u64 {
    outcome.return_value.as_u64().unwrap()
}

pub(super) fn output<'a>(outcome: &'a Outcome, name: &str) -> Option<&'a Value> {
    let found = outcome.outputs.iter().find(|(n, _)| *n == name);
    found.map(|(_, value)| value)
}

pub(super) fn reference(outcome: &Outcome, name: &str) -> Path {
    let value = output(outcome, name).unwrap_or_else(|| panic!("no {name} in {outcome:?}"));
    value.as_reference().unwrap().clone()
}

pub(super) fn job_id(outcome: &Outcome) -> JobId {
    let path = reference(outcome, "Job");
    path.text("InstanceID").unwrap().parse().unwrap()
}

pub(super) fn text<'a>(instance: &'a Instance, property: &str) -> &'a str {
    instance.get(property).unwrap().as_str().unwrap()
}

pub(super) fn number(instance: &Instance, property: &str) -> u64 {
    instance.get(property).unwrap().as_u64().unwrap()
}
