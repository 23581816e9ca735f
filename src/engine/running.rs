//! The port [`Running`]: a machine that runs, as the window of a set asks it to stand still and to be captured
//! (`docs/cut.md` §2).
//!
//! Each call goes to whatever runs the machine and waits for its answer. The caller bounds that, and drops a call that
//! takes too long; what was asked may then still happen, so everything that lets a machine go on may be repeated.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::engine::{EngineError, Live, Plan, PutBack, Runner};
use crate::id::VmId;
use crate::inventory::{RunState, Sockets};
use crate::text::Text;

/// A machine that runs or is paused.
#[async_trait]
pub trait Running: Send + Sync + 'static {
    /// What this leads to, whatever is at the sockets of the machine by now: a process that has ended is replaced by no
    /// other. Nothing where that cannot be told.
    fn runner(&self) -> Runner {
        Runner::default()
    }

    /// What it is like now.
    ///
    /// # Errors
    /// It does not tell.
    async fn describe(&self) -> Result<Described, EngineError>;

    /// What it does now, and nothing else of what it is like.
    ///
    /// # Errors
    /// It does not tell.
    async fn state(&self) -> Result<RunState, EngineError>;

    /// Whether it captures this disk itself, by [`Running::cut`], as it has to go on with another file. Else the storage
    /// driver captures the file while the machine stands still.
    fn takes(&self, plan: &Plan) -> bool;

    /// Makes the files of these plans, which it [takes](Running::takes), known to it, and uses none of them yet. May be
    /// repeated.
    ///
    /// # Errors
    /// It cannot open one; call `detach` then.
    async fn attach(&self, plans: &[&Plan]) -> Result<(), EngineError>;

    /// Has it forget the files of these plans, also where it went on with them: it is then back on those from before, with
    /// all that it has written, and [`Plan::note_put_back`] comes before that. A file that was [made](Plan::with_made) is
    /// found by what it is, also where it has another name by now. May be repeated, and done without `attach`.
    ///
    /// # Errors
    /// They are still in use, or a file is not at its place and nothing shows that it is not; it is tried again.
    async fn detach(&self, plans: &[&Plan]) -> Result<(), EngineError>;

    /// Has the guest's applications write what they hold, and freezes its file systems.
    ///
    /// # Errors
    /// [`QuiesceError`]. Unless the guest is [as it was](QuiesceError::Untouched), some may be frozen, now or later.
    async fn quiesce(&self) -> Result<Quiesced, QuiesceError>;

    /// Whether file systems of the guest are frozen. Not while it is stopped: the agent runs in it. Asked once more after a
    /// thaw, so that nobody stays connected to the agent.
    ///
    /// # Errors
    /// The agent does not tell.
    async fn is_frozen(&self) -> Result<bool, EngineError>;

    /// Leaves the agent to others, unless its guest was asked to freeze and is not known to be thawed. May be repeated.
    async fn leave(&self);

    /// Thaws them. May be repeated.
    ///
    /// # Errors
    /// [`ThawError`].
    async fn thaw(&self) -> Result<(), ThawError>;

    /// Stops its processors with nothing in flight to its disks, and says in the same breath what it did until then and
    /// what its disks are. May be repeated.
    ///
    /// # Errors
    /// It may be stopped all the same, now or later.
    async fn stop(&self) -> Result<(RunState, Graph), EngineError>;

    /// While it is stopped: captures all these disks, which it [takes](Running::takes), or none.
    ///
    /// # Errors
    /// None is captured, or that cannot be told.
    async fn cut(&self, plans: &[&Plan]) -> Result<(), EngineError>;

    /// Lets its processors run. May be repeated.
    ///
    /// # Errors
    /// It may be stopped still.
    async fn resume(&self) -> Result<(), EngineError>;

    /// Ends what a dead process may have left at these plans right before the last step of [`Running::detach`]: nothing is
    /// written to the disk meanwhile, though the machine runs. Finishes what is noted as put back, and takes back what is
    /// not. May be repeated.
    ///
    /// # Errors
    /// Its disks may stand still.
    async fn unblock(&self, plans: &[&Plan]) -> Result<(), EngineError>;

    /// By what a process of its own, the guard, lets it go if this one cannot; asked for before it is stopped, with
    /// the connection by which its guest is frozen if it is to be, and what it may be left at once these plans, which it
    /// [takes](Running::takes), are undone. `None` for one that does not outlive this process.
    ///
    /// # Errors
    /// It cannot be told; nobody may stop it then.
    async fn fence(&self, quiesces: bool, plans: &[&Plan]) -> Result<Option<Fence>, EngineError>;

    /// What happens to it from now on that was not asked for by a call of this port.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// What a machine is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What it does.
    pub state: RunState,
    /// Its disks.
    pub graph: Graph,
    /// Jobs at work on its disks, by name.
    pub jobs: Vec<String>,
    /// An agent answers in its guest.
    pub agent: bool,
    /// Who opens its files.
    pub live: Live,
    /// What runs it.
    pub runner: Runner,
    /// What else keeps it from being captured.
    pub obstacle: Option<Text>,
}

/// The disks that a machine writes to, by disk id; one that its definition does not name has the name that the machine
/// has for it.
pub type Graph = BTreeMap<String, Node>;

/// A disk as the machine that runs has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The active file.
    pub file: PathBuf,
    /// Virtual size in bytes.
    pub size: u64,
}

/// A guest at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiesced {
    /// How many file systems are frozen.
    pub count: usize,
    /// For how long, from now on; it thaws them by itself then.
    pub limit: Option<Duration>,
}

/// Why a guest was not brought to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuiesceError {
    /// It was not asked to: somebody else had frozen it before, or the agent does not answer.
    Untouched(EngineError),
    /// Anything else.
    Failed(EngineError),
}

/// Why a guest was not thawed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThawError {
    /// Some file systems may still be frozen.
    Frozen(EngineError),
    /// All are thawed, and the guest says that they had not stayed frozen until then.
    NotHeld(EngineError),
}

/// By what a guard reaches a machine.
#[derive(Debug)]
pub struct Fence {
    /// The connection to the monitor by which it is stopped: a duplicate.
    pub monitor: OwnedFd,
    /// The sockets of its monitors, the best first.
    pub monitor_sockets: Vec<PathBuf>,
    /// The connection by which its guest is frozen, if it is open already: a duplicate.
    pub agent: Option<OwnedFd>,
    /// The socket of the agent of its guest, if it has one.
    pub agent_socket: Option<PathBuf>,
    /// What was stopped. Whoever else is at the sockets is told nothing.
    pub runner: Runner,
    /// What keeps its disks from going on while it waits for its last step.
    pub jobs: Vec<PutBack>,
}

/// A machine that an operation may have stopped, as it was before. By this it is found again, whatever has become of its
/// definition and of its files since.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// The machine.
    pub machine: VmId,
    /// Its name, for texts.
    pub name: String,
    /// Its sockets; none where that was not written down.
    pub sockets: Sockets,
    /// What ran it.
    pub runner: Runner,
    /// Files of which it has at least one open for writing unless it has ended.
    pub files: Vec<PathBuf>,
    /// More of them, that may not be there.
    pub new_files: Vec<PathBuf>,
}

/// What has a monitor watched for an operation, until all of it is dropped.
pub type Followed = Option<Arc<dyn Any + Send + Sync>>;

/// What a guard gives back to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dues {
    /// It ran before, and goes on.
    pub goes_on: bool,
    /// Its guest may be frozen, and is thawed.
    pub thaws: bool,
}

/// What came of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// It has said that it goes on.
    pub goes_on: bool,
    /// Its guest was still frozen then.
    pub was_frozen: bool,
    /// Its guest has said that it is thawed.
    pub is_thawed: bool,
    /// A job of ours that kept its disks from going on was ended.
    #[serde(default)]
    pub was_blocked: bool,
    /// What was stopped has ended, and is owed nothing any more.
    #[serde(default)]
    pub has_ended: bool,
}

/// What somebody else did to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its processors were stopped.
    Stopped,
    /// They run again.
    Resumed,
    /// It was reset.
    Reset,
    /// It was shut down, or what ran it has ended.
    ShutDown,
}
