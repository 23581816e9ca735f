//! Exported sets: real servers, real disks, real refusals, and death at every step.

mod killed;
mod refused;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::support::server::{Options, Server};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::wire::Wire;

const STARTED: u64 = 4096;

/// A site with a folder that sets may be exported to, a group of two machines and a set of it.
struct Rig {
    site: Site,
    machines: Vec<Machine>,
    root: PathBuf,
    config: PathBuf,
}

impl Rig {
    fn new(ground: Ground) -> Self {
        let site = Site::new(ground);
        let root = site.images.join("exports");
        fs::create_dir(&root).unwrap();
        Self::with_root(site, root)
    }

    fn with_root(site: Site, root: PathBuf) -> Self {
        let machines = vec![
            site.machine("web", &[Image::Raw, Image::Qcow2], 1),
            site.machine("db", &[Image::Chain], 2),
        ];
        let config = site.data.with_file_name("groupshot.toml");
        fs::write(&config, format!("[export]\nroots = [{root:?}]\n")).unwrap();
        Self {
            site,
            machines,
            root,
            config,
        }
    }

    fn serve(&self, failpoints: &str) -> Server {
        self.try_serve(failpoints).unwrap()
    }

    fn try_serve(&self, failpoints: &str) -> Result<Server, String> {
        let orders = [("GROUPSHOT_FAILPOINTS", failpoints)];
        Server::try_with(&Options {
            args: &["--config", self.config.to_str().unwrap()],
            env: if failpoints.is_empty() { &[] } else { &orders },
            data: Some(&self.site.data),
            ..Options::default()
        })
    }

    /// A group of all machines.
    fn group(&self, wire: &Wire) -> String {
        let ids: Vec<_> = self.machines.iter().map(|m| m.id.as_str()).collect();
        wire.define("all", &ids).unwrap()
    }

    fn root(&self) -> &str {
        self.root.to_str().unwrap()
    }

    /// Every machine writes somewhere.
    fn write(&mut self, offset: usize, byte: u8) {
        for machine in &mut self.machines {
            for disk in 0..machine.images.len() {
                let top = self.site.top(machine, disk);
                machine.write(&top, disk, offset, 70_000, byte);
            }
        }
    }

    /// What lies in the root.
    fn left(&self) -> Vec<String> {
        names(&self.root)
    }

    /// The export of this set is whole: the manifest tells of every file, and every disk holds this.
    fn assert_whole(&self, set: &str, content: &[Vec<Vec<u8>>], what: &str) {
        let folder = self.root.join(set);
        let manifest = manifest(&folder);
        assert_eq!(manifest["format"], "groupshot-export", "{what}");
        assert_eq!(manifest["version"], 1, "{what}");
        assert_eq!(manifest["set"]["id"], set, "{what}");
        let machines = manifest["machines"].as_array().unwrap();
        assert_eq!(machines.len(), self.machines.len(), "{what}");
        let mut files = vec!["manifest.json".to_owned()];
        for ((told, machine), content) in machines.iter().zip(&self.machines).zip(content) {
            assert_eq!(told["id"], machine.id.as_str(), "{what}");
            assert_eq!(told["name"], machine.name.as_str(), "{what}");
            files.push(checked(&folder, &told["definition"], what));
            let disks = told["disks"].as_array().unwrap();
            assert_eq!(disks.len(), content.len(), "{what}");
            for (disk, content) in disks.iter().zip(content) {
                assert_eq!(disk["size"], content.len(), "{what}");
                let name = checked(&folder, &disk["image"], what);
                assert_holds(&folder.join(&name), content, what);
                files.push(name);
            }
        }
        files.sort();
        assert_eq!(tree(&folder), files, "{what}: nothing else");
    }
}

fn manifest(folder: &Path) -> Json {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// The name of a file that a manifest tells of; its hash is right.
fn checked(folder: &Path, told: &Json, what: &str) -> String {
    let name = told["file"].as_str().unwrap();
    let hash = groupshot::document::sha256(&fs::read(folder.join(name)).unwrap());
    assert_eq!(told["sha256"], hash.as_str(), "{what}: {name}");
    name.to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    let mut names: Vec<_> = entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The files in a folder and in its folders.
fn tree(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for name in names(folder) {
        match folder.join(&name).is_dir() {
            true => {
                let inner = names(&folder.join(&name)).into_iter();
                files.extend(inner.map(|n| format!("{name}/{n}")));
            }
            false => files.push(name),
        }
    }
    files.sort();
    files
}

fn content(machines: &[Machine]) -> Vec<Vec<Vec<u8>>> {
    machines.iter().map(|m| m.content.clone()).collect()
}
