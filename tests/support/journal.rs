//! Records of a journal as they stand in it, to be changed by a test.

use std::path::{Path, PathBuf};

use groupshot::id::JobId;
use groupshot::snapshot::journal::{self, Journal, Line};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) record: String,
    /// What else stands in it.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl Record {
    /// Is it a commit point?
    pub(crate) fn commits(&self) -> bool {
        ["cut", "applied", "exported"].contains(&self.record.as_str())
    }

    /// The place of its job, if it is an intent.
    pub(crate) fn job(&mut self) -> &mut Value {
        match self.rest.contains_key("job") {
            true => &mut self.rest["job"],
            false => &mut self.rest["set"]["job"],
        }
    }
}

/// The records of a journal.
pub(crate) fn read(bytes: &[u8]) -> Vec<Record> {
    let (lines, _) = journal::read(bytes).unwrap();
    lines.iter().map(|line| line.read().unwrap()).collect()
}

/// Writes the journal of the job that its first record names; gives its path.
pub(crate) fn write(folder: &Path, mut records: Vec<Record>) -> PathBuf {
    let job = records[0].job().as_str().unwrap().to_owned();
    let lines: Vec<_> = records.iter().map(|it| Line::of(it).unwrap()).collect();
    let (first, later) = lines.split_first().unwrap();
    let id: JobId = job.parse().unwrap();
    let mut made = Journal::create(folder, id, first, None).unwrap();
    later.iter().for_each(|line| made.append(line).unwrap());
    folder.join(format!("{job}.log"))
}
