//! Our own work on files is no alarm: not in the server, not in a command beside it, not in the check-up.

use std::path::Path;

use groupshot::engine::locks::is_written;

use super::doctor::found;
use crate::support::gate::Gate;
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Site};
use crate::support::wire::Wire;

const COMPLETED: u64 = 7;

/// What needs somebody, in the words of the check-up.
fn alarms(data: &Path) -> Vec<(String, String)> {
    let mut all = found(&run_in(data, &["--json", "doctor"], ""));
    all.retain(|(kind, _)| kind != "hidden-layer");
    let said = text(&run_in(data, &["doctor"], "").stdout).to_owned();
    assert!(!said.contains("was changed"), "{said}");
    all
}

#[test]
fn our_own_merge_is_nobody_else_who_writes_and_no_merge_that_waits() {
    for point in [
        "destroy.merge.before",
        "destroy.merge.after",
        "destroy.tops.after",
        "destroy.records.after",
        "destroy.unlink.after",
    ] {
        let site = Site::new(Ground::Host);
        let machine = site.machine("web", &[Image::Raw], 1);
        let gate = Gate::new();
        let server = site.serve_with(&[&gate.at(point)]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let first = wire.take(&group, "first");
        wire.take(&group, "second");
        site.wait_for_journals();
        let gone = wire.destroy(&first).unwrap();
        gate.reached();
        // This process is one beside the server, as `groupshot vm list` is.
        let image = &machine.images[0];
        assert!(!is_written(image).unwrap(), "{point}");
        assert_eq!(alarms(&site.data), [], "{point}");
        gate.open();
        let ended = wire.end(&gone.job.unwrap()).unwrap();
        assert_eq!(ended.state, COMPLETED, "{point}: {ended:?}");
        site.wait_for_journals();
        assert_eq!(found(&run_in(&site.data, &["--json", "doctor"], "")), []);
    }
}
