//! Where an export goes: a directory below a configured root that no symbolic link leads out of.
//!
//! The kernel resolves the path beneath the root (openat2), and from then on the open directory is meant, whatever
//! happens to its name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::held::{self, Folder, Foreign, Identity, Way};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A directory that a client named, split at the root that admits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The configured root.
    pub root: PathBuf,
    /// The way from there; empty for the root itself.
    pub below: PathBuf,
    /// `st_ino` of the directory when the export was planned; an older version noted none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// It, in the process that planned.
    #[serde(skip)]
    held: Held,
}

/// An open folder, which says nothing of what is equal.
#[derive(Debug, Clone, Default)]
struct Held(Option<Arc<Folder>>);

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl Directory {
    /// The directory `named` by a client, if one of `roots` admits it by name.
    ///
    /// # Errors
    /// The refusal, for the client.
    pub(crate) fn of(named: &str, roots: &[PathBuf]) -> Result<Self, Text> {
        let path = Path::new(named);
        if !path.is_absolute() || named.contains('\0') {
            return Err(texts::EXPORT_ABSOLUTE.with("directory", named));
        }
        if roots.is_empty() {
            return Err(texts::EXPORT_NO_ROOTS.text());
        }
        let below = |root: &PathBuf| {
            let below = path.strip_prefix(root).ok()?;
            Some(Self {
                root: root.clone(),
                below: below.to_owned(),
                inode: None,
                held: Held::default(),
            })
        };
        roots
            .iter()
            .find_map(below)
            .ok_or_else(|| texts::EXPORT_OUTSIDE.with("directory", named))
    }

    /// The whole path, as the client named it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        // Without the slash that joining nothing would add.
        match self.below.as_os_str().is_empty() {
            true => self.root.clone(),
            false => self.root.join(&self.below),
        }
    }

    /// Opens it. A symbolic link in the way from the root may lead to what lies below the root, to nothing else.
    ///
    /// # Errors
    /// The I/O error.
    pub(crate) fn open(&self) -> io::Result<Place> {
        let root = Folder::follow(&self.root)?;
        let folder = root.beneath(&self.below, Way::Beneath)?;
        Ok(Place { folder })
    }

    /// The same with what was opened: only that is meant from now on.
    ///
    /// # Errors
    /// No more files can be opened.
    pub(crate) fn holding(self, place: &Place) -> io::Result<Self> {
        let folder = place.folder.again()?;
        Ok(Self {
            inode: Some(folder.identity()?.inode),
            held: Held(Some(Arc::new(folder))),
            ..self
        })
    }

    /// Opens it, if it is the directory that was planned into.
    ///
    /// # Errors
    /// As [`Directory::open`]; another one stands in its place.
    pub(crate) fn here(&self) -> io::Result<Place> {
        let place = self.open()?;
        let found = place.folder.identity()?;
        let is_it = match &self.held.0 {
            Some(held) => held.identity()?.is_same(&found),
            None => self.inode.is_none_or(|inode| inode == found.inode),
        };
        match (is_it, self.inode) {
            (false, Some(expected)) => {
                let found = found.inode;
                Err(Foreign::Other { expected, found }.into())
            }
            _ => Ok(place),
        }
    }

    /// The directory that was planned into, whatever stands in its place now; after a start, as [`Directory::here`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn held(&self) -> io::Result<Place> {
        match &self.held.0 {
            Some(held) => Ok(Place {
                folder: held.again()?,
            }),
            None => self.here(),
        }
    }

    /// That it does not answer, for the client.
    pub(crate) fn silent(&self) -> Text {
        texts::FILE_SILENT.with("file", self.path().display())
    }

    /// Why it cannot be used, for the client.
    pub(crate) fn refusal(&self, error: &io::Error) -> Text {
        let directory = self.path();
        let directory = directory.display();
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        match error.kind() {
            _ if held::is_silence(error) => self.silent(),
            io::ErrorKind::NotFound => texts::EXPORT_MISSING.with("directory", directory),
            io::ErrorKind::NotADirectory => texts::EXPORT_NO_DIRECTORY.with("directory", directory),
            // EXDEV: the way leaves the root; ELOOP: it never ends.
            _ if [Errno::XDEV, Errno::LOOP].contains(&errno) => {
                texts::EXPORT_OUTSIDE.with("directory", directory)
            }
            _ => {
                let text = texts::EXPORT_UNUSABLE.with("directory", directory);
                text.with("cause", error)
            }
        }
    }
}

/// An open directory. Names in it are given by its descriptor, so that nobody can exchange it meanwhile.
#[derive(Debug)]
pub(crate) struct Place {
    folder: Folder,
}

impl Place {
    /// The directory by device and inode.
    pub(crate) fn key(&self) -> io::Result<(u64, u64)> {
        let it = self.folder.identity()?;
        Ok((it.device, it.inode))
    }

    /// Is there anything of that name, if only a symbolic link?
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        Ok(self.folder.look(name)?.is_some())
    }

    /// Makes a folder of ours. What is written into it goes by the descriptor, whatever happens to its name.
    pub(crate) fn make(&self, name: &str) -> io::Result<Folder> {
        self.folder.make_new(name, 0o750)
    }

    /// The folder of that name, which must be ours: no link, nobody else can exchange what is in it, and the one that
    /// was `made`, where that is known.
    pub(crate) fn ours(&self, name: &str, made: Option<&Identity>) -> io::Result<Folder> {
        let folder = self.folder.child(name)?;
        folder.require_private()?;
        let it = folder.identity()?;
        match made.filter(|made| !made.is_same(&it)) {
            None => Ok(folder),
            Some(made) => Err(Foreign::Other {
                expected: made.inode,
                found: it.inode,
            }
            .into()),
        }
    }

    /// Gives a folder of ours another name, durably. Never replaces anything; what is not ours gets its name back.
    pub(crate) fn rename(&self, from: &str, to: &str, made: Option<&Identity>) -> io::Result<()> {
        let meant = self.ours(from, made)?.identity()?;
        self.folder.rename_new(from, &self.folder, to)?;
        let came = self.folder.look(to)?;
        if !came.is_some_and(|it| it.is_same(&meant)) {
            let _taken = self.folder.rename_new(to, &self.folder, from);
            let (expected, found) = (meant.inode, came.map_or(0, |it| it.inode));
            return Err(Foreign::Other { expected, found }.into());
        }
        self.sync()
    }

    /// Removes a folder of ours with all that is in it, durably. One that is not there is fine, and what somebody
    /// else has put there stays.
    pub(crate) fn remove(&self, name: &str, made: Option<&Identity>) -> io::Result<()> {
        match self.folder.remove_tree(name, made) {
            Err(error) if held::foreign(&error).is_some() => {
                let folder = self.folder.path().join(name);
                tracing::warn!(folder = %folder.display(), %error, "What stands in the place of this export is not ours and is left alone");
                Ok(())
            }
            Err(e) => Err(e),
            Ok(_) => self.sync(),
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.folder.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_lies_below_a_root_is_admitted() {
        let roots = [PathBuf::from("/srv/a"), PathBuf::from("/srv/b")];
        let good = Directory::of("/srv/b/c/", &roots).unwrap();
        assert_eq!((good.root, good.below), (roots[1].clone(), "c".into()));
        assert!(Directory::of("/srv/a", &roots).is_ok(), "the root itself");
        for bad in [
            "",
            "srv/a",
            "C:\\exports",
            "/srv",
            "/srv/ab",
            "/srv/a\0b",
            "/",
        ] {
            assert!(Directory::of(bad, &roots).is_err(), "{bad:?}");
        }
        let none = Directory::of("/srv/a", &[]).unwrap_err().render();
        assert!(none.contains("[export] roots"), "{none}");
    }

    #[test]
    fn no_way_leads_out_of_the_root() {
        let world = tempfile::tempdir().unwrap();
        let root = world.path().join("root");
        let outside = world.path().join("outside");
        fs::create_dir_all(root.join("in/deep")).unwrap();
        fs::create_dir_all(outside.join("deep")).unwrap();
        symlink("in", root.join("link-in")).unwrap();
        symlink(&outside, root.join("link-out")).unwrap();
        symlink("../outside", root.join("link-up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        fs::write(root.join("file"), b"").unwrap();
        let open = |below: &str| {
            let directory = Directory {
                root: root.clone(),
                below: below.into(),
                inode: None,
                held: Held::default(),
            };
            let opened = directory.open();
            opened.map_err(|e| directory.refusal(&e).id().to_owned())
        };
        for good in ["", "in", "in/deep", "link-in/deep", "in/../in"] {
            assert!(open(good).is_ok(), "{good}");
        }
        let table = [
            ("../outside", texts::EXPORT_OUTSIDE),
            ("in/../../outside", texts::EXPORT_OUTSIDE),
            ("link-out", texts::EXPORT_OUTSIDE),
            ("link-out/deep", texts::EXPORT_OUTSIDE),
            ("link-up", texts::EXPORT_OUTSIDE),
            ("loop", texts::EXPORT_OUTSIDE),
            ("nowhere", texts::EXPORT_MISSING),
            ("file", texts::EXPORT_NO_DIRECTORY),
        ];
        for (bad, text) in table {
            assert_eq!(open(bad).unwrap_err(), text.id, "{bad}");
        }
    }

    #[test]
    fn the_open_directory_is_meant_whatever_its_name_leads_to() {
        let world = tempfile::tempdir().unwrap();
        let (root, outside) = (world.path().join("root"), world.path().join("outside"));
        fs::create_dir_all(root.join("in")).unwrap();
        fs::create_dir(&outside).unwrap();
        let directory = Directory {
            root: root.clone(),
            below: "in".into(),
            inode: None,
            held: Held::default(),
        };
        let place = directory.open().unwrap();
        fs::rename(root.join("in"), root.join("moved")).unwrap();
        symlink(&outside, root.join("in")).unwrap();
        place.make("made").unwrap();
        assert!(root.join("moved/made").is_dir());
        place.rename("made", "other", None).unwrap();
        assert!(place.has("other").unwrap() && !place.has("made").unwrap());
        place.make("third").unwrap();
        let replaced = place.rename("other", "third", None);
        assert!(replaced.is_err(), "replaces nothing");
        let third = place.ours("third", None).unwrap().identity().unwrap();
        place.remove("other", Some(&third)).unwrap();
        assert!(place.has("other").unwrap(), "another one than was made");
        place.remove("other", None).unwrap();
        place.remove("other", None).unwrap();
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }
}
