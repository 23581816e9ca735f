//! Monitors that are none, lie, or stand still. Time is the runtime's own, and stands until nothing else is to be done.

mod link;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use super::answer::{Answer, Block, List, Node};
use super::blocks::{self, Finder};
use super::peer::id;
use super::qmp::{Error, LINE_MAX, Monitor, Patience, Said};
use super::watch::{Pace, View, Watch, watching};

const PATIENCE: Patience = Patience {
    greeting: Duration::from_millis(900),
    reply: Duration::from_secs(5),
};
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

fn told<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn devices(blocks: &Value, nodes: &Value) -> Vec<blocks::Device> {
    blocks::devices(&told::<List<Block>>(blocks), &told::<List<Node>>(nodes))
}

/// A socket at which `serve` is done with each client.
fn liar<F: Future<Output = ()> + Send>(
    serve: impl Fn(UnixStream) -> F + Send + 'static,
) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            serve(client).await;
        }
    });
    (dir, socket)
}

/// Says this to everyone, and then nothing more.
fn says(text: &'static str) -> (TempDir, PathBuf) {
    liar(move |mut client| async move {
        let _gone = client.write_all(text.as_bytes()).await;
        sleep(Duration::from_secs(3600)).await;
    })
}

/// Greets, and answers each command by what `answer` makes of it.
fn answers(answer: impl Fn(&Value) -> String + Send + Sync + 'static) -> (TempDir, PathBuf) {
    let answer = Arc::new(answer);
    liar(move |client| {
        let answer = Arc::clone(&answer);
        async move {
            let (from, mut to) = client.into_split();
            let mut lines = BufReader::new(from).lines();
            let _gone = to.write_all(GREETING.as_bytes()).await;
            while let Ok(Some(line)) = lines.next_line().await {
                let asked: Value = serde_json::from_str(&line).unwrap();
                if to.write_all(answer(&asked).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
}

/// The answer of a QEMU in this state.
fn in_state(status: &str, asked: &Value) -> String {
    let value = match asked["execute"].as_str() {
        Some("query-status") => json!({"status": status}),
        Some("query-block" | "query-named-block-nodes") => json!([]),
        _ => json!({}),
    };
    format!("{}\n", json!({"return": value, "id": asked["id"]}))
}

async fn refused(socket: &Path) -> Error {
    Monitor::connect(socket, PATIENCE).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn what_does_not_greet_as_a_monitor_is_none() {
    let (_dir, silent) = says("");
    let (error, peer) = Monitor::reach(&silent, PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::Busy) && peer.unwrap().lives());
    let half = "{\"QMP\": {\"version\"";
    let (_dir, half) = says(half);
    assert!(matches!(refused(&half).await, Error::Busy));
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "{\"return\": {}}\n",
        "\u{0}\n",
        "[[[[\n",
    ] {
        let (_dir, socket) = says(text);
        assert!(
            matches!(refused(&socket).await, Error::Foreign(_)),
            "{text}"
        );
    }
    let (_dir, deaf) = says(GREETING);
    assert!(matches!(
        refused(&deaf).await,
        Error::Late("qmp_capabilities")
    ));
    let (_dir, gone) = liar(|mut client| async move {
        let _gone = client.write_all(GREETING.as_bytes()).await;
    });
    assert!(matches!(refused(&gone).await, Error::Closed));
    let (dir, _socket) = says("");
    assert!(matches!(
        refused(&dir.path().join("none")).await,
        Error::Absent
    ));
}

#[tokio::test(start_paused = true)]
async fn a_line_without_an_end_is_given_up() {
    let (_dir, socket) = liar(|mut client| async move {
        let piece = vec![b'['; 1 << 20];
        while client.write_all(&piece).await.is_ok() {}
    });
    let endless = Patience {
        greeting: Duration::from_secs(3600),
        ..PATIENCE
    };
    let error = Monitor::connect(&socket, endless).await.unwrap_err();
    assert!(
        matches!(error, Error::Foreign("a line of it does not end")),
        "{error}"
    );
    const { assert!(LINE_MAX <= 2 << 20) }
}

/// By a thread of its own: what is tested is that the reader leaves its own to others.
#[test]
fn a_flood_before_an_answer_is_given_up_and_keeps_no_clock_from_running() {
    // The flood is given up by its length; a busy host takes its time.
    let patience = Patience {
        greeting: Duration::from_secs(60),
        reply: Duration::from_secs(60),
    };
    for (flood, times) in [
        ("{}\n", 20_000),
        ("{\"event\": \"STOP\", \"data\": \"x\"}", 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let block = flood.repeat(times);
            let _gone = client.write_all(GREETING.as_bytes());
            while client.write_all(block.as_bytes()).is_ok() {}
        });
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let error = runtime.block_on(Monitor::connect(&socket, patience));
            tell.send(error.unwrap_err()).unwrap();
        });
        let error = told.recv_timeout(Duration::from_secs(120));
        let error = error.expect("it is given up");
        assert!(matches!(error, Error::Foreign(_)), "{error}");
    }
}

#[test]
fn only_the_answer_that_is_awaited_is_kept() {
    let line = b"{\"return\": [1, {\"a\": null}], \"id\": 7}";
    assert_eq!(
        Said::of(line, &[7]),
        Said::Reply(7, Ok(Answer::of(line.to_vec())))
    );
    assert_eq!(
        Answer::of(line.to_vec()).read::<Value>(),
        json!([1, {"a": null}])
    );
    for (line, awaited) in [
        (&line[..], &[][..]),
        (&line[..], &[8]),
        (&b"{\"return\": {}}"[..], &[7]),
        (&b"[\"STOP\", null, 7, null, {}]"[..], &[7]),
    ] {
        assert_eq!(Said::of(line, awaited), Said::Other);
    }
}

/// Who runs a machine may say anything, as long as it likes.
#[tokio::test(start_paused = true)]
async fn what_a_monitor_answers_has_the_room_of_what_it_was_asked_and_no_more() {
    const MIB: usize = 1 << 20;
    let table = [
        ("query-block", MIB, true),
        ("query-named-block-nodes", MIB, true),
        ("query-block", 2 * MIB, false),
        ("query-jobs", 200 << 10, true),
        ("query-jobs", 300 << 10, false),
        ("query-status", 60 << 10, true),
        ("query-status", 70 << 10, false),
        ("cont", MIB, false),
    ];
    for (command, size, fits) in table {
        let (_dir, socket) = answers(move |asked| match asked["execute"].as_str() {
            Some(it) if it == command => {
                // A tree of this has half a million values.
                let list = format!("[{}0]", "[],".repeat(size / 3));
                format!("{{\"return\": {list}, \"id\": {}}}\n", asked["id"])
            }
            _ => in_state("running", asked),
        });
        let mut monitor = Monitor::connect(&socket, PATIENCE).await.unwrap();
        let answer = monitor.execute(command, json!({}), PATIENCE.reply).await;
        match answer {
            Ok(answer) => {
                assert!(fits, "{command}: {size}");
                assert_eq!(answer.read::<List<Block>>().iter().count(), 0);
            }
            Err(error) => {
                assert!(matches!(error, Error::Foreign(_)), "{command}: {error}");
                assert!(!fits, "{command}: {size}: {error}");
            }
        }
    }
}

/// Of an answer only what is wanted is kept, whatever else it holds.
#[test]
fn an_answer_is_read_into_what_is_wanted_of_it() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text = format!(
        "{{\"x\": {deep}, \"return\": [7, {{\"device\": \"d\", \"qdev\": 3, \"inserted\": {{\"drv\": \"raw\", \"image\": {{\"virtual-size\": 512, \"backing-image\": {deep}}}}}}}, null], \"id\": 1}}"
    );
    let blocks = Answer::of(text.into_bytes()).read::<List<Block>>();
    let found: Vec<_> = blocks.iter().collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].device.text(), found[0].qdev.text()), ("d", ""));
    let devices = blocks::devices(&blocks, &List::default());
    assert_eq!(devices[0].size, 512);
    for nonsense in [
        "{}",
        "{\"return\": 7}",
        "[",
        "{\"return\": [{\"device\": 1, \"device\": 2}]}",
    ] {
        let blocks = Answer::of(nonsense.as_bytes().to_vec()).read::<List<Block>>();
        assert_eq!(blocks.iter().count(), 0, "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_answer_to_what_was_asked_counts() {
    let (_dir, socket) = answers(|asked| {
        let own = in_state("running", asked);
        let noise = [
            "{\"event\": \"X_VENDOR_EVENT\", \"data\": {\"a\": [1]}}",
            "{\"return\": {\"status\": \"paused\"}, \"id\": 4711}",
            "{\"return\": {\"status\": \"paused\"}, \"id\": \"1\"}",
            "{\"return\": {\"status\": \"paused\"}}",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}",
            "no JSON at all",
            "",
        ];
        format!("{}\n{own}", noise.join("\n"))
    });
    let mut monitor = Monitor::connect(&socket, PATIENCE).await.unwrap();
    let status = monitor
        .execute("query-status", json!({}), PATIENCE.reply)
        .await
        .unwrap();
    assert_eq!(status.read::<Value>()["status"], "running");
    let (_dir, refuses) = answers(|asked| match asked["execute"].as_str() {
        Some("query-status") => {
            format!("{}\n", json!({"error": {"desc": "no"}, "id": asked["id"]}))
        }
        _ => in_state("running", asked),
    });
    let mut monitor = Monitor::connect(&refuses, PATIENCE).await.unwrap();
    let error = monitor
        .execute("query-status", json!({}), PATIENCE.reply)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused("query-status", why) if why == "no"));
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_followed_through_no_link() {
    let (dir, socket) = answers(|asked| in_state("running", asked));
    let (link, file) = (dir.path().join("link"), dir.path().join("file"));
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    std::fs::write(&file, "").unwrap();
    for (place, word) in [(&link, "symbolic link"), (&file, "no socket")] {
        let error = refused(place).await.to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(Monitor::connect(&socket, PATIENCE).await.is_ok());
}

/// Waits until the watch shows it.
async fn shows(watch: &Watch, what: impl Fn(&View) -> bool) {
    for _ in 0..1000 {
        if what(&watch.view()) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("it shows {:?}", watch.view());
}

fn speaks(status: &'static str) -> impl Fn(&View) -> bool {
    move |view| matches!(view, View::Speaks(it) if it.status == status)
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_falls_silent_shows_so_and_what_its_process_had_open() {
    let open = tempfile::NamedTempFile::new().unwrap();
    let (hang, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (_dir, socket) = {
        let (hang, asked) = (Arc::clone(&hang), Arc::clone(&asked));
        answers(move |command| {
            asked.fetch_add(1, Ordering::Relaxed);
            match hang.load(Ordering::Relaxed) {
                0 => in_state("running", command),
                1 => String::new(),
                _ => "{\"return\": {}, \"id\": 0}\n".to_owned(),
            }
        })
    };
    let (watch, _task) = watching(vec![socket], Pace::default());
    shows(&watch, speaks("running")).await;
    let View::Speaks(speaker) = View::clone(&watch.view()) else {
        panic!("it spoke");
    };
    // The process is this one.
    assert!(speaker.files.contains(&id(open.path()).unwrap()));
    assert!(
        !speaker
            .files
            .contains(&id(Path::new("/proc/self/exe")).unwrap())
    );
    assert_eq!(
        speaker.peer.unwrap().pid,
        i32::try_from(std::process::id()).unwrap()
    );
    hang.store(1, Ordering::Relaxed);
    shows(
        &watch,
        |view| matches!(view, View::Mute(_, Some(files)) if *files == speaker.files),
    )
    .await;
    let before = asked.load(Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        asked.load(Ordering::Relaxed),
        before,
        "it is asked one thing at a time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_lives_on_without_its_monitor_shows_what_it_has_open() {
    let open = tempfile::NamedTempFile::new().unwrap();
    let file = id(open.path()).unwrap();
    let has = |view: &View, word: &str| matches!(view, View::Mute(why, Some(files)) if why.contains(word) && files.contains(&file));
    let (_dir, strange) = says("SSH-2.0-OpenSSH_9.2\r\n");
    let (watch, _task) = watching(vec![strange], Pace::default());
    shows(&watch, |view| has(view, "no QMP monitor")).await;
    // It answers once, and hangs up on everyone from then on.
    let clients = Arc::new(AtomicUsize::new(0));
    let (_dir, socket) = liar(move |client| {
        let first = clients.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let (from, mut to) = client.into_split();
            let mut lines = BufReader::new(from).lines();
            if !first {
                return;
            }
            to.write_all(GREETING.as_bytes()).await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                let asked: Value = serde_json::from_str(&line).unwrap();
                let said = in_state("running", &asked);
                to.write_all(said.as_bytes()).await.unwrap();
                if asked["execute"] == "query-status" {
                    sleep(Duration::from_millis(100)).await;
                    return;
                }
            }
        }
    });
    let (watch, _task) = watching(vec![socket], Pace::default());
    shows(&watch, speaks("running")).await;
    shows(&watch, |view| has(view, "closed the connection")).await;
    for _ in 0..100 {
        assert!(has(&watch.view(), "closed the connection"));
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn events_have_the_state_asked_for_and_others_do_not() {
    let (tell, told) = tokio::sync::watch::channel(("", "running"));
    let asked = Arc::new(AtomicUsize::new(0));
    let (_dir, socket) = {
        let asked = Arc::clone(&asked);
        liar(move |client| {
            let (mut told, asked) = (told.clone(), Arc::clone(&asked));
            async move {
                let (from, mut to) = client.into_split();
                let mut lines = BufReader::new(from).lines();
                to.write_all(GREETING.as_bytes()).await.unwrap();
                loop {
                    let said = tokio::select! {
                        line = lines.next_line() => {
                            let Ok(Some(line)) = line else { return };
                            asked.fetch_add(1, Ordering::Relaxed);
                            in_state(told.borrow().1, &serde_json::from_str(&line).unwrap())
                        }
                        _ = told.changed() => {
                            let event = told.borrow_and_update().0;
                            format!("{}\n", json!({"event": event, "data": {}}))
                        }
                    };
                    if to.write_all(said.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
    };
    let seldom = Pace {
        tick: Duration::from_secs(3600),
        ..Pace::default()
    };
    let (watch, _task) = watching(vec![socket], seldom);
    shows(&watch, speaks("running")).await;
    for (event, status) in [
        ("STOP", "paused"),
        ("RESUME", "running"),
        ("BLOCK_IO_ERROR", "io-error"),
    ] {
        tell.send((event, status)).unwrap();
        shows(&watch, speaks(status)).await;
    }
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..50 {
        tell.send(("RTC_CHANGE", "running")).unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[tokio::test(start_paused = true)]
async fn who_floods_is_read_slowly_and_shows_as_silent() {
    const LINES: usize = 100;
    let written = Arc::new(AtomicUsize::new(0));
    let (_dir, socket) = {
        let written = Arc::clone(&written);
        liar(move |client| {
            let written = Arc::clone(&written);
            async move {
                let (from, mut to) = client.into_split();
                let mut lines = BufReader::new(from).lines();
                to.write_all(GREETING.as_bytes()).await.unwrap();
                // Until it is asked for the state.
                while let Ok(Some(line)) = lines.next_line().await {
                    let asked: Value = serde_json::from_str(&line).unwrap();
                    if asked["execute"] == "query-status" {
                        break;
                    }
                    to.write_all(in_state("", &asked).as_bytes()).await.unwrap();
                }
                let line = format!("{}\n", json!({"event": "STOP", "data": "x".repeat(1000)}));
                while to.write_all(line.as_bytes()).await.is_ok() {
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let pace = Pace {
        lines: u32::try_from(LINES).unwrap(),
        ..Pace::default()
    };
    let (watch, _task) = watching(vec![socket], pace);
    shows(&watch, |view| matches!(view, View::Mute(..))).await;
    let before = written.load(Ordering::Relaxed);
    sleep(pace.tick * 20).await;
    let read = written.load(Ordering::Relaxed) - before;
    // What the kernel and the buffer of a piece hold comes on top, once.
    assert!(
        (1..=LINES * 25 + 500).contains(&read),
        "{read} lines in 20 ticks"
    );
}

#[tokio::test(start_paused = true)]
async fn the_second_monitor_serves_while_another_client_has_the_first() {
    let (_busy, first) = says("");
    let (_dir, second) = answers(|asked| in_state("running", asked));
    let (watch, _task) = watching(vec![first.clone(), second], Pace::default());
    shows(&watch, speaks("running")).await;
    let (watch, _task) = watching(vec![first], Pace::default());
    shows(
        &watch,
        |view| matches!(view, View::Mute(why, Some(_)) if why.contains("does not greet")),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_counts_for_the_file_that_its_process_has_open() {
    let (dir, socket) = answers(|asked| in_state("running", asked));
    let monitor = Monitor::connect(&socket, PATIENCE).await.unwrap();
    let peer = monitor.peer().unwrap();
    let (file, other) = (dir.path().join("a.raw"), dir.path().join("b.raw"));
    let open = std::fs::File::create(&file).unwrap();
    std::fs::write(&other, "").unwrap();
    let number = open.as_raw_fd();
    let sets = json!([{"fdset-id": 7, "fds": [{"fd": number}]}, {"fdset-id": 8, "fds": []}, 9]);
    let sets = told(&sets);
    let files = peer.files().unwrap();
    let finder = Finder {
        peer: Some(peer),
        open: Some(&files),
        sets: &sets,
    };
    let expected = id(&file).unwrap();
    let name = file.to_str().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let from_folder = format!("../../../../../../../../{name}");
    for named in [name, link.to_str().unwrap(), &from_folder, "/dev/fdset/7"] {
        assert_eq!(finder.find(named).unwrap(), expected, "{named}");
    }
    let strange = [
        "/dev/fdset/8",
        "/dev/fdset/x",
        "/nowhere",
        "nbd://host/x",
        other.to_str().unwrap(),
    ];
    for named in strange {
        assert!(finder.find(named).is_err(), "{named}");
    }
    // By its name alone, where its process cannot be seen.
    let blind = Finder {
        peer: None,
        open: None,
        sets: &sets,
    };
    assert_eq!(blind.find(name).unwrap(), expected);
    for named in ["a.raw", "/dev/fdset/7"] {
        assert!(blind.find(named).is_err(), "{named}");
    }
    // Another file has the name now.
    std::fs::rename(&other, &file).unwrap();
    assert!(finder.find(name).is_err());
}

#[test]
fn the_file_of_a_disk_is_found_below_filters_and_other_disks_keep_theirs() {
    let inserted = |driver: &str, file: &str| json!({"drv": driver, "file": file, "ro": false, "image": {"virtual-size": 512}});
    let throttle = "json:{\"driver\": \"throttle\", \"file\": {\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"/a\"}}}";
    let snapshot = "json:{\"backing\": {\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"/a\"}}, \"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"/tmp/vl\"}}";
    let remote = "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"nbd\", \"server\": {}}}";
    let loops = "json:{\"driver\": \"throttle\"}";
    let table = [
        (inserted("throttle", throttle), ("qcow2", Some("/a"))),
        (inserted("qcow2", snapshot), ("qcow2", Some("/tmp/vl"))),
        (inserted("qcow2", "/a"), ("qcow2", Some("/a"))),
        (
            inserted("raw", "nbd://host/x"),
            ("raw", Some("nbd://host/x")),
        ),
        (inserted("raw", remote), ("raw", None)),
        (inserted("throttle", loops), ("throttle", None)),
        (inserted("throttle", "json:{"), ("throttle", None)),
        (inserted("copy-on-read", "/b"), ("qcow2", Some("/b"))),
        (inserted("file", "/c"), ("raw", Some("/c"))),
        (json!({"drv": 3}), ("", None)),
    ];
    let nodes = json!([{"drv": "file", "file": "/b"}, {"drv": "qcow2", "file": "/b"}, {"drv": "file", "file": "/c"}, 7]);
    for (inserted, (driver, file)) in table {
        let blocks =
            json!([{"device": "", "qdev": "/machine/x", "inserted": inserted}, {"device": "cd0"}]);
        let found = devices(&blocks, &nodes);
        assert_eq!(found.len(), 1, "a drive without a medium is none");
        assert_eq!(
            (found[0].driver.as_str(), found[0].file.as_deref()),
            (driver, file)
        );
        assert_eq!(found[0].name, "/machine/x");
    }
    assert_eq!(devices(&json!({"not": "a list"}), &Value::Null), []);
}

#[test]
fn the_flash_of_the_firmware_is_no_disk_of_the_guest() {
    let table = [
        ("pflash1", Some("/machine/system.flash1"), false),
        ("", Some("/machine/virt.flash1"), false),
        ("vars", Some("/machine/system.flash1"), false),
        ("pflash1", None, false),
        ("pflash1", Some(""), false),
        (
            "pflash1",
            Some("/machine/peripheral/disk/virtio-backend"),
            true,
        ),
        ("pflash-data", None, true),
        ("virtio0", Some("/machine/peripheral-anon/device[0]"), true),
    ];
    for (name, qdev, captured) in table {
        let inserted = json!({"drv": "raw", "file": "/a", "ro": false});
        let blocks = json!([{"device": name, "qdev": qdev, "inserted": inserted}]);
        let found = devices(&blocks, &Value::Null);
        assert_eq!(found[0].is_captured, captured, "{name} {qdev:?}");
    }
}

/// It shares that with all others, which would wait meanwhile.
#[tokio::test]
async fn a_long_answer_is_not_looked_at_on_the_thread_of_all_monitors() {
    let (_dir, socket) = answers(|asked| match asked["execute"].as_str() {
        Some("query-block") => {
            let list = format!("[{}0]", "[],".repeat(200_000));
            format!("{{\"return\": {list}, \"id\": {}}}\n", asked["id"])
        }
        _ => in_state("running", asked),
    });
    let mut monitor = Monitor::connect(&socket, PATIENCE).await.unwrap();
    let id = monitor.ask("query-block", json!({})).await.unwrap();
    // Given up again and again, as by a watch that has something else to do.
    let mut is_looked_at = false;
    let said = loop {
        tokio::select! {
            biased;
            said = monitor.said() => break said.unwrap(),
            () = tokio::task::yield_now() => is_looked_at |= monitor.is_looking(),
        }
    };
    let Said::Reply(answered, Ok(answer)) = said else {
        panic!("it is answered");
    };
    assert_eq!(answered, id);
    assert!(answer.len() > 600_000);
    assert!(is_looked_at && !monitor.is_looking(), "by another thread");
}
