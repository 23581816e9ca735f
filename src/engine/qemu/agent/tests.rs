//! Agents that are late, lie, or hang, behind a QEMU that serves one client after the other. Time is the runtime's own.

use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex};

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// What a guest does at a command: how long it takes, and what it says then, as the rest of a line.
type Script = fn(&str, &mut Guest) -> (u64, String);

#[derive(Debug, Default)]
struct Guest {
    is_frozen: bool,
    /// Commands that were carried out.
    done: Vec<String>,
    /// How often one refuses.
    refusals: u32,
}

fn returns(value: &Value) -> String {
    json!({ "return": value }).to_string()
}

fn refuses(why: &str) -> String {
    json!({"error": {"class": "GenericError", "desc": why}}).to_string()
}

/// As an agent does on Linux.
fn linux(command: &str, guest: &mut Guest) -> (u64, String) {
    let value = match command {
        "guest-fsfreeze-status" if guest.is_frozen => json!("frozen"),
        "guest-fsfreeze-status" => json!("thawed"),
        "guest-fsfreeze-thaw" => json!(if std::mem::take(&mut guest.is_frozen) {
            2
        } else {
            0
        }),
        _ if guest.is_frozen => return (0, refuses("the agent is in frozen state")),
        "guest-fsfreeze-freeze" => {
            guest.is_frozen = true;
            json!(2)
        }
        "guest-get-osinfo" => json!({"id": "debian"}),
        _ => return (0, refuses("The command has not been found")),
    };
    (1, returns(&value))
}

/// A machine with an agent.
struct Scene {
    home: TempDir,
    guest: Arc<StdMutex<Guest>>,
    agent: Agent,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Scene {
    fn new(script: Script) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("qga")).unwrap();
        let (to_guest, mut from_host) = unbounded_channel::<Vec<u8>>();
        let (to_host, mut from_guest) = unbounded_channel::<Vec<u8>>();
        let guest = Arc::new(StdMutex::new(Guest::default()));
        // Does one thing after the other, whoever asks and whoever is there to hear of it.
        let own = Arc::clone(&guest);
        let inside = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Some(bytes) = from_host.recv().await {
                for byte in bytes {
                    match byte {
                        DELIMITER => heard.clear(),
                        b'\n' => {
                            let line = std::mem::take(&mut heard);
                            let said = answer(&line, script, &own).await;
                            let _gone = to_host.send(said);
                        }
                        _ => heard.push(byte),
                    }
                }
            }
        });
        let outside = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut piece = vec![0; 4096];
                loop {
                    tokio::select! {
                        read = client.read(&mut piece) => match read {
                            Ok(read @ 1..) => to_guest.send(piece[..read].to_vec()).unwrap(),
                            _ => break,
                        },
                        Some(said) = from_guest.recv() => {
                            let _gone = client.write_all(&said).await;
                        }
                    }
                }
            }
        });
        let agent = Agent::new("web", home.path().join("qga"));
        Self {
            home,
            guest,
            agent,
            _tasks: [inside, outside].map(AbortOnDropHandle::new),
        }
    }

    fn socket(&self) -> &Path {
        &self.agent.socket
    }

    fn is_frozen(&self) -> bool {
        self.guest.lock().unwrap().is_frozen
    }

    /// How often the guest has done this.
    fn times(&self, command: &str) -> usize {
        let guest = self.guest.lock().unwrap();
        guest.done.iter().filter(|done| *done == command).count()
    }

    /// Nobody has the socket: a client that comes now is answered.
    async fn assert_free(&self) {
        let mut client = UnixStream::connect(self.socket()).await.unwrap();
        assert!(is_served(&mut client).await, "somebody has the agent");
    }
}

async fn answer(line: &[u8], script: Script, guest: &StdMutex<Guest>) -> Vec<u8> {
    let Ok(asked) = serde_json::from_slice::<Value>(line) else {
        return format!("{}\n", refuses("JSON parse error")).into_bytes();
    };
    let command = asked["execute"].as_str().unwrap();
    if command == "guest-sync-delimited" {
        let said = format!("{}\n", returns(&asked["arguments"]["id"]));
        return [&[DELIMITER], said.as_bytes()].concat();
    }
    // What takes long is done at its end.
    let (takes, _) = script(command, &mut Guest::default());
    sleep(Duration::from_millis(takes)).await;
    let mut guest = guest.lock().unwrap();
    let (_, said) = script(command, &mut guest);
    guest.done.push(command.to_owned());
    format!("{said}\n").into_bytes()
}

/// Whether a client is answered within 2 s.
async fn is_served(client: &mut UnixStream) -> bool {
    let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": 1}});
    client
        .write_all(format!("{sync}\n").as_bytes())
        .await
        .unwrap();
    let mut piece = [0; 100];
    let read = timeout(Duration::from_secs(2), client.read(&mut piece));
    matches!(read.await, Ok(Ok(1..)))
}

fn of_quiesce(error: QuiesceError) -> String {
    match error {
        QuiesceError::Untouched(error) => format!("untouched: {}", error.text.english()),
        QuiesceError::Failed(error) => format!("failed: {}", error.text.english()),
    }
}

async fn refused(scene: &Scene) -> String {
    of_quiesce(scene.agent.quiesce().await.unwrap_err())
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_held_from_before_a_freeze_until_its_guest_is_thawed() {
    let scene = Scene::new(linux);
    assert!(!scene.agent.is_frozen().await.unwrap());
    scene.assert_free().await;
    let duplicate = scene.agent.duplicate().await.unwrap();
    let expected = Quiesced {
        count: 2,
        limit: None,
    };
    assert_eq!(scene.agent.quiesce().await.unwrap(), expected);
    assert!(scene.agent.is_frozen().await.unwrap() && scene.is_frozen());
    // It is frozen already, and stays ours.
    assert!(refused(&scene).await.starts_with("untouched: "));
    let mut second = UnixStream::connect(scene.socket()).await.unwrap();
    assert!(!is_served(&mut second).await);
    // Whoever has the duplicate is at the agent.
    let duplicate = UnixStream::from_std(duplicate.into()).unwrap();
    let mut duplicate = duplicate;
    assert!(is_served(&mut duplicate).await);
    drop(duplicate);
    for _ in 0..2 {
        scene.agent.thaw().await.unwrap();
        assert!(!scene.is_frozen());
    }
    assert!(!scene.agent.is_frozen().await.unwrap());
    assert_eq!(scene.times("guest-fsfreeze-thaw"), 1);
    // Its turn has come.
    let mut piece = [0; 100];
    assert!(second.read(&mut piece).await.unwrap() > 0);
}

/// Whatever comes between: a set that is not taken, a question that is given up.
#[tokio::test(start_paused = true)]
async fn an_agent_that_was_not_asked_to_freeze_is_left_to_others() {
    let scene = Scene::new(linux);
    for _ in 0..2 {
        drop(scene.agent.duplicate().await.unwrap());
        assert!(!scene.agent.is_frozen().await.unwrap());
        scene.agent.leave().await;
        scene.assert_free().await;
    }
    // One that is frozen is not.
    scene.agent.quiesce().await.unwrap();
    scene.agent.leave().await;
    let mut second = UnixStream::connect(scene.socket()).await.unwrap();
    assert!(!is_served(&mut second).await);
    scene.agent.thaw().await.unwrap();
    scene.agent.leave().await;
    drop(second);
    scene.assert_free().await;
    let slow = Scene::new(|command, guest| match command {
        "guest-fsfreeze-status" => (1000, linux(command, guest).1),
        _ => linux(command, guest),
    });
    let given_up = timeout(Duration::from_millis(500), slow.agent.is_frozen());
    assert!(given_up.await.is_err());
    slow.assert_free().await;
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_comes_later_than_anybody_waits_is_thawed() {
    let scene = Scene::new(|command, guest| match command {
        "guest-fsfreeze-freeze" => (90_000, linux(command, guest).1),
        _ => linux(command, guest),
    });
    let error = refused(&scene).await;
    assert!(
        error.starts_with("failed: ") && error.contains("does not answer guest-fsfreeze-freeze"),
        "{error}"
    );
    assert!(!scene.is_frozen());
    let mut late = 0;
    while let Err(error) = scene.agent.thaw().await {
        assert!(matches!(error, ThawError::Frozen(_)), "{error:?}");
        late += 1;
    }
    assert!(late > 5 && !scene.is_frozen());
    assert_eq!(
        (
            scene.times("guest-fsfreeze-freeze"),
            scene.times("guest-fsfreeze-thaw")
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_at_its_freeze_is_thawed_and_before_it_left_alone() {
    let slow: Script = |command, guest| match command {
        "guest-fsfreeze-freeze" => (3000, linux(command, guest).1),
        "guest-fsfreeze-status" => (1000, linux(command, guest).1),
        _ => linux(command, guest),
    };
    let scene = Scene::new(slow);
    let given_up = timeout(Duration::from_millis(2000), scene.agent.quiesce());
    assert!(given_up.await.is_err());
    assert!(
        !scene.agent.is_frozen().await.is_ok_and(|frozen| !frozen),
        "it was asked to freeze"
    );
    scene.agent.thaw().await.unwrap();
    assert!(!scene.is_frozen() && scene.times("guest-fsfreeze-thaw") == 1);
    let scene = Scene::new(slow);
    scene.guest.lock().unwrap().is_frozen = true;
    let given_up = timeout(Duration::from_millis(500), scene.agent.quiesce());
    assert!(given_up.await.is_err());
    // Nobody knows yet that somebody else had frozen it; it is not ours to thaw all the same.
    assert!(!scene.agent.is_frozen().await.unwrap());
    scene.agent.thaw().await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(scene.is_frozen() && scene.times("guest-fsfreeze-thaw") == 0);
    assert!(scene.agent.is_frozen().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_frozen_is_left_as_it_is_and_to_them() {
    let scene = Scene::new(linux);
    scene.guest.lock().unwrap().is_frozen = true;
    let error = refused(&scene).await;
    assert!(
        error.starts_with("untouched: ") && error.contains("somebody else"),
        "{error}"
    );
    scene.assert_free().await;
    assert!(scene.agent.is_frozen().await.unwrap());
    scene.assert_free().await;
    assert_eq!(scene.times("guest-fsfreeze-thaw"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_another_client_has_or_that_hangs_is_waited_for_in_vain() {
    let scene = Scene::new(linux);
    let mut other = UnixStream::connect(scene.socket()).await.unwrap();
    assert!(is_served(&mut other).await);
    let begun = Instant::now();
    let error = refused(&scene).await;
    assert!(
        error.starts_with("untouched: ") && error.contains("guest-sync-delimited"),
        "{error}"
    );
    assert!(scene.agent.duplicate().await.is_err());
    assert!(begun.elapsed() <= 2 * Patience::default().reply + Duration::from_secs(1));
    drop(other);
    assert!(scene.agent.quiesce().await.is_ok());
    let hung = Scene::new(|command, guest| match command {
        "guest-fsfreeze-status" => (3_600_000, String::new()),
        _ => linux(command, guest),
    });
    assert!(refused(&hung).await.starts_with("untouched: "));
    let nobody = Agent::new("web", hung.home.path().join("none"));
    let error = of_quiesce(nobody.quiesce().await.unwrap_err());
    assert!(
        error.contains("web") && error.contains("nobody listens"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_said_to_others_is_no_answer() {
    // Answers to whoever was there before, in front of each answer, and no ids.
    let scene = Scene::new(|command, guest| {
        let (takes, own) = linux(command, guest);
        let noise = [
            "no JSON at all",
            "",
            "[]",
            "{}",
            "{\"event\": \"X\"}",
            "{\"return\": nul",
            &"x".repeat(LINE_MAX + 1),
        ];
        (takes, format!("{}\n{own}", noise.join("\n")))
    });
    assert_eq!(scene.agent.quiesce().await.unwrap().count, 2);
    scene.agent.thaw().await.unwrap();
    // What comes before the number is repeated.
    let home = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(home.path().join("qga")).unwrap();
    let _task = AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let stale = "{\"return\": \"frozen\"}\n\u{0}{\"ret\u{1}{\"return\": 17}\nx"
            .replace(['\u{0}', '\u{1}'], "D");
        let stale: Vec<_> = stale
            .bytes()
            .map(|byte| if byte == b'D' { DELIMITER } else { byte })
            .collect();
        client.write_all(&stale).await.unwrap();
        let mut piece = vec![0; 4096];
        loop {
            let read = client.read(&mut piece).await.unwrap();
            let line = piece[..read]
                .strip_prefix(&[DELIMITER])
                .unwrap_or(&piece[..read]);
            let said = answer(line, linux, &StdMutex::default()).await;
            client.write_all(&said).await.unwrap();
        }
    }));
    let agent = Agent::new("web", home.path().join("qga"));
    assert!(!agent.is_frozen().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_floods_is_given_up_and_its_nonsense_told() {
    for flood in ["{}\n", "x", "{\"return\": "] {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("qga")).unwrap();
        let _task = AbortOnDropHandle::new(tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let block = flood.repeat(100_000);
            while client.write_all(block.as_bytes()).await.is_ok() {}
        }));
        let agent = Agent::new("web", home.path().join("qga"));
        let error = agent.is_frozen().await.unwrap_err().text.english();
        assert!(error.contains("more than anybody has asked for"), "{error}");
    }
    let table: [(Script, &str); 4] = [
        (
            |command, guest| match command {
                "guest-fsfreeze-freeze" => (0, returns(&json!(-1))),
                _ => linux(command, guest),
            },
            "failed: ",
        ),
        (
            |command, guest| match command {
                "guest-fsfreeze-freeze" => (0, returns(&json!({"count": 2}))),
                _ => linux(command, guest),
            },
            "answers guest-fsfreeze-freeze with something else",
        ),
        (
            |command, guest| match command {
                "guest-fsfreeze-status" => (0, returns(&json!("melting"))),
                _ => linux(command, guest),
            },
            "untouched: ",
        ),
        (
            |command, guest| match command {
                "guest-fsfreeze-freeze" => (0, refuses(&"\u{7}why ".repeat(1000))),
                _ => linux(command, guest),
            },
            "refuses guest-fsfreeze-freeze: why why",
        ),
    ];
    for (script, word) in table {
        let scene = Scene::new(script);
        let error = refused(&scene).await;
        assert!(error.contains(word) && error.len() < 500, "{word}: {error}");
        assert!(!error.contains('\u{7}'), "{error}");
    }
}

/// As the agent of Windows does, whose writers wait for 10 s.
fn windows(command: &str, guest: &mut Guest) -> (u64, String) {
    match command {
        "guest-get-osinfo" => (
            0,
            returns(&json!({"id": "mswindows", "name": "Microsoft Windows"})),
        ),
        "guest-fsfreeze-thaw" => {
            guest.is_frozen = false;
            (
                0,
                refuses("couldn't hold writes: fsfreeze is limited up to 10 seconds: "),
            )
        }
        _ => linux(command, guest),
    }
}

#[tokio::test(start_paused = true)]
async fn a_windows_guest_has_8_seconds_and_tells_if_it_had_less() {
    let scene = Scene::new(windows);
    let quiesced = scene.agent.quiesce().await.unwrap();
    assert_eq!(quiesced.limit, Some(Duration::from_secs(8)));
    let Err(ThawError::NotHeld(error)) = scene.agent.thaw().await else {
        panic!("it was not held");
    };
    let error = error.text.english();
    assert!(
        error.contains("web") && error.contains("10 seconds"),
        "{error}"
    );
    assert!(!scene.agent.is_frozen().await.unwrap());
    scene.assert_free().await;
    // Its writers do not come to rest.
    let scene = Scene::new(|command, guest| match command {
        "guest-fsfreeze-freeze" => (
            60_000,
            refuses("failed to add C:\\ to snapshot set: VSS_E_FLUSH_WRITES_TIMEOUT"),
        ),
        "guest-fsfreeze-thaw" => (0, returns(&json!(0))),
        _ => windows(command, guest),
    });
    let error = refused(&scene).await;
    assert!(error.starts_with("failed: "), "{error}");
    while scene.agent.thaw().await.is_err() {}
    assert!(!scene.is_frozen());
}

#[tokio::test(start_paused = true)]
async fn a_thaw_that_fails_is_tried_again_until_the_guest_says_it_is_thawed() {
    let refusing: Script = |command, guest| match command {
        "guest-fsfreeze-thaw" if guest.refusals > 0 => {
            guest.refusals -= 1;
            (0, refuses("failed to open /data"))
        }
        _ => linux(command, guest),
    };
    let scene = Scene::new(refusing);
    scene.agent.quiesce().await.unwrap();
    scene.guest.lock().unwrap().refusals = 3;
    scene.agent.thaw().await.unwrap();
    assert!(!scene.is_frozen());
    scene.agent.quiesce().await.unwrap();
    scene.guest.lock().unwrap().refusals = 1000;
    let Err(ThawError::Frozen(error)) = scene.agent.thaw().await else {
        panic!("it is frozen");
    };
    assert!(error.text.english().contains("failed to open /data"));
    assert!(scene.agent.is_frozen().await.unwrap(), "it is held still");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_qemu_has_closed_is_made_again() {
    let scene = Scene::new(linux);
    scene.agent.quiesce().await.unwrap();
    let Scene {
        home,
        agent,
        _tasks: ended,
        ..
    } = scene;
    drop(ended);
    std::fs::remove_file(home.path().join("qga")).unwrap();
    tokio::task::yield_now().await;
    let later = Scene::new(linux);
    std::fs::rename(later.socket(), home.path().join("qga")).unwrap();
    assert!(!agent.is_frozen().await.unwrap());
    agent.thaw().await.unwrap();
}

/// A window has a runtime of its own, and what it has frozen is thawed after its end as well.
#[test]
fn a_guest_is_thawed_in_another_runtime_than_it_was_frozen_in() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let outside = std::thread::spawn(move || {
        runtime().block_on(async {
            let scene = Scene::new(linux);
            tell.send(scene.socket().to_owned()).unwrap();
            let _ended = ended.await;
            assert!(!scene.is_frozen());
        });
    });
    let agent = Agent::new("web", told.recv().unwrap());
    assert_eq!(runtime().block_on(agent.quiesce()).unwrap().count, 2);
    assert!(runtime().block_on(agent.is_frozen()).unwrap());
    runtime().block_on(agent.thaw()).unwrap();
    assert!(!runtime().block_on(agent.is_frozen()).unwrap());
    end.send(()).unwrap();
    outside.join().unwrap();
}

#[test]
fn an_agent_listens_if_qemu_says_so_of_its_own_device() {
    let device =
        |name: &str, open: bool| json!({"label": "x", "filename": name, "frontend-open": open});
    let table = [
        (
            json!([device("disconnected:unix:/a,server=on", true)]),
            true,
        ),
        (
            json!([
                device("unix:/a,server=on <-> ", true),
                device("unix:/b,server=on", false)
            ]),
            true,
        ),
        (
            json!([device("disconnected:unix:/a,server=on", false)]),
            false,
        ),
        (json!([device("unix:/b,server=on", true)]), false),
        (
            json!([{"filename": "unix:/a"}, {"frontend-open": true}, 7]),
            false,
        ),
        (json!({"return": []}), false),
    ];
    for (chardevs, expected) in table {
        let told = serde_json::from_value(chardevs.clone()).unwrap();
        let found = listens(&told, |name| name.contains("unix:/a"));
        assert_eq!(found, expected, "{chardevs}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_socket_another_process_has_made_than_the_monitor_is_told_nothing() {
    let scene = Scene::new(linux);
    let own = Peer::of(std::process::id().try_into().unwrap()).unwrap();
    let other = Peer {
        started: own.started + 1,
        ..own.clone()
    };
    scene.agent.is_of(Some(&other)).await;
    let error = of_quiesce(scene.agent.quiesce().await.unwrap_err());
    assert!(error.contains("not the one at the monitor"), "{error}");
    assert!(scene.agent.thaw().await.is_err() && scene.agent.is_frozen().await.is_err());
    assert!(scene.guest.lock().unwrap().done.is_empty());
    scene.agent.is_of(Some(&own)).await;
    assert_eq!(scene.agent.quiesce().await.unwrap().count, 2);
    scene.agent.thaw().await.unwrap();
}
