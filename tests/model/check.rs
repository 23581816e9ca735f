//! Everything that is there is what the model says.

use std::collections::BTreeMap;
use std::fs;

use crate::disks::doctor::found;
use crate::support::server::run_in;
use crate::support::site::assert_holds;
use crate::support::wire::Shown;

use super::world::World;

impl World {
    /// Compares every disk of every machine, set and export, and `qemu-img check` has nothing to say.
    pub(super) fn check(&self, what: &str) {
        self.site.wait_for_journals();
        let shown = self.wire.shown().unwrap();
        for job in shown.jobs.values() {
            assert!(job.state > 6, "{what}: open: {job:?}");
        }
        for machine in &self.machines {
            for (n, expected) in machine.content.iter().enumerate() {
                let top = &shown.tops[&(machine.id.clone(), format!("disk{n}"))];
                assert_eq!(
                    *top,
                    self.site.top(machine, n),
                    "{what}: what the server shows"
                );
                let what = format!("{what}: active, {} disk{n}", machine.name);
                assert_holds(top, expected, &what);
            }
        }
        self.check_sets(&shown, what);
        self.check_exports(what);
        self.check_files(what);
    }

    /// No file is left that nothing names, and none that should have gone.
    fn check_files(&self, what: &str) {
        let out = run_in(&self.site.data, &["--json", "doctor"], "");
        let lost = |(kind, _): &(String, String)| kind == "orphan" || kind == "leftover";
        let lost: Vec<_> = found(&out).into_iter().filter(lost).collect();
        assert!(lost.is_empty(), "{what}: {lost:?}");
    }

    fn check_sets(&self, shown: &Shown, what: &str) {
        let names = |sets: Vec<&String>| sets.into_iter().cloned().collect::<Vec<_>>();
        let mut expected: Vec<_> = self.sets.iter().map(|s| &s.id).collect();
        expected.sort();
        assert_eq!(
            names(shown.sets.keys().collect()),
            names(expected),
            "{what}: sets"
        );
        for set in &self.sets {
            let there = &shown.sets[&set.id];
            assert_eq!(there.name, set.name, "{what}");
            let members: BTreeMap<_, _> = there
                .members
                .iter()
                .map(|m| (m.machine.clone(), m))
                .collect();
            assert!(members.keys().eq(set.members.keys()), "{what}: {there:?}");
            assert!(!there.is_damaged(), "{what}: {there:?}");
            for (machine, disks) in &set.members {
                for (n, expected) in disks.iter().enumerate() {
                    let file = &members[machine].disks[&format!("disk{n}")];
                    assert_holds(file, expected, &format!("{what}: {}, disk{n}", set.name));
                }
            }
        }
    }

    /// Nothing lies in the export folder but whole exports, whatever died.
    fn check_exports(&self, what: &str) {
        let entries = fs::read_dir(&self.root).unwrap();
        let mut there: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        // A capture of a machine that was imported keeps its clones beside its disks, deeper down.
        let last = self.exported.last.iter().map(|(folder, _)| folder);
        let mut expected: Vec<_> = self.exported.imported.iter().chain(last).cloned().collect();
        there.sort();
        expected.sort();
        expected.dedup();
        assert_eq!(there, expected, "{what}: exports");
    }
}
