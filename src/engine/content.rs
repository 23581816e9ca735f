//! The content of a disk as its machine sees it: read and written through the whole chain of files.

use std::fs::File as StdFile;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate,
    ShallowMapping, Storage, StorageOpenOptions,
};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::engine::qcow2::chain::Layer;
use crate::engine::qcow2::editor::Editor;
use crate::engine::qcow2::header::Header;
use crate::engine::qcow2::writer::NewImage;
use crate::inventory::Format;

/// An open disk image. Nobody else may write to it meanwhile.
pub struct Content {
    access: FormatAccess<File>,
    /// The files of the chain, top first, where they are known; for asking the file system about holes.
    files: Vec<StdFile>,
}

/// What stands at a place of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Something is stored there, if only zeroes; otherwise it reads as zeroes.
    pub data: bool,
    /// For how many bytes that is so at least. Never 0 before the end of the disk.
    pub length: u64,
}

impl Content {
    /// Opens the top file of a chain. The files below it are found by their headers.
    ///
    /// # Errors
    /// The I/O error; also for an image that cannot be read.
    pub async fn open(top: &Path, format: Format, write: bool) -> io::Result<Self> {
        let access = match format {
            Format::Raw => FormatAccess::new(
                Raw::<File>::builder_path(top)
                    .write(write)
                    .open(PermissiveImplicitOpenGate::default())
                    .await?,
            ),
            Format::Qcow2 => FormatAccess::new(
                Qcow2::<File>::builder_path(top)
                    .write(write)
                    .open(PermissiveImplicitOpenGate::default())
                    .await?,
            ),
        };
        Ok(Self {
            access,
            files: Vec::new(),
        })
    }

    /// Opens exactly the files of a chain, top first, for reading; what their headers say of further files is not
    /// followed.
    ///
    /// # Errors
    /// The I/O error; also for an image that cannot be read.
    pub async fn of_chain(layers: &[Layer]) -> io::Result<Self> {
        let mut below: Option<FormatAccess<File>> = None;
        let mut files = Vec::new();
        for layer in layers.iter().rev() {
            let gate = DenyImplicitOpenGate::default();
            let options = StorageOpenOptions::new().filename(&layer.file);
            let image = File::open(options).await?;
            let access = match layer.format {
                Format::Raw => FormatAccess::new(Raw::builder(image).open(gate).await?),
                Format::Qcow2 => {
                    let builder = Qcow2::builder(image).backing(below);
                    FormatAccess::new(builder.open(gate).await?)
                }
            };
            files.insert(0, StdFile::open(&layer.file)?);
            below = Some(access);
        }
        let access = below.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { access, files })
    }

    /// Virtual size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.access.size()
    }

    /// What stands at `offset`, looking no further than `limit` bytes. By the tables of the images and the holes
    /// of their files; no data is read. After the end: zeroes of length 0.
    ///
    /// # Errors
    /// The I/O error.
    pub async fn extent(&self, offset: u64, limit: u64) -> io::Result<Extent> {
        let (mut layer, mut at, mut length, mut depth) = (&self.access, offset, limit, 0);
        loop {
            let (mapping, mapped) = layer.get_shallow_mapping(at, length).await?;
            let zeroes = |length| {
                Ok(Extent {
                    data: false,
                    length,
                })
            };
            match mapping {
                ShallowMapping::Indirect {
                    layer: below,
                    offset,
                    ..
                } => {
                    (layer, at, length) = (below, offset, mapped);
                    depth += 1;
                }
                ShallowMapping::Zero { .. } => return zeroes(mapped),
                // A backing file may be shorter than what stands on it.
                ShallowMapping::Eof { .. } if ptr::eq(layer, &raw const self.access) => {
                    return zeroes(0);
                }
                ShallowMapping::Eof { .. } => return zeroes(length),
                ShallowMapping::Raw { offset, .. } => {
                    return match self.files.get(depth) {
                        Some(file) => stored(file, offset, mapped),
                        None => Ok(Extent {
                            data: true,
                            length: mapped,
                        }),
                    };
                }
                // Compressed, or something new: it is read to be known.
                _ => {
                    return Ok(Extent {
                        data: true,
                        length: mapped,
                    });
                }
            }
        }
    }

    /// Reads at that offset of the virtual disk, in bytes.
    ///
    /// # Errors
    /// The I/O error.
    pub async fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.access.read(into, offset).await
    }

    /// Writes at that offset of the virtual disk, in bytes.
    ///
    /// # Errors
    /// The I/O error.
    pub async fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.access.write(from, offset).await
    }

    /// Makes durable what was written. To be called before it is dropped.
    ///
    /// # Errors
    /// The I/O error.
    pub async fn sync(&self) -> io::Result<()> {
        self.access.flush().await?;
        self.access.sync().await
    }
}

/// Data or a hole at that place of a file, by its file system; one that knows no holes says all is data.
fn stored(file: &StdFile, offset: u64, length: u64) -> io::Result<Extent> {
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
    let image = StdFile::create_new(file)?;
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
    let file = StdFile::options().read(true).write(true).open(top)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whole_clusters_are_overwritten_in_raw_and_qcow2() {
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
                let content = Content::open(&file, format, false).await.unwrap();
                let mut read = vec![0; 1 << 20];
                content.read(&mut read, 0).await.unwrap();
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

    #[tokio::test]
    async fn what_is_written_is_read_back_through_a_chain() {
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::Raw, Format::Qcow2] {
            let base = folder.path().join(format!("base.{}", format.as_str()));
            create(&base, format, 1 << 20).unwrap();
            let content = Content::open(&base, format, true).await.unwrap();
            content.write(&[1; 4096], 8192).await.unwrap();
            content.sync().await.unwrap();
            drop(content);

            let top = folder
                .path()
                .join(format!("top-on-{}.qcow2", format.as_str()));
            let overlay = NewImage {
                size: 1 << 20,
                backing: Some((&base, format)),
            };
            overlay.write(&StdFile::create_new(&top).unwrap()).unwrap();
            let content = Content::open(&top, Format::Qcow2, true).await.unwrap();
            assert_eq!(content.size(), 1 << 20);
            content.write(&[2; 512], 8192).await.unwrap();
            content.sync().await.unwrap();
            let mut read = vec![9; 8192];
            content.read(&mut read, 8192).await.unwrap();
            assert!(read[..512].iter().all(|b| *b == 2));
            assert!(read[512..4096].iter().all(|b| *b == 1), "from below");
            assert!(read[4096..].iter().all(|b| *b == 0));

            let below = Content::open(&base, format, false).await.unwrap();
            below.read(&mut read[..512], 8192).await.unwrap();
            assert!(read[..512].iter().all(|b| *b == 1), "the base is as it was");
        }
    }
}
