//! The port [`Running`] to a QEMU, by the connection that its watch holds.
//!
//! ```text
//!   describe ▶ attach: blockdev-add, compared ▶ stop, query-block, -jobs, -exports ▶ cut: one transaction ▶ cont
//!   detach: block-commit where the overlay is on top, then blockdev-del
//! ```
//!
//! Between `stop` and `cont` no file is looked at: what QEMU says of its disks is compared, as text, with what it said when
//! they were described. Before and after that, nodes are found by their files, as other names may be of any time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::engine::failure::At;
use crate::engine::{
    Described, EngineError, EngineErrorKind, Event, Fence, Graph, Live, Node, Plan, PutBack,
    QuiesceError, Quiesced, Runner, Running, ThawError, overlay,
};
use crate::inventory::{Machine, RunState};
use crate::text::Text;
use crate::text::catalog::engine as texts;

use super::admit::{self, Wanted};
use super::agent::Agent;
use super::answer::{Answer, Export, Job, List, Status};
use super::blocks::{self, Device, Finder};
use super::inspect::{Found, Told, questions};
use super::link::Link;
use super::peer::{self, FileId};
use super::qmp::{Command, Error};
use super::socket;
use super::watch::Watch;

/// The longest that any answer is waited for. Callers have less patience, where it matters.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it is waited until the watch sees a new file.
const SEEN: Duration = Duration::from_secs(2);
/// An answer of so many bytes is read on a thread of its own.
const LONG: usize = 64 << 10;
/// Between two looks at a job.
const GLANCE: Duration = Duration::from_millis(20);

/// What is kept between calls, as long as a QEMU is connected.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Which disk and file is meant by what QEMU calls a disk, when it was described last.
    disks: BTreeMap<String, (String, PathBuf)>,
    /// What a cut puts over which node, by the file of an overlay.
    attached: BTreeMap<PathBuf, Covering>,
}

/// An overlay that a QEMU has open.
#[derive(Debug, Clone)]
struct Covering {
    /// The format node of the disk.
    base: String,
    /// The node of the overlay.
    node: String,
    /// The overlay, once it is seen to be what was opened.
    file: Option<FileId>,
}

impl Known {
    pub(super) fn has_attached(&self, files: &BTreeSet<FileId>) -> bool {
        let attached = self.attached.values().filter_map(|it| it.file);
        attached.into_iter().any(|file| files.contains(&file))
    }
}

/// A machine that a QEMU runs.
pub(crate) struct Qemu {
    machine: Arc<Machine>,
    watch: Watch,
    link: Arc<Link>,
    agent: Option<Arc<Agent>>,
}

impl Qemu {
    /// The machine by its watch; `None` while that is not connected.
    pub(crate) fn of(machine: Arc<Machine>, watch: Watch) -> Option<Self> {
        let link = watch.link()?;
        let socket = machine.sockets.agent.as_ref();
        let agent = socket.map(|socket| watch.agent(&machine.name, socket));
        Some(Self {
            machine,
            watch,
            link,
            agent,
        })
    }

    async fn ask(&self, commands: Vec<Command>) -> Result<Vec<Answer>, EngineError> {
        let answers = self.link.ask(commands, LIMIT).await;
        answers.map_err(|error| self.failed(&error))
    }

    async fn ask_one(&self, command: &'static str, what: Value) -> Result<Answer, EngineError> {
        let answers = self.ask(vec![(command, what)]).await?;
        let less = || self.failed(&Error::Foreign("it answers with less than was asked"));
        answers.into_iter().next().ok_or_else(less)
    }

    /// What an answer tells. One that is long keeps nobody on this thread from their turn.
    async fn read<T>(&self, answer: Answer) -> Result<T, EngineError>
    where
        T: DeserializeOwned + Default + Send + 'static,
    {
        match answer.len() < LONG {
            true => Ok(answer.read()),
            false => self.apart(move || answer.read()).await,
        }
    }

    fn failed(&self, error: &Error) -> EngineError {
        let text = texts::MONITOR_FAILED.with("machine", &self.machine.name);
        let text = text.with("file", self.link.socket.display());
        EngineError {
            kind: match error {
                Error::Late(_) | Error::Busy => EngineErrorKind::Silent,
                Error::Closed | Error::Absent => EngineErrorKind::Missing,
                _ => EngineErrorKind::Failed,
            },
            text: text.with("cause", error.to_string()),
        }
    }

    /// Looks at files on a thread that may block.
    async fn apart<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|e| self.failed(&Error::Socket(io::Error::other(e))))
    }

    /// The disks of these devices, by what is known of them since they were described.
    fn graph(&self, devices: &[Device]) -> Graph {
        let known = self.watch.kept();
        let captured = devices.iter().filter(|device| device.is_captured);
        let graph = captured.map(|device| match known.disks.get(&device.key) {
            Some((disk, file)) => (disk.clone(), node(file, device)),
            None => (device.name.clone(), node(Path::new(device.place()), device)),
        });
        graph.collect()
    }

    /// The nodes of QEMU that hold a format, each by the file that it is.
    async fn nodes(&self) -> Result<Nodes, EngineError> {
        let asked = vec![
            ("query-block", json!({})),
            ("query-named-block-nodes", json!({"flat": true})),
            ("query-fdsets", json!({})),
        ];
        let answers = self.ask(asked).await?;
        let peer = self.link.peer.clone();
        self.apart(move || {
            let [blocks, nodes, sets] = &answers[..] else {
                return Nodes::default();
            };
            let (nodes, sets) = (nodes.read(), sets.read());
            let devices = blocks::devices(&blocks.read(), &nodes);
            let formats = blocks::formats(&nodes);
            let open = peer.as_ref().and_then(|peer| peer.files().ok());
            let finder = Finder {
                peer: peer.as_ref(),
                open: open.as_ref().filter(|open| !open.is_empty()),
                sets: &sets,
            };
            let found = formats.iter().filter_map(|(node, file)| {
                let file = finder.find(file.as_deref()?).ok()?;
                Some((file, node.clone()))
            });
            Nodes {
                files: found.collect(),
                names: formats
                    .iter()
                    .filter_map(|(node, file)| Some((file.clone()?.into(), node.clone())))
                    .collect(),
                devices,
            }
        })
        .await
    }

    /// A file of this host.
    async fn id(&self, file: &Path) -> Result<Option<FileId>, EngineError> {
        let file = file.to_owned();
        self.apart(move || peer::id(&file).ok()).await
    }

    /// Opens the overlay of a plan in QEMU, over this format node.
    async fn open(
        &self,
        plan: &Plan,
        node: &str,
        base: &blocks::Format,
    ) -> Result<(), EngineError> {
        let [_, file] = plan.names();
        let at = At::plan(plan);
        let add = json!({
            "driver": "qcow2",
            "node-name": node,
            "backing": null,
            "discard": "unmap",
            "detect-zeroes": base.detect_zeroes,
            "cache": {"direct": base.direct, "no-flush": base.no_flush},
            "file": {"driver": "file", "filename": file},
        });
        match self.link.ask(vec![("blockdev-add", add)], LIMIT).await {
            Ok(_) => Ok(()),
            Err(Error::Refused(_, why)) => {
                let text = at.text(texts::ATTACH_FAILED, &file).with("cause", why);
                Err(error(EngineErrorKind::Failed, text))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Has QEMU go on with what lies under the overlay of a plan that is in use, with all that the overlay holds. That both
    /// are equal is noted while nothing can be written, as later only one of them is.
    async fn merge(&self, plan: &Plan, commit: &Commit<'_>) -> Result<(), EngineError> {
        let mut begun = false;
        loop {
            let jobs = self.ask_one("query-jobs", json!({})).await?;
            let jobs = self.read(jobs).await?;
            match status_of(&jobs, commit.job) {
                None if begun => return Ok(()),
                None => {
                    // Of an attempt that somebody else has ended.
                    let own = plan.clone();
                    self.apart(move || own.forget_put_back()).await??;
                    self.ask_one("block-commit", commit.arguments()).await?;
                }
                // It may have gone on by itself since.
                Some("ready") => self.job("job-complete", commit.job).await?,
                Some("pending") => {
                    let own = plan.clone();
                    let noted = self.apart(move || own.note_put_back()).await?;
                    if noted.is_err() {
                        // It may be there all the same, and the overlay is written again.
                        let own = plan.clone();
                        self.apart(move || own.forget_put_back()).await??;
                        self.job("job-cancel", commit.job).await?;
                    }
                    noted?;
                    self.job("job-finalize", commit.job).await?;
                }
                Some(_) => {}
            }
            begun = true;
            sleep(GLANCE).await;
        }
    }

    /// Has a job go on, unless it is not where it was.
    async fn job(&self, verb: &'static str, job: &str) -> Result<(), EngineError> {
        match self.link.ask(vec![(verb, json!({"id": job}))], LIMIT).await {
            Ok(_) | Err(Error::Refused(..)) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Has QEMU forget the overlay of a plan.
    async fn close(&self, plan: &Plan, job: &str) -> Result<(), EngineError> {
        let [_, file] = plan.names();
        let (there, made) = (self.id(&file).await?, plan.made());
        let is_away = made.is_some_and(|made| there != Some(made));
        let nodes = self.nodes().await?;
        let base = self.id(&plan.disk.file).await?;
        let base = base.and_then(|base| nodes.files.get(&base));
        let Some(mut node) = nodes.of(&file, made.or(there)) else {
            // It is not in use if the disk is that of before.
            return match is_away && base.is_none_or(|base| nodes.top(base).is_none()) {
                true => Err(At::plan(plan).error(EngineErrorKind::Missing, texts::AWAY, &file)),
                false => Ok(()),
            };
        };
        let still_used = || At::plan(plan).error(EngineErrorKind::Locked, texts::STILL_USED, &file);
        if let Some(top) = nodes.top(&node) {
            let base = base.ok_or_else(still_used)?;
            let commit = Commit {
                job,
                device: &top.root,
                overlay: &node,
                base,
            };
            self.merge(plan, &commit).await?;
            let nodes = self.nodes().await?;
            match nodes.of(&file, made.or(there)) {
                None => return Ok(()),
                Some(left) if nodes.top(&left).is_some() => {
                    let own = plan.clone();
                    self.apart(move || own.forget_put_back()).await??;
                    return Err(still_used());
                }
                Some(left) => node = left,
            }
        }
        let delete = vec![("blockdev-del", json!({"node-name": node}))];
        match self.link.ask(delete, LIMIT).await {
            Ok(_) => Ok(()),
            Err(Error::Refused(..)) => Err(still_used()),
            Err(error) => Err(self.failed(&error)),
        }
    }
}

/// A merge of an overlay into what lies under it.
struct Commit<'a> {
    job: &'a str,
    /// The node on top, a filter or the overlay itself.
    device: &'a str,
    overlay: &'a str,
    base: &'a str,
}

impl Commit<'_> {
    fn arguments(&self) -> Value {
        json!({
            "job-id": self.job,
            "device": self.device,
            // Without it a filter would be merged away with the overlay.
            "top-node": self.overlay,
            // Without it all would go down to the bottom of the chain.
            "base-node": self.base,
            "auto-finalize": false,
        })
    }
}

/// The format nodes of a QEMU.
#[derive(Default)]
struct Nodes {
    files: BTreeMap<FileId, String>,
    /// By the names under which they were opened, which may lead elsewhere by now.
    names: BTreeMap<PathBuf, String>,
    devices: Vec<Device>,
}

impl Nodes {
    /// The node of what is this file, or was it when it was opened.
    fn of(&self, name: &Path, file: Option<FileId>) -> Option<String> {
        let found = file.and_then(|file| self.files.get(&file));
        found.or_else(|| self.names.get(name)).cloned()
    }

    /// The device that has this node on top, below filters.
    fn top(&self, node: &str) -> Option<&Device> {
        let has = |device: &&Device| device.format.as_ref().is_some_and(|it| it.node == node);
        self.devices.iter().find(has)
    }
}

#[async_trait]
impl Running for Qemu {
    fn runner(&self) -> Runner {
        self.link.runner.clone()
    }

    async fn describe(&self) -> Result<Described, EngineError> {
        let mut asked = questions();
        asked.push(("query-status", json!({})));
        asked.push(("query-block-exports", json!({})));
        let mut answers = self.ask(asked).await?;
        let less = || self.failed(&Error::Foreign("it answers with less than was asked"));
        let exports = answers.pop().ok_or_else(less)?;
        let state = answers.pop().as_ref().map(state_of).ok_or_else(less)?;
        let told = Told::of(answers, self.link.peer.clone(), &self.link.socket);
        let machine = Arc::clone(&self.machine);
        let peer = self.link.peer.clone();
        let reached = self.link.runner.clone();
        let looked = move || Looked {
            user: peer.and_then(|peer| peer.user()).filter(is_other),
            runner: runner(&machine, reached),
            ..look(&machine, told, &exports.read())
        };
        let looked = self.apart(looked).await?;
        let mut known = self.watch.kept();
        known.disks = looked.disks;
        drop(known);
        Ok(Described {
            state,
            graph: self.graph(&looked.devices),
            jobs: looked.jobs,
            agent: looked.agent,
            live: Live { user: looked.user },
            runner: looked.runner,
            obstacle: looked.obstacle,
        })
    }

    async fn state(&self) -> Result<RunState, EngineError> {
        let status = self.ask_one("query-status", json!({})).await?;
        Ok(state_of(&status))
    }

    fn takes(&self, plan: &Plan) -> bool {
        plan.driver == overlay::NAME
    }

    async fn attach(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let nodes = self.nodes().await?;
        let mut names = BTreeSet::new();
        for (number, plan) in plans.iter().enumerate() {
            let [_, file] = plan.names();
            let (at, top) = (At::plan(plan), self.id(&plan.disk.file).await?);
            let base = top.and_then(|top| nodes.top(nodes.files.get(&top)?)?.format.as_ref());
            let base = base.ok_or_else(|| {
                at.error(EngineErrorKind::Failed, texts::CHANGED, &plan.disk.file)
            })?;
            let overlay = self.id(&file).await?;
            let node = match overlay.and_then(|id| nodes.files.get(&id)) {
                Some(there) => there.clone(),
                None => {
                    let node = name(plan, number);
                    self.open(plan, &node, base).await?;
                    names.insert(node.clone());
                    node
                }
            };
            let covering = Covering {
                base: base.node.clone(),
                node,
                file: None,
            };
            self.watch.kept().attached.insert(file, covering);
        }
        // What it has opened is what was made: in its mount namespace another file may have the name.
        let nodes = self.nodes().await?;
        let mut opened = Vec::new();
        for plan in plans {
            let [_, file] = plan.names();
            let id = self.id(&file).await?;
            let id = id.filter(|id| nodes.files.contains_key(id));
            let id = id.ok_or_else(|| {
                At::plan(plan).error(EngineErrorKind::Failed, texts::ATTACHED_OTHER, &file)
            })?;
            opened.push(id);
            if let Some(covering) = self.watch.kept().attached.get_mut(&file) {
                covering.file = Some(id);
            }
        }
        self.watch.sees(&opened, SEEN).await;
        Ok(())
    }

    async fn detach(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        for plan in plans {
            self.close(plan, &put_back(plan).job).await?;
            let [_, file] = plan.names();
            self.watch.kept().attached.remove(&file);
        }
        Ok(())
    }

    async fn quiesce(&self) -> Result<Quiesced, QuiesceError> {
        let agent = self.agent().await.map_err(QuiesceError::Untouched)?;
        agent.quiesce().await
    }

    async fn is_frozen(&self) -> Result<bool, EngineError> {
        self.agent().await?.is_frozen().await
    }

    async fn leave(&self) {
        if let Some(agent) = &self.agent {
            agent.leave().await;
        }
    }

    async fn thaw(&self) -> Result<(), ThawError> {
        let agent = self.agent().await.map_err(ThawError::Frozen)?;
        agent.thaw().await
    }

    async fn stop(&self) -> Result<(RunState, Graph), EngineError> {
        // A stop of somebody else is told before the first is answered.
        let asked = vec![
            ("query-status", json!({})),
            ("stop", json!({})),
            ("query-block", json!({})),
            ("query-jobs", json!({})),
            ("query-block-exports", json!({})),
        ];
        let mut answers = self.ask(asked).await?.into_iter();
        let (Some(before), Some(_), Some(blocks), Some(jobs), Some(exports)) = (
            answers.next(),
            answers.next(),
            answers.next(),
            answers.next(),
            answers.next(),
        ) else {
            return Err(self.failed(&Error::Foreign("it answers with less than was asked")));
        };
        let jobs: List<Job> = self.read(jobs).await?;
        // A job writes on while the machine stands still.
        if let Some(job) = jobs.iter().next() {
            let text = texts::JOB_BEGUN.with("machine", &self.machine.name);
            let text = text.with("job", job.id.text());
            return Err(error(EngineErrorKind::Failed, text));
        }
        // So does whoever has it through an export.
        let exports = self.read(exports).await?;
        if let Some(text) = exported(&self.machine.name, &exports) {
            return Err(error(EngineErrorKind::Failed, text));
        }
        let blocks = self.read(blocks).await?;
        let graph = self.graph(&blocks::devices(&blocks, &List::default()));
        Ok((state_of(&before), graph))
    }

    async fn cut(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let mut actions = Vec::new();
        {
            let known = self.watch.kept();
            for plan in plans {
                let [_, file] = plan.names();
                let covering = known.attached.get(&file).ok_or_else(|| {
                    At::plan(plan).error(EngineErrorKind::Failed, texts::NOT_PREPARED, &file)
                })?;
                let data = json!({"node": covering.base, "overlay": covering.node});
                actions.push(json!({"type": "blockdev-snapshot", "data": data}));
            }
        }
        let transaction = json!({"actions": actions});
        self.ask_one("transaction", transaction).await.map(drop)
    }

    async fn resume(&self) -> Result<(), EngineError> {
        self.ask_one("cont", json!({})).await.map(drop)
    }

    async fn unblock(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let jobs = self.ask_one("query-jobs", json!({})).await?;
        let jobs = self.read(jobs).await?;
        for plan in plans {
            let back = put_back(plan);
            if status_of(&jobs, &back.job) != Some("pending") {
                continue;
            }
            let (job, note) = (back.job.clone(), back.note.clone());
            let noted = self.apart(move || back.is_noted()).await?;
            let verb = match noted.map_err(|e| At::plan(plan).io(&note, &e))? {
                true => "job-finalize",
                false => "job-cancel",
            };
            self.job(verb, &job).await?;
        }
        Ok(())
    }

    async fn fence(&self, quiesces: bool, plans: &[&Plan]) -> Result<Option<Fence>, EngineError> {
        let monitor = self.link.duplicate();
        let monitor = monitor.map_err(|e| self.failed(&Error::Socket(e)))?;
        self.watch.lend();
        let sockets = &self.machine.sockets;
        // The one that it is connected to greets again first.
        let others = sockets.qmp.iter().filter(|it| **it != self.link.socket);
        Ok(Some(Fence {
            monitor,
            monitor_sockets: std::iter::once(&self.link.socket)
                .chain(others)
                .cloned()
                .collect(),
            agent: match quiesces {
                true => Some(self.agent().await?.duplicate().await?),
                false => None,
            },
            agent_socket: sockets.agent.clone(),
            runner: self.link.runner.clone(),
            jobs: plans.iter().map(|plan| put_back(plan)).collect(),
        }))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.watch.events()
    }
}

impl Qemu {
    /// The agent behind the QEMU that is connected, and no other.
    async fn agent(&self) -> Result<&Agent, EngineError> {
        let missing = || texts::NO_AGENT.with("machine", &self.machine.name);
        let agent = self.agent.as_deref();
        let agent = agent.ok_or_else(|| error(EngineErrorKind::Failed, missing()))?;
        agent.is_of(self.link.peer.as_ref()).await;
        Ok(agent)
    }
}

/// What was found out about a QEMU and its files.
struct Looked {
    devices: Vec<Device>,
    disks: BTreeMap<String, (String, PathBuf)>,
    jobs: Vec<String>,
    agent: bool,
    user: Option<u32>,
    runner: Runner,
    obstacle: Option<Text>,
}

/// Compares what QEMU has said with the definition. Blocks.
fn look(machine: &Machine, told: Told, exports: &List<Export>) -> Looked {
    let found = told.found(&machine.sockets);
    let wanted: Vec<_> = machine
        .disks
        .iter()
        .filter_map(|disk| {
            Some(Wanted {
                disk: &disk.id,
                file: &disk.file,
                id: peer::id(&disk.file).ok()?,
                format: disk.format,
                size: disk.size,
            })
        })
        .collect();
    let disks = found.disks.iter().filter_map(|(device, id)| {
        let id = id.as_ref().ok()?;
        let wanted = wanted.iter().find(|it| it.id == *id)?;
        let disk = (wanted.disk.to_owned(), wanted.file.to_owned());
        Some((device.key.clone(), disk))
    });
    Looked {
        disks: disks.collect(),
        obstacle: obstacle(machine, &found, &wanted, exports),
        jobs: found.jobs,
        agent: found.agent,
        user: None,
        runner: Runner::default(),
        devices: found.disks.into_iter().map(|(device, _)| device).collect(),
    }
}

/// What was reached, with all its sockets. A process of which is seen that it has no file of the machine open has made the
/// sockets for another one, and tells nothing. Blocks.
fn runner(machine: &Machine, reached: Runner) -> Runner {
    let files = reached.process.as_ref().and_then(|it| it.files().ok());
    let files = files.filter(|files| !files.is_empty());
    let is_open = |files: &BTreeSet<FileId>| {
        let mut disks = machine.disks.iter();
        disks.any(|disk| peer::id(&disk.file).is_ok_and(|id| files.contains(&id)))
    };
    let has_disks = files.as_ref().map(is_open);
    let sockets = &machine.sockets;
    let others = sockets.qmp.iter().chain(&sockets.agent).filter_map(|it| {
        let held = socket::hold(it).ok()?;
        Some((it.clone(), socket::stamp(held).ok()?))
    });
    let mut sockets: BTreeMap<_, _> = others.collect();
    sockets.extend(reached.sockets);
    Runner {
        process: reached.process.filter(|_| has_disks != Some(false)),
        has_disks: has_disks == Some(true),
        sockets,
    }
}

/// What keeps the machine from being captured, that its own operator has to see to.
fn obstacle(
    machine: &Machine,
    found: &Found,
    wanted: &[Wanted<'_>],
    exports: &List<Export>,
) -> Option<Text> {
    let name = &machine.name;
    if let Err(error) = admit::fits(name, found, wanted) {
        return Some(error.text);
    }
    if !machine.unmanaged_ok && !found.others.is_empty() {
        let text = texts::MONITOR_TAKEN.with("machine", name);
        return Some(text.with("others", found.others.join(", ")));
    }
    if let Some(text) = exported(name, exports) {
        return Some(text);
    }
    let mut captured = found.disks.iter().filter(|(device, _)| device.is_captured);
    let careless = captured.find(|(device, _)| {
        let format = device.format.as_ref();
        format.is_some_and(|format| format.no_flush)
    });
    match careless {
        Some((device, _)) if !machine.no_flush_ok => {
            let text = texts::NO_FLUSH.with("machine", name);
            let text = text.with("device", device.name.as_str());
            Some(text.with("file", device.place()))
        }
        _ => None,
    }
}

/// That others have disks of the machine through exports. Whether they may write is not told.
fn exported(name: &str, exports: &List<Export>) -> Option<Text> {
    let ids = exports.iter().map(|export| export.id.0.as_deref());
    let ids: Vec<_> = ids.map(Option::unwrap_or_default).collect();
    let text = texts::EXPORTED.with("machine", name);
    (!ids.is_empty()).then(|| text.with("exports", ids.join(", ")))
}

/// Whether this user needs to be given what this process may do by itself.
fn is_other(user: &u32) -> bool {
    *user != 0 && *user != rustix::process::geteuid().as_raw()
}

fn node(file: &Path, device: &Device) -> Node {
    Node {
        file: file.to_owned(),
        size: device.size,
    }
}

fn state_of(answer: &Answer) -> RunState {
    RunState::of_status(answer.read::<Status>().status.text())
}

/// Of the node of an overlay; at most 31 characters.
fn name(plan: &Plan, number: usize) -> String {
    format!("{}-{number}", prefix(plan))
}

/// The job that merges the overlay of a plan back.
fn put_back(plan: &Plan) -> PutBack {
    let [note, _] = plan.names();
    PutBack {
        job: format!("{}-undo-{}", prefix(plan), plan.disk.id),
        note,
    }
}

fn prefix(plan: &Plan) -> String {
    let set: String = plan.set.to_string().chars().take(8).collect();
    format!("gs-{set}")
}

/// The status of a job in the answer to `query-jobs`, if it is there.
fn status_of<'a>(jobs: &'a List<Job>, job: &str) -> Option<&'a str> {
    let job = jobs.iter().find(|it| it.id.text() == job)?;
    Some(job.status.text())
}

fn error(kind: EngineErrorKind, text: Text) -> EngineError {
    EngineError { kind, text }
}
