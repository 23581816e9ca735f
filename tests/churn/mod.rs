//! Sets that come and go leave nothing behind: neither files, nor descriptors, nor memory, nor rows.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::server::Server;
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::wire::Wire;

/// Sets that are there at one time.
const ALIVE: usize = 3;
/// A machine writes before every so-manieth set.
const WRITES: usize = 5;
/// What one set and the end of it may cost for good: two ended jobs, which are kept for an hour.
const BYTES_OF_A_SET: u64 = 16 << 10;
/// What the allocator and the pages of the database may take besides.
const SLACK: u64 = 6 << 20;
/// How long the server may keep a descriptor that it no longer needs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn over_overlays_a_thousand_sets_come_and_go_and_nothing_grows() {
    come_and_go(Ground::Host);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn over_clones_a_thousand_sets_come_and_go_and_nothing_grows() {
    come_and_go(Ground::Xfs);
}

/// What the server holds at one moment.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    /// Octets.
    memory: u64,
    /// Octets, the log of the database included.
    database: u64,
    files: BTreeSet<PathBuf>,
}

impl Held {
    fn now(server: &Server, site: &Site) -> Self {
        site.wait_for_journals();
        let process = PathBuf::from(format!("/proc/{}", server.pid()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let size = |name: &str| fs::metadata(site.data.join(name)).map_or(0, |m| m.len());
        Self {
            descriptors: fs::read_dir(process.join("fd")).unwrap().count(),
            memory: kib << 10,
            database: size("groupshot.db") + size("groupshot.db-wal"),
            files: site.tree().into_keys().collect(),
        }
    }
}

/// Takes and destroys so many sets, newest, middle and oldest by turns; none is left.
fn rounds(site: &Site, wire: &Wire, group: &str, machines: &mut [Machine], count: usize) {
    let mut alive = Vec::new();
    for n in 0..count {
        if n % WRITES == 0 {
            let machine = &mut machines[n / WRITES % 2];
            let (top, byte) = (site.top(machine, 0), u8::try_from(n % 255).unwrap());
            machine.write(&top, 0, n % 20 * 4096, 20_000, byte);
        }
        alive.push(wire.take(group, &format!("set {n}")));
        if alive.len() > ALIVE {
            destroy(wire, &alive.remove([ALIVE, 1, 0][n % 3]));
        }
    }
    for set in alive.drain(..) {
        destroy(wire, &set);
    }
}

fn destroy(wire: &Wire, set: &str) {
    let asked = wire.destroy(set).unwrap();
    let job = wire.end(&asked.job.unwrap()).unwrap();
    assert!(
        job.state == 7 && job.status.ends_with("is destroyed"),
        "{job:?}"
    );
}

fn come_and_go(ground: Ground) {
    let long = std::env::var_os("GROUPSHOT_TEST_LONG").is_some();
    let (warm, count) = if long { (100, 1000) } else { (10, 40) };
    let site = Site::new(ground);
    let mut machines = [
        site.machine("a", &[Image::Raw], 1),
        site.machine("b", &[Image::Qcow2], 2),
    ];
    let server = site.serve();
    let wire = Wire::new(&server);
    let ids: Vec<_> = machines.iter().map(|m| m.id.as_str()).collect();
    let group = wire.define("all", &ids).unwrap();
    let untouched = Held::now(&server, &site);
    rounds(&site, &wire, &group, &mut machines, warm);
    let before = Held::now(&server, &site);
    rounds(&site, &wire, &group, &mut machines, count);
    // Locks of files that are gone are let go a moment later.
    let began = Instant::now();
    let mut after = Held::now(&server, &site);
    while after.descriptors > before.descriptors && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        after = Held::now(&server, &site);
    }
    let growth = |of: fn(&Held) -> u64| of(&after).saturating_sub(of(&before));
    let (memory, database) = (growth(|h| h.memory), growth(|h| h.database));
    eprintln!(
        "{ground:?}: {count} sets: memory +{} KiB to {} KiB, database +{} KiB, descriptors {} and {}",
        memory >> 10,
        after.memory >> 10,
        database >> 10,
        before.descriptors,
        after.descriptors,
    );
    let allowed = SLACK + BYTES_OF_A_SET * u64::try_from(count).unwrap();
    assert!(memory <= allowed, "{memory} octets of memory");
    assert!(database <= allowed, "{database} octets of the database");
    assert!(
        after.descriptors <= before.descriptors,
        "{} descriptors, {} before",
        after.descriptors,
        before.descriptors
    );
    // Whatever stood there in the beginning, and no more.
    let made: Vec<_> = after.files.difference(&untouched.files).collect();
    let known = |f: &&&PathBuf| {
        let ends = ["tops.json", ".groupshot"]
            .iter()
            .any(|name| f.ends_with(name));
        ends || f.extension().is_some_and(|e| e == "lock")
    };
    let left: Vec<_> = made.iter().filter(|f| !known(f)).collect();
    assert!(left.is_empty(), "left: {left:?}");
    for machine in &machines {
        let what = format!("{ground:?}: {}", machine.name);
        assert_holds(&site.top(machine, 0), &machine.content[0], &what);
    }
}
