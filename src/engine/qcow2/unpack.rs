//! One compressed cluster unpacked: raw deflate or Zstandard, from bytes that nobody vouches for.

use std::fmt;
use std::io::{self, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::header::Compression;
use super::tables::damaged;

/// Unpacks clusters one after the other.
#[derive(Default)]
pub(crate) struct Unpacker {
    zstd: Option<Box<FrameDecoder>>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacker")
    }
}

impl Unpacker {
    /// Fills `cluster` from `packed`, behind which rubbish may follow up to the end of a sector.
    pub(crate) fn unpack(
        &mut self,
        compression: Compression,
        packed: &[u8],
        cluster: &mut [u8],
    ) -> io::Result<()> {
        match compression {
            Compression::Deflate => inflate(packed, cluster),
            Compression::Zstd => self.unpack_zstd(packed, cluster),
            Compression::Unknown => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// As QEMU: one frame after the other until the cluster is full and the last one has ended.
    fn unpack_zstd(&mut self, mut packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
        let failed = |_| damaged("a compressed cluster cannot be unpacked");
        let decoder = self.zstd.get_or_insert_default();
        let mut done = 0;
        while done < cluster.len() {
            let before = (packed.len(), done);
            decoder.init(&mut packed).map_err(failed)?;
            loop {
                let rest = cluster.get_mut(done..).unwrap_or_default();
                done += decoder.read(rest)?;
                if decoder.is_finished() && (decoder.can_collect() == 0 || done == cluster.len()) {
                    break;
                }
                let one = BlockDecodingStrategy::UptoBlocks(1);
                if !decoder.is_finished() {
                    decoder.decode_blocks(&mut packed, one).map_err(failed)?;
                }
            }
            if decoder.can_collect() != 0 || before == (packed.len(), done) {
                return Err(damaged("a compressed cluster is longer than a cluster"));
            }
        }
        Ok(())
    }
}

fn inflate(packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    let mut state = Box::<DecompressorOxide>::default();
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, filled) = decompress(&mut state, packed, cluster, 0, flags);
    // A stream that would go on behind a full cluster is taken, as QEMU takes it.
    let is_full = filled == cluster.len();
    match status {
        TINFLStatus::Done | TINFLStatus::HasMoreOutput if is_full => Ok(()),
        _ => Err(damaged("a compressed cluster cannot be unpacked")),
    }
}
