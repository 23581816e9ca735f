//! Commands on the library of machines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

use crate::support::server::{on_a_terminal, run_in};
use crate::support::site::{Ground, Image, Site};

use super::{code, fails, json, ok, said};

/// A machine `web` on a raw image that nobody may capture by an overlay; its `vm.toml`.
fn forbidding(site: &Site) -> PathBuf {
    let image = site.image("web", Image::Raw, 1);
    let args = ["vm", "import", "web", image.to_str().unwrap(), "--json"];
    let made = json(&run_in(&site.data, &args, ""));
    let id = made["id"].as_str().unwrap();
    site.data.join("machines").join(id).join("vm.toml")
}

#[test]
fn what_a_definition_allows_is_set_on_request_and_its_text_stays() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let old = format!("# mine\n{}", fs::read_to_string(&file).unwrap());
    fs::write(&file, &old).unwrap();
    let mode = fs::metadata(&file).unwrap().mode();
    let set = |more: &[&str]| run_in(&site.data, &[&["vm", "set", "web"], more].concat(), "");
    fails(&set(&["--overlay-ok"]), 2, "--yes");
    assert_eq!(fs::read_to_string(&file).unwrap(), old);
    let told = set(&["--overlay-ok", "--yes"]);
    assert!(ok(&told).contains(file.to_str().unwrap()));
    assert!(said(&told).contains("qcow2"), "{}", said(&told));
    let new = format!("{old}\n[qemu]\noverlay_ok = true\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), new);
    assert_eq!(fs::metadata(&file).unwrap().mode(), mode);
    assert!(ok(&set(&["--overlay-ok"])).contains("so already"));
    let back = json(&set(&["--no-overlay-ok", "--yes", "--json"]));
    assert_eq!(
        (&back["overlayOk"], &back["changed"]),
        (&false.into(), &true.into())
    );
    for usage in [&["--yes"][..], &["--overlay-ok", "--no-overlay-ok"]] {
        assert_eq!(code(&set(usage)), 2, "{usage:?}");
    }
}

#[test]
fn on_a_terminal_a_change_of_a_definition_is_asked_for() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let old = fs::read_to_string(&file).unwrap();
    let data = site.data.to_str().unwrap();
    let args = ["vm", "set", "web", "--overlay-ok", "--data-dir", data];
    let (exit, said) = on_a_terminal(&args, &[], &["n\n"]);
    assert_eq!(
        (exit, fs::read_to_string(&file).unwrap()),
        (Some(1), old),
        "{said}"
    );
    let (exit, said) = on_a_terminal(&args, &[], &["y\n"]);
    assert_eq!(exit, Some(0), "{said}");
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("overlay_ok = true")
    );
}

#[test]
fn a_definition_is_not_set_while_another_command_has_the_library() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let old = fs::read_to_string(&file).unwrap();
    let set = || {
        run_in(
            &site.data,
            &["vm", "set", "web", "--overlay-ok", "--yes"],
            "",
        )
    };
    let lock = fs::File::open(site.data.join("machines/.lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    fails(&set(), 4, "another command");
    drop(lock);
    assert_eq!(fs::read_to_string(&file).unwrap(), old);
    ok(&set());
}

#[test]
fn a_running_server_takes_notice_of_what_is_set() {
    let site = Site::new(Ground::Host);
    forbidding(&site);
    let server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web"]));
    let refused = server.cli(&["snapshot", "create", "all"]);
    fails(&refused, 1, "overlay_ok");
    ok(&server.local(&["vm", "set", "web", "--overlay-ok", "--yes"]));
    eventually(|| server.cli(&["snapshot", "create", "all"]).status.success());
}

/// Until it holds; a server looks at its files once a second.
fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it never came to hold");
}
