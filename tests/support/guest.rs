//! A real Linux guest with two data disks, the agent of QEMU, and something to do: `guest.sh` makes it, `./check` runs that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::qemu::{Qemu, Sockets};
use super::site::format;
use super::tools;

/// How long it may take to be ready, on a host that is busy.
const READY: Duration = Duration::from_secs(120);

/// A guest that runs.
pub(crate) struct Guest {
    pub(crate) qemu: Qemu,
    agent: PathBuf,
    console: PathBuf,
    /// It starts its agent.
    has_agent: bool,
}

impl Guest {
    /// Makes a disk for it: 64 MiB with an empty ext4, by the suffix of its name a qcow2 or raw image.
    pub(crate) fn disk(image: &Path) {
        let plain = tempfile::NamedTempFile::new().unwrap();
        plain.as_file().set_len(64 << 20).unwrap();
        tools::run("mkfs.ext4", &["-q", "-F", plain.path().to_str().unwrap()]);
        let (from, to) = (plain.path().to_str().unwrap(), image.to_str().unwrap());
        let args = ["convert", "-f", "raw", "-O", format(image), from, to];
        tools::run("qemu-img", &args);
    }

    /// Starts it with these disks, and waits until it is ready. What it does is told to it in the words of `guest.sh`; the
    /// other arguments are for QEMU.
    pub(crate) fn start(sockets: &Sockets, disks: [&Path; 2], does: &str, more: &[&str]) -> Self {
        let guest = Self::boot(sockets, disks, does, more);
        guest.ready();
        guest
    }

    /// The same without waiting until it is ready.
    pub(crate) fn boot(sockets: &Sockets, disks: [&Path; 2], does: &str, more: &[&str]) -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join(".guest");
        let (kernel, initrd) = (home.join("vmlinux"), home.join("initrd"));
        assert!(
            initrd.is_file(),
            "no guest: run tests/support/guest.sh .guest"
        );
        let (agent, console) = (sockets.path().join("qga"), sockets.path().join("console"));
        let _ended = fs::remove_file(&console);
        // The first drive is the first disk.
        let drives =
            disks.map(|disk| format!("file={},format={},if=virtio", disk.display(), format(disk)));
        let [first, second] = drives;
        let append = format!(
            "console=ttyS0 quiet panic=-1 nokaslr mitigations=off random.trust_cpu=on tsc=reliable {does}"
        );
        let log = format!("file,id=log,path={}", console.display());
        let listens = format!(
            "socket,id=agent,path={},server=on,wait=off",
            agent.display()
        );
        let args = [
            "-m",
            "96",
            "-kernel",
            kernel.to_str().unwrap(),
            "-initrd",
            initrd.to_str().unwrap(),
            "-append",
            &append,
            "-chardev",
            &log,
            "-device",
            "isa-serial,chardev=log",
            "-drive",
            &first,
            "-drive",
            &second,
            "-device",
            "virtio-serial-pci",
            "-chardev",
            &listens,
            "-device",
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        ];
        Self {
            qemu: sockets.start(&[&args[..], more].concat()),
            agent,
            console,
            has_agent: !does.contains("noagent"),
        }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&self) {
        let begun = Instant::now();
        let said = || fs::read_to_string(&self.console).unwrap_or_default();
        while !said().contains("guest is ready") || self.listens() != self.has_agent {
            assert!(
                begun.elapsed() < READY,
                "the guest is not ready: {}",
                said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The socket of its agent.
    pub(crate) fn agent(&self) -> &Path {
        &self.agent
    }

    /// What QEMU says of its character devices.
    pub(crate) fn chardevs(&self) -> Value {
        self.qemu.tell("query-chardev", &json!({}))
    }

    fn listens(&self) -> bool {
        let chardevs = self.chardevs();
        let mut all = chardevs.as_array().unwrap().iter();
        all.any(|device| device["label"] == "agent" && device["frontend-open"] == true)
    }

    /// How often it has written to its disks.
    pub(crate) fn writes(&self) -> u64 {
        let stats = self.qemu.tell("query-blockstats", &json!({}));
        let each = stats.as_array().unwrap().iter();
        each.filter_map(|disk| disk["stats"]["wr_operations"].as_u64())
            .sum()
    }

    /// Waits until it has written again.
    pub(crate) fn goes_on(&self) {
        let (begun, before) = (Instant::now(), self.writes());
        while self.writes() == before {
            assert!(begun.elapsed() < READY, "the guest writes no more");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
