//! A captured disk as one stand-alone qcow2 file: read through its whole chain, written from front to back.
//!
//! Only clusters that hold something are written. What is empty is found by the tables of the images and the
//! holes of their files, so a large disk costs what is in it; stored zeroes are read and left out.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::document;
use crate::engine::EngineError;
use crate::engine::content::Content;
use crate::engine::failure::At;
use crate::engine::qcow2::chain::Layer;
use crate::engine::qcow2::sequential::Sequential;
use crate::engine::qcow2::writer::{CLUSTER, SECTOR};
use crate::engine::read::{Flat, Step, Target};
use crate::engine::space::Reserve;
use crate::held::{Folder, Identity};

/// How much is read and written at once, in bytes; whole clusters.
const BATCH: u64 = 2 << 20;
/// After how many written bytes they are made durable, so that neither a cancel nor the end waits long.
const SYNC_EVERY: u64 = 128 << 20;

static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// Writes what the chain `layers` (top first, as `qcow2::chain::open` gives it) shows into the new file `target`,
/// durably but for its name. Refuses first if the file system of `target` would have less than `reserve` left.
///
/// Blocks; to be called from a blocking thread. `None`: `step` gave up. Then, and after an error, `target` is gone.
///
/// # Errors
/// [`EngineError`] naming the file that could not be read or written.
pub fn flatten(
    at: &At,
    layers: &[Layer],
    target: Target<'_>,
    reserve: &Reserve,
    step: Step<'_>,
) -> Result<Option<Flat>, EngineError> {
    let source = layers.first().map_or(Path::new(""), |l| &l.file);
    let read = |e: io::Error| at.io(source, &e);
    let written = |e: io::Error| at.io(target.shown, &e);
    let (folder, name) = Folder::of(target.file).map_err(written)?;
    let file = folder.create_new(&name, 0o640).map_err(written)?;
    let inode = Identity::of(&file).map_err(written)?.inode;
    let made = Content::of_chain(layers).map_err(read).and_then(|content| {
        let copy = Copy {
            at,
            source,
            target,
            content,
            data: 0,
        };
        copy.run(file, reserve, step)
    });
    if !matches!(made, Ok(Some(_)))
        && let Err(error) = folder.remove(&name, inode)
    {
        tracing::warn!(file = %target.shown.display(), %error, "A file that is not whole stays");
    }
    made
}

/// One copy at work.
struct Copy<'a> {
    at: &'a At,
    source: &'a Path,
    target: Target<'a>,
    content: Content,
    /// Bytes that will be read.
    data: u64,
}

impl Copy<'_> {
    fn run(
        mut self,
        file: File,
        reserve: &Reserve,
        step: Step<'_>,
    ) -> Result<Option<Flat>, EngineError> {
        let Some(data) = self.survey(step)? else {
            return Ok(None);
        };
        self.data = data;
        let size = self.content.size().next_multiple_of(SECTOR);
        let room = Sequential::length_at_most(size, data);
        let folder = self.target.file.parent().unwrap_or(Path::new("/"));
        reserve.require_room(self.at, folder, self.target.shown.display(), room)?;
        let image = Sequential::new(file, size).map_err(|e| self.write_failed(&e))?;
        let Some(image) = self.copy(image, step)? else {
            return Ok(None);
        };
        let length = image.finish().map_err(|e| self.write_failed(&e))?;
        let sha256 = self.read_back(length, step);
        let sha256 = sha256.map_err(|e| self.write_failed(&e))?;
        Ok(sha256.map(|sha256| Flat {
            size,
            length,
            sha256,
        }))
    }

    /// How many bytes [`Copy::copy`] will read.
    fn survey(&mut self, step: Step<'_>) -> Result<Option<u64>, EngineError> {
        let (mut data, mut from) = (0, 0);
        while let Some((start, end)) = self.batch(from)? {
            data += end - start;
            from = end;
            if step(0, 1).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(data))
    }

    fn copy(
        &mut self,
        mut image: Sequential,
        step: Step<'_>,
    ) -> Result<Option<Sequential>, EngineError> {
        let mut buffer = vec![0; usize::try_from(BATCH).unwrap_or(0)];
        let (mut from, mut done, mut unsynced) = (0, 0, 0);
        while let Some((start, end)) = self.batch(from)? {
            let (whole, rest) = (end - start, self.content.size().saturating_sub(start));
            let clusters = part(&mut buffer, whole);
            clusters.fill(0); // the last cluster may reach beyond the end of the disk
            let read = self.content.read(part(clusters, rest.min(whole)), start);
            read.map_err(|e| self.at.io(self.source, &e))?;
            unsynced += put(&mut image, start, clusters).map_err(|e| self.write_failed(&e))?;
            if unsynced >= SYNC_EVERY {
                image.sync_data().map_err(|e| self.write_failed(&e))?;
                unsynced = 0;
            }
            from = end;
            done += whole;
            if step(done, self.data * 2).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(image))
    }

    /// The next clusters at or after `from` (a multiple of the cluster) that may hold something: start and end.
    fn batch(&mut self, from: u64) -> Result<Option<(u64, u64)>, EngineError> {
        let (size, mut offset) = (self.content.size(), from);
        while offset < size {
            let extent = self.content.extent(offset, size - offset);
            let extent = extent.map_err(|e| self.at.io(self.source, &e))?;
            if extent.data {
                let start = offset - offset % CLUSTER;
                let end = (offset + extent.length).next_multiple_of(CLUSTER);
                return Ok(Some((start, end.min(start + BATCH))));
            }
            if extent.length == 0 {
                break;
            }
            offset += extent.length;
        }
        Ok(None)
    }

    fn read_back(&self, length: u64, step: Step<'_>) -> io::Result<Option<String>> {
        let mut file = File::open(self.target.file)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; usize::try_from(BATCH).unwrap_or(0)];
        let mut read = 0_u64;
        loop {
            let count = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else {
                break;
            };
            hash.update(bytes);
            read += u64::try_from(count).unwrap_or(0);
            let share = u128::from(self.data) * u128::from(read) / u128::from(length.max(1));
            let done = self.data + u64::try_from(share).unwrap_or(0).min(self.data);
            if step(done, self.data * 2).is_break() {
                return Ok(None);
            }
        }
        if read != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(document::hex(&hash.finalize())))
    }

    fn write_failed(&self, error: &io::Error) -> EngineError {
        self.at.io(self.target.shown, error)
    }
}

/// Writes the clusters that are not all zeroes, neighbours in one go; how many bytes those are.
fn put(image: &mut Sequential, start: u64, clusters: &[u8]) -> io::Result<u64> {
    let empty = |cluster: &&[u8]| ZEROES.get(..cluster.len()) == Some(*cluster);
    let size = ZEROES.len();
    let (mut written, mut offset) = (0, start);
    let mut rest = clusters;
    while !rest.is_empty() {
        let zeroes = rest.chunks(size).take_while(empty).count() * size;
        rest = rest.get(zeroes..).unwrap_or_default();
        offset += to_u64(zeroes);
        let full = rest.chunks(size).take_while(|c| !empty(c)).count() * size;
        let (run, later) = rest.split_at_checked(full).unwrap_or((rest, &[]));
        image.put(offset, run)?;
        offset += to_u64(full);
        written += to_u64(full);
        rest = later;
    }
    Ok(written)
}

fn part(buffer: &mut [u8], length: u64) -> &mut [u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let length = length.min(buffer.len());
    buffer.split_at_mut(length).0
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
