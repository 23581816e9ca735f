//! The bodies of Enumerate, Pull, Release and method calls (rules E-1 to E-15, E-30 to E-33, I-1 to I-6).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::cim::query::Scope;
use crate::cim::{DateTime, Method, Parameter, Type};
use crate::soap::ns;
use crate::text::Text;
use crate::text::catalog::wire;
use crate::wscim::{self, Reference, SelectorError};
use crate::wsman::fault::{Fault, FaultKind, table};
use crate::wsman::uri::ASSOCIATION_FILTER;
use crate::xml::Element;

use super::filter;
use super::target::Wanted;
use super::{Enumerate, Expires, Invoke, Mode, Operation, Polymorphism, Pull, Target};

/// Reads `n:Enumerate` of what the resource stands for.
pub(super) fn enumerate(
    payload: Option<Element<'_>>,
    wanted: Wanted,
    scope: &Scope<'_>,
    reference: &Reference<'_>,
) -> Result<Operation, Fault> {
    let body = expect(payload, "Enumerate")?;
    if body.child(ns::ENUMERATION, "EndTo").is_some() {
        return Err(table::UNSUPPORTED_ADDRESSING_MODE.fault(wire::END_TO.text()));
    }
    let wsman = |local| body.child(ns::WSMAN, local);
    let enumeration = |local| body.child(ns::ENUMERATION, local);
    let filter = filter::one(enumeration("Filter"), wsman("Filter"))?;
    let expires = enumeration("Expires").map(expires).transpose()?;
    let max_elements = wsman("MaxElements").map(max_elements).transpose()?;
    let mode = wsman("EnumerationMode").map_or(Ok(Mode::Object), mode)?;
    let polymorphism = body.child(ns::BINDING, "PolymorphismMode");
    let query = filter.is_some_and(|f| filter::dialect(f) != ASSOCIATION_FILTER);
    if polymorphism.is_some() && query && matches!(wanted, Wanted::AllClasses) {
        let text = wire::FILTER_POLYMORPHISM.text();
        return Err(table::POLYMORPHISM_MODE_UNSUPPORTED.fault(text));
    }
    let polymorphism = polymorphism.map_or(Ok(Polymorphism::default()), polymorphism_mode)?;
    let source = filter::source(filter, wanted, mode, scope, reference)?;
    Ok(Operation::Enumerate(Enumerate {
        source,
        optimize: wsman("OptimizeEnumeration").is_some(),
        max_elements,
        mode,
        polymorphism,
        expires,
        octets: body.size(),
    }))
}

/// Reads `n:Pull`. Elements that are not known are passed over, as clients put their own there.
pub(super) fn pull(payload: Option<Element<'_>>) -> Result<Operation, Fault> {
    let body = expect(payload, "Pull")?;
    let child = |local| body.child(ns::ENUMERATION, local);
    Ok(Operation::Pull(Pull {
        context: context(body)?,
        max_elements: child("MaxElements").map(max_elements).transpose()?,
        // In the wrong namespace, so never a reason to refuse.
        max_elements_wsman: body
            .child(ns::WSMAN, "MaxElements")
            .and_then(|e| max_elements(e).ok()),
        max_characters: child("MaxCharacters").map(max_characters).transpose()?,
        max_time: child("MaxTime").map(max_time).transpose()?,
    }))
}

/// Reads `n:Release`.
pub(super) fn release(payload: Option<Element<'_>>) -> Result<Operation, Fault> {
    let body = expect(payload, "Release")?;
    Ok(Operation::Release(context(body)?))
}

fn expect<'d>(payload: Option<Element<'d>>, local: &str) -> Result<Element<'d>, Fault> {
    let found = payload.filter(|p| p.is(ns::ENUMERATION, local));
    found.ok_or_else(|| {
        let text = wire::BODY
            .with("element", local)
            .with("namespace", ns::ENUMERATION);
        table::SCHEMA_VALIDATION_ERROR.fault(text)
    })
}

/// The context is opaque; what is not known is the business of whoever keeps contexts.
fn context(body: Element<'_>) -> Result<String, Fault> {
    let context = body.child(ns::ENUMERATION, "EnumerationContext");
    let context = context.map(|e| e.trimmed()).filter(|c| !c.is_empty());
    context
        .map(Cow::into_owned)
        .ok_or_else(|| table::ENUMERATE_INVALID_ENUMERATION_CONTEXT.fault(wire::NO_CONTEXT.text()))
}

/// `xs:duration` or `xs:dateTime`; whether a moment is past is for whoever has a clock.
fn expires(element: Element<'_>) -> Result<Expires, Fault> {
    let text = element.trimmed();
    let wrong = |kind: &'static FaultKind| kind.fault(wire::EXPIRES.with("value", &text));
    if text.starts_with("-P") {
        return Err(wrong(&table::ENUMERATE_INVALID_EXPIRATION_TIME));
    }
    if let Some(length) = DateTime::parse_duration(&text).and_then(|d| d.to_duration()) {
        return match length.is_zero() {
            true => Err(wrong(&table::ENUMERATE_INVALID_EXPIRATION_TIME)),
            false => Ok(Expires::After(length)),
        };
    }
    DateTime::parse_date_time(&text)
        .and_then(|d| d.to_timestamp())
        .map(Expires::At)
        .ok_or_else(|| wrong(&table::ENUMERATE_UNSUPPORTED_EXPIRATION_TYPE))
}

fn max_elements(element: Element<'_>) -> Result<usize, Fault> {
    positive(element).ok_or_else(|| {
        let text = wire::MAX_ELEMENTS.with("value", element.trimmed());
        table::MAX_ELEMENTS_NOT_SUPPORTED.fault(text)
    })
}

fn max_characters(element: Element<'_>) -> Result<usize, Fault> {
    positive(element).ok_or_else(|| {
        let text = wire::MAX_CHARACTERS.with("value", element.trimmed());
        table::SCHEMA_VALIDATION_ERROR.fault(text)
    })
}

/// A number above zero; one too large for us is as good as no limit.
fn positive(element: Element<'_>) -> Option<usize> {
    let text = element.trimmed();
    let digits = text.strip_prefix('+').unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(usize::MAX)).filter(|n| *n > 0)
}

fn max_time(element: Element<'_>) -> Result<Duration, Fault> {
    let text = element.trimmed();
    DateTime::parse_duration(&text)
        .and_then(|d| d.to_duration())
        .ok_or_else(|| {
            let text = wire::MAX_TIME.with("value", text);
            table::MAXTIME_NOT_SUPPORTED.fault(text)
        })
}

fn mode(element: Element<'_>) -> Result<Mode, Fault> {
    match &*element.trimmed() {
        "" | "EnumerateObject" => Ok(Mode::Object),
        "EnumerateEPR" => Ok(Mode::Epr),
        "EnumerateObjectAndEPR" => Ok(Mode::ObjectAndEpr),
        other => {
            let text = wire::ENUMERATION_MODE.with("value", other);
            Err(table::ENUMERATION_MODE_UNSUPPORTED.fault(text))
        }
    }
}

fn polymorphism_mode(element: Element<'_>) -> Result<Polymorphism, Fault> {
    match &*element.trimmed() {
        "IncludeSubClassProperties" => Ok(Polymorphism::IncludeSubClassProperties),
        "ExcludeSubClassProperties" => Ok(Polymorphism::ExcludeSubClassProperties),
        "None" => Ok(Polymorphism::None),
        other => {
            let text = wire::POLYMORPHISM_MODE.with("value", other);
            Err(table::POLYMORPHISM_MODE_UNSUPPORTED.fault(text))
        }
    }
}

/// Reads `<Method>_INPUT`. Names of elements count without case and whatever their namespace (rule I-2).
/// What stands for a parameter that only goes out is not looked at; an empty element for a reference that goes in and
/// out is null.
pub(super) fn invoke(
    payload: Option<Element<'_>>,
    target: Target,
    method: Arc<Method>,
    reference: &Reference<'_>,
) -> Result<Operation, Fault> {
    let input = input(payload, &method)?;
    let given = || input.into_iter().flat_map(|i| i.children());
    if let Some(unknown) = given().find(|e| method.parameter(e.local()).is_none()) {
        let text = wire::PARAMETER_UNKNOWN
            .with("parameter", unknown.local())
            .with("method", &method.name);
        return Err(table::INVALID_PARAMETER_NAME.fault(text));
    }
    let mut arguments = Vec::with_capacity(method.parameters.len());
    let mut elements: Vec<Element<'_>> = Vec::new();
    for parameter in &method.parameters {
        elements.clear();
        let returned = parameter.output && matches!(parameter.ty, Type::Reference(_));
        let is_left_out = |e: &Element<'_>| returned && is_empty(*e);
        let wanted = |e: &Element<'_>| parameter.input && parameter.name == *e.local();
        elements.extend(given().filter(|e| wanted(e) && !is_left_out(e)));
        let value = wscim::read_value(&elements, parameter.into(), reference);
        arguments.push(value.map_err(|e| parameter_fault(&e, parameter, &method))?);
    }
    Ok(Operation::Invoke(Invoke {
        target,
        method,
        arguments,
    }))
}

fn is_empty(element: Element<'_>) -> bool {
    element.children().next().is_none() && element.trimmed().is_empty()
}

fn input<'d>(payload: Option<Element<'d>>, method: &Method) -> Result<Option<Element<'d>>, Fault> {
    let Some(payload) = payload else {
        return Ok(None);
    };
    let name = payload.local();
    let (head, tail) = name
        .len()
        .checked_sub("_INPUT".len())
        .and_then(|at| name.split_at_checked(at))
        .unwrap_or((name, ""));
    if method.name == *head && tail.eq_ignore_ascii_case("_INPUT") {
        return Ok(Some(payload));
    }
    let text = wire::INPUT
        .with("method", &method.name)
        .with("element", name);
    Err(table::SCHEMA_VALIDATION_ERROR.fault(text))
}

fn parameter_fault(error: &wscim::Error, parameter: &Parameter, method: &Method) -> Fault {
    let named = |text: Text| {
        text.with("parameter", &parameter.name)
            .with("method", &method.name)
    };
    let kind = match error {
        wscim::Error::Type(e) => {
            let array = if parameter.array { "[]" } else { "" };
            let text = named(wire::PARAMETER_TYPE.text())
                .with("expected", format!("{}{array}", e.expected))
                .with("got", &e.got);
            return table::PARAMETER_TYPE_MISMATCH.fault(text);
        }
        wscim::Error::NilInArray => &table::PARAMETER_TYPE_MISMATCH,
        wscim::Error::Reference(SelectorError::Nesting) => &table::EPR_NESTING_EXCEEDED,
        wscim::Error::Twice => &table::INVALID_PARAMETER,
        wscim::Error::Reference(_)
        | wscim::Error::Class(_)
        | wscim::Error::Depth
        | wscim::Error::Property { .. } => &table::PARAMETER_INVALID_VALUE,
    };
    kind.fault(named(wire::PARAMETER_VALUE.text()).with("cause", error))
}
