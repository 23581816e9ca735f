//! `groupshot vm path`: the stable paths to the active files of a machine, or why there is none.

use clap::Args;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::local::DataDir;
use crate::cli::output::Output;
use crate::engine::links::{self, NoLink};
use crate::inventory::{Disk, Machine};
use crate::server;

/// Every file system holds a link to a path of so many bytes.
const LONGEST: usize = 1023;

#[derive(Debug, Args)]
pub(in crate::cli) struct Path {
    #[command(flatten)]
    data: DataDir,
    /// Name or id.
    machine: String,
    /// One of its disks; all of them if left out, one path a line.
    disk: Option<String>,
}

pub(super) fn run(wish: &Path, output: &Output) -> Result<(), Failure> {
    let data_dir = wish.data.path()?;
    let machines = server::recorded_machines(&data_dir)?;
    let all = server::named_machines(&data_dir)?;
    let machine = super::pick_one(&machines, &all, &wish.machine)?;
    let wanted = |d: &&Disk| wish.disk.as_ref().is_none_or(|id| *id == d.id);
    let disks: Vec<_> = machine.disks.iter().filter(wanted).collect();
    if disks.is_empty() {
        let known: Vec<_> = machine.disks.iter().map(|d| d.id.as_str()).collect();
        return Err(Failure::failed(format_args!(
            "machine `{}` has no disk `{}`; its disks: {}",
            machine.name,
            wish.disk.as_deref().unwrap_or_default(),
            known.join(", ")
        )));
    }
    let (mut paths, mut objects) = (Vec::new(), Vec::new());
    for disk in disks {
        let link = links::by_name(&machine, &disk.id, &all);
        let why = link.as_ref().err().map(|why| reason(&machine, disk, why));
        if let (Some(why), false) = (&why, output.is_json()) {
            return Err(Failure::failed(why));
        }
        let is_linked = !machine.relative.contains_key(&disk.id);
        let by_id = is_linked.then(|| links::by_id(&machine, &disk.id));
        let link = link.ok();
        paths.extend(link.as_ref().map(|path| path.display().to_string()));
        objects.push(json!({
            "id": disk.id,
            "path": link,
            "byId": by_id,
            "active": disk.file,
            "format": disk.format.as_str(),
            "why": why,
        }));
    }
    let fields = json!({"id": machine.id.to_string(), "name": machine.name, "disks": objects});
    output.result(fields, || paths.join("\n"))
}

fn reason(machine: &Machine, disk: &Disk, why: &NoLink) -> String {
    let by_id = links::by_id(machine, &disk.id);
    let by_id = by_id.display();
    match why {
        NoLink::Relative(below) => links::unlinked(disk, below),
        NoLink::TooLong(bytes) => format!(
            "the name of machine {} takes {bytes} bytes as the name of a folder, and 255 is the most; by its id \
             there is {by_id}",
            machine.id
        ),
        NoLink::Ambiguous(others) => {
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            format!(
                "`{}` is also the name of {}; by its id there is {by_id}",
                machine.name,
                others.join(", ")
            )
        }
        NoLink::Kept(other) => format!(
            "machines/by-name/{} leads to machine {other}, of which not even the name can be read; by its id there is \
             {by_id}",
            links::encoded(&machine.name)
        ),
        NoLink::Astray(path) => {
            let unless = match disk.file.as_os_str().len() {
                0..=LONGEST => String::new(),
                bytes => format!(
                    ", unless the file system of the data directory holds no link to so long a path: it has {bytes} \
                     bytes, and XFS, for one, holds {LONGEST} at most; a shorter path to the image, or another file \
                     system, helps"
                ),
            };
            format!(
                "{} does not lead to the active file {}; a server mends that when it starts, and while it runs when \
                 the library changes{unless}",
                path.display(),
                disk.file.display()
            )
        }
    }
}
