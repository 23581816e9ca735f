//! Where an export goes: a directory below a configured root that no symbolic link leads out of.
//!
//! Links in the path of a root are resolved when the server starts, and none is followed to it later. The kernel resolves
//! the path beneath the root (openat2), and from then on the open directory is meant, whatever happens to its name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::engine::Reserve;
use crate::held::{self, Folder, Foreign, Origin, Way};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A folder below which sets may be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// As it is configured, and as clients name it.
    pub named: PathBuf,
    /// Where that led when the server started; no link is on the way.
    pub real: PathBuf,
}

impl Root {
    /// Resolves the links in the path of a configured root. One that is not there, or does not answer, may come later,
    /// without a link on the way. Blocks, though for no file system.
    #[must_use]
    pub fn resolve(named: &Path) -> Self {
        let path = named.to_owned();
        let real = held::bounded(move || held::canonicalize(&path)).flatten();
        Self {
            named: named.to_owned(),
            real: real.unwrap_or_else(|_| named.to_owned()),
        }
    }

    /// In words: that others than root and the server can put another folder in its place.
    #[must_use]
    pub fn exposed(&self) -> Option<String> {
        let (named, real) = (self.named.clone(), self.real.clone());
        let look = move || held::exposed_above(&named).or_else(|| held::exposed_above(&real));
        let (folder, owner, mode) = held::bounded(look).ok().flatten()?;
        Some(format!(
            "others than root and the server can put another folder in the place of {}, and sets are exported into that then: {} above it belongs to user {owner} and has the mode {mode:o}",
            self.named.display(),
            folder.display()
        ))
    }
}

/// Where sets may be exported to. The default admits no directory.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// The folders below which a directory must lie.
    pub roots: Vec<Root>,
    /// What must stay free there.
    pub reserve: Reserve,
}

/// A directory that a client named, split at the root that admits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The configured root.
    pub root: PathBuf,
    /// Where that led when the server started; an older version followed it each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<PathBuf>,
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
    pub(crate) fn of(named: &str, roots: &[Root]) -> Result<Self, Text> {
        let path = Path::new(named);
        if !path.is_absolute() || named.contains('\0') {
            return Err(texts::EXPORT_ABSOLUTE.with("directory", named));
        }
        if roots.is_empty() {
            return Err(texts::EXPORT_NO_ROOTS.text());
        }
        let below = |root: &Root| {
            let below = path.strip_prefix(&root.named).ok()?;
            Some(Self {
                root: root.named.clone(),
                real: Some(root.real.clone()),
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

    /// Whether the file lies below its root, by a path without links.
    pub(crate) fn has(&self, file: &Path) -> bool {
        file.starts_with(self.real.as_ref().unwrap_or(&self.root))
    }

    /// Opens it. A symbolic link in the way from the root may lead to what lies below the root, to nothing else.
    ///
    /// # Errors
    /// The I/O error.
    pub(crate) fn open(&self) -> io::Result<Place> {
        let root = match &self.real {
            Some(real) => Folder::straight(real)?,
            None => Folder::follow(&self.root)?,
        };
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

    /// Whether the folder that was made stands there.
    pub(crate) fn is(&self, name: &str, made: &Origin) -> io::Result<bool> {
        match self.folder.child(name).and_then(|it| it.require(made)) {
            Err(e) if is_another(&e) || e.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|()| true),
        }
    }

    /// Makes a folder of ours, durably. What is written into it goes by the descriptor, whatever happens to its name.
    pub(crate) fn make(&self, name: &str) -> io::Result<Folder> {
        let made = self.folder.make_new(name, 0o750)?;
        self.sync()?;
        Ok(made)
    }

    /// Gives the folder that was made another name, durably. Never replaces anything; what is not that folder gets its
    /// name back.
    pub(crate) fn rename(&self, from: &str, to: &str, made: &Origin) -> io::Result<()> {
        let meant = self.folder.child(from)?;
        meant.require(made)?;
        let meant = meant.identity()?;
        self.folder.rename_new(from, &self.folder, to)?;
        let came = self.folder.look(to)?;
        if !came.is_some_and(|it| it.is_same(&meant)) {
            let _taken = self.folder.rename_new(to, &self.folder, from);
            let (expected, found) = (meant.inode, came.map_or(0, |it| it.inode));
            return Err(Foreign::Other { expected, found }.into());
        }
        self.sync()
    }

    /// Removes the folder that was made with all that is in it, durably. `false` if it does not stand there; what does
    /// stays.
    pub(crate) fn remove(&self, name: &str, made: &Origin) -> io::Result<bool> {
        let removed = match self.folder.remove_tree(name, made) {
            Err(e) if is_another(&e) => return Ok(false),
            removed => removed?,
        };
        self.sync()?;
        Ok(removed)
    }

    /// Removes the folder of that name if it is empty, durably. Whether something stands there still.
    pub(crate) fn remove_empty(&self, name: &str) -> io::Result<bool> {
        if self.folder.remove_folder(name)? {
            self.sync()?;
        }
        self.has(name)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.folder.sync()
    }
}

/// Whether the error tells that something else stands there.
fn is_another(error: &io::Error) -> bool {
    match held::foreign(error) {
        Some(foreign) => matches!(foreign, Foreign::Link | Foreign::Other { .. }),
        None => error.kind() == io::ErrorKind::NotADirectory,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_lies_below_a_root_is_admitted() {
        let root = |named: &str, real: &str| Root {
            named: named.into(),
            real: real.into(),
        };
        let roots = [root("/srv/a", "/srv/a"), root("/srv/b", "/mnt/b")];
        let good = Directory::of("/srv/b/c/", &roots).unwrap();
        assert_eq!(good.path(), Path::new("/srv/b/c"));
        assert!(good.has(Path::new("/mnt/b/x")) && !good.has(Path::new("/srv/b/x")));
        assert_eq!((good.root, good.below), ("/srv/b".into(), "c".into()));
        assert_eq!(good.real, Some("/mnt/b".into()));
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
        let none = Directory::of("/srv/a", &[]).unwrap_err().english();
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
                real: None,
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
            real: Some(root.canonicalize().unwrap()),
            below: "in".into(),
            inode: None,
            held: Held::default(),
        };
        let place = directory.open().unwrap();
        fs::rename(root.join("in"), root.join("moved")).unwrap();
        symlink(&outside, root.join("in")).unwrap();
        let made = place.make("made").unwrap().origin().unwrap();
        assert!(root.join("moved/made").is_dir());
        place.rename("made", "other", &made).unwrap();
        assert!(place.has("other").unwrap() && !place.has("made").unwrap());
        let third = place.make("third").unwrap().origin().unwrap();
        let replaced = place.rename("other", "third", &made);
        assert!(replaced.is_err(), "replaces nothing");
        assert!(place.rename("other", "fourth", &third).is_err());
        assert!(!place.remove("other", &third).unwrap());
        assert!(place.has("other").unwrap(), "another one than was made");
        fs::write(root.join("moved/other/file"), "").unwrap();
        assert!(place.remove_empty("other").unwrap(), "it is not empty");
        assert!(place.remove("other", &made).unwrap());
        assert!(!place.remove("other", &made).unwrap());
        assert!(!place.remove_empty("third").unwrap());
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }

    #[test]
    fn a_directory_in_the_journal_of_an_older_version_is_read() {
        let old = r#"{"root":"/srv/a","below":"b"}"#;
        let read: Directory = serde_json::from_str(old).unwrap();
        assert_eq!((read.path(), read.real), ("/srv/a/b".into(), None));
    }

    #[test]
    fn a_link_that_leads_to_a_root_counts_when_the_server_starts_and_not_later() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        fs::create_dir_all(at("real/in")).unwrap();
        fs::create_dir_all(at("outside/in")).unwrap();
        symlink(at("real"), at("named")).unwrap();
        let named = at("named");
        let roots = [Root::resolve(&named)];
        let wish = at("named/in");
        let directory = Directory::of(wish.to_str().unwrap(), &roots).unwrap();
        fs::remove_file(&named).unwrap();
        symlink(at("outside"), &named).unwrap();
        directory.open().unwrap().make("made").unwrap();
        assert!(at("real/in/made").is_dir());
        fs::rename(at("real"), at("moved")).unwrap();
        symlink(at("outside"), at("real")).unwrap();
        let error = directory.open().unwrap_err();
        assert_eq!(held::foreign(&error), Some(Foreign::Link));
        let absent = Root::resolve(&at("absent"));
        assert_eq!(absent.real, at("absent"));
        assert!(fs::read_dir(at("outside/in")).unwrap().next().is_none());
    }
}
