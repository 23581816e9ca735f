//! What disks a QEMU has, and which file each of them is: device, filters, format node, file.
//!
//! Read from `query-block` and `query-named-block-nodes`. Where a filter lies on top, QEMU names it by the options of all
//! that is under it (`json:{…}`), so these are followed down to the file. Names of files may be relative, of another mount
//! namespace, links, or sets of descriptors: what they mean is asked of the process itself, and compared by device and
//! inode.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::inventory::Format as Kind;

use super::answer::{Block, FdSet, List, Node, NodeOptions};
use super::peer::{self, FileId, Peer};

/// Most filters on each other that are followed.
const FILTERS_MAX: usize = 16;
/// Drivers that hold no format: what they name is a file of the host.
const FILES: &[&str] = &["file", "host_device"];
const SETS: &str = "/dev/fdset/";
const JSON: &str = "json:";
/// Where the flash of the firmware is among the devices, by kind of machine.
const FLASH: &[&str] = &["/machine/system.flash", "/machine/virt.flash"];

/// A disk as QEMU describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// How its operator knows it: the name of the drive or the path of the device.
    pub(crate) name: String,
    /// The guest can write it, and it is neither a medium that can be taken out nor the flash of the firmware.
    pub(crate) is_captured: bool,
    /// The driver of its format node: `qcow2`, `raw`, or another one.
    pub(crate) driver: String,
    /// The name of the file that it is stored in; `None` if that is no file, or cannot be told.
    pub(crate) file: Option<String>,
    /// Virtual size in bytes.
    pub(crate) size: u64,
    /// The name of the node on top: of a filter, or of the format node.
    pub(crate) root: String,
    /// Its format node, unless that cannot be told.
    pub(crate) format: Option<Format>,
    /// Device, node and file as QEMU names them.
    pub(crate) key: String,
}

/// A node that holds a format, or a file that is one by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    /// Its name.
    pub(crate) node: String,
    /// It goes around the page cache of the host.
    pub(crate) direct: bool,
    /// It writes no cache out, whatever the guest asks for.
    pub(crate) no_flush: bool,
    /// What becomes of zeroes that the guest writes.
    pub(crate) detect_zeroes: String,
}

impl Device {
    /// Where it is stored, in words.
    pub(crate) fn place(&self) -> &str {
        self.file.as_deref().unwrap_or("no file")
    }
}

/// The disks in the answers to `query-block` and to `query-named-block-nodes`. What is not understood of one is left out
/// of it, never the disk.
pub(crate) fn devices(blocks: &List<Block>, nodes: &List<Node>) -> Vec<Device> {
    let nodes: Vec<_> = nodes.iter().collect();
    let found = blocks.iter().filter_map(|block| device(block, &nodes));
    found.collect()
}

fn device(block: &Block, nodes: &[&Node]) -> Option<Device> {
    let nothing = Node::default();
    // A drive without a medium has nothing to lose.
    let inserted = block.inserted.as_ref()?.0.as_ref().unwrap_or(&nothing);
    let (device, qdev) = (block.device.text(), block.qdev.text());
    let name = [device, qdev].into_iter().find(|name| !name.is_empty());
    let (driver, file) = stored(inserted, nodes);
    let image = inserted.image.0.as_ref();
    let root = inserted.node_name.text();
    let key = [device, qdev, root, inserted.file.text()].join("\n");
    Some(Device {
        name: name.unwrap_or("a disk without a name").to_owned(),
        is_captured: !inserted.ro.is_so()
            && !block.removable.is_so()
            && !is_flash(device, block.qdev.0.as_deref()),
        format: below(inserted, file.as_deref(), nodes).and_then(format),
        driver,
        file,
        size: image.and_then(|image| image.virtual_size.0).unwrap_or(0),
        root: root.to_owned(),
        key,
    })
}

/// The format nodes in the answer to `query-named-block-nodes`, each with the name of its file.
pub(super) fn formats(nodes: &List<Node>) -> Vec<(String, Option<String>)> {
    let formats = nodes.iter().filter(|node| is_format(node.drv.text()));
    formats
        .map(|node| (node.node_name.text().to_owned(), stored(node, &[]).1))
        .collect()
}

/// The format node of a disk of this file, under this node.
fn below<'a>(top: &'a Node, file: Option<&str>, nodes: &[&'a Node]) -> Option<&'a Node> {
    let driver = top.drv.text();
    if is_format(driver) {
        return Some(top);
    }
    let mut formats = nodes.iter().filter(|node| is_format(node.drv.text()));
    let found = formats.find(|node| file.is_some() && stored(node, &[]).1.as_deref() == file);
    let found = found.copied();
    found.or_else(|| FILES.contains(&driver).then_some(top))
}

fn format(node: &Node) -> Option<Format> {
    let cache = node.cache.0.as_ref();
    let name = node.node_name.text();
    (!name.is_empty()).then(|| Format {
        node: name.to_owned(),
        direct: cache.is_some_and(|cache| cache.direct.is_so()),
        no_flush: cache.is_some_and(|cache| cache.no_flush.is_so()),
        detect_zeroes: node.detect_zeroes.text().to_owned(),
    })
}

/// Whether it holds the variables of the firmware: by its device, or by the name that QEMU gives such a drive.
fn is_flash(name: &str, device: Option<&str>) -> bool {
    match device.filter(|device| !device.is_empty()) {
        Some(device) => FLASH.iter().any(|flash| device.starts_with(flash)),
        None => name
            .strip_prefix("pflash")
            .is_some_and(|unit| unit.parse::<u8>().is_ok()),
    }
}

/// The driver of the format node and the name of its file.
fn stored(node: &Node, nodes: &[&Node]) -> (String, Option<String>) {
    let driver = node.drv.text().to_owned();
    let Some(file) = &node.file.0 else {
        return (driver, None);
    };
    if let Some(options) = file.strip_prefix(JSON) {
        let options = serde_json::from_str(options).unwrap_or_default();
        return followed(&options).unwrap_or((driver, None));
    }
    if is_format(&driver) {
        return (driver, Some(file.clone()));
    }
    // A filter that QEMU names as the file under it, or an image without a format node.
    let mut same = nodes
        .iter()
        .filter(|node| node.file.0.as_ref() == Some(file));
    let below = same.find_map(|node| Some(node.drv.text()).filter(|driver| is_format(driver)));
    match below {
        Some(format) => (format.to_owned(), Some(file.clone())),
        None if FILES.contains(&driver.as_str()) => {
            (Kind::Raw.as_str().to_owned(), Some(file.clone()))
        }
        None => (driver, None),
    }
}

/// The same by the options of a node and of all under it.
fn followed(options: &NodeOptions) -> Option<(String, Option<String>)> {
    let nothing = NodeOptions::default();
    let mut at = options;
    let mut format = None;
    for _ in 0..FILTERS_MAX {
        let driver = at.driver.0.as_deref()?;
        if FILES.contains(&driver) {
            let file = at.filename.0.clone()?;
            let format = format.unwrap_or(Kind::Raw.as_str()).to_owned();
            return Some((format, Some(file)));
        }
        if is_format(driver) {
            format = Some(driver);
        }
        match &at.file {
            Some(below) => at = below.0.as_ref().unwrap_or(&nothing),
            None => return Some((format.unwrap_or(driver).to_owned(), None)),
        }
    }
    None
}

fn is_format(driver: &str) -> bool {
    [Kind::Qcow2, Kind::Raw]
        .iter()
        .any(|f| f.as_str() == driver)
}

/// Finds out which files the disks of a process are. Blocks.
pub(crate) struct Finder<'a> {
    pub(crate) peer: Option<&'a Peer>,
    /// What the process has open, if this one may see that.
    pub(crate) open: Option<&'a BTreeSet<FileId>>,
    /// The answer to `query-fdsets`.
    pub(crate) sets: &'a List<FdSet>,
}

impl Finder<'_> {
    /// The file that QEMU means by this name, which it must have open.
    ///
    /// # Errors
    /// There is none, it has it not open, or nobody can tell.
    pub(crate) fn find(&self, name: &str) -> io::Result<FileId> {
        let (Some(peer), Some(open)) = (self.peer, self.open) else {
            return match Path::new(name) {
                path if path.is_absolute() && !name.starts_with(SETS) => peer::id(path),
                _ => Err(io::Error::other(
                    "its process cannot be looked at, and the name alone does not tell the file",
                )),
            };
        };
        let found = match name.strip_prefix(SETS) {
            Some(set) => self.of_set(peer, set)?,
            None => peer.named(Path::new(name))?,
        };
        match open.contains(&found) {
            true => Ok(found),
            false => Err(io::Error::other(
                "QEMU has another file open that had this name before",
            )),
        }
    }

    fn of_set(&self, peer: &Peer, set: &str) -> io::Result<FileId> {
        let number = set.parse::<u64>().ok();
        let mut sets = self.sets.iter();
        let set = sets.find(|set| number.is_some() && set.fdset_id.0 == number);
        let all = set.into_iter().flat_map(|set| set.fds.iter());
        let numbers = all.filter_map(|it| it.fd.0);
        let files = numbers
            .map(|fd| peer.descriptor(fd))
            .collect::<io::Result<BTreeSet<_>>>()?;
        let one = files.first().filter(|_| files.len() == 1);
        one.copied()
            .ok_or_else(|| io::Error::other("its set of descriptors holds no single file"))
    }
}

/// Whether the two answers of a hostile monitor are read without harm: for the fuzz target.
#[must_use]
pub fn fuzz(text: &str) -> bool {
    let (blocks, nodes) = text.split_once('\n').unwrap_or((text, ""));
    let blocks: List<Block> = serde_json::from_str(blocks).unwrap_or_default();
    let nodes = serde_json::from_str(nodes).unwrap_or_default();
    devices(&blocks, &nodes).len() <= blocks.iter().count()
}
