//! Merging an overlay into the file under it, against QEMU's own tools: what the overlay showed, the lower
//! file shows afterwards, and `qemu-img check` finds nothing; also after a process that died in between.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use groupshot::engine::failure::At;
use groupshot::engine::merge::{FAILPOINTS, Inodes, Merge, Merged, Watch};
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::qcow2::header::Header;
use groupshot::engine::{EngineErrorKind, merge};
use groupshot::held;
use groupshot::inventory::Format;

use crate::support::tools::{self, assert_clean, assert_equal, run, try_run};

const QUIET: Watch<'_> = Watch {
    progress: &|_, _| {},
    cancelled: &|| false,
};

fn format(file: &Path) -> Format {
    match file.extension().unwrap().to_str().unwrap() {
        "raw" => Format::Raw,
        _ => Format::Qcow2,
    }
}

fn merge(parent: &Path, child: &Path, watch: &Watch<'_>) -> Result<Merged, String> {
    let it = Merge {
        at: &At::new("m", "disk0"),
        parent,
        parent_format: format(parent),
        child,
        inodes: Inodes::default(),
        roots: &Roots::default(),
        of: None,
    };
    it.run(watch).map_err(|e| e.to_string())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small generator: the same numbers for the same seed everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// A chain of `base` (maybe), `parent` and `child`, with contents of every kind.
struct Chain {
    folder: tempfile::TempDir,
    parent: PathBuf,
    child: PathBuf,
    expected: PathBuf,
    what: String,
}

fn create(file: &Path, options: &str, size: u64, backing: Option<&Path>) {
    let size = size.to_string();
    let mut args = vec!["create", "-q", "-f", format(file).as_str()];
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    if let Some(backing) = backing {
        args.extend(["-b", text(backing), "-F", format(backing).as_str()]);
    }
    args.extend([text(file), &size]);
    run("qemu-img", &args);
}

/// Options of a qcow2 image, and its cluster size.
fn options(numbers: &mut Numbers) -> (String, u64) {
    let cluster = [512, 4096, 16384, 65536, 65536, 65536, 1 << 21][numbers.below(7) as usize];
    let version = match numbers.below(7) {
        0 => "compat=0.10".to_owned(),
        1 => format!(
            "compat=1.1,refcount_bits={}",
            numbers.of(&["1", "2", "8", "32", "64"])
        ),
        2 if cluster >= 16384 => "compat=1.1,extended_l2=on".to_owned(),
        3 => "compat=1.1,compression_type=zstd".to_owned(),
        4 if cluster >= 16384 => "compat=1.1,extended_l2=on,compression_type=zstd".to_owned(),
        _ => "compat=1.1".to_owned(),
    };
    (format!("{version},cluster_size={cluster}"), cluster)
}

/// Lets a machine write all over the disk.
fn scribble(numbers: &mut Numbers, file: &Path, size: u64, cluster: u64, compress: bool) {
    let mut args = vec![
        "-f".to_owned(),
        format(file).as_str().to_owned(),
        "-d".to_owned(),
        "unmap".to_owned(),
    ];
    for _ in 0..numbers.below(14) {
        let sectors = size / 512;
        let at = numbers.below(sectors);
        let most = (sectors - at).min(if numbers.below(3) == 0 { 2048 } else { 160 });
        let length = 1 + numbers.below(most);
        let range = format!("{} {}", at * 512, length * 512);
        let pattern = 1 + numbers.below(250);
        let whole = size / cluster;
        let command = match numbers.below(7) {
            0 => format!("write -z {range}"),
            1 => format!("write -z -u {range}"),
            2 => format!("discard {range}"),
            3 if compress && whole > 0 => {
                format!(
                    "write -c -P {pattern} {} {cluster}",
                    numbers.below(whole) * cluster
                )
            }
            _ => format!("write -P {pattern} {range}"),
        };
        args.extend(["-c".to_owned(), command]);
    }
    args.push(text(file).to_owned());
    // A compressed write over what is there already fails; the others are done all the same.
    try_run("qemu-io", &args);
}

fn chain(seed: u64) -> Chain {
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let sizes = [
        3 * 512,
        100 * 512,
        1 << 20,
        (3 << 20) + 512,
        9 << 20,
        (17 << 20) + 4096,
    ];
    let mut size = || sizes[numbers.below(6) as usize];
    let (base_size, parent_size, other) = (size(), size(), size());
    let child_size = if numbers.below(2) == 0 {
        parent_size
    } else {
        other
    };
    let kind = numbers.below(4);
    let mut what = format!("seed {seed}: parent {parent_size}, child {child_size}");
    let parent = if kind == 0 {
        let parent = at("parent.raw");
        create(&parent, "", parent_size, None);
        scribble(&mut numbers, &parent, parent_size, 512, false);
        parent
    } else {
        let base = at(numbers.of(&["base.raw", "base.qcow2"]));
        if kind != 1 {
            create(&base, "", base_size, None);
            scribble(&mut numbers, &base, base_size, 65536, false);
        }
        let (options, cluster) = options(&mut numbers);
        what += &format!(" {options} base {base_size} {}", kind != 1);
        let parent = at("parent.qcow2");
        create(
            &parent,
            &options,
            parent_size,
            (kind != 1).then_some(base.as_path()),
        );
        let compress = !options.contains("refcount_bits=1,");
        scribble(&mut numbers, &parent, parent_size, cluster, compress);
        parent
    };
    let (options, cluster) = options(&mut numbers);
    what += &format!(", child {options}");
    let child = at("child.qcow2");
    create(&child, &options, child_size, Some(&parent));
    scribble(
        &mut numbers,
        &child,
        child_size,
        cluster,
        !options.contains("refcount_bits=1,"),
    );
    let expected = at("expected.raw");
    run(
        "qemu-img",
        &["convert", "-O", "raw", text(&child), text(&expected)],
    );
    Chain {
        folder,
        parent,
        child,
        expected,
        what,
    }
}

impl Chain {
    /// The parent shows what the child showed, in its size, and is in order.
    fn assert_merged(&self) {
        let parent = (self.parent.as_path(), format(&self.parent).as_str());
        assert_equal(parent, (&self.expected, "raw"));
        let size = std::fs::metadata(&self.expected).unwrap().len();
        match parent.1 {
            "raw" => assert_eq!(std::fs::metadata(&self.parent).unwrap().len(), size),
            _ => {
                let file = std::fs::File::open(&self.parent).unwrap();
                assert_eq!(Header::load(&file).unwrap().unwrap().size, size);
                assert_clean(&self.parent);
            }
        }
        self.assert_unchanged();
    }

    /// The child shows what it always showed.
    fn assert_unchanged(&self) {
        assert_equal((&self.child, "qcow2"), (&self.expected, "raw"));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_lower_file_shows_what_the_overlay_showed() {
    let seeds = std::env::var("GROUPSHOT_MERGE_SEEDS").map_or(40, |n| n.parse().unwrap());
    for seed in 0..seeds {
        let chain = chain(seed);
        let merged = merge(&chain.parent, &chain.child, &QUIET);
        assert_eq!(merged, Ok(Merged::Done), "{}", chain.what);
        chain.assert_merged();
        // Once more is as once.
        assert_eq!(merge(&chain.parent, &chain.child, &QUIET), Ok(Merged::Done));
        chain.assert_merged();
    }
}

/// Not a test by itself: the process that the others kill.
#[test]
fn worker() {
    let Some(parent) = std::env::var_os("GROUPSHOT_MERGE_PARENT") else {
        return;
    };
    let parent = PathBuf::from(parent);
    merge(&parent, &parent.with_file_name("child.qcow2"), &QUIET).unwrap();
}

fn worker_for(chain: &Chain) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["engines::merge::worker", "--exact", "--test-threads=1"])
        .env("GROUPSHOT_MERGE_PARENT", &chain.parent)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command
}

/// `qemu-img check` finds leaks at most: 0 is clean, 3 is leaks only.
fn assert_no_damage(chain: &Chain) {
    if format(&chain.parent) == Format::Qcow2 {
        let mut check = Command::new("qemu-img");
        let out = check.args(["check", text(&chain.parent)]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(
            matches!(out.status.code(), Some(0 | 3)),
            "{}: {said}",
            chain.what
        );
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn killed_at_each_step_it_leaves_no_damage_and_is_begun_again() {
    let mut killed = 0;
    for seed in 0..8 {
        for (n, point) in FAILPOINTS.iter().enumerate() {
            let chain = chain(seed * 31 + 7);
            let passage = 1 + (seed as usize + n) % 2;
            let status = worker_for(&chain)
                .env("GROUPSHOT_FAILPOINTS", format!("{point}#{passage}=abort"))
                .status()
                .unwrap();
            killed += usize::from(status.signal().is_some());
            assert_no_damage(&chain);
            chain.assert_unchanged();
            assert_eq!(merge(&chain.parent, &chain.child, &QUIET), Ok(Merged::Done));
            chain.assert_merged();
        }
    }
    assert!(killed > 5, "only {killed} were killed");
}

/// An image large enough that a merge of it takes a while.
fn large(folder: tempfile::TempDir) -> Chain {
    let at = |name: &str| folder.path().join(name);
    let (parent, child, expected) = (at("parent.qcow2"), at("child.qcow2"), at("expected.raw"));
    create(&parent, "cluster_size=4096", 160 << 20, None);
    tools::write(&parent, "qcow2", 1, "1M", "40M");
    create(&child, "cluster_size=65536", 200 << 20, Some(&parent));
    for (n, mib) in (0..190).step_by(10).enumerate() {
        tools::write(&child, "qcow2", 2 + n as u8, &format!("{mib}M"), "5M");
    }
    run(
        "qemu-img",
        &["convert", "-O", "raw", text(&child), text(&expected)],
    );
    Chain {
        folder,
        parent,
        child,
        expected,
        what: "large".to_owned(),
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn killed_at_any_moment_it_leaves_no_damage() {
    let chain = large(tempfile::tempdir().unwrap());
    let mut numbers = Numbers(5);
    let mut killed = 0;
    // A merge takes longer on some machines than on others: late kills come earlier next time.
    let mut latest = 400;
    for _ in 0..40 {
        let mut worker = worker_for(&chain).spawn().unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the moment of a kill is any moment"
        )]
        std::thread::sleep(Duration::from_millis(8 + numbers.below(latest)));
        worker.kill().unwrap();
        match worker.wait().unwrap().signal() {
            Some(_) => killed += 1,
            None => latest = (latest * 2 / 3).max(16),
        }
        assert_no_damage(&chain);
        if killed == 20 {
            break;
        }
    }
    assert!(killed > 5, "only {killed} were killed");
    chain.assert_unchanged();
    assert_eq!(merge(&chain.parent, &chain.child, &QUIET), Ok(Merged::Done));
    chain.assert_merged();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn it_tells_its_progress_and_stops_when_told() {
    let chain = large(tempfile::tempdir().unwrap());
    let (last, told) = (Cell::new(0), Cell::new(0));
    let cancelled = Watch {
        progress: &|done, of| {
            assert!(done >= last.get() && done <= of);
            last.set(done);
            told.set(told.get() + 1);
        },
        cancelled: &|| told.get() == 7,
    };
    assert_eq!(
        merge(&chain.parent, &chain.child, &cancelled),
        Ok(Merged::Cancelled)
    );
    assert_no_damage(&chain);
    chain.assert_unchanged();
    last.set(0);
    let on = Watch {
        cancelled: &|| false,
        ..cancelled
    };
    assert_eq!(merge(&chain.parent, &chain.child, &on), Ok(Merged::Done));
    assert!(told.get() > 20);
    chain.assert_merged();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_cannot_be_merged_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (parent, child) = (at("parent.qcow2"), at("child.qcow2"));
    let table = [
        ("data_file=DATA", "", "external data file"),
        ("", "data_file=DATA", "external data file"),
    ];
    let data = at("data");
    for (of_parent, of_child, word) in table {
        create(
            &parent,
            &of_parent.replace("DATA", text(&data)),
            1 << 20,
            None,
        );
        create(
            &child,
            &of_child.replace("DATA", text(&data)),
            1 << 20,
            Some(&parent),
        );
        let before = std::fs::read(&parent).unwrap();
        let error = merge(&parent, &child, &QUIET).unwrap_err();
        assert!(error.contains(word), "{error}");
        assert_eq!(std::fs::read(&parent).unwrap(), before);
    }
    create(&parent, "", 1 << 20, None);
    create(&child, "", 1 << 20, Some(&parent));
    run("qemu-img", &["bitmap", "--add", text(&child), "b"]);
    assert!(
        merge(&parent, &child, &QUIET)
            .unwrap_err()
            .contains("bitmaps")
    );
    create(&at("other.qcow2"), "", 1 << 20, None);
    create(&child, "", 1 << 20, Some(&at("other.qcow2")));
    let error = merge(&parent, &child, &QUIET).unwrap_err();
    assert!(error.contains("does not name"), "{error}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_damaged_lower_file_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (parent, child) = (at("parent.qcow2"), at("child.qcow2"));
    create(&parent, "", 1 << 20, None);
    tools::write(&parent, "qcow2", 1, "0", "1M");
    create(&child, "", 1 << 20, Some(&parent));
    tools::write(&child, "qcow2", 2, "0", "128k");
    let whole = std::fs::read(&parent).unwrap();
    // A count of 0 for clusters in use; an L1 entry far outside; an L2 table in the middle of a cluster.
    for (place, bytes) in [
        (2 << 16, vec![0; 64]),
        (3 << 16, vec![0x80, 0, 1, 0, 0, 0, 0, 0]),
        ((3 << 16) + 6, vec![2]),
    ] {
        let mut damaged = whole.clone();
        damaged[place..place + bytes.len()].copy_from_slice(&bytes);
        std::fs::write(&parent, &damaged).unwrap();
        let error = merge(&parent, &child, &QUIET).unwrap_err();
        assert!(error.contains("parent.qcow2"), "{error}");
        assert_eq!(std::fs::read(&parent).unwrap(), damaged);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn too_little_space_is_seen_before_anything_is_written() {
    let mount = tools::Mount::tmpfs("size=24m");
    let at = |name: &str| mount.path().join(name);
    let (parent, child) = (at("parent.qcow2"), at("child.qcow2"));
    create(&parent, "", 64 << 20, None);
    create(&child, "", 64 << 20, Some(&parent));
    tools::write(&child, "qcow2", 2, "0", "14M");
    let before = std::fs::read(&parent).unwrap();
    let it = Merge {
        at: &At::new("m", "disk0"),
        parent: &parent,
        parent_format: Format::Qcow2,
        child: &child,
        inodes: Inodes::default(),
        roots: &Roots::default(),
        of: None,
    };
    let error = it.run(&QUIET).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Full);
    assert_eq!(std::fs::read(&parent).unwrap(), before);
}

/// A number is given again once its file is removed; a record of an older version has the number alone.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_merged_into_a_later_file_that_was_given_a_recorded_number() {
    use std::os::unix::fs::MetadataExt;

    let chain = chain(3);
    let inode = std::fs::metadata(&chain.parent).unwrap().ino();
    let own = held::Origin::from(held::look_at(&chain.parent).unwrap());
    let later = serde_json::json!({"inode": inode, "born": [1, 0]});
    let run = |parent: serde_json::Value| {
        let text = serde_json::json!({"parent": parent, "child": null}).to_string();
        let it = Merge {
            at: &At::new("m", "disk0"),
            parent: &chain.parent,
            parent_format: format(&chain.parent),
            child: &chain.child,
            inodes: serde_json::from_str(&text).unwrap(),
            roots: &Roots::default(),
            of: None,
        };
        it.run(&QUIET).map(drop).map_err(|e| e.to_string())
    };
    let before = std::fs::read(&chain.parent).unwrap();
    for foreign in [later, serde_json::json!(inode + 1)] {
        let told = run(foreign.clone()).unwrap_err();
        assert!(told.contains(text(&chain.parent)), "{foreign}: {told}");
        assert!(std::fs::read(&chain.parent).unwrap() == before, "{foreign}");
    }
    run(serde_json::json!(inode)).unwrap();
    run(serde_json::to_value(own).unwrap()).unwrap();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_branch_takes_another_backing_file() {
    let chain = chain(3);
    let branch = chain.folder.path().join("branch.qcow2");
    create(&branch, "", 1 << 20, Some(&chain.child));
    tools::write(&branch, "qcow2", 9, "0", "512");
    let expected = chain.folder.path().join("branch.raw");
    run(
        "qemu-img",
        &["convert", "-O", "raw", text(&branch), text(&expected)],
    );
    merge(&chain.parent, &chain.child, &QUIET).unwrap();
    let at = At::new("m", "disk0");
    merge::name(&at, &branch, None, &chain.parent, format(&chain.parent)).unwrap();
    std::fs::remove_file(&chain.child).unwrap();
    assert_equal((&branch, "qcow2"), (&expected, "raw"));
    assert_clean(&branch);
    let long = PathBuf::from(format!("/{}", "x".repeat(2000)));
    assert!(merge::can_name(&at, &branch, &long, Format::Raw).is_err());
    assert!(try_run("qemu-img", &["info", text(&branch)]).0);
}
