//! Our locks and images, seen by QEMU's tools; QEMU's locks, seen by us.

use std::path::Path;

use groupshot::engine::EngineErrorKind;
use groupshot::engine::failure::At;
use groupshot::engine::locks::{FrozenLock, ImageLock, is_written};
use groupshot::engine::qcow2::header::Header;
use groupshot::engine::qcow2::writer::{NewImage, SIZE_MAX};
use groupshot::inventory::Format;

use crate::support::tools::{self, Opened, try_run};

fn raw(dir: &Path) -> std::path::PathBuf {
    let image = dir.join("a.raw");
    std::fs::write(&image, vec![5; 1 << 20]).unwrap();
    image
}

const WRITE: [&str; 4] = ["-f", "raw", "-c", "write 0 512"];

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn qemu_does_not_write_what_we_hold() {
    let dir = tempfile::tempdir().unwrap();
    let image = raw(dir.path());
    let args = [&WRITE[..], &[image.to_str().unwrap()]].concat();
    let lock = ImageLock::take(&At::new("m", "disk0"), &image).unwrap();
    let (ok, text) = try_run("qemu-io", &args);
    assert!(
        !ok && text.contains("Failed to get \"write\" lock"),
        "{text}"
    );
    drop(lock);
    tools::run("qemu-io", &args);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn we_do_not_take_what_qemu_has_open() {
    let dir = tempfile::tempdir().unwrap();
    let image = raw(dir.path());
    let at = At::new("m", "disk0");
    let writer = Opened::new(&image, &[]);
    assert!(is_written(&image).unwrap());
    let error = ImageLock::take(&at, &image).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Locked);
    assert!(error.text.english().contains("a.raw"), "{error}");
    assert!(FrozenLock::take(&at, &image).is_err());
    drop(writer);
    let reader = Opened::new(&image, &["-r"]);
    assert!(
        !is_written(&image).unwrap(),
        "who only reads runs no machine"
    );
    FrozenLock::take(&at, &image).unwrap();
    drop(reader);
    ImageLock::take(&at, &image).unwrap();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn qemu_reads_and_does_not_write_what_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let image = raw(dir.path());
    let name = image.to_str().unwrap();
    let _frozen = FrozenLock::take(&At::new("m", "disk0"), &image).unwrap();
    let (ok, text) = try_run("qemu-io", &[&WRITE[..], &[name]].concat());
    assert!(
        !ok && text.contains("Failed to get \"write\" lock"),
        "{text}"
    );
    tools::run(
        "qemu-io",
        &["-r", "-f", "raw", "-c", "read -P 5 0 512", name],
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn qemu_accepts_every_image_that_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let base = raw(dir.path());
    for size in [
        0,
        1,
        512,
        1000,
        1 << 20,
        512 << 20,
        (512 << 20) + 1,
        64 << 40,
        SIZE_MAX,
    ] {
        for backing in [None, Some((base.as_path(), Format::Raw))] {
            let path = dir.path().join("new.qcow2");
            let file = std::fs::File::create(&path).unwrap();
            NewImage { size, backing }.write(&file).unwrap();
            let info = tools::run("qemu-img", &["info", path.to_str().unwrap()]);
            let expected = format!("({} bytes)", size.next_multiple_of(512));
            assert!(info.contains(&expected), "{info}");
            assert_eq!(
                info.contains("backing file format: raw"),
                backing.is_some(),
                "{info}"
            );
            tools::assert_clean(&path);
            let header = Header::load(&std::fs::File::open(&path).unwrap())
                .unwrap()
                .unwrap();
            assert_eq!(header.size, size.next_multiple_of(512));
        }
    }
    let too_large = NewImage {
        size: SIZE_MAX + 1,
        backing: None,
    };
    assert!(!too_large.fits());
}
