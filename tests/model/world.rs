//! A real server with real disks beside the model of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::server::{Options, Server};
use crate::support::site::{Ground, Image, Machine, Site, format};
use crate::support::tools;
use crate::support::wire::Wire;

use super::step::{Disks, Op, Set};

/// So many sets at most: a check reads all of them.
pub(super) const SETS: usize = 5;
/// So many machines at most.
const MACHINES: usize = 4;
/// By so much a disk grows.
const GROWTH: usize = 192 << 10;
/// So many steps lie between two checks of everything.
const INTERVAL: usize = 10;

pub(super) struct World {
    pub(super) site: Site,
    pub(super) server: Server,
    pub(super) wire: Wire,
    pub(super) group: String,
    pub(super) machines: Vec<Machine>,
    pub(super) sets: Vec<Set>,
    /// The folder that sets are exported to, and what of it belongs to somebody.
    pub(super) root: PathBuf,
    pub(super) exported: Exported,
}

/// Exports that are there.
#[derive(Debug, Default)]
pub(super) struct Exported {
    /// The newest one: its folder, and the machines in it that nobody has imported, by their old ids.
    pub(super) last: Option<(PathBuf, BTreeMap<String, Disks>)>,
    /// Folders that imported machines have their disks in.
    pub(super) imported: Vec<PathBuf>,
}

impl World {
    pub(super) fn new(ground: Ground) -> Self {
        let site = Site::new(ground);
        let machines = vec![
            site.machine("a", &[Image::Raw, Image::Qcow2], 1),
            site.machine("b", &[Image::Chain], 2),
        ];
        let root = site.images.join("exports");
        fs::create_dir(&root).unwrap();
        site.configuration(&format!("[export]\nroots = [{root:?}]\n"));
        let server = serve(&site, "");
        let wire = Wire::new(&server);
        let ids: Vec<_> = machines.iter().map(|m| m.id.as_str()).collect();
        let group = wire.define("all", &ids).unwrap();
        Self {
            site,
            server,
            wire,
            group,
            machines,
            sets: Vec::new(),
            root,
            exported: Exported::default(),
        }
    }

    pub(super) fn step(&mut self, number: usize, op: &Op) {
        let what = format!("after step {number}, {op:?}");
        match op {
            Op::Write {
                machine,
                disk,
                at,
                length,
                byte,
            } => self.write(*machine, *disk, (*at, *length), *byte),
            Op::Grow { machine, disk } => self.grow(*machine, *disk),
            Op::Restart => {
                self.server.stop();
                self.start("");
            }
            Op::ImportExported { member } => self.import_exported(*member, number),
            Op::ImportFresh { image, byte } => self.import_fresh(*image, *byte, number),
            Op::Change {
                change,
                death: None,
            } => self.change(change, &format!("set {number}"), &what),
            Op::Change {
                change,
                death: Some(death),
            } => {
                self.killed(change, &format!("set {number}"), death, &what);
                self.check(&what);
            }
        }
        if number % INTERVAL == INTERVAL - 1 {
            self.check(&what);
        }
    }

    fn write(&mut self, machine: usize, disk: usize, (at, length): (usize, usize), byte: u8) {
        let among = self.machines.len();
        let machine = &mut self.machines[machine % among];
        let disk = disk % machine.content.len();
        let size = machine.content[disk].len();
        let (at, top) = (at.min(size - 512), self.site.top(machine, disk));
        match byte {
            0 => machine.zero(&top, disk, at, length.min(size - at)),
            _ => machine.write(&top, disk, at, length.min(size - at), byte),
        }
    }

    fn grow(&mut self, machine: usize, disk: usize) {
        let among = self.machines.len();
        let machine = &mut self.machines[machine % among];
        let disk = disk % machine.content.len();
        let top = self.site.top(machine, disk);
        let content = &mut machine.content[disk];
        let size = content.len() + GROWTH;
        content.resize(size, 0);
        let (top, size) = (top.to_str().unwrap(), size.to_string());
        tools::run(
            "qemu-img",
            &["resize", "-q", "-f", format(top.as_ref()), top, &size],
        );
    }

    fn import_fresh(&mut self, image: Image, byte: u8, number: usize) {
        if self.machines.len() < MACHINES {
            let name = format!("fresh{number}");
            self.join(self.site.machine(&name, &[image], byte));
        }
    }

    fn import_exported(&mut self, member: usize, number: usize) {
        let Some((folder, members)) = &mut self.exported.last else {
            return;
        };
        let Some(old) = members.keys().nth(member).cloned() else {
            return;
        };
        if self.machines.len() == MACHINES {
            return;
        }
        let definition = folder.join(&old).join("vm.toml");
        let content = members.remove(&old).unwrap();
        if !self.exported.imported.contains(folder) {
            self.exported.imported.push(folder.clone());
        }
        let name = format!("exported{number}");
        let machine = self.site.import_exported(&name, &definition, content);
        self.join(machine);
    }

    /// One more member of the group.
    fn join(&mut self, machine: Machine) {
        self.wire.add(&self.group, &machine.id);
        self.machines.push(machine);
    }

    /// Starts the server with these fail points.
    pub(super) fn start(&mut self, failpoints: &str) {
        self.server = serve(&self.site, failpoints);
        self.wire = Wire::new(&self.server);
    }
}

fn serve(site: &Site, failpoints: &str) -> Server {
    let config = site.data.with_file_name("groupshot.toml");
    let orders = [("GROUPSHOT_FAILPOINTS", failpoints)];
    Server::with(&Options {
        args: &["--config", config.to_str().unwrap()],
        env: if failpoints.is_empty() { &[] } else { &orders },
        data: Some(&site.data),
        ..Options::default()
    })
}
