//! What a machine does with its disk, by another hand than the program's: imago reads and writes the whole chain.

use std::path::Path;

use groupshot::inventory::Format;
use imago::file::File;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};

async fn open(top: &Path, format: Format, write: bool) -> FormatAccess<File> {
    let gate = PermissiveImplicitOpenGate::default();
    match format {
        Format::Raw => {
            let builder = Raw::<File>::builder_path(top).write(write);
            FormatAccess::new(builder.open(gate).await.unwrap())
        }
        Format::Qcow2 => {
            let builder = Qcow2::<File>::builder_path(top).write(write);
            FormatAccess::new(builder.open(gate).await.unwrap())
        }
    }
}

/// Writes at that offset of the disk, durably.
pub(crate) async fn write(top: &Path, format: Format, bytes: &[u8], at: u64) {
    let disk = open(top, format, true).await;
    disk.write(bytes, at).await.unwrap();
    disk.flush().await.unwrap();
    disk.sync().await.unwrap();
}

/// All of the disk.
pub(crate) async fn read(top: &Path, format: Format) -> Vec<u8> {
    let disk = open(top, format, false).await;
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read(bytes.as_mut_slice(), 0).await.unwrap();
    bytes
}
