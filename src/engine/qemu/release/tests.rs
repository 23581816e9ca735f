//! Scripted monitors and agents over real sockets.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use crate::clock::SystemClock;

use super::*;

/// So that what gets no answer is not waited for long.
const IMPATIENT: Pace = Pace {
    in_band: Duration::from_millis(50),
    anew: Duration::from_millis(200),
    guest: Duration::from_millis(750),
    pause: (Duration::from_millis(5), Duration::from_millis(20)),
};
const GOES_ON: Dues = Dues {
    goes_on: true,
    thaws: false,
};
const THAWS: Dues = Dues {
    goes_on: false,
    thaws: true,
};

struct Scene {
    fence: Fence,
    monitor: UnixStream,
    home: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (monitor, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap(); // as that of a server is
        let home = tempfile::tempdir().unwrap();
        Self {
            fence: Fence {
                monitor: ours.into(),
                monitor_sockets: vec![home.path().join("1"), home.path().join("2")],
                agent: None,
                agent_socket: None,
                runner: Runner::default(),
                jobs: Vec::new(),
            },
            monitor,
            home,
        }
    }

    fn listener(&self, name: &str) -> UnixListener {
        UnixListener::bind(self.home.path().join(name)).unwrap()
    }

    /// With an agent behind this end of its connection.
    fn agent(&mut self) -> UnixStream {
        let (agent, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        self.fence.agent = Some(ours.into());
        agent
    }

    fn release(&self, dues: Dues, pace: Pace) -> Freed {
        self.release_while(dues, pace, &waits)
    }

    fn release_while(&self, dues: Dues, pace: Pace, needed: Needed<'_>) -> Freed {
        at_pace(&self.fence, dues, &*SystemClock::shared(), needed, pace)
    }
}

/// It is needed for ever.
fn waits(pause: Duration) -> bool {
    let _interrupted = poll(&mut [], Timespec::try_from(pause).ok().as_ref());
    true
}

/// It is needed for so many attempts, one right after the other.
fn times(count: u32) -> impl Fn(Duration) -> bool {
    let left = Cell::new(count);
    move |_| {
        left.set(left.get().saturating_sub(1));
        left.get() > 0
    }
}

/// What runs a machine, if that is this process.
fn this_process() -> Runner {
    Runner {
        process: Peer::of(process::id().try_into().unwrap()),
        has_disks: true,
        ..Runner::default()
    }
}

/// Answers each line by what the script says; what it was told until the other side went.
fn speak(
    mut stream: UnixStream,
    mut script: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut told = Vec::new();
        let mut from = BufReader::new(stream.try_clone().unwrap());
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if let Some(answer) = script(&text) {
                let _gone = stream.write_all(answer.as_bytes());
            }
            told.push(text);
            line.clear();
        }
        told
    })
}

/// What a monitor answers whose machine is in this state once it was told to go on.
fn in_state(state: &str, line: &str) -> Option<String> {
    let returned = match line {
        it if it.contains("guard-cont") => json!({}),
        it if it.contains("guard-status") => json!({"status": state}),
        _ => return None,
    };
    let asked: Value = serde_json::from_str(line).unwrap();
    Some(format!(
        "{}\n",
        json!({"return": returned, "id": asked["id"]})
    ))
}

fn runs(line: &str) -> Option<String> {
    in_state("running", line)
}

#[test]
fn a_machine_goes_on_in_band_whatever_stood_on_the_connection() {
    let mut scene = Scene::new();
    // What the dead process did not read, and the half of what it was sending.
    let unread = b"{\"return\": {}, \"id\": 7}\n{\"event\": \"STOP\"}\n{\"return\": \"guard\"}\n";
    scene.monitor.write_all(unread).unwrap();
    let dead = UnixStream::from(scene.fence.monitor.try_clone().unwrap());
    (&dead).write_all(b"{\"execute\": \"transac").unwrap();
    let monitor = speak(scene.monitor.try_clone().unwrap(), |line| {
        let error = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n";
        match line.contains('\u{fffd}') {
            true => Some(error.to_owned()),
            false => runs(line),
        }
    });
    let freed = scene.release(GOES_ON, PACE);
    assert!(freed.goes_on && !freed.was_frozen && !freed.is_thawed && !freed.has_ended);
    drop((dead, scene));
    let told = monitor.join().unwrap();
    assert_eq!(told.len(), 3, "two commands, after the break: {told:?}");
    assert!(told[1].contains("cont"), "{told:?}");
}

#[test]
fn one_that_stays_stopped_is_told_again_and_not_too_often() {
    let scene = Scene::new();
    let mut left = 6;
    let monitor = speak(scene.monitor.try_clone().unwrap(), move |line| {
        left -= u32::from(line.contains("guard-status"));
        in_state(if left == 0 { "running" } else { "paused" }, line)
    });
    let pauses = RefCell::new(Vec::new());
    let needed = |pause: Duration| {
        pauses.borrow_mut().push(pause.as_millis());
        true
    };
    assert!(scene.release_while(GOES_ON, IMPATIENT, &needed).goes_on);
    assert_eq!(*pauses.borrow(), [5, 10, 20, 20, 20]);
    assert_eq!(PACE.pause.1, Duration::from_secs(1));
    drop(scene);
    let told = monitor.join().unwrap();
    let conts = told.iter().filter(|line| line.contains("guard-cont"));
    assert_eq!(conts.count(), 6, "{told:?}");
}

/// It stands still however often it is asked, and answers in the end.
#[test]
fn a_process_that_lives_is_waited_for_as_long_as_that_takes() {
    let mut scene = Scene::new();
    scene.fence.runner = this_process();
    scene.fence.monitor_sockets.truncate(1);
    let (silent, second) = (scene.listener("1"), scene.home.path().join("1"));
    drop(silent); // nobody listens there now, and its process lives
    let attempts = Cell::new(0);
    let needed = |_| {
        attempts.set(attempts.get() + 1);
        if attempts.get() == 500 {
            std::fs::remove_file(&second).unwrap();
            let listener = UnixListener::bind(&second).unwrap();
            thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"{\"QMP\": {}}\n").unwrap();
                speak(stream, runs)
            });
        }
        true
    };
    let freed = scene.release_while(GOES_ON, IMPATIENT, &needed);
    assert!(freed.goes_on && !freed.has_ended);
    assert_eq!(attempts.get(), 500);
}

#[test]
fn a_process_that_has_ended_is_waited_for_no_more() {
    let mut scene = Scene::new();
    let _nobody_is_greeted = scene.listener("1");
    // It has no more than its name: its parent has not asked for it yet.
    let mut child = process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    scene.fence.runner = Runner {
        process: Some(Peer::of(pid).unwrap()),
        has_disks: true,
        ..Runner::default()
    };
    let attempts = Cell::new(0);
    let needed = |_| {
        attempts.set(attempts.get() + 1);
        if attempts.get() == 3 {
            child_is_killed(pid);
        }
        assert!(attempts.get() < 100, "it is waited for");
        true
    };
    let freed = scene.release_while(GOES_ON, IMPATIENT, &needed);
    child.wait().unwrap();
    assert!(freed.has_ended && !freed.goes_on);
    assert!(attempts.get() >= 3);
}

fn child_is_killed(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    // As long as it takes until it is a name only.
    waits(Duration::from_millis(200));
}

#[test]
fn who_is_not_needed_any_more_does_nothing_more() {
    let mut scene = Scene::new();
    scene.fence.runner = this_process();
    let monitor = speak(scene.monitor.try_clone().unwrap(), |line| {
        in_state("paused", line)
    });
    assert!(!scene.release_while(GOES_ON, PACE, &times(3)).goes_on);
    drop(scene);
    let told = monitor.join().unwrap();
    let conts = told.iter().filter(|line| line.contains("guard-cont"));
    assert_eq!(conts.count(), 3, "{told:?}");
}

/// Its disks do not go on, though it runs.
#[test]
fn a_job_of_ours_that_waits_for_its_last_step_ends_by_what_is_noted_and_no_other_is_touched() {
    for (is_noted, verb) in [(true, "job-finalize"), (false, "job-cancel")] {
        let mut scene = Scene::new();
        let note = scene.home.path().join("disk0.qcow2.part");
        if is_noted {
            std::fs::write(&note, "").unwrap();
        }
        scene.fence.jobs = vec![PutBack {
            job: "gs-1-undo-disk0".to_owned(),
            note,
        }];
        let mut pending = true;
        let monitor = speak(scene.monitor.try_clone().unwrap(), move |line| {
            let job =
                |id: &str, status: &str| json!({"id": id, "status": status, "type": "commit"});
            let returned = match line {
                it if it.contains("query-jobs") => match pending {
                    true => json!([
                        job("gs-1-undo-disk1", "pending"),
                        job("copy0", "pending"),
                        job("gs-1-undo-disk0", "pending")
                    ]),
                    false => json!([job("copy0", "pending"), job("gs-1-undo-disk0", "running")]),
                },
                it if it.contains("job-") => {
                    pending = false;
                    json!({})
                }
                it => return in_state("running", it),
            };
            let asked: Value = serde_json::from_str(line).unwrap();
            Some(format!(
                "{}\n",
                json!({"return": returned, "id": asked["id"]})
            ))
        });
        let nothing = Dues {
            goes_on: false,
            thaws: false,
        };
        let freed = scene.release(nothing, PACE);
        assert!(freed.was_blocked && !freed.goes_on);
        drop(scene);
        let told = monitor.join().unwrap();
        let acts: Vec<Value> = told
            .iter()
            .filter(|line| line.contains("\"job-"))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(acts.len(), 1, "{told:?}");
        assert_eq!(acts[0]["execute"], verb);
        assert_eq!(acts[0]["arguments"]["id"], "gs-1-undo-disk0");
        assert!(!told.iter().any(|line| line.contains("cont")), "{told:?}");
    }
}

#[test]
fn a_refusal_is_an_answer_and_nobody_reaches_the_monitor_anew() {
    let scene = Scene::new();
    let listener = scene.listener("1");
    listener.set_nonblocking(true).unwrap();
    let _monitor = speak(scene.monitor.try_clone().unwrap(), |line| {
        let error = "{\"id\": \"guard-cont\", \"error\": {\"class\": \"GenericError\", \"desc\": \"reset it\"}}\n";
        match line.contains("guard-cont") {
            true => Some(error.to_owned()),
            false => in_state("internal-error", line),
        }
    });
    let freed = scene.release(GOES_ON, PACE);
    assert!(!freed.goes_on && !freed.has_ended);
    assert!(listener.accept().is_err());
}

#[test]
fn a_monitor_that_does_not_answer_is_fenced_and_the_second_one_is_taken_where_somebody_has_the_first()
 {
    let scene = Scene::new();
    let _nobody_is_greeted = scene.listener("1");
    let second = scene.listener("2");
    let answers = thread::spawn(move || {
        let (mut stream, _) = second.accept().unwrap();
        stream.write_all(b"{\"QMP\": {\"version\": {}}}\n").unwrap();
        let mut able = false;
        let told = speak(stream, move |line| {
            able |= line.contains("qmp_capabilities");
            runs(line).filter(|_| able)
        });
        told.join().unwrap()
    });
    assert!(scene.release(GOES_ON, IMPATIENT).goes_on);
    assert_eq!(answers.join().unwrap().len(), 3);
    // Nothing of a slow process arrives any more.
    let mut slow = UnixStream::from(scene.fence.monitor.try_clone().unwrap());
    assert!(slow.write_all(b"{\"execute\": \"stop\"}\n").is_err());
    let mut read = Vec::new();
    scene
        .monitor
        .try_clone()
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert!(read.ends_with(command("query-status", STATE).as_bytes()));
}

#[test]
fn who_is_gone_floods_or_says_nonsense_holds_nobody_up_for_long() {
    // Nobody is at the other end, nor at the sockets, though the process that has made them lives.
    let mut scene = Scene::new();
    let manager = Runner {
        has_disks: false,
        ..this_process()
    };
    for runner in [Runner::default(), manager] {
        scene.fence.runner = runner.clone();
        scene.monitor.shutdown(std::net::Shutdown::Both).unwrap();
        let freed = scene.release(GOES_ON, IMPATIENT);
        assert!(!freed.goes_on && freed.has_ended, "{runner:?}");
    }
    // A line that does not end, and one that is no answer.
    let scene = Scene::new();
    let mut monitor = scene.monitor.try_clone().unwrap();
    let flood = thread::spawn(move || {
        let _fenced = monitor.write_all(b"[1]\n\xff\xfe\n{\"id\": \"guard-status\"}\n");
        while monitor.write_all(&[b' '; 4096]).is_ok() {}
    });
    let _nobody_is_greeted = scene.listener("1");
    assert!(!scene.release_while(GOES_ON, IMPATIENT, &times(4)).goes_on);
    flood.join().unwrap();
}

#[test]
fn one_that_is_owed_nothing_is_told_nothing() {
    let mut scene = Scene::new();
    let agent = scene.agent();
    let dues = Dues {
        goes_on: false,
        thaws: false,
    };
    assert_eq!(scene.release(dues, PACE), Freed::default());
    let told = [&scene.monitor, &agent].map(|it| {
        it.set_nonblocking(true).unwrap();
        (&*it).read(&mut [0; 1]).map_err(|e| e.kind())
    });
    assert_eq!(
        told,
        [Err(ErrorKind::WouldBlock), Err(ErrorKind::WouldBlock)]
    );
}

/// Frozen for so many thaws.
fn frozen_for(mut times: usize) -> impl FnMut(&str) -> Option<String> + Send + 'static {
    move |line| {
        let command = line.trim_start_matches('\u{fffd}');
        let returned = |value: &str| Some(format!("{{\"return\": {value}}}\n"));
        match command {
            "\n" => {
                Some("{\"error\": {\"class\": \"GenericError\", \"desc\": \"parse\"}}\n".to_owned())
            }
            it if it.contains("guest-sync-delimited") => {
                let id: Value = serde_json::from_str(it).unwrap();
                let id = &id["arguments"]["id"];
                // Behind it, what another one has asked for before.
                Some(format!("{{\"return\": 1}}\n\u{fffd}{{\"return\": {id}}}\n"))
            }
            it if it.contains("status") && times > 0 => returned("\"frozen\""),
            it if it.contains("status") => returned("\"thawed\""),
            it if it.contains("thaw") => {
                times = times.saturating_sub(1);
                returned("1")
            }
            _ => None,
        }
    }
}

/// The same with the delimiter as it is on the wire.
fn speak_as_agent(
    stream: UnixStream,
    mut script: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut to = stream.try_clone().unwrap();
        let mut from = BufReader::new(stream);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if let Some(answer) = script(&String::from_utf8_lossy(&line)) {
                for (n, part) in answer.split('\u{fffd}').enumerate() {
                    let delimiter: &[u8] = if n > 0 { b"\xff" } else { b"" };
                    let _gone = to.write_all(&[delimiter, part.as_bytes()].concat());
                }
            }
            line.clear();
        }
    })
}

#[test]
fn a_guest_is_thawed_until_it_says_so() {
    for (times, was_frozen) in [(0, false), (1, true), (3, true)] {
        let mut scene = Scene::new();
        speak_as_agent(scene.agent(), frozen_for(times));
        let freed = scene.release(THAWS, PACE);
        assert_eq!(
            (freed.was_frozen, freed.is_thawed),
            (was_frozen, true),
            "{times}"
        );
    }
}

#[test]
fn a_guest_that_cannot_be_thawed_as_it_says_was_not_held_until_then() {
    let mut scene = Scene::new();
    let mut script = frozen_for(1);
    speak_as_agent(scene.agent(), move |line| {
        let answer = script(line);
        match line.contains("guest-fsfreeze-thaw") {
            true => Some(
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"VSS timeout\"}}\n"
                    .to_owned(),
            ),
            false => answer,
        }
    });
    let freed = scene.release(THAWS, PACE);
    assert_eq!((freed.was_frozen, freed.is_thawed), (false, true));
}

#[test]
fn an_agent_that_does_not_answer_is_reached_anew() {
    let mut scene = Scene::new();
    let _silent = scene.agent();
    let socket: PathBuf = scene.home.path().join("agent");
    scene.fence.agent_socket = Some(socket);
    let listener = scene.listener("agent");
    thread::spawn(move || speak_as_agent(listener.accept().unwrap().0, frozen_for(1)));
    let freed = scene.release(THAWS, IMPATIENT);
    assert!(freed.was_frozen && freed.is_thawed);
    // And one that nobody reaches.
    let mut scene = Scene::new();
    let _silent = scene.agent();
    assert_eq!(scene.release(THAWS, IMPATIENT), Freed::default());
}

/// Whoever is at the socket of a monitor and of an agent: what each was told.
fn strangers(scene: &Scene) -> impl FnOnce() -> Vec<u8> + use<> {
    let all = ["1", "2", "agent"].map(|name| scene.listener(name));
    let told = all.map(|listener| {
        listener.set_nonblocking(true).unwrap();
        move || {
            let mut told = Vec::new();
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                stream.read_to_end(&mut told).unwrap();
            }
            told
        }
    });
    || told.into_iter().flat_map(|it| it()).collect()
}

/// A process that is none of these, which ends when this is dropped.
struct Stopped(process::Child);

impl Stopped {
    fn new() -> Self {
        let mut child = process::Command::new("cat");
        child.stdin(process::Stdio::piped());
        Self(child.spawn().unwrap())
    }

    fn runner(&self) -> Runner {
        Runner {
            process: Some(Peer::of(self.0.id().try_into().unwrap()).unwrap()),
            has_disks: true,
            ..Runner::default()
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const BOTH: Dues = Dues {
    goes_on: true,
    thaws: true,
};

#[test]
fn whoever_is_at_the_sockets_in_the_place_of_what_was_stopped_is_told_nothing() {
    let scene_of = |runner| {
        let mut scene = Scene::new();
        scene.monitor.shutdown(std::net::Shutdown::Both).unwrap();
        scene.fence.agent_socket = Some(scene.home.path().join("agent"));
        scene.fence.runner = runner;
        scene
    };
    let ended = Freed {
        has_ended: true,
        ..Freed::default()
    };
    // It has ended, and another process is there.
    let stopped = Stopped::new();
    let runner = stopped.runner();
    drop(stopped);
    let scene = scene_of(runner);
    let told = strangers(&scene);
    assert_eq!(scene.release(BOTH, PACE), ended);
    assert_eq!(scene.release(THAWS, PACE), ended);
    assert_eq!(told(), b"");
    // It lives, and another process has bound its sockets anew: it stands still, and nobody knows.
    let stopped = Stopped::new();
    let scene = scene_of(stopped.runner());
    let told = strangers(&scene);
    assert_eq!(
        scene.release_while(BOTH, IMPATIENT, &times(4)),
        Freed::default()
    );
    assert_eq!(told(), b"");
    // Its process cannot be seen, and another socket is there than was.
    let scene = scene_of(Runner::default());
    drop(strangers(&scene));
    let sockets = ["1", "2", "agent"].map(|name| {
        let socket = scene.home.path().join(name);
        let stamp = socket::stamp(socket::hold(&socket).unwrap()).unwrap();
        std::fs::rename(&socket, socket.with_extension("old")).unwrap();
        (socket, stamp)
    });
    let mut scene = scene;
    scene.fence.runner.sockets = sockets.into();
    let told = strangers(&scene);
    assert_eq!(scene.release(BOTH, PACE), ended);
    assert_eq!(told(), b"");
}

#[test]
fn what_was_stopped_is_reached_anew_by_its_process_or_by_its_socket() {
    for by_process in [true, false] {
        let mut scene = Scene::new();
        scene.monitor.shutdown(std::net::Shutdown::Both).unwrap();
        let listener = scene.listener("1");
        let socket = scene.home.path().join("1");
        let stamp = socket::stamp(socket::hold(&socket).unwrap()).unwrap();
        scene.fence.runner = match by_process {
            // The listener is of this process.
            true => Runner {
                process: Peer::of(process::id().try_into().unwrap()),
                has_disks: true,
                ..Runner::default()
            },
            false => Runner {
                sockets: [(socket, stamp)].into(),
                ..Runner::default()
            },
        };
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"QMP\": {\"version\": {}}}\n").unwrap();
            speak(stream, runs).join().unwrap()
        });
        assert!(scene.release(GOES_ON, PACE).goes_on, "{by_process}");
    }
}

/// A guest that says so is asked again as long as that goes on, and not too often.
#[test]
fn a_guest_that_never_thaws_costs_an_attempt_each_second() {
    let mut scene = Scene::new();
    speak_as_agent(scene.agent(), frozen_for(usize::MAX));
    let pauses = RefCell::new(Vec::new());
    let needed = |pause: Duration| {
        pauses.borrow_mut().push(pause.as_millis());
        pauses.borrow().len() < 9
    };
    let freed = scene.release_while(THAWS, PACE, &needed);
    assert!(freed.was_frozen && !freed.is_thawed);
    assert_eq!(
        pauses.borrow()[..9],
        [50, 100, 200, 400, 800, 1000, 1000, 1000, 1000]
    );
}
