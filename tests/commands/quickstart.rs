//! `quickstart`: the main job in one command, with real disks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::server::binary;
use crate::support::tools::{self, Mount};

use super::{fails, ok, said};

fn quickstart(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["quickstart", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .args(more);
    command
}

fn to_the_end(data: &Path) -> Output {
    quickstart(data, &["--exit"]).output().unwrap()
}

#[test]
fn it_proves_every_captured_disk_and_can_be_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("demo");
    for _ in 0..2 {
        let said = ok(&to_the_end(&data));
        assert!(said.contains("← 4096, snapshot set "), "{said}");
        assert_eq!(said.matches("no job: it is done").count(), 2, "{said}");
        let (taken, applied) = said.split_once(".ApplySnapshot ").expect("it goes back");
        for story in [taken, applied] {
            assert_eq!(story.matches("all as at the cut").count(), 6, "{said}");
        }
        let active = |story: &str, words: &str| {
            let lines = story.split("Active disks").nth(1).unwrap_or_default();
            lines.matches(words).count()
        };
        assert_eq!(active(taken, "as the machine left it"), 3, "{said}");
        assert_eq!(active(applied, "as at the cut of `before`"), 3, "{said}");
    }
}

/// Killed while it writes, it leaves disks without damage: the next run goes through.
#[test]
fn it_can_be_run_again_after_a_death_while_it_writes() {
    for point in ["merge.counted", "merge.named#2"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("demo");
        let orders = format!("{point}=abort");
        let mut dies = quickstart(&data, &["--exit"]);
        let died = dies.env("GROUPSHOT_FAILPOINTS", orders).output().unwrap();
        assert_eq!(died.status.code(), None, "{point}: {}", said(&died));
        let again = ok(&to_the_end(&data));
        assert_eq!(again.matches("all as at the cut").count(), 12, "{again}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_full_disk_is_told_in_one_line_and_with_more_room_it_can_be_run_again() {
    let mount = Mount::tmpfs("size=40m");
    let data = mount.path().join("demo");
    let refused = to_the_end(&data);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("No space left"), "{error}");
    let at = mount.path().to_str().unwrap();
    tools::run("mount", &["-o", "remount,size=400m", at]);
    let again = ok(&to_the_end(&data));
    assert_eq!(again.matches("all as at the cut").count(), 12, "{again}");
}

#[test]
fn a_directory_that_it_did_not_make_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fails(&to_the_end(folder.path()), 2, "not made by quickstart");
}

#[test]
fn json_and_an_empty_password_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("demo");
    let with = |more: &[&str]| quickstart(&data, more).output().unwrap();
    fails(&with(&["--exit", "--json"]), 2, "--json");
    fails(&with(&["--exit", "--password", ""]), 2, "password is empty");
    assert!(!data.exists());
}

#[test]
fn it_stays_up_for_any_client_until_it_is_told_to_stop() {
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("demo");
    let mut child = quickstart(&data, &["--password", "pass"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut running = Running(child);
    let url = lines
        .find_map(|l| {
            Some(
                l.split_once("listening on ")?
                    .1
                    .split(',')
                    .next()?
                    .to_owned(),
            )
        })
        .expect("it says where it listens");
    // Another one in the same place changes neither its disks nor its password.
    let second = quickstart(&data, &["--exit", "--password", "other"])
        .output()
        .unwrap();
    fails(&second, 4, "in use");
    assert!(second.stdout.is_empty(), "{}", said(&second));
    let list = Command::new(binary())
        .args(["snapshot", "list", "--url", &url, "--user", "admin"])
        .env("GROUPSHOT_PASSWORD", "pass")
        .output()
        .unwrap();
    let list = ok(&list);
    assert!(list.contains("before") && list.contains("after"), "{list}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(running.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}
