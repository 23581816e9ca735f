//! The journal: one append-only file for each operation in flight, `journal/<job id>.log`. After a power cut it may
//! have the name of a spare; its content tells whose it is.
//!
//! ```text
//!   "GSHOTJ" version:u16le  ( length:u32le  first 8 bytes of SHA-256(json)  json )*  zeroes
//! ```
//!
//! What a spare held is zeroes, which the records overwrite; no record ends with one, so those behind the last are the
//! end. Every append is fsynced before the next one begins, so only the last record can be torn: sectors of it were never
//! written, or its end is not there. A torn tail never happened; anything else that is no record is damage that a person
//! must look at. The version is 1, or 2 where machines stand still for the operation: a program that does not know how to
//! let them go must not read it. A file gets the name of its job when its first record is on the disk, so without one it
//! is damaged too.
//!
//! So what a write for which there was no room has left is a torn tail as well, and need not be taken away at once: the
//! next append makes zeroes of it. Nothing is cut off that the file had before, as its room may be the last there is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::held::{self, Folder, Identity};
use crate::id::JobId;
use crate::snapshot::saga::spares::{is_spare, spare_of};
use crate::store::room;
use crate::text::Argument;

const MAGIC: &[u8; 6] = b"GSHOTJ";
const VERSION: u16 = 1;
/// Of a journal of an operation with a window.
const WINDOW: u16 = 2;
const HEADER: usize = MAGIC.len() + size_of::<u16>();
const FRAME: usize = size_of::<u32>() + CHECKSUM;
const CHECKSUM: usize = 8;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// How the content of every record begins.
const BEGIN: &[u8] = b"{\"record\":";
/// The name of the first record, and of no other.
pub(crate) const INTENT: &str = "intent";

/// One record as it is written: JSON that begins with its name. What else stands in it is its kind's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    text: String,
    head: Head,
}

/// What every record has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Head {
    record: String,
    /// The kind of operation, in the first one.
    #[serde(default)]
    kind: String,
    /// Whether machines stand still for it, in the first one.
    #[serde(default)]
    window: bool,
}

impl Head {
    /// The version of the journal that a first record begins.
    const fn version(&self) -> u16 {
        match self.window {
            true => WINDOW,
            false => VERSION,
        }
    }
}

impl Line {
    /// The record, which must be tagged with its name: `record`.
    ///
    /// # Errors
    /// It cannot be written so.
    pub fn of(record: &impl Serialize) -> io::Result<Self> {
        let text = serde_json::to_string(record)?;
        Self::checked(text).ok_or_else(|| io::Error::other("no record"))
    }

    /// What is said, in the form of its kind.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn read<R: DeserializeOwned>(&self) -> serde_json::Result<R> {
        serde_json::from_str(&self.text)
    }

    /// Whether it is the record of that name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.head.record == name
    }

    /// The kind of operation that a first record begins.
    pub(crate) fn kind(&self) -> &str {
        &self.head.kind
    }

    /// The text, if it is a record at all.
    pub(crate) fn checked(text: String) -> Option<Self> {
        let begins = text.as_bytes().starts_with(BEGIN);
        let head = serde_json::from_str(&text).ok().filter(|_| begins)?;
        Some(Self { text, head })
    }
}

/// Where one of these records begins in its file.
pub(crate) fn place_of(lines: &[Line], n: usize) -> usize {
    let before = lines.iter().take(n).map(|line| FRAME + line.text.len());
    HEADER + before.sum::<usize>()
}

/// A record could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It was not written and the journal is as before; the operation can still be undone.
    #[error("journal {0}: {1}")]
    Refused(PathBuf, io::Error),
    /// Nobody knows what is on the disk: the process must stop (`docs/cut.md` §3).
    #[error("journal {0} cannot be made durable: {1}")]
    Broken(PathBuf, io::Error),
}

impl WriteError {
    /// Why, without the name of the file: that is for the log, not for clients.
    #[must_use]
    pub fn why(&self) -> Argument {
        match self {
            Self::Refused(path, cause) if room::is_missing(cause) => {
                room::missing(path.parent().unwrap_or(path), cause).into()
            }
            Self::Refused(_, cause) | Self::Broken(_, cause) => cause.into(),
        }
    }

    /// Whether there was no room for it.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Refused(_, cause) if room::is_missing(cause))
    }
}

/// A journal file that cannot be read; the server must not open before someone looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another program's file.
    #[error("is not a journal")]
    Foreign,
    /// Written by another version.
    #[error(
        "has version {0}, this program reads versions {VERSION} and {WINDOW}: finish with the program that wrote it"
    )]
    Version(u16),
    /// Changed after it was written.
    #[error("is damaged at byte {0}")]
    Damaged(usize),
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    /// For messages.
    path: PathBuf,
    /// What it lies in, and its name there.
    folder: Folder,
    name: OsString,
    file: File,
    /// Where the next record goes.
    length: u64,
    /// How far something other than zeroes may stand after that.
    dirty: u64,
    /// The length of the file, with its zeroes.
    room: u64,
}

impl Journal {
    /// Makes the journal of `job` in `folder`, durable with its first record. `spare`, if given, is a file of zeroes in
    /// `folder` whose directory entry is durable, so that one fsync is enough. If it cannot be opened a new file is
    /// made.
    ///
    /// # Errors
    /// [`WriteError::Refused`] leaves no file.
    pub fn create(
        folder: &Path,
        job: JobId,
        first: &Line,
        spare: Option<PathBuf>,
    ) -> Result<Self, WriteError> {
        let own = OsString::from(format!("{job}.log"));
        let refused = |e| WriteError::Refused(folder.join(&own), e);
        let folder = Folder::open(folder).map_err(refused)?;
        let mut bytes = header(first.head.version());
        bytes.extend(frame(first).map_err(refused)?);
        let spare = spare.and_then(|path| {
            let name = path.file_name()?.to_owned();
            Some((folder.open_file(&name, true).ok()?, name))
        });
        let named = spare.is_some();
        let (file, name) = match spare {
            Some(spare) => spare,
            None => {
                let name = OsString::from(spare_of(job));
                (folder.create_new(&name, 0o640).map_err(refused)?, name)
            }
        };
        let broken = |e| WriteError::Broken(folder.path().join(&own), e);
        if let Err(unbegun) = begin(&file, &bytes, named) {
            return Err(match unbegun {
                Unbegun::Blank(e) if named => refused(e),
                Unbegun::Blank(e) | Unbegun::Torn(e) => {
                    let _ = folder.remove_file(&name);
                    refused(e)
                }
                Unbegun::Unknown(e) => broken(e),
            });
        }
        // The rename need not be durable: recovery reads a journal under either name.
        let renamed = folder.rename_new(&name, &folder, &own).is_ok();
        if !named {
            folder.sync().map_err(broken)?;
        }
        let name = if renamed { own } else { name };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let room = file.metadata().map_or(length, |m| m.len());
        Ok(Self {
            path: folder.path().join(&name),
            folder,
            name,
            file,
            length,
            dirty: length,
            room,
        })
    }

    /// Opens a journal that another process left, with its records. No records: its first one was never
    /// durable, so nothing was done.
    ///
    /// # Errors
    /// The outer one if the file cannot be read, the inner one if its content cannot be understood.
    pub fn open(path: &Path) -> io::Result<Result<(Self, Vec<Line>), Unreadable>> {
        let (folder, name) = held::place(path)?;
        let mut file = folder.open_file(&name, true)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let size = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Ok(read_file(path, &bytes).map(|(records, length)| {
            let journal = Self {
                path: path.to_owned(),
                folder,
                name,
                file,
                length: size(length),
                dirty: size(written(&bytes).len()),
                room: size(bytes.len()),
            };
            (journal, records)
        }))
    }

    /// Adds a record, durable at return.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn append(&mut self, record: &Line) -> Result<(), WriteError> {
        let path = self.path.clone();
        let refused = |e| WriteError::Refused(path.clone(), e);
        let broken = |e| WriteError::Broken(path.clone(), e);
        let bytes = frame(record).map_err(refused)?;
        // A torn tail must not stand after the new record, nor parts of it in its place.
        self.clean().map_err(refused)?;
        let end = self.length + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.dirty = end;
        if let Err(e) = self.file.write_all_at(&bytes, self.length) {
            let _else_before_the_next = self.clean();
            return Err(refused(e));
        }
        if let Err(e) = self.file.sync_data() {
            // It was not written once it is gone for certain.
            return Err(match room::is_missing(&e) && self.clean().is_ok() {
                true => refused(e),
                false => broken(e),
            });
        }
        (self.length, self.room) = (end, self.room.max(end));
        Ok(())
    }

    /// Its file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes away, durably, what stands behind the last record.
    fn clean(&mut self) -> io::Result<()> {
        if self.dirty <= self.length {
            return Ok(());
        }
        if erase(&self.file, self.length..self.dirty, self.room).is_err() {
            // A file system that does not overwrite in place may have no room for zeroes; and it kept none in them.
            self.file.set_len(self.length)?;
            self.file.sync_all()?;
            self.room = self.length;
        }
        self.dirty = self.length;
        Ok(())
    }

    /// Removes the file: the operation is over. May be repeated.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn remove(&self) -> Result<(), WriteError> {
        let removed =
            Identity::of(&self.file).and_then(|own| self.folder.remove(&self.name, own.inode));
        removed.map_err(|e| WriteError::Refused(self.path.clone(), e))?;
        let synced = self.folder.sync();
        synced.map_err(|e| WriteError::Broken(self.path.clone(), e))
    }
}

/// A file in which no journal was begun.
#[derive(Debug)]
enum Unbegun {
    /// It is as before.
    Blank(io::Error),
    /// It holds a part of the first record at most.
    Torn(io::Error),
    /// Nobody knows.
    Unknown(io::Error),
}

/// Writes the first bytes of a journal, durably; `named`: the file has been so already.
fn begin(file: &File, bytes: &[u8], named: bool) -> Result<(), Unbegun> {
    let room = file.metadata().map_err(Unbegun::Torn)?.len();
    let end = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if let Err(e) = file.write_all_at(bytes, 0) {
        return Err(match erase(file, 0..end, room) {
            Ok(()) => Unbegun::Blank(e),
            Err(_) => Unbegun::Torn(e),
        });
    }
    let synced = match named {
        true => file.sync_data(),
        false => file.sync_all(),
    };
    synced.map_err(
        |e| match room::is_missing(&e) && erase(file, 0..end, room).is_ok() {
            true => Unbegun::Blank(e),
            false => Unbegun::Unknown(e),
        },
    )
}

/// Makes zeroes, durably, of what was written there in a file that had this length before.
fn erase(file: &File, written: Range<u64>, room: u64) -> io::Result<()> {
    let mut end = written.end.min(file.metadata()?.len());
    // Where it is not given back it is zeroes as well.
    if end > room && file.set_len(room.max(written.start)).is_ok() {
        end = room;
    }
    let length = usize::try_from(end.saturating_sub(written.start)).unwrap_or_default();
    file.write_all_at(&vec![0; length], written.start)?;
    file.sync_all()
}

/// Whether this is too little to hold the first record of a journal.
pub(crate) fn is_too_short(bytes: &[u8]) -> bool {
    written(bytes).len() <= HEADER + FRAME
}

/// All of it but the zeroes at the end, which begin behind the head.
fn written(bytes: &[u8]) -> &[u8] {
    let (head, rest) = bytes.split_at(HEADER.min(bytes.len()));
    let zeroes = rest.iter().rev().take_while(|byte| **byte == 0).count();
    let end = head.len() + rest.len() - zeroes;
    bytes.get(..end).unwrap_or_default()
}

/// [`read`] for a file of this name: only a spare is without a first record.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn read_file(path: &Path, bytes: &[u8]) -> Result<(Vec<Line>, usize), Unreadable> {
    let (records, length) = read(bytes)?;
    match records.is_empty() && !is_spare(path) {
        true => Err(Unreadable::Damaged(length)),
        false => Ok((records, length)),
    }
}

/// The records of a journal file and the length of what is whole. Fuzzed.
///
/// # Errors
/// [`Unreadable`].
pub fn read(bytes: &[u8]) -> Result<(Vec<Line>, usize), Unreadable> {
    let bytes = written(bytes);
    let begun = |version| {
        let header = header(version).into_iter();
        let same = bytes.iter().zip(header).take_while(|(a, b)| **a == *b);
        same.count()
    };
    let begun = begun(VERSION).max(begun(WINDOW));
    let blank = begun < HEADER && bytes.get(begun..).is_none_or(all_zero);
    if blank || (begun == 0 && sectors(bytes, 0).next().is_some_and(all_zero) && is_torn(bytes, 0))
    {
        return Ok((Vec::new(), 0)); // torn in the first write
    }
    let (head, _) = bytes.split_at_checked(HEADER).ok_or(Unreadable::Foreign)?;
    let Some(version) = head.strip_prefix(MAGIC) else {
        return Err(Unreadable::Foreign);
    };
    let version = version.try_into().map_or(0, u16::from_le_bytes);
    if ![VERSION, WINDOW].contains(&version) {
        return Err(Unreadable::Version(version));
    }
    let mut records = Vec::new();
    let mut at = HEADER;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((json, length)) = whole_frame(rest) else {
            let torn = is_torn(bytes, at);
            return torn.then_some((records, at)).ok_or(Unreadable::Damaged(at));
        };
        let text = String::from_utf8(json.to_owned()).ok();
        let line = text.and_then(Line::checked);
        let line = line.filter(|line| records.is_empty() == line.is(INTENT));
        let line = line.filter(|line| !line.is(INTENT) || line.head.version() == version);
        records.push(line.ok_or(Unreadable::Damaged(at))?);
        at += length;
    }
    Ok((records, at))
}

/// Whether what begins here is what a power cut leaves of one record, and not a record that was changed: no whole one
/// follows, and sectors of it were never written or its end is not there. The zeroes at the end are taken away.
fn is_torn(bytes: &[u8], at: usize) -> bool {
    let tail = bytes.get(at..).unwrap_or_default();
    let mut later = (1..tail.len()).filter_map(|n| tail.get(n..));
    if later.any(|later| whole_frame(later).is_some()) {
        return false;
    }
    tail.len() < FRAME
        || sectors(bytes, at).any(all_zero)
        || (split_frame(tail).is_none() && !tail.get(FRAME..).is_some_and(begins_whole))
}

/// What lies in each sector from this place on.
fn sectors(bytes: &[u8], at: usize) -> impl Iterator<Item = &[u8]> {
    let tail = bytes.get(at..).unwrap_or_default();
    let (first, rest) = tail.split_at((SECTOR - at % SECTOR).min(tail.len()));
    std::iter::once(first).chain(rest.chunks(SECTOR))
}

/// Whether a whole document of JSON stands there, whatever follows.
fn begins_whole(bytes: &[u8]) -> bool {
    let mut read = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    read.next().is_some_and(|one| one.is_ok())
}

/// The content of a frame with a right checksum, and the length of all of it.
fn whole_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (sum, json, after) = split_frame(bytes)?;
    let plausible = json.starts_with(BEGIN) && *sum == checksum(json);
    plausible.then_some((json, bytes.len() - after.len()))
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME)?;
    let (length, sum) = head.split_at_checked(size_of::<u32>())?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let (json, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((sum, json, after))
}

fn header(version: u16) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    bytes
}

fn frame(record: &Line) -> io::Result<Vec<u8>> {
    let json = record.text.as_bytes();
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(checksum(json));
    bytes.extend(json);
    Ok(bytes)
}

fn checksum(json: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    for (to, from) in sum.iter_mut().zip(Sha256::digest(json)) {
        *to = from;
    }
    sum
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;

    fn line(text: &str) -> Line {
        Line::checked(text.to_owned()).unwrap()
    }

    fn intent(name: &str) -> Line {
        line(&format!(
            r#"{{"record":"intent","kind":"create","set":{{"name":"{name}"}},"members":[]}}"#
        ))
    }

    fn prepared() -> Line {
        line(r#"{"record":"prepared"}"#)
    }

    fn sample() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let (job, no_spare) = (JobId::from_u128(2), None);
        let mut journal = Journal::create(folder.path(), job, &intent("n"), no_spare).unwrap();
        journal.append(&prepared()).unwrap();
        let path = journal.path.clone();
        let bytes = fs::read(&path).unwrap();
        (folder, path, bytes)
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let (_folder, _, bytes) = sample();
        let (records, length) = read(&bytes).unwrap();
        let expected = [intent("n"), prepared()];
        assert_eq!((records.as_slice(), length), (&expected[..], bytes.len()));
    }

    #[test]
    fn only_json_that_begins_with_the_name_of_a_record_is_one() {
        let first = intent("n");
        assert_eq!(first.kind(), "create");
        assert!(first.is(INTENT) && !prepared().is(INTENT));
        #[derive(Serialize)]
        struct Other {
            kind: &'static str,
        }
        assert!(Line::of(&Other { kind: "create" }).is_err());
        for text in [
            r#"{"record":1}"#,
            r#"{"record":"prepared""#,
            r#"{"record":"a"} {}"#,
        ] {
            assert_eq!(Line::checked(text.to_owned()), None, "{text}");
            let mut bytes = header(VERSION);
            bytes.extend(frame(&first).unwrap());
            let at = bytes.len();
            let text = Line {
                text: text.to_owned(),
                head: prepared().head,
            };
            bytes.extend(frame(&text).unwrap());
            assert_eq!(read(&bytes), Err(Unreadable::Damaged(at)), "{text:?}");
            assert_eq!(place_of(&[first.clone(), prepared()], 1), at);
        }
    }

    #[test]
    fn a_spare_gets_the_name_of_its_job_and_one_that_is_gone_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        for there in [true, false] {
            let spare = folder.path().join("spare-0.log");
            if there {
                fs::write(&spare, "").unwrap();
            }
            let job = JobId::from_u128(2);
            let made = Journal::create(folder.path(), job, &intent("n"), Some(spare)).unwrap();
            let (_, records) = Journal::open(&made.path).unwrap().unwrap();
            assert_eq!(records, [intent("n")]);
            let names = fs::read_dir(folder.path()).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
            assert_eq!(names, [folder.path().join(format!("{job}.log"))]);
            made.remove().unwrap();
        }
    }

    /// A journal in a spare that was written full: its records overwrite zeroes, and those behind them are its end.
    #[test]
    fn records_overwrite_the_zeroes_of_a_spare_and_end_where_those_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let (spare, room) = (folder.path().join("spare-0.log"), 4096);
        fs::write(&spare, vec![0; room]).unwrap();
        let job = JobId::from_u128(2);
        let mut journal = Journal::create(folder.path(), job, &intent("n"), Some(spare)).unwrap();
        let mut expected = vec![intent("n")];
        loop {
            let length = fs::metadata(&journal.path).unwrap().len();
            assert_eq!(length, journal.length.max(4096), "nothing is cut off");
            let (mut again, records) = Journal::open(&journal.path).unwrap().unwrap();
            assert_eq!((records, again.length), (expected.clone(), journal.length));
            if length > 4096 {
                break;
            }
            // Whoever takes it over goes on in the same room.
            again.append(&prepared()).unwrap();
            expected.push(prepared());
            journal = again;
        }
    }

    #[test]
    fn every_torn_tail_is_as_if_it_never_happened() {
        let (_folder, _, bytes) = sample();
        let (_, whole) = read(&bytes).unwrap();
        let first = read(&bytes[..whole - 1]).unwrap().1;
        for cut in 0..whole {
            let (records, length) = read(&bytes[..cut]).unwrap();
            let expected = usize::from(cut >= first);
            assert_eq!(records.len(), expected, "cut at {cut}");
            assert!(length <= cut);
            // The size reached the disk, the content did not.
            let mut zeroed = bytes[..cut].to_vec();
            for length in [whole, whole + 1, 4096] {
                zeroed.resize(length, 0);
                assert_eq!(read(&zeroed).unwrap().0.len(), expected, "zero from {cut}");
            }
        }
    }

    /// A journal whose last record lies in many sectors, and where that begins.
    fn long(name: &str) -> (Vec<u8>, usize) {
        let mut bytes = header(VERSION);
        bytes.extend(frame(&intent(name)).unwrap());
        let at = bytes.len();
        let time = r#""00000000-0000-0000-0000-000000000001":"1970-01-01T00:00:00Z""#;
        let times = [time; 12].join(",");
        let cut = format!(r#"{{"record":"cut","times":{{{times}}}}}"#);
        bytes.extend(frame(&line(&cut)).unwrap());
        (bytes, at)
    }

    #[test]
    fn whatever_sectors_of_the_last_record_are_lost_it_never_happened() {
        // Wherever it begins in a sector, its length too.
        for shift in 0..SECTOR {
            let (bytes, at) = long(&"n".repeat(shift));
            let sectors = at / SECTOR..=(bytes.len() - 1) / SECTOR;
            for lost in 1..1_u32 << sectors.clone().count() {
                let mut torn = bytes.clone();
                for (n, sector) in sectors.clone().enumerate() {
                    if lost & 1 << n != 0 {
                        let end = bytes.len().min((sector + 1) * SECTOR);
                        torn[at.max(sector * SECTOR)..end].fill(0);
                    }
                }
                for room in [torn.len(), 8192] {
                    torn.resize(room, 0);
                    let (records, length) = read(&torn).unwrap();
                    assert_eq!((records.len(), length), (1, at), "{shift}: {lost:b}");
                }
            }
        }
        // Of the first record, with the head of the file.
        let (mut bytes, at) = long(&"n".repeat(3 * SECTOR));
        bytes.truncate(at);
        bytes[..SECTOR].fill(0);
        assert_eq!(read(&bytes), Ok((Vec::new(), 0)));
    }

    #[test]
    fn no_flipped_bit_is_taken_for_a_torn_tail() {
        let (_folder, _, short) = sample();
        for bytes in [short, long("n").0, long(&"n".repeat(600)).0] {
            // Every one in heads, and one of each byte elsewhere.
            let json = |byte: u8| (b' '..=b'~').contains(&byte);
            let bits =
                (0..bytes.len() * 8).filter(|bit| !json(bytes[bit / 8]) || bit % 8 == bit / 8 % 8);
            for bit in bits {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // In a spare that was written full as well.
                for room in [bytes.len(), bytes.len() + 1, 4096] {
                    flipped.resize(room, 0);
                    let read = read(&flipped);
                    assert!(
                        read.is_err(),
                        "bit {bit}: {} records",
                        read.unwrap().0.len()
                    );
                }
            }
        }
    }

    #[test]
    fn without_its_first_record_a_journal_that_has_a_name_is_damaged() {
        let (folder, path, bytes) = sample();
        for cut in [0, 3, HEADER, HEADER + 5, HEADER + FRAME + 9] {
            let spare = folder.path().join("spare-3.log");
            fs::write(&spare, &bytes[..cut]).unwrap();
            assert_eq!(Journal::open(&spare).unwrap().unwrap().1, []);
            fs::write(&path, &bytes[..cut]).unwrap();
            let what = Journal::open(&path).unwrap().unwrap_err();
            assert!(matches!(what, Unreadable::Damaged(_)), "{cut}: {what}");
        }
    }

    #[test]
    fn a_journal_of_a_window_has_a_version_of_its_own_and_is_read_as_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let first = line(r#"{"record":"intent","kind":"create","window":true}"#);
        let mut made = Journal::create(folder.path(), JobId::from_u128(2), &first, None).unwrap();
        let begun = fs::read(&made.path).unwrap().len();
        made.append(&prepared()).unwrap();
        let bytes = fs::read(&made.path).unwrap();
        assert_eq!(bytes[MAGIC.len()..HEADER], WINDOW.to_le_bytes());
        let (records, length) = read(&bytes).unwrap();
        assert_eq!((records, length), (vec![first, prepared()], bytes.len()));
        for cut in 0..bytes.len() {
            let (records, _) = read(&bytes[..cut]).unwrap();
            assert_eq!(records.len(), usize::from(cut >= begun), "cut at {cut}");
        }
        for other in [VERSION, 3] {
            let mut changed = bytes.clone();
            changed[MAGIC.len()..HEADER].copy_from_slice(&other.to_le_bytes());
            assert!(read(&changed).is_err(), "{other}");
        }
    }

    #[test]
    fn an_append_replaces_a_torn_tail() {
        let (_folder, path, bytes) = sample();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let (mut journal, records) = Journal::open(&path).unwrap().unwrap();
        assert_eq!(records.len(), 1);
        journal.append(&prepared()).unwrap();
        let (_, records) = Journal::open(&path).unwrap().unwrap();
        assert_eq!(records, [intent("n"), prepared()]);
        journal.remove().unwrap();
        journal.remove().unwrap();
        assert!(!path.exists());
    }

    /// A file of zeroes that nothing of this can be done to.
    fn sealed(seals: SealFlags) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("journal", flags).unwrap());
        file.set_len(4096).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// A journal in such a file, which holds its first record.
    fn journal_in(file: File) -> (tempfile::TempDir, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = header(VERSION);
        bytes.extend(frame(&intent("n")).unwrap());
        file.write_all_at(&bytes, 0).unwrap();
        let length = u64::try_from(bytes.len()).unwrap();
        let journal = Journal {
            path: folder.path().join("1.log"),
            folder: Folder::open(folder.path()).unwrap(),
            name: "1.log".into(),
            file,
            length,
            dirty: length,
            room: 4096,
        };
        (folder, journal)
    }

    /// As on a full file system, where a file that is cut off cannot be written any more, or cannot even be cut off.
    #[test]
    fn a_record_without_room_leaves_the_journal_and_its_room_as_they_were() {
        let (_folder, mut journal) = journal_in(sealed(SealFlags::GROW | SealFlags::SHRINK));
        let long = line(&format!(
            r#"{{"record":"long","text":"{}"}}"#,
            "n".repeat(5000)
        ));
        let mut expected = vec![intent("n")];
        loop {
            let refused = journal.append(&long).unwrap_err();
            assert!(matches!(refused, WriteError::Refused(..)), "{refused}");
            let (bytes, end) = (
                content(&journal.file),
                usize::try_from(journal.length).unwrap(),
            );
            assert_eq!(read(&bytes), Ok((expected.clone(), end)));
            assert_eq!(bytes.len(), 4096, "its room stays");
            assert!(
                all_zero(&bytes[end..]),
                "what was written of it is taken away"
            );
            match journal.append(&prepared()) {
                Ok(()) => expected.push(prepared()),
                Err(WriteError::Refused(..)) => break,
                Err(broken) => panic!("{broken}"),
            }
        }
        assert!(expected.len() > 50);
    }

    /// Neither zeroes nor a cut: the change fails, and goes on once one of them can be done.
    #[test]
    fn a_torn_tail_that_cannot_be_taken_away_refuses_the_record_and_stops_nobody() {
        let (_folder, mut journal) = journal_in(sealed(SealFlags::empty()));
        journal.file.write_all_at(b"torn", journal.length).unwrap();
        journal.dirty += 4;
        fcntl_add_seals(&journal.file, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
        for _ in 0..2 {
            let refused = journal.append(&prepared()).unwrap_err();
            assert!(matches!(refused, WriteError::Refused(..)), "{refused}");
            assert_eq!(read(&content(&journal.file)).unwrap().0, [intent("n")]);
        }
        let (_folder, mut cut) = journal_in(sealed(SealFlags::empty()));
        cut.file.write_all_at(b"torn", cut.length).unwrap();
        cut.dirty += 4;
        fcntl_add_seals(&cut.file, SealFlags::WRITE).unwrap();
        assert!(cut.append(&prepared()).is_err());
        assert_eq!(
            content(&cut.file).len(),
            usize::try_from(cut.length).unwrap(),
            "cut off"
        );
    }

    #[test]
    fn a_first_record_without_room_leaves_a_spare_as_it_was() {
        let mut bytes = header(VERSION);
        bytes.extend(frame(&intent(&"n".repeat(5000))).unwrap());
        let spare = sealed(SealFlags::GROW | SealFlags::SHRINK);
        let unbegun = begin(&spare, &bytes, true).unwrap_err();
        assert!(matches!(unbegun, Unbegun::Blank(_)), "{unbegun:?}");
        assert_eq!(content(&spare), [0; 4096]);
        let unbegun = begin(&sealed(SealFlags::WRITE), &bytes, true).unwrap_err();
        assert!(matches!(unbegun, Unbegun::Torn(_)), "{unbegun:?}");
        begin(&spare, &bytes[..4000], true).unwrap();
    }

    /// What a dead process has left of a record in a spare is overwritten, not cut off.
    #[test]
    fn a_torn_tail_in_a_spare_gives_no_room_away() {
        let (_folder, path, bytes) = sample();
        let mut torn = bytes[..bytes.len() - 3].to_vec();
        torn.resize(4096, 0);
        fs::write(&path, torn).unwrap();
        let (mut journal, _) = Journal::open(&path).unwrap().unwrap();
        journal.append(&prepared()).unwrap();
        let now = fs::read(&path).unwrap();
        assert_eq!(now.len(), 4096);
        assert_eq!(now[..bytes.len()], bytes);
        assert!(all_zero(&now[bytes.len()..]));
    }

    #[test]
    fn what_is_not_ours_or_damaged_is_refused() {
        let (_folder, _, bytes) = sample();
        assert_eq!(read(b"SQLite format 3"), Err(Unreadable::Foreign));
        let mut newer = bytes.clone();
        newer[6] = 3;
        assert_eq!(read(&newer), Err(Unreadable::Version(3)));
        // The version and the first record tell the same.
        newer[6] = 2;
        assert_eq!(read(&newer), Err(Unreadable::Damaged(HEADER)));
        let mut damaged = bytes.clone();
        damaged[HEADER + FRAME + 5] ^= 1;
        assert_eq!(read(&damaged), Err(Unreadable::Damaged(HEADER)));
    }
}
