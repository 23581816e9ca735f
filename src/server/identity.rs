//! Which directory a data directory is: an id, bound to the inode of the directory and to the host, so that a copy of
//! it is not taken for it. Copied records name the files of the original, and whoever merges those takes them from
//! under the other.
//!
//! ```json
//! { "format": 1, "id": "8A3D…", "inode": 4711, "host": "…", "path": "/var/lib/groupshot", "checksum": "…" }
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::document;
use crate::held;
use crate::id::DirectoryId;

use super::{StartError, no_data_dir};

/// In the data directory.
pub(super) const FILE: &str = "directory.json";
const FORMAT: u32 = 1;

/// Where a host keeps its id; containers often have none.
const MACHINE_ID: &str = "/etc/machine-id";
/// Hexadecimal digits of it.
const DIGITS: usize = 32;

/// What stands in [`FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Binding {
    format: u32,
    id: DirectoryId,
    /// Of the directory. Its device may be another one after each start of the host.
    inode: u64,
    /// Made of the machine-id, which itself is not to be shown around; `None` where there was none.
    host: Option<String>,
    /// Where the directory was last; `None` if the path is no UTF-8.
    path: Option<PathBuf>,
}

/// How a data directory stands to the id in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has none: it is new, or of a version that gave none.
    New,
    /// It is the one that the id was made for.
    Bound(Binding),
    /// It is another one, or that cannot be told; what was found, in words.
    Other(Option<Binding>, String),
}

/// How the data directory stands to its id.
///
/// # Errors
/// [`StartError`] if it cannot be looked at.
pub(super) fn look(data_dir: &Path) -> Result<Standing, StartError> {
    look_on(data_dir, Path::new(MACHINE_ID))
}

fn look_on(data_dir: &Path, machine_id: &Path) -> Result<Standing, StartError> {
    let binding = match read(data_dir)? {
        None => return Ok(Standing::New),
        Some(Ok(binding)) => binding,
        Some(Err(damaged)) => return Ok(Standing::Other(None, damaged)),
    };
    let inode = inode(data_dir).map_err(|e| no_data_dir(data_dir, &e))?;
    let was = match &binding.path {
        Some(path) => format!(", as {}", path.display()),
        None => String::new(),
    };
    if inode != binding.inode {
        let found = format!(
            "it was inode {}{was}, and is inode {inode} now: a copy, restored, or moved to another file system",
            binding.inode
        );
        return Ok(Standing::Other(Some(binding), found));
    }
    let other_host = match (&binding.host, host(machine_id)) {
        (Some(then), Some(now)) => *then != now,
        _ => false,
    };
    Ok(match other_host {
        false => Standing::Bound(binding),
        true => Standing::Other(
            Some(binding),
            format!("it was used on another host{was}: {MACHINE_ID} is another one"),
        ),
    })
}

/// Refuses a data directory that is not the one that its id was made for.
///
/// # Errors
/// [`StartError::Refused`] says what was found and what to do.
pub(super) fn require(data_dir: &Path) -> Result<(), StartError> {
    match look(data_dir)? {
        Standing::New | Standing::Bound(_) => Ok(()),
        Standing::Other(binding, found) => Err(StartError::Refused(told(
            data_dir,
            binding.as_ref(),
            &found,
        ))),
    }
}

/// Refuses a data directory that is a copy of one that is still there: its records name the files of that. One whose
/// original is away may need its database before it can be bound.
///
/// # Errors
/// [`StartError::Refused`] says what was found and what to do.
pub(super) fn require_no_original(data_dir: &Path) -> Result<(), StartError> {
    let Standing::Other(Some(binding), found) = look(data_dir)? else {
        return Ok(());
    };
    match binding.original(data_dir, &[]) {
        None => Ok(()),
        Some(original) => Err(StartError::Refused(format!(
            "{}; if it has no whole database, first copy that of {} (groupshot.db, groupshot.db-wal, groupshot.commits) while no server runs there",
            told(data_dir, Some(&binding), &found),
            original.display()
        ))),
    }
}

/// What was found, and what to do, in one line.
pub(super) fn told(data_dir: &Path, binding: Option<&Binding>, found: &str) -> String {
    let here = data_dir.display();
    let was = binding.and_then(|b| b.path.as_deref());
    let moved = match was.filter(|was| *was != data_dir) {
        Some(was) => format!(
            "if it was moved, run `groupshot relocate --data-dir {here} --from {} --apply`; else ",
            was.display()
        ),
        None => String::new(),
    };
    format!(
        "data directory {here} is not the one that its {FILE} was made for: {found}; {moved}`groupshot relocate --data-dir {here} --here` tells what its files are and binds it"
    )
}

/// What a check-up tells of it, if there is something to tell.
pub(super) fn finding(data_dir: &Path) -> Option<String> {
    match look(data_dir) {
        Ok(Standing::New | Standing::Bound(_)) => None,
        Ok(Standing::Other(binding, found)) => Some(told(data_dir, binding.as_ref(), &found)),
        Err(error) => Some(error.to_string()),
    }
}

/// Gives a data directory without an id one, and notes where it is now if it was renamed. Not before recovery: until
/// then it is not known that the server can work on it.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn settle(data_dir: &Path) -> Result<(), StartError> {
    match look(data_dir)? {
        Standing::New => {
            let id = DirectoryId::random();
            bind(data_dir, id)?;
            tracing::info!(%id, "The data directory has an id from now on, in {FILE}");
        }
        Standing::Bound(binding) if binding.path.as_deref() != Some(data_dir) => {
            bind(data_dir, binding.id)?;
        }
        Standing::Bound(_) | Standing::Other(..) => {}
    }
    Ok(())
}

/// Binds a data directory whose paths lead into it: with a new id if it is another one than it was. May be repeated.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn renew(data_dir: &Path) -> Result<(), StartError> {
    match look(data_dir)? {
        Standing::Other(..) => bind(data_dir, DirectoryId::random()),
        Standing::New | Standing::Bound(_) => settle(data_dir),
    }
}

/// Writes the file, durably.
///
/// # Errors
/// It cannot be written.
pub(super) fn bind(data_dir: &Path, id: DirectoryId) -> Result<(), StartError> {
    bind_on(data_dir, id, Path::new(MACHINE_ID))
}

fn bind_on(data_dir: &Path, id: DirectoryId, machine_id: &Path) -> Result<(), StartError> {
    let write = || {
        let binding = Binding {
            format: FORMAT,
            id,
            inode: inode(data_dir)?,
            host: host(machine_id),
            path: data_dir.to_str().map(PathBuf::from),
        };
        held::replace(&data_dir.join(FILE), &document::write(&binding)?, 0o640)
            .map_err(io::Error::from)
    };
    write().map_err(|e| failed(data_dir, &e))
}

impl Binding {
    /// The id.
    pub(super) fn id(&self) -> DirectoryId {
        self.id
    }

    /// Where the directory that the id was made for still is, if it is seen there or in one of `also`: its records
    /// name the same files.
    pub(super) fn original(&self, data_dir: &Path, also: &[&Path]) -> Option<PathBuf> {
        let own = fs::metadata(data_dir).ok()?;
        let is_it = |folder: &&Path| {
            let Ok(there) = fs::metadata(folder) else {
                return false;
            };
            // By another mount it may be this one.
            let other = (there.dev(), there.ino()) != (own.dev(), own.ino());
            let binding = read(folder).ok().flatten();
            let binding = binding.and_then(Result::ok);
            other && binding.is_some_and(|b| b.id == self.id && b.inode == there.ino())
        };
        let mut places = self
            .path
            .iter()
            .map(PathBuf::as_path)
            .chain(also.iter().copied());
        places.find(is_it).map(Path::to_owned)
    }
}

/// The file, if it is there; in words why it is not what was written.
fn read(data_dir: &Path) -> Result<Option<Result<Binding, String>>, StartError> {
    let file = data_dir.join(FILE);
    let bytes = match held::read_short(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| failed(data_dir, &e))?,
    };
    let damaged = || format!("{} is damaged", file.display());
    let body = match document::read::<Value>(&bytes) {
        Ok(read) if read.checked => read.body,
        _ => return Ok(Some(Err(damaged()))),
    };
    match body.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        format => {
            let format = format.unwrap_or_default();
            return Err(StartError::Refused(format!(
                "{} has format {format}, and this program reads {FORMAT}: use the program that wrote it, or a newer one",
                file.display()
            )));
        }
    }
    let binding = serde_json::from_value(body);
    Ok(Some(binding.map_err(|_| damaged())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn inode(data_dir: &Path) -> io::Result<u64> {
    Ok(fs::metadata(data_dir)?.ino())
}

/// What tells this host from others; `None` where there is no machine-id, or none yet.
fn host(machine_id: &Path) -> Option<String> {
    let text = fs::read_to_string(machine_id).ok()?;
    let id = text.trim_end();
    let whole = id.len() == DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit());
    let given = id.bytes().any(|b| b != b'0');
    let digest = || Sha256::digest(format!("groupshot data directory {}", id.to_lowercase()));
    (whole && given).then(|| hex(&digest()))
}

fn failed(data_dir: &Path, error: &io::Error) -> StartError {
    StartError::file(data_dir, &data_dir.join(FILE), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        root: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("data")).unwrap();
            Self { root }
        }

        fn data(&self) -> PathBuf {
            self.root.path().join("data").canonicalize().unwrap()
        }

        /// The machine-id with this content.
        fn id(&self, text: &str) -> PathBuf {
            let file = self.root.path().join("machine-id");
            fs::write(&file, text).unwrap();
            file
        }
    }

    fn is_bound(data: &Path, machine_id: &Path) -> bool {
        match look_on(data, machine_id).unwrap() {
            Standing::Bound(_) => true,
            Standing::New => panic!("it has an id"),
            Standing::Other(_, found) => {
                assert!(found.contains("another host"), "{found}");
                false
            }
        }
    }

    #[test]
    fn a_directory_is_known_by_its_host_where_the_host_has_an_id() {
        let one = "0123456789abcdef0123456789abcdef\n";
        let other = "fedcba9876543210fedcba9876543210\n";
        let host = Host::new();
        let data = host.data();
        assert_eq!(look_on(&data, &host.id(one)).unwrap(), Standing::New);
        bind_on(&data, DirectoryId::random(), &host.id(one)).unwrap();
        assert!(is_bound(&data, &host.id(one)));
        assert!(!is_bound(&data, &host.id(other)));
        let said = fs::read_to_string(data.join(FILE)).unwrap();
        assert!(!said.contains(one.trim()), "it is not to be shown around");
        let none = [
            "",
            "uninitialized\n",
            "00000000000000000000000000000000\n",
            "x",
        ];
        for text in none {
            assert!(is_bound(&data, &host.id(text)), "{text}");
        }
        assert!(is_bound(&data, Path::new("/nowhere/machine-id")));
        // Bound where there was none: any host is as good.
        bind_on(&data, DirectoryId::random(), &host.id("uninitialized")).unwrap();
        assert!(is_bound(&data, &host.id(one)) && is_bound(&data, &host.id(other)));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_makes_another_directory_of_it() {
        let host = Host::new();
        let (data, none) = (host.data(), Path::new("/nowhere/machine-id"));
        bind_on(&data, DirectoryId::random(), none).unwrap();
        let whole = look_on(&data, none).unwrap();
        let text = fs::read(data.join(FILE)).unwrap();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(data.join(FILE), flipped).unwrap();
            let seen = look_on(&data, none).unwrap();
            let damaged = matches!(&seen, Standing::Other(None, found) if found.contains(FILE));
            assert!(damaged || seen == whole, "bit {bit}: {seen:?}");
        }
        for cut in 0..text.len() - 2 {
            fs::write(data.join(FILE), &text[..cut]).unwrap();
            let seen = look_on(&data, none).unwrap();
            assert!(matches!(seen, Standing::Other(None, _)), "{cut}: {seen:?}");
        }
    }

    #[test]
    fn a_copy_is_another_directory_and_sees_the_original() {
        let host = Host::new();
        let data = host.data();
        settle(&data).unwrap();
        let Standing::Bound(first) = look(&data).unwrap() else {
            panic!("it has just been bound");
        };
        settle(&data).unwrap();
        assert_eq!(look(&data).unwrap(), Standing::Bound(first.clone()), "once");
        let copy = data.with_file_name("copy");
        fs::create_dir(&copy).unwrap();
        fs::copy(data.join(FILE), copy.join(FILE)).unwrap();
        let Standing::Other(Some(binding), _) = look(&copy).unwrap() else {
            panic!("it is a copy");
        };
        assert_eq!(binding.original(&copy, &[]), Some(data.clone()));
        renew(&copy).unwrap();
        let Standing::Bound(now) = look(&copy).unwrap() else {
            panic!("it has just been bound");
        };
        assert_ne!(now.id, first.id);
        assert_eq!(now.original(&copy, &[&data]), None, "another one by now");
        // Renamed, it is the same and knows where it is.
        let moved = data.with_file_name("moved");
        fs::rename(&data, &moved).unwrap();
        settle(&moved).unwrap();
        let Standing::Bound(now) = look(&moved).unwrap() else {
            panic!("it is the same");
        };
        assert_eq!((now.id, now.path), (first.id, Some(moved)));
    }
}
