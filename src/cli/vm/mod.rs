//! `groupshot vm …`: the library of machines in the data directory. A running server sees a change within a second.

mod path;
mod set;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::doctor::line::Doing;
use crate::engine::EngineError;
use crate::engine::image;
use crate::engine::import::{NewDisk, NewMachine};
use crate::engine::links::{self, Named};
use crate::held;
use crate::id::VmId;
use crate::inventory::{Format, Image, Machine, Sockets};
use crate::server::{self, StartError};

use crate::cli::failure::Failure;
use crate::cli::local::DataDir;
use crate::cli::naming::pick;
use crate::cli::output::{Output, one_line, size, table};
use crate::cli::remote::{block_on, sendable};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Take a machine into the library. Its images stay where they are. One that runs is asked at its monitor whether
    /// they are its disks.
    Import {
        #[command(flatten)]
        data: DataDir,
        /// Its name; with --definition the one that stands there if left out.
        #[arg(required_unless_present = "definition")]
        name: Option<String>,
        /// Its disk images, qcow2 or raw.
        #[arg(required_unless_present = "definition")]
        images: Vec<PathBuf>,
        /// Their format, where the suffix does not tell it.
        #[arg(long)]
        format: Option<ImageFormat>,
        /// The vm.toml of an exported set, in place of images: a new machine on the exported disks.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "format"])]
        definition: Option<PathBuf>,
        /// The server's configuration file, for its image_roots and clone_extents.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where an image cannot be cloned, capture it by an overlay. The overlay is the active file from then
        /// on: whoever starts the machine looks it up with `vm show` each time.
        #[arg(long)]
        overlay_ok: bool,
        /// Also images over files that the owners of the images could not read: sets hold what is in them.
        #[arg(long)]
        accept_image: bool,
        /// The socket of a QMP monitor that its QEMU has for Groupshot alone; say it twice for a second one.
        #[arg(long, value_name = "SOCKET")]
        qmp: Vec<PathBuf>,
        /// The socket of its guest agent.
        #[arg(long, value_name = "SOCKET", requires = "qmp")]
        agent: Option<PathBuf>,
        /// Also if somebody else is connected to a monitor of its QEMU, and may manage it. Its disks are captured by
        /// clones only.
        #[arg(long, requires = "qmp", conflicts_with = "overlay_ok")]
        unmanaged_ok: bool,
        /// Also if there is a machine of that name.
        #[arg(long)]
        allow_duplicate: bool,
    },
    /// Show the machines.
    List {
        #[command(flatten)]
        data: DataDir,
    },
    /// Show one machine with its disks.
    Show {
        #[command(flatten)]
        data: DataDir,
        /// Name or id.
        machine: String,
    },
    /// Print the stable paths to the active files of a machine, to start it by.
    Path(path::Path),
    /// Change what the definition of a machine (vm.toml) allows. The rest of the file stays as it is.
    Set(set::Set),
    /// Take a machine out of the library. Its images stay.
    Remove {
        #[command(flatten)]
        data: DataDir,
        /// Name or id.
        machine: String,
    },
}

/// Formats of disk images.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum ImageFormat {
    /// QEMU's format with backing files.
    Qcow2,
    /// Plain bytes.
    Raw,
}

pub(in crate::cli) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Import {
            data,
            name,
            images,
            format,
            definition,
            config,
            overlay_ok,
            accept_image,
            qmp,
            agent,
            unmanaged_ok,
            allow_duplicate,
        } => {
            let config = config.as_deref().map(Config::load).transpose()?;
            let config = config.unwrap_or_default();
            let mut new = match definition {
                Some(file) => NewMachine::exported(file)?,
                None => NewMachine {
                    name: String::new(),
                    disks: disks(images, *format),
                    overlay_ok: false,
                    accept_images: false,
                    sockets: Default::default(),
                    unmanaged_ok: false,
                },
            };
            new.overlay_ok |= overlay_ok;
            new.accept_images = *accept_image;
            new.sockets = sockets(qmp, agent.as_deref())?;
            new.unmanaged_ok = *unmanaged_ok;
            if let Some(name) = name {
                new.name.clone_from(name);
            }
            sendable("name", &new.name)?;
            if !allow_duplicate {
                is_new(data, &new.name)?;
            }
            let roots = &config.engine.image_roots;
            let imported = server::import_machine(&data.path()?, &new, roots)?;
            for note in &imported.notes {
                output.note(format_args!("warning: {}", note.english()));
            }
            told(&imported.machine, &config, output)
        }
        Command::List { data } => list(data, output),
        Command::Show { data, machine } => {
            let data_dir = data.to_read(output)?;
            let machine = find(data, machine)?;
            let states = states(&data_dir, slice::from_ref(&machine), output);
            let state = states.get(&machine.id);
            output.result(shown(&machine, state), || in_words(&machine, state))
        }
        Command::Path(wish) => path::run(wish, output),
        Command::Set(wish) => set::run(wish, output),
        Command::Remove { data, machine } => {
            let found = find(data, machine)?;
            let data_dir = data.path()?;
            block_on(async { Ok(server::remove_machine(&data_dir, found.id).await?) })?;
            output.result(fields(&found), || {
                format!("machine `{}` {} removed", one_line(&found.name), found.id)
            })
        }
    }
}

/// Refuses a name that a machine of the library has, be it that it cannot be read.
fn is_new(data: &DataDir, name: &str) -> Result<(), Failure> {
    let path = data.path()?;
    if !path.exists() {
        return Ok(());
    }
    match server::machine_named(&path, name)? {
        None => Ok(()),
        Some(same) => Err(Failure::failed(format_args!(
            "there is a machine `{}` already, {same}; another one of that name needs --allow-duplicate",
            one_line(name)
        ))),
    }
}

/// The sockets by their absolute paths: the server has another current directory.
fn sockets(qmp: &[PathBuf], agent: Option<&Path>) -> Result<Sockets, Failure> {
    let absolute = |socket: &Path| std::path::absolute(socket).map_err(Failure::failed);
    Ok(Sockets {
        qmp: qmp
            .iter()
            .map(|it| absolute(it))
            .collect::<Result<_, _>>()?,
        agent: agent.map(absolute).transpose()?,
    })
}

/// The imported machine, and what becomes of it where an image cannot be cloned.
fn told(machine: &Machine, config: &Config, output: &Output) -> Result<(), Failure> {
    let not_clonable = server::not_clonable(machine, config);
    let ids: Vec<_> = not_clonable.iter().map(|d| d.id.as_str()).collect();
    let name = one_line(&machine.name);
    match (machine.overlay_ok, ids.is_empty()) {
        (true, _) => output.note(overlays_allowed(machine)),
        (false, false) => output.note(format_args!(
            "warning: {} of `{name}` cannot be cloned where the image lies, so no snapshot set will hold it, and \
             sets of `{name}` are refused; `groupshot vm set {} --overlay-ok`, or [qemu] overlay_ok = true in {}, \
             allows overlays",
            ids.join(", "),
            machine.word(),
            machine.definition.display()
        )),
        (false, true) => {}
    }
    if let [only] = machine.sockets.qmp.as_slice() {
        output.note(format_args!(
            "warning: `{name}` has one monitor, {}: a client that gets hold of it keeps Groupshot out, and nothing is known \
             of the machine then; give its QEMU a second -qmp and name both",
            only.display()
        ));
    }
    let unlinked = unlinked(machine);
    for (_, why) in &unlinked {
        output.note(format_args!("warning: {why}"));
    }
    let named = named(machine);
    for image in &named {
        let (named, file) = (image.named.display(), image.file.display());
        output.note(format_args!("{named} leads to {file}, which is recorded"));
    }
    let exposed = exposed(machine);
    for (it, image) in &exposed {
        output.note(format_args!(
            "warning: others than root and the server can exchange {}: the folder {} belongs to user {} and has the \
             mode {:o}; what is put there later is refused unless it is a file of the same owner and nobody else could \
             have put it there",
            image.file.display(),
            it.folder.display(),
            it.owner,
            it.mode
        ));
    }
    lying_on(machine).iter().for_each(|line| output.note(line));
    let mut object = fields(machine);
    if let Json::Object(object) = &mut object {
        object.insert("notClonable".to_owned(), json!(ids));
        let unlinked = unlinked
            .iter()
            .map(|(disk, why)| json!({"disk": disk, "why": why}));
        object.insert("unlinked".to_owned(), unlinked.collect());
        let named = named
            .iter()
            .map(|it| json!({"file": it.file, "named": it.named}));
        object.insert("named".to_owned(), named.collect());
        let exposed = exposed.iter().map(|(it, image)| {
            let mode = format!("{:04o}", it.mode);
            json!({"file": image.file, "folder": it.folder, "mode": mode, "owner": it.owner})
        });
        object.insert("exposed".to_owned(), exposed.collect());
    }
    output.result(object, || format!("machine `{name}` {}", machine.id))
}

/// The disks to whose active files no link can lead, with the way out.
fn unlinked(machine: &Machine) -> Vec<(&str, String)> {
    let disks = machine.disks.iter();
    let unlinked = disks.filter_map(|disk| {
        let below = machine.relative.get(&disk.id)?;
        Some((disk.id.as_str(), links::unlinked(disk, below)))
    });
    unlinked.collect()
}

/// The images that were named by a link, and those under them.
fn named(machine: &Machine) -> Vec<&Image> {
    let images = machine.images.values().flat_map(Image::chain);
    images.filter(|image| image.named != image.file).collect()
}

/// The folders in which others can exchange an image, each with one of these.
fn exposed(machine: &Machine) -> BTreeMap<held::Exposed, &Image> {
    let mut exposed = BTreeMap::new();
    for image in machine.images.values().flat_map(Image::chain) {
        for folder in image::exposed(&image.file) {
            exposed.entry(folder).or_insert(image);
        }
    }
    exposed
}

/// What lies under the imported images, with the owners.
fn lying_on(machine: &Machine) -> Vec<String> {
    let lines = machine.images.iter().filter_map(|(disk, image)| {
        let below = image.below.iter().flatten().map(owned);
        let below: Vec<_> = below.collect();
        let (image, below) = (owned(image), (!below.is_empty()).then(|| below.join(", "))?);
        Some(format!("image of {disk}: {image}, over {below}"))
    });
    lines.collect()
}

/// The file with its owner, and how many names it has if that is more than one.
fn owned(image: &Image) -> String {
    let (file, owner) = (image.file.display(), image.owner);
    match image.links {
        0 | 1 => format!("{file} of user {owner}"),
        names => format!("{file} of user {owner}, with {names} names (hard links)"),
    }
}

/// What it means that overlays may become the active files of a machine.
fn overlays_allowed(machine: &Machine) -> String {
    let disks = machine.disks.iter();
    let paths = disks.map(|d| links::to_start(machine, &d.id).display().to_string());
    let (paths, one) = (paths.collect::<Vec<_>>(), machine.disks.len() == 1);
    format!(
        "overlay_ok: where an image of `{}` cannot be cloned, a snapshot set makes an overlay its active file; a \
         start from the old file would then boot what is stale and damage the set. Start it from {}, which {} to \
         {}; an overlay is qcow2, so {}.",
        one_line(&machine.name),
        paths.join(", "),
        if one { "leads" } else { "lead" },
        if one {
            "its active file whatever that is"
        } else {
            "its active files whatever they are"
        },
        match machine.disks.iter().any(|d| d.format == Format::Raw) {
            true =>
                "a raw disk becomes qcow2 with its first set: `groupshot vm show` tells the format",
            false => "the format stays",
        }
    )
}

fn disks(images: &[PathBuf], format: Option<ImageFormat>) -> Vec<NewDisk> {
    let format = format.map(|f| match f {
        ImageFormat::Qcow2 => Format::Qcow2,
        ImageFormat::Raw => Format::Raw,
    });
    let disk = |file: &PathBuf| NewDisk {
        id: None,
        file: file.clone(),
        format,
    };
    images.iter().map(disk).collect()
}

/// What machines do. That it cannot be told is no reason to tell nothing else.
fn states(data_dir: &Path, machines: &[Machine], output: &Output) -> BTreeMap<VmId, Doing> {
    let states = server::machine_states(data_dir, machines);
    states.unwrap_or_else(|error| {
        output.note(format_args!("warning: no states: {error}"));
        BTreeMap::new()
    })
}

fn list(data: &DataDir, output: &Output) -> Result<(), Failure> {
    let data_dir = data.path()?;
    let (machines, problems) = server::machines(&data_dir)?;
    for problem in &problems {
        output.note(problem);
    }
    let states = states(&data_dir, &machines, output);
    let mut rows = vec![["NAME", "ID", "STATE", "DISKS"].map(str::to_owned).to_vec()];
    for machine in &machines {
        let disks = match silent(machine) {
            Some(_) => format!("{}, silent", machine.disks.len()),
            None => machine.disks.len().to_string(),
        };
        let state = states.get(&machine.id).map(state_in_words);
        let state = state.unwrap_or_default();
        rows.push(vec![
            machine.name.clone(),
            machine.id.to_string(),
            state,
            disks,
        ]);
    }
    let objects = machines.iter().map(|m| shown(m, states.get(&m.id)));
    let objects: Vec<Json> = objects.collect();
    let found = json!({"machines": objects, "problems": problems});
    output.result(found, || table(&rows))
}

fn find(data: &DataDir, wanted: &str) -> Result<Machine, Failure> {
    let data_dir = data.path()?;
    // What is wrong with other machines is told by `vm list`.
    let (machines, _) = server::machines(&data_dir)?;
    pick_one(&machines, &server::named_machines(&data_dir)?, wanted)
}

/// The machine that is meant, of those that can be used. One that cannot be read has its name all the same.
fn pick_one(machines: &[Machine], all: &[Named], wanted: &str) -> Result<Machine, Failure> {
    let id = pick_any(all, wanted)?.0;
    let found = machines.iter().find(|m| m.id == id).cloned();
    found.ok_or_else(|| {
        Failure::failed(format_args!(
            "machine `{}` cannot be used as it is ({id}); `groupshot vm list` tells why",
            one_line(wanted)
        ))
    })
}

/// The machine that is meant, whatever can be read of it.
fn pick_any<'a>(all: &'a [Named], wanted: &str) -> Result<&'a Named, Failure> {
    let of = |(id, name): &Named| (id.to_string(), name.clone().unwrap_or_default());
    let found = pick(all, wanted, "machine", of)?;
    found.ok_or_else(|| Failure::failed(format_args!("there is no machine `{}`", one_line(wanted))))
}

fn fields(machine: &Machine) -> Json {
    let image = |disk: &str| {
        let chain = machine.images.get(disk).into_iter().flat_map(Image::chain);
        let chain = chain.map(
            |it| json!({"file": it.file, "owner": it.owner, "mode": format!("{:04o}", it.mode)}),
        );
        chain.collect::<Vec<_>>()
    };
    let disks = machine.disks.iter().map(|d| {
        json!({
            "id": d.id,
            "file": d.file,
            "format": d.format.as_str(),
            "size": d.size,
            "image": image(&d.id),
        })
    });
    json!({
        "id": machine.id.to_string(),
        "name": machine.name,
        "disks": disks.collect::<Vec<_>>(),
        "overlayOk": machine.overlay_ok,
        "qmp": machine.sockets.qmp,
        "agent": machine.sockets.agent,
    })
}

/// [`fields`] with the state, and the file that does not answer: the machine is shown as it was recorded.
fn shown(machine: &Machine, state: Option<&Doing>) -> Json {
    let mut fields = fields(machine);
    if let Json::Object(fields) = &mut fields {
        fields.insert("silent".to_owned(), json!(silent(machine)));
        fields.insert("state".to_owned(), json!(state.map(|it| &it.state)));
        let reason = state.and_then(|it| it.reason.as_ref());
        fields.insert("reason".to_owned(), json!(reason));
    }
    fields
}

/// The state, with what is wrong.
fn state_in_words(doing: &Doing) -> String {
    match &doing.reason {
        Some(reason) => format!("{} ({})", one_line(&doing.state), one_line(reason)),
        None => one_line(&doing.state),
    }
}

/// The file of the machine that does not answer, if one does not.
fn silent(machine: &Machine) -> Option<&Path> {
    let images = machine.images.values().flat_map(Image::chain);
    let files = machine.disks.iter().map(|d| d.file.as_path());
    let mut files = files.chain(images.map(|image| image.file.as_path()));
    files.find(|file| held::is_silent(file))
}

fn in_words(machine: &Machine, state: Option<&Doing>) -> String {
    let mut rows = vec![
        ["DISK", "FORMAT", "SIZE", "FILE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for disk in &machine.disks {
        rows.push(vec![
            disk.id.clone(),
            disk.format.as_str().to_owned(),
            size(disk.size),
            disk.file.display().to_string(),
        ]);
    }
    let overlays = match machine.overlay_ok {
        true => "allowed (overlay_ok): start it by `groupshot vm path`",
        false => "not allowed (overlay_ok)",
    };
    let silent = silent(machine).map_or_else(String::new, |file| {
        format!(
            "\n{} does not answer; what is shown was recorded before",
            file.display()
        )
    });
    let state = state.map_or_else(String::new, |it| format!("\nstate: {}", state_in_words(it)));
    let sockets = &machine.sockets;
    let monitors = sockets.qmp.iter().map(|it| ("monitor", it));
    let sockets = monitors.chain(sockets.agent.iter().map(|it| ("agent", it)));
    let sockets: Vec<_> = sockets
        .map(|(what, socket)| format!("\n{what}: {}", socket.display()))
        .collect();
    let under: Vec<_> = lying_on(machine)
        .iter()
        .map(|line| format!("\n{line}"))
        .collect();
    format!(
        "{}\n{}{state}{}\noverlays: {overlays}{silent}{}\n\n{}",
        one_line(&machine.name),
        machine.id,
        sockets.concat(),
        under.concat(),
        table(&rows)
    )
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        StartError::from(error).into()
    }
}
