//! `groupshot snapshot …`: snapshot sets of collections, over WS-Management.

use std::fmt::{self, Display};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::cim::{Path, Value};
use crate::client::{Client, Object};
use crate::xml::Writer;

use super::actives::Before;
use super::call::{self, ended, ended_on, job_id, snapshot_arguments};
use super::collection::end;
use super::contents::{self, member_reference};
use super::failure::Failure;
use super::output::{Output, can_ask, confirm, count, moment, one_line, table};
use super::remote::{
    COLLECTION, MACHINE, NAMESPACE, Remote, SNAPSHOT_SET, all, find, reference, sendable, service,
};
use super::show;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take a snapshot set of every machine of a collection at one point in time.
    Create(Create),
    /// Put every disk of every machine of a set back to what the set holds. What the machines wrote since
    /// is lost, unless another set holds it.
    Apply(Apply),
    /// Show the snapshot sets.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one snapshot set with its members and files.
    Show {
        #[command(flatten)]
        remote: Remote,
        /// Name or id.
        set: String,
    },
    /// Write a snapshot set as files that stand on their own.
    Export(Export),
    /// Destroy a snapshot set. Every other set and every active disk keeps its content.
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    #[command(flatten)]
    remote: Remote,
    /// Name or id of the set.
    set: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Return as soon as the job runs.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    remote: Remote,
    /// Name or id.
    set: String,
    /// Directory of the server, below one of its [export] roots; the set gets a folder of its own in it.
    directory: String,
    /// Definitions and manifest only, no disks.
    #[arg(long)]
    definitions_only: bool,
    /// Return as soon as the job runs.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    remote: Remote,
    /// Name or id of the collection.
    collection: String,
    /// Name of the set; collection and time if left out.
    #[arg(long)]
    name: Option<String>,
    /// A recovery set, for backup, in place of a standard one.
    #[arg(long)]
    recovery: bool,
    /// The level wanted: the default is crash for standard, application for recovery sets.
    #[arg(long)]
    consistency: Option<Level>,
    /// Leave out disks that cannot be captured.
    #[arg(long)]
    ignore_non_snapshottable_disks: bool,
    /// Return as soon as the job runs.
    #[arg(long)]
    no_wait: bool,
    /// Take nothing: tell what would become of each disk, or why the set would be refused. Groupshot servers only.
    #[arg(long, conflicts_with = "no_wait")]
    check: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    #[command(flatten)]
    remote: Remote,
    /// Name or id of the set.
    set: String,
    /// Only this virtual machine of it, by name or id.
    #[arg(long, value_name = "VM")]
    member: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Return as soon as the job runs.
    #[arg(long)]
    no_wait: bool,
}

/// How much of a guest's state is sure to be in the snapshot.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// The guest's applications have flushed.
    Application,
    /// As after a power cut.
    Crash,
}

const SERVICE: &str = "Msvm_CollectionSnapshotService";
const SETTINGS: &str = "Msvm_VirtualSystemSnapshotSettingData";
/// Return values of a call that is carried out, and of one that a job carries out.
const DONE_OR_RUNNING: [u64; 2] = [0, 4096];
const EXPORT_SETTINGS: &str = "Msvm_CollectionSnapshotExportSettingData";

pub(super) async fn run(command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Create(wish) if wish.check => check(&wish, output).await,
        Command::Create(wish) => create(&wish, output).await,
        Command::Apply(wish) => apply(&wish, output).await,
        Command::List { remote } => list(&remote.client()?, output).await,
        Command::Show { remote, set } => show::show(&remote.client()?, &set, output).await,
        Command::Export(wish) => export(&wish, output).await,
        Command::Delete(wish) => delete(&wish, output).await,
    }
}

async fn create(wish: &Create, output: &Output) -> Result<(), Failure> {
    sendable("name", wish.name.as_deref().unwrap_or_default())?;
    let client = wish.remote.client()?;
    let collection = find(&client, COLLECTION, &wish.collection).await?;
    let before = Before::of_collection(&client, &collection, wish.no_wait).await;
    let answer = call_create(
        &client,
        reference(COLLECTION, &collection),
        &settings(wish),
        kind(wish),
    )
    .await?;
    let set = answer.get("ResultingSnapshotCollection").as_reference();
    let set = set
        .and_then(|s| s.text(SNAPSHOT_SET.key))
        .unwrap_or_default();
    let result = json!({"set": set, "job": job_id(&answer)});
    let done = format!("snapshot set {set}");
    ended_on(&client, &answer, &before, output, result, done).await
}

/// SnapshotType.
fn kind(wish: &Create) -> &'static str {
    if wish.recovery { "2" } else { "1" }
}

async fn check(wish: &Create, output: &Output) -> Result<(), Failure> {
    sendable("name", wish.name.as_deref().unwrap_or_default())?;
    let client = wish.remote.client()?;
    let collection = find(&client, COLLECTION, &wish.collection).await?;
    let answer = super::check::call(
        &client,
        reference(COLLECTION, &collection),
        &settings(wish),
        kind(wish),
    )
    .await?;
    super::check::tell(&answer, output)
}

async fn apply(wish: &Apply, output: &Output) -> Result<(), Failure> {
    let why = "what the machines wrote since a set was taken is lost when it is applied";
    let client = wish.remote.client()?;
    let set = Chosen::find(&client, &wish.set, wish.yes, why).await?;
    if !wish.yes {
        let whom = match &wish.member {
            Some(member) => format!("machine `{}`", one_line(member)),
            None => count(contents::members(&client, &set.id).await?.len(), "machine"),
        };
        sure(
            &format!(
                "Put {whom} back to {set}? What was written since is lost, unless another set holds it."
            ),
            "nothing is applied",
        )?;
    }
    let before = Before::of_set(&client, &set.id, wish.no_wait).await;
    let answer = match &wish.member {
        None => call_apply(&client, set.reference.clone()).await?,
        Some(member) => apply_member(&client, &set.id, member).await?,
    };
    set.told(&client, &answer, &before, "applied", output).await
}

async fn delete(wish: &Delete, output: &Output) -> Result<(), Failure> {
    let client = wish.remote.client()?;
    let set = Chosen::find(
        &client,
        &wish.set,
        wish.yes,
        "a deleted set does not come back",
    )
    .await?;
    if !wish.yes {
        let members = contents::members(&client, &set.id).await?;
        let members = count(members.len(), "member");
        sure(
            &format!("Delete {set} with {members}?"),
            "nothing is deleted",
        )?;
    }
    let arguments = [("AffectedSnapshotCollection", set.reference.clone().into())];
    let before = Before::of_set(&client, &set.id, wish.no_wait).await;
    let answer = accepted(&client, "DestroySnapshot", &arguments).await?;
    set.told(&client, &answer, &before, "deleted", output).await
}

/// Asks; a no ends the command.
fn sure(question: &str, otherwise: &str) -> Result<(), Failure> {
    match confirm(question)? {
        true => Ok(()),
        false => Err(Failure::failed(otherwise)),
    }
}

/// The set that a command is about, which does what cannot be taken back.
struct Chosen {
    id: String,
    name: String,
    reference: Path,
}

impl Chosen {
    /// Finds it, once it is sure that somebody can be asked if that is wanted.
    async fn find(client: &Client, wanted: &str, yes: bool, why: &str) -> Result<Self, Failure> {
        if !yes && !can_ask() {
            return Err(Failure::usage(format_args!(
                "{why}: say --yes where nobody can be asked"
            )));
        }
        let set = find(client, SNAPSHOT_SET, wanted).await?;
        Ok(Self {
            id: set.text(SNAPSHOT_SET.key).to_owned(),
            name: one_line(set.text("ElementName")),
            reference: reference(SNAPSHOT_SET, &set),
        })
    }

    /// Tells how it went.
    async fn told(
        &self,
        client: &Client,
        answer: &Object,
        before: &Before,
        word: &str,
        output: &Output,
    ) -> Result<(), Failure> {
        let result = json!({"set": self.id, "job": job_id(answer)});
        let done = format!("{self} {word}");
        ended_on(client, answer, before, output, result, done).await
    }
}

impl Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot set `{}` {}", self.name, self.id)
    }
}

/// Calls ApplySnapshot of one member's snapshot.
async fn apply_member(client: &Client, set: &str, wanted: &str) -> Result<Object, Failure> {
    let machine = find(client, MACHINE, wanted).await?;
    for member in contents::members(client, set).await? {
        if member.text("VirtualSystemIdentifier") == machine.text(MACHINE.key) {
            let service = service("Msvm_VirtualSystemSnapshotService");
            let arguments = [("Snapshot", member_reference(&member).into())];
            let method = "ApplySnapshot";
            return call::accepted(client, &service, method, &arguments, &DONE_OR_RUNNING).await;
        }
    }
    Err(Failure::failed(format_args!(
        "snapshot set {set} holds nothing of virtual machine `{wanted}`"
    )))
}

async fn export(wish: &Export, output: &Output) -> Result<(), Failure> {
    sendable("directory", &wish.directory)?;
    let client = wish.remote.client()?;
    let set = find(&client, SNAPSHOT_SET, &wish.set).await?;
    let id = set.text(SNAPSHOT_SET.key);
    let copy = if wish.definitions_only {
        "false"
    } else {
        "true"
    };
    let settings = instance(EXPORT_SETTINGS, &[("CopyVmStorage", "boolean", Some(copy))]);
    let arguments = [
        ("SnapshotCollection", reference(SNAPSHOT_SET, &set).into()),
        ("ExportDirectory", Value::from(wish.directory.as_str())),
        ("ExportSettingData", Value::from(settings.as_str())),
    ];
    let answer = accepted(&client, "ExportSnapshot", &arguments).await?;
    let directory = format!("{}/{id}", wish.directory.trim_end_matches('/'));
    let result = json!({"set": id, "directory": directory, "job": job_id(&answer)});
    let done = || format!("exported to {directory}");
    ended(&client, &answer, wish.no_wait, output, result, done).await
}

/// Calls CreateSnapshot; a return value other than 0 and 4096 is a failure.
pub(super) async fn call_create(
    client: &Client,
    collection: Path,
    settings: &str,
    kind: &str,
) -> Result<Object, Failure> {
    let arguments = snapshot_arguments(collection, settings, kind);
    accepted(client, "CreateSnapshot", &arguments).await
}

/// Calls ApplySnapshot of a set; a return value other than 0 and 4096 is a failure.
pub(super) async fn call_apply(client: &Client, set: Path) -> Result<Object, Failure> {
    accepted(
        client,
        "ApplySnapshot",
        &[("SnapshotCollection", set.into())],
    )
    .await
}

async fn accepted(
    client: &Client,
    method: &str,
    arguments: &[(&str, Value)],
) -> Result<Object, Failure> {
    call::accepted(
        client,
        &service(SERVICE),
        method,
        arguments,
        &DONE_OR_RUNNING,
    )
    .await
}

/// The settings as the text that Hyper-V tools write; only what was wished for.
fn settings(wish: &Create) -> String {
    let level = wish.consistency.map(|level| match level {
        Level::Application => "1",
        Level::Crash => "2",
    });
    let ignore = wish.ignore_non_snapshottable_disks.then_some("true");
    instance(
        SETTINGS,
        &[
            ("ElementName", "string", wish.name.as_deref()),
            ("ConsistencyLevel", "uint8", level),
            ("IgnoreNonSnapshottableDisks", "boolean", ignore),
        ],
    )
}

/// Settings that only give a name.
pub(super) fn named(name: &str) -> String {
    instance(SETTINGS, &[("ElementName", "string", Some(name))])
}

/// An `<INSTANCE>` of the class with these properties: name, type, value if there is one.
fn instance(class: &str, properties: &[(&str, &str, Option<&str>)]) -> String {
    let mut w = Writer::new();
    w.open("", "INSTANCE", &[("CLASSNAME", class)]);
    for (name, ty, value) in properties {
        if let Some(value) = value {
            w.open("", "PROPERTY", &[("NAME", name), ("TYPE", ty)]);
            w.element("", "VALUE", &[], value);
            w.close("", "PROPERTY");
        }
    }
    w.close("", "INSTANCE");
    w.into_string()
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let sets = all(client, SNAPSHOT_SET).await?;
    let links = client
        .enumerate(NAMESPACE, "Msvm_CollectedSnapshots")
        .await?;
    let mut dated = Vec::new();
    for set in &sets {
        // A set has no time of its own; its members were captured together.
        // Nor has it a property for its state; our server says it at the end of the description.
        let taken = match members(&links, set.text(SNAPSHOT_SET.key)).next() {
            Some(member) => client.get(member).await?.text("CreationTime").to_owned(),
            None => String::new(),
        };
        dated.push((taken, set));
    }
    dated.sort_by(|a, b| a.0.cmp(&b.0));
    let heading = ["TAKEN (UTC)", "NAME", "ID", "MEMBERS", "STATE"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut objects = Vec::new();
    for (taken, set) in dated {
        let (id, name) = (set.text(SNAPSHOT_SET.key), set.text("ElementName"));
        let members = members(&links, id).count();
        let damaged = is_damaged(set.text("Description"));
        let state = if damaged { "damaged" } else { "" };
        let cells = [&moment(&taken), name, id, &members.to_string(), state];
        rows.push(cells.map(str::to_owned).to_vec());
        objects.push(json!({
            "id": id, "name": name, "taken": taken, "members": members, "damaged": damaged,
        }));
    }
    output.result(json!({"sets": objects}), || table(&rows))
}

/// Does the description end as that of a damaged set? Before that it may hold names, which may say anything.
fn is_damaged(description: &str) -> bool {
    let end = description.rsplit_once("; damaged members: ");
    end.is_some_and(|(_, count)| count.parse::<usize>().is_ok())
}

/// References to the member snapshots of a set.
fn members<'a>(links: &'a [Object], set: &str) -> impl Iterator<Item = &'a Path> {
    links
        .iter()
        .filter(move |l| end(l, "Collection", SNAPSHOT_SET.key) == Some(set))
        .filter_map(|l| l.get("Member").as_reference())
}
