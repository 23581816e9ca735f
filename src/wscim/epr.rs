//! References as endpoint references, and selectors (rules H-17, E-7, I-4, I-12).

use std::borrow::Cow;
use std::net::IpAddr;

use crate::cim::{Class, KeyError, Path, Schema, Value};
use crate::soap::ns;
use crate::text::catalog::wire as texts;
use crate::text::{Text, told_by_text};
use crate::xml::{Element, Writer};

use super::uri::{ClassUri, Family, plain_namespace};

/// The selector that names the CIM namespace; it is no key (rule H-18).
pub const NAMESPACE_SELECTOR: &str = "__cimnamespace";
/// Deepest nesting of references in selectors.
pub const NESTING_MAX: usize = 8;
/// The longest reference in a selector, in bytes as a path: each level around it doubles its quotes once more.
pub const NESTED_MAX: usize = 32 * 1024;
/// The most selectors of one set (Windows: SelectorLimit).
pub const SELECTORS_MAX: usize = 64;

/// Why a set of selectors or a reference cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorError {
    /// A `w:Selector` without `Name`.
    NoName,
    /// The same name twice.
    Duplicate(String),
    /// References nested more than [`NESTING_MAX`] deep.
    Nesting,
    /// More than [`SELECTORS_MAX`].
    TooMany,
    /// A reference of more than [`NESTED_MAX`].
    TooLong,
    /// An element of a reference, or the reference itself, stands more than once.
    Twice(&'static str),
    /// No `a:ReferenceParameters` with a `w:ResourceURI`.
    NoResource,
    /// The resource URI is of no known family.
    Resource(String),
    /// The resource URI names one namespace, the selector `__cimnamespace` another (rule H-18).
    Namespaces {
        /// That of the URI.
        uri: String,
        /// That of the selector.
        selector: String,
    },
}

impl SelectorError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::NoName => texts::SELECTOR_NO_NAME.text(),
            Self::Duplicate(name) => texts::SELECTOR_TWICE.with("selector", name),
            Self::Nesting => texts::SELECTOR_NESTING.with("max", NESTING_MAX),
            Self::TooLong => texts::SELECTOR_TOO_LONG.with("max", NESTED_MAX),
            Self::TooMany => texts::SELECTORS.with("count", SELECTORS_MAX),
            Self::Twice(element) => texts::EPR_TWICE.with("element", *element),
            Self::NoResource => texts::EPR_NO_RESOURCE.text(),
            Self::Resource(uri) => texts::EPR_RESOURCE.with("uri", uri),
            Self::Namespaces { uri, selector } => texts::NAMESPACES_DIFFER
                .with("uri", uri)
                .with("selector", selector),
        }
    }
}
told_by_text!(SelectorError);

/// One selector: its name, and what it holds.
#[derive(Debug, Clone)]
pub struct Selector<'d> {
    /// Name, as sent.
    pub name: &'d str,
    /// Text, untrimmed, or a reference.
    pub value: SelectorValue<'d>,
}

/// What a selector holds.
#[derive(Debug, Clone)]
pub enum SelectorValue<'d> {
    /// Text.
    Text(Cow<'d, str>),
    /// An `a:EndpointReference`.
    Reference(Box<Path>),
}

/// Who reads a reference: it is resolved like what the request itself names.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// Types the keys of known classes.
    pub schema: &'a Schema,
    /// The namespace where the reference names none: that of the request.
    pub namespace: &'a str,
    /// What addresses may name.
    pub names: Names<'a>,
}

/// The names of this server, as far as an address of a reference may have them. Beyond these every loopback name is
/// its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Its host name; in an address a domain may follow it.
    pub own: &'a str,
    /// `a:To` of the request, whatever name or address the client knows the server by.
    pub to: &'a str,
    /// The `Host` header of the request.
    pub host: &'a str,
}

impl Names<'_> {
    /// The host that an address names, if it is another one. The port does not count.
    fn foreign<'t>(&self, address: &'t str) -> Option<&'t str> {
        if ns::is_anonymous(address) {
            return None;
        }
        let (_, rest) = address.split_once("://")?;
        let host = host(rest);
        (!host.is_empty() && !self.is_known(host)).then_some(host)
    }

    fn is_known(&self, name: &str) -> bool {
        let to = self.to.split_once("://").map_or("", |(_, rest)| host(rest));
        let asked = [to, host(self.host), "localhost", "."];
        let own = name.get(..self.own.len());
        let rest = name.get(self.own.len()..).unwrap_or_default();
        own.is_some_and(|own| own.eq_ignore_ascii_case(self.own))
            && (rest.is_empty() || rest.starts_with('.'))
            || asked.iter().any(|known| known.eq_ignore_ascii_case(name))
            || name
                .parse()
                .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
    }
}

/// The host of `user@host:port/path`, without brackets and the last dot.
fn host(authority: &str) -> &str {
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let authority = authority.get(..end).unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    if let Some((ip, _)) = authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return ip;
    }
    let host = authority.split(':').next().unwrap_or_default();
    host.strip_suffix('.').unwrap_or(host)
}

/// The only child of that name, if there is one.
fn only<'d>(
    element: Element<'d>,
    namespace: &str,
    local: &'static str,
) -> Result<Option<Element<'d>>, SelectorError> {
    let mut found = element.children().filter(|c| c.is(namespace, local));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(SelectorError::Twice(local)),
        (first, None) => Ok(first),
    }
}

impl Reference<'_> {
    /// Reads the selectors of a `w:SelectorSet`.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn selectors<'d>(&self, set: Element<'d>) -> Result<Vec<Selector<'d>>, SelectorError> {
        self.selectors_at(set, 0)
    }

    /// Reads the `a:EndpointReference` that stands in `element`, if there is one.
    ///
    /// # Errors
    /// [`SelectorError`]; it must be alone.
    pub fn read_wrapped(&self, element: Element<'_>) -> Result<Option<Path>, SelectorError> {
        self.wrapped_at(element, 0)
    }

    fn wrapped_at(
        &self,
        element: Element<'_>,
        depth: usize,
    ) -> Result<Option<Path>, SelectorError> {
        let Some(wrapped) = only(element, ns::ADDRESSING, "EndpointReference")? else {
            return Ok(None);
        };
        if element
            .child(ns::ADDRESSING, "ReferenceParameters")
            .is_some()
        {
            return Err(SelectorError::Twice("EndpointReference"));
        }
        self.read_at(wrapped, depth).map(Some)
    }

    /// Reads an endpoint reference: `element` holds `a:Address` and `a:ReferenceParameters` itself.
    /// An address of another host becomes the host of the path.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn read(&self, element: Element<'_>) -> Result<Path, SelectorError> {
        self.read_at(element, 0)
    }

    fn selectors_at<'d>(
        &self,
        set: Element<'d>,
        depth: usize,
    ) -> Result<Vec<Selector<'d>>, SelectorError> {
        let mut selectors: Vec<Selector<'d>> = Vec::with_capacity(8);
        for element in set.children().filter(|e| e.is(ns::WSMAN, "Selector")) {
            let name = element
                .attribute("", "Name")
                .or_else(|| element.attribute(ns::WSMAN, "Name"))
                .ok_or(SelectorError::NoName)?;
            // First the bound: looking for a name among those before it costs their number.
            if selectors.len() >= SELECTORS_MAX {
                return Err(SelectorError::TooMany);
            }
            if selectors.iter().any(|s| s.name.eq_ignore_ascii_case(name)) {
                return Err(SelectorError::Duplicate(name.to_owned()));
            }
            let value = match self.wrapped_at(element, depth + 1)? {
                Some(path) if path.to_string().len() > NESTED_MAX => {
                    return Err(SelectorError::TooLong);
                }
                Some(path) => SelectorValue::Reference(Box::new(path)),
                None => SelectorValue::Text(element.text()),
            };
            selectors.push(Selector { name, value });
        }
        Ok(selectors)
    }

    fn read_at(&self, element: Element<'_>, depth: usize) -> Result<Path, SelectorError> {
        if depth > NESTING_MAX {
            return Err(SelectorError::Nesting);
        }
        let child = |local| only(element, ns::ADDRESSING, local);
        let parameters = child("ReferenceParameters")?.or(child("ReferenceProperties")?);
        let parameters = parameters.ok_or(SelectorError::NoResource)?;
        let uri = only(parameters, ns::WSMAN, "ResourceURI")?
            .ok_or(SelectorError::NoResource)?
            .trimmed();
        let class = ClassUri::parse(&uri)
            .filter(|c| c.class != "*")
            .ok_or_else(|| SelectorError::Resource(uri.to_string()))?;
        let selectors = match only(parameters, ns::WSMAN, "SelectorSet")? {
            Some(set) => self.selectors_at(set, depth)?,
            None => Vec::new(),
        };
        let namespace = class.namespace.as_deref().unwrap_or(self.namespace);
        let mut path = Path::new(namespace, class.class);
        let address = child("Address")?.map(|a| a.trimmed());
        path.host = address.and_then(|a| self.names.foreign(&a).map(str::to_owned));
        path.keys.reserve(selectors.len());
        for selector in selectors {
            match selector.value {
                SelectorValue::Text(text) if is_namespace(selector.name) => {
                    let selected = plain_namespace(&text);
                    if let Some(namespace) = agreed(class.namespace.as_deref(), &selected)? {
                        path.namespace = Some(namespace.to_owned());
                    }
                }
                SelectorValue::Text(text) => path
                    .keys
                    .push((selector.name.into(), Value::String(text.into_owned()))),
                SelectorValue::Reference(inner) => path
                    .keys
                    .push((selector.name.into(), Value::Reference(inner))),
            }
        }
        Ok(self.selected(path))
    }

    /// The path with its keys in the types that the schema gives them, in its order, and the namespace of
    /// the request where it names none. A path that fits no class is left as it is: whether it leads
    /// anywhere is found out by whoever follows it.
    #[must_use]
    pub fn typed(&self, path: Path) -> Path {
        self.read_as(path, Path::typed)
    }

    /// As [`Reference::typed`], of a path that came as selectors: some of the keys are enough where they fit one
    /// object only (rule X-3).
    #[must_use]
    pub fn selected(&self, path: Path) -> Path {
        self.read_as(path, Path::typed_in_part)
    }

    fn read_as(&self, mut path: Path, read: fn(&Path, &Class) -> Result<Path, KeyError>) -> Path {
        let namespace = path
            .namespace
            .get_or_insert_with(|| self.namespace.to_owned());
        let class = self.schema.class(namespace, path.class.as_str());
        match class.and_then(|class| read(&path, class).ok()) {
            Some(typed) => typed,
            None => path,
        }
    }
}

/// The namespace that the selector names, unless it is empty; the URI must not name another.
fn agreed<'n>(named: Option<&str>, selected: &'n str) -> Result<Option<&'n str>, SelectorError> {
    match named {
        _ if selected.is_empty() => Ok(None),
        Some(named) if !named.eq_ignore_ascii_case(selected) => Err(SelectorError::Namespaces {
            uri: named.to_owned(),
            selector: selected.to_owned(),
        }),
        _ => Ok(Some(selected)),
    }
}

/// Is it the selector that names the CIM namespace?
#[must_use]
pub fn is_namespace(selector: &str) -> bool {
    selector.eq_ignore_ascii_case(NAMESPACE_SELECTOR)
}

/// Writes `a:Address` and `a:ReferenceParameters`: the inside of a reference property (rule I-12).
/// The prefixes `a` and `w` are those of the envelope.
pub fn write(w: &mut Writer, path: &Path, family: Family) {
    let namespace = namespace(path);
    w.element("a", "Address", &[], ns::ANONYMOUS);
    w.open("a", "ReferenceParameters", &[]);
    let uri = family.class_uri(namespace, path.class.as_str());
    w.element("w", "ResourceURI", &[], &uri);
    write_selectors(w, path, family);
    w.close("a", "ReferenceParameters");
}

fn namespace(path: &Path) -> &str {
    let named = path.namespace.as_deref();
    named.unwrap_or(crate::cim::schema::VIRTUALIZATION_V2)
}

/// Writes `w:SelectorSet` with the keys of the path.
pub fn write_selectors(w: &mut Writer, path: &Path, family: Family) {
    w.open("w", "SelectorSet", &[]);
    for (name, value) in &path.keys {
        let attributes = [("Name", name.as_str())];
        w.open("w", "Selector", &attributes);
        match value {
            Value::Reference(inner) => write_wrapped(w, inner, family),
            Value::String(text) => w.text(text),
            other => w.text(&other.lexical().unwrap_or_default()),
        }
        w.close("w", "Selector");
    }
    if family == Family::Dmtf {
        w.element(
            "w",
            "Selector",
            &[("Name", NAMESPACE_SELECTOR)],
            namespace(path),
        );
    }
    w.close("w", "SelectorSet");
}

/// Writes an `a:EndpointReference`: an item of an enumeration, a reference key in a selector (rule E-7).
pub fn write_wrapped(w: &mut Writer, path: &Path, family: Family) {
    w.open("a", "EndpointReference", &[]);
    write(w, path, family);
    w.close("a", "EndpointReference");
}
