//! What a request asked for, for the fault that answers it: parsed once more, and only if a provider refused, so that
//! successful requests pay nothing for it.

use crate::cim::{Path, Schema, Value};
use crate::soap::{Envelope, ns};
use crate::wscim::epr::{self, Names, Reference, SelectorValue};
use crate::wsman::fault::Attempt;
use crate::wsman::uri::{Action, Resource, plain_namespace};
use crate::xml::{self, Element};

use super::{Incoming, RequestLimits, headers, receive};

/// Most characters of what a client sent that are told back to it here.
const LONGEST: usize = 512;

/// What the message wanted; `None` if it is no request, or is about nothing that a provider has.
#[must_use]
pub fn attempt(message: &Incoming<'_>, schema: &Schema, limits: &RequestLimits) -> Option<Attempt> {
    let (text, _) = receive::decode(message).ok()?;
    let document = xml::parse(&text).ok()?;
    let envelope = Envelope::parse(document.root()).ok()?;
    let block = |namespace, local| envelope.headers().find(|b| b.is(namespace, local));
    let uri = block(ns::WSMAN, "ResourceURI")?.trimmed();
    let action = block(ns::ADDRESSING, "Action")?.trimmed();
    let resource = Resource::of(&uri);
    let reference = Reference {
        schema,
        namespace: &limits.default_namespace,
        names: Names::default(),
    };
    let set = block(ns::WSMAN, "SelectorSet");
    let selectors = set.and_then(|set| reference.selectors(set).ok());
    let selectors = selectors.unwrap_or_default();
    let namespace = namespace(&resource, &selectors, limits);
    let filter = envelope.payload().and_then(|body| {
        let of = |namespace| body.child(namespace, "Filter");
        of(ns::ENUMERATION).or(of(ns::WSMAN))
    });
    let (operation, parameter) = match &resource {
        Resource::Metadata => (class_operation(&action)?, class_name(&selectors)),
        Resource::Class(class) => {
            let object = object(&namespace, class.class, &selectors);
            of_class(&action, class.class, object, filter)?
        }
        Resource::AllClasses(..) => ("ExecQuery", filter.and_then(query)),
        _ => return None,
    };
    Some(Attempt {
        family: headers::family(&uri),
        namespace,
        operation,
        parameter: parameter.map(|text| shortened(&text)),
    })
}

/// The namespace that the request is about, as [`target`] finds it.
fn namespace(
    resource: &Resource<'_>,
    selectors: &[epr::Selector<'_>],
    limits: &RequestLimits,
) -> String {
    let named = match resource {
        Resource::Class(class) => class.namespace.as_deref(),
        Resource::AllClasses(_, namespace) => namespace.as_deref(),
        _ => None,
    };
    let selected = || {
        let found = selectors.iter().find(|s| epr::is_namespace(s.name))?;
        match &found.value {
            SelectorValue::Text(text) => Some(plain_namespace(text).into_owned()),
            SelectorValue::Reference(_) => None,
        }
    };
    named
        .map(str::to_owned)
        .or_else(selected)
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| limits.default_namespace.clone())
}

/// What is done with a class, and what it is done to.
fn of_class(
    action: &str,
    class: &str,
    object: String,
    filter: Option<Element<'_>>,
) -> Option<(&'static str, Option<String>)> {
    Some(match (Action::of(action), filter) {
        (Action::Get, _) => ("GetObject", Some(object)),
        (Action::Method(..), _) => ("ExecMethod", Some(object)),
        (Action::Write, _) if action.ends_with("Delete") => ("DeleteInstance", Some(object)),
        (Action::Write, _) => ("PutInstance", Some(object)),
        (Action::Enumerate, Some(filter)) => ("ExecQuery", query(filter)),
        (Action::Enumerate | Action::Pull | Action::Release, _) => {
            ("CreateInstanceEnum", Some(class.to_owned()))
        }
        _ => return None,
    })
}

fn class_operation(action: &str) -> Option<&'static str> {
    match Action::of(action) {
        Action::Get => Some("GetObject"),
        Action::Enumerate | Action::Pull | Action::Release => Some("CreateClassEnum"),
        _ => None,
    }
}

fn class_name(selectors: &[epr::Selector<'_>]) -> Option<String> {
    selectors.iter().find_map(|s| match &s.value {
        SelectorValue::Text(text) if s.name.eq_ignore_ascii_case("ClassName") => {
            Some(shortened(text.trim()))
        }
        _ => None,
    })
}

/// The path of the object without host and namespace, with the selectors as they came.
fn object(namespace: &str, class: &str, selectors: &[epr::Selector<'_>]) -> String {
    let mut path = Path::new(namespace, class);
    path.namespace = None;
    for selector in selectors.iter().filter(|s| !epr::is_namespace(s.name)) {
        let value = match &selector.value {
            SelectorValue::Text(text) => Value::String(text.clone().into_owned()),
            SelectorValue::Reference(inner) => Value::Reference(inner.clone()),
        };
        path.keys.push((selector.name.into(), value));
    }
    path.to_string()
}

/// The words of a filter; one of elements has none.
fn query(filter: Element<'_>) -> Option<String> {
    let words = filter.trimmed();
    (!words.is_empty()).then(|| words.into_owned())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
