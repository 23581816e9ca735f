//! Whether what is captured of several machines is of one moment, as real guests see it: one writes a number durably and
//! tells it to the other, which then writes it durably. So at no moment does the second disk hold a number that the first
//! one does not, and a set in which it does is not of one moment (`docs/cut.md` §2).

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::gate::Gate;
use crate::support::guest::Guest;
use crate::support::qemu::Sockets;
use crate::support::server::Server;
use crate::support::site::{Ground, Machine, Site, format};
use crate::support::tools;
use crate::support::wire::{STARTED, Shown, Wire};

use super::counter::head;
use super::cut::{DONE, FAILED, known};

/// Sets of one pair of guests: no chain is too deep.
const IN_A_ROW: usize = 25;
/// Between two machines that are captured one after the other.
const GAP: Duration = Duration::from_millis(100);

/// A machine whose guest has a file system that it writes to all the time, and a disk for numbers.
struct Member {
    machine: Machine,
    sockets: Sockets,
    guest: Option<Guest>,
}

impl Member {
    fn new(site: &Site, name: &str) -> Self {
        let sockets = Sockets::new();
        let images =
            ["system.qcow2", "numbers.raw"].map(|it| site.images.join(format!("{name}-{it}")));
        images.iter().for_each(|image| Guest::disk(image));
        let [first, second] = [1, 2].map(|n| sockets.qmp(n));
        let agent = sockets.path().join("qga");
        let [system, numbers] = &images;
        let args = [
            Path::new("--overlay-ok"),
            system,
            numbers,
            Path::new("--qmp"),
            &first,
            Path::new("--qmp"),
            &second,
            Path::new("--agent"),
            &agent,
        ];
        let args = args.map(|it| it.to_str().unwrap());
        Self {
            machine: site.import(name, &args, Vec::new()),
            sockets,
            guest: None,
        }
    }

    fn boot(&mut self, does: &str, more: &[&str]) {
        let [system, numbers] = &self.machine.images[..] else {
            panic!("two disks");
        };
        self.guest = Some(Guest::boot(&self.sockets, [system, numbers], does, more));
    }

    fn guest(&self) -> &Guest {
        self.guest.as_ref().unwrap()
    }

    fn kept(&self, shown: &Shown, set: &str, disk: &str) -> PathBuf {
        let mut members = shown.sets[set].members.iter();
        let member = members.find(|it| it.machine == self.machine.id).unwrap();
        member.disks[disk].clone()
    }
}

/// How a set is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Crash,
    Application,
}

/// Two guests of which the first tells the second what it has written.
struct Pair {
    first: Member,
    second: Member,
    wire: Wire,
    _server: Server,
    _site: Site,
}

impl Pair {
    fn new(ground: Ground) -> Self {
        let site = Site::new(ground);
        let [mut first, mut second] = ["first", "second"].map(|name| Member::new(&site, name));
        let peer = first.sockets.path().join("peer");
        let port = ["-device", "virtserialport,chardev=peer,name=peer"];
        let listens = format!("socket,id=peer,path={},server=on,wait=off", peer.display());
        let connects = format!("socket,id=peer,path={}", peer.display());
        for (member, does, end) in [
            (&mut first, "writer causal=A", &listens),
            (&mut second, "writer causal=B", &connects),
        ] {
            member.boot(does, &[&["-chardev", end][..], &port].concat());
        }
        for member in [&first, &second] {
            member.guest().ready();
        }
        let server = site.serve();
        for name in ["first", "second"] {
            known(&server, name, "running");
        }
        Self {
            first,
            second,
            wire: Wire::new(&server),
            _server: server,
            _site: site,
        }
    }

    fn go_on(&self) {
        for member in [&self.first, &self.second] {
            member.guest().goes_on();
        }
    }

    fn group(&self, members: &[&Member]) -> String {
        let ids: Vec<_> = members.iter().map(|it| it.machine.id.as_str()).collect();
        self.wire.define("group", &ids).unwrap()
    }

    fn take(&self, group: &str, level: Level) -> String {
        take(&self.wire, group, level)
    }

    /// The numbers of both in the sets that hold them.
    fn numbers(&self, shown: &Shown, first: &str, second: &str) -> (u64, u64) {
        let first = self.first.kept(shown, first, "disk1");
        let second = self.second.kept(shown, second, "disk1");
        (number(&first), number(&second))
    }

    fn assert_clean(&self, shown: &Shown, set: &str, level: Level) {
        for member in [&self.first, &self.second] {
            assert_clean(&member.kept(shown, set, "disk0"), level);
        }
    }
}

fn take(wire: &Wire, group: &str, level: Level) -> String {
    let level = match level {
        Level::Application => "1",
        Level::Crash => "2",
    };
    let settings = [("ElementName", "set"), ("ConsistencyLevel", level)];
    let created = wire.create_with(group, &settings).unwrap();
    assert_eq!(created.value, STARTED, "{}", wire.why(&created));
    let job = wire.end(&created.job.unwrap()).unwrap();
    assert_eq!((job.state, job.code), (DONE, 0), "{job:?}");
    created.set.unwrap()
}

/// The number that a guest has written there last, which is 0 at first.
fn number(image: &Path) -> u64 {
    let sector = String::from_utf8(head(image, 1, "a number")).unwrap();
    let text = sector.trim_matches(['\0', ' ', '\n']);
    match text {
        "" => 0,
        text => text.parse().unwrap(),
    }
}

/// The file system on a disk is whole: of a guest that was brought to rest as it stands, of another one once it has
/// replayed its journal.
fn assert_clean(image: &Path, level: Level) {
    let disk = tempfile::NamedTempFile::new().unwrap();
    let (from, to) = (image.to_str().unwrap(), disk.path().to_str().unwrap());
    let how = ["convert", "-U", "-f", format(image), "-O", "raw", from, to];
    tools::run("qemu-img", &how);
    if level == Level::Crash {
        // It ends with 1 when it has replayed something; what it could not do is found below.
        tools::try_run("e2fsck", &["-E", "journal_only", "-y", to]);
    }
    let (clean, said) = tools::try_run("e2fsck", &["-fn", to]);
    let recovers = said.contains("journal recovery");
    assert!(clean && !recovers, "{level:?}: {from}: {said}");
}

fn long() -> bool {
    std::env::var_os("GROUPSHOT_TEST_LONG").is_some()
}

/// Takes so many sets; no second number is ahead, and none is more than one behind.
fn are_of_one_moment(ground: Ground) {
    let mut left = if long() { 200 } else { 10 };
    while left > 0 {
        let row = left.min(IN_A_ROW);
        left -= row;
        let pair = Pair::new(ground);
        let group = pair.group(&[&pair.first, &pair.second]);
        let levels = [Level::Crash, Level::Application];
        let taken = levels.into_iter().cycle().take(row).map(|level| {
            pair.go_on();
            (pair.take(&group, level), level)
        });
        let taken: Vec<_> = taken.collect();
        let shown = pair.wire.shown().unwrap();
        let mut last = None;
        for (set, level) in taken {
            let (first, second) = pair.numbers(&shown, &set, &set);
            assert!(
                second == first || second + 1 == first,
                "{level:?}: the first has written {first}, the second {second}"
            );
            assert!(Some(first) >= last, "{first} after {last:?}");
            last = Some(first);
            pair.assert_clean(&shown, &set, level);
        }
        assert!(last > Some(0), "nothing was written");
        if left == 0 {
            one_after_the_other(&pair);
        }
    }
}

/// The same machines, guests and disks, each machine in a set of its own: this test can fail.
fn one_after_the_other(pair: &Pair) {
    let [first, second] = [&pair.first, &pair.second].map(|member| pair.group(&[member]));
    for round in 1..=10 {
        let of_first = pair.take(&first, Level::Crash);
        thread::sleep(GAP);
        let of_second = pair.take(&second, Level::Crash);
        let shown = pair.wire.shown().unwrap();
        let (first, second) = pair.numbers(&shown, &of_first, &of_second);
        if second > first {
            eprintln!("in round {round} the second was {} ahead", second - first);
            return;
        }
    }
    panic!("machines that are captured one after the other seem to be of one moment");
}

#[test]
#[ignore = "needs QEMU and a guest, which ./check installs"]
fn a_message_is_captured_with_what_came_before_it_over_overlays() {
    are_of_one_moment(Ground::Ext4);
}

#[test]
#[ignore = "needs QEMU and a guest, which ./check installs"]
fn a_message_is_captured_with_what_came_before_it_by_clones() {
    are_of_one_moment(Ground::Xfs);
}

/// Somebody has a guest go on, or boot again, that was brought to rest for a set.
#[test]
#[ignore = "needs QEMU and a guest, which ./check installs"]
fn a_guest_that_somebody_else_has_go_on_or_boot_again_is_not_left_frozen() {
    let site = Site::new(Ground::Ext4);
    let mut web = Member::new(&site, "web");
    web.boot("writer", &[]);
    web.guest().ready();
    for (point, command) in [
        ("create.stop.after", "cont"),
        ("create.capture.after", "cont"),
        ("create.stop.after", "system_reset"),
    ] {
        let gate = Gate::new();
        let mut server = site.serve_with(&[&gate.at(point)]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        known(&server, "web", "running");
        web.guest().goes_on();
        let settings = [("ElementName", "set"), ("ConsistencyLevel", "1")];
        let created = wire.create_with(&group, &settings).unwrap();
        assert_eq!(created.value, STARTED, "{point}: {}", wire.why(&created));
        gate.reached();
        web.guest().qemu.tell(command, &json!({}));
        gate.open();
        let job = wire.end(&created.job.unwrap()).unwrap();
        assert_eq!(job.state, FAILED, "{point}, {command}: {job:?}");
        site.wait_for_journals();
        web.guest().ready();
        web.guest().goes_on();
        server.stop();
    }
}
