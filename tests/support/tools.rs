//! QEMU's tools and loop-mounted file systems. What uses them is `#[ignore]`d and run by `./check`: it needs root and
//! the packages qemu-utils, xfsprogs and btrfs-progs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Whether QEMU's tools are there, as `./check` says: tests that need nothing else look with them too then.
pub(crate) fn are_there() -> bool {
    std::env::var_os("GROUPSHOT_TEST_FULL").is_some_and(|v| v == "1")
}

/// Runs a command that must go well; its standard output.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, args: &[A]) -> String {
    let (ok, text) = try_run(program, args);
    assert!(ok, "{program}: {text}");
    text
}

/// Runs a command; whether it went well, and all it said.
pub(crate) fn try_run<A: AsRef<OsStr>>(program: &str, args: &[A]) -> (bool, String) {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| {
            panic!("{program} cannot run ({e}); install qemu-utils, xfsprogs, btrfs-progs")
        });
    let text = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// `qemu-img check` finds nothing.
pub(crate) fn assert_clean(image: &Path) {
    let text = run("qemu-img", &[OsStr::new("check"), image.as_os_str()]);
    assert!(text.contains("No errors were found"), "{text}");
}

/// `qemu-img compare` finds the two disks equal, with their formats as given.
pub(crate) fn assert_equal(a: (&Path, &str), b: (&Path, &str)) {
    let args = ["compare", "-U", "-f", a.1, "-F", b.1].map(OsStr::new);
    let text = run(
        "qemu-img",
        &[&args[..], &[a.0.as_os_str(), b.0.as_os_str()]].concat(),
    );
    assert!(text.contains("Images are identical"), "{text}");
}

/// Fills `length` bytes at `offset` of the disk with `pattern`, as a machine would.
pub(crate) fn write(image: &Path, format: &str, pattern: u8, offset: &str, length: &str) {
    let command = format!("write -P {pattern} {offset} {length}");
    let image = image.to_str().unwrap();
    let text = run("qemu-io", &["-f", format, "-c", &command, image]);
    assert!(text.contains("wrote"), "{text}");
}

/// A `qemu-io` that has an image open, until dropped.
pub(crate) struct Opened(Child);

impl Opened {
    /// Opens the image; returns once it is open.
    pub(crate) fn new(image: &Path, more: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "raw"])
            .args(more)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"length\n")
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "qemu-io did not open {}", image.display());
        Self(child)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A mounted file system that goes away with it, also when a test fails.
pub(crate) struct Mount {
    at: PathBuf,
    _home: Option<tempfile::TempDir>,
}

impl Mount {
    /// A fresh loop-mounted `xfs`, `btrfs` or `ext4` of 320 MiB.
    pub(crate) fn file_system(kind: &str) -> Self {
        Self::file_system_with(kind, &[])
    }

    /// The same, made with these options.
    pub(crate) fn file_system_with(kind: &str, options: &[&str]) -> Self {
        let (home, at) = Self::place();
        let image = home.path().join("image");
        File::create(&image).unwrap().set_len(320 << 20).unwrap();
        let options = options.iter().map(OsStr::new);
        let options = [OsStr::new("-q")].into_iter().chain(options);
        let args: Vec<_> = options.chain([image.as_os_str()]).collect();
        run(&format!("mkfs.{kind}"), &args);
        run(
            "mount",
            &[
                OsStr::new("-o"),
                OsStr::new("loop"),
                image.as_os_str(),
                at.as_os_str(),
            ],
        );
        Self {
            at,
            _home: Some(home),
        }
    }

    /// A file with a file system on it, mounted at an existing folder.
    pub(crate) fn image(image: &Path, at: &Path, options: &str) -> Self {
        let options = format!("loop,{options}");
        run(
            "mount",
            &[
                OsStr::new("-o"),
                OsStr::new(&options),
                image.as_os_str(),
                at.as_os_str(),
            ],
        );
        Self {
            at: at.to_owned(),
            _home: None,
        }
    }

    /// A fresh tmpfs with these options.
    pub(crate) fn tmpfs(options: &str) -> Self {
        let (home, at) = Self::place();
        run(
            "mount",
            &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()],
        );
        Self {
            at,
            _home: Some(home),
        }
    }

    /// A file system without access control lists.
    pub(crate) fn ramfs() -> Self {
        let (home, at) = Self::place();
        run("mount", &["-t", "ramfs", "ramfs", at.to_str().unwrap()]);
        Self {
            at,
            _home: Some(home),
        }
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("mnt");
        std::fs::create_dir(&at).unwrap();
        (home, at)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn read_only(&self) {
        run("mount", &["-o", "remount,ro", self.at.to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Never a panic in a drop. A loop device that `mount` made goes with its mount; a lazy unmount
        // helps where a failed test left a file open.
        let at = self.at.as_os_str();
        if !try_run("umount", &[at]).0 {
            let _ = try_run("umount", &[OsStr::new("-l"), at]);
        }
    }
}

/// Takes the record of the backing format out of a header, as `qemu-img create -b` without `-F` wrote it once.
pub(crate) fn forget_backing_format(image: &Path) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut header = [0; 4096];
    file.read_exact_at(&mut header, 0).unwrap();
    let kind = [0xe2, 0x79, 0x2a, 0xca];
    let at = header.windows(4).position(|w| w == kind).unwrap();
    file.write_all_at(&[0x11; 4], u64::try_from(at).unwrap())
        .unwrap();
}

/// A folder that is read-only for everyone, until dropped.
pub(crate) struct Bound(PathBuf);

impl Bound {
    /// Mounts the folder over itself, read-only.
    pub(crate) fn read_only(folder: &Path) -> Self {
        let at = folder.to_str().unwrap();
        run("mount", &["--bind", at, at]);
        let bound = Self(folder.to_owned());
        run("mount", &["-o", "remount,bind,ro", at]);
        bound
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !try_run("umount", &[&self.0]).0 {
            let _ = try_run("umount", &[OsStr::new("-l"), self.0.as_os_str()]);
        }
    }
}
