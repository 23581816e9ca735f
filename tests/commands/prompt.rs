//! A password that is asked for at a terminal.

use std::io::{Read, Write};
use std::process::Stdio;

use nix::sys::signal::{SIGHUP, SIGINT, SIGTERM, kill};

use crate::support::server::{Server, binary, run_in, terminal, text};

/// What a shell's terminal shows when somebody types these keys at the question for a password, and how it stands
/// afterwards.
fn asked(command: &str, mut answer: impl FnMut(&str) -> Option<&'static [u8]>) -> String {
    let line = format!("trap : INT QUIT; sh -c 'echo pid $$; exec {command}'; stty -a");
    let mut child = terminal(&line)
        .env_remove("GROUPSHOT_PASSWORD")
        // Others set the terminal right themselves.
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut hand, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut said, mut answered) = (Vec::new(), 0);
    let mut byte = [0];
    while screen.read(&mut byte).unwrap_or(0) == 1 {
        said.extend(byte);
        let shown = text(&said);
        let questions = shown.matches("admin: ").count() + shown.matches("more: ").count();
        if questions > answered {
            answered = questions;
            if let Some(keys) = answer(&shown) {
                hand.write_all(keys).unwrap();
            }
        }
    }
    child.wait().unwrap();
    text(&said)
}

fn adding(data: &std::path::Path) -> String {
    let program = binary();
    format!(
        "{} user add admin --data-dir {}",
        program.display(),
        data.display()
    )
}

fn shows_what_is_typed(screen: &str) -> bool {
    assert!(screen.contains("isig"), "{screen}");
    screen.split_whitespace().any(|word| word == "echo")
}

#[test]
fn the_terminal_shows_what_is_typed_again_after_a_signal_at_the_question() {
    let data = tempfile::tempdir().unwrap();
    let command = adding(data.path());
    for key in [&b"\x03"[..], b"\x1c"] {
        let screen = asked(&command, |_| Some(key));
        assert!(shows_what_is_typed(&screen), "{screen}");
    }
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let screen = asked(&command, |shown| {
            let pid = shown.split_whitespace().nth(1).unwrap();
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            kill(pid, signal).unwrap();
            None
        });
        assert!(shows_what_is_typed(&screen), "{screen}");
    }
    assert!(!data.path().join("users.json").exists());
}

#[test]
fn a_password_is_typed_twice_and_not_shown() {
    let data = tempfile::tempdir().unwrap();
    let screen = asked(&adding(data.path()), |_| Some("zürich 7\n".as_bytes()));
    assert!(screen.contains("user `admin` added"), "{screen}");
    assert!(!screen.contains("rich"), "{screen}");
    assert!(shows_what_is_typed(&screen), "{screen}");
    let role = [
        "user",
        "add",
        "second",
        "--role",
        "administrator",
        "--password-stdin",
    ];
    assert!(run_in(data.path(), &role, "x").status.success());
    let server = Server::with(&crate::support::server::Options {
        data: Some(data.path()),
        ..Default::default()
    });
    let list = format!("{} job list --url {}", binary().display(), server.url());
    let screen = asked(&list, |_| Some("zürich 7\n".as_bytes()));
    assert!(screen.contains("SUBMITTED"), "{screen}");
    let screen = asked(&list, |_| Some(b"wrong\n"));
    assert!(screen.contains("does not accept"), "{screen}");
    // Ctrl-D in the middle of the line ends nothing, and twice does.
    for keys in ["zür\x04ich 7\n", "zürich 7\x04\x04"] {
        let screen = asked(&list, |_| Some(keys.as_bytes()));
        assert!(screen.contains("SUBMITTED"), "{screen}");
    }
    let screen = asked(&list, |_| Some(b"\x04"));
    assert!(screen.contains("no password was typed"), "{screen}");
}
