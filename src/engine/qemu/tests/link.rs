//! What is asked over the connection of a watch, and what others do meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::sleep;

use crate::engine::Event;

use super::super::answer::Answer;
use super::super::link::Link;
use super::super::peer::id;
use super::super::qmp::Error;
use super::super::watch::{Pace, View, Watch, watching};
use super::{GREETING, answers, in_state, liar, shows, speaks};

const LIMIT: Duration = Duration::from_secs(5);

struct Scene {
    watch: Watch,
    link: Arc<Link>,
    _socket: TempDir,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

async fn scene(answer: impl Fn(&Value) -> String + Send + Sync + 'static) -> Scene {
    scene_at(answers(answer), "running").await
}

async fn scene_at((dir, socket): (TempDir, std::path::PathBuf), status: &'static str) -> Scene {
    let (watch, task) = watching(vec![socket], Pace::default());
    shows(&watch, speaks(status)).await;
    Scene {
        link: watch.link().unwrap(),
        watch,
        _socket: dir,
        _task: task,
    }
}

fn values(answers: &[Answer]) -> Vec<Value> {
    answers.iter().map(Answer::read).collect()
}

fn event(name: &str) -> String {
    format!("{}\n", json!({"event": name, "data": {}}))
}

#[tokio::test(start_paused = true)]
async fn commands_of_a_request_go_out_in_one_piece_and_are_answered_in_order() {
    let socket = liar(|client| async move {
        let (from, mut to) = client.into_split();
        let mut lines = BufReader::new(from).lines();
        to.write_all(GREETING.as_bytes()).await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let asked: Value = serde_json::from_str(&line).unwrap();
            let said = match asked["execute"].as_str() {
                // What came with it in one piece.
                Some("stop") => {
                    let behind = String::from_utf8_lossy(lines.get_ref().buffer()).into_owned();
                    format!("{}\n", json!({"return": behind, "id": asked["id"]}))
                }
                _ => in_state("running", &asked),
            };
            to.write_all(said.as_bytes()).await.unwrap();
        }
    });
    let scene = scene_at(socket, "running").await;
    let commands = vec![("stop", json!({})), ("query-block", json!({}))];
    let answered = values(&scene.link.ask(commands, LIMIT).await.unwrap());
    let [behind, blocks] = &answered[..] else {
        panic!("{answered:?}");
    };
    assert!(
        behind.as_str().unwrap().contains("query-block"),
        "{behind:?}"
    );
    assert_eq!(blocks, &json!([]));
}

#[tokio::test(start_paused = true)]
async fn what_others_do_to_a_machine_is_told_apart_from_what_was_asked_for() {
    let scene = scene(|asked| {
        let done = in_state("running", asked);
        match asked["execute"].as_str() {
            Some("stop") => event("STOP") + &done,
            Some("cont") => event("RESUME") + &done,
            Some("twice") => event("RESET") + &event("SHUTDOWN") + &done,
            Some("early") => event("STOP") + &done,
            Some("late") => done + &event("STOP"),
            Some("meanwhile") => event("RESUME") + &event("STOP") + &done,
            _ => done,
        }
    })
    .await;
    let mut events = scene.watch.events();
    let ask = |command| scene.link.ask(vec![(command, json!({}))], LIMIT);
    for ours in ["stop", "cont", "stop"] {
        ask(ours).await.unwrap();
        assert_eq!(events.try_recv(), Err(TryRecvError::Empty), "{ours}");
    }
    ask("meanwhile").await.unwrap();
    ask("twice").await.unwrap();
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let expected = [
        Event::Resumed,
        Event::Stopped,
        Event::Reset,
        Event::ShutDown,
    ];
    assert_eq!(told, expected);
    // Before ours was begun, or after it had ended.
    for other in ["early", "late"] {
        let both = vec![(other, json!({})), ("query-block", json!({}))];
        scene.link.ask(both, LIMIT).await.unwrap();
        assert_eq!(events.try_recv(), Ok(Event::Stopped), "{other}");
    }
    // One stop brings one event about: another one is of somebody else.
    let both = vec![("stop", json!({})), ("meanwhile", json!({}))];
    scene.link.ask(both, LIMIT).await.unwrap();
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert_eq!(told, [Event::Resumed, Event::Stopped]);
}

#[tokio::test(start_paused = true)]
async fn a_qemu_that_is_gone_is_told_and_its_requests_end() {
    let (dir, socket) = liar(|client| async move {
        let (from, mut to) = client.into_split();
        let mut lines = BufReader::new(from).lines();
        to.write_all(GREETING.as_bytes()).await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let asked: Value = serde_json::from_str(&line).unwrap();
            if asked["execute"] == "quit" {
                return;
            }
            let said = in_state("running", &asked);
            to.write_all(said.as_bytes()).await.unwrap();
        }
    });
    let scene = scene_at((dir, socket), "running").await;
    let mut events = scene.watch.events();
    let gone = scene.link.ask(vec![("quit", json!({}))], LIMIT).await;
    assert!(matches!(gone, Err(Error::Closed)), "{gone:?}");
    assert_eq!(events.recv().await, Ok(Event::ShutDown));
    let gone = scene.link.ask(vec![("stop", json!({}))], LIMIT).await;
    assert!(matches!(gone, Err(Error::Closed)), "{gone:?}");
    // The next connection has a way of its own.
    shows(&scene.watch, speaks("running")).await;
    let next = scene.watch.link().unwrap();
    assert!(next.ask(vec![("stop", json!({}))], LIMIT).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_is_nobody_elses_and_the_machine_shows_as_silent_meanwhile() {
    let socket = liar(|client| async move {
        let (from, mut to) = client.into_split();
        let mut lines = BufReader::new(from).lines();
        to.write_all(GREETING.as_bytes()).await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let asked: Value = serde_json::from_str(&line).unwrap();
            let said = match asked["execute"].as_str() {
                Some("slow") => {
                    sleep(Duration::from_secs(20)).await;
                    format!("{}\n", json!({"return": "slow", "id": asked["id"]}))
                }
                Some("fast") => format!("{}\n", json!({"return": "fast", "id": asked["id"]})),
                Some("wrong") => {
                    let fault = json!({"class": "GenericError", "desc": "so"});
                    format!("{}\n", json!({"error": fault, "id": asked["id"]}))
                }
                _ => in_state("running", &asked),
            };
            to.write_all(said.as_bytes()).await.unwrap();
        }
    });
    let scene = scene_at(socket, "running").await;
    let late = scene.link.ask(vec![("slow", json!({}))], LIMIT).await;
    assert!(matches!(late, Err(Error::Late("slow"))), "{late:?}");
    // As long as somebody waited for it, it was not silent.
    let is_mute = |view: &View| matches!(view, View::Mute(..));
    assert!(!is_mute(&scene.watch.view()));
    shows(&scene.watch, is_mute).await;
    let fast = scene.link.ask(vec![("fast", json!({}))], LIMIT * 6).await;
    assert_eq!(values(&fast.unwrap()), [json!("fast")]);
    shows(&scene.watch, speaks("running")).await;
    // All of a request are answered, whichever of them is refused.
    let commands = vec![("wrong", json!({})), ("fast", json!({}))];
    let refused = scene.link.ask(commands, LIMIT).await;
    assert!(
        matches!(&refused, Err(Error::Refused("wrong", why)) if why == "so"),
        "{refused:?}"
    );
    let fast = scene.link.ask(vec![("fast", json!({}))], LIMIT).await;
    assert_eq!(values(&fast.unwrap()), [json!("fast")]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_reaches_the_same_connection() {
    use std::io::Write;

    let scene = scene(|asked| match asked["execute"].as_str() {
        Some("cont") => event("RESUME"),
        _ => in_state("running", asked),
    })
    .await;
    let mut events = scene.watch.events();
    let duplicate = scene.link.duplicate().unwrap();
    let mut other = std::os::unix::net::UnixStream::from(duplicate);
    other
        .write_all(b"{\"execute\": \"cont\", \"id\": \"guard\"}\n")
        .unwrap();
    assert_eq!(events.recv().await, Ok(Event::Resumed));
}

/// Whoever stands still meanwhile does not wait for the next tick.
#[tokio::test(start_paused = true)]
async fn a_long_answer_keeps_no_other_waiting_for_its_turn() {
    let (_dir, socket) = answers(|asked| match asked["execute"].as_str() {
        Some("query-block") => {
            let list = format!("[{}0]", "[],".repeat(500_000));
            format!("{{\"return\": {list}, \"id\": {}}}\n", asked["id"])
        }
        _ => in_state("running", asked),
    });
    let seldom = Pace {
        tick: Duration::from_secs(3600),
        ..Pace::default()
    };
    let (watch, _task) = watching(vec![socket], seldom);
    shows(&watch, speaks("running")).await;
    let link = watch.link().unwrap();
    for _ in 0..3 {
        let asked = ["query-block", "query-jobs", "query-status"];
        let asked = asked.map(|command| (command, json!({}))).to_vec();
        let answered = link.ask(asked, LIMIT).await.unwrap();
        assert_eq!(values(&answered)[2], json!({"status": "running"}));
    }
}

/// The guard of a stopped machine has the connection too, and may need it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_lent_outlives_an_answer_without_sense() {
    for lent in [true, false] {
        let (wrong, came) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (lies, count) = (Arc::clone(&wrong), Arc::clone(&came));
        let scene = scene_at(
            liar(move |client| {
                count.fetch_add(1, Ordering::SeqCst);
                let lies = Arc::clone(&lies);
                async move {
                    let (from, mut to) = client.into_split();
                    let mut pieces = BufReader::new(from).split(b'\n');
                    let _gone = to.write_all(GREETING.as_bytes()).await;
                    while let Ok(Some(line)) = pieces.next_segment().await {
                        let Ok(asked) = serde_json::from_slice::<Value>(&line) else {
                            continue; // what ends a broken command
                        };
                        let said = match lies.swap(false, Ordering::SeqCst) {
                            true => format!("{}\n", json!({"return": 1, "id": asked["id"]})),
                            false => in_state("paused", &asked),
                        };
                        if to.write_all(said.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            }),
            "paused",
        )
        .await;
        scene.watch.keep(true);
        let duplicate = scene.link.duplicate().unwrap();
        if lent {
            scene.watch.lend();
        }
        wrong.store(true, Ordering::SeqCst);
        shows(&scene.watch, |view| matches!(view, View::Mute(..))).await;
        let begun = tokio::time::Instant::now();
        shows(&scene.watch, speaks("paused")).await;
        assert_eq!(came.load(Ordering::SeqCst), if lent { 1 } else { 2 });
        assert_eq!(begun.elapsed() < Duration::from_secs(1), lent);
        let link = scene.watch.link().unwrap();
        let asked = link.ask(vec![("cont", json!({}))], LIMIT).await;
        assert_eq!(asked.unwrap().len(), 1);
        let sent = std::os::unix::net::UnixStream::from(duplicate);
        let sent = std::io::Write::write_all(&mut &sent, b"{}\n");
        assert_eq!(sent.is_ok(), lent);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_process_has_open_is_not_looked_at_while_a_guard_has_its_connection() {
    let scene = scene(|asked| in_state("running", asked)).await;
    scene.watch.keep(true);
    scene.watch.lend();
    // This process is the one at the other end.
    let file = tempfile::NamedTempFile::new().unwrap();
    let opened = id(file.path()).unwrap();
    let sees = |view: &View| matches!(view, View::Speaks(it) if it.files.contains(&opened));
    for _ in 0..20 {
        scene.watch.look_again();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(!sees(&scene.watch.view()));
    scene.watch.keep(false);
    let seen = |view: &View| {
        scene.watch.look_again(); // by the names of disks, where others close files at the same time
        sees(view)
    };
    shows(&scene.watch, seen).await;
}
