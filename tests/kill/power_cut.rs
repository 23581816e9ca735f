//! The host loses its power: the file system is cloned as it lies on its disk at some moment under load,
//! mounted, and recovered.
//!
//! The site is an ext4 in a file on XFS. What the kernel has not yet written to that file is what a power
//! cut would lose; FICLONE of the file is the disk after it. That the test sees a missing sync is itself
//! tested: with the sync of one file left out it must find something lost.

use std::ffi::OsStr;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::chance::Chance;
use crate::support::server::Server;
use crate::support::site::{Image, SIZE, Site};
use crate::support::tools::{self, Mount};
use crate::support::wire::Wire;

use super::ledger::{Ledger, Refusal};

/// Size of the file system that is cut.
const DISK: u64 = 192 << 20;
/// Nothing goes to the disk because of its age while the test runs.
const OPTIONS: &str = "commit=300";

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn after_a_power_cut_nothing_that_was_told_is_lost() {
    let cuts = match std::env::var_os("GROUPSHOT_TEST_LONG") {
        Some(_) => 60,
        None => 6,
    };
    let mut chance = Chance::from_environment();
    let bench = Bench::new();
    let cuts = bench.under_load(cuts, &mut chance, &[]);
    for cut in &cuts {
        bench.recover(cut);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_sync_that_is_left_out_is_noticed() {
    for file in ["groupshot.db-wal", "/journal/"] {
        let mut chance = Chance::from_environment();
        let bench = Bench::new();
        let shim = shim(bench.outer.path());
        let env = [
            ("LD_PRELOAD", shim.to_str().unwrap()),
            ("GROUPSHOT_TEST_NO_SYNC", file),
        ];
        let cuts = bench.under_load(8, &mut chance, &env);
        let lost = cuts
            .iter()
            .filter(|cut| catch_unwind(AssertUnwindSafe(|| bench.recover(cut))).is_err());
        assert!(
            lost.count() > 0,
            "without the syncs of {file} nothing is lost"
        );
    }
}

/// The file system with the site, and the one that its file lies on.
struct Bench {
    site: Site,
    inner: Mutex<Option<Mount>>,
    /// Where it is mounted; removed after it.
    at: tempfile::TempDir,
    outer: Mount,
}

/// The disk at one moment.
struct Cut {
    image: PathBuf,
    /// What was known before and after.
    moments: (Moment, Moment),
}

/// What one client knows at a moment.
#[derive(Clone, Default)]
struct Moment {
    ledgers: Vec<Ledger>,
    /// How many writes have begun and how many have ended, over all clients.
    writes: (u64, u64),
}

impl Bench {
    fn new() -> Self {
        let outer = Mount::file_system("xfs");
        let image = outer.path().join("disk");
        File::create(&image).unwrap().set_len(DISK).unwrap();
        tools::run("mkfs.ext4", &[OsStr::new("-q"), image.as_os_str()]);
        let at = tempfile::tempdir().unwrap();
        let inner = Mount::image(&image, at.path(), OPTIONS);
        Self {
            site: Site::whole_on(&inner),
            at,
            inner: Mutex::new(Some(inner)),
            outer,
        }
    }

    /// Lets two clients work and cuts so many times.
    fn under_load(&self, cuts: usize, chance: &mut Chance, env: &[(&str, &str)]) -> Vec<Cut> {
        let kinds: [&[Image]; 2] = [&[Image::Raw, Image::Qcow2], &[Image::Chain]];
        let machine = |(n, kinds)| self.site.machine(&format!("m{n}"), kinds, 1);
        let machines = kinds.into_iter().enumerate().map(machine);
        let ledgers: Vec<_> = machines.map(|m| Ledger::new(vec![m])).collect();
        // What was there before the load is not what this is about.
        tools::run("sync", &[] as &[&str]);
        let mut server = self.site.serve_in(env).unwrap();
        let known = Mutex::new(Moment {
            ledgers,
            writes: (0, 0),
        });
        let stop = AtomicBool::new(false);
        let taken = std::thread::scope(|scope| {
            for client in 0..kinds.len() {
                let (server, known, stop) = (&server, &known, &stop);
                let mut chance = Chance::new(chance.below(1 << 30) as u64);
                scope.spawn(move || {
                    let worked = work(&self.site, server, client, known, &mut chance, stop);
                    stop.store(true, Ordering::SeqCst); // also if it did not go well
                    worked.unwrap();
                });
            }
            let mut taken = Vec::new();
            while taken.len() < cuts && !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20 + chance.below(250) as u64));
                taken.push(self.cut(taken.len(), &known));
            }
            stop.store(true, Ordering::SeqCst);
            taken
        });
        server.kill();
        taken
    }

    fn cut(&self, number: usize, known: &Mutex<Moment>) -> Cut {
        let image = self.outer.path().join(format!("cut-{number}"));
        let disk = File::open(self.outer.path().join("disk")).unwrap();
        let clone = File::create(&image).unwrap();
        let before = known.lock().unwrap().clone();
        rustix::fs::ioctl_ficlone(&clone, &disk).unwrap();
        let after = known.lock().unwrap().clone();
        Cut {
            image,
            moments: (before, after),
        }
    }

    /// The host starts again, and the server.
    fn recover(&self, cut: &Cut) {
        let what = cut.image.display().to_string();
        let mut inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        drop(inner.take());
        // Every path must be the one it was.
        let mount = Mount::image(&cut.image, self.at.path(), OPTIONS);
        *inner = Some(mount);
        drop(inner);
        let server = self.site.serve();
        let wire = Wire::new(&server);
        let (before, after) = &cut.moments;
        let mut all = Ledger::default();
        for (before, after) in before.ledgers.iter().zip(&after.ledgers) {
            all.absorb(Ledger::between(before, after));
        }
        let shown = all.check_all_but_tops(&self.site, &wire, &what);
        let quiet = before.writes == after.writes && before.writes.0 == before.writes.1;
        if quiet {
            all.check_tops(&self.site, &shown, &what);
        }
    }
}

/// Groups, writes, takes sets, until told to stop or the chains are as deep as they may be.
fn work(
    site: &Site,
    server: &Server,
    client: usize,
    known: &Mutex<Moment>,
    chance: &mut Chance,
    stop: &AtomicBool,
) -> Result<(), Refusal> {
    let wire = Wire::new(server);
    let mut ledger = known.lock().unwrap().ledgers[client].clone();
    let tell = |ledger: &Ledger, began: u64, ended: u64| {
        let mut known = known.lock().unwrap();
        known.ledgers[client] = ledger.clone();
        known.writes.0 += began;
        known.writes.1 += ended;
    };
    let group = ledger.define(&wire, &format!("group {client}"))?;
    tell(&ledger, 0, 0);
    for round in 0..1000 {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        tell(&ledger, 1, 0);
        let (offset, length) = (chance.below(SIZE / 2), 1 + chance.below(SIZE / 2));
        ledger.write(site, offset, length, 1 + chance.below(255) as u8);
        let name = format!("{client}-{round:04}");
        ledger.wish(&name);
        tell(&ledger, 0, 1);
        let job = match ledger.ask(&wire, &group, &name) {
            Ok(job) => job,
            Err(Refusal::Value(5, why)) if why.contains("chain_cap") => break,
            Err(other) => return Err(other),
        };
        tell(&ledger, 0, 0);
        ledger.see_the_end(&wire, &job)?;
        tell(&ledger, 0, 0);
    }
    Ok(())
}

/// A library that leaves out the syncs of files whose path contains `GROUPSHOT_TEST_NO_SYNC`.
fn shim(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let args = ["-shared", "-fPIC", "-O1", "-o"].map(OsStr::new);
    let files = [library.as_os_str(), source.as_os_str(), OsStr::new("-ldl")];
    tools::run("cc", &[&args[..], &files[..]].concat());
    library
}

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int left_out(int fd) {
    char link[64], path[4096];
    const char *part = getenv("GROUPSHOT_TEST_NO_SYNC");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 2);
    if (n < 0 || !part) return 0;
    path[n] = '/';
    path[n + 1] = 0;
    return strstr(path, part) != NULL;
}
int fsync(int fd) { return left_out(fd) ? 0 : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { return left_out(fd) ? 0 : ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"#;
