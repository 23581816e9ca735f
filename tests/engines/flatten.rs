//! Chains as one file: whatever the chain is made of, QEMU sees the same disk.

use std::ffi::OsStr;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use groupshot::document::sha256;
use groupshot::engine::failure::At;
use groupshot::engine::flatten::flatten;
use groupshot::engine::qcow2::chain::{self, Roots};
use groupshot::engine::space::Reserve;
use groupshot::engine::{EngineError, EngineErrorKind, Flat, Target};
use groupshot::inventory::Format;

use crate::support::tools::{assert_clean, assert_equal, run, write};

const NO_RESERVE: Reserve = Reserve {
    bytes: 0,
    percent: 0,
};

fn attempt(
    top: &Path,
    format: Format,
    target: &Path,
    reserve: &Reserve,
    mut step: impl FnMut(u64, u64) -> ControlFlow<()> + Send,
) -> Result<Option<Flat>, EngineError> {
    let at = At::new("web-1", "disk0");
    let layers = chain::open(&at, top, format, &Roots::default()).unwrap();
    let target = Target {
        file: target,
        shown: target,
    };
    flatten(&at, &layers, target, reserve, &mut step)
}

fn flat(top: &Path, format: Format, target: &Path) -> Flat {
    let mut last = (0, 0);
    let flat = attempt(top, format, target, &NO_RESERVE, |done, total| {
        assert!(done <= total, "{done} of {total}");
        last = (done, total);
        ControlFlow::Continue(())
    });
    let flat = flat.unwrap().unwrap();
    assert_eq!(last.0, last.1, "all of it was told");
    assert_eq!(flat.length, target.metadata().unwrap().len());
    assert_eq!(flat.sha256, sha256(&std::fs::read(target).unwrap()));
    flat
}

/// The disks that are compared: name, top file, format.
fn zoo(dir: &Path) -> Vec<(&'static str, PathBuf, Format)> {
    let path = |name: &str| dir.join(name);
    let img = |args: &[&str]| run("qemu-img", args);
    let text = |p: &PathBuf| p.to_str().unwrap().to_owned();
    let mut zoo = Vec::new();

    let raw = path("odd.raw");
    img(&["create", "-q", "-f", "raw", &text(&raw), "9999872"]);
    write(&raw, "raw", 1, "0", "100k");
    write(&raw, "raw", 2, "9M", "512");
    let file = File::options().write(true).open(&raw).unwrap();
    file.write_all_at(&[7; 100], 9_999_872).unwrap(); // no whole sector
    zoo.push(("a raw file of odd length", raw.clone(), Format::Raw));

    let plain = path("plain.qcow2");
    img(&["create", "-q", "-f", "qcow2", &text(&plain), "64M"]);
    write(&plain, "qcow2", 3, "1M", "3M");
    write(&plain, "qcow2", 0, "2M", "1M"); // stored zeroes
    zoo.push(("a plain qcow2", plain.clone(), Format::Qcow2));

    let packed = path("packed.qcow2");
    img(&[
        "convert",
        "-q",
        "-c",
        "-O",
        "qcow2",
        &text(&plain),
        &text(&packed),
    ]);
    zoo.push(("compressed clusters", packed.clone(), Format::Qcow2));

    let small = path("small-clusters.qcow2");
    let options = "cluster_size=4k,compat=0.10";
    img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        &text(&small),
        "10M",
    ]);
    write(&small, "qcow2", 4, "5k", "3k");
    write(&small, "qcow2", 5, "9M", "1M");
    zoo.push(("clusters of 4 KiB, version 2", small.clone(), Format::Qcow2));

    let large = path("large-clusters.qcow2");
    let options = "cluster_size=2M";
    img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        &text(&large),
        "33M",
    ]);
    write(&large, "qcow2", 6, "31M", "1536k");
    zoo.push(("clusters of 2 MiB", large, Format::Qcow2));

    for bits in [9, 12, 14, 16, 21] {
        for (how, extended) in [("zlib", false), ("zstd", false), ("zstd", true)] {
            if extended && bits < 14 {
                continue; // QEMU has no subclusters of less than a sector
            }
            let name = format!("{how}-{bits}-{extended}.qcow2");
            let file = path(&name);
            let options = format!(
                "compression_type={how},cluster_size={},extended_l2={}",
                1 << bits,
                if extended { "on" } else { "off" }
            );
            let convert = ["convert", "-q", "-c", "-O", "qcow2", "-o", &options];
            img(&[&convert[..], &[&text(&plain), &text(&file)]].concat());
            // Over packed clusters, and parts of clusters that have no other.
            for (n, at) in ["1030k", "2500k", "40M", "50000k"].into_iter().enumerate() {
                write(&file, "qcow2", 0x30 + n as u8, at, "3k");
            }
            let discard = ["-f", "qcow2", "-c", "discard 1600k 128k", "-c"];
            let zero = ["write -z 2600k 5k", &text(&file)];
            run("qemu-io", &[&discard[..], &zero].concat());
            zoo.push((Box::leak(name.into_boxed_str()), file, Format::Qcow2));
        }
    }

    let parts = path("parts.qcow2");
    let options = "extended_l2=on,cluster_size=64k";
    let backed = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-o", options];
    img(&[&backed[..], &["-b", &text(&plain), &text(&parts)]].concat());
    for at in (1000..3000).step_by(74) {
        let write = format!("write -P {} {at}k 2k", 1 + at % 250);
        let zero = format!("write -z {}k 6k", at + 40);
        let args = ["-f", "qcow2", "-c", &write, "-c", &zero, &text(&parts)];
        run("qemu-io", &args);
    }
    zoo.push(("subclusters over a backing file", parts, Format::Qcow2));

    let mut below = (plain, "qcow2");
    for n in 0..3 {
        let layer = path(&format!("layer{n}.qcow2"));
        let size = ["70M", "50M", "60M"][n];
        let args = ["create", "-q", "-f", "qcow2", "-F", below.1, "-b"];
        let names = [text(&below.0), text(&layer)];
        img(&[&args[..], &[&names[0], &names[1], size]].concat());
        write(
            &layer,
            "qcow2",
            0x10 + n as u8,
            &format!("{}k", 900 + 700 * n),
            "300k",
        );
        let zero = format!("write -z {}M 1M", 1 + n);
        run("qemu-io", &["-f", "qcow2", "-c", &zero, &names[1]]);
        run(
            "qemu-io",
            &["-f", "qcow2", "-c", "discard 3500k 256k", &names[1]],
        );
        below = (layer, "qcow2");
    }
    zoo.push(("grown, shrunk, zeroed layers", below.0, Format::Qcow2));

    let over_packed = path("over-packed.qcow2");
    let args = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    img(&[&args[..], &[&text(&packed), &text(&over_packed)]].concat());
    write(&over_packed, "qcow2", 8, "1100k", "4k");
    zoo.push((
        "a layer over compressed clusters",
        over_packed,
        Format::Qcow2,
    ));

    let over_raw = path("over-raw.qcow2");
    let args = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    img(&[&args[..], &[&text(&raw), &text(&over_raw), "20M"]].concat());
    write(&over_raw, "qcow2", 9, "12M", "64k");
    zoo.push(("a layer larger than its raw base", over_raw, Format::Qcow2));

    let empty = path("empty.qcow2");
    img(&["create", "-q", "-f", "qcow2", &text(&empty), "0"]);
    zoo.push(("no size at all", empty, Format::Qcow2));
    zoo
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_kind_of_chain_becomes_one_clean_equal_image() {
    let dir = tempfile::tempdir().unwrap();
    for (n, (name, top, format)) in zoo(dir.path()).into_iter().enumerate() {
        let target = dir.path().join(format!("flat{n}.qcow2"));
        let flat = flat(&top, format, &target);
        assert_clean(&target);
        let info = run("qemu-img", &[OsStr::new("info"), target.as_os_str()]);
        assert!(!info.contains("backing file"), "{name}: {info}");
        if flat.size > 0 {
            assert_equal((&top, format.as_str()), (&target, "qcow2"));
        }
        // No larger than what QEMU makes of it, but for its preallocated tables.
        let theirs = dir.path().join("theirs.qcow2");
        let args = ["convert", "-q", "-f", format.as_str(), "-O", "qcow2"].map(OsStr::new);
        run(
            "qemu-img",
            &[&args[..], &[top.as_os_str(), theirs.as_os_str()]].concat(),
        );
        let theirs = theirs.metadata().unwrap().len();
        assert!(
            flat.length <= theirs + (256 << 10),
            "{name}: {} {theirs}",
            flat.length
        );
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_sparse_disk_of_a_terabyte_costs_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("sparse.raw");
    let file = File::create_new(&raw).unwrap();
    file.set_len(1 << 40).unwrap();
    for place in [0, 3 << 29, (1 << 40) - 4096] {
        file.write_all_at(&[5; 4096], place).unwrap();
    }
    let over = dir.path().join("over.qcow2");
    let args = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"].map(OsStr::new);
    run(
        "qemu-img",
        &[&args[..], &[raw.as_os_str(), over.as_os_str()]].concat(),
    );
    write(&over, "qcow2", 6, "700G", "64k");
    for (top, format, clusters) in [(&raw, Format::Raw, 3), (&over, Format::Qcow2, 4)] {
        let target = dir.path().join(format!("flat-{}.qcow2", format.as_str()));
        let began = Instant::now();
        let flat = flat(top, format, &target);
        let took = began.elapsed();
        // Whoever reads every byte of it needs half an hour.
        assert!(took.as_secs() < 60, "{took:?}");
        assert_eq!(flat.size, 1 << 40);
        // Header, data and an L2 table each, L1, two for refcounts.
        assert_eq!(flat.length, (1 + 2 * clusters + 1 + 2) * 65536);
        assert_clean(&target);
        assert_equal((top, format.as_str()), (&target, "qcow2"));
    }
}

fn filled(dir: &Path, mebibytes: usize) -> PathBuf {
    let raw = dir.join("filled.raw");
    let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    std::fs::write(&raw, block.repeat(mebibytes)).unwrap();
    raw
}

#[test]
fn whoever_gives_up_finds_nothing_left() {
    let dir = tempfile::tempdir().unwrap();
    let raw = filled(dir.path(), 8);
    let target = dir.path().join("flat.qcow2");
    let (mut calls, mut all) = (0_u32, 0_u32);
    attempt(&raw, Format::Raw, &target, &NO_RESERVE, |_, _| {
        all += 1;
        ControlFlow::Continue(())
    })
    .unwrap()
    .unwrap();
    std::fs::remove_file(&target).unwrap();
    assert!(all > 8, "asked at every batch: {all}");
    for stop in 0..all {
        calls = 0;
        let given_up = attempt(&raw, Format::Raw, &target, &NO_RESERVE, |_, _| {
            calls += 1;
            if calls > stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(given_up, Ok(None));
        assert!(!target.exists(), "at call {stop}");
    }
    assert!(calls > 0);
}

#[test]
fn space_is_asked_for_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let raw = filled(dir.path(), 1);
    let target = dir.path().join("flat.qcow2");
    let all = Reserve {
        bytes: u64::MAX,
        percent: 0,
    };
    let error = attempt(&raw, Format::Raw, &target, &all, |_, _| {
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Full);
    assert!(error.text.english().contains("flat.qcow2"), "{error}");
    assert!(!target.exists());
}

#[test]
fn a_file_that_is_there_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let raw = filled(dir.path(), 1);
    let target = dir.path().join("flat.qcow2");
    std::fs::write(&target, b"mine").unwrap();
    let inode = target.metadata().unwrap().ino();
    let step = |_, _| ControlFlow::Continue(());
    assert!(attempt(&raw, Format::Raw, &target, &NO_RESERVE, step).is_err());
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    assert_eq!(target.metadata().unwrap().ino(), inode);
}
