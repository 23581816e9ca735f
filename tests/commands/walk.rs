//! The way of somebody new, from an empty folder on ext4 to a first set and back, with what goes wrong on the way.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

use crate::support::server::{Options, PASSWORD, Server, add_user, binary, run_in, text};
use crate::support::tools::{Mount, run};

use super::{code, fails, json, ok, said};

fn import(data: &Path, args: &[&str]) -> Output {
    run_in(data, &[&["vm", "import"], args].concat(), "")
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_way_from_an_empty_folder_on_ext4_to_a_set_has_no_dead_end() {
    let mount = Mount::file_system("ext4");
    let (data, images) = (mount.path().join("data"), mount.path().join("images"));
    fs::create_dir(&images).unwrap();
    let image = images.join("web.raw");
    run(
        "qemu-img",
        &["create", "-q", "-f", "raw", image.to_str().unwrap(), "4M"],
    );
    add_user(&data);
    let imported = import(&data, &["web", image.to_str().unwrap()]);
    ok(&imported);
    let way = "groupshot vm set web --overlay-ok";
    assert!(said(&imported).contains(way), "{}", said(&imported));
    let mut server = Server::with(&Options {
        data: Some(&data),
        ..Options::default()
    });
    ok(&server.cli(&["collection", "create", "nightly", "web"]));
    let refused = server.cli(&["snapshot", "create", "nightly", "--name", "first"]);
    fails(&refused, 1, way);
    // Where nobody can be asked, it says so and what to say.
    fails(
        &run_in(&data, &["vm", "set", "web", "--overlay-ok"], ""),
        2,
        "--yes",
    );
    ok(&run_in(
        &data,
        &["vm", "set", "web", "--overlay-ok", "--yes"],
        "",
    ));
    let taken = json(&server.cli(&["snapshot", "create", "nightly", "--name", "first", "--json"]));
    let active = taken["changed"][0]["to"].as_str().unwrap().to_owned();
    let path = ok(&run_in(&data, &["vm", "path", "web"], ""));
    let leads = fs::canonicalize(path.trim()).unwrap();
    assert_eq!(leads, fs::canonicalize(&active).unwrap());
    assert_eq!(ok(&run_in(&data, &["doctor"], "")), "all is well\n");

    let wrong = Command::new(binary())
        .args(["snapshot", "list", "--url", &server.url()])
        .env("GROUPSHOT_PASSWORD", "wrong")
        .output()
        .unwrap();
    assert_eq!(code(&wrong), 5);
    assert!(
        said(&wrong).contains("user or password are wrong"),
        "{}",
        said(&wrong)
    );

    // A full disk: nothing is taken, the reason is said once, and one finding tells of it.
    let filler = mount.path().join("filler");
    let mut all = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut all, &[1; 1 << 16]).is_ok() {}
    drop(all);
    let full = server.cli(&["snapshot", "create", "nightly", "--name", "full"]);
    assert_eq!(code(&full), 6, "{}", said(&full));
    assert_eq!(
        said(&full).matches("must stay free").count(),
        1,
        "{}",
        said(&full)
    );
    let found = run_in(&data, &["doctor", "--json"], "");
    let found: Json = serde_json::from_slice(&found.stdout).unwrap();
    let kinds = found["findings"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds.map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["space-low"], "{found}");
    fs::remove_file(&filler).unwrap();

    ok(&server.cli(&["snapshot", "apply", "first", "--yes"]));
    let gone = ok(&server.cli(&["snapshot", "delete", "first", "--yes"]));
    assert!(
        gone.contains(&format!("is now {}; it was ", image.display())),
        "{gone}"
    );
    let url = server.url();
    server.stop();
    let away = Command::new(binary())
        .args(["snapshot", "list", "--url", &url])
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    assert_eq!(code(&away), 7, "{}", text(&away.stderr));
}
