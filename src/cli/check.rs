//! `groupshot snapshot create --check`: what a server would do, asked of a class that only ours has.

use serde_json::{Value as Json, json};

use crate::cim::Path;
use crate::client::{Client, Error, Object};

use super::call::snapshot_arguments;
use super::failure::Failure;
use super::output::{Output, table};
use super::remote::service;

const CLASS: &str = "Groupshot_SnapshotCheck";
/// The lists of an answer, each with one value for a disk: heading (none: not shown), name in JSON, output parameter.
const LISTS: [(&str, &str, &str); 7] = [
    ("MACHINE", "name", "MachineNames"),
    ("DISK", "disk", "Disks"),
    ("DRIVER", "driver", "Drivers"),
    ("FILE SYSTEM", "fileSystem", "FileSystems"),
    ("FILE", "file", "Files"),
    ("", "machine", "Machines"),
    ("", "reason", "Reasons"),
];

/// Calls CheckSnapshot.
pub(super) async fn call(
    client: &Client,
    collection: Path,
    settings: &str,
    kind: &str,
) -> Result<Object, Failure> {
    let arguments = snapshot_arguments(collection, settings, kind);
    let service = service(CLASS);
    let answer = client.invoke(&service, "CheckSnapshot", &arguments).await;
    answer.map_err(|error| match error {
        // Ours knows the class and lets no reader ask.
        Error::Fault(fault) if fault.subcode != "AccessDenied" => Failure::failed(format_args!(
            "the server does not check; nothing was done ({CLASS}): {fault}"
        )),
        other => other.into(),
    })
}

/// Tells what would become of each disk; a set that would not be taken is a failure.
pub(super) fn tell(answer: &Object, output: &Output) -> Result<(), Failure> {
    let value = answer.number("ReturnValue").unwrap_or(2);
    let why = answer.text("Explanation");
    let disks = disks(answer);
    let objects = disks.iter().map(|disk| {
        let named = LISTS.iter().zip(disk);
        let named = named.map(|((_, name, _), text)| ((*name).to_owned(), Json::from(*text)));
        Json::Object(named.collect())
    });
    let objects: Vec<Json> = objects.collect();
    let result =
        json!({"accepted": value == 0, "returnValue": value, "reason": why, "disks": objects});
    output.result(result, || in_words(&disks, value == 0))?;
    match value {
        0 => Ok(()),
        _ => Err(Failure::failed(format_args!(
            "CreateSnapshot would not take the set: {why} (return value {value})"
        ))),
    }
}

/// For each disk its value of every list.
fn disks(answer: &Object) -> Vec<[&str; LISTS.len()]> {
    let list = |name| answer.all(name).map(|v| v.as_str().unwrap_or_default());
    let mut lists = LISTS.map(|(.., name)| list(name));
    let count = list("Disks").count();
    (0..count)
        .map(|_| lists.each_mut().map(|list| list.next().unwrap_or_default()))
        .collect()
}

fn in_words(disks: &[[&str; LISTS.len()]], accepted: bool) -> String {
    if disks.is_empty() {
        return String::new();
    }
    let row = |cells: [&str; LISTS.len()]| -> Vec<String> {
        let shown = LISTS.iter().zip(cells).filter(|((h, ..), _)| !h.is_empty());
        let none = |((_, name, _), text): (&(&str, &str, &str), &str)| match (*name, text) {
            ("driver", "") => "none".to_owned(),
            _ => text.to_owned(),
        };
        shown.map(none).collect()
    };
    let mut rows = vec![row(LISTS.map(|(heading, ..)| heading))];
    rows.extend(disks.iter().map(|disk| row(*disk)));
    let mut text = table(&rows);
    for [.., reason] in disks.iter().filter(|[.., reason]| !reason.is_empty()) {
        text += &format!("\n{reason}");
    }
    if accepted {
        text += "\nthe set would be taken";
    }
    text
}
