//! The association filter (DSP0227 8.2, rule E-42): from one object to its association instances, or to the
//! objects at their other ends.

use std::sync::Arc;

use crate::cim::{Class, Path};
use crate::soap::ns;
use crate::text::Text;
use crate::text::catalog::wire;
use crate::wscim::{Names, Reference, SelectorError};
use crate::wsman::fault::{Fault, table};
use crate::xml::Element;

/// Most properties that a filter may pick.
const PROPERTIES_MAX: usize = 256;

/// An association filter. The classes are resolved; the object may or may not exist.
#[derive(Debug, Clone)]
pub struct Associations {
    /// Where the walk begins.
    pub object: Path,
    /// `b:AssociationInstances`: the links themselves, not what they lead to.
    pub links: bool,
    /// Associations of this class or below it.
    pub association: Option<Arc<Class>>,
    /// The reference that means the object.
    pub role: Option<String>,
    /// Class of the objects at the other end.
    pub result: Option<Arc<Class>>,
    /// The reference that means the other end.
    pub result_role: Option<String>,
    /// `b:IncludeResultProperty`: only these properties of each item; empty means all.
    pub properties: Vec<String>,
}

impl Associations {
    /// The class of the items, as far as the filter names one.
    #[must_use]
    pub fn item_class(&self) -> Option<&Arc<Class>> {
        match self.links {
            true => self.association.as_ref(),
            false => self.result.as_ref(),
        }
    }
}

/// The elements of a filter, each as often as it may stand.
#[derive(Debug, Default)]
struct Parts<'d> {
    object: Option<Element<'d>>,
    association: Option<Element<'d>>,
    role: Option<Element<'d>>,
    result: Option<Element<'d>>,
    result_role: Option<Element<'d>>,
    properties: Vec<String>,
}

/// Reads what stands in the filter element. `class` is the class that the resource URI names: the items are
/// of it. Without one the filter alone decides.
pub(super) fn read(
    filter: Element<'_>,
    class: Option<Arc<Class>>,
    reference: &Reference<'_>,
) -> Result<Associations, Fault> {
    let mut children = filter.children();
    let (Some(walk), None) = (children.next(), children.next()) else {
        return Err(malformed(wire::ASSOCIATION_ONE.text()));
    };
    let links = match (walk.namespace(), walk.local()) {
        (ns::BINDING, "AssociationInstances") => true,
        (ns::BINDING, "AssociatedInstances") => false,
        _ => return Err(malformed(wire::ASSOCIATION_ONE.text())),
    };
    let parts = Parts::sort(walk, links)?;
    let object = parts.object.ok_or_else(|| {
        let text = wire::ASSOCIATION_OBJECT.with("element", walk.local());
        malformed(text)
    })?;
    let named = |element: Option<Element<'_>>| {
        let name = element.and_then(given);
        name.map(|name| class_of(reference, &name)).transpose()
    };
    // In the filter for links ResultClassName is the class of the links.
    let result = narrowed(named(parts.result)?, class)?;
    let (association, result) = match links {
        true => (result, None),
        false => (named(parts.association)?, result),
    };
    if let Some(class) = association.as_ref().filter(|c| !c.is_association()) {
        let text = wire::NOT_AN_ASSOCIATION.with("class", &class.name);
        return Err(table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text));
    }
    Ok(Associations {
        object: self::object(object, reference)?,
        links,
        association,
        role: parts.role.and_then(given),
        result,
        result_role: parts.result_role.and_then(given),
        properties: parts.properties,
    })
}

impl<'d> Parts<'d> {
    fn sort(walk: Element<'d>, links: bool) -> Result<Self, Fault> {
        let mut parts = Self::default();
        for element in walk.children() {
            let known = element.namespace() == ns::BINDING;
            let slot = match element.local() {
                "Object" if known => &mut parts.object,
                "Role" if known => &mut parts.role,
                "ResultClassName" if known => &mut parts.result,
                "AssociationClassName" if known && !links => &mut parts.association,
                "ResultRole" if known && !links => &mut parts.result_role,
                "IncludeResultProperty" if known => {
                    parts.property(element)?;
                    continue;
                }
                other => {
                    let text = wire::ASSOCIATION_ELEMENT
                        .with("element", other)
                        .with("walk", walk.local());
                    return Err(malformed(text));
                }
            };
            if slot.replace(element).is_some() {
                let text = wire::ASSOCIATION_TWICE.with("element", element.local());
                return Err(malformed(text));
            }
        }
        Ok(parts)
    }

    fn property(&mut self, element: Element<'_>) -> Result<(), Fault> {
        if self.properties.len() >= PROPERTIES_MAX {
            let text = wire::ASSOCIATION_PROPERTIES.with("max", PROPERTIES_MAX);
            return Err(malformed(text));
        }
        let name = given(element).ok_or_else(|| malformed(wire::ASSOCIATION_PROPERTY.text()))?;
        self.properties.push(name);
        Ok(())
    }
}

/// The text of an element; consoles send empty ones for what they leave open.
fn given(element: Element<'_>) -> Option<String> {
    let text = element.trimmed();
    (!text.is_empty()).then(|| text.into_owned())
}

/// The object: the inside of an endpoint reference, or one.
fn object(element: Element<'_>, reference: &Reference<'_>) -> Result<Path, Fault> {
    let read = || match reference.read_wrapped(element)? {
        Some(path) => Ok(path),
        None => reference.read(element),
    };
    let path = read().map_err(|error| match error {
        SelectorError::Nesting => {
            table::EPR_NESTING_EXCEEDED.fault(wire::ASSOCIATION_OBJECT_EPR.with("cause", error))
        }
        other => malformed(wire::ASSOCIATION_OBJECT_EPR.with("cause", other)),
    })?;
    match &path.host {
        None => Ok(path),
        Some(host) => Err(malformed(wire::ASSOCIATION_OBJECT_HOST.with("host", host))),
    }
}

fn class_of(reference: &Reference<'_>, name: &str) -> Result<Arc<Class>, Fault> {
    let class = reference.schema.class(reference.namespace, name);
    class.cloned().ok_or_else(|| {
        let text = wire::NO_CLASS
            .with("class", name)
            .with("namespace", reference.namespace);
        table::ENUMERATE_CANNOT_PROCESS_FILTER
            .fault(text)
            .because(crate::cim::Status::InvalidClass)
    })
}

/// The narrower of the class that the filter names and that of the resource URI.
fn narrowed(
    filter: Option<Arc<Class>>,
    resource: Option<Arc<Class>>,
) -> Result<Option<Arc<Class>>, Fault> {
    let (filter, resource) = match (filter, resource) {
        (Some(filter), Some(resource)) => (filter, resource),
        (one, other) => return Ok(one.or(other)),
    };
    if filter.is_a(resource.name.as_str()) {
        return Ok(Some(filter));
    }
    if resource.is_a(filter.name.as_str()) {
        return Ok(Some(resource));
    }
    let text = wire::ASSOCIATION_RESULT
        .with("class", &filter.name)
        .with("resource", &resource.name);
    Err(table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text))
}

fn malformed(text: Text) -> Fault {
    table::INVALID_FILTER_XML.fault(text)
}

/// For the fuzz target: reads the markup as a filter and tells whether what was read keeps its promises.
#[doc(hidden)]
#[must_use]
pub fn fuzz(schema: &crate::cim::Schema, filter: &str) -> bool {
    let (addressing, wsman, binding) = (ns::ADDRESSING, ns::WSMAN, ns::BINDING);
    let text = format!(
        "<w:Filter xmlns:w=\"{wsman}\" xmlns:a=\"{addressing}\" xmlns:b=\"{binding}\">{filter}</w:Filter>"
    );
    let reference = Reference {
        schema,
        namespace: crate::cim::schema::VIRTUALIZATION_V2,
        names: Names::default(),
    };
    let Ok(document) = crate::xml::parse(&text) else {
        return true;
    };
    let Ok(found) = read(document.root(), None, &reference) else {
        return true;
    };
    let association = found.association.is_none_or(|c| c.is_association());
    let alone = !found.links || (found.result.is_none() && found.result_role.is_none());
    association && alone && found.properties.len() <= PROPERTIES_MAX
}
