//! The backing chain of an image, from the active file down, every link checked.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::header::{Header, has_magic};
use crate::engine::failure::At;
use crate::engine::{EngineError, EngineErrorKind};
use crate::inventory::Format;
use crate::text::Text;
use crate::text::catalog::engine as texts;

/// No chain deeper than this is read (`cut.md` 6).
pub const DEPTH_MAX: usize = 64;

const SECTOR: u64 = 512;

/// One file of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// Virtual size in bytes; that of a raw file in whole sectors, as QEMU shows it.
    pub size: u64,
    /// Device and inode: what makes two names the same file.
    pub id: (u64, u64),
    /// The header of a qcow2 file.
    pub header: Option<Header>,
}

/// The folders that image files may lie in; empty allows all.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<PathBuf>);

impl Roots {
    /// These folders, symbolic links resolved. A folder that is not there admits nothing.
    #[must_use]
    pub fn new(folders: &[PathBuf]) -> Self {
        let real = |f: &PathBuf| f.canonicalize().unwrap_or_else(|_| f.clone());
        Self(folders.iter().map(real).collect())
    }

    /// Whether the file lies in one of them, wherever a symbolic link on its path leads.
    ///
    /// # Errors
    /// The file is not there or cannot be reached.
    pub fn admit(&self, file: &Path) -> io::Result<bool> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let real = file.canonicalize()?;
        Ok(self.0.iter().any(|r| real.starts_with(r)))
    }

    /// That the file lies outside, with the folders.
    #[must_use]
    pub fn outside(&self, at: &At, file: &Path) -> Text {
        let folders: Vec<_> = self.0.iter().map(|r| r.display().to_string()).collect();
        at.text(texts::OUTSIDE_ROOTS, file)
            .with("roots", folders.join(", "))
    }
}

/// Reads the chain under `top`, top first. Nothing is written, no format is guessed from content.
///
/// # Errors
/// [`EngineErrorKind::Missing`] naming a file that is not there and who names it;
/// [`EngineErrorKind::Unsupported`] for every image that this program does not take.
pub fn open(at: &At, top: &Path, format: Format, roots: &Roots) -> Result<Vec<Layer>, EngineError> {
    let mut layers = Vec::new();
    match follow(at, top, format, roots, &mut layers) {
        Ok(()) => Ok(layers),
        Err((_, error)) => Err(error),
    }
}

/// The chain under `top` as far as it can be read, and the file that cannot be, if there is one.
#[must_use]
pub fn readable(top: &Path, format: Format) -> (Vec<Layer>, Option<PathBuf>) {
    let mut layers = Vec::new();
    let read = follow(
        &At::new("", ""),
        top,
        format,
        &Roots::default(),
        &mut layers,
    );
    (layers, read.err().map(|(file, _)| file))
}

/// Adds every layer that can be read; a failure names its file.
fn follow(
    at: &At,
    top: &Path,
    format: Format,
    roots: &Roots,
    layers: &mut Vec<Layer>,
) -> Result<(), (PathBuf, EngineError)> {
    let mut seen = BTreeSet::new();
    let mut next = Some((top.to_owned(), format));
    while let Some((file, format)) = next {
        if layers.len() == DEPTH_MAX {
            let text = at.text(texts::CHAIN_DEEP, top).with("limit", DEPTH_MAX);
            let kind = EngineErrorKind::Unsupported;
            return Err((file, EngineError { kind, text }));
        }
        let layer = layer(at, file.clone(), format, roots, layers.last());
        let layer = layer.map_err(|e| (file.clone(), e))?;
        if !seen.insert(layer.id) {
            let error = unsupported(at, texts::CHAIN_LOOP, &layer.file);
            return Err((file, error));
        }
        next = backing(at, &layer).map_err(|e| (file, e))?;
        layers.push(layer);
    }
    Ok(())
}

fn layer(
    at: &At,
    file: PathBuf,
    format: Format,
    roots: &Roots,
    above: Option<&Layer>,
) -> Result<Layer, EngineError> {
    let io = |e: io::Error| match above {
        Some(above) if e.kind() == io::ErrorKind::NotFound => EngineError {
            kind: EngineErrorKind::Missing,
            text: at
                .text(texts::BACKING_MISSING, &file)
                .with("by", above.file.display()),
        },
        _ => at.io(&file, &e),
    };
    if !roots.admit(&file).map_err(io)? {
        return Err(EngineError {
            kind: EngineErrorKind::Denied,
            text: roots.outside(at, &file),
        });
    }
    // Asked before opening: opening a pipe would wait for its other end.
    if !file.metadata().map_err(io)?.is_file() {
        return Err(unsupported(at, texts::NOT_REGULAR, &file));
    }
    let open = File::open(&file).map_err(io)?;
    let meta = open.metadata().map_err(io)?;
    let header = match format {
        Format::Raw => None,
        Format::Qcow2 => Some(checked_header(at, &file, &open)?),
    };
    Ok(Layer {
        size: match &header {
            Some(header) => header.size,
            None => meta.len().next_multiple_of(SECTOR),
        },
        id: (meta.dev(), meta.ino()),
        file,
        format,
        header,
    })
}

fn checked_header(at: &At, path: &Path, file: &File) -> Result<Header, EngineError> {
    let io = |e: io::Error| at.io(path, &e);
    let header = Header::load(file)
        .map_err(io)?
        .map_err(|e| unsupported(at, e.message(), path))?;
    if let Some(message) = header.refusal() {
        return Err(unsupported(at, message, path));
    }
    match header.has_bitmap_in_use(file).map_err(io)? {
        Ok(false) => Ok(header),
        Ok(true) => Err(unsupported(at, texts::BITMAP_IN_USE, path)),
        Err(e) => Err(unsupported(at, e.message(), path)),
    }
}

/// The file under this one. A relative name starts at the folder of the file that names it.
fn backing(at: &At, layer: &Layer) -> Result<Option<(PathBuf, Format)>, EngineError> {
    let Some((header, name)) = layer
        .header
        .as_ref()
        .and_then(|h| Some((h, h.backing.as_ref()?)))
    else {
        return Ok(None);
    };
    let shown = String::from_utf8_lossy(name);
    if is_protocol(name) {
        return Err(EngineError {
            kind: EngineErrorKind::Unsupported,
            text: at
                .text(texts::BACKING_PROTOCOL, &layer.file)
                .with("backing", shown),
        });
    }
    let name = Path::new(OsStr::from_bytes(name));
    let file = layer.file.parent().unwrap_or(Path::new("/")).join(name);
    let format = match header.backing_format() {
        Some(text) => recorded(&text).ok_or_else(|| EngineError {
            kind: EngineErrorKind::Unsupported,
            text: at
                .text(texts::BACKING_FORMAT, &layer.file)
                .with("format", text),
        })?,
        None => unrecorded(&file).ok_or_else(|| EngineError {
            kind: EngineErrorKind::Unsupported,
            text: at
                .text(texts::BACKING_FORMAT_UNKNOWN, &layer.file)
                .with("backing", shown),
        })?,
    };
    Ok(Some((file, format)))
}

/// `json:{…}`, `nbd://…`, `file:…`: QEMU reads a colon before the first slash as a protocol.
fn is_protocol(name: &[u8]) -> bool {
    name.iter().find(|b| matches!(b, b':' | b'/')) == Some(&b':')
}

fn recorded(text: &str) -> Option<Format> {
    match text {
        "qcow2" => Some(Format::Qcow2),
        "raw" => Some(Format::Raw),
        _ => None,
    }
}

/// What the suffix says, if the content does not speak against it. QEMU would guess from content alone
/// and could be led by what a guest wrote.
fn unrecorded(file: &Path) -> Option<Format> {
    let format = by_suffix(file)?;
    if !file.is_file() {
        return Some(format); // gets its own error when it is read as a layer
    }
    let magic = File::open(file).and_then(|f| has_magic(&f)).ok()?;
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

fn unsupported(at: &At, message: crate::text::Message, file: &Path) -> EngineError {
    at.error(EngineErrorKind::Unsupported, message, file)
}
