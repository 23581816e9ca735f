//! What the services have in common: a class with one instance, and a table of its methods.
//!
//! A method is a type that implements [`ServiceMethod`]: its fields are what was read of the in-parameters, and `run` does
//! it. Both give a `Refusal` where the method says no, which becomes a return value with a failed job
//! (`outcome::refused`).

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::audit::About;
use crate::cim::{Class, Instance, Method, Path, Value};
use crate::inventory::{JobKind, Service, What};
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider};
use crate::text::Language;
use crate::text::catalog::provider as texts;

use super::about;
use super::call::Call;
use super::deps::Deps;
use super::element::{COMPUTER_SYSTEM, Element, service_name};
use super::outcome::{Refusal, not_supported, refused, snapshot};

/// A method with its in-parameters.
pub(super) trait ServiceMethod: Sized + Send + 'static {
    /// Its name.
    const NAME: &'static str;
    /// The type of its job.
    const KIND: JobKind;
    /// What the history calls it.
    const WHAT: What = What::of_kind(Self::KIND);

    /// Reads and checks the in-parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    fn read(call: &Call<'_>) -> Result<Self, Refusal>;

    /// Does it.
    ///
    /// # Errors
    /// Why it was not done; nothing was changed then.
    fn run(self, call: &Call<'_>) -> impl Future<Output = Result<Outcome, Refusal>> + Send;
}

/// One row of the table of a service.
pub(super) struct Row {
    name: &'static str,
    kind: JobKind,
    what: What,
    handler: Handler,
}

/// What is done with a call.
enum Handler {
    Runs(for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Result<Outcome, Refusal>>),
    /// Nothing here backs the method: its return value.
    NotSupported(u16),
}

impl Row {
    /// The row of a method.
    pub(super) const fn of<M: ServiceMethod>() -> Self {
        Self {
            name: M::NAME,
            kind: M::KIND,
            what: M::WHAT,
            handler: Handler::Runs(|call| Box::pin(async move { M::read(call)?.run(call).await })),
        }
    }

    /// The name of the method.
    #[cfg(test)]
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// The row of a method that nothing here backs.
    pub(super) const fn not_supported(
        name: &'static str,
        kind: JobKind,
        what: What,
        code: u16,
    ) -> Self {
        Self {
            name,
            kind,
            what,
            handler: Handler::NotSupported(code),
        }
    }
}

/// A service, neither stopped nor started by anybody.
const OTHER: Row = Row::not_supported("", JobKind::Other, What::Other, snapshot::NOT_SUPPORTED);

/// A class with one instance, and its methods.
pub(super) struct Table {
    /// The class.
    pub(super) classes: &'static [&'static str],
    /// What keeps the refused calls; `None` where nothing does.
    pub(super) service: Option<Service>,
    /// Makes the instance.
    pub(super) instance: fn(&Deps, &Arc<Class>, Language) -> Result<Instance, Error>,
    /// The methods. Those that only change the state of the service itself have no row.
    pub(super) methods: &'static [Row],
}

/// Serves the class of a table.
pub(super) struct ServiceProvider(pub(super) Deps, pub(super) &'static Table);

#[async_trait]
impl Provider for ServiceProvider {
    fn classes(&self) -> &'static [&'static str] {
        self.1.classes
    }

    fn is_singleton(&self, _class: &Class) -> bool {
        true
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let only = (self.1.instance)(&self.0, class, ctx.language);
        Ok(Box::new(std::iter::once(only)))
    }

    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        Some(1)
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        Element::find(&self.0.view(), class.name.as_str(), path)
            .map(|_| (self.1.instance)(&self.0, class, ctx.language))
            .transpose()
    }

    fn about(&self, ctx: &Context, _path: &Path, values: &[(&str, &Value)]) -> About {
        about::of(&self.0, &ctx.schema, values.iter().copied())
    }

    async fn invoke(
        &self,
        ctx: &Context,
        _path: &Path,
        method: &Method,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let row = self.1.methods.iter().find(|row| method.name == *row.name);
        let row = row.unwrap_or(&OTHER);
        let call = Call {
            deps: &self.0,
            ctx,
            service: self.1.service,
            method,
            kind: row.kind,
            what: row.what,
            arguments: &arguments,
        };
        let answer = match row.handler {
            Handler::Runs(run) => run(&call).await,
            Handler::NotSupported(code) => Err(not_supported(code, method)),
        };
        match answer {
            Ok(outcome) => Ok(outcome),
            Err(refusal) => Ok(refused(&call, refusal).await),
        }
    }
}

/// `EnabledState` 2: Enabled.
const ENABLED: u16 = 2;
/// `OperationalStatus` 2: OK.
const OK: u16 = 2;
/// `HealthState` 5: OK.
const HEALTHY: u16 = 5;

/// The instance of a service: there is exactly one, always started.
pub(super) fn instance(
    deps: &Deps,
    class: &Arc<Class>,
    service: Service,
    language: Language,
) -> Result<Instance, Error> {
    let title = match service {
        Service::CollectionSnapshot => texts::TITLE_SNAPSHOT_SERVICE,
        Service::CollectionManagement => texts::TITLE_MANAGEMENT_SERVICE,
        Service::VirtualSystemSnapshot => texts::TITLE_VM_SNAPSHOT_SERVICE,
    };
    let description = match service {
        Service::VirtualSystemSnapshot => texts::ABOUT_VM_SNAPSHOT_SERVICE,
        _ => title,
    };
    let title = title.text().render(language);
    Instance::new(class)
        .with("CreationClassName", Element::Service(service).class())?
        .with("Name", service_name(service))?
        .with("SystemCreationClassName", COMPUTER_SYSTEM)?
        .with("SystemName", &*deps.host)?
        .with("Caption", title.as_str())?
        .with("ElementName", title.as_str())?
        .with("Description", description.text().render(language))?
        .with("Started", true)?
        .with("EnabledState", ENABLED)?
        .with("OperationalStatus", vec![OK])?
        .with(
            "StatusDescriptions",
            vec![texts::STATUS_OK.text().render(language)],
        )?
        .with("HealthState", HEALTHY)
        .map_err(Error::from)
}
