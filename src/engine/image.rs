//! What is recorded of the images that an operator has imported, and whether what stands there is still that.
//!
//! Who may rename in an image's folder may put anything in its place. A link, a file of another user or one with a
//! second name (hard link) is refused until the operator says that it is meant; another regular file of the same
//! owner is taken and told, for so operators restore images.

use std::io;
use std::path::Path;

use crate::engine::failure::At;
use crate::engine::qcow2::chain::Layer;
use crate::engine::{EngineError, EngineErrorKind};
use crate::held::{Folder, Foreign, Identity};
use crate::inventory::{Disk, Image, Machine};
use crate::text::catalog::engine as texts;

/// Resolves the links in the path of an image, once, and records what stands there.
///
/// # Errors
/// The I/O error; it is no regular file.
pub(crate) fn record(named: &Path) -> io::Result<Image> {
    let real = named.canonicalize()?;
    let name = real.file_name().ok_or(Foreign::NotRegular)?;
    let folder = Folder::resolve(real.parent().unwrap_or(Path::new("/")))?;
    let found = Identity::of(folder.open_file(name, false)?)?;
    Ok(Image {
        named: named.to_owned(),
        file: real.clone(),
        inode: found.inode,
        owner: found.owner,
        mode: found.mode,
        links: found.links,
    })
}

/// The record of what stands in the place of a recorded image now, if that is to be taken without a word of the
/// operator.
pub(crate) fn renewed(old: &Image) -> Option<Image> {
    let new = record(&old.file).ok()?;
    let found = Identity {
        inode: new.inode,
        owner: new.owner,
        links: new.links,
        mode: new.mode,
        device: 0,
        group: 0,
        length: 0,
        kind: crate::held::Kind::File,
    };
    judge(old, &new.file, &found).ok()?;
    Some(Image {
        named: old.named.clone(),
        ..new
    })
}

/// Refuses a chain if what was opened at an imported image's place is not to be taken for it.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`] naming the file, what stands there and what to do.
pub(crate) fn check(
    at: &At,
    machine: &Machine,
    disk: &Disk,
    layers: &[Layer],
) -> Result<(), EngineError> {
    for (depth, layer) in layers.iter().enumerate() {
        let own = machine.images.get(&disk.id);
        let Some(image) = own.filter(|i| i.file == layer.file || i.named == layer.file) else {
            continue;
        };
        let found = Identity::of(&*layer.open).map_err(|e| at.io(&layer.file, &e))?;
        let judged = match depth {
            0 => judge(image, &layer.real, &found),
            // Something is frozen on it.
            _ if found.inode != image.inode => Err(other(image, &found)),
            _ => Ok(false),
        };
        match judged {
            Ok(false) => {}
            Ok(true) => tracing::warn!(
                machine = machine.name,
                disk = disk.id,
                file = %image.file.display(),
                "Another file stands in the place of the image; it has the same owner and is taken"
            ),
            Err(foreign) => {
                let text = at.text(texts::IMAGE_SWAPPED, &layer.file);
                return Err(EngineError {
                    kind: EngineErrorKind::Unsupported,
                    text: text.with("cause", foreign),
                });
            }
        }
    }
    Ok(())
}

/// Whether the file is another one, which is taken all the same.
fn judge(image: &Image, real: &Path, found: &Identity) -> Result<bool, Foreign> {
    if found.inode == image.inode {
        return match found.links > image.links.max(1) {
            true => Err(Foreign::Names(found.links)),
            false => Ok(false),
        };
    }
    if found.owner != image.owner {
        return Err(Foreign::Owner {
            expected: image.owner,
            found: found.owner,
        });
    }
    if found.links != 1 {
        return Err(Foreign::Names(found.links));
    }
    // By way of a link above it, which was not there before.
    if real != image.file {
        return Err(other(image, found));
    }
    Ok(true)
}

fn other(image: &Image, found: &Identity) -> Foreign {
    Foreign::Other {
        expected: image.inode,
        found: found.inode,
    }
}
