//! `vm set`: what an operator has changed in the definition of a machine. All else in the file stays as it was
//! written, comments too.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table};

use crate::engine::definition::{self, DEFINITION, Definition, DiskEntry, TOPS, Tops};
use crate::engine::failure::At;
use crate::engine::image::{self, Seen};
use crate::engine::library::{self, machines_directory};
use crate::engine::locks;
use crate::engine::qcow2::chain::Roots;
use crate::engine::{EngineError, EngineErrorKind};
use crate::held;
use crate::id::VmId;
use crate::inventory::Image;
use crate::text::catalog::engine as texts;
use crate::text::reader;
use crate::text::{Argument, Text};

/// What is to be changed; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// `[qemu] overlay_ok`: an overlay may become the active file of a disk.
    pub overlay_ok: Option<bool>,
    /// What was shown at the paths of its images is meant, whoever has put it there.
    pub accept_images: Option<Vec<Shown>>,
}

/// What stands at the path of an image, as it is shown to whoever may accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The disk.
    pub disk: String,
    /// The image and what lies under it, as they would be recorded.
    pub image: Image,
    /// The files under it that its owner could not read.
    pub closed: Vec<PathBuf>,
    /// The device of each, in the same order; for comparison within this process.
    devices: Vec<u64>,
}

/// What stands at the paths of the images of a machine now, if it lies in these roots with all that is under it.
///
/// # Errors
/// [`EngineErrorKind::Missing`] if there is no such machine; as [`chain::open`](crate::engine::qcow2::chain::open): what
/// lies under an image that cannot be read is not known.
pub fn shown(data_dir: &Path, id: VmId, roots: &Roots) -> Result<Vec<Shown>, EngineError> {
    let folder = machines_directory(data_dir).join(id.to_string());
    if !folder.is_dir() {
        return Err(library::unknown(id));
    }
    let failed = |text: Text| error(EngineErrorKind::Failed, text);
    let defined = Definition::load(&folder.join(DEFINITION), id).map_err(failed)?;
    let file = folder.join(TOPS);
    let tops = Tops::load(&file).map_err(|e| untold(&file, e))?;
    let disks = defined.disk.iter();
    disks
        .map(|disk| shown_of(&defined.name, disk, &tops, roots))
        .collect()
}

fn shown_of(
    machine: &str,
    disk: &DiskEntry,
    tops: &Tops,
    roots: &Roots,
) -> Result<Shown, EngineError> {
    let at = At::new(machine, &disk.id);
    let top = tops.tops.get(&disk.id).filter(|top| top.file == disk.path);
    let format = top.map_or(disk.format, |top| top.format);
    let seen = Seen::at(&at, &disk.path, format, roots)?;
    Ok(Shown {
        disk: disk.id.clone(),
        image: seen.image,
        closed: seen.closed,
        devices: seen.devices,
    })
}

/// Refuses if something else than what was shown stands at the path of an image.
///
/// # Errors
/// As [`shown`]; [`EngineErrorKind::Unsupported`] naming the image.
pub fn require_shown(
    data_dir: &Path,
    id: VmId,
    accepted: &[Shown],
    roots: &Roots,
) -> Result<(), EngineError> {
    let folder = machines_directory(data_dir).join(id.to_string());
    let failed = |text: Text| error(EngineErrorKind::Failed, text);
    let defined = Definition::load(&folder.join(DEFINITION), id).map_err(failed)?;
    let now = shown(data_dir, id, roots)?;
    now.iter()
        .try_for_each(|now| require_one(&defined.name, accepted, now))
}

fn require_one(machine: &str, accepted: &[Shown], now: &Shown) -> Result<(), EngineError> {
    match accepted.contains(now) {
        true => Ok(()),
        false => Err(At::new(machine, &now.disk).error(
            EngineErrorKind::Unsupported,
            texts::IMAGE_NOT_SHOWN,
            &now.image.named,
        )),
    }
}

/// Writes the changes into the machine's definition, durably, and keeps owner and mode of the file; says whether
/// there was anything to write. Whoever calls holds the library against other commands.
///
/// # Errors
/// [`EngineErrorKind::Missing`] if there is no such machine, [`EngineErrorKind::Locked`] if the file was written by
/// another meanwhile, else [`EngineErrorKind::Failed`]; nothing was written then.
pub fn change(
    data_dir: &Path,
    id: VmId,
    changes: &Changes,
    roots: &Roots,
) -> Result<bool, EngineError> {
    let folder = machines_directory(data_dir).join(id.to_string());
    if !folder.is_dir() {
        return Err(library::unknown(id));
    }
    let file = folder.join(DEFINITION);
    let failed = |text: Text| error(EngineErrorKind::Failed, text);
    let unread = |cause: Argument| failed(definition::unread(&file, cause));
    Definition::load(&file, id).map_err(failed)?;
    let old = held::read_text(&file).map_err(|e| unread(e.into()))?;
    let new = edited(&old, changes).map_err(|e| unread(e.into()))?;
    let accepting = || match &changes.accept_images {
        Some(shown) => accept(&folder, (&new, id), shown, roots),
        None => Ok(false),
    };
    if new == old {
        return accepting();
    }
    Definition::parse(&new, &file, id).map_err(failed)?;
    let now = held::read_text(&file).map_err(|e| unread(e.into()))?;
    if now != old {
        let text = texts::DEFINITION_CHANGED.with("file", file.display());
        return Err(error(EngineErrorKind::Locked, text));
    }
    accepting()?;
    definition::rewrite(&file, new.as_bytes()).map_err(|e| {
        let cause = std::io::Error::from(e);
        let text = texts::DEFINITION_READ.with("file", file.display());
        error(
            crate::engine::failure::kind(&cause),
            text.with("cause", cause),
        )
    })?;
    Ok(true)
}

/// Records what was shown at the paths of the images in place of what was recorded of them, durably, if it still
/// stands there.
fn accept(
    folder: &Path,
    (text, id): (&str, VmId),
    shown: &[Shown],
    roots: &Roots,
) -> Result<bool, EngineError> {
    let failed = |text: Text| error(EngineErrorKind::Failed, text);
    let defined = Definition::parse(text, &folder.join(DEFINITION), id).map_err(failed)?;
    let file = folder.join(TOPS);
    let told = |e: std::io::Error| untold(&file, e);
    let load = || Tops::load(&file).map_err(told);
    let turned = definition::in_turn(folder, told, load, |tops| {
        for disk in &defined.disk {
            let now = shown_of(&defined.name, disk, tops, roots)?;
            require_one(&defined.name, shown, &now)?;
            // Nobody is about to write one or to remove it.
            let at = At::new(&defined.name, &disk.id);
            for (image, device) in now.image.chain().zip(&now.devices) {
                locks::require_idle(&at, &image.file, (*device, image.inode))?;
            }
            let old = tops.images.get(&disk.id);
            let new = image::joined(now.image, old);
            tops.images.insert(disk.id.clone(), new);
        }
        tops.forget_images(&defined);
        tops.complete = true;
        Ok(())
    })?;
    if turned.new == turned.old {
        return Ok(false);
    }
    turned.new.save(&file).map_err(|e| told(e.into()))?;
    Ok(true)
}

fn untold(file: &Path, cause: std::io::Error) -> EngineError {
    let kind = crate::engine::failure::kind(&cause);
    error(kind, definition::unread(file, cause))
}

fn error(kind: EngineErrorKind, text: Text) -> EngineError {
    EngineError { kind, text }
}

/// The text of a definition with the changes.
///
/// # Errors
/// In words what is wrong with the text.
fn edited(text: &str, changes: &Changes) -> Result<String, Text> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|e: toml_edit::TomlError| reader::told_of(text, e.message(), e.span()))?;
    if let Some(allowed) = changes.overlay_ok {
        flag(&mut document, "qemu", "overlay_ok", allowed)?;
    }
    Ok(document.to_string())
}

/// Sets a key that is `false` where it does not stand.
fn flag(document: &mut DocumentMut, section: &str, key: &str, on: bool) -> Result<(), Text> {
    let stands = document.get(section).and_then(|s| s.get(key));
    if stands.and_then(Item::as_bool).unwrap_or(false) == on {
        return Ok(());
    }
    if document.get(section).is_none() {
        let mut table = Table::new();
        table.decor_mut().set_prefix("\n");
        document.insert(section, Item::Table(table));
    }
    let table = document
        .get_mut(section)
        .and_then(Item::as_table_like_mut)
        .ok_or_else(|| texts::NO_SECTION.with("key", section))?;
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(value) => {
            let decor = value.decor().clone();
            *value = on.into();
            *value.decor_mut() = decor;
        }
        None => {
            table.insert(key, toml_edit::value(on));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::engine::import::{self, NewDisk, NewMachine};
    use crate::inventory::Format;

    fn only(overlay_ok: Option<bool>) -> Changes {
        Changes {
            overlay_ok,
            ..Changes::default()
        }
    }

    fn with(text: &str, overlay_ok: bool) -> String {
        let overlay_ok = Some(overlay_ok);
        edited(text, &only(overlay_ok)).unwrap()
    }

    #[test]
    fn the_text_of_a_definition_stays_but_for_what_is_set() {
        let head = "# mine\nformat = 1 # one\nname = 'web'\n\n[[disk]] # first\nid = \"a\"\n\n[[disk]]\nid=\"b\"\n";
        let table = [
            (
                head.to_owned(),
                format!("{head}\n[qemu]\noverlay_ok = true\n"),
            ),
            (
                format!("{head}\n[qemu] # runs\n# why\noverlay_ok   =  false   # not yet\n"),
                format!("{head}\n[qemu] # runs\n# why\noverlay_ok   =  true   # not yet\n"),
            ),
            (
                format!("qemu.overlay_ok = false # no\n{head}"),
                format!("qemu.overlay_ok = true # no\n{head}"),
            ),
            (
                format!("qemu = {{ overlay_ok = false }}\n{head}"),
                format!("qemu = {{ overlay_ok = true }}\n{head}"),
            ),
            (
                format!("qemu = {{}} # none\n{head}"),
                format!("qemu = {{ overlay_ok = true }} # none\n{head}"),
            ),
            (
                "[qemu]\n# empty\n\n[[disk]]\nid = 1\n".to_owned(),
                "[qemu]\noverlay_ok = true\n# empty\n\n[[disk]]\nid = 1\n".to_owned(),
            ),
        ];
        for (off, on) in table {
            assert_eq!(with(&off, true), on);
            assert_eq!(with(&on, true), on);
            assert_eq!(with(&off, false), off);
        }
    }

    fn imported(data_dir: &Path, file: &Path) -> VmId {
        let new = NewMachine {
            name: "web-1".to_owned(),
            disks: vec![NewDisk {
                id: None,
                file: file.to_owned(),
                format: Some(Format::Raw),
            }],
            overlay_ok: true,
            accept_images: false,
            sockets: Default::default(),
            unmanaged_ok: false,
        };
        let now = jiff::Timestamp::UNIX_EPOCH;
        fs::create_dir_all(data_dir).unwrap();
        let made = import::import(data_dir, &new, &Roots::default(), now);
        made.unwrap().id
    }

    #[test]
    fn an_image_is_accepted_as_it_was_shown_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        let (data_dir, image) = (home.join("data"), home.join("a.raw"));
        let (other, secret, aside) = (home.join("b"), home.join("secret"), home.join("c"));
        for file in [&image, &other, &secret] {
            fs::write(file, [1; 4096]).unwrap();
        }
        let (id, anywhere) = (imported(&data_dir, &image), Roots::default());
        let tops = machines_directory(&data_dir)
            .join(id.to_string())
            .join(TOPS);
        fs::rename(&other, &image).unwrap();
        fs::hard_link(&image, home.join("second")).unwrap();
        let shown = shown(&data_dir, id, &anywhere).unwrap();
        assert_eq!(shown[0].image.links, 2);
        let changes = Changes {
            accept_images: Some(shown),
            ..Changes::default()
        };
        let before = fs::read(&tops).unwrap();
        fs::rename(&image, &aside).unwrap();
        let exchanges: [&dyn Fn(); 3] = [
            &|| symlink(&secret, &image).unwrap(),
            &|| fs::hard_link(&secret, &image).unwrap(),
            &|| fs::write(&image, [1; 4096]).unwrap(),
        ];
        for exchange in exchanges {
            exchange();
            let accepted = changes.accept_images.as_ref().unwrap();
            let refused = require_shown(&data_dir, id, accepted, &anywhere);
            let also = change(&data_dir, id, &changes, &anywhere);
            for error in [refused.unwrap_err(), also.unwrap_err()] {
                assert_eq!(error.kind, EngineErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains("not what was shown"), "{error}");
            }
            assert_eq!(fs::read(&tops).unwrap(), before);
            fs::remove_file(&image).unwrap();
        }
        fs::rename(&aside, &image).unwrap();
        assert!(change(&data_dir, id, &changes, &anywhere).unwrap());
        let recorded = Tops::load(&tops).unwrap().images["disk0"].inode;
        assert_eq!(recorded, fs::metadata(&image).unwrap().ino());
    }

    #[test]
    fn what_cannot_be_read_is_not_edited() {
        let overlay_ok = Some(true);
        for text in ["name = ", "qemu = 3\n"] {
            assert!(edited(text, &only(overlay_ok)).is_err(), "{text}");
        }
    }
}
