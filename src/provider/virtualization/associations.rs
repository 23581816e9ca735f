//! The associations, one table: each with its two ends and the way from either end to the other.
//!
//! `starts` names the elements of the first end that may have partners; all pairs are their partners. So an
//! enumeration holds one pair at a time, and a question about one element touches only its own partners.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;

use crate::cim::{Class, Instance, Path, Schema, Type};
use crate::id::{SnapshotId, VmId};
use crate::inventory::{
    Affected, Collection, CollectionKind, Job, JobKind, Position, Service, SnapshotSet,
};
use crate::provider::{Context, Error, Instances, Provider, Status};
use crate::text::catalog::provider as texts;

use super::deps::Deps;
use super::element::{Element, Owner};
use super::view::{Elements, View};

/// An association class.
struct Association {
    /// Its name.
    class: &'static str,
    /// The reference property of the first end.
    first: &'static str,
    /// The reference property of the second end.
    second: &'static str,
    /// Elements of the first end.
    starts: fn(&View) -> Elements,
    /// Partners of a first end.
    to_second: fn(&View, &Element) -> Elements,
    /// Partners of a second end.
    to_first: fn(&View, &Element) -> Elements,
    /// Properties beside the two ends.
    more: fn(&View, &mut Instance, &Element, &Element) -> Result<(), Error>,
}

/// Every association that is served.
const TABLE: &[Association] = &[
    Association {
        class: "Msvm_CollectedVirtualSystems",
        first: "Collection",
        second: "Member",
        starts: |view| view.groups(CollectionKind::Machines),
        to_second: member_machines,
        to_first: groups_of_machine,
        more: nothing,
    },
    Association {
        class: "Msvm_CollectedCollections",
        first: "Collection",
        second: "Member",
        starts: |view| view.groups(CollectionKind::Collections),
        to_second: member_groups,
        to_first: groups_of_group,
        more: nothing,
    },
    Association {
        class: "Msvm_CollectedSnapshots",
        first: "Collection",
        second: "Member",
        starts: View::sets,
        to_second: member_snapshots,
        to_first: set_of_snapshot,
        more: nothing,
    },
    Association {
        class: "Msvm_SnapshotOfVirtualSystem",
        first: "Dependent",
        second: "Antecedent",
        starts: View::snapshot_settings,
        to_second: machine_of_snapshot,
        to_first: snapshots_of_machine,
        more: nothing,
    },
    Association {
        class: "Msvm_SnapshotOfVirtualSystemCollection",
        first: "Dependent",
        second: "Antecedent",
        starts: View::sets,
        to_second: group_of_set,
        to_first: sets_of_group,
        more: nothing,
    },
    Association {
        class: "Msvm_MostCurrentSnapshotInBranch",
        first: "Antecedent",
        second: "Dependent",
        starts: positioned_machines,
        to_second: |view, machine| at_position(view, machine, |p| p.parent),
        to_first: |view, snapshot| standing_on(view, snapshot, |p| p.parent),
        more: nothing,
    },
    Association {
        class: "Msvm_LastAppliedSnapshot",
        first: "Dependent",
        second: "Antecedent",
        starts: positioned_machines,
        to_second: |view, machine| at_position(view, machine, |p| p.last_applied),
        to_first: |view, snapshot| standing_on(view, snapshot, |p| p.last_applied),
        more: nothing,
    },
    Association {
        class: "Msvm_ParentChildSettingData",
        first: "Dependent",
        second: "Antecedent",
        starts: settings_with_history,
        to_second: parent_settings,
        to_first: child_settings,
        more: nothing,
    },
    Association {
        class: "Msvm_AffectedJobElement",
        first: "AffectingElement",
        second: "AffectedElement",
        starts: View::jobs,
        to_second: affected_by_job,
        to_first: jobs_affecting,
        more: element_effects,
    },
    Association {
        class: "Msvm_OwningJobElement",
        first: "OwnedElement",
        second: "OwningElement",
        starts: View::jobs,
        to_second: service_of_job,
        to_first: jobs_of_service,
        more: nothing,
    },
    Association {
        class: "Msvm_ServiceAffectsElement",
        first: "AffectingElement",
        second: "AffectedElement",
        starts: |_| View::services(),
        to_second: managed_by_service,
        to_first: managing_service,
        more: |_, instance, _, _| Ok(instance.set("ElementEffects", vec![MANAGES])?),
    },
    Association {
        class: "Msvm_HostedService",
        first: "Antecedent",
        second: "Dependent",
        starts: |_| one(Some(Element::Host)),
        to_second: |_, host| some_if(*host == Element::Host, View::services),
        to_first: |_, service| one(matches!(service, Element::Service(_)).then_some(Element::Host)),
        more: nothing,
    },
    Association {
        class: "Msvm_HostedDependency",
        first: "Dependent",
        second: "Antecedent",
        starts: View::machines,
        to_second: |_, machine| one(machine_id(machine).map(|_| Element::Host)),
        to_first: |view, host| some_if(*host == Element::Host, || view.machines()),
        more: nothing,
    },
    Association {
        class: "Msvm_SettingsDefineState",
        first: "ManagedElement",
        second: "SettingData",
        starts: View::machines,
        to_second: active_settings,
        to_first: machine_of_active_settings,
        more: nothing,
    },
    Association {
        class: "Msvm_ElementSettingData",
        first: "ManagedElement",
        second: "SettingData",
        starts: View::machines,
        to_second: active_settings,
        to_first: machine_of_active_settings,
        more: |_, instance, _, _| Ok(instance.set("IsCurrent", IS_CURRENT)?),
    },
    Association {
        class: "Msvm_VirtualSystemSettingDataComponent",
        first: "GroupComponent",
        second: "PartComponent",
        starts: View::settings,
        to_second: disks_of_settings,
        to_first: settings_of_disk,
        more: nothing,
    },
];

/// `CIM_AffectedJobElement.ElementEffects`: the job keeps everyone else off.
const EXCLUSIVE_USE: u16 = 2;
/// `CIM_AffectedJobElement.ElementEffects`: the job made it.
const CREATE: u16 = 5;
/// `Msvm_ServiceAffectsElement.ElementEffects`.
const MANAGES: u16 = 5;
/// `Msvm_ElementSettingData.IsCurrent`.
const IS_CURRENT: u16 = 1;

/// The names in [`TABLE`].
static CLASSES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| TABLE.iter().map(|a| a.class).collect());

/// Serves every class of [`TABLE`].
pub(super) struct Associations(pub(super) Deps);

#[async_trait]
impl Provider for Associations {
    fn classes(&self) -> &'static [&'static str] {
        &CLASSES
    }

    fn enumerate(&self, _ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let link = association(class)?;
        let starts = (link.starts)(&view);
        let class = class.clone();
        Ok(Box::new(starts.flat_map(move |first| {
            link.all_of_first(&view, &class, first)
        })))
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        let link = association(class)?;
        let end = |role| {
            let reference = path.get(role)?.as_reference()?;
            resolve_end(&view, &ctx.schema, class, role, reference)
        };
        let (Some(first), Some(second)) = (end(link.first), end(link.second)) else {
            return Ok(None);
        };
        if !(link.to_second)(&view, &first).any(|partner| partner == second) {
            return Ok(None);
        }
        link.instance(&view, class, &first, &second).map(Some)
    }

    fn references(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        role: &str,
        to: &Path,
    ) -> Result<Instances, Error> {
        let view = self.0.view();
        let link = association(class)?;
        let Some(end) = resolve_end(&view, &ctx.schema, class, role, to) else {
            return Ok(Box::new(std::iter::empty()));
        };
        if role.eq_ignore_ascii_case(link.first) {
            Ok(link.all_of_first(&view, class, end))
        } else if role.eq_ignore_ascii_case(link.second) {
            Ok(link.all_of_second(&view, class, end))
        } else {
            Ok(Box::new(std::iter::empty()))
        }
    }
}

impl Association {
    fn all_of_first(&'static self, view: &View, class: &Arc<Class>, first: Element) -> Instances {
        let (view, class) = (view.clone(), class.clone());
        let partners = (self.to_second)(&view, &first);
        Box::new(partners.filter_map(move |second| {
            view.has(&second)
                .then(|| self.instance(&view, &class, &first, &second))
        }))
    }

    fn all_of_second(&'static self, view: &View, class: &Arc<Class>, second: Element) -> Instances {
        let (view, class) = (view.clone(), class.clone());
        let partners = (self.to_first)(&view, &second);
        Box::new(partners.filter_map(move |first| {
            view.has(&first)
                .then(|| self.instance(&view, &class, &first, &second))
        }))
    }

    fn instance(
        &self,
        view: &View,
        class: &Arc<Class>,
        first: &Element,
        second: &Element,
    ) -> Result<Instance, Error> {
        let mut instance = Instance::new(class)
            .with(self.first, first.path(&view.host))?
            .with(self.second, second.path(&view.host))?;
        (self.more)(view, &mut instance, first, second)?;
        Ok(instance)
    }
}

fn association(class: &Class) -> Result<&'static Association, Error> {
    let found = TABLE.iter().find(|a| class.name == *a.class);
    found.ok_or_else(|| {
        let text = texts::NO_INSTANCE_OF.with("class", &class.name);
        Error::new(Status::NotFound, text)
    })
}

/// The existing element at one end of an association.
fn resolve_end(
    view: &View,
    schema: &Schema,
    class: &Class,
    role: &str,
    reference: &Path,
) -> Option<Element> {
    match &class.property(role)?.ty {
        Type::Reference(declared) => Element::resolve(view, schema, reference, declared.as_str()),
        _ => None,
    }
}

// ---- the ways between the ends

fn one(element: Option<Element>) -> Elements {
    Box::new(element.into_iter())
}

fn some_if(condition: bool, elements: impl FnOnce() -> Elements) -> Elements {
    if condition { elements() } else { one(None) }
}

fn all(elements: Vec<Element>) -> Elements {
    Box::new(elements.into_iter())
}

fn nothing(_: &View, _: &mut Instance, _: &Element, _: &Element) -> Result<(), Error> {
    Ok(())
}

const fn machine_id(element: &Element) -> Option<VmId> {
    match element {
        Element::Machine(id) => Some(*id),
        _ => None,
    }
}

fn collection(view: &View, element: &Element) -> Option<Arc<Collection>> {
    match element {
        Element::Group(id, _) => view.state.collections.get(id).cloned(),
        _ => None,
    }
}

fn set(view: &View, element: &Element) -> Option<Arc<SnapshotSet>> {
    match element {
        Element::Set(id) => view.state.sets.get(id).cloned(),
        _ => None,
    }
}

fn job(view: &View, element: &Element) -> Option<Arc<Job>> {
    match element {
        Element::Job(id) => view.state.jobs.get(id).cloned(),
        _ => None,
    }
}

fn member_machines(view: &View, group: &Element) -> Elements {
    let machines = collection(view, group).map_or_else(Vec::new, |c| c.machines.clone());
    Box::new(machines.into_iter().map(Element::Machine))
}

fn groups_of_machine(view: &View, machine: &Element) -> Elements {
    let Some(id) = machine_id(machine) else {
        return one(None);
    };
    let state = view.state.clone();
    Box::new(
        view.groups(CollectionKind::Machines)
            .filter(move |group| match group {
                Element::Group(group, _) => {
                    let group = state.collections.get(group);
                    group.is_some_and(|c| c.machines.contains(&id))
                }
                _ => false,
            }),
    )
}

fn member_groups(view: &View, group: &Element) -> Elements {
    let ids = collection(view, group).map_or_else(Vec::new, |c| c.collections.clone());
    let members = ids.iter().filter_map(|id| view.state.collections.get(id));
    all(members.map(|c| Element::Group(c.id, c.kind)).collect())
}

fn groups_of_group(view: &View, member: &Element) -> Elements {
    let Element::Group(id, _) = *member else {
        return one(None);
    };
    let state = view.state.clone();
    Box::new(
        view.groups(CollectionKind::Collections)
            .filter(move |group| match group {
                Element::Group(group, _) => {
                    let group = state.collections.get(group);
                    group.is_some_and(|c| c.collections.contains(&id))
                }
                _ => false,
            }),
    )
}

fn member_snapshots(view: &View, element: &Element) -> Elements {
    let set = set(view, element);
    let members = set.iter().flat_map(|s| &s.members);
    all(members.map(|m| Element::SnapshotSettings(m.id)).collect())
}

fn set_of_snapshot(view: &View, settings: &Element) -> Elements {
    one(match settings {
        Element::SnapshotSettings(id) => {
            let place = view.state.snapshots.get(id);
            place.map(|(set, _)| Element::Set(*set))
        }
        _ => None,
    })
}

fn machine_of_snapshot(view: &View, settings: &Element) -> Elements {
    one(match settings {
        Element::SnapshotSettings(id) => view.snapshot(*id).map(|s| Element::Machine(s.machine)),
        _ => None,
    })
}

fn snapshots_of_machine(view: &View, machine: &Element) -> Elements {
    machine_id(machine).map_or_else(|| one(None), |id| view.snapshots_of(id))
}

fn group_of_set(view: &View, element: &Element) -> Elements {
    let group = set(view, element).and_then(|s| s.collection);
    let group = group.and_then(|id| view.state.collections.get(&id));
    one(group.map(|c| Element::Group(c.id, c.kind)))
}

fn sets_of_group(view: &View, group: &Element) -> Elements {
    let Element::Group(id, _) = *group else {
        return one(None);
    };
    let state = view.state.clone();
    Box::new(view.sets().filter(move |element| {
        match element {
            Element::Set(set) => state
                .sets
                .get(set)
                .is_some_and(|s| s.collection == Some(id)),
            _ => false,
        }
    }))
}

fn positioned_machines(view: &View) -> Elements {
    Box::new(view.positioned().map(|(id, _)| Element::Machine(id)))
}

/// The snapshot at a place of the machine's position.
fn at_position(
    view: &View,
    machine: &Element,
    place: fn(&Position) -> Option<SnapshotId>,
) -> Elements {
    let position = machine_id(machine).map(|id| view.state.position(id));
    one(position
        .and_then(|p| place(&p))
        .map(Element::SnapshotSettings))
}

/// The machine of the snapshot, if that snapshot is at this place of its position.
fn standing_on(
    view: &View,
    settings: &Element,
    place: fn(&Position) -> Option<SnapshotId>,
) -> Elements {
    let Element::SnapshotSettings(id) = *settings else {
        return one(None);
    };
    let machine = view.snapshot(id).map(|s| s.machine);
    one(machine
        .filter(|machine| place(&view.state.position(*machine)) == Some(id))
        .map(Element::Machine))
}

fn settings_with_history(view: &View) -> Elements {
    let active = view.positioned().map(|(id, _)| Element::ActiveSettings(id));
    Box::new(view.snapshot_settings().chain(active))
}

fn parent_settings(view: &View, child: &Element) -> Elements {
    one(view.parent(child).map(Element::SnapshotSettings))
}

fn child_settings(view: &View, parent: &Element) -> Elements {
    let Element::SnapshotSettings(id) = *parent else {
        return one(None);
    };
    let Some(machine) = view.snapshot(id).map(|s| s.machine) else {
        return one(None);
    };
    let active = one(Some(Element::ActiveSettings(machine)).filter(|e| view.has(e)));
    let family = view.snapshots_of(machine).chain(active);
    let view = view.clone();
    Box::new(family.filter(move |child| view.parent(child) == Some(id)))
}

fn affected_by_job(view: &View, element: &Element) -> Elements {
    let job = job(view, element);
    let affected = job.iter().flat_map(|j| &j.affected);
    all(affected
        .filter_map(|a| affected_element(view, *a))
        .collect())
}

fn affected_element(view: &View, affected: Affected) -> Option<Element> {
    match affected {
        Affected::Machine(id) => Some(Element::Machine(id)),
        Affected::Set(id) => Some(Element::Set(id)),
        Affected::Collection(id) => {
            let group = view.state.collections.get(&id)?;
            Some(Element::Group(id, group.kind))
        }
    }
}

fn jobs_affecting(view: &View, element: &Element) -> Elements {
    let wanted = match element {
        Element::Machine(id) => Affected::Machine(*id),
        Element::Set(id) => Affected::Set(*id),
        Element::Group(id, _) => Affected::Collection(*id),
        _ => return one(None),
    };
    let state = view.state.clone();
    Box::new(view.jobs().filter(move |element| {
        match element {
            Element::Job(id) => state
                .jobs
                .get(id)
                .is_some_and(|j| j.affected.contains(&wanted)),
            _ => false,
        }
    }))
}

fn element_effects(
    view: &View,
    instance: &mut Instance,
    first: &Element,
    second: &Element,
) -> Result<(), Error> {
    let made = matches!(second, Element::Set(_))
        && job(view, first).is_some_and(|j| j.kind == JobKind::CreateSnapshotSet);
    let effect = if made { CREATE } else { EXCLUSIVE_USE };
    Ok(instance.set("ElementEffects", vec![effect])?)
}

fn service_of_job(view: &View, element: &Element) -> Elements {
    one(job(view, element).map(|j| Element::Service(j.service)))
}

fn jobs_of_service(view: &View, element: &Element) -> Elements {
    let Element::Service(service) = *element else {
        return one(None);
    };
    let state = view.state.clone();
    Box::new(view.jobs().filter(move |element| match element {
        Element::Job(id) => state.jobs.get(id).is_some_and(|j| j.service == service),
        _ => false,
    }))
}

fn managed_by_service(view: &View, element: &Element) -> Elements {
    match element {
        Element::Service(Service::CollectionManagement) => view.all_groups(),
        Element::Service(Service::CollectionSnapshot) => view.sets(),
        Element::Service(Service::VirtualSystemSnapshot) => view.snapshot_settings(),
        _ => one(None),
    }
}

fn managing_service(_: &View, element: &Element) -> Elements {
    one(match element {
        Element::Group(..) => Some(Element::Service(Service::CollectionManagement)),
        Element::Set(_) => Some(Element::Service(Service::CollectionSnapshot)),
        Element::SnapshotSettings(_) => Some(Element::Service(Service::VirtualSystemSnapshot)),
        _ => None,
    })
}

fn active_settings(_: &View, machine: &Element) -> Elements {
    one(machine_id(machine).map(Element::ActiveSettings))
}

fn machine_of_active_settings(_: &View, settings: &Element) -> Elements {
    one(match settings {
        Element::ActiveSettings(id) => Some(Element::Machine(*id)),
        _ => None,
    })
}

fn disks_of_settings(view: &View, settings: &Element) -> Elements {
    let owner = match settings {
        Element::ActiveSettings(id) => Owner::Machine(*id),
        Element::SnapshotSettings(id) => Owner::Snapshot(*id),
        _ => return one(None),
    };
    let disks = view.disk_ids(owner);
    Box::new(
        disks
            .into_iter()
            .map(move |disk| Element::Disk(owner, disk)),
    )
}

fn settings_of_disk(_: &View, disk: &Element) -> Elements {
    one(match disk {
        Element::Disk(Owner::Machine(id), _) => Some(Element::ActiveSettings(*id)),
        Element::Disk(Owner::Snapshot(id), _) => Some(Element::SnapshotSettings(*id)),
        _ => None,
    })
}
