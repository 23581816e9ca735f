//! `groupshot doctor --rebuild`: what the database has lost, made again from the records of snapshot sets.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::server::{self, Rebuild, RebuildState};
use crate::snapshot::Away;

use super::failure::Failure;
use super::output::{Output, can_ask, confirm, count};
use super::remote::block_on;

/// Shows what would be made again, asks or has been told `--yes`, and makes it.
pub(super) fn run(data_dir: &Path, yes: bool, output: &Output) -> Result<(), Failure> {
    let mut told = block_on(async { Ok(server::rebuild(data_dir, false).await?) })?;
    let asks = told.state == RebuildState::Planned && !yes && !output.is_json() && can_ask();
    if asks {
        output.result(json!({}), || in_words(&told))?;
    }
    if told.state == RebuildState::Planned
        && (yes || (asks && confirm("Write that into the database?")?))
    {
        told = block_on(async { Ok(server::rebuild(data_dir, true).await?) })?;
    }
    if asks && told.state == RebuildState::Planned {
        return Err(Failure::failed("nothing is written"));
    }
    output.result(fields(&told), || in_words(&told))?;
    for problem in &told.problems {
        output.note(problem);
    }
    match (told.state, told.problems.len()) {
        (RebuildState::Planned, _) => {
            Err(Failure::failed("nothing was written; repeat with --yes"))
        }
        (_, 0) => Ok(()),
        (_, n) => Err(Failure::failed(format_args!(
            "{} left that no rebuild puts right",
            count(n, "problem")
        ))),
    }
}

fn fields(told: &Rebuild) -> Json {
    let named = |id: String, name: &str| json!({"id": id, "name": name});
    let sets = told.sets.iter().map(|set| {
        let machines: Vec<_> = set.members.iter().map(|m| &m.machine_name).collect();
        json!({"id": set.id, "name": set.name, "taken": set.created, "machines": machines})
    });
    let collections = told.collections.iter();
    let collections = collections.map(|c| named(c.id.to_string(), &c.name));
    let positions = told.positions.iter().map(
        |p| json!({"machine": p.machine, "name": p.name, "snapshot": p.snapshot, "set": p.set}),
    );
    let records = told.records.iter();
    let records = records.map(|(id, name)| named(id.to_string(), name));
    let destroyed = told.destroyed.iter();
    let destroyed = destroyed.map(|(id, name)| named(id.to_string(), name));
    let damaged = told.damaged.iter();
    let disk = |a: &Away| json!({"set": a.set, "name": a.name, "disk": a.disk, "files": a.files});
    let damaged = damaged.map(disk);
    let changed = told.changed.iter().map(disk);
    json!({
        "rebuilt": told.state == RebuildState::Done,
        "sets": sets.collect::<Vec<_>>(),
        "collections": collections.collect::<Vec<_>>(),
        "positions": positions.collect::<Vec<_>>(),
        "records": records.collect::<Vec<_>>(),
        "destroyed": destroyed.collect::<Vec<_>>(),
        "damaged": damaged.collect::<Vec<_>>(),
        "changed": changed.collect::<Vec<_>>(),
        "transactions": told.behind.map(|(held, counted)| json!({"held": held, "counted": counted})),
        "problems": told.problems,
        "open": told.open,
    })
}

fn in_words(told: &Rebuild) -> String {
    let mut lines = Vec::new();
    for set in &told.sets {
        let machines: Vec<_> = set
            .members
            .iter()
            .map(|m| m.machine_name.as_str())
            .collect();
        lines.push(format!(
            "snapshot set `{}` {}, taken {}: {}",
            set.name,
            set.id,
            set.created,
            machines.join(", ")
        ));
    }
    for collection in &told.collections {
        lines.push(format!(
            "collection `{}` {}",
            collection.name, collection.id
        ));
    }
    for stands in &told.positions {
        lines.push(format!(
            "machine {} stands on its snapshot in set {}",
            stands.name, stands.set
        ));
    }
    for (id, name) in &told.destroyed {
        lines.push(format!(
            "snapshot set `{name}` {id} counts as destroyed: neither its record nor a copy of a definition is there, and what it kept was merged or removed, as after a delete that is lost"
        ));
    }
    for (id, name) in &told.records {
        lines.push(format!(
            "the record of snapshot set `{name}` {id} is written anew"
        ));
    }
    for away in &told.damaged {
        let files: Vec<_> = away.files.iter().map(|f| f.display().to_string()).collect();
        lines.push(format!(
            "snapshot set `{}` {}, disk {} counts as damaged: files are missing: {}",
            away.name,
            away.set,
            away.disk,
            files.join(", ")
        ));
    }
    for changed in &told.changed {
        let files: Vec<_> = changed
            .files
            .iter()
            .map(|f| f.display().to_string())
            .collect();
        lines.push(format!(
            "snapshot set `{}` {}, disk {} will count as damaged, for files are not as they were captured, as after a delete that is lost: {}",
            changed.name,
            changed.set,
            changed.disk,
            files.join(", ")
        ));
    }
    if let Some((held, counted)) = told.behind {
        lines.push(format!(
            "the database holds {held} transactions and had {counted}; numbering continues after {counted}"
        ));
    }
    if told.open > 0 {
        let open = count(told.open, "operation");
        lines.push(format!("{open} in flight: the next start ends them"));
    }
    match told.state {
        RebuildState::Whole => lines.push("there is nothing to rebuild".to_owned()),
        RebuildState::Planned => {}
        RebuildState::Done => lines.push("rebuilt".to_owned()),
    }
    lines.join("\n")
}
