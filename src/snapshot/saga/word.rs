//! The commit word of a window: one word in a mapped file beside the journal (`docs/cut.md` §2).
//!
//! It survives the death of the process and needs no sync, so that it can be set while machines stand still. It is ARMED
//! before the first of them is stopped, and CUT once all are captured, before the first goes on; FREE once all go on and
//! what was captured is what was promised. FIRED says that machines went on or may have gone on without being captured, or
//! that the set failed later, and is never taken back: nothing becomes of the set then. BACK says the same once all go on,
//! though the set may wait for its undo. Each change is one atomic swap, so that of two who try one loses, who then does no
//! more.
//!
//! Beside the word stands a note of each member: when it was captured, or that it stood still already.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use crate::held::{Folder, MappedWord};
use crate::id::JobId;
use crate::snapshot::saga::guard::wire::Report;

const ARMED: u32 = u32::from_ne_bytes(*b"ARMD");
const CUT: u32 = u32::from_ne_bytes(*b"CUT\n");
const FREE: u32 = u32::from_ne_bytes(*b"FREE");
const FIRED: u32 = u32::from_ne_bytes(*b"FIRE");
const BACK: u32 = u32::from_ne_bytes(*b"BACK");
/// What the file holds, or a multiple of it: a page, so that the word has a block of its own.
const ROOM: usize = 4096;
/// The same as a length.
const ROOM_LENGTH: u64 = 4096;
/// Where it says how many notes there are.
const COUNT: u64 = 12;
const SUFFIX: &str = "word";
/// What a later process says to a guard whose machines it lets go itself, and where.
const OVER: (&[u8; 4], u64) = (b"OVER", 8);
/// The longest report that is read: of far more machines than a set has.
const REPORT_MAX: u64 = 4 << 20;

/// What is noted of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// When it was captured, to the microsecond.
    pub(crate) captured: Option<Timestamp>,
    /// Somebody else had stopped it before, and it is not let go.
    pub(crate) stood: bool,
}

impl Note {
    const KNOWN: u64 = 1;
    const STOOD: u64 = 2;
    /// The bits of the two.
    const BITS: u32 = 2;

    fn of(value: u64) -> Self {
        let micros = value.cast_signed() >> Self::BITS;
        let captured = Timestamp::from_microsecond(micros).ok();
        Self {
            captured: captured.filter(|_| value & Self::KNOWN != 0),
            stood: value & Self::STOOD != 0,
        }
    }

    fn value(self) -> u64 {
        let captured = self.captured.map_or(0, |captured| {
            (captured.as_microsecond() << Self::BITS).cast_unsigned() | Self::KNOWN
        });
        captured | if self.stood { Self::STOOD } else { 0 }
    }
}

/// An open commit word.
#[derive(Debug)]
pub(crate) struct Word {
    word: MappedWord,
    /// What it stands in. The guard has a lock on it as long as it lives, and says in it what it has done.
    file: File,
}

impl Word {
    /// Makes the word of a job with so many members in the folder of journals, ARMED. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn arm(journals: &Path, job: JobId, members: usize) -> io::Result<Self> {
        let folder = Folder::open(journals)?;
        let name = name(job);
        folder.remove_file(&name)?;
        let file = folder.create_new(&name, 0o640)?;
        let count = u32::try_from(members).map_err(io::Error::other)?;
        let pages = vec![0; MappedWord::length(members).next_multiple_of(ROOM)];
        let write = || {
            file.write_all_at(&pages, 0)?;
            file.write_all_at(&count.to_ne_bytes(), COUNT)?;
            file.write_all_at(&ARMED.to_ne_bytes(), 0)
        };
        write()?;
        file.sync_all()?;
        folder.sync()?;
        // The first store after a sync waits for the file system: here, not while machines stand still. It comes after a
        // write, which fails where there is no room; a store would kill the process.
        write()?;
        let word = Self::of(file)?;
        word.word.store(ARMED);
        (0..members).for_each(|n| word.word.note(n, 0));
        Ok(word)
    }

    /// The word in this file.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(crate) fn of(file: File) -> io::Result<Self> {
        let word = MappedWord::of(&file, notes_of(&file)?)?;
        Ok(Self { word, file })
    }

    /// What it stands in.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// The word that a dead process left, if it left one. One that was cut off says nothing: it is neither. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn open(journals: &Path, job: JobId) -> io::Result<Option<Self>> {
        match Folder::open(journals)?.open_file(name(job), true) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            file => {
                let file = file?;
                let length = file.metadata()?.len();
                let wanted = MappedWord::length(notes_of(&file).unwrap_or(0));
                let wanted = u64::try_from(wanted).map_err(io::Error::other)?;
                if length < wanted.max(ROOM_LENGTH) {
                    file.set_len(wanted.max(ROOM_LENGTH))?;
                }
                Self::of(file).map(Some)
            }
        }
    }

    /// ARMED becomes CUT; `false` if it was not ARMED any more.
    #[must_use]
    pub(crate) fn cut(&self) -> bool {
        self.word.swap(ARMED, CUT)
    }

    /// CUT becomes FREE: nothing is left to be let go.
    pub(crate) fn free(&self) {
        let _unless_fired = self.word.swap(CUT, FREE);
    }

    /// It becomes FIRED: nothing becomes of the set, whatever was captured.
    pub(crate) fn fire(&self) {
        self.word.store(FIRED);
    }

    /// ARMED becomes FIRED; `false` if it was not ARMED any more.
    pub(crate) fn fire_first(&self) -> bool {
        self.word.swap(ARMED, FIRED)
    }

    /// Takes the lock that tells of a guard, until this process and whoever has the file from it have closed it.
    ///
    /// # Errors
    /// There is a guard, or the file system has no locks.
    pub(crate) fn hold(&self) -> io::Result<()> {
        Ok(flock(&self.file, FlockOperation::NonBlockingLockExclusive)?)
    }

    /// Whether a guard may still be at work: of a word that another process has armed.
    pub(crate) fn is_guarded(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Notes something of the member of this number. Nothing waits for a disk.
    pub(crate) fn note(&self, member: usize, note: Note) {
        self.word.note(member, note.value());
    }

    /// What is noted of each member.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let all = 0..self.word.notes();
        all.map(|n| Note::of(self.word.noted(n))).collect()
    }

    /// Tells a guard that does not end that this process does what is left: it ends as soon as it looks. Blocks.
    pub(crate) fn take_over(&self) {
        let (word, place) = OVER;
        let _no_room = self.file.write_all_at(word, place);
    }

    /// Whether a later process has said so.
    pub(crate) fn is_taken_over(&self) -> bool {
        let (word, place) = OVER;
        let mut found = [0; 4];
        self.file.read_exact_at(&mut found, place).is_ok() && found == *word
    }

    /// Where the guard says what it has done.
    fn report_at(&self) -> u64 {
        u64::try_from(MappedWord::length(self.word.notes())).unwrap_or(u64::MAX)
    }

    /// Leaves with the word what the guard has done so far. Where there is no room for it, nothing is left.
    pub(crate) fn report(&self, report: &Report) {
        let mut bytes = serde_json::to_vec(report).unwrap_or_default();
        bytes.push(0); // the one before may be longer
        let _no_room = self.file.write_all_at(&bytes, self.report_at());
    }

    /// What a guard has done, if it had to do something.
    pub(crate) fn reported(&self) -> Option<Report> {
        let length = self.file.metadata().ok()?.len().min(REPORT_MAX);
        let length = usize::try_from(length.checked_sub(self.report_at())?).ok()?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.report_at()).ok()?;
        let bytes = bytes.split(|byte| *byte == 0).next()?;
        serde_json::from_slice(bytes).ok()
    }

    /// FIRED becomes BACK: nothing is left to be let go.
    pub(crate) fn back(&self) {
        let _unless_it_stands = self.word.swap(FIRED, BACK);
    }

    /// Whether it is ARMED.
    pub(crate) fn is_armed(&self) -> bool {
        self.word.load() == ARMED
    }

    /// Whether nothing is left to be let go: FREE or BACK.
    pub(crate) fn is_settled(&self) -> bool {
        [FREE, BACK].contains(&self.word.load())
    }

    /// Whether all were captured: CUT or FREE.
    pub(crate) fn is_cut(&self) -> bool {
        [CUT, FREE].contains(&self.word.load())
    }

    /// Whether it is FREE.
    pub(crate) fn is_free(&self) -> bool {
        self.word.load() == FREE
    }

    /// Removes the word of a job, if there is one. Whoever has it open keeps it. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn remove(journals: &Path, job: JobId) -> io::Result<()> {
        Folder::open(journals)?.remove_file(name(job)).map(drop)
    }
}

/// How many notes a file says that it has.
fn notes_of(file: &File) -> io::Result<usize> {
    let mut count = [0; 4];
    file.read_exact_at(&mut count, COUNT)?;
    usize::try_from(u32::from_ne_bytes(count)).map_err(io::Error::other)
}

fn name(job: JobId) -> OsString {
    format!("{job}.{SUFFIX}").into()
}

/// The job whose word stands in this file, by its name.
pub(crate) fn job_of(file: &Path) -> Option<JobId> {
    let is_word = file.extension().is_some_and(|it| it == SUFFIX);
    let stem = file.file_stem().filter(|_| is_word)?;
    stem.to_str()?.parse().ok()
}

/// What tells this run of the host from every other. A word counts in the run in which it was armed: machines that it
/// tells of do not outlive that, and it reaches the disk when it likes.
///
/// # Errors
/// The host does not tell.
pub(crate) fn boot() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| boot.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_who_swap_one_loses_and_what_is_fired_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobId::from_u128(7);
        assert!(Word::open(folder.path(), job).unwrap().is_none());
        let server = Word::arm(folder.path(), job, 0).unwrap();
        let guard = Word::open(folder.path(), job).unwrap().unwrap();
        assert!(!guard.is_cut());
        assert!(server.cut() && guard.is_cut());
        assert!(!guard.cut(), "it was swapped already");
        assert!(!guard.is_free());
        server.free();
        assert!(guard.is_cut() && guard.is_free());
        server.back();
        assert!(guard.is_cut(), "it has not failed");
        server.fire();
        server.free();
        assert!(!guard.is_cut() && !guard.cut() && !guard.is_settled());
        server.back();
        assert!(!guard.is_cut() && !guard.cut() && guard.is_settled());
        let again = Word::arm(folder.path(), job, 0).unwrap();
        guard.fire();
        assert!(again.cut(), "an older word is another file");
        for _ in 0..2 {
            Word::remove(folder.path(), job).unwrap();
        }
        assert!(Word::open(folder.path(), job).unwrap().is_none());
    }

    #[test]
    fn a_word_that_is_cut_off_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobId::from_u128(7);
        let _armed = Word::arm(folder.path(), job, 3).unwrap();
        std::fs::write(folder.path().join(name(job)), b"CUT").unwrap();
        let word = Word::open(folder.path(), job).unwrap().unwrap();
        assert!(!word.is_cut() && !word.is_free() && !word.cut());
    }

    #[test]
    fn a_note_of_a_member_is_read_as_it_was_written_and_a_report_stands_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let job = JobId::from_u128(7);
        let word = Word::arm(folder.path(), job, MANY).unwrap();
        assert_eq!(word.notes(), vec![Note::default(); MANY]);
        let times = [-1_000_001, 0, 1, 1_790_000_000_123_456].map(Timestamp::from_microsecond);
        let captured = times.map(|it| Note {
            captured: Some(it.unwrap()),
            stood: false,
        });
        let stood = Note {
            captured: None,
            stood: true,
        };
        let all = [&captured[..], &[stood, LAST]].concat();
        for (n, note) in all.iter().enumerate() {
            word.note(n, *note);
        }
        word.note(MANY, LAST); // there is none
        let report = Report {
            cause: crate::snapshot::saga::guard::wire::Cause::Died,
            wards: Vec::new(),
        };
        word.report(&report);
        let read = Word::open(folder.path(), job).unwrap().unwrap();
        assert_eq!(read.notes()[..all.len()], all);
        assert_eq!(
            read.notes()[all.len()..],
            vec![Note::default(); MANY - all.len()]
        );
        assert!(read.reported().is_some() && read.is_armed());
    }

    /// More than a page holds.
    const MANY: usize = 1000;
    const LAST: Note = Note {
        captured: Some(Timestamp::UNIX_EPOCH),
        stood: true,
    };
    const HERE: &str = "GROUPSHOT_TEST_WORD";

    /// The process dies right after the swap, with nothing synced.
    #[test]
    fn a_word_outlives_the_process_that_swapped_it() {
        let job = JobId::from_u128(7);
        if let Some(folder) = std::env::var_os(HERE) {
            let word = Word::arm(Path::new(&folder), job, MANY).unwrap();
            word.note(MANY - 1, LAST);
            assert!(word.cut());
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL);
            panic!("it is dead");
        }
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "snapshot::saga::word::tests::a_word_outlives_the_process_that_swapped_it";
        let child = child.args(["--exact", name]).env(HERE, folder.path());
        let died = child.output().unwrap().status;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&died),
            Some(9)
        );
        let word = Word::open(folder.path(), job).unwrap().unwrap();
        assert!(word.is_cut() && !word.is_free());
        assert_eq!(word.notes().len(), MANY);
        assert_eq!(word.notes().last(), Some(&LAST));
    }

    #[test]
    fn a_word_is_told_by_its_name() {
        let job = JobId::from_u128(7);
        assert_eq!(job_of(Path::new(&name(job))), Some(job));
        assert_eq!(job_of(Path::new("7.word")), None);
        assert_eq!(job_of(Path::new(&format!("{job}.log"))), None);
    }
}
