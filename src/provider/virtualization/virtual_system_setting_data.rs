//! `Msvm_VirtualSystemSettingData`: the active settings of each machine and the settings each snapshot keeps.

use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;

use crate::cim::query::Equality;
use crate::cim::{Class, DateTime, Instance, Path};
use crate::inventory::{self, Consistency, Machine, SetKind, Snapshot, SnapshotSet};
use crate::provider::{Context, Error, Instances, Provider};
use crate::text::catalog::provider as texts;
use crate::text::{Language, Message};

use super::deps::Deps;
use super::element::{Element, SETTINGS, settings_id};
use super::names::{self, MachineNames};
use super::view::{Elements, View};

/// Serves `Msvm_VirtualSystemSettingData`.
pub(super) struct VirtualSystemSettings(pub(super) Deps, pub(super) Arc<MachineNames>);

#[async_trait]
impl Provider for VirtualSystemSettings {
    fn classes(&self) -> &'static [&'static str] {
        &[SETTINGS]
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let (class, language) = (class.clone(), ctx.language);
        Ok(Box::new(view.settings().filter_map(move |element| {
            instance(&view, &class, &element, language).transpose()
        })))
    }

    fn select(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        wanted: &[Equality],
    ) -> Result<Option<Instances>, Error> {
        let view = self.0.view();
        let of_machine = |id| {
            let active = std::iter::once(Element::ActiveSettings(id)).filter(|e| view.has(e));
            active.chain(view.snapshots_of(id))
        };
        let found: Elements = if let Some(guid) = names::text(wanted, "VirtualSystemIdentifier") {
            let id = guid.parse().ok();
            let found: Vec<Element> = id.into_iter().flat_map(of_machine).collect();
            Box::new(found.into_iter())
        } else if let Some(name) = names::text(wanted, "ElementName") {
            let active = self.1.find(&view.observed.machines, name).into_iter();
            Box::new(
                active
                    .map(Element::ActiveSettings)
                    .chain(view.snapshot_settings()),
            )
        } else {
            return Ok(None);
        };
        let (class, language) = (class.clone(), ctx.language);
        Ok(Some(Box::new(found.filter_map(move |element| {
            instance(&view, &class, &element, language).transpose()
        }))))
    }

    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        let view = self.0.view();
        u64::try_from(view.observed.machines.len() + view.state.snapshots.len()).ok()
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        match Element::find(&view, SETTINGS, path) {
            Some(element) => instance(&view, class, &element, ctx.language),
            None => Ok(None),
        }
    }
}

fn instance(
    view: &View,
    class: &Arc<Class>,
    element: &Element,
    language: Language,
) -> Result<Option<Instance>, Error> {
    let made = match element {
        Element::ActiveSettings(id) => match view.observed.machines.get(id) {
            Some(machine) => active(class, machine),
            None => return Ok(None),
        },
        Element::SnapshotSettings(id) => match view.state.snapshot(*id) {
            Some((set, snapshot)) => kept(view, class, set, snapshot, language),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let parent = view.parent(element).map(|id| {
        Element::SnapshotSettings(id)
            .path(&view.host)
            .on(&view.host)
    });
    Ok(Some(
        made?.with("Parent", parent.map(|path| path.to_string()))?,
    ))
}

fn active(class: &Arc<Class>, machine: &Machine) -> Result<Instance, Error> {
    settings(class, &machine.id.to_string(), &machine.definition)?
        .with("Description", "Active settings for the virtual machine")?
        .with("ElementName", machine.name.as_str())?
        .with("VirtualSystemIdentifier", machine.id.to_string())?
        .with("VirtualSystemType", "Microsoft:Hyper-V:System:Realized")?
        .with("CreationTime", DateTime::utc(machine.created))
        .map_err(Error::from)
}

fn kept(
    view: &View,
    class: &Arc<Class>,
    set: &SnapshotSet,
    snapshot: &Snapshot,
    language: Language,
) -> Result<Instance, Error> {
    let system_type = match set.kind {
        SetKind::Standard => "Microsoft:Hyper-V:Snapshot:Realized",
        SetKind::Recovery => "Microsoft:Hyper-V:Snapshot:Recovery",
    };
    settings(class, &snapshot.id.to_string(), &snapshot.definition)?
        .with("Description", "Snapshot settings for the virtual machine")?
        .with("ElementName", &*inventory::shown(&snapshot.name))?
        .with("VirtualSystemIdentifier", snapshot.machine.to_string())?
        .with("VirtualSystemType", system_type)?
        .with("CreationTime", DateTime::utc(snapshot.cut_at))?
        .with("IsAutomaticSnapshot", false)?
        .with("Notes", notes(view, snapshot, language))
        .map_err(Error::from)
}

/// What active and kept settings have in common.
fn settings(class: &Arc<Class>, id: &str, definition: &FilePath) -> Result<Instance, Error> {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    Instance::new(class)
        .with("InstanceID", settings_id(&id))?
        .with("Caption", "Virtual Machine Settings")?
        .with("ConfigurationID", id)?
        .with(
            "ConfigurationDataRoot",
            text(definition.parent().map(FilePath::as_os_str)),
        )?
        .with("ConfigurationFile", text(definition.file_name()))?
        .with("IsSaved", false)
        .map_err(Error::from)
}

/// What a snapshot has to say about itself: the consistency reached, what it does not hold, what of it somebody
/// has changed, and the files under it that no snapshot keeps: hidden layers, or backing files.
fn notes(view: &View, snapshot: &Snapshot, language: Language) -> Vec<String> {
    let consistency = match snapshot.consistency {
        Consistency::Application => texts::NOTE_APPLICATION_CONSISTENT,
        Consistency::Crash => texts::NOTE_CRASH_CONSISTENT,
    };
    let left_out = snapshot.left_out.iter().map(|disk| {
        texts::NOTE_DISK_LEFT_OUT
            .with("disk", disk)
            .render(language)
    });
    let files = snapshot.disks.iter().flat_map(|disk| {
        let note = |words: Message, file: &FilePath| {
            let text = words.with("disk", &disk.id).with("file", file.display());
            text.render(language)
        };
        let damaged = disk.damage.iter().flat_map(|d| &d.files);
        let damaged = damaged.map(move |file| note(texts::NOTE_DAMAGED, file));
        let below = disk.sealed.iter().skip(1).map(|s| &s.file);
        let unnamed = below.filter(|file| !view.keeps(snapshot.machine, file));
        damaged.chain(unnamed.map(move |file| note(texts::NOTE_LIES_ON, file)))
    });
    std::iter::once(consistency.text().render(language))
        .chain(left_out)
        .chain(files)
        .collect()
}
