//! A data directory that version 0.1.0 left: it is served as it is, and has from then on what it lacked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::server::{Options, Server};
use crate::support::site::assert_holds;
use crate::support::tools::{self};
use crate::support::wire::Wire;

/// Where that version had it; each file names it, so another path must have its length.
const RECORDED: &str = "/tmp/groupshot-directory-0123456789abcdef";
const ARCHIVE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/fixtures/data-directories/0.1.0.tar.gz"
);

fn laid_out() -> tempfile::TempDir {
    let home = tempfile::Builder::new()
        .prefix("groupshot-directory-")
        .rand_bytes(16)
        .tempdir_in("/tmp")
        .unwrap();
    let at = home.path().to_str().unwrap();
    assert_eq!(at.len(), RECORDED.len(), "{at}");
    tools::run("tar", &["-xzf", ARCHIVE, "-C", at]);
    let mut files = Vec::new();
    walk(home.path(), &mut files);
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions();
        let mut bytes = fs::read(&file).unwrap();
        for n in 0..bytes.len().saturating_sub(at.len()) {
            if bytes[n..].starts_with(RECORDED.as_bytes()) {
                bytes[n..n + at.len()].copy_from_slice(at.as_bytes());
            }
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, mode).unwrap();
    }
    unseal(&home.path().join("data"));
    home
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, files),
            false => files.push(path),
        }
    }
}

/// The files of an archive are others than those that were sealed.
fn unseal(data: &Path) {
    let database = rusqlite::Connection::open(data.join("groupshot.db")).unwrap();
    let mut all = database.prepare("SELECT id, record FROM sets").unwrap();
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<(String, String)> = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    for (id, record) in rows {
        let mut set: serde_json::Value = serde_json::from_str(&record).unwrap();
        for member in set["members"].as_array_mut().unwrap() {
            for disk in member["disks"].as_array_mut().unwrap() {
                disk.as_object_mut().unwrap().remove("sealed").unwrap();
            }
        }
        let put = "UPDATE sets SET record = ?2 WHERE id = ?1";
        database.execute(put, [id, set.to_string()]).unwrap();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_directory_of_an_older_version_is_served_and_gets_its_checksums() {
    let home = laid_out();
    let data = home.path().join("data");
    let records = || {
        let folders = fs::read_dir(data.join("sets")).unwrap();
        let files = folders.map(|f| f.unwrap().path().join("set.json"));
        files.filter(|f| f.exists()).count()
    };
    // The first start dies when two of three sets have their records; none of them counts as away.
    let died = Server::try_with(&Options {
        data: Some(&data),
        env: &[("GROUPSHOT_FAILPOINTS", "record.written#2=abort")],
        ..Options::default()
    });
    assert!(died.err().unwrap().contains("signal: 9"));
    assert!(records() >= 2);
    // The third start reads what the second has made of it.
    for start in 1..=2 {
        let server = Server::with(&Options {
            data: Some(&data),
            ..Options::default()
        });
        let shown = Wire::new(&server).shown().unwrap();
        assert_eq!(shown.collections.len(), 1, "start {start}");
        let mut sets: Vec<_> = shown.sets.values().collect();
        sets.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<_> = sets.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["first", "second", "third"], "start {start}");
        for (set, written) in sets.iter().zip([1, 11, 12]) {
            assert!(!set.is_damaged(), "{set:?}");
            let mut web = vec![1; 64 << 10];
            web[4096..8192].fill(written);
            let mut holds = vec![web, vec![2; 64 << 10]];
            for member in &set.members {
                let file = &member.disks["disk0"];
                let at = holds.iter().position(|h| content(file) == *h);
                assert_holds(file, &holds.remove(at.unwrap()), &set.name);
            }
        }
        drop(server);
        assert_eq!(records(), 3, "start {start}");
        assert!(data.join("groupshot.commits").exists(), "start {start}");
        let users = fs::read_to_string(data.join("users.json")).unwrap();
        assert!(users.contains("checksum"), "{users}");
    }
}

fn content(file: &Path) -> Vec<u8> {
    crate::support::site::content(file)
}
