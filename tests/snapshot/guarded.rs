//! Sets of machines that outlive the process: a guard lets them go if that dies, stands still or hangs in a window.
//!
//! The machines are simulated ones, but for what the guard reaches: each has a monitor and an agent behind real sockets.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future;
use groupshot::audit::Audit;
use groupshot::clock::SystemClock;
use groupshot::engine::sim::{Sim, Step, Trouble, machine_id};
use groupshot::engine::{Compute, EngineErrorKind, Fence, Runner};
use groupshot::failpoint::FailedOnOrder;
use groupshot::inventory::{Consistency, JobState, RunState};
use groupshot::snapshot::Passage;
use groupshot::snapshot::create::WINDOW_FAILPOINTS;
use groupshot::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::server::guards;

use super::running::{Guarded, LAST, OFF, PLAIN, Scene, TAKER, World, dies_at, nothing};

/// Of the simulated machines, those that run.
const RUN: [u32; 3] = [PLAIN, TAKER, LAST];
/// Longer than anything takes that ends at all.
const LIMIT: Duration = Duration::from_secs(60);
const LEVEL: Consistency = Consistency::Application;
/// Where a guard leaves its report in the file of the word: behind a note of each of the four members.
const REPORT: usize = 64 + 8 * 4;

/// What a monitor and an agent answer, and what they do.
fn answer(
    line: &[u8],
    goes_on: &dyn Fn(),
    frozen: &dyn Fn(Option<bool>) -> bool,
) -> Option<Vec<u8>> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let (mut answer, mut delimiter) = (json!({"return": {}}), None);
    match line["execute"].as_str()? {
        "cont" => goes_on(),
        "query-status" => answer["return"] = json!({"status": "running"}),
        "guest-sync-delimited" => {
            answer["return"] = line["arguments"]["id"].clone();
            delimiter = Some(0xff);
        }
        "guest-fsfreeze-status" if frozen(None) => answer["return"] = "frozen".into(),
        "guest-fsfreeze-status" => answer["return"] = "thawed".into(),
        "guest-fsfreeze-thaw" => answer["return"] = u64::from(frozen(Some(false))).into(),
        other => panic!("nobody asks for {other}"),
    }
    if let Some(id) = line.get("id") {
        answer["id"] = id.clone();
    }
    let line = format!("{answer}\n").into_bytes();
    Some(delimiter.into_iter().chain(line).collect())
}

fn speak(mut stream: UnixStream, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    thread::spawn(move || {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if let Some(answer) = answer(&line) {
                let _gone = stream.write_all(&answer);
            }
            line.clear();
        }
    });
}

/// Gives a machine of the simulation a monitor and an agent that others reach.
fn connect(sim: &Arc<Sim>, n: u32) {
    let end = || {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let sim = Arc::clone(sim);
        speak(theirs, move |line| {
            let id = machine_id(n);
            let frozen = |to: Option<bool>| {
                let was = sim.is_frozen(id);
                if to == Some(false) {
                    sim.unfreeze(id);
                }
                was
            };
            answer(line, &|| sim.go_on(id), &frozen)
        });
        OwnedFd::from(ours)
    };
    let fence = Fence {
        monitor: end(),
        monitor_sockets: Vec::new(),
        agent: Some(end()),
        agent_socket: None,
        runner: Runner::default(),
        jobs: Vec::new(),
    };
    sim.set_fence(machine_id(n), fence);
}

async fn scene(root: &Path, guarded: Guarded, passage: Passage) -> Scene {
    let scene = Scene::guarded(root, LEVEL, guarded, passage).await;
    RUN.iter().for_each(|n| connect(&scene.sim, *n));
    scene
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether its parent can know that it has ended: what ends has no words and no files some time before.
fn is_dead(pid: Pid) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = line.rsplit(") ").next().unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.map_or(0, |all| all.flatten().count());
    line.is_empty() || (state.starts_with('Z') && threads <= 1)
}

fn is_before_the_word(point: &str) -> bool {
    let place = |wanted: &str| WINDOW_FAILPOINTS.iter().position(|it| *it == wanted);
    place(point) < place("create.word.after")
}

/// Does this once, where the window passes that point.
fn at(point: &'static str, what: impl Fn() + Send + Sync + 'static) -> Passage {
    Box::new(move |name: &str| {
        if name == point {
            what();
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_under_guard_is_whole_and_its_guard_ends() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let one = at("create.stop.after", move || {
        assert_eq!(guards(&path).len(), 1)
    });
    let scene = scene(root.path(), Guarded::default(), one).await;
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Completed, "{:?}", job.error);
    scene.assert_whole("under guard");
    assert_eq!(guards(root.path()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_guard_no_machine_is_stopped() {
    // It is not there, ends at once, is another program.
    for program in ["/nonexistent/groupshot", "/bin/false", "/bin/cat"] {
        let root = tempfile::tempdir().unwrap();
        let guarded = Guarded {
            program: program.into(),
            ..Guarded::default()
        };
        let scene = scene(root.path(), guarded, nothing()).await;
        let job = scene.take().await;
        assert_eq!(job.state, JobState::Exception, "{program}");
        let why = job.error.unwrap().description.english();
        assert!(
            why.contains("no machine was stopped, as there is no guard"),
            "{why}"
        );
        scene.assert_untouched(&[], program);
        let acts = scene.sim.acts();
        let of_running = acts.iter().filter(|(id, _)| *id != machine_id(OFF));
        assert_eq!(of_running.count(), 0, "{program}: {acts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_is_killed_before_the_word_fails_the_set_and_later_changes_nothing() {
    let each = WINDOW_FAILPOINTS.map(|point| async move {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_owned();
        let killed = at(point, move || {
            let all = guards(&path);
            all.iter()
                .for_each(|pid| kill(*pid, Signal::SIGKILL).unwrap());
            until("it is dead", || all.iter().all(|pid| is_dead(*pid)));
        });
        let scene = scene(root.path(), Guarded::default(), killed).await;
        let job = scene.take().await;
        match is_before_the_word(point) {
            true => {
                assert_eq!(job.state, JobState::Exception, "{point}");
                let why = job.error.unwrap().description.english();
                assert!(why.contains("ended by somebody"), "{point}: {why}");
                scene.assert_untouched(&[], point);
            }
            false => {
                assert_eq!(job.state, JobState::Completed, "{point}: {:?}", job.error);
                scene.assert_whole(point);
            }
        }
    });
    future::join_all(each).await;
}

/// The window stands until the guard has done its work and is gone. Before the word the set fails; after it, machines go
/// on and guests are thawed by the guard, and the set stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_stands_still_is_ended_by_the_guard() {
    let each = WINDOW_FAILPOINTS.map(|point| async move {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("audit.log");
        let guarded = Guarded {
            window: Duration::from_millis(100),
            audit: Audit::to_file(&log, SystemClock::shared()).unwrap(),
            ..Guarded::default()
        };
        let sim: Arc<std::sync::OnceLock<Arc<Sim>>> = Arc::default();
        let (path, seen) = (root.path().to_owned(), sim.clone());
        let stands = at(point, move || {
            until("the guard has ended", || guards(&path).is_empty());
            let sim = seen.get().unwrap();
            for n in RUN {
                assert_eq!(sim.state(machine_id(n)), RunState::Running, "{point}");
                assert!(!sim.is_frozen(machine_id(n)), "{point}");
            }
        });
        let scene = scene(root.path(), guarded, stands).await;
        sim.set(scene.sim.clone()).ok().unwrap();
        let job = scene.take().await;
        match is_before_the_word(point) {
            true => {
                assert_eq!(job.state, JobState::Exception, "{point}");
                scene.assert_untouched(&[], point);
            }
            false => {
                assert_eq!(job.state, JobState::Completed, "{point}: {:?}", job.error);
                scene.assert_whole(point);
            }
        }
        let told = std::fs::read_to_string(&log).unwrap();
        let told: Vec<Value> = told
            .lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect();
        let fired = told.iter().filter(|it| it["event"] == "guard-fired");
        let fired: Vec<_> = fired.collect();
        if point == "create.thaw.after" {
            assert!(fired.is_empty(), "the server had let all go: {fired:?}");
            return;
        }
        let [fired] = fired[..] else {
            panic!("{point}: {told:?}");
        };
        assert_eq!(fired["cause"], "late", "{point}");
        assert_eq!(fired["machines"].as_array().unwrap().len(), 3, "{point}");
        assert_eq!(fired["left"], json!([]), "{point}");
    });
    future::join_all(each).await;
}

/// As that of Windows does, which thaws by itself after 10 s: by then the guard has let all machines go.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_waits_no_longer_than_a_guest_stays_frozen() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let stands = at("create.stop.after", move || {
        let begun = Instant::now();
        until("the guard has ended", || guards(&path).is_empty());
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(20), "not {waited:?}");
    });
    let scene = scene(root.path(), Guarded::default(), stands).await;
    scene.sim.set_lapse(Duration::from_millis(100));
    scene.order(PLAIN, Step::Quiesce, Trouble::Lapses, 1);
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception);
    scene.assert_untouched(&[], "late");
}

/// What a dead server leaves is not touched before its guard has ended, and what that has seen of guests counts.
#[tokio::test(start_paused = true)]
async fn a_recovery_waits_for_the_guard_and_believes_what_it_has_seen() {
    for (saw_frozen, is_whole) in [(true, true), (false, false)] {
        let root = tempfile::tempdir().unwrap();
        let (passage, left, world) = dies_at(root.path(), "create.word.after", "");
        let scene = Scene::guarded(root.path(), LEVEL, Guarded::default(), passage).await;
        *world.lock().unwrap() = World::of(&scene);
        scene.take().await;
        let (files, sim) = left.lock().unwrap().take().unwrap();
        let store = files.restore(&scene.root).await;
        let mut words = scene.journals();
        words.retain(|file| file.extension().is_some_and(|it| it == "word"));
        let word = std::fs::File::options()
            .write(true)
            .read(true)
            .open(&words[0])
            .unwrap();
        let wards = RUN.map(|n| {
            sim.go_on(machine_id(n));
            sim.unfreeze(machine_id(n));
            json!([
                {"machine": machine_id(n), "name": "m", "dues": {"goes_on": true, "thaws": true}},
                {"goes_on": true, "was_frozen": saw_frozen, "is_thawed": true}
            ])
        });
        let report = json!({"cause": "Died", "wards": wards}).to_string();
        word.write_all_at(report.as_bytes(), u64::try_from(REPORT).unwrap())
            .unwrap();
        word.lock().unwrap();
        let again = Scene::over(&scene.root, LEVEL, store, sim, nothing());
        let coordinator = again.coordinator.clone();
        let recovering = tokio::spawn(async move { coordinator.recover().await });
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!recovering.is_finished(), "the guard lives");
        assert_ne!(again.journals(), Vec::<PathBuf>::new());
        drop(word);
        recovering.await.unwrap().unwrap();
        again.coordinator.idle().await;
        match is_whole {
            true => again.assert_whole("seen frozen"),
            false => again.assert_untouched(&[], "thawed before"),
        }
    }
}

/// One that has the number of the other is it; who runs the machine by now stands still, or is frozen, for somebody else.
#[tokio::test(start_paused = true)]
async fn another_process_than_was_stopped_is_not_let_go_and_not_thawed() {
    for (point, is_whole) in [("create.stop.after", false), ("create.word.after", true)] {
        let root = tempfile::tempdir().unwrap();
        let (passage, left, world) = dies_at(root.path(), point, "");
        let scene = Scene::guarded(root.path(), LEVEL, Guarded::default(), passage).await;
        RUN.iter()
            .for_each(|n| scene.sim.set_runner(machine_id(*n), 1));
        *world.lock().unwrap() = World::of(&scene);
        scene.take().await;
        let (files, sim) = left.lock().unwrap().take().unwrap();
        let store = files.restore(&scene.root).await;
        sim.set_runner(machine_id(PLAIN), 2);
        let again = Scene::over(&scene.root, LEVEL, store, sim, nothing());
        again.coordinator.recover().await.unwrap();
        again.coordinator.idle().await;
        let sim = &again.sim;
        for n in [TAKER, LAST] {
            assert_eq!(sim.state(machine_id(n)), RunState::Running, "{point}: {n}");
            assert!(!sim.is_frozen(machine_id(n)), "{point}: {n}");
        }
        assert_eq!(sim.state(machine_id(PLAIN)), RunState::Paused, "{point}");
        assert!(sim.is_frozen(machine_id(PLAIN)), "{point}");
        assert_eq!(again.journals(), Vec::<PathBuf>::new(), "{point}");
        let sets = again.store.state().sets.len();
        assert_eq!(sets, usize::from(is_whole), "{point}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_than_was_planned_for_is_not_stopped() {
    let root = tempfile::tempdir().unwrap();
    let sim: Arc<std::sync::OnceLock<Arc<Sim>>> = Arc::default();
    let seen = sim.clone();
    let passage = at("create.window.before", move || {
        seen.get().unwrap().set_runner(machine_id(PLAIN), 2);
    });
    let scene = Scene::guarded(root.path(), LEVEL, Guarded::default(), passage).await;
    RUN.iter()
        .for_each(|n| scene.sim.set_runner(machine_id(*n), 1));
    sim.set(scene.sim.clone()).ok().unwrap();
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception);
    let why = job.error.unwrap().description.english();
    assert!(why.contains("has ended"), "{why}");
    scene.assert_untouched(&[], "another one");
    let acts = scene.sim.acts();
    let of_running = acts.iter().filter(|(id, _)| *id != machine_id(OFF));
    assert_eq!(of_running.count(), 0, "{acts:?}");
}

/// Its files are taken while nothing is decided of them.
#[tokio::test(start_paused = true)]
async fn a_machine_that_ends_and_is_started_by_somebody_at_once_fails_the_set_which_names_that() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::guarded(root.path(), LEVEL, Guarded::default(), nothing()).await;
    scene.order(TAKER, Step::Transact, Trouble::Dies, 1);
    scene.order(
        TAKER,
        Step::Hold,
        Trouble::Fail(EngineErrorKind::Locked),
        99,
    );
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception);
    let error = job.error.unwrap();
    let mut told = error.details.iter().chain([&error.description]);
    assert!(
        told.any(|text| text.english().contains("fail at hold")),
        "{error:?}"
    );
    scene.assert_untouched(&[TAKER], "somebody has it");
}

/// A guard that is left over, as a machine is stuck, keeps nobody from starting: what it has left is done by the new process,
/// which tells it so.
#[tokio::test]
async fn a_recovery_takes_over_from_a_guard_that_does_not_end() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.stop.after", "");
    let scene = Scene::guarded(root.path(), LEVEL, Guarded::default(), passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let mut words = scene.journals();
    words.retain(|file| file.extension().is_some_and(|it| it == "word"));
    let word = std::fs::File::options()
        .write(true)
        .read(true)
        .open(&words[0]);
    let word = word.unwrap();
    word.lock().unwrap();
    assert_eq!(sim.state(machine_id(PLAIN)), RunState::Paused);
    let again = Scene::over(&scene.root, LEVEL, store, sim, nothing());
    let (coordinator, clock) = (again.coordinator.clone(), again.clock());
    let recovering = tokio::spawn(async move { coordinator.recover().await });
    let mut seconds = 0;
    while !recovering.is_finished() {
        clock.advance(Duration::from_secs(1));
        seconds += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    recovering.await.unwrap().unwrap();
    // A busy host is slow to see that the time of the test has gone on.
    assert!((13..3600).contains(&seconds), "after {seconds} s");
    let mut said = [0; 4];
    word.read_exact_at(&mut said, 8).unwrap();
    assert_eq!(&said, b"OVER");
    again.coordinator.idle().await;
    again.assert_untouched(&[], "taken over");
}

/// The others are none of its business any more, and the server has some time more for what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_lets_only_those_go_that_a_server_which_lives_cannot() {
    let root = tempfile::tempdir().unwrap();
    let log = root.path().join("audit.log");
    let guarded = Guarded {
        window: Duration::from_millis(500),
        audit: Audit::to_file(&log, SystemClock::shared()).unwrap(),
        ..Guarded::default()
    };
    let fails = Box::new(|name: &str| match name {
        "create.stop.after" => Err(FailedOnOrder(name.to_owned())),
        _ => Ok(()),
    });
    let scene = scene(root.path(), guarded, fails).await;
    scene.order(TAKER, Step::Resume, Trouble::Hang, 1);
    let begun = Instant::now();
    let (path, sim) = (root.path().to_owned(), scene.sim.clone());
    let relents = tokio::task::spawn_blocking(move || {
        until("the guard is there", || !guards(&path).is_empty());
        until("its machine goes on", || {
            sim.hanging() > 0 && sim.state(machine_id(TAKER)) == RunState::Running
        });
        sim.relent();
    });
    let job = scene.take().await;
    relents.await.unwrap();
    assert_eq!(job.state, JobState::Exception);
    assert!(
        begun.elapsed() > Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    scene.assert_untouched(&[], "one hangs");
    let told = std::fs::read_to_string(&log).unwrap();
    let told = told
        .lines()
        .map(|it| serde_json::from_str::<Value>(it).unwrap());
    let fired: Vec<_> = told.filter(|it| it["event"] == "guard-fired").collect();
    assert_eq!(fired.len(), 1, "{fired:?}");
    assert_eq!(fired[0]["machines"], json!(["sim-000003"]));
}

/// Whatever an undo has at work holds up the disks of a machine that runs.
#[tokio::test(start_paused = true)]
async fn a_recovery_ends_what_an_undo_has_left_before_it_reads_any_journal() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.abort.after", "create.capture.after");
    let scene = Scene::guarded(root.path(), LEVEL, Guarded::default(), passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    sim.block(machine_id(TAKER));
    std::fs::create_dir(scene.root.join("journal/strange.log")).unwrap();
    let again = Scene::over(&scene.root, LEVEL, store, sim, nothing());
    assert!(again.coordinator.recover().await.is_err());
    assert!(!again.sim.is_blocked(machine_id(TAKER)));
}

/// What this process may do about the order in which the kernel ends processes.
fn score_of_a_child() -> String {
    let line = "echo -900 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj";
    let told = Command::new("sh")
        .args(["-c", line])
        .stderr(Stdio::null())
        .output();
    String::from_utf8(told.unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_is_among_the_last_that_a_host_short_of_memory_ends() {
    let root = tempfile::tempdir().unwrap();
    let (path, seen) = (
        root.path().to_owned(),
        Arc::new(std::sync::Mutex::new(String::new())),
    );
    let scores = seen.clone();
    let look = at("create.stop.after", move || {
        let pid = guards(&path)[0];
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        *scores.lock().unwrap() = score.unwrap();
    });
    let scene = scene(root.path(), Guarded::default(), look).await;
    assert_eq!(scene.take().await.state, JobState::Completed);
    assert_eq!(*seen.lock().unwrap(), score_of_a_child());
}

const HERE: &str = "GROUPSHOT_TEST_GUARDED";
const POINT: &str = "GROUPSHOT_TEST_GUARDED_POINT";

/// The process that dies: started by the test below, which has the monitors.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_dies_in_a_window() {
    let (Some(root), Ok(point)) = (std::env::var_os(HERE), std::env::var(POINT)) else {
        return;
    };
    let root = PathBuf::from(root);
    let passage: Passage = Box::new(move |name| {
        if name == point {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
        Ok(())
    });
    let scene = Scene::guarded(&root, LEVEL, Guarded::default(), passage).await;
    for n in RUN {
        let [monitor, agent] = ["monitor", "agent"].map(|name| {
            let stream = UnixStream::connect(root.join(format!("{name}{n}"))).unwrap();
            stream.set_nonblocking(true).unwrap();
            OwnedFd::from(stream)
        });
        let fence = Fence {
            monitor,
            monitor_sockets: Vec::new(),
            agent: Some(agent),
            agent_socket: None,
            runner: Runner::default(),
            jobs: Vec::new(),
        };
        scene.sim.set_fence(machine_id(n), fence);
    }
    let job = scene.take().await;
    panic!("it lives: {job:?}");
}

fn dying(root: &Path, point: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "snapshot::guarded::the_process_that_dies_in_a_window",
        ])
        .env(HERE, root)
        .env(POINT, point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn all_machines_go_on_when_the_process_dies_at_any_point_of_a_window() {
    // At the last one the server has let all of them go.
    let (_, points) = WINDOW_FAILPOINTS.split_last().unwrap();
    for point in points.iter().copied() {
        let root = tempfile::tempdir().unwrap();
        let apart = tempfile::tempdir().unwrap();
        let sim = Sim::new(apart.path(), 4, jiff::Timestamp::UNIX_EPOCH).unwrap();
        for n in RUN {
            sim.set_state(machine_id(n), RunState::Paused);
            sim.freeze(machine_id(n));
            for name in ["monitor", "agent"] {
                let listener = UnixListener::bind(root.path().join(format!("{name}{n}"))).unwrap();
                let sim = sim.clone();
                thread::spawn(move || {
                    let (stream, _) = listener.accept().unwrap();
                    speak(stream, move |line| {
                        let id = machine_id(n);
                        let frozen = |to: Option<bool>| {
                            let was = sim.is_frozen(id);
                            if to == Some(false) {
                                sim.unfreeze(id);
                            }
                            was
                        };
                        answer(line, &|| sim.go_on(id), &frozen)
                    });
                });
            }
        }
        let died = dying(root.path(), point).wait().unwrap();
        assert_eq!(died.signal(), Some(9), "{point}");
        until(point, || {
            RUN.iter().all(|n| {
                let id = machine_id(*n);
                sim.state(id) == RunState::Running && !sim.is_frozen(id)
            })
        });
        until(point, || guards(root.path()).is_empty());
        let files = std::fs::read_dir(root.path().join("journal")).unwrap();
        let mut files = files.map(|it| it.unwrap().path());
        let word = files.find(|it| it.extension().is_some_and(|it| it == "word"));
        let word = std::fs::read(word.unwrap()).unwrap();
        let expected: &[u8] = match is_before_the_word(point) {
            true => b"FIRE",
            false => b"CUT\n",
        };
        assert_eq!(&word[..4], expected, "{point}");
        let report = word[REPORT..].split(|byte| *byte == 0).next().unwrap();
        let report: Value = serde_json::from_slice(report).unwrap();
        assert_eq!(report["cause"], "Died", "{point}");
        assert_eq!(report["wards"].as_array().unwrap().len(), 3, "{point}");
    }
}
