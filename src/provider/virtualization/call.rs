//! The call of a method of a service: its parameters, read.

use crate::cim::{Method, Value};
use crate::inventory::{JobKind, Service, What};
use crate::provider::{Arguments, Context};
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::deps::Deps;
use super::element::Element;

/// One call.
pub(super) struct Call<'a> {
    /// What the providers stand on.
    pub(super) deps: &'a Deps,
    /// Who calls.
    pub(super) ctx: &'a Context,
    /// Whose method it is; `None` where nothing is kept of refused calls.
    pub(super) service: Option<Service>,
    /// The method.
    pub(super) method: &'a Method,
    /// The type of its job.
    pub(super) kind: JobKind,
    /// What the history calls it.
    pub(super) what: What,
    /// Its parameters.
    pub(super) arguments: &'a Arguments,
}

impl Call<'_> {
    /// The existing element that the parameter refers to; the reason otherwise.
    pub(super) fn element(&self, parameter: &str, declared: &str) -> Result<Element, Text> {
        let Value::Reference(path) = self.arguments.get(parameter) else {
            return Err(texts::PARAMETER_NULL.with("parameter", parameter));
        };
        let found = Element::resolve(&self.deps.view(), &self.ctx.schema, path, declared);
        found.ok_or_else(|| {
            texts::REFERENCE_TO_NOTHING
                .with("parameter", parameter)
                .with("class", declared)
                .with("path", &**path)
        })
    }
}
