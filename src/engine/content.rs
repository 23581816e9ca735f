//! The content of a disk as its machine sees it: read through the whole chain of files.
//!
//! The one reader of images: exports, merges and comparisons go through it. It follows no name in a header; which
//! files make up the chain is said by `qcow2::chain`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;

use crate::engine::failure::At;
use crate::engine::qcow2::chain::{self, Layer, Roots};
use crate::engine::qcow2::editor::Editor;
use crate::engine::qcow2::header::Header;
use crate::engine::qcow2::tables::{ExtentKind, Tables, damaged, length, read_padded, size};
use crate::engine::qcow2::unpack::Unpacker;
use crate::engine::qcow2::writer::NewImage;
use crate::held::{self, Folder};
use crate::inventory::Format;

/// An open chain of disk images. Nobody may write to them meanwhile, but for a merge of the first into the second
/// of them: what the disk shows stays the same.
#[derive(Debug)]
pub struct Content {
    /// Top first; at least one.
    levels: Vec<Level>,
    unpacker: Unpacker,
    /// The compressed cluster that was read last: its level, where it begins on the disk, and its bytes.
    unpacked: Option<(usize, u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Level {
    /// Virtual size in bytes.
    size: u64,
    image: Image,
}

#[derive(Debug)]
enum Image {
    Raw(File),
    Qcow2(Box<Tables>),
}

/// What stands at a place of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Something is stored there, if only zeroes; otherwise it reads as zeroes.
    pub data: bool,
    /// For how many bytes that is so at least. Never 0 before the end of the disk.
    pub length: u64,
}

/// Where the bytes of a place of the disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Zero,
    /// In the file of a level, from this offset on.
    Stored(usize, u64),
    /// Packed in the file of a level: where the packed bytes begin, and how many they are at most.
    Packed(usize, u64, u64),
}

impl Content {
    /// Opens the top file of a chain with all below it.
    ///
    /// # Errors
    /// Also for a chain that is not taken, with the reason.
    pub fn open(top: &Path, format: Format) -> io::Result<Self> {
        let at = At::new("*", "*");
        let layers = chain::open(&at, top, format, &Roots::default());
        Self::of_chain(&layers.map_err(|e| io::Error::other(e.to_string()))?)
    }

    /// Opens exactly the files of a chain, top first.
    ///
    /// # Errors
    /// The I/O error; [`io::ErrorKind::InvalidInput`] for no file at all.
    pub fn of_chain(layers: &[Layer]) -> io::Result<Self> {
        let level = |layer: &Layer| {
            let file = layer.open.try_clone()?;
            Ok(Level {
                size: layer.size,
                image: match &layer.header {
                    None => Image::Raw(file),
                    Some(header) => Image::Qcow2(Box::new(Tables::open(file, header.clone())?)),
                },
            })
        };
        let levels = layers.iter().map(level).collect::<io::Result<Vec<_>>>()?;
        if levels.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            levels,
            unpacker: Unpacker::default(),
            unpacked: None,
        })
    }

    /// Virtual size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |top| top.size)
    }

    /// What stands at `offset`, looking no further than `limit` bytes. By the tables of the images and the holes
    /// of their files; no data is read. After the end: zeroes of length 0.
    ///
    /// # Errors
    /// The I/O error; [`io::ErrorKind::InvalidData`] for an image that contradicts itself.
    pub fn extent(&mut self, offset: u64, limit: u64) -> io::Result<Extent> {
        let limit = limit.min(self.size().saturating_sub(offset));
        let (place, length) = self.place(offset, limit)?;
        let extent = |data| Ok(Extent { data, length });
        match place {
            Place::Zero => extent(false),
            Place::Packed(..) => extent(true),
            Place::Stored(level, at) => match self.file(level) {
                Some(file) => stored(file, at, length),
                None => extent(true),
            },
        }
    }

    /// Reads at that offset of the virtual disk, in bytes.
    ///
    /// # Errors
    /// As [`Content::extent`]; [`io::ErrorKind::UnexpectedEof`] behind the end of the disk.
    pub fn read(&mut self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(length(into.len()));
        if end.is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut rest, mut at) = (into, offset);
        while !rest.is_empty() {
            let (place, run) = self.place(at, length(rest.len()))?;
            let (now, later) = rest
                .split_at_mut_checked(size(run))
                .ok_or(io::ErrorKind::InvalidData)?;
            match place {
                Place::Zero => now.fill(0),
                Place::Stored(level, host) => {
                    let file = self.file(level).ok_or(io::ErrorKind::InvalidInput)?;
                    read_padded(file, host, now)?;
                }
                Place::Packed(level, host, bytes) => {
                    self.read_packed(level, (host, bytes), at, now)?;
                }
            }
            (rest, at) = (later, at + run);
        }
        Ok(())
    }

    /// Where the bytes at `at` are, and for how many of the next `limit` that goes on.
    fn place(&mut self, at: u64, limit: u64) -> io::Result<(Place, u64)> {
        let mut run = limit;
        for (n, level) in self.levels.iter_mut().enumerate() {
            // A backing file may be shorter than what stands on it.
            let rest = level.size.saturating_sub(at);
            if rest == 0 {
                break;
            }
            run = run.min(rest);
            let tables = match &mut level.image {
                Image::Raw(_) => return Ok((Place::Stored(n, at), run)),
                Image::Qcow2(tables) => tables,
            };
            let (kind, length) = tables.run(at, run)?;
            run = length;
            match kind {
                None => {}
                Some(ExtentKind::Zero) => return Ok((Place::Zero, run)),
                Some(ExtentKind::Data(host)) => return Ok((Place::Stored(n, host), run)),
                Some(ExtentKind::Compressed(host, bytes)) => {
                    return Ok((Place::Packed(n, host, bytes), run));
                }
            }
        }
        Ok((Place::Zero, run))
    }

    fn file(&self, level: usize) -> Option<&File> {
        self.levels.get(level).map(|level| match &level.image {
            Image::Raw(file) => file,
            Image::Qcow2(tables) => &tables.file,
        })
    }

    /// Reads at `at` from the cluster around it, which is packed in these bytes of the file.
    fn read_packed(
        &mut self,
        level: usize,
        packed: (u64, u64),
        at: u64,
        into: &mut [u8],
    ) -> io::Result<()> {
        let Some(Image::Qcow2(tables)) = self.levels.get(level).map(|l| &l.image) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let cluster = 1_u64 << tables.header.cluster_bits;
        let (inside, begins) = (size(at % cluster), at - at % cluster);
        let known = self.unpacked.as_ref();
        if known.is_none_or(|(l, b, _)| (*l, *b) != (level, begins)) {
            let mut bytes = vec![0; size(packed.1)];
            read_padded(&tables.file, packed.0, &mut bytes)?;
            let old = self.unpacked.take();
            let mut clear = old.map(|(_, _, clear)| clear).unwrap_or_default();
            clear.resize(size(cluster), 0);
            let how = tables.header.compression;
            self.unpacker.unpack(how, &bytes, &mut clear)?;
            self.unpacked = Some((level, begins, clear));
        }
        let clear = self.unpacked.as_ref().map(|(_, _, clear)| clear.as_slice());
        let part = clear.and_then(|c| c.get(inside..)?.get(..into.len()));
        into.copy_from_slice(part.ok_or_else(|| damaged("a compressed cluster is too short"))?);
        Ok(())
    }
}

/// Data or a hole at that place of a file, by its file system; one that knows no holes says all is data.
fn stored(file: &File, offset: u64, length: u64) -> io::Result<Extent> {
    let until = |end: u64| end.saturating_sub(offset).clamp(1, length.max(1));
    let data = |data, length| Ok(Extent { data, length });
    match seek(file, SeekFrom::Data(offset)) {
        Ok(start) if start > offset => data(false, until(start)),
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(end) => data(true, until(end)),
            Err(e) => Err(e.into()),
        },
        Err(Errno::NXIO) => data(false, length), // nothing but a hole up to the end
        Err(Errno::INVAL | Errno::OPNOTSUPP) => data(true, length),
        Err(e) => Err(e.into()),
    }
}

/// Makes an empty image of that virtual size in bytes; the file must not exist.
///
/// # Errors
/// The I/O error.
pub fn create(file: &Path, format: Format, size: u64) -> io::Result<()> {
    let (folder, name) = Folder::of(file)?;
    let image = folder.create_new(name, 0o644)?;
    match format {
        Format::Raw => image.set_len(size)?,
        Format::Qcow2 => NewImage {
            size,
            backing: None,
        }
        .write(&image)?,
    }
    image.sync_all()
}

/// Writes whole clusters of a disk that nobody has open, each at its offset, and makes them durable. Whoever
/// dies meanwhile, or finds the disk full, leaves an image without damage.
///
/// # Errors
/// The I/O error; [`io::ErrorKind::InvalidData`] for an image that is damaged, [`io::ErrorKind::InvalidInput`]
/// for a part of a cluster.
pub fn overwrite(top: &Path, format: Format, writes: &[(u64, Vec<u8>)]) -> io::Result<()> {
    overwrite_held(held::open(top, true)?, format, writes)
}

fn overwrite_held(file: File, format: Format, writes: &[(u64, Vec<u8>)]) -> io::Result<()> {
    if format == Format::Raw {
        for (at, bytes) in writes {
            file.write_all_at(bytes, *at)?;
        }
        return file.sync_all();
    }
    let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "its qcow2 header");
    let header = Header::load(&file)?.map_err(damaged)?;
    let size = header.size;
    let mut editor = Editor::open(file, header)?;
    let step = usize::try_from(editor.cluster()).map_err(io::Error::other)?;
    let mut pieces = Vec::new();
    for (at, bytes) in writes {
        let whole = bytes.len().is_multiple_of(step) && at.is_multiple_of(editor.cluster());
        if !whole {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (at, piece) in (*at..).step_by(step).zip(bytes.chunks(step)) {
            pieces.push((editor.host(at)?.0, piece));
        }
    }
    editor.begin()?;
    for (host, piece) in pieces {
        editor.file.write_all_at(piece, host)?;
    }
    editor.end()?;
    editor.resize(size)
}

/// Reads any bytes as an image, and writes a cluster where that is taken: what was written is read back. Whether all
/// of that holds; this is a fuzz target.
///
/// # Errors
/// No file in memory can be made.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) -> io::Result<bool> {
    let Some(header) = Header::parse(bytes).ok().filter(|h| h.refusal().is_none()) else {
        return Ok(true);
    };
    let memory = File::from(memfd_create("image", MemfdFlags::CLOEXEC)?);
    memory.write_all_at(bytes, 0)?;
    let file = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let (disk, cluster) = (header.size, 1_u64 << header.cluster_bits);
    let layers = [Layer {
        file: file.clone(),
        format: Format::Qcow2,
        size: disk,
        id: (0, 0),
        real: file,
        open: Arc::new(memory.try_clone()?),
        header: Some(header),
    }];
    let mut at = 0;
    if let Ok(mut content) = Content::of_chain(&layers) {
        for _ in 0..FUZZ_STEPS {
            let Ok(extent) = content.extent(at, u64::MAX) else {
                break;
            };
            let some = size(extent.length.min(cluster + 1));
            let _ = content.read(&mut vec![0; some], at);
            if extent.length == 0 {
                return Ok(at == disk);
            }
            at += extent.length;
        }
    }
    let writes = [(0, vec![0x5a; size(cluster)])];
    if disk < cluster || overwrite_held(memory, Format::Qcow2, &writes).is_err() {
        return Ok(true);
    }
    let mut read = vec![0; size(cluster)];
    Content::of_chain(&layers)?.read(&mut read, 0)?;
    Ok(writes.first().is_some_and(|(_, wrote)| *wrote == read))
}

/// Extents that [`fuzz`] looks at.
const FUZZ_STEPS: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_clusters_are_overwritten_in_raw_and_qcow2() {
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::Raw, Format::Qcow2] {
            let file = folder.path().join(format!("disk.{}", format.as_str()));
            create(&file, format, 1 << 20).unwrap();
            for byte in [1, 2] {
                let writes = [
                    (0, vec![byte; 1 << 17]),
                    (5 << 16, vec![byte + 10; 1 << 16]),
                ];
                overwrite(&file, format, &writes).unwrap();
                let mut content = Content::open(&file, format).unwrap();
                let mut read = vec![0; 1 << 20];
                content.read(&mut read, 0).unwrap();
                let mut expected = vec![0; 1 << 20];
                expected[..1 << 17].fill(byte);
                expected[5 << 16..6 << 16].fill(byte + 10);
                assert!(read == expected, "{format:?}");
            }
        }
        let part = [(512, vec![1; 1 << 16])];
        let file = folder.path().join("disk.qcow2");
        let refused = overwrite(&file, Format::Qcow2, &part).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_written_is_read_back_through_a_chain() {
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::Raw, Format::Qcow2] {
            let base = folder.path().join(format!("base.{}", format.as_str()));
            create(&base, format, 1 << 20).unwrap();
            overwrite(&base, format, &[(1 << 16, vec![1; 1 << 17])]).unwrap();
            let top = folder
                .path()
                .join(format!("top-on-{}.qcow2", format.as_str()));
            let overlay = NewImage {
                size: (1 << 20) + 512,
                backing: Some((&base, format)),
            };
            overlay.write(&File::create_new(&top).unwrap()).unwrap();
            overwrite(&top, Format::Qcow2, &[(1 << 16, vec![2; 1 << 16])]).unwrap();
            let mut content = Content::open(&top, Format::Qcow2).unwrap();
            assert_eq!(content.size(), (1 << 20) + 512);
            let mut read = vec![9; (1 << 20) + 512];
            content.read(&mut read, 0).unwrap();
            let mut expected = vec![0; (1 << 20) + 512];
            expected[1 << 16..2 << 16].fill(2);
            expected[2 << 16..3 << 16].fill(1);
            assert!(read == expected, "{format:?}");
            let behind = content.read(&mut [0; 2], (1 << 20) + 511).unwrap_err();
            assert_eq!(behind.kind(), io::ErrorKind::UnexpectedEof);
            let at_end = content.extent((1 << 20) + 512, 4096).unwrap();
            assert_eq!((at_end.data, at_end.length), (false, 0));
        }
    }
}
