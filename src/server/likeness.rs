//! Whether what stands in the place of a sealed file, after folders were copied or moved, is what was sealed.
//!
//! A seal is kept where nothing of it has changed. Another file of the same length and time of the last write, as a copy
//! is, counts as that once somebody has said so; it is sealed as it was when it was shown, whatever stands there later.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::engine::relocate::Places;
use crate::held::Identity;
use crate::inventory::Seal;
use crate::snapshot::seal_open;

/// A file that is not as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Differing {
    /// Whose it is, in words: set, machine, disk.
    pub whose: String,
    /// The file.
    pub file: PathBuf,
    /// What differs, in words.
    pub how: String,
    /// What it is, if it is another file of the same owner, length and time, as a copy is; else it was changed, is
    /// somebody else's or is not there.
    pub copied: Option<Seal>,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Likeness {
    /// What was sealed.
    Same,
    /// What is to be shown of it.
    Differs(Differing),
    /// Nothing, or it cannot be reached.
    Gone,
}

impl Likeness {
    /// Of the file, which was sealed so.
    pub(super) fn of(places: &Places, whose: &str, file: &Path, then: &Seal) -> Self {
        let differs = |how: String, copied| {
            let (whose, file) = (whose.to_owned(), file.to_owned());
            Self::Differs(Differing {
                whose,
                file,
                how,
                copied,
            })
        };
        let open = match places.open(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::Gone,
            Err(e) => return differs(e.to_string(), None),
            Ok(open) => open,
        };
        let looked = seal_open(&open).and_then(|now| Ok((now, Identity::of(&open)?)));
        let Ok((now, found)) = looked else {
            return Self::Gone;
        };
        let how = differences(then, &now);
        if how.is_empty() {
            return Self::Same;
        }
        let how = format!("{}; of user {}", how.join(", "), found.owner);
        match places.require_owner(file, &open) {
            Ok(()) => differs(how, is_copy(then, &now).then_some(now)),
            Err(e) => differs(format!("{how}: {e}"), None),
        }
    }
}

fn is_copy(then: &Seal, now: &Seal) -> bool {
    (then.length, then.modified) == (now.length, now.modified)
}

fn differences(then: &Seal, now: &Seal) -> Vec<String> {
    let time = |(seconds, nanos): (i64, i64)| {
        let nanos = i32::try_from(nanos).unwrap_or_default();
        Timestamp::new(seconds, nanos).map_or_else(|_| seconds.to_string(), |t| t.to_string())
    };
    let mut all = Vec::new();
    if then.length != now.length {
        all.push(format!("{} bytes, not {}", now.length, then.length));
    }
    if then.modified != now.modified {
        let (now, then) = (time(now.modified), time(then.modified));
        all.push(format!("written {now}, not {then}"));
    }
    if then.inode != now.inode {
        all.push(format!("inode {}, not {}", now.inode, then.inode));
    }
    if then.changed != now.changed {
        let (now, then) = (time(now.changed), time(then.changed));
        all.push(format!("status changed {now}, not {then}"));
    }
    all
}
