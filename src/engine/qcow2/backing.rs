//! The file under an image: which one its header names, and of which format it is. The one place that decides it.
//!
//! A format that the header records counts; else what the operator or an import has recorded of the file; else what
//! the suffix of the backing file says, as long as its content does not speak against it. Content alone never
//! decides: QEMU would guess from it, and could be led by what a guest wrote.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::header::{Header, has_magic};
use crate::held;
use crate::inventory::Format;

/// What was recorded of images whose header names no format: the image, and the format of the file under it. It is
/// of the files, not of whoever asks, so a process has one such list; whoever reads a record adds to it.
static RECORDED: RwLock<BTreeMap<PathBuf, Format>> = RwLock::new(BTreeMap::new());

/// The file under an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Absolute; a relative name starts at the folder of the file that names it. With [`Doubt::Protocol`] no file.
    pub file: PathBuf,
    /// Its format, or why it is not known.
    pub format: Result<Format, Doubt>,
}

/// Why it is not known what lies under an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It is named by `json:` or a protocol.
    Protocol,
    /// It is of a format that this program does not read.
    Foreign(String),
    /// No format is recorded, and the suffix and the content of the file do not tell it.
    Unrecorded,
}

/// The backing file that the header of `file` names; `None` if it names none.
#[must_use]
pub fn of(file: &Path, header: &Header) -> Option<Backing> {
    let name = header.backing.as_deref()?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let below = folder.join(OsStr::from_bytes(name));
    let format = if is_protocol(name) {
        Err(Doubt::Protocol)
    } else if let Some(text) = header.backing_format() {
        match text.as_str() {
            "qcow2" => Ok(Format::Qcow2),
            "raw" => Ok(Format::Raw),
            _ => Err(Doubt::Foreign(text)),
        }
    } else {
        let known = recorded(file).or_else(|| by_name(&below));
        known.ok_or(Doubt::Unrecorded)
    };
    let file = below;
    Some(Backing { file, format })
}

impl Backing {
    /// The format that the file has, or may have, for asking what lies under it: a file that begins as qcow2 is
    /// looked into, so that nothing which it may need is taken for free. `None` where that cannot be known.
    #[must_use]
    pub fn likely(&self) -> Option<Format> {
        match &self.format {
            Ok(format) => Some(*format),
            Err(Doubt::Unrecorded) => {
                let magic = held::open_any(&self.file).and_then(|f| has_magic(&f));
                magic.ok().map(|magic| match magic {
                    true => Format::Qcow2,
                    false => Format::Raw,
                })
            }
            Err(Doubt::Protocol | Doubt::Foreign(_)) => None,
        }
    }
}

/// From now on the file under `image` counts as of this format where its header does not say one.
pub fn record(image: &Path, format: Format) {
    let mut recorded = RECORDED.write().unwrap_or_else(PoisonError::into_inner);
    recorded.insert(image.to_owned(), format);
}

fn recorded(image: &Path) -> Option<Format> {
    let recorded = RECORDED.read().unwrap_or_else(PoisonError::into_inner);
    let real = || recorded.get(&held::canonicalize(image).ok()?);
    recorded.get(image).or_else(real).copied()
}

/// The name of the file under an image, if it starts at the folder of the image: QEMU takes the folder of the path by
/// which it opens the image for that, whatever link that path is.
#[must_use]
pub fn relative(header: &Header) -> Option<String> {
    let name = header.backing.as_deref()?;
    let elsewhere = name.starts_with(b"/") || is_protocol(name);
    (!elsewhere).then(|| String::from_utf8_lossy(name).into_owned())
}

/// `json:{…}`, `nbd://…`, `file:…`: QEMU reads a colon before the first slash as a protocol.
fn is_protocol(name: &[u8]) -> bool {
    name.iter().find(|b| matches!(b, b':' | b'/')) == Some(&b':')
}

/// What the suffix says, if the content does not speak against it.
fn by_name(file: &Path) -> Option<Format> {
    let format = by_suffix(file)?;
    let Ok(open) = held::open_any(file) else {
        return Some(format); // gets its own error when it is read as a layer
    };
    let magic = has_magic(&open).ok()?;
    (magic == (format == Format::Qcow2)).then_some(format)
}

/// The format that the name of an image claims. `.img` claims nothing: it is used for both.
#[must_use]
pub fn by_suffix(file: &Path) -> Option<Format> {
    match file.extension()?.to_ascii_lowercase().to_str()? {
        "qcow2" => Some(Format::Qcow2),
        "raw" => Some(Format::Raw),
        _ => None,
    }
}
