//! Merges an overlay into the file under it while nobody has either open (`docs/cut.md` §4).
//!
//! Afterwards the lower file reads as the overlay did, with the overlay's size. Meanwhile every reader of
//! the overlay sees what it always saw: each write below is of what the overlay has there itself. So the
//! work may die at any moment and be begun again, as long as the overlay is there; it is only removed by
//! others, later. A lower file that is hidden is nobody else's to read.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::engine::content::Content;
use crate::engine::failure::At;
use crate::engine::qcow2::backing;
use crate::engine::qcow2::chain::{self, Layer, Roots};
use crate::engine::qcow2::editor::{self, Editor};
use crate::engine::qcow2::header::Header;
use crate::engine::qcow2::tables::{Extent, ExtentKind, Tables, size};
use crate::engine::{EngineError, EngineErrorKind, image};
use crate::held::{self, Foreign, Identity, Origin};
use crate::inventory::{Format, Machine};
use crate::text::catalog::engine as texts;

/// Bytes of the disk that are worked on between two rounds of fsync.
const WINDOW: u64 = 64 << 20;
/// Bytes that are copied between two looks at the cancel flag.
const STEP: u64 = 4 << 20;

/// The fail points of a merge into a qcow2 file.
pub const FAILPOINTS: &[&str] = editor::FAILPOINTS;

/// Two neighbours of a chain.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// Machine and disk, for texts.
    pub at: &'a At,
    /// The lower file; it takes everything.
    pub parent: &'a Path,
    /// Its format.
    pub parent_format: Format,
    /// The qcow2 overlay; it is only read.
    pub child: &'a Path,
    /// Which files both must be, where that is known: another one under their name is left alone.
    pub inodes: Inodes,
    /// Where both must lie.
    pub roots: &'a Roots,
    /// The machine and the id of its disk: what lies under both must be what is recorded of it.
    pub of: Option<(&'a Machine, &'a str)>,
}

/// Which files two neighbours of a chain are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inodes {
    /// Of the lower file.
    pub parent: Option<Origin>,
    /// Of the overlay.
    pub child: Option<Origin>,
}

/// Who looks on.
pub struct Watch<'a> {
    /// Told how many bytes of how many are done.
    pub progress: &'a dyn Fn(u64, u64),
    /// Asked often; `true` stops the work.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// How a merge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// The lower file has everything, durably.
    Done,
    /// It was stopped and can be begun again.
    Cancelled,
}

/// Where the bytes of one write come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The overlay's file, from this offset on.
    Child(u64),
    /// The disk as the overlay shows it, from this offset on.
    View(u64),
    Zero,
}

/// One write into the lower file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    to: u64,
    length: u64,
    from: Source,
}

impl Merge<'_> {
    /// Does it. Takes long; to be called from a thread that may block.
    ///
    /// # Errors
    /// [`EngineErrorKind::Unsupported`] for images that cannot be merged and [`EngineErrorKind::Full`] if
    /// the worst case does not fit onto the file system: nothing was written then. Another kind for
    /// trouble with a file; the merge can be begun again.
    pub fn run(&self, watch: &Watch<'_>) -> Result<Merged, EngineError> {
        let parent = |e: io::Error| self.at.io(self.parent, &e);
        let (above, below) = self.open()?;
        let (header, lower, layers) = self.checked(&above, &below)?;
        let (tables, total) = self.fitting(above, header, lower.as_ref(), &below)?;
        let mut work = Work {
            watch,
            tables,
            layers,
            view: None,
            done: 0,
            total,
        };
        let target = held::writable(&below).map_err(parent)?;
        let merged = match lower {
            None => work.fill_raw(&target),
            Some(header) => work.fill_qcow2(target, header),
        };
        merged.map_err(parent)
    }

    /// That nothing is known now for which the merge would be refused, but for space. Writes nothing.
    ///
    /// # Errors
    /// As [`Merge::run`].
    pub fn check(&self) -> Result<(), EngineError> {
        let (above, below) = self.open()?;
        self.checked(&above, &below).map(|_| ())
    }

    /// [`Merge::check`], and that the worst case has room now. Reads the tables of the overlay.
    ///
    /// # Errors
    /// As [`Merge::run`].
    pub fn fits(&self) -> Result<(), EngineError> {
        let (above, below) = self.open()?;
        let (header, lower, _) = self.checked(&above, &below)?;
        self.fitting(above, header, lower.as_ref(), &below)
            .map(|_| ())
    }

    /// The tables of the overlay and the bytes that there are to do, if the worst case has room.
    fn fitting(
        &self,
        above: File,
        header: Header,
        lower: Option<&Header>,
        below: &File,
    ) -> Result<(Tables, u64), EngineError> {
        let tables = Tables::open(above, header).map_err(|e| self.at.io(self.child, &e));
        let mut tables = tables?;
        let total = self.require_space(&mut tables, lower, below)?;
        Ok((tables, total))
    }

    /// The headers of both files, that of the lower one if it has one, and the chain of the overlay, which begins
    /// with the two.
    fn checked(
        &self,
        above: &File,
        below: &File,
    ) -> Result<(Header, Option<Header>, Vec<Layer>), EngineError> {
        let header = self.header(self.child, above)?;
        self.require_child(&header, below)?;
        let lower = match self.parent_format {
            Format::Raw => None,
            Format::Qcow2 => Some(self.header(self.parent, below)?),
        };
        let (machine, disk) = self.of.unzip();
        let top = (self.child, Format::Qcow2);
        let within = (self.roots, None);
        let layers = image::open_accepted(self.at, machine, disk.unwrap_or_default(), top, within)?;
        for (layer, (file, open)) in layers
            .iter()
            .zip([(self.child, above), (self.parent, below)])
        {
            let io = |e: io::Error| self.at.io(file, &e);
            let own = Identity::of(open).map_err(io)?;
            if layer.id != (own.device, own.inode) {
                let (expected, found) = (own.inode, layer.id.1);
                return Err(io(Foreign::Other { expected, found }.into()));
            }
        }
        chain::require_whole(self.at, &layers)?;
        Ok((header, lower, layers))
    }

    /// Both files, the overlay first: each opened once, and what was recorded.
    fn open(&self) -> Result<(File, File), EngineError> {
        for file in [self.child, self.parent] {
            let inside = self.roots.admit(file);
            if !inside.map_err(|e| self.at.io(file, &e))? {
                return Err(EngineError {
                    kind: EngineErrorKind::Denied,
                    text: self.roots.outside(self.at, file),
                });
            }
        }
        let open = |file: &Path, inode| {
            let opened = expected(file, inode);
            opened.map_err(|e| self.at.io(file, &e))
        };
        let inodes = self.inodes;
        Ok((
            open(self.child, inodes.child)?,
            open(self.parent, inodes.parent)?,
        ))
    }

    fn header(&self, path: &Path, open: &File) -> Result<Header, EngineError> {
        let refuse = |message| self.at.error(EngineErrorKind::Unsupported, message, path);
        let header = Header::load(open).map_err(|e| self.at.io(path, &e))?;
        let header = header.map_err(|e| refuse(e.message()))?;
        header
            .merge_refusal()
            .map_or(Ok(header), |m| Err(refuse(m)))
    }

    /// The overlay must lie on the lower file: else the merge would destroy what is in there.
    fn require_child(&self, header: &Header, below: &File) -> Result<(), EngineError> {
        let named = backing::of(self.child, header).map(|b| b.file);
        let named = named.and_then(|named| held::open_any(&named).ok());
        let named = named.and_then(|named| Identity::of(named).ok());
        let below = Identity::of(below).map_err(|e| self.at.io(self.parent, &e))?;
        if named.is_some_and(|named| named.is_same(&below)) {
            return Ok(());
        }
        Err(EngineError {
            kind: EngineErrorKind::Unsupported,
            text: self
                .at
                .text(texts::MERGE_NOT_CHILD, self.child)
                .with("parent", self.parent.display()),
        })
    }

    /// Refuses if the worst case has no room. The bytes that there are to do.
    fn require_space(
        &self,
        tables: &mut Tables,
        lower: Option<&Header>,
        below: &File,
    ) -> Result<u64, EngineError> {
        let cluster = lower.map_or(512, |h| 1_u64 << h.cluster_bits);
        let zeroes_take = lower.is_none_or(|h| h.version < 3);
        let (mut total, mut clusters, mut last) = (0, 0_u64, None);
        for window in windows(0, tables.header.size) {
            let extents = tables.extents(window.0, window.1);
            for it in extents.map_err(|e| self.at.io(self.child, &e))? {
                total += it.length;
                if it.kind == ExtentKind::Zero && !zeroes_take {
                    continue;
                }
                let (first, end) = (it.at / cluster, (it.at + it.length).div_ceil(cluster));
                clusters += end - first - u64::from(last == Some(first));
                last = Some(end - 1);
            }
        }
        // Tables take 8 bytes of a cluster for each cluster, and refcounts at most as much.
        let data = clusters.saturating_mul(cluster);
        let needed = data.saturating_add(clusters * 16 + data / 64 + 64 * cluster);
        let stat = rustix::fs::fstatvfs(below);
        let stat = stat.map_err(|e| self.at.io(self.parent, &e.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= needed {
            return Ok(total);
        }
        Err(EngineError {
            kind: EngineErrorKind::Full,
            text: self
                .at
                .text(texts::MERGE_SPACE, self.parent)
                .with("needed", needed)
                .with("free", free),
        })
    }
}

/// Opens a file that must be that one, if it is known which; then no link may be on the way to it.
///
/// # Errors
/// As [`held::open_straight`] and [`Origin::admit`].
pub fn expected(file: &Path, which: Option<Origin>) -> io::Result<File> {
    let Some(which) = which else {
        return held::open(file, false);
    };
    let open = held::open_straight(file, false)?;
    which.admit(Identity::of(&open)?)?;
    Ok(open)
}

/// Whether the header of `file` has room for that backing file.
///
/// # Errors
/// It cannot be read, or has no room.
pub fn can_name(at: &At, file: &Path, backing: &Path, format: Format) -> Result<(), EngineError> {
    let open = held::open(file, false).map_err(|e| at.io(file, &e))?;
    can_name_in(at, file, &open, backing, format)
}

/// [`can_name`] of a file that is open.
///
/// # Errors
/// As there.
pub fn can_name_in(
    at: &At,
    file: &Path,
    open: &File,
    backing: &Path,
    format: Format,
) -> Result<(), EngineError> {
    renamed(at, file, open, backing, format).map(|_| ())
}

/// Makes `backing` the backing file that the header of `file` names, durably; `file` must be that one, if it
/// is known which. The disk under both names must read the same.
///
/// # Errors
/// As [`can_name`], or it is another file, or cannot be written.
pub fn name(
    at: &At,
    file: &Path,
    which: Option<Origin>,
    backing: &Path,
    format: Format,
) -> Result<(), EngineError> {
    let open = expected(file, which).map_err(|e| at.io(file, &e))?;
    name_in(at, file, &open, backing, format)
}

/// [`name`] of a file that is open.
///
/// # Errors
/// As there.
pub fn name_in(
    at: &At,
    file: &Path,
    open: &File,
    backing: &Path,
    format: Format,
) -> Result<(), EngineError> {
    let area = renamed(at, file, open, backing, format)?;
    let written = held::writable(open).and_then(|f| {
        f.write_all_at(&area, 0)?;
        f.sync_all()
    });
    written.map_err(|e| at.io(file, &e))
}

fn renamed(
    at: &At,
    file: &Path,
    open: &File,
    backing: &Path,
    format: Format,
) -> Result<Vec<u8>, EngineError> {
    let refuse = |message| at.error(EngineErrorKind::Unsupported, message, file);
    let header = Header::load(open).map_err(|e| at.io(file, &e))?;
    let header = header.map_err(|e| refuse(e.message()))?;
    let area = header.with_backing(backing.as_os_str().as_bytes(), format.as_str());
    area.ok_or_else(|| refuse(texts::HEADER_FULL))
}

struct Work<'a> {
    watch: &'a Watch<'a>,
    tables: Tables,
    /// The overlay with all below it.
    layers: Vec<Layer>,
    /// The disk as the overlay shows it. That does not change while the overlay is merged, so that tables which the
    /// reader remembers are never wrong.
    view: Option<Content>,
    done: u64,
    total: u64,
}

impl Work<'_> {
    fn fill_raw(&mut self, target: &File) -> io::Result<Merged> {
        let bytes = self.tables.header.size;
        if target.metadata()?.len() < bytes {
            target.set_len(bytes)?;
        }
        for (from, to) in windows(0, bytes) {
            let extents = self.tables.extents(from, to)?;
            let pieces = extents.iter().map(|it| piece(it, it.at));
            if self.write(target, pieces.collect())? == Merged::Cancelled {
                return Ok(Merged::Cancelled);
            }
        }
        target.set_len(bytes)?;
        target.sync_all()?;
        Ok(Merged::Done)
    }

    fn fill_qcow2(&mut self, target: File, header: Header) -> io::Result<Merged> {
        let bytes = self.tables.header.size;
        let below = self.size_below();
        let mut editor = Editor::open(target, header)?;
        editor.grow(bytes)?;
        for (from, to) in windows(0, bytes) {
            let pieces = self.plan(&mut editor, below, from, to)?;
            if pieces.is_empty() && editor.is_unchanged() {
                continue;
            }
            editor.begin()?;
            if self.write(&editor.file, pieces)? == Merged::Cancelled {
                return Ok(Merged::Cancelled);
            }
            editor.end()?;
        }
        editor.resize(bytes)?;
        Ok(Merged::Done)
    }

    /// The size of the disk that shines through where the lower file has nothing.
    fn size_below(&self) -> u64 {
        self.layers.get(2).map_or(0, |below| below.size)
    }

    /// Names the clusters of the lower file from `from` to `to` for what the overlay has there; the writes
    /// that fill them.
    fn plan(
        &mut self,
        editor: &mut Editor,
        below: u64,
        from: u64,
        to: u64,
    ) -> io::Result<Vec<Piece>> {
        let (bytes, old, cluster) = (
            self.tables.header.size,
            editor.header.size,
            editor.cluster(),
        );
        let extents = self.tables.extents(from, to)?;
        let mut pieces = Vec::new();
        if extents.is_empty() && to <= old {
            return Ok(pieces);
        }
        let mut rest = extents.as_slice();
        let mut at = from;
        while at < to {
            let end = (at + cluster).min(bytes);
            let parts = within(&mut rest, at, end);
            // Behind the old end the lower file shows nothing, but may have something.
            let beyond = end > old;
            if !parts.is_empty() || beyond {
                let covered: u64 = parts.iter().map(|p| p.length).sum();
                let zero = parts.iter().all(|p| p.kind == ExtentKind::Zero);
                if zero && (covered == end - at || (parts.is_empty() && at >= old)) {
                    clear(editor, below, at, &mut pieces)?;
                } else {
                    let (host, kept) = editor.host(at)?;
                    if covered == end - at || (kept && !beyond) {
                        pieces.extend(parts.iter().map(|p| piece(p, host + (p.at - at))));
                    } else {
                        pieces.push(Piece {
                            to: host,
                            length: end - at,
                            from: Source::View(at),
                        });
                    }
                    pieces.extend((at + cluster > end).then(|| Piece {
                        to: host + (end - at),
                        length: at + cluster - end,
                        from: Source::Zero,
                    }));
                }
            }
            at += cluster;
        }
        Ok(pieces)
    }

    fn write(&mut self, target: &File, pieces: Vec<Piece>) -> io::Result<Merged> {
        for mut piece in joined(pieces) {
            while piece.length > 0 {
                if (self.watch.cancelled)() {
                    return Ok(Merged::Cancelled);
                }
                let length = piece.length.min(STEP);
                match piece.from {
                    Source::Zero => zero(target, piece.to, length)?,
                    Source::Child(from) => copy(&self.tables.file, from, target, piece.to, length)?,
                    Source::View(from) => {
                        let mut bytes = vec![0; size(length)];
                        self.view()?.read(&mut bytes, from)?;
                        target.write_all_at(&bytes, piece.to)?;
                    }
                }
                self.done = (self.done + length).min(self.total);
                (self.watch.progress)(self.done, self.total);
                piece = piece.behind(length);
            }
        }
        if (self.watch.cancelled)() {
            return Ok(Merged::Cancelled);
        }
        Ok(Merged::Done)
    }

    fn view(&mut self) -> io::Result<&mut Content> {
        if self.view.is_none() {
            self.view = Some(Content::of_chain(&self.layers)?);
        }
        let view = self.view.as_mut();
        view.ok_or_else(|| io::ErrorKind::Other.into())
    }
}

impl Piece {
    /// What is left behind its first `length` bytes.
    fn behind(self, length: u64) -> Self {
        Self {
            to: self.to + length,
            length: self.length - length,
            from: match self.from {
                Source::Child(at) => Source::Child(at + length),
                Source::View(at) => Source::View(at + length),
                Source::Zero => Source::Zero,
            },
        }
    }
}

/// The write that brings what the overlay has to offset `to` of the lower file.
fn piece(extent: &Extent, to: u64) -> Piece {
    Piece {
        to,
        length: extent.length,
        from: match extent.kind {
            ExtentKind::Zero => Source::Zero,
            ExtentKind::Data(at) => Source::Child(at),
            ExtentKind::Compressed(..) => Source::View(extent.at),
        },
    }
}

/// Lets a cluster of the lower file read as zero.
fn clear(editor: &mut Editor, below: u64, at: u64, pieces: &mut Vec<Piece>) -> io::Result<()> {
    if at >= below {
        return editor.clear(at, false);
    }
    if editor.header.version > 2 {
        return editor.clear(at, true);
    }
    let (to, _) = editor.host(at)?;
    pieces.push(Piece {
        to,
        length: editor.cluster(),
        from: Source::Zero,
    });
    Ok(())
}

/// The extents from `at` to `end`, cut to that; `rest` goes on behind what is over.
fn within(rest: &mut &[Extent], at: u64, end: u64) -> Vec<Extent> {
    while let Some((first, behind)) = rest.split_first() {
        if first.at + first.length > at {
            break;
        }
        *rest = behind;
    }
    let begun = rest.iter().take_while(|e| e.at < end);
    begun
        .map(|e| {
            let first = e.at.max(at);
            let skipped = first - e.at;
            Extent {
                at: first,
                length: (e.at + e.length).min(end) - first,
                kind: match e.kind {
                    ExtentKind::Data(host) => ExtentKind::Data(host + skipped),
                    other => other,
                },
            }
        })
        .collect()
}

/// Neighbours that go on from each other as one.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match out.last_mut() {
            Some(last) if last.behind(last.length) == (Piece { length: 0, ..piece }) => {
                last.length += piece.length;
            }
            _ => out.push(piece),
        }
    }
    out
}

fn windows(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    let starts = (0..to.div_ceil(WINDOW)).map(|n| n * WINDOW);
    starts
        .skip_while(move |at| *at < from)
        .map(move |at| (at, (at + WINDOW).min(to)))
}

/// A hole where the file system makes one, else zeroes.
fn zero(file: &File, at: u64, length: u64) -> io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, hole, at, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.write_all_at(&vec![0; size(length)], at),
        done => Ok(done?),
    }
}

/// Copies inside the kernel where it can, sharing blocks where the file system does. What lies behind the
/// end of `from` is zero.
fn copy(from: &File, at: u64, to: &File, into: u64, length: u64) -> io::Result<()> {
    let (mut off_in, mut off_out) = (at, into);
    while off_in < at + length {
        let left = size(at + length - off_in);
        match rustix::fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), left) {
            Ok(0) => return zero(to, off_out, at + length - off_in),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut bytes = vec![0; left];
                crate::engine::qcow2::tables::read_padded(from, off_in, &mut bytes)?;
                return to.write_all_at(&bytes, off_out);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
