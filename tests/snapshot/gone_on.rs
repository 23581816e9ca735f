//! Sets of a machine that runs, over real files: it goes on with its overlay itself. Whatever fails then, nothing is lost
//! that it has written there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use groupshot::audit::Audit;
use groupshot::engine::library::Library;
use groupshot::engine::locks::ImageLock;
use groupshot::engine::sim::{Sim, Step, Trouble, machine_id};
use groupshot::engine::{
    At, Compute, Described, EngineError, Event, Fence, Graph, Hold, InTurn, Live, Machines, Node,
    Observed, Plan, QuiesceError, Quiesced, Recorded, Running, ThawError, Top,
};
use groupshot::failpoint::FailedOnOrder;
use groupshot::id::VmId;
use groupshot::inventory::{Consistency, Job, JobState, Machine, RunState};
use groupshot::snapshot::{CreateRequest, Passage, Refused};
use groupshot::store::Store;
use groupshot::store::memory::MemoryStore;
use groupshot::text::Text;
use tokio::sync::{broadcast, watch};

use super::running;
use super::world::{Left, World, furnish, group, request};
use crate::support::tools;

/// A machine that runs, without a process: it writes where it is told to.
struct Guest {
    root: PathBuf,
    id: VmId,
    graph: Graph,
    /// It can be asked to go on with another file.
    takes: bool,
    /// It notes what it has put back.
    notes: bool,
    /// What it does; the test ends it.
    state: Mutex<RunState>,
    /// The file that it went on with.
    on: Mutex<Option<PathBuf>>,
    events: broadcast::Sender<Event>,
}

impl Guest {
    fn on(&self) -> Option<PathBuf> {
        self.on.lock().unwrap().clone()
    }

    fn set(&self, state: RunState) {
        *self.state.lock().unwrap() = state;
    }
}

#[async_trait]
impl Running for Guest {
    async fn describe(&self) -> Result<Described, EngineError> {
        Ok(Described {
            state: *self.state.lock().unwrap(),
            graph: self.graph.clone(),
            jobs: Vec::new(),
            agent: false,
            live: Live::default(),
            obstacle: None,
        })
    }
    async fn state(&self) -> Result<RunState, EngineError> {
        Ok(*self.state.lock().unwrap())
    }
    fn takes(&self, _: &Plan) -> bool {
        self.takes
    }
    async fn attach(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let is_there = |plan: &&Plan| plan.names()[1].exists() && !plan.names()[0].exists();
        assert!(plans.iter().all(is_there), "under its final name");
        Ok(())
    }
    async fn detach(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        if let Some(on) = self.on() {
            tools::run("qemu-img", &["commit", "-q", "-d", on.to_str().unwrap()]);
            if self.notes {
                plans[0].note_put_back()?;
            }
        }
        Ok(())
    }
    async fn quiesce(&self) -> Result<Quiesced, QuiesceError> {
        Ok(Quiesced {
            count: 0,
            limit: None,
        })
    }
    async fn is_frozen(&self) -> Result<bool, EngineError> {
        Ok(false)
    }
    async fn thaw(&self) -> Result<(), ThawError> {
        Ok(())
    }
    async fn stop(&self) -> Result<(RunState, Graph), EngineError> {
        let before = *self.state.lock().unwrap();
        self.set(RunState::Paused);
        Ok((before, self.graph.clone()))
    }
    async fn cut(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        *self.on.lock().unwrap() = Some(plans[0].names()[1].clone());
        Ok(())
    }
    async fn resume(&self) -> Result<(), EngineError> {
        self.set(RunState::Running);
        Ok(())
    }
    async fn leave(&self) {}
    async fn unblock(&self, _: &[&Plan]) -> Result<(), EngineError> {
        Ok(())
    }
    async fn fence(&self, _: bool, _: &[&Plan]) -> Result<Option<Fence>, EngineError> {
        Ok(None)
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

/// A library of which one machine runs.
struct Host {
    library: Arc<Library>,
    guest: Arc<Guest>,
}

impl Compute for Host {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.library.observe()
    }
    fn machines(&self) -> Arc<Machines> {
        self.library.machines()
    }
    fn state(&self, id: VmId) -> RunState {
        match id == self.guest.id {
            true => *self.guest.state.lock().unwrap(),
            false => self.library.state(id),
        }
    }
    fn running(&self, id: VmId) -> Option<Arc<dyn Running>> {
        let runs = id == self.guest.id && self.state(id) != RunState::Off;
        runs.then(|| self.guest.clone() as Arc<dyn Running>)
    }
    fn recorded(&self) -> Result<Vec<Recorded>, EngineError> {
        self.library.recorded()
    }
    fn recorded_of(&self, id: VmId) -> Option<Recorded> {
        self.library.recorded_of(id)
    }
    fn turn(&self, given_up: &dyn Fn() -> bool) -> std::io::Result<Option<InTurn>> {
        self.library.turn(given_up)
    }
    fn set_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        self.library.set_tops(id, tops)
    }
    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError> {
        self.library.hold(machine)
    }
}

struct Scene {
    world: World,
    guest: Arc<Guest>,
}

impl Scene {
    /// Of two machines the first runs.
    async fn new(
        root: &Path,
        (takes, notes): (bool, bool),
        passage: impl FnOnce(Arc<Guest>, Arc<MemoryStore>) -> Passage,
    ) -> Self {
        let first = furnish(root, 2).await;
        let machines = first.machines();
        let machine = machines.values().find(|m| m.name == "m0").unwrap();
        let disk = &machine.disks[0];
        let (file, size) = (disk.file.clone(), disk.size);
        let guest = Arc::new(Guest {
            root: root.to_owned(),
            id: machine.id,
            takes,
            notes,
            graph: [(disk.id.clone(), Node { file, size })].into(),
            state: Mutex::new(RunState::Running),
            on: Mutex::default(),
            events: broadcast::channel(1).0,
        });
        let world = over(
            root,
            first.store.clone(),
            passage(guest.clone(), first.store.clone()),
            &guest,
        );
        world.coordinator.recover().await.unwrap();
        Self { world, guest }
    }

    async fn take(&self) -> Job {
        let accepted = self.world.coordinator.create(as_it_runs()).await.unwrap();
        self.world.end(accepted).await
    }

    fn image(&self) -> PathBuf {
        self.world.root.join("images/m0.raw")
    }

    fn top(&self) -> PathBuf {
        self.world.machines()[&self.guest.id].disks[0].file.clone()
    }
}

fn over(root: &Path, store: Arc<MemoryStore>, passage: Passage, guest: &Arc<Guest>) -> World {
    let guest = guest.clone();
    let compute = |library| Arc::new(Host { library, guest }) as Arc<dyn Compute>;
    World::under(root, store, passage, Audit::default(), compute)
}

fn as_it_runs() -> CreateRequest {
    CreateRequest {
        consistency: Consistency::Crash,
        ..request(group())
    }
}

#[tokio::test]
async fn what_would_have_to_go_on_with_another_file_and_cannot_is_5() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), (false, true), |_, _| Box::new(|_| Ok(()))).await;
    let coordinator = &scene.world.coordinator;
    let refused = coordinator.create(as_it_runs()).await.unwrap_err();
    let Refused::InvalidState(text) = &refused else {
        panic!("{refused:?}");
    };
    let words = text.english();
    let image = scene.image();
    for part in [
        "m0",
        "disk0",
        image.to_str().unwrap(),
        "power the machine off",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let checked = coordinator.check(as_it_runs()).await;
    assert_eq!(checked.refused, Some(refused));
    scene.world.assert_untouched("refused");
}

#[tokio::test]
async fn a_set_of_a_machine_that_runs_keeps_its_old_file() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), (true, true), |_, _| Box::new(|_| Ok(()))).await;
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    scene.world.assert_whole("all");
    assert_eq!(Some(scene.top()), scene.guest.on());
    assert_eq!(*scene.guest.state.lock().unwrap(), RunState::Running);
    let image = scene.image();
    assert_eq!(fs::read(&image).unwrap(), vec![0; 64 << 10]);
    let error = ImageLock::take(&At::new("m0", "disk0"), &image).unwrap_err();
    assert!(
        error.text.english().contains("m0.raw"),
        "it is frozen: {error}"
    );
    // A lock of ours on the file that it writes would end the next attempt of it to open one.
    drop(ImageLock::take(&At::new("m0", "disk0"), &scene.top()).unwrap());
}

/// Fails before the word. Once the guest goes on, it writes, and dies, or not; what a process that dies in the middle of
/// the undo leaves is noted.
fn fails(
    writes: bool,
    dies: bool,
    dead: Dead,
) -> impl FnOnce(Arc<Guest>, Arc<MemoryStore>) -> Passage {
    move |guest, store| {
        Box::new(move |point| {
            match point {
                "create.word.before" => return Err(FailedOnOrder(point.to_owned())),
                "create.abort.after" => {
                    if writes {
                        tools::write(&guest.on().unwrap(), "qcow2", 9, "0", "4096");
                    }
                    if dies {
                        guest.set(RunState::Off);
                    }
                }
                "create.undone.before" => {
                    let root = guest.root.as_path();
                    *dead.lock().unwrap() = Some(Left::take(root, &*store));
                }
                _ => {}
            }
            Ok(())
        })
    }
}

type Dead = Arc<Mutex<Option<Left>>>;

#[tokio::test]
async fn an_overlay_that_nobody_has_written_goes_with_its_set() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(
        root.path(),
        (true, true),
        fails(false, true, Dead::default()),
    )
    .await;
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception, "{job:?}");
    scene.world.assert_untouched("it was empty");
    drop(ImageLock::take(&At::new("m0", "disk0"), &scene.image()).unwrap());
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn what_a_machine_has_written_to_its_overlay_before_it_died_stays() {
    let root = tempfile::tempdir().unwrap();
    let dead = Dead::default();
    let scene = Scene::new(root.path(), (true, true), fails(true, true, dead.clone())).await;
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception, "{job:?}");
    let on = scene.guest.on().unwrap();
    let told = job.error.unwrap().details;
    let is_named = |text: &Text| text.english().contains(on.to_str().unwrap());
    assert!(told.iter().any(is_named), "{told:?}");
    let stays = |world: &World, at: &str| {
        assert_eq!(world.machines()[&scene.guest.id].disks[0].file, on, "{at}");
        assert_eq!(fs::read(scene.image()).unwrap(), vec![0; 64 << 10], "{at}");
        tools::assert_clean(&on);
        let read = ["-r", "-c", "read -P 9 0 4096", "-c", "read -P 0 4096 4096"];
        tools::run("qemu-io", &[&read[..], &[on.to_str().unwrap()]].concat());
        let state = world.store.state();
        assert!(state.sets.is_empty() && state.positions.is_empty(), "{at}");
    };
    stays(&scene.world, "its set failed");
    // The machine is off now, and the next set is taken from there.
    let accepted = scene.world.create(group()).await.unwrap();
    let job = scene.world.end(accepted).await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    // The same for a process that goes on where another one died.
    let left = dead.lock().unwrap().take().unwrap();
    let store = left.restore(root.path()).await;
    let again = over(root.path(), store, Box::new(|_| Ok(())), &scene.guest);
    again.coordinator.recover().await.unwrap();
    again.coordinator.idle().await;
    stays(&again, "recovered");
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn only_what_is_noted_as_put_back_goes_with_its_set() {
    for notes in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let passage = fails(true, false, Dead::default());
        let scene = Scene::new(root.path(), (true, notes), passage).await;
        let job = scene.take().await;
        assert_eq!(job.state, JobState::Exception, "{job:?}");
        assert_eq!(scene.top(), scene.image());
        assert_eq!(fs::read(scene.image()).unwrap()[..4096], [9; 4096]);
        let on = scene.guest.on().unwrap();
        assert_eq!(on.exists(), !notes);
        let told = job.error.unwrap().details;
        let is_named = |text: &Text| text.english().contains(on.to_str().unwrap());
        assert_eq!(told.iter().any(is_named), !notes, "{told:?}");
    }
}

/// Whether somebody else may have the old file.
fn is_free(image: &Path) -> bool {
    ImageLock::take(&At::new("m0", "disk0"), image).is_ok()
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn the_old_file_of_a_machine_is_kept_from_others_as_soon_as_it_goes_on() {
    for fails in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("images/m0.raw");
        let seen = Arc::new(Mutex::new(None));
        let (file, kept) = (image.clone(), seen.clone());
        let passage = move |_, _| -> Passage {
            Box::new(move |point| {
                if point == "create.thaw.after" {
                    *kept.lock().unwrap() = Some(!is_free(&file));
                    if fails {
                        return Err(FailedOnOrder(point.to_owned()));
                    }
                }
                Ok(())
            })
        };
        let scene = Scene::new(root.path(), (true, true), passage).await;
        let job = scene.take().await;
        let wanted = if fails {
            JobState::Exception
        } else {
            JobState::Completed
        };
        assert_eq!(job.state, wanted, "{job:?}");
        assert_eq!(
            *seen.lock().unwrap(),
            Some(true),
            "before anything waits for anybody"
        );
        assert_eq!(is_free(&image), fails);
    }
}

/// What somebody does to the machines after the server has died.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Since {
    Nothing,
    /// The machine that is off is started on the file that the set keeps, and shut down again.
    OtherWritten,
    /// What ran the machine has ended.
    Ended,
    /// The same, and it was started on the old file, and shut down again.
    EndedAndWritten,
}

/// The word is CUT, and the process dead. The guest has written to its overlay.
#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn what_was_captured_is_in_a_set_after_a_death_only_if_nobody_has_written_it_since() {
    for since in [
        Since::Nothing,
        Since::OtherWritten,
        Since::Ended,
        Since::EndedAndWritten,
    ] {
        let root = tempfile::tempdir().unwrap();
        let dead = Dead::default();
        let left = dead.clone();
        let passage = |guest: Arc<Guest>, store: Arc<MemoryStore>| -> Passage {
            Box::new(move |point| {
                if point != "create.word.after" {
                    return Ok(());
                }
                tools::write(&guest.on().unwrap(), "qcow2", 9, "0", "4096");
                *left.lock().unwrap() = Some(Left::take(&guest.root, &*store));
                Err(FailedOnOrder(point.to_owned()))
            })
        };
        let scene = Scene::new(root.path(), (true, true), passage).await;
        assert_eq!(scene.take().await.state, JobState::Exception);
        let on = scene.guest.on().unwrap();
        let left = dead.lock().unwrap().take().unwrap();
        let store = left.restore_below(&root.path().join("data")).await;
        // By the clock of the test it was captured at the epoch.
        let touch = |image: &Path, time: SystemTime| {
            let image = fs::File::options().write(true).open(image).unwrap();
            image.set_modified(time).unwrap();
        };
        touch(&scene.image(), SystemTime::UNIX_EPOCH);
        match since {
            Since::Nothing => {}
            Since::OtherWritten => touch(&root.path().join("images/m1.raw"), SystemTime::now()),
            Since::Ended => scene.guest.set(RunState::Off),
            Since::EndedAndWritten => {
                scene.guest.set(RunState::Off);
                touch(&scene.image(), SystemTime::now());
            }
        }
        let again = over(root.path(), store, Box::new(|_| Ok(())), &scene.guest);
        again.coordinator.recover().await.unwrap();
        again.coordinator.idle().await;
        let at = format!("{since:?}");
        let [job] = &again.jobs.all()[..] else {
            panic!("{at}: one job");
        };
        match since {
            Since::Nothing | Since::Ended => {
                assert_eq!(job.state, JobState::Completed, "{at}: {job:?}");
                again.assert_whole(&at);
            }
            Since::OtherWritten => {
                assert_eq!(job.state, JobState::Exception, "{at}");
                again.assert_untouched(&at);
            }
            Since::EndedAndWritten => {
                assert_eq!(job.state, JobState::Exception, "{at}");
                let top = again.machines()[&scene.guest.id].disks[0].file.clone();
                assert_eq!(
                    top,
                    scene.image(),
                    "{at}: nothing lies on a file that was changed"
                );
                assert!(on.exists(), "{at}: what the guest wrote is nowhere else");
                let told = &job.error.as_ref().unwrap().details;
                let is_named = |text: &Text| text.english().contains(on.to_str().unwrap());
                assert!(told.iter().any(is_named), "{at}: {told:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_has_written_on_its_own_before_it_died_is_not_undone() {
    let root = tempfile::tempdir().unwrap();
    let machine = Arc::new(Mutex::new(None::<Arc<Sim>>));
    let writes = Arc::clone(&machine);
    let passage = Box::new(move |point: &str| match point {
        "create.word.before" => Err(FailedOnOrder(point.to_owned())),
        "create.abort.after" => {
            let sim = writes.lock().unwrap().clone().unwrap();
            sim.write(machine_id(running::TAKER), "disk0", 99);
            Ok(())
        }
        _ => Ok(()),
    });
    let scene = running::Scene::new(root.path(), Consistency::Crash, passage).await;
    *machine.lock().unwrap() = Some(scene.sim.clone());
    scene.order(running::TAKER, Step::Detach, Trouble::Dies, 1);
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception);
    // The others are as if nothing had been.
    scene.assert_all_go_on(&[running::TAKER], "one died");
    assert_eq!(scene.sim.captured(), 1, "what it wrote is nowhere else");
    assert!(scene.store.state().sets.is_empty());
    let job = scene.store.state().jobs[&job.id].clone();
    let told = &job.error.as_ref().unwrap().details;
    assert!(
        told.iter().any(|t| t.english().contains("has ended")),
        "{told:?}"
    );
}
