//! `Msvm_ComputerSystem`: this host and every virtual machine.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cim::query::Equality;
use crate::cim::{Class, DateTime, Instance, Method, Path};
use crate::engine::Observed;
use crate::id::VmId;
use crate::inventory::{JobKind, Machine, RunState};
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider};
use crate::text::catalog::provider as texts;
use crate::text::{Language, Message};

use super::deps::Deps;
use super::element::{COMPUTER_SYSTEM, Element};
use super::names::{self, MachineNames};
use super::outcome;
use super::view::View;

/// `EnabledState` 2: runs.
const ENABLED: u16 = 2;
/// `EnabledState` 3: is off.
const DISABLED: u16 = 3;
/// `EnabledState` 9: is paused.
const QUIESCE: u16 = 9;
/// `OperationalStatus` 2.
const OK: u16 = 2;
/// `OperationalStatus` 3.
const DEGRADED: u16 = 3;
/// `OperationalStatus` 32768, in second place.
const CREATING_SNAPSHOT: u16 = 32768;
/// `OperationalStatus` 32769, in second place.
const APPLYING_SNAPSHOT: u16 = 32769;
/// `OperationalStatus` 32770, in second place.
const DELETING_SNAPSHOT: u16 = 32770;
/// `HealthState` 5.
const HEALTHY: u16 = 5;
/// `HealthState` 20.
const MAJOR_FAILURE: u16 = 20;

/// Serves `Msvm_ComputerSystem`.
pub(super) struct ComputerSystems(pub(super) Deps, pub(super) Arc<MachineNames>);

#[async_trait]
impl Provider for ComputerSystems {
    fn classes(&self) -> &'static [&'static str] {
        &[COMPUTER_SYSTEM]
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let all = std::iter::once(Element::Host).chain(view.machines());
        Ok(self.instances(ctx, class, view, all))
    }

    fn select(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        wanted: &[Equality],
    ) -> Result<Option<Instances>, Error> {
        let view = self.0.view();
        let mut found = if let Some(name) = names::text(wanted, "Name") {
            let id = name.parse().ok();
            id.map(Element::Machine).into_iter().collect()
        } else if let Some(name) = names::text(wanted, "ElementName") {
            let ids = self.1.find(&view.observed.machines, name).into_iter();
            ids.map(Element::Machine).collect::<Vec<_>>()
        } else {
            return Ok(None);
        };
        found.retain(|element| view.has(element));
        found.push(Element::Host);
        Ok(Some(self.instances(ctx, class, view, found.into_iter())))
    }

    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        let machines = self.0.machines.borrow().machines.len();
        u64::try_from(machines).ok().map(|n| n + 1)
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        match Element::find(&view, COMPUTER_SYSTEM, path) {
            Some(element) => instance(&self.0, &view, class, &element, ctx.language),
            None => Ok(None),
        }
    }

    /// Machines are started and stopped elsewhere; every method answers that it is not supported.
    async fn invoke(
        &self,
        _ctx: &Context,
        _path: &Path,
        _method: &Method,
        _arguments: Arguments,
    ) -> Result<Outcome, Error> {
        Ok(outcome::value(outcome::management::NOT_SUPPORTED))
    }
}

impl ComputerSystems {
    fn instances(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        view: View,
        elements: impl Iterator<Item = Element> + Send + 'static,
    ) -> Instances {
        let (deps, class, language) = (self.0.clone(), class.clone(), ctx.language);
        Box::new(elements.filter_map(move |element| {
            instance(&deps, &view, &class, &element, language).transpose()
        }))
    }
}

fn instance(
    deps: &Deps,
    view: &View,
    class: &Arc<Class>,
    element: &Element,
    language: Language,
) -> Result<Option<Instance>, Error> {
    match element {
        Element::Machine(id) => {
            let machine = view.observed.machines.get(id);
            machine
                .map(|machine| {
                    virtual_machine((deps, &view.observed), class, *id, machine, language)
                })
                .transpose()
        }
        _ => host(class, &view.host, language).map(Some),
    }
}

fn host(class: &Arc<Class>, name: &str, language: Language) -> Result<Instance, Error> {
    system(class, name, language)?
        .with("Caption", "Hosting Computer System")?
        .with("Description", "Microsoft Hosting Computer System")?
        .with("ElementName", name)?
        .with("EnabledState", ENABLED)
        .map_err(Error::from)
}

fn virtual_machine(
    (deps, observed): (&Deps, &Observed),
    class: &Arc<Class>,
    id: VmId,
    machine: &Machine,
    language: Language,
) -> Result<Instance, Error> {
    let state = observed.state(id);
    let enabled = match state {
        RunState::Running | RunState::Held | RunState::Troubled(_) => ENABLED,
        RunState::Off => DISABLED,
        RunState::Paused => QUIESCE,
    };
    let health = (observed.is_ailing(id), state.trouble());
    system(class, &id.to_string(), language)?
        .with("Caption", "Virtual Machine")?
        .with("Description", "Microsoft Virtual Machine")?
        .with("ElementName", machine.name.as_str())?
        .with("EnabledState", enabled)?
        .with("InstallDate", DateTime::utc(machine.created))
        .map_err(Error::from)
        .and_then(|instance| with_status(instance, operation(deps, id), health, language))
}

/// Adds HealthState and OperationalStatus: first whether the active files are usable and the processors in no trouble,
/// second the operation that has leased the machine, if any.
fn with_status(
    instance: Instance,
    operation: Option<(u16, Message)>,
    health: (bool, Option<&str>),
    language: Language,
) -> Result<Instance, Error> {
    let (code, words, health) = match health {
        (true, _) => (DEGRADED, texts::STATUS_DEGRADED.text(), MAJOR_FAILURE),
        (false, Some(trouble)) => {
            let words = texts::STATUS_TROUBLED.with("trouble", trouble);
            (DEGRADED, words, MAJOR_FAILURE)
        }
        (false, None) => (OK, texts::STATUS_OK.text(), HEALTHY),
    };
    let (mut codes, mut descriptions) = (vec![code], vec![words.render(language)]);
    if let Some((code, words)) = operation {
        codes.push(code);
        descriptions.push(words.text().render(language));
    }
    instance
        .with("HealthState", health)?
        .with("OperationalStatus", codes)?
        .with("StatusDescriptions", descriptions)
        .map_err(Error::from)
}

fn operation(deps: &Deps, id: VmId) -> Option<(u16, Message)> {
    let job = deps
        .coordinator
        .machine_holder(id)
        .and_then(|holder| deps.jobs.get(holder.job));
    match job.map(|job| job.kind) {
        Some(JobKind::CreateSnapshotSet) => {
            Some((CREATING_SNAPSHOT, texts::STATUS_CREATING_SNAPSHOT))
        }
        Some(JobKind::ApplySnapshotSet) => {
            Some((APPLYING_SNAPSHOT, texts::STATUS_APPLYING_SNAPSHOT))
        }
        Some(JobKind::DestroySnapshotSet) => {
            Some((DELETING_SNAPSHOT, texts::STATUS_DELETING_SNAPSHOT))
        }
        _ => None,
    }
}

/// What the host and the machines have in common.
fn system(class: &Arc<Class>, name: &str, language: Language) -> Result<Instance, Error> {
    Instance::new(class)
        .with("CreationClassName", COMPUTER_SYSTEM)?
        .with("Name", name)?
        .with("OperationalStatus", vec![OK])?
        .with(
            "StatusDescriptions",
            vec![texts::STATUS_OK.text().render(language)],
        )?
        .with("HealthState", HEALTHY)
        .map_err(Error::from)
}
