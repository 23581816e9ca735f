//! `groupshot snapshot show`: one set with its members and files.

use serde_json::{Value as Json, json};

use crate::client::{Client, Object};

use super::contents::Contents;
use super::failure::Failure;
use super::output::{Output, moment, one_line, size, table};
use super::remote::{SNAPSHOT_SET, find};

const HEADING: [&str; 7] = [
    "MACHINE",
    "TAKEN (UTC)",
    "CONSISTENCY",
    "DISK",
    "DRIVER",
    "SPACE",
    "FILE",
];
/// How notes of our server begin; another server has none.
const CONSISTENCY: &str = "consistency: ";
const DAMAGED: &str = "damaged: ";

pub(super) async fn show(client: &Client, wanted: &str, output: &Output) -> Result<(), Failure> {
    let set = find(client, SNAPSHOT_SET, wanted).await?;
    let id = set.text(SNAPSHOT_SET.key);
    let contents = Contents::read(client, id).await?;
    let members = contents.members.iter().map(|m| Member::of(&contents, m));
    let members: Vec<Member<'_>> = members.collect();
    let (name, about) = (set.text("ElementName"), set.text("Description"));
    let objects: Vec<Json> = members.iter().map(Member::object).collect();
    output.result(
        json!({"id": id, "name": name, "description": about, "members": objects}),
        || {
            let (name, about) = (one_line(name), one_line(about));
            format!("{name}\n{id}\n{about}\n\n{}", in_words(&members))
        },
    )
}

fn in_words(members: &[Member<'_>]) -> String {
    let mut rows = vec![HEADING.map(str::to_owned).to_vec()];
    rows.extend(members.iter().flat_map(Member::rows));
    let remarks: String = members.iter().flat_map(Member::remarks).collect();
    format!("{}{remarks}", table(&rows))
}

/// One member, as it is told.
struct Member<'a> {
    settings: &'a Object,
    name: &'a str,
    notes: Vec<&'a str>,
    disks: &'a [Object],
}

impl<'a> Member<'a> {
    fn of(contents: &'a Contents, settings: &'a Object) -> Self {
        Self {
            settings,
            name: contents.machine(settings),
            notes: settings.texts("Notes").collect(),
            disks: contents.disks(settings),
        }
    }

    fn level(&self) -> Option<&'a str> {
        let mut notes = self.notes.iter();
        notes.find_map(|note| note.strip_prefix(CONSISTENCY))
    }

    fn taken(&self) -> &'a str {
        self.settings.text("CreationTime")
    }

    fn object(&self) -> Json {
        let files = self.disks.iter().map(|disk| {
            let (id, driver) = (disk.text("ElementName"), disk.text("PoolID"));
            let (file, bytes) = (disk.text("HostResource"), disk.number("Reservation"));
            json!({"id": id, "driver": driver, "bytes": bytes, "file": file})
        });
        let disks = self.disks.iter().map(|disk| disk.text("HostResource"));
        json!({
            "machine": self.settings.text("VirtualSystemIdentifier"),
            "name": self.name,
            "taken": self.taken(),
            "consistency": self.level(),
            "damaged": self.notes.iter().any(|note| note.starts_with(DAMAGED)),
            "notes": self.notes,
            "disks": disks.collect::<Vec<_>>(),
            "files": files.collect::<Vec<_>>(),
        })
    }

    /// A row for each disk.
    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let (taken, level) = (moment(self.taken()), self.level().unwrap_or_default());
        self.disks.iter().map(move |disk| {
            let bytes = disk.number("Reservation").map(size);
            let (id, driver) = (disk.text("ElementName"), disk.text("PoolID"));
            let (bytes, file) = (bytes.unwrap_or_default(), disk.text("HostResource"));
            let cells = [self.name, &taken, level, id, driver, &bytes, file];
            cells.map(str::to_owned).to_vec()
        })
    }

    /// A line for each note that no column tells.
    fn remarks(&self) -> impl Iterator<Item = String> {
        let others = self.notes.iter().filter(|n| !n.starts_with(CONSISTENCY));
        others.map(|note| format!("{}\n", one_line(&format!("{}: {note}", self.name))))
    }
}
