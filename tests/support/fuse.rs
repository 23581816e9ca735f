//! A file that another process serves, and that can be made to answer no more, as one on a hung mount.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::yield_now;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A raw image of 1 MiB that `qemu-storage-daemon` serves over FUSE; the mount is the file itself.
pub(crate) struct Served {
    daemon: Child,
    /// The image.
    pub(crate) file: PathBuf,
}

impl Served {
    /// Served in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let (image, file) = (folder.join("under.raw"), folder.join("served.raw"));
        for (path, length) in [(&image, 1 << 20), (&file, 0)] {
            File::create(path).unwrap().set_len(length).unwrap();
        }
        let under = format!("driver=file,node-name=f,filename={}", image.display());
        let export = format!(
            "type=fuse,id=e,node-name=f,writable=on,mountpoint={}",
            file.display()
        );
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &under, "--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-storage-daemon cannot run; install qemu-utils");
        let mut served = Self { daemon, file };
        while fs::metadata(&served.file).unwrap().len() == 0 {
            let ended = served.daemon.try_wait().unwrap();
            assert!(ended.is_none(), "qemu-storage-daemon ended: {ended:?}");
            yield_now();
        }
        served
    }

    /// From now on it does not answer.
    pub(crate) fn hang(&self) {
        self.send(Signal::SIGSTOP);
    }

    /// It answers again.
    pub(crate) fn go_on(&self) {
        self.send(Signal::SIGCONT);
    }

    fn send(&self, signal: Signal) {
        let process = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        kill(process, signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // On TERM it takes its mount away. A failed test may have left it stopped.
        self.go_on();
        self.send(Signal::SIGTERM);
        let _ = self.daemon.wait();
        let file = &self.file;
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.contains(&*file.to_string_lossy()) {
            let _ = Command::new("umount").arg("-l").arg(file).status();
        }
    }
}
