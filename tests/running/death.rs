//! Death of the server with machines that a QEMU runs, at each boundary of a step and at any moment: all that ran write on,
//! at once and without a server; what was paused stays so; the next start has the set whole or not at all.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use groupshot::snapshot::create::{FAILPOINTS, WINDOW_FAILPOINTS};

use crate::support::chance::Chance;
use crate::support::site::{Ground, Site};
use crate::support::wire::{STARTED, Set, Wire};

use super::counter::{self, Counter};
use super::cut::{DONE, crash};

/// How long anything may take, on a host that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
const SIGKILL: i32 = 9;
/// Deaths at random moments with the same machines: no chain is too deep.
const IN_A_ROW: usize = 20;

/// Machines that count, one of them paused, and how long it took until all that run wrote again.
struct Scene {
    site: Site,
    counters: Vec<Counter>,
    paused: Counter,
    times: Vec<Duration>,
}

/// What a client has seen of a set that it asked for.
#[derive(Debug, Default)]
struct Seen {
    set: Option<String>,
    completed: bool,
}

/// What there is before a set is taken.
struct Before {
    counts: Vec<u64>,
    paused: u64,
    sets: BTreeSet<String>,
    kept: Vec<PathBuf>,
}

impl Scene {
    fn new(ground: Ground, count: usize) -> Self {
        let site = Site::new(ground);
        let new = |n: usize| Counter::new(&site, &format!("web-{n}"));
        let mut counters: Vec<_> = (1..=count).map(new).collect();
        let mut paused = Counter::new(&site, "idle");
        counters.iter_mut().for_each(|it| it.start(&site));
        paused.start(&site);
        paused.pause();
        Self {
            site,
            counters,
            paused,
            times: Vec::new(),
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.counters.iter().map(Counter::count).collect()
    }

    fn define(&self, wire: &Wire) -> String {
        let all = self.counters.iter().chain([&self.paused]);
        let ids: Vec<_> = all.map(|it| it.guest.machine.id.as_str()).collect();
        wire.define("all", &ids).unwrap()
    }

    fn before(&self, wire: &Wire) -> Before {
        self.site.wait_for_journals();
        Before {
            counts: self.counts(),
            paused: self.paused.count(),
            sets: wire.shown().unwrap().sets.into_keys().collect(),
            kept: self.site.kept(),
        }
    }

    /// The server has died a moment ago.
    fn all_write_again(&mut self, died: Instant, what: &str) {
        let then = self.counts();
        let stands = |(counter, then): (&Counter, &u64)| counter.count() <= *then;
        while self.counters.iter().zip(&then).any(stands) {
            assert!(died.elapsed() < PATIENCE, "{what}: one stands still");
            thread::sleep(Duration::from_millis(1));
        }
        self.times.push(died.elapsed());
        assert_eq!(self.paused.guest.status(), "paused", "{what}");
    }

    /// After the next start: whether the set is there, and then it is whole.
    fn is_whole(&self, wire: &Wire, before: &Before, seen: &Seen, what: &str) -> bool {
        self.site.wait_for_journals();
        let shown = wire.shown().unwrap();
        for job in shown.jobs.values() {
            assert!(job.state > 6, "{what}: {job:?}");
        }
        let all = self.counters.iter().chain([&self.paused]);
        all.for_each(|it| it.assert_sound(what));
        assert_eq!(self.paused.guest.status(), "paused", "{what}");
        assert_eq!(self.paused.count(), before.paused, "{what}");
        let new = shown.sets.keys().filter(|id| !before.sets.contains(*id));
        let new: Vec<_> = new.collect();
        match new[..] {
            [] => {
                assert!(!seen.completed, "{what}: completed, and it is gone");
                assert_eq!(self.site.kept(), before.kept, "{what}: it is gone");
                false
            }
            [id] => {
                assert!(seen.set.as_ref().is_none_or(|it| it == id), "{what}");
                self.assert_holds(&shown.sets[id], before, what);
                true
            }
            _ => panic!("{what}: {new:?}"),
        }
    }

    /// The set has every machine with what it had written when the set was asked for, and nothing in another order.
    fn assert_holds(&self, set: &Set, before: &Before, what: &str) {
        let all = self.counters.iter().chain([&self.paused]);
        let counts = before.counts.iter().chain([&before.paused]);
        let mut left = set.members.len();
        for (counter, count) in all.zip(counts) {
            let id = &counter.guest.machine.id;
            let member = set.members.iter().find(|it| it.machine == *id).unwrap();
            let [first, second] =
                ["disk0", "disk1"].map(|disk| counter::number(&member.disks[disk], what));
            let name = &counter.guest.machine.name;
            assert!(
                second >= *count && (first == second || first == second + 1),
                "{what}: {name} had written {count}, and {first} and {second} are captured"
            );
            assert!(first <= counter.count() + 1, "{what}: {name}");
            left -= 1;
        }
        assert_eq!(left, 0, "{what}");
    }

    /// All that was written is in the active files at the end.
    fn end(mut self) {
        let mut all: Vec<_> = self.counters.drain(..).chain([self.paused]).collect();
        for counter in &mut all {
            counter.pause();
            let count = counter.count();
            counter.guest.quit();
            let machine = &counter.guest.machine;
            let [first, second] =
                [0, 1].map(|disk| counter::number(&self.site.top(machine, disk), "at the end"));
            assert!(
                first >= second && second >= count && first <= count + 1,
                "{}: it had written {count}, and its disks hold {first} and {second}",
                machine.name
            );
        }
        self.times.sort();
        let nth = |part: usize| self.times[(self.times.len() - 1) * part / 4];
        eprintln!(
            "{} deaths with {} machines that run; all wrote again after {:?}, {:?}, {:?}, {:?}, {:?} (least, quartiles, most)",
            self.times.len(),
            all.len() - 1,
            nth(0),
            nth(1),
            nth(2),
            nth(3),
            nth(4)
        );
    }
}

/// Asks for a set until one is begun or nobody answers any more, and waits for its end.
fn ask(wire: &Wire, group: &str) -> Seen {
    let begun = Instant::now();
    let created = loop {
        match wire.create_with(group, &crash("set")) {
            Ok(created) if created.value == STARTED => break created,
            // After a start it takes a moment until a machine is known.
            Ok(refused) => assert!(begun.elapsed() < PATIENCE, "{refused:?}"),
            Err(_) => return Seen::default(),
        }
        thread::sleep(Duration::from_millis(50));
    };
    let ended = wire.end(created.job.as_ref().unwrap());
    Seen {
        set: created.set,
        completed: ended.is_ok_and(|job| job.state == DONE),
    }
}

fn long() -> bool {
    std::env::var_os("GROUPSHOT_TEST_LONG").is_some()
}

fn machines() -> usize {
    if long() { 15 } else { 2 }
}

/// All points of a create, in the order in which they are passed; those of the undo last.
fn points() -> Vec<&'static str> {
    let mut points = FAILPOINTS.clone();
    let window = points.iter().position(|it| *it == "create.window.after");
    points.splice(window.unwrap()..window.unwrap(), WINDOW_FAILPOINTS);
    points
}

/// The points after which a set stands, and the others. A recovery from a death at one of these passes none of those, so
/// that by turns each server may have the order for its own death when it starts.
fn by_turns() -> Vec<(&'static str, bool)> {
    let mut points = points();
    let first = points[0];
    // Between the end of a step and the beginning of the next one nothing is done.
    points.retain(|it| long() || it.ends_with(".after") || *it == first);
    let place = |point: &str| points.iter().position(|it| *it == point).unwrap();
    let word = place("create.word.after");
    let abort = points.iter().position(|it| it.contains(".abort.")).unwrap();
    let (back, rest) = points.split_at(word);
    let (forward, undo) = rest.split_at(abort - word);
    let mut back = undo.iter().chain(back).map(|it| (*it, false));
    let mut all = Vec::new();
    for point in forward {
        all.extend([(*point, true)].into_iter().chain(back.next()));
    }
    all.extend(back);
    all
}

fn orders(point: &str) -> Vec<String> {
    let mut orders = vec![format!("{point}=abort")];
    if point.contains(".abort.") || point.contains(".undone.") {
        orders.push("create.word.before=error".to_owned());
    }
    orders
}

fn at_every_boundary(ground: Ground) {
    let all = by_turns();
    let mut scene = Scene::new(ground, machines());
    let serve = |site: &Site, point: Option<&(&str, bool)>| {
        let orders = point.map_or(Vec::new(), |(point, _)| orders(point));
        let orders: Vec<_> = orders.iter().map(String::as_str).collect();
        site.serve_with(&orders)
    };
    let mut server = serve(&scene.site, all.first());
    let mut wire = Wire::new(&server);
    let group = scene.define(&wire);
    for (n, (point, survives)) in all.iter().enumerate() {
        let before = scene.before(&wire);
        let seen = ask(&wire, &group);
        let status = server.wait(PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{point}: never passed"));
        assert_eq!(status.signal(), Some(SIGKILL), "{point}: {status}");
        scene.all_write_again(Instant::now(), point);
        server = serve(&scene.site, all.get(n + 1));
        wire = Wire::new(&server);
        let whole = scene.is_whole(&wire, &before, &seen, point);
        assert_eq!(whole, *survives, "{point}");
    }
    server.stop();
    scene.end();
}

/// From the request on until a while after a set as it was taken undisturbed.
fn at_random(ground: Ground, chance: &mut Chance, deaths: usize) {
    let mut scene = Scene::new(ground, machines());
    let mut server = scene.site.serve();
    let mut wire = Wire::new(&server);
    let group = scene.define(&wire);
    let before = scene.before(&wire);
    let begun = Instant::now();
    let seen = ask(&wire, &group);
    let took = begun.elapsed();
    assert!(scene.is_whole(&wire, &before, &seen, "undisturbed"));
    let mut whole = 0;
    for n in 0..deaths {
        let before = scene.before(&wire);
        let moment = took.mul_f64(chance.below(1200) as f64 / 1000.0);
        let what = format!(
            "seed {}, death {n}, after {moment:?} of {took:?}",
            chance.seed
        );
        let seen = thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&wire, &group));
            thread::sleep(moment);
            server.kill();
            let died = Instant::now();
            scene.all_write_again(died, &what);
            asking.join().unwrap()
        });
        server = scene.site.serve();
        wire = Wire::new(&server);
        whole += usize::from(scene.is_whole(&wire, &before, &seen, &what));
    }
    eprintln!("of {deaths} sets {whole} are there");
    server.stop();
    scene.end();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn machines_write_on_after_a_death_at_every_boundary() {
    at_every_boundary(Ground::Ext4);
    if long() {
        at_every_boundary(Ground::Xfs);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn machines_write_on_after_a_death_at_any_moment() {
    let mut chance = Chance::from_environment();
    let mut left = if long() { 200 } else { 10 };
    for ground in [Ground::Xfs, Ground::Ext4].into_iter().cycle() {
        let row = left.min(IN_A_ROW);
        at_random(ground, &mut chance, row);
        left -= row;
        if left == 0 {
            return;
        }
    }
}
