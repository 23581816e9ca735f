//! For the audit log and the history: which machines, sets, collections and folders a call concerns, with their names as
//! they are now.

use crate::audit::{self, About};
use crate::cim::{Path, Schema, Value};
use crate::id::{CollectionId, SetId, SnapshotId, VmId};
use crate::inventory::Snapshot;
use crate::snapshot;

use super::deps::Deps;
use super::element::{Element, Owner};
use super::view::View;

/// Of these parameters or results.
pub(super) fn of<'a>(
    deps: &Deps,
    schema: &Schema,
    values: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> About {
    let view = deps.view();
    let mut about = About::default();
    for (name, value) in values {
        about = match value {
            Value::Reference(path) => referred(&view, schema, path, about),
            _ => text(&view, name, value.as_str().unwrap_or_default(), about),
        };
    }
    about
}

/// Texts are a client's own and may be anything; those of two parameters name something.
fn text(view: &View, parameter: &str, value: &str, about: About) -> About {
    if parameter.eq_ignore_ascii_case("CollectionId") {
        let id = value.parse::<CollectionId>().ok();
        return match id.filter(|id| view.state.collections.contains_key(id)) {
            Some(id) => collection(view, id, about),
            None => about,
        };
    }
    match parameter.eq_ignore_ascii_case("ExportDirectory") && value.starts_with('/') {
        true => about.directory(audit::shortened(value)),
        false => about,
    }
}

fn referred(view: &View, schema: &Schema, path: &Path, about: About) -> About {
    match Element::resolve(view, schema, path, "CIM_ManagedElement") {
        Some(element) => add(view, &element, about),
        // One that is gone can still leave its collections.
        None => match Element::machine_named(&view.host, path) {
            Some(id) => machine(view, id, about),
            None => about,
        },
    }
}

/// What this element is about.
pub(super) fn add(view: &View, element: &Element, about: About) -> About {
    match element {
        Element::Machine(id)
        | Element::ActiveSettings(id)
        | Element::Disk(Owner::Machine(id), _) => machine(view, *id, about),
        Element::SnapshotSettings(id) | Element::Disk(Owner::Snapshot(id), _) => {
            snapshot(view, *id, about)
        }
        Element::Group(id, _) => collection(view, *id, about),
        Element::Set(id) => set(view, *id, about),
        Element::Job(id) => match view.state.jobs.get(id) {
            Some(job) => about.and(&job.about),
            None => about,
        },
        Element::Host | Element::Service(_) | Element::SnapshotCheck => about,
    }
}

fn machine(view: &View, id: VmId, about: About) -> About {
    let name = view.observed.machines.get(&id).map(|m| m.name.as_str());
    about.machine(id, name.unwrap_or_default())
}

fn collection(view: &View, id: CollectionId, about: About) -> About {
    let name = view.state.collections.get(&id).map(|c| c.name.as_str());
    about.collection(id, name.unwrap_or_default())
}

/// The machines that a set of the collection would hold.
pub(super) fn members(view: &View, id: CollectionId) -> About {
    let all = snapshot::machines_of(&view.state, id);
    let named = all.into_iter().map(|id| {
        let name = view.observed.machines.get(&id).map(|m| m.name.clone());
        (id, name.unwrap_or_default())
    });
    About::default().machines(named)
}

fn set(view: &View, id: SetId, about: About) -> About {
    match view.state.sets.get(&id) {
        Some(set) => about.and(&set.about(&view.state.collections, |_| true)),
        None => about.set(id, ""),
    }
}

fn snapshot(view: &View, id: SnapshotId, about: About) -> About {
    match view.state.snapshot(id) {
        Some((set, _)) => {
            let only = |member: &Snapshot| member.id == id;
            about.and(&set.about(&view.state.collections, only))
        }
        None => about,
    }
}
