//! What a request is about: class, namespace and selectors, resolved against the schema
//! (rules H-16 to H-18, X-1, X-2, E-9, I-1).

use std::borrow::Cow;
use std::sync::Arc;

use crate::cim::query::Scope;
use crate::cim::{Class, Method, Path, Property, Schema, Type, Value};
use crate::text::Text;
use crate::text::catalog::wire;
use crate::wscim::epr::{self, Names, Reference, Selector, SelectorError, SelectorValue};
use crate::wsman::fault::{Fault, table};
use crate::wsman::uri::{ClassUri, LENGTH_MAX, Resource, plain_namespace};

use super::headers::{Blocks, is_too_long};
use super::{ClassList, Headers, Operation, RequestLimits, Target};

/// Most text in the selectors of a request, in bytes.
const SELECTOR_TEXT_MAX: usize = 32 * 1024;

/// What the resource of an Enumerate stands for.
pub(super) enum Wanted {
    /// A class.
    Class(Arc<Class>),
    /// Every class of a namespace.
    AllClasses,
    /// Class declarations.
    Classes(ClassList),
}

/// Resource and selectors of a request, not yet resolved.
pub(super) struct Asked<'r> {
    resource: Resource<'r>,
    uri: &'r str,
    schema: &'r Schema,
    names: Names<'r>,
    namespace: Cow<'r, str>,
    /// Without the one that names the namespace.
    selectors: Vec<Selector<'r>>,
}

impl<'r> Asked<'r> {
    pub(super) fn new(
        blocks: &Blocks<'r>,
        headers: &'r Headers,
        (schema, names): (&'r Schema, Names<'r>),
        limits: &'r RequestLimits,
    ) -> Result<Self, Fault> {
        let uri = &*headers.resource_uri;
        if uri.is_empty() {
            return Err(table::INVALID_RESOURCE_URI.fault(wire::NO_RESOURCE_URI.text()));
        }
        if is_too_long(uri) {
            let text = wire::URI_TOO_LONG.with("max", LENGTH_MAX);
            return Err(table::URI_LIMIT.fault(text));
        }
        let resource = Resource::of(uri);
        // CIM requests are carried out whatever other options say, as Windows does.
        if let Resource::Config(_) = resource {
            blocks.insist_on_no_option()?;
        }
        let named = match &resource {
            Resource::Class(class) => class.namespace.clone(),
            Resource::AllClasses(_, namespace) => namespace.clone(),
            _ => None,
        };
        let default = named.as_deref().unwrap_or(&limits.default_namespace);
        let reference = Reference {
            schema,
            namespace: default,
            names,
        };
        let mut selectors = match blocks.selector_set {
            Some(set) => reference.selectors(set).map_err(|e| selector_fault(&e))?,
            None => Vec::new(),
        };
        within_limits(&selectors)?;
        let selected = take_namespace(&mut selectors)?;
        let namespace = match (named, selected) {
            (Some(named), Some(selected)) if !named.eq_ignore_ascii_case(&selected) => {
                return Err(namespaces_differ(&named, &selected));
            }
            (Some(namespace), _) | (None, Some(namespace)) => namespace,
            (None, None) => Cow::Borrowed(&*limits.default_namespace),
        };
        Ok(Self {
            resource,
            uri,
            schema,
            names,
            namespace,
            selectors,
        })
    }

    /// How references in the body are read.
    pub(super) fn reference(&self) -> Reference<'_> {
        Reference {
            schema: self.schema,
            namespace: &self.namespace,
            names: self.names,
        }
    }

    /// What a query is checked against.
    pub(super) fn scope<'a>(&'a self, limits: &'a RequestLimits) -> Scope<'a> {
        Scope {
            schema: self.schema,
            namespace: &self.namespace,
            host: &limits.host,
        }
    }

    pub(super) fn get(&self) -> Result<Operation, Fault> {
        match &self.resource {
            Resource::Class(uri) => Ok(Operation::Get(self.target(uri)?)),
            Resource::Metadata => self.declaration().map(Operation::GetClass),
            Resource::Config(part) => Ok(Operation::GetConfig(*part)),
            Resource::AllClasses(..) => Err(self.mismatch("Get")),
            Resource::NoConfig | Resource::Unknown => Err(self.no_resource()),
        }
    }

    /// Put, Create and Delete: no class has them (rules ), and the configuration is the
    /// operator's (rule Q-20).
    pub(super) fn write(&self) -> Result<Operation, Fault> {
        Err(match &self.resource {
            Resource::Class(uri) => {
                self.class(uri)?;
                self.mismatch("Put, Create or Delete")
            }
            Resource::Config(_) | Resource::NoConfig => {
                table::ACCESS_DENIED.fault(wire::CONFIG_READ_ONLY.text())
            }
            Resource::AllClasses(..) | Resource::Metadata => self.mismatch("Put, Create or Delete"),
            Resource::Unknown => self.no_resource(),
        })
    }

    /// What to enumerate.
    pub(super) fn enumerate(&self) -> Result<Wanted, Fault> {
        let class = match &self.resource {
            Resource::Class(uri) => Some(self.class(uri)?.clone()),
            Resource::AllClasses(..) => {
                self.namespace_exists()?;
                None
            }
            Resource::Metadata => return self.declarations().map(Wanted::Classes),
            Resource::Config(_) => return Err(self.mismatch("Enumerate")),
            Resource::NoConfig | Resource::Unknown => return Err(self.no_resource()),
        };
        match self.selectors.first() {
            Some(selector) => {
                let text = wire::ENUMERATE_SELECTOR.with("selector", selector.name);
                Err(table::ENUMERATE_WMI_INVALID_KEY.fault(text))
            }
            None => Ok(class.map_or(Wanted::AllClasses, Wanted::Class)),
        }
    }

    /// The class whose declaration is meant (rule C-1).
    fn declaration(&self) -> Result<Arc<Class>, Fault> {
        match self.class_name()? {
            Some(name) => self.class_named(name).cloned(),
            None => {
                self.namespace_exists()?;
                Err(table::INSUFFICIENT_SELECTORS.fault(wire::CLASS_NAME_MISSING.text()))
            }
        }
    }

    /// The class below which declarations are listed; without a name, all.
    fn declarations(&self) -> Result<ClassList, Fault> {
        self.namespace_exists()?;
        let name = self.class_name()?;
        Ok(ClassList {
            namespace: self.namespace.clone().into_owned(),
            below: name.map(|n| self.class_named(n).cloned()).transpose()?,
        })
    }

    /// The selector ClassName.
    fn class_name(&self) -> Result<Option<&str>, Fault> {
        let is_class = |s: &&Selector<'_>| s.name.eq_ignore_ascii_case("ClassName");
        if let Some(other) = self.selectors.iter().find(|s| !is_class(s)) {
            let text = wire::CLASS_SELECTOR.with("selector", other.name);
            return Err(table::UNEXPECTED_SELECTORS.fault(text));
        }
        match self.selectors.first().map(|s| &s.value) {
            None => Ok(None),
            Some(SelectorValue::Text(text)) => Ok(Some(text.trim()).filter(|t| !t.is_empty())),
            Some(SelectorValue::Reference(_)) => {
                Err(table::SELECTOR_TYPEMISMATCH.fault(wire::CLASS_SELECTOR_EPR.text()))
            }
        }
    }

    /// The object and the method of a call; `class` is the URI in front of the method in the action.
    pub(super) fn method(&self, class: &str, method: &str) -> Result<(Target, Arc<Method>), Fault> {
        let Resource::Class(uri) = &self.resource else {
            return Err(match &self.resource {
                Resource::Unknown => self.no_resource(),
                _ => self.mismatch(method),
            });
        };
        let target = self.target(uri)?;
        // Nearly always the very URI that the resource has.
        let of_target =
            class == self.uri || ClassUri::parse(class).is_some_and(|c| self.names(&c, &target));
        match target.class.method(method).filter(|_| of_target).cloned() {
            Some(method) => Ok((target, method)),
            None => {
                let text = wire::NO_METHOD
                    .with("method", method)
                    .with("class", &target.class.name);
                Err(table::ACTION_MISMATCH.fault(text))
            }
        }
    }

    /// Is it the class of the target or one above it, in the namespace of the request?
    fn names(&self, class: &ClassUri<'_>, target: &Target) -> bool {
        let here = |namespace: &str| namespace.eq_ignore_ascii_case(&self.namespace);
        class.namespace.as_deref().is_none_or(here) && target.class.is_a(class.class)
    }

    fn namespace_exists(&self) -> Result<(), Fault> {
        if self.schema.has_namespace(&self.namespace) {
            return Ok(());
        }
        let text = wire::NO_NAMESPACE.with("namespace", &self.namespace);
        Err(table::RESOURCE_NOT_FOUND
            .fault(text)
            .because(crate::cim::Status::InvalidNamespace))
    }

    fn class(&self, uri: &ClassUri<'_>) -> Result<&'r Arc<Class>, Fault> {
        self.class_named(uri.class)
    }

    fn class_named(&self, name: &str) -> Result<&'r Arc<Class>, Fault> {
        let found = self.schema.class(&self.namespace, name);
        found.ok_or_else(|| self.no_class(name))
    }

    /// Why there is no such class: the namespace is unknown, or it has none of that name.
    fn no_class(&self, name: &str) -> Fault {
        self.namespace_exists().err().unwrap_or_else(|| {
            let text = wire::NO_CLASS
                .with("class", name)
                .with("namespace", &self.namespace);
            table::RESOURCE_NOT_FOUND
                .fault(text)
                .because(crate::cim::Status::InvalidClass)
        })
    }

    /// Class and keys. Without any selector the keys stay empty; with some of them the path is partial. Whether they
    /// name an instance is for whoever has the instances (rules ).
    fn target(&self, uri: &ClassUri<'_>) -> Result<Target, Fault> {
        let class = self.class(uri)?;
        let mut path = Path::new(&class.namespace, class.name.clone());
        let is_key = |s: &Selector<'_>| class.keys().any(|k| k.name == *s.name);
        if let Some(selector) = self.selectors.iter().find(|s| !is_key(s)) {
            let text = wire::SELECTOR_NO_KEY
                .with("selector", selector.name)
                .with("class", &class.name)
                .with("keys", names(class.keys()));
            return Err(table::UNEXPECTED_SELECTORS.fault(text));
        }
        path.keys.reserve(self.selectors.len());
        let mut keys = 0;
        for key in class.keys() {
            keys += 1;
            if let Some(selector) = self.selectors.iter().find(|s| key.name == *s.name) {
                let value = key_value(selector, &key.ty, class)?;
                path.keys.push((key.name.clone(), value));
            }
        }
        path.partial = !path.keys.is_empty() && path.keys.len() < keys;
        Ok(Target {
            class: class.clone(),
            path,
        })
    }

    fn mismatch(&self, operation: &str) -> Fault {
        let text = wire::OPERATION_MISMATCH
            .with("operation", operation)
            .with("uri", self.uri);
        table::ACTION_MISMATCH.fault(text)
    }

    fn no_resource(&self) -> Fault {
        let text = wire::RESOURCE_URI.with("uri", self.uri);
        table::INVALID_RESOURCE_URI.fault(text)
    }
}

/// The names of properties, for a text.
fn names<'c>(properties: impl Iterator<Item = &'c Property>) -> String {
    let names: Vec<&str> = properties.map(|p| p.name.as_str()).collect();
    names.join(", ")
}

fn key_value(selector: &Selector<'_>, ty: &Type, class: &Class) -> Result<Value, Fault> {
    let wrong = |text: Text| {
        text.with("selector", selector.name)
            .with("class", &class.name)
            .with("type", ty)
    };
    match (&selector.value, ty) {
        (SelectorValue::Reference(path), Type::Reference(_)) => Ok(Value::Reference(path.clone())),
        (SelectorValue::Text(_), Type::Reference(_)) => {
            Err(table::SELECTOR_TYPEMISMATCH.fault(wrong(wire::SELECTOR_NO_EPR.text())))
        }
        (SelectorValue::Reference(_), _) => {
            Err(table::SELECTOR_TYPEMISMATCH.fault(wrong(wire::SELECTOR_EPR.text())))
        }
        (SelectorValue::Text(text), _) => Value::parse(ty, text).map_err(|e| {
            let text = wrong(wire::SELECTOR_VALUE.text()).with("got", e.got);
            table::INVALID_SELECTOR_VALUE.fault(text)
        }),
    }
}

/// Takes out the selector that names the namespace (rule H-18).
fn take_namespace<'d>(selectors: &mut Vec<Selector<'d>>) -> Result<Option<Cow<'d, str>>, Fault> {
    let Some(at) = selectors.iter().position(|s| epr::is_namespace(s.name)) else {
        return Ok(None);
    };
    let namespace = match selectors.swap_remove(at).value {
        SelectorValue::Text(Cow::Borrowed(text)) => plain_namespace(text),
        SelectorValue::Text(Cow::Owned(text)) => Cow::Owned(plain_namespace(&text).into_owned()),
        SelectorValue::Reference(_) => {
            let text = wire::NAMESPACE_EPR.text();
            return Err(table::SELECTOR_TYPEMISMATCH.fault(text));
        }
    };
    Ok(Some(namespace).filter(|n| !n.is_empty()))
}

fn namespaces_differ(uri: &str, selector: &str) -> Fault {
    let text = wire::NAMESPACES_DIFFER
        .with("uri", uri)
        .with("selector", selector);
    table::DIFFERENT_CIM_SELECTOR.fault(text)
}

fn within_limits(selectors: &[Selector<'_>]) -> Result<(), Fault> {
    let length = |s: &Selector<'_>| match &s.value {
        SelectorValue::Text(text) => s.name.len() + text.len(),
        SelectorValue::Reference(_) => s.name.len(),
    };
    let text: usize = selectors.iter().map(length).sum();
    if text > SELECTOR_TEXT_MAX {
        return Err(selector_limit());
    }
    Ok(())
}

fn selector_limit() -> Fault {
    let text = wire::SELECTOR_LIMIT
        .with("count", epr::SELECTORS_MAX)
        .with("bytes", SELECTOR_TEXT_MAX);
    table::SELECTOR_LIMIT.fault(text)
}

/// The fault for selectors that cannot be read.
fn selector_fault(error: &SelectorError) -> Fault {
    let kind = match error {
        SelectorError::TooMany | SelectorError::TooLong => return selector_limit(),
        SelectorError::Namespaces { .. } => &table::DIFFERENT_CIM_SELECTOR,
        SelectorError::NoName => &table::SCHEMA_VALIDATION_ERROR,
        SelectorError::Duplicate(_) => &table::DUPLICATE_SELECTORS,
        SelectorError::Nesting => &table::EPR_NESTING_EXCEEDED,
        SelectorError::Twice(_) | SelectorError::NoResource | SelectorError::Resource(_) => {
            &table::INVALID_SELECTOR_VALUE
        }
    };
    kind.fault(error.text())
}
