//! The folder that an image lies in, and in which files are made beside it.
//!
//! Who may rename above an image can put another folder in the place of its folder at any moment. The path is walked
//! without a link, what is found there is held open by the plan until its operation ends, and all that an operation
//! does beside the image is done by that descriptor. The journal has the path and the inode number; whoever goes on
//! after a start finds the same folder there, or does nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::failure::{At, kind};
use crate::engine::reflink::is_clone;
use crate::engine::{EngineError, EngineErrorKind};
use crate::held::{self, First, Folder, Foreign, Ours};
use crate::id::SetId;
use crate::text::catalog::engine as texts;

/// The folder for clones, beside the images.
pub const FOLDER: &str = ".groupshot";
/// Names on the way from the folder of an image to a clone beside it: `.groupshot/<set>/<file>`.
const CLONE: usize = 3;

/// The folder of an image, as it was when an operation was planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beside {
    /// Its path, on which there is no link.
    pub folder: PathBuf,
    /// `st_ino` of each folder on the way from `/`; the last is its own.
    inodes: Vec<u64>,
    /// It, in the process that planned.
    #[serde(skip)]
    held: Option<Arc<Folder>>,
    /// The folder for clones in it, once it was opened.
    #[serde(skip, default = "clones")]
    clones: First,
}

impl PartialEq for Beside {
    fn eq(&self, other: &Self) -> bool {
        (&self.folder, &self.inodes) == (&other.folder, &other.inodes)
    }
}

impl Eq for Beside {}

impl Beside {
    /// The folder of that path, as it is now.
    ///
    /// # Errors
    /// [`EngineErrorKind::Unsupported`] naming the folder if a link is on the way to it; as [`At::io`].
    pub fn of(at: &At, folder: &Path, image: &Path) -> Result<Self, EngineError> {
        let opened = walk(folder).and_then(|(inodes, held)| Ok((inodes, held?)));
        let (inodes, held) = opened.map_err(|e| match held::foreign(&e) {
            Some(_) => swapped(at, folder, image, &e),
            None => at.io(image, &e),
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            inodes,
            held: Some(Arc::new(held)),
            clones: clones(),
        })
    }

    /// The folder, if it stands at its path now.
    ///
    /// # Errors
    /// As [`Beside::of`]; another folder stands there.
    pub fn here(&self, at: &At, image: &Path) -> Result<Arc<Folder>, EngineError> {
        self.found().map_err(|e| self.trouble(at, image, &e))
    }

    /// What keeps the folder from being used: [`EngineErrorKind::Unsupported`] where something else stands in its
    /// place.
    pub fn trouble(&self, at: &At, image: &Path, error: &io::Error) -> EngineError {
        match held::foreign(error) {
            None if kind(error) != EngineErrorKind::Missing => at.io(image, error),
            _ => swapped(at, &self.folder, image, error),
        }
    }

    fn found(&self) -> io::Result<Arc<Folder>> {
        let (inodes, there) = walk(&self.folder)?;
        let other = |expected: Option<&u64>, found: Option<&u64>| {
            let [expected, found] = [expected, found].map(|inode| inode.copied().unwrap_or(0));
            Err(Foreign::Other { expected, found }.into())
        };
        let there = match there {
            Ok(there) => there,
            // It is gone where what lay above it is there.
            Err(e) if inodes.last() == self.inodes.get(inodes.len().saturating_sub(1)) => {
                return Err(e);
            }
            Err(_) => return other(self.inodes.last(), None),
        };
        let found = there.identity()?;
        let is_it = match &self.held {
            Some(held) => held.identity()?.is_same(&found),
            None => Some(&found.inode) == self.inodes.last(),
        };
        match is_it {
            true => Ok(self.held.clone().unwrap_or_else(|| Arc::new(there))),
            false => other(self.inodes.last(), Some(&found.inode)),
        }
    }

    /// The folder that was planned in, whatever stands at its path now; after a start, as [`Beside::here`].
    ///
    /// # Errors
    /// The I/O error; another folder stands there, and this process has not planned.
    pub fn held(&self) -> io::Result<Arc<Folder>> {
        match &self.held {
            Some(held) => Ok(Arc::clone(held)),
            None => self.found(),
        }
    }

    /// A file of ours in it.
    ///
    /// # Errors
    /// As [`Beside::held`]; the file does not lie in it; [`Foreign::NotOurs`].
    pub fn ours(&self, file: &Path) -> io::Result<Ours> {
        let ours = Ours::below(self.held()?, self.below(file)?)?;
        Ok(ours.within(self.clones.clone()))
    }

    /// Whether the file lies in it.
    #[must_use]
    pub fn has(&self, file: &Path) -> bool {
        self.below(file).is_ok()
    }

    /// Opens a file in it for reading; no link is on the way.
    ///
    /// # Errors
    /// The I/O error; as [`Beside::held`].
    pub fn open(&self, file: &Path) -> io::Result<File> {
        let below = self.below(file)?;
        if is_clone(file) && below.components().count() == CLONE {
            let ours = self.ours(file)?;
            return ours.folder()?.open_file(ours.name(), false);
        }
        let name = below.file_name().ok_or(Foreign::NotRegular)?;
        let above = below.parent().unwrap_or(Path::new(""));
        let folder = self.held()?.beneath(above, held::Way::Straight)?;
        folder.open_file(name, false)
    }

    fn below<'a>(&self, file: &'a Path) -> io::Result<&'a Path> {
        let below = file.strip_prefix(&self.folder).ok();
        let is_plain = |below: &&Path| {
            let mut steps = below.components();
            steps.all(|step| matches!(step, Component::Normal(_)))
        };
        Ok(below.filter(is_plain).ok_or(io::ErrorKind::InvalidInput)?)
    }
}

/// Walks to the folder, through no link: the inodes of all folders that are there on the way, and the folder, or that
/// the next one is not there.
fn walk(folder: &Path) -> io::Result<(Vec<u64>, io::Result<Folder>)> {
    let mut here = Folder::straight(Path::new("/"))?;
    let mut inodes = vec![here.identity()?.inode];
    let mut components = folder.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            match component {
                Component::RootDir => continue,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
        };
        let next = match components.peek() {
            Some(_) => here.passing(name),
            None => here.child(name),
        };
        here = match next {
            Err(e) if kind(&e) == EngineErrorKind::Missing => return Ok((inodes, Err(e))),
            next => next?,
        };
        inodes.push(here.identity()?.inode);
    }
    Ok((inodes, Ok(here)))
}

/// The folder for clones beside an image.
pub(crate) fn clones() -> First {
    First::new(require_clones)
}

/// Refuses a folder in the place of one for clones that is not the server's, or holds something and no set: who may
/// rename beside an image can put any folder of root there.
///
/// # Errors
/// [`Foreign::Shared`], [`Foreign::NotOurs`]; the I/O error.
pub(crate) fn require_clones(folder: &Folder) -> io::Result<()> {
    folder.require_private()?;
    let names = folder.names()?;
    let is_set = |name: &OsString| {
        let name = name.to_str();
        name.is_some_and(|name| name.parse::<SetId>().is_ok())
    };
    match names.is_empty() || names.iter().any(is_set) {
        true => Ok(()),
        false => Err(Foreign::NotOurs.into()),
    }
}

fn swapped(at: &At, folder: &Path, image: &Path, error: &io::Error) -> EngineError {
    let text = at.text(texts::FOLDER_SWAPPED, image);
    EngineError {
        kind: EngineErrorKind::Unsupported,
        text: text.with("folder", folder.display()).with("cause", error),
    }
}
