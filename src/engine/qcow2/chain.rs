//! The backing chain of an image, from the active file down, every link checked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backing::{self, Doubt};
use super::header::Header;
use super::whole;
use crate::engine::beside::Beside;
use crate::engine::failure::At;
use crate::engine::{EngineError, EngineErrorKind, space};
use crate::held::{self, Folder, Foreign, Identity};
use crate::inventory::Format;
use crate::text::catalog::engine as texts;
use crate::text::{Reason, Text};

pub use super::backing::by_suffix;

/// No chain deeper than this is read (`docs/cut.md` §6).
pub const DEPTH_MAX: usize = 64;

const SECTOR: u64 = 512;

/// One file of a chain.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Absolute, as it is named.
    pub file: PathBuf,
    /// What is open under that name, links resolved.
    pub real: PathBuf,
    /// It, open for reading: what was checked is what is read.
    pub open: Arc<File>,
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
        let real = |f: &PathBuf| held::canonicalize(f).unwrap_or_else(|_| f.clone());
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
        Ok(self.admit_real(&held::canonicalize(file)?))
    }

    /// [`Roots::admit`] of a path that has no links any more.
    #[must_use]
    pub fn admit_real(&self, real: &Path) -> bool {
        self.0.is_empty() || self.0.iter().any(|r| real.starts_with(r))
    }

    /// That the file lies outside, with the folders.
    #[must_use]
    pub fn outside(&self, at: &At, file: &Path) -> Text {
        at.text(texts::OUTSIDE_ROOTS, file)
            .with("roots", self.told())
    }

    /// Refuses a path that has no links any more and lies outside.
    ///
    /// # Errors
    /// That it does, with the folders.
    pub fn require(&self, real: &Path) -> io::Result<()> {
        let text = || texts::LIES_OUTSIDE.with("roots", self.told());
        match self.admit_real(real) {
            true => Ok(()),
            false => Err(io::Error::other(Reason::new(text(), ()))),
        }
    }

    fn told(&self) -> String {
        let folders: Vec<_> = self.0.iter().map(|r| r.display().to_string()).collect();
        folders.join(", ")
    }
}

/// Reads the chain under `top`, top first. Nothing is written, no format is guessed from content.
///
/// # Errors
/// [`EngineErrorKind::Missing`] naming a file that is not there and who names it;
/// [`EngineErrorKind::Unsupported`] for every image that this program does not take.
pub fn open(at: &At, top: &Path, format: Format, roots: &Roots) -> Result<Vec<Layer>, EngineError> {
    open_in(at, top, format, roots, None)
}

/// [`open`], by the descriptor of a folder of images for what lies in it.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_in(
    at: &At,
    top: &Path,
    format: Format,
    roots: &Roots,
    place: Option<&Beside>,
) -> Result<Vec<Layer>, EngineError> {
    open_judged(at, top, format, (roots, place), &mut |_, _, _| Ok(()))
}

/// What is said of a file once it is open, before anything of its content is read: its name, the same with links
/// resolved, and it.
pub(crate) type Judge<'a> = dyn FnMut(&Path, &Path, &File) -> Result<(), EngineError> + 'a;

/// [`open_in`], if `judge` agrees to each file.
///
/// # Errors
/// As [`open`] and as the judge.
pub(crate) fn open_judged(
    at: &At,
    top: &Path,
    format: Format,
    within: Within<'_>,
    judge: &mut Judge<'_>,
) -> Result<Vec<Layer>, EngineError> {
    let mut layers = Vec::new();
    match follow(at, top, format, within, (&mut layers, judge)) {
        Ok(()) => Ok(layers),
        Err((_, error)) => Err(error),
    }
}

/// The images of a chain whose header does not record the format of the file under them, with the format that it was
/// read by.
pub(crate) fn unrecorded(layers: &[Layer]) -> impl Iterator<Item = (PathBuf, Format)> {
    let pairs = layers.iter().zip(layers.iter().skip(1));
    let without = |layer: &Layer| {
        let header = layer.header.as_ref();
        header.is_some_and(|h| h.backing_format().is_none())
    };
    pairs
        .filter(move |(layer, _)| without(layer))
        .map(|(layer, below)| (layer.file.clone(), below.format))
}

/// The file at the top of a chain alone; nothing of its content is read.
///
/// # Errors
/// As [`open`].
pub(crate) fn top(
    at: &At,
    top: &Path,
    roots: &Roots,
    place: Option<&Beside>,
) -> Result<Layer, EngineError> {
    let judge = &mut |_: &Path, _: &Path, _: &File| Ok(());
    asked(at, top, Format::Raw, (roots, place), (None, judge))
}

/// The chain under `top` as far as its headers can be read, and the file of which it is not known what lies under it,
/// if there is one. Nothing is refused for what a file holds: this asks only what lies on what.
#[must_use]
pub fn readable(top: &Path, format: Format) -> (Vec<Layer>, Option<PathBuf>) {
    let (mut layers, mut next) = (Vec::<Layer>::new(), Some((top.to_owned(), format)));
    while let Some((file, format)) = next.take() {
        let Ok(layer) = held::ask(&file, || bare(&file, format)) else {
            return (layers, Some(file));
        };
        if layers.len() == DEPTH_MAX || layers.iter().any(|l| l.id == layer.id) {
            return (layers, Some(file));
        }
        let below = layer.header.as_ref().and_then(|h| backing::of(&file, h));
        layers.push(layer);
        if let Some(below) = below {
            let Some(format) = below.likely() else {
                return (layers, Some(below.file));
            };
            next = Some((below.file, format));
        }
    }
    (layers, None)
}

fn bare(file: &Path, format: Format) -> io::Result<Layer> {
    let open = held::open_any(file)?;
    let own = Identity::of(&open)?;
    let header = match format {
        Format::Raw => None,
        Format::Qcow2 => Some(Header::load(&open)?.map_err(|_| io::ErrorKind::InvalidData)?),
    };
    let whole = own.length.next_multiple_of(SECTOR);
    Ok(Layer {
        size: header.as_ref().map_or(whole, |h| h.size),
        id: (own.device, own.inode),
        real: held::canonicalize(file)?,
        file: file.to_owned(),
        open: Arc::new(open),
        format,
        header,
    })
}

/// Refuses a chain of which a file is shorter than its own tables say: it was cut off since it was written.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`] naming the file.
pub fn require_whole(at: &At, layers: &[Layer]) -> Result<(), EngineError> {
    for layer in layers {
        let Some(header) = &layer.header else {
            continue;
        };
        match whole::require(&layer.file, &layer.open, header) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                let text = at.text(texts::NOT_WHOLE, &layer.file).with("cause", e);
                let kind = EngineErrorKind::Unsupported;
                return Err(EngineError { kind, text });
            }
            Err(e) => return Err(at.io(&layer.file, &e)),
        }
    }
    Ok(())
}

/// Where files may lie, and the folder of them that is held.
pub(crate) type Within<'a> = (&'a Roots, Option<&'a Beside>);

/// Adds every layer that can be read; a failure names its file.
fn follow(
    at: &At,
    top: &Path,
    format: Format,
    within: Within<'_>,
    (layers, judge): (&mut Vec<Layer>, &mut Judge<'_>),
) -> Result<(), (PathBuf, EngineError)> {
    let mut seen = BTreeSet::new();
    let mut next = Some((top.to_owned(), format));
    while let Some((file, format)) = next {
        if layers.len() == DEPTH_MAX {
            let text = at.text(texts::CHAIN_DEEP, top).with("limit", DEPTH_MAX);
            let kind = EngineErrorKind::Unsupported;
            return Err((file, EngineError { kind, text }));
        }
        let layer = asked(at, &file, format, within, (layers.last(), judge));
        let layer = layer.map_err(|e| (file.clone(), e))?;
        if !seen.insert(layer.id) {
            let error = unsupported(at, texts::CHAIN_LOOP, &layer.file);
            return Err((file, error));
        }
        next = below(at, &layer).map_err(|e| (file, e))?;
        layers.push(layer);
    }
    Ok(())
}

/// [`layer`], as one look: what is read of a file may stand as well as the opening of it.
fn asked(
    at: &At,
    file: &Path,
    format: Format,
    within: Within<'_>,
    (above, judge): (Option<&Layer>, &mut Judge<'_>),
) -> Result<Layer, EngineError> {
    let look = || Ok(layer(at, file.to_owned(), format, within, (above, judge)));
    held::ask(file, look).unwrap_or_else(|e| Err(at.io(file, &e)))
}

fn layer(
    at: &At,
    file: PathBuf,
    format: Format,
    (roots, place): Within<'_>,
    (above, judge): (Option<&Layer>, &mut Judge<'_>),
) -> Result<Layer, EngineError> {
    let io = |e: io::Error| match above {
        Some(above) if e.kind() == io::ErrorKind::NotFound => EngineError {
            kind: EngineErrorKind::Missing,
            text: at
                .text(texts::BACKING_MISSING, &file)
                .with("by", above.file.display()),
        },
        _ if held::foreign(&e) == Some(Foreign::NotRegular) => {
            unsupported(at, texts::NOT_REGULAR, &file)
        }
        _ => at.io(&file, &e),
    };
    let named = named(&file, above.is_some(), place).map_err(io)?;
    if !roots.admit_real(&named.0) {
        return Err(EngineError {
            kind: EngineErrorKind::Denied,
            text: roots.outside(at, &file),
        });
    }
    let (real, open) = (named.0, named.1.map_err(io)?);
    let own = Identity::of(&open).map_err(io)?;
    if space::is_pseudo(&open) {
        return Err(unsupported(at, texts::NOT_STORED, &file));
    }
    judge(&file, &real, &open)?;
    let header = match format {
        Format::Raw => None,
        Format::Qcow2 => Some(checked_header(at, &file, &open)?),
    };
    Ok(Layer {
        size: match &header {
            Some(header) => header.size,
            None => own.length.next_multiple_of(SECTOR),
        },
        id: (own.device, own.inode),
        file,
        real,
        open: Arc::new(open),
        format,
        header,
    })
}

/// Where a name leads, and what is open there, by a way on which no link is left. What stands at the top of a chain
/// is no link itself; a backing file may be named by one.
fn named(
    file: &Path,
    backing: bool,
    place: Option<&Beside>,
) -> io::Result<(PathBuf, io::Result<File>)> {
    if let Some(place) = place.filter(|place| place.has(file)) {
        match place.open(file) {
            Err(e) if backing && held::foreign(&e) == Some(Foreign::Link) => {}
            opened => return Ok((file.to_owned(), opened)),
        }
    }
    let file = match backing {
        true => held::canonicalize(file)?,
        false => file.to_owned(),
    };
    let name = file.file_name().ok_or(Foreign::NotRegular)?;
    let folder = Folder::resolve(file.parent().unwrap_or(Path::new("/")))?;
    Ok((folder.path().join(name), folder.open_file(name, false)))
}

fn checked_header(at: &At, path: &Path, file: &File) -> Result<Header, EngineError> {
    let io = |e: io::Error| at.io(path, &e);
    let header = Header::load(file)
        .map_err(io)?
        .map_err(|e| unsupported(at, e.message(), path))?;
    if let Some(message) = header.refusal() {
        return Err(unsupported(at, message, path));
    }
    match header.bitmap_in_use(file).map_err(io)? {
        Ok(None) => Ok(header),
        Ok(Some(name)) => Err(EngineError {
            kind: EngineErrorKind::Unsupported,
            text: at.text(texts::BITMAP_IN_USE, path).with("bitmap", name),
        }),
        Err(e) => Err(unsupported(at, e.message(), path)),
    }
}

/// The file under this one, with its format.
fn below(at: &At, layer: &Layer) -> Result<Option<(PathBuf, Format)>, EngineError> {
    let Some(below) = layer
        .header
        .as_ref()
        .and_then(|h| backing::of(&layer.file, h))
    else {
        return Ok(None);
    };
    match below.format {
        Ok(format) => Ok(Some((below.file, format))),
        Err(doubt) => Err(doubtful(at, &layer.file, &below.file, doubt)),
    }
}

/// That it is not known what lies under `file`.
pub(crate) fn doubtful(at: &At, file: &Path, below: &Path, doubt: Doubt) -> EngineError {
    let text = match doubt {
        Doubt::Protocol => at.text(texts::BACKING_PROTOCOL, file),
        Doubt::Foreign(format) => {
            let text = at.text(texts::BACKING_FORMAT, file);
            text.with("format", format)
        }
        Doubt::Unrecorded => at.text(texts::BACKING_FORMAT_UNKNOWN, file),
    };
    EngineError {
        kind: EngineErrorKind::Unsupported,
        text: text.with("backing", below.display()),
    }
}

fn unsupported(at: &At, message: crate::text::Message, file: &Path) -> EngineError {
    at.error(EngineErrorKind::Unsupported, message, file)
}
