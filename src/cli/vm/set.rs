//! `groupshot vm set`: what the definition of a machine allows, changed on request.
//!
//! Each option is a field of [`Change`] with its line of consequences; nothing is written before they are told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::engine::definition::{DEFINITION, MACHINES};
use crate::engine::recorded::Said;
use crate::engine::setting::{Changes, Shown};
use crate::id::VmId;
use crate::inventory::{Format, Machine};
use crate::server;
use crate::snapshot::Choosing;

use super::{find, owned, pick_any};
use crate::cli::failure::Failure;
use crate::cli::local::DataDir;
use crate::cli::output::{Output, can_ask, confirm, one_line};
use crate::cli::remote::block_on;

#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    data: DataDir,
    /// The server's configuration file, for its image_roots.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name or id.
    machine: String,
    #[command(flatten)]
    change: Change,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Where an image cannot be cloned, capture it by an overlay, which is the active file from then on.
    #[arg(long, conflicts_with = "no_overlay_ok")]
    overlay_ok: bool,
    /// Capture by clones or not at all.
    #[arg(long)]
    no_overlay_ok: bool,
    /// What stands at the paths of its images now is meant, whoever has put it there.
    #[arg(long)]
    accept_image: bool,
    /// Take the file under this disk's image, or under this image, as of this format, where its header names none.
    #[arg(long, value_name = "DISK|FILE=FORMAT", value_parser = backing_format)]
    backing_format: Vec<(String, Format)>,
    /// Take the active file of this disk as whole, though it had more bytes before.
    #[arg(long, value_name = "DISK")]
    accept_size: Vec<String>,
    /// The machine goes on from this file of the disk, where its active file is not known any more, as after an older
    /// backup was put back. What something else needs is covered by a new overlay. No server may run.
    #[arg(
        long,
        value_name = "DISK=FILE",
        value_parser = active,
        conflicts_with_all = ["overlay_ok", "no_overlay_ok", "accept_image", "backing_format", "accept_size"]
    )]
    active: Vec<(String, PathBuf)>,
}

fn active(text: &str) -> Result<(String, PathBuf), String> {
    let (disk, file) = text.split_once('=').ok_or("it has no =")?;
    match Path::new(file) {
        file if file.is_absolute() => Ok((disk.to_owned(), file.to_owned())),
        _ => Err("the path of the file is not absolute".to_owned()),
    }
}

fn backing_format(text: &str) -> Result<(String, Format), String> {
    let (target, format) = text.rsplit_once('=').ok_or("it has no =")?;
    let format = match format {
        "qcow2" => Format::Qcow2,
        "raw" => Format::Raw,
        _ => return Err("the format is qcow2 or raw".to_owned()),
    };
    Ok((target.to_owned(), format))
}

impl Change {
    /// With what stands at the paths of the images now, if that is to be accepted.
    fn changes(
        &self,
        data_dir: &Path,
        machine: &Machine,
        roots: &[PathBuf],
    ) -> Result<Changes, Failure> {
        let shown = || server::shown_images(data_dir, machine.id, roots);
        Ok(Changes {
            overlay_ok: match (self.overlay_ok, self.no_overlay_ok) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                (false, false) => None,
            },
            accept_images: self.accept_image.then(shown).transpose()?,
        })
    }

    fn said(&self) -> Said {
        Said {
            backing_formats: self.backing_format.clone(),
            whole: self.accept_size.clone(),
        }
    }
}

pub(super) fn run(wish: &Set, output: &Output) -> Result<(), Failure> {
    let config = wish.config.as_deref().map(Config::load).transpose()?;
    let config = config.unwrap_or_default();
    let roots = &config.engine.image_roots;
    if !wish.change.active.is_empty() {
        return choose(wish, roots, output);
    }
    let data_dir = wish.data.path()?;
    let (id, name) = defined(&data_dir, &wish.machine)?;
    let (machines, _) = server::machines(&data_dir)?;
    let Some(machine) = machines.into_iter().find(|machine| machine.id == id) else {
        return allow(wish, (id, &name), roots, output);
    };
    let changes = wish.change.changes(&data_dir, &machine, roots)?;
    let said = wish.change.said();
    let mut consequences = consequences(&machine, &changes);
    consequences.extend(taken(&said));
    if !consequences.is_empty() && !wish.yes {
        agree(&consequences, &machine.name)?;
    }
    let changed = server::change_machine(&data_dir, machine.id, &changes, &said, roots)?;
    if wish.yes && changed {
        consequences.iter().for_each(|line| output.note(line));
    }
    let now = find(&wish.data, &machine.id.to_string())?;
    output.result(fields(&now, changed), || {
        let name = one_line(&now.name);
        match changed {
            true if said.is_empty() => format!("{} is changed", now.definition.display()),
            true => format!("`{name}` is changed"),
            false => format!("`{name}` is so already; nothing was changed"),
        }
    })
}

/// Has somebody agree to what follows.
fn agree(consequences: &[String], machine: &str) -> Result<(), Failure> {
    let told = consequences.join(" ");
    if !can_ask() {
        return Err(Failure::usage(format_args!(
            "{told} Say --yes where nobody can be asked"
        )));
    }
    match confirm(&format!("{told} Change `{machine}`?"))? {
        true => Ok(()),
        false => Err(Failure::failed("nothing is changed")),
    }
}

/// The machine that is meant, whatever can be read of it, and how it is called.
fn defined(data_dir: &Path, wanted: &str) -> Result<(VmId, String), Failure> {
    let machines = server::named_machines(data_dir)?;
    let (id, name) = pick_any(&machines, wanted)?.clone();
    Ok((id, name.unwrap_or_else(|| id.to_string())))
}

/// Whether overlays are allowed for a machine of which nothing but its definition is known: it may need one to be known
/// again.
fn allow(
    wish: &Set,
    (id, name): (VmId, &str),
    roots: &[PathBuf],
    output: &Output,
) -> Result<(), Failure> {
    let data_dir = wish.data.path()?;
    let (change, shown) = (&wish.change, one_line(name));
    let said = change.said();
    if change.accept_image || !said.is_empty() {
        return Err(Failure::failed(format_args!(
            "machine `{shown}` cannot be read: `groupshot vm list` tells why"
        )));
    }
    let told = match change.overlay_ok {
        true => format!(
            "overlay_ok: an overlay may become the active file of a disk of `{shown}`; a start from the old file would \
             then boot what is stale. Start it from where `groupshot vm path` says."
        ),
        false => overlays_forbidden(name),
    };
    if !wish.yes {
        agree(std::slice::from_ref(&told), name)?;
    }
    let changes = Changes {
        overlay_ok: Some(change.overlay_ok),
        accept_images: None,
    };
    let changed = server::change_machine(&data_dir, id, &changes, &said, roots)?;
    if wish.yes && changed {
        output.note(told);
    }
    let object = json!({
        "id": id.to_string(),
        "name": name,
        "disks": null,
        "overlayOk": change.overlay_ok,
        "changed": changed,
        "definition": data_dir.join(MACHINES).join(id.to_string()).join(DEFINITION),
    });
    output.result(object, || match changed {
        true => format!("`{shown}` is changed"),
        false => format!("`{shown}` is so already; nothing was changed"),
    })
}

/// The active files that the operator names. The machine is one of which nobody may know them.
fn choose(wish: &Set, roots: &[PathBuf], output: &Output) -> Result<(), Failure> {
    let data_dir = wish.data.path()?;
    let (id, name) = defined(&data_dir, &wish.machine)?;
    let mut named = BTreeMap::new();
    for (disk, file) in wish.change.active.iter().cloned() {
        if named.contains_key(&disk) {
            let disk = one_line(&disk);
            return Err(Failure::usage(format_args!(
                "--active names more than one file for disk {disk}; say one"
            )));
        }
        named.insert(disk, file);
    }
    let choose = |what| {
        let chosen = server::choose_tops(&data_dir, id, named.clone(), what, roots);
        block_on(async { Ok(chosen.await?) })
    };
    let what = match wish.yes {
        true => Choosing::Do,
        false => {
            let shown = choose(Choosing::Show)?;
            agree(&shown.told, &name)?;
            Choosing::AsShown(shown)
        }
    };
    let done = choose(what)?;
    done.told.iter().for_each(|line| output.note(line));
    let now = find(&wish.data, &id.to_string())?;
    output.result(fields(&now, true), || {
        format!("`{}` is changed", one_line(&now.name))
    })
}

fn fields(machine: &Machine, changed: bool) -> Json {
    let mut fields = super::fields(machine);
    if let Json::Object(fields) = &mut fields {
        fields.insert("changed".to_owned(), changed.into());
        fields.insert("definition".to_owned(), json!(machine.definition));
    }
    fields
}

/// What follows from the changes, in sentences; none if there is nothing to change.
fn consequences(machine: &Machine, changes: &Changes) -> Vec<String> {
    let mut lines = Vec::new();
    match changes.overlay_ok.filter(|ok| *ok != machine.overlay_ok) {
        Some(true) => lines.push(super::overlays_allowed(machine)),
        Some(false) => lines.push(overlays_forbidden(&machine.name)),
        None => {}
    }
    let shown = changes.accept_images.iter();
    lines.extend(shown.map(|shown| accepted(machine, shown)));
    lines
}

/// What is taken for true from now on.
fn taken(said: &Said) -> Vec<String> {
    let formats = said.backing_formats.iter().map(|(target, format)| {
        let format = format.as_str();
        format!(
            "What lies under {} is read as {format} from now on. If it is of another format, sets hold what no \
             machine has written.",
            one_line(target)
        )
    });
    let sizes = said.whole.iter().map(|disk| {
        format!(
            "Disk {} counts as whole as it is now; what was behind its end is gone.",
            one_line(disk)
        )
    });
    formats.chain(sizes).collect()
}

fn accepted(machine: &Machine, shown: &[Shown]) -> String {
    let told = shown.iter().map(|Shown { image, closed, .. }| {
        let mut told = match image.file == image.named {
            true => owned(image),
            false => format!(
                "{} (which leads to {})",
                image.named.display(),
                owned(image)
            ),
        };
        let below = image
            .below
            .iter()
            .flatten()
            .map(|it| match closed.contains(&it.file) {
                true => format!("{}, which user {} could not read", owned(it), image.owner),
                false => owned(it),
            });
        let below = below.collect::<Vec<_>>().join(", ");
        if !below.is_empty() {
            told.push_str(&format!(" (over {below})"));
        }
        told
    });
    format!(
        "`{}`: what stands at these paths now is captured, written and replaced as its images from now on, and who \
         may read its sets can read it: {}.",
        one_line(&machine.name),
        told.collect::<Vec<_>>().join(", ")
    )
}

fn overlays_forbidden(machine: &str) -> String {
    format!(
        "`{}`: no overlay becomes the active file of a disk any more; where an image cannot be cloned, sets of it \
         are refused, and so is an apply that would need another active file. Its active files stay those that \
         they are.",
        one_line(machine)
    )
}
