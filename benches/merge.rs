//! Row 8: a merge of an overlay into the file under it, over `cp` of as many bytes and one fsync, on the same disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use groupshot::engine::content;
use groupshot::engine::failure::At;
use groupshot::engine::merge::{Inodes, Merge, Merged, Watch};
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::qcow2::writer::NewImage;
use groupshot::inventory::Format;

use crate::{median, spread, verdict};

/// Of ours: a merge may take so many times as long.
const TARGET: f64 = 1.5;
const MIB: usize = 1 << 20;

pub(crate) fn run(short: bool) {
    let (rounds, size) = if short {
        (3, 64 * MIB)
    } else {
        (11, 256 * MIB)
    };
    for (name, format) in [("raw", Format::Raw), ("qcow2", Format::Qcow2)] {
        let (mut merges, mut copies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let folder = tempfile::tempdir().unwrap();
            let (parent, child) = chain(folder.path(), format, size);
            let merge = seconds(|| merge(&parent, format, &child));
            let (from, to) = (folder.path().join("bytes"), folder.path().join("copy"));
            std::fs::write(&from, vec![7; size]).unwrap();
            File::open(&from).unwrap().sync_all().unwrap();
            let copy = seconds(|| copy(&from, &to));
            merges.push(merge);
            copies.push(copy);
            ratios.push(merge / copy);
        }
        let (low, high) = spread(ratios.clone());
        let ratio = median(ratios);
        let rate = |times| (size / MIB) as f64 / median(times);
        println!(
            "{} MiB into {name:5}: {:5.0} MiB/s, cp and fsync {:5.0} MiB/s, time over time {ratio:.2} ({low:.2}..{high:.2}), \
             target <= {TARGET}: {}",
            size / MIB,
            rate(merges),
            rate(copies),
            verdict(ratio <= TARGET)
        );
    }
}

/// A lower file that has nothing, and an overlay that is full; both are on the disk.
fn chain(folder: &Path, format: Format, size: usize) -> (PathBuf, PathBuf) {
    let parent = folder.join(format!("parent.{}", format.as_str()));
    content::create(&parent, format, size as u64).unwrap();
    let child = folder.join("child.qcow2");
    let image = NewImage {
        size: size as u64,
        backing: Some((&parent, format)),
    };
    image.write(&File::create(&child).unwrap()).unwrap();
    for at in (0..size).step_by(4 * MIB) {
        let writes = [(at as u64, vec![7; 4 * MIB])];
        content::overwrite(&child, Format::Qcow2, &writes).unwrap();
    }
    File::open(&child).unwrap().sync_all().unwrap();
    (parent, child)
}

fn merge(parent: &Path, format: Format, child: &Path) {
    let work = Merge {
        at: &At::new("bench", "disk0"),
        parent,
        parent_format: format,
        child,
        inodes: Inodes::default(),
        roots: &Roots::default(),
        of: None,
    };
    let watch = Watch {
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    assert_eq!(work.run(&watch), Ok(Merged::Done));
}

fn copy(from: &Path, to: &Path) {
    let made = Command::new("cp")
        .args(["--reflink=never", "--sparse=never"])
        .args([from, to])
        .status();
    assert!(made.unwrap().success());
    File::open(to).unwrap().sync_all().unwrap();
}

fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}
