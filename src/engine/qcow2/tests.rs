//! Headers from hostile bytes, and chains with every fault that import must name.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::chain::{self, DEPTH_MAX, Layer, Roots};
use super::editor::{self, Editor};
use super::header::{Header, HeaderError};
use super::writer::NewImage;
use super::{EXT_BITMAPS, EXT_DATA_FILE};
use crate::engine::failure::At;
use crate::engine::{EngineError, EngineErrorKind};
use crate::inventory::Format;

const SIZE: u64 = 1 << 20;

/// The first cluster of a new image over `/images/base.raw`.
fn good() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = qcow2(
        dir.path(),
        "a.qcow2",
        Some("/images/base.raw"),
        Some(Format::Raw),
    );
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(1 << 16);
    bytes
}

/// An image whose backing name is written as given, relative or not.
fn qcow2(dir: &Path, name: &str, backing: Option<&str>, format: Option<Format>) -> PathBuf {
    let path = dir.join(name);
    let file = File::create(&path).unwrap();
    let backing = backing.map(|b| (Path::new(b), format.unwrap_or(Format::Qcow2)));
    NewImage {
        size: SIZE,
        backing,
    }
    .write(&file)
    .unwrap();
    if format.is_none() {
        // An extension type that nobody knows in place of the backing format.
        file.write_all_at(&0x1234_5678_u32.to_be_bytes(), 112)
            .unwrap();
    }
    path
}

fn raw(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, vec![0; 1000]).unwrap();
    path
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn a_header_is_read_as_it_was_written() {
    let header = Header::parse(&good()).unwrap();
    assert_eq!(
        (header.version, header.cluster_bits, header.size),
        (3, 16, SIZE)
    );
    assert_eq!(header.backing.as_deref(), Some(&b"/images/base.raw"[..]));
    assert_eq!(header.backing_format().as_deref(), Some("raw"));
    assert_eq!(header.refusal(), None);
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    use HeaderError::{Damaged, NotQcow2, Version};
    let be = |n: u32| n.to_be_bytes();
    let wide = |n: u64| n.to_be_bytes();
    let table: &[(&str, usize, &[u8], HeaderError)] = &[
        ("magic", 0, b"VMDK", NotQcow2),
        ("version 1", 4, &be(1), Version),
        ("version 4", 4, &be(4), Version),
        ("backing inside the fixed part", 8, &wide(50), Damaged),
        ("backing behind the cluster", 8, &wide(65_530), Damaged),
        ("backing far away", 8, &wide(u64::MAX), Damaged),
        ("backing name too long", 16, &be(1024), Damaged),
        ("cluster bits 8", 20, &be(8), Damaged),
        ("cluster bits 22", 20, &be(22), Damaged),
        ("cluster bits huge", 20, &be(u32::MAX), Damaged),
        ("size beyond i64", 24, &wide(u64::MAX), Damaged),
        ("size beyond L1", 24, &wide(2 << 29), Damaged),
        ("L1 too long", 36, &be((4 << 20) + 1), Damaged),
        ("L1 on the header", 40, &wide(0), Damaged),
        ("L1 not on a cluster", 40, &wide(65_537), Damaged),
        ("refcount order 7", 96, &be(7), Damaged),
        ("header length 96", 100, &be(96), Damaged),
        ("header length odd", 100, &be(113), Damaged),
        ("header length beyond cluster", 100, &be(1 << 17), Damaged),
        ("extension too long", 116, &be(u32::MAX), Damaged),
        ("extension over the backing name", 116, &be(64), Damaged),
    ];
    for (what, at, value, error) in table {
        let mut bytes = good();
        set(&mut bytes, *at, value);
        assert_eq!(Header::parse(&bytes), Err(*error), "{what}");
    }
    for length in 0..136 {
        assert!(Header::parse(&good()[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn images_that_this_program_does_not_take_say_why() {
    let table: &[(usize, &[u8], Option<&str>)] = &[
        (35, &[1], Some("encrypted")),
        (35, &[2], Some("encrypted")),
        (63, &[1], Some("internal snapshots")),
        (79, &[1], Some("closed cleanly")),
        (79, &[2], Some("marked corrupt")),
        (79, &[4], Some("external data file")),
        (79, &[16], None), // extended L2
        (79, &[32], Some("does not know")),
        (72, &[128], Some("does not know")),
        (
            112,
            &EXT_DATA_FILE.to_be_bytes(),
            Some("external data file"),
        ),
        (87, &[1], None), // lazy refcounts
    ];
    for (at, value, word) in table {
        let mut bytes = good();
        set(&mut bytes, *at, value);
        let refusal = Header::parse(&bytes).unwrap().refusal();
        match (refusal, word) {
            (Some(message), Some(word)) => assert!(message.en_us.contains(word), "{message:?}"),
            (refusal, word) => assert_eq!((refusal, *word), (None, None), "{at} {value:?}"),
        }
    }
    // The feature and the field that tells how clusters are packed go together.
    let mut bytes = good();
    set(&mut bytes, 79, &[8]);
    assert_eq!(Header::parse(&bytes), Err(HeaderError::Damaged));
    set(&mut bytes, 104, &[1]);
    assert_eq!(Header::parse(&bytes).unwrap().refusal(), None);
}

/// A header with a bitmaps extension whose directory stands at 64 KiB and is `directory`.
fn with_bitmaps(directory: &[u8], count: u32, valid: bool) -> Result<Option<String>, HeaderError> {
    let mut bytes = good();
    bytes.resize(1 << 16, 0);
    let mut data = Vec::new();
    data.extend_from_slice(&count.to_be_bytes());
    data.extend_from_slice(&[0; 4]);
    data.extend_from_slice(&u64::try_from(directory.len()).unwrap().to_be_bytes());
    data.extend_from_slice(&65_536_u64.to_be_bytes());
    set(&mut bytes, 8, &[0; 12]);
    set(&mut bytes, 112, &EXT_BITMAPS.to_be_bytes());
    set(&mut bytes, 116, &24_u32.to_be_bytes());
    set(&mut bytes, 120, &data);
    set(&mut bytes, 144, &[0; 8]);
    set(&mut bytes, 95, &[u8::from(valid)]);
    bytes.extend_from_slice(directory);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    let open = File::open(file.path()).unwrap();
    let header = Header::load(&open).unwrap().unwrap();
    header.bitmap_in_use(&open).unwrap()
}

#[test]
fn a_bitmap_in_use_is_found_and_a_stored_one_is_kept() {
    let entry = |flags: u32| {
        let mut entry = vec![0; 12];
        entry.extend_from_slice(&flags.to_be_bytes());
        entry.extend_from_slice(&[1, 16, 0, 3]);
        entry.extend_from_slice(&[0; 4]);
        entry.extend_from_slice(b"rp1\0\0\0\0\0");
        entry
    };
    let (stored, in_use) = (entry(2), entry(3));
    let both = [stored.clone(), in_use.clone()].concat();
    let named = Ok(Some("rp1".to_owned()));
    assert_eq!(with_bitmaps(&stored, 1, true), Ok(None));
    assert_eq!(with_bitmaps(&in_use, 1, true), named);
    assert_eq!(with_bitmaps(&both, 2, true), named);
    assert_eq!(
        with_bitmaps(&in_use, 1, false),
        Ok(None),
        "stale: QEMU drops it"
    );
    for (directory, count) in [(&stored, 2), (&stored, u32::MAX), (&Vec::new(), 1)] {
        assert_eq!(
            with_bitmaps(directory, count, true),
            Err(HeaderError::Damaged)
        );
    }
}

#[test]
fn a_backing_name_is_replaced_with_everything_else_kept() {
    let header = Header::parse(&good()).unwrap();
    let mut area = header
        .with_backing(b"/elsewhere/longer/base.qcow2", "qcow2")
        .unwrap();
    area.resize(1 << 16, 0);
    let anew = Header::parse(&area).unwrap();
    assert_eq!(
        anew.backing.as_deref(),
        Some(&b"/elsewhere/longer/base.qcow2"[..])
    );
    assert_eq!(anew.backing_format().as_deref(), Some("qcow2"));
    assert_eq!((anew.size, anew.l1_offset), (header.size, header.l1_offset));
    assert_eq!(header.with_backing(&[b'a'; 1024], "raw"), None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_fail_otherwise(
        changes in prop::collection::vec((0_usize..160, any::<u8>()), 0..8),
        length in 0_usize..70_000,
    ) {
        let mut bytes = good();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(length);
        if let Ok(header) = Header::parse(&bytes) {
            let _ = header.refusal();
            let _ = header.with_backing(b"/a", "raw");
        }
    }
}

fn open(top: &Path) -> Result<Vec<Layer>, EngineError> {
    open_in(top, &Roots::default())
}

fn open_in(top: &Path, roots: &Roots) -> Result<Vec<Layer>, EngineError> {
    chain::open(&At::new("web-1", "disk0"), top, Format::Qcow2, roots)
}

#[test]
fn a_chain_is_read_from_the_top_down() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let base = raw(dir.path(), "base.raw");
    let middle = qcow2(
        dir.path(),
        "sub/middle.qcow2",
        Some("../base.raw"),
        Some(Format::Raw),
    );
    let top = qcow2(
        dir.path(),
        "top.qcow2",
        Some("sub/middle.qcow2"),
        Some(Format::Qcow2),
    );
    let layers = open(&top).unwrap();
    let files: Vec<_> = layers
        .iter()
        .map(|l| l.file.canonicalize().unwrap())
        .collect();
    assert_eq!(
        files,
        [&top, &middle, &base].map(|p| p.canonicalize().unwrap())
    );
    assert_eq!(layers[2].size, 1024, "whole sectors");
}

#[test]
fn every_broken_chain_names_its_fault_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    raw(at, "base.raw");
    raw(at, "base.img");
    let magic = qcow2(at, "claims.raw", None, Some(Format::Raw));
    let protocol = |name: &str, backing: &str| qcow2(at, name, Some(backing), Some(Format::Raw));
    let other_format = protocol("vmdk.qcow2", "base.raw");
    File::options()
        .write(true)
        .open(&other_format)
        .unwrap()
        .write_all_at(b"vdi", 120)
        .unwrap();
    let pipe = at.join("pipe.raw");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    use EngineErrorKind::{Missing, Unsupported};
    let table = [
        (
            qcow2(at, "loop.qcow2", Some("loop.qcow2"), Some(Format::Qcow2)),
            Unsupported,
            "comes back",
        ),
        (
            protocol("gone.qcow2", "no.raw"),
            Missing,
            "no.raw (named by",
        ),
        (protocol("json.qcow2", "json:{}"), Unsupported, "json:{}"),
        (
            protocol("nbd.qcow2", "nbd://host/a"),
            Unsupported,
            "nbd://host/a",
        ),
        (
            protocol("dir.qcow2", "/"),
            Unsupported,
            "not a regular file",
        ),
        (
            protocol("pipe.qcow2", "pipe.raw"),
            Unsupported,
            "not a regular file",
        ),
        (
            qcow2(at, "nofmt-pipe.qcow2", Some("pipe.raw"), None),
            Unsupported,
            "not a regular file",
        ),
        (other_format, Unsupported, "format vdi"),
        (
            qcow2(at, "nofmt.qcow2", Some("base.img"), None),
            Unsupported,
            "does not record",
        ),
        (
            qcow2(at, "lies.qcow2", magic.to_str(), None),
            Unsupported,
            "does not record",
        ),
        (raw(at, "plain.qcow2"), Unsupported, "not a qcow2 image"),
        (at.join("nothing.qcow2"), Missing, "nothing.qcow2"),
    ];
    for (top, kind, word) in table {
        let error = open(&top).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let text = error.text.english();
        assert!(
            text.contains(word) && text.contains("web-1") && text.contains("disk0"),
            "{text}"
        );
    }
    let by_suffix = qcow2(at, "nofmt-ok.qcow2", Some("base.raw"), None);
    assert_eq!(open(&by_suffix).unwrap()[1].format, Format::Raw);
}

#[test]
fn a_chain_has_a_greatest_depth() {
    let dir = tempfile::tempdir().unwrap();
    let mut top = qcow2(dir.path(), "0.qcow2", None, Some(Format::Qcow2));
    for n in 1..DEPTH_MAX {
        top = qcow2(
            dir.path(),
            &format!("{n}.qcow2"),
            top.to_str(),
            Some(Format::Qcow2),
        );
    }
    assert_eq!(open(&top).unwrap().len(), DEPTH_MAX);
    let deeper = qcow2(
        dir.path(),
        "deeper.qcow2",
        top.to_str(),
        Some(Format::Qcow2),
    );
    let error = open(&deeper).unwrap_err();
    assert!(error.text.english().contains("deeper than 64"), "{error}");
}

#[test]
fn a_chain_stays_inside_the_configured_folders() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let base = raw(outside.path(), "base.raw");
    let link = dir.path().join("link.raw");
    std::os::unix::fs::symlink(&base, &link).unwrap();
    let roots = Roots::new(&[dir.path().to_owned()]);
    for (n, backing) in [&base, &link].into_iter().enumerate() {
        let top = qcow2(
            dir.path(),
            &format!("{n}.qcow2"),
            backing.to_str(),
            Some(Format::Raw),
        );
        assert!(open(&top).is_ok());
        let error = open_in(&top, &roots).unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::Denied, "{error}");
    }
}

#[test]
fn what_is_damaged_is_found_without_writing() {
    let dir = tempfile::tempdir().unwrap();
    let path = qcow2(dir.path(), "a.qcow2", None, Some(Format::Qcow2));
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let header = Header::load(&open()).unwrap().unwrap();
    let mut editor = Editor::open(open(), header).unwrap();
    editor.clear(0, true).unwrap();
    editor.begin().unwrap();
    editor.end().unwrap();
    let header = Header::load(&open()).unwrap().unwrap();
    editor::check(&open(), &header).unwrap();
    let whole = fs::read(&path).unwrap();
    // A count of zero for the header, and an entry that leads behind the end.
    let table = usize::try_from(header.refcount_offset).unwrap();
    let block = u64::from_be_bytes(whole[table..table + 8].try_into().unwrap());
    for (at, bytes) in [(block, vec![0; 2]), (header.l1_offset, vec![0x40; 8])] {
        open().write_all_at(&bytes, at).unwrap();
        let before = fs::read(&path).unwrap();
        let error = editor::check(&open(), &header).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, &whole).unwrap();
    }
}
