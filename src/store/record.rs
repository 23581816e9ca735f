//! The record of each set beside its files, outside the database: `sets/<id>/set.json`.
//!
//! ```json
//! { "format": 1, "transaction": 57, "set": { … }, "collections": [ … ], "checksum": "…" }
//! ```
//!
//! It is durable before the transaction that it is written for, so it is never older than the database but where
//! only a collection has changed since. Whoever has lost the database makes it again from these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document;
use crate::failpoint;
use crate::held::{self, NotReplaced};
use crate::id::{CollectionId, SetId};
use crate::inventory::{Collection, SnapshotSet};

use super::{Change, State};

pub use crate::held::SETS;

/// Name of the file in the folder of its set.
pub const FILE: &str = "set.json";

const FORMAT: u32 = 1;
/// `sets` and the folder of the set are ours.
const LEVELS: usize = 2;
/// Records that are written at the same time.
const PARALLEL: usize = 8;

/// What stands in [`FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRecord {
    format: u32,
    /// The number of the transaction of the database that it was written for; 0 if that was not known yet.
    pub transaction: u64,
    /// The set.
    pub set: SnapshotSet,
    /// The collection that it was taken of and every one below that, as they were.
    pub collections: Vec<Collection>,
}

/// The records below a data directory: what was read, or why not.
pub type Records = BTreeMap<SetId, Result<SetRecord, String>>;

impl SetRecord {
    /// The record of a set.
    #[must_use]
    pub fn new(
        set: &SnapshotSet,
        collections: &BTreeMap<CollectionId, Arc<Collection>>,
        transaction: u64,
    ) -> Self {
        let mut below: BTreeMap<CollectionId, Collection> = BTreeMap::new();
        let mut wanted: Vec<_> = set.collection.into_iter().collect();
        while let Some(id) = wanted.pop() {
            if let (false, Some(found)) = (below.contains_key(&id), collections.get(&id)) {
                wanted.extend(&found.collections);
                below.insert(id, Collection::clone(found));
            }
        }
        Self {
            format: FORMAT,
            transaction,
            set: set.clone(),
            collections: below.into_values().collect(),
        }
    }

    /// Whether it says the same, whenever that was written.
    #[must_use]
    pub fn says(&self, other: &Self) -> bool {
        self.set == other.set && self.collections == other.collections
    }

    /// [`SetRecord::write`] where a process that died may have written it already, and not seen to its end that it is
    /// on the disk.
    ///
    /// # Errors
    /// [`NotReplaced`].
    pub fn ensure(&self, data_dir: &Path) -> Result<(), NotReplaced> {
        if self.write(data_dir)? {
            return Ok(());
        }
        let synced = held::Folder::of(&path(data_dir, self.set.id)).and_then(|(folder, name)| {
            folder.open_file(&name, false)?.sync_all()?;
            folder.sync()
        });
        synced.map_err(NotReplaced::Broken)
    }

    /// Writes it durably, if the file does not say the same already; whether it did.
    ///
    /// # Errors
    /// [`NotReplaced`].
    pub fn write(&self, data_dir: &Path) -> Result<bool, NotReplaced> {
        let old = read(data_dir, self.set.id).map_err(NotReplaced::Refused)?;
        if let Some(Ok(old)) = &old
            && old.says(self)
        {
            return Ok(false);
        }
        if let Some(Err(why)) = old {
            tracing::warn!(set = %self.set.id, %why, "The record of a snapshot set is written anew");
        }
        let file = path(data_dir, self.set.id);
        let folder = file.parent().unwrap_or(data_dir);
        held::make_folders(folder, LEVELS).map_err(NotReplaced::Refused)?;
        let text = document::write(self).map_err(NotReplaced::Refused)?;
        held::replace(&file, &text, 0o640)?;
        let passed = failpoint::pass("record.written");
        passed.map_err(|e| NotReplaced::Refused(io::Error::other(e)))?;
        Ok(true)
    }
}

/// Where the record of a set is.
#[must_use]
pub fn path(data_dir: &Path, set: SetId) -> PathBuf {
    data_dir.join(SETS).join(set.to_string()).join(FILE)
}

/// Removes the record of a set durably; it may be gone already.
///
/// # Errors
/// [`NotReplaced`]; broken where it is gone and nobody knows whether that is on the disk.
pub fn remove(data_dir: &Path, set: SetId) -> Result<(), NotReplaced> {
    let file = path(data_dir, set);
    let synced = failpoint::pass("record.remove.sync").map_err(io::Error::other);
    let (folder, name) = match held::folder_of_ours(&file, LEVELS) {
        Err(e) if is_absent(&e) => return Ok(()),
        found => found.map_err(NotReplaced::Refused)?,
    };
    // What a death has left of one that was being replaced.
    let left = folder.remove_ours(format!("{FILE}.new"));
    left.map_err(NotReplaced::Refused)?;
    let gone = folder.remove_ours(&name).and(synced);
    gone.and_then(|()| folder.sync())
        .map_err(|e| match held::symlink_metadata(&file) {
            Err(away) if is_absent(&away) => NotReplaced::Broken(e),
            _ => NotReplaced::Refused(e),
        })
}

/// Reads the record of a set, if it is there; in words why it cannot be relied on.
///
/// # Errors
/// What it says is not known: the file cannot be read.
pub fn read(data_dir: &Path, set: SetId) -> io::Result<Option<Result<SetRecord, String>>> {
    let file = path(data_dir, set);
    match held::read(&file) {
        Ok(bytes) => Ok(Some(parse(&bytes, set))),
        Err(e) if is_absent(&e) => Ok(None),
        // What stands there is no record.
        Err(e) if held::foreign(&e).is_some() => Ok(Some(Err(format!("cannot be read: {e}")))),
        Err(e) => Err(at(&file, &e)),
    }
}

/// Whether something stands where the record of a set belongs.
///
/// # Errors
/// It cannot be looked at.
pub fn is_there(data_dir: &Path, set: SetId) -> io::Result<bool> {
    let file = path(data_dir, set);
    match held::symlink_metadata(&file) {
        Ok(_) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(at(&file, &e)),
    }
}

/// The error with the name of the file.
fn at(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

fn parse(bytes: &[u8], set: SetId) -> Result<SetRecord, String> {
    let read = document::read::<Value>(bytes).map_err(|e| e.to_string())?;
    if !read.checked {
        return Err("is damaged: it has no checksum".to_owned());
    }
    match read.body.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        format => {
            let format = format.unwrap_or_default();
            return Err(format!("has format {format}, this program reads {FORMAT}"));
        }
    }
    let record = serde_json::from_value::<SetRecord>(read.body);
    let record = record.map_err(|e| format!("is damaged: {e}"))?;
    match record.set.id == set {
        true => Ok(record),
        false => Err(format!("is of snapshot set {}", record.set.id)),
    }
}

/// The sets that have a record below the data directory and are `wanted`, with what it says.
///
/// # Errors
/// The folder or one of the records cannot be read.
pub fn all(data_dir: &Path, wanted: impl Fn(SetId) -> bool) -> io::Result<Records> {
    let mut found = Records::new();
    let folder = data_dir.join(SETS);
    let entries = match fs::read_dir(&folder) {
        Err(e) if is_absent(&e) => return Ok(found),
        entries => entries.map_err(|e| at(&folder, &e))?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or_default();
        if let Ok(id) = name.parse::<SetId>()
            && id.to_string() == name
            && wanted(id)
            && let Some(read) = read(data_dir, id)?
        {
            found.insert(id, read);
        }
    }
    Ok(found)
}

/// Writes the records of all sets that these changes have led to, and removes those of sets that are no more.
/// Whether there were any.
///
/// # Errors
/// The first [`NotReplaced`]; some may be written.
pub(super) fn renew(
    data_dir: &Path,
    state: &State,
    changes: &[Change],
    transaction: u64,
) -> Result<bool, NotReplaced> {
    let touched = changes.iter().filter_map(|change| match change {
        Change::PutSet(set) => Some(set.id),
        Change::RemoveSet(id) => Some(*id),
        _ => None,
    });
    let touched: BTreeSet<_> = touched.collect();
    let mut records = Vec::new();
    for id in &touched {
        match state.sets.get(id) {
            Some(set) => records.push(SetRecord::new(set, &state.collections, transaction)),
            None => remove(data_dir, *id)?,
        }
    }
    write_all(data_dir, &records)?;
    Ok(!touched.is_empty())
}

/// Writes many records; how many were not there so.
///
/// # Errors
/// The first [`NotReplaced`]; some may be written.
pub fn write_all(data_dir: &Path, records: &[SetRecord]) -> Result<usize, NotReplaced> {
    let mut written = 0;
    for some in records.chunks(PARALLEL) {
        let done = match some {
            [one] => vec![one.write(data_dir)],
            some => std::thread::scope(|scope| {
                let begun: Vec<_> = some
                    .iter()
                    .map(|record| scope.spawn(|| record.write(data_dir)))
                    .collect();
                let panicked = |_| Err(NotReplaced::Broken(io::Error::other("panicked")));
                let ended = begun.into_iter();
                ended
                    .map(|one| one.join().unwrap_or_else(panicked))
                    .collect()
            }),
        };
        for one in done {
            written += usize::from(one?);
        }
    }
    Ok(written)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::{SignedDuration, Timestamp};

    use crate::id::JobId;
    use crate::inventory::{CollectionKind, SetKind};

    fn collection(id: u128, collections: &[u128]) -> Arc<Collection> {
        Arc::new(Collection {
            id: CollectionId::from_u128(id),
            name: format!("group {id}"),
            kind: CollectionKind::Collections,
            machines: Vec::new(),
            collections: collections
                .iter()
                .map(|c| CollectionId::from_u128(*c))
                .collect(),
            created: Timestamp::UNIX_EPOCH,
        })
    }

    fn set(id: u128, collection: Option<u128>) -> SnapshotSet {
        SnapshotSet {
            id: SetId::from_u128(id),
            name: "nightly".into(),
            kind: SetKind::Standard,
            collection: collection.map(CollectionId::from_u128),
            created: Timestamp::UNIX_EPOCH,
            members: Vec::new(),
            window: SignedDuration::ZERO,
            owner: "o".into(),
            job: JobId::from_u128(9),
        }
    }

    fn collections() -> BTreeMap<CollectionId, Arc<Collection>> {
        // 1 holds 2, which holds 1 again; 3 stands apart.
        let all = [
            collection(1, &[2, 7]),
            collection(2, &[1]),
            collection(3, &[]),
        ];
        all.map(|c| (c.id, c)).into()
    }

    #[test]
    fn a_record_is_written_once_and_read_back_with_every_collection_below() {
        let data = tempfile::tempdir().unwrap();
        let record = SetRecord::new(&set(5, Some(1)), &collections(), 57);
        let names: Vec<_> = record.collections.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["group 1", "group 2"]);
        assert!(record.write(data.path()).unwrap());
        assert_eq!(
            read(data.path(), record.set.id).unwrap(),
            Some(Ok(record.clone()))
        );
        // A later transaction that changes nothing of it writes nothing.
        let later = SetRecord {
            transaction: 58,
            ..record.clone()
        };
        assert!(!later.write(data.path()).unwrap());
        let named = SetRecord {
            set: SnapshotSet {
                name: "weekly".into(),
                ..later.set.clone()
            },
            ..later
        };
        assert!(named.write(data.path()).unwrap());
        assert_eq!(
            read(data.path(), named.set.id).unwrap(),
            Some(Ok(named.clone()))
        );
        for _ in 0..2 {
            remove(data.path(), named.set.id).unwrap();
            assert_eq!(read(data.path(), named.set.id).unwrap(), None);
        }
    }

    #[test]
    fn many_are_written_and_only_folders_of_sets_are_looked_into() {
        let data = tempfile::tempdir().unwrap();
        let records: Vec<_> = (1..=20)
            .map(|n| SetRecord::new(&set(n, None), &collections(), 0))
            .collect();
        assert_eq!(write_all(data.path(), &records).unwrap(), 20);
        assert_eq!(write_all(data.path(), &records).unwrap(), 0);
        fs::create_dir(data.path().join("sets/lost+found")).unwrap();
        fs::create_dir(data.path().join(format!("sets/{}", SetId::from_u128(77)))).unwrap();
        let found = all(data.path(), |id| id != SetId::from_u128(3)).unwrap();
        assert_eq!(found.len(), 19);
        assert!(found.values().all(Result::is_ok));
    }

    #[test]
    fn what_is_no_record_of_this_set_is_told() {
        let data = tempfile::tempdir().unwrap();
        let record = SetRecord::new(&set(5, None), &collections(), 1);
        record.write(data.path()).unwrap();
        let file = path(data.path(), record.set.id);
        let text = fs::read_to_string(&file).unwrap();
        let why = || {
            read(data.path(), record.set.id)
                .unwrap()
                .unwrap()
                .unwrap_err()
        };
        fs::write(&file, text.replace("nightly", "weekly!")).unwrap();
        assert!(why().contains("checksum is wrong"), "{}", why());
        let bare = text.lines().filter(|l| !l.contains("checksum"));
        let bare = bare.collect::<Vec<_>>().join("\n").replace("},\n}", "}\n}");
        fs::write(&file, bare).unwrap();
        assert!(why().contains("damaged"), "{}", why());
        let newer = SetRecord {
            format: 2,
            ..record.clone()
        };
        newer.write(data.path()).unwrap();
        assert!(why().contains("has format 2"), "{}", why());
        let other = path(data.path(), SetId::from_u128(6));
        fs::create_dir(other.parent().unwrap()).unwrap();
        fs::write(&other, &text).unwrap();
        let why = read(data.path(), SetId::from_u128(6))
            .unwrap()
            .unwrap()
            .unwrap_err();
        assert!(why.contains("is of snapshot set"), "{why}");
    }

    #[test]
    fn a_removal_takes_what_a_death_has_left_along_with_one_sync() {
        let data = tempfile::tempdir().unwrap();
        let set = set(7, None);
        let record = SetRecord::new(&set, &BTreeMap::new(), 1);
        record.write(data.path()).unwrap();
        let file = path(data.path(), set.id);
        let new = file.with_extension("json.new");
        fs::write(&new, "half").unwrap();
        let _before = held::synced();
        remove(data.path(), set.id).unwrap();
        assert_eq!(held::synced().len(), 1);
        assert!(!file.exists() && !new.exists());
        // Perhaps the process that removed it died before it had synced that.
        remove(data.path(), set.id).unwrap();
        assert_eq!(held::synced().len(), 1);
    }
}
