//! The filter of an Enumerate: its dialect, and what it asks for (rules E-33, E-40, E-41, E-44).

use std::borrow::Cow;
use std::sync::Arc;

use crate::cim::Class;
use crate::cim::query::{self, Language, Query, Scope, Select};
use crate::soap::ns;
use crate::text::catalog::wire;
use crate::wscim::Reference;
use crate::wscim::epr::SelectorValue;
use crate::wsman::fault::{Extra, Fault, table};
use crate::wsman::uri::{
    ASSOCIATION_FILTER, CQL, FILTER_DIALECTS, SELECTOR_FILTER, WQL, WQL_DMTF, XPATH,
};
use crate::xml::Element;

use super::associations;
use super::target::Wanted;
use super::{Mode, Source};

/// The one filter; `n:Filter` and `w:Filter` are the same.
pub(super) fn one<'d>(
    enumeration: Option<Element<'d>>,
    wsman: Option<Element<'d>>,
) -> Result<Option<Element<'d>>, Fault> {
    if enumeration.is_some() && wsman.is_some() {
        let text = wire::TWO_FILTERS.text();
        return Err(table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text));
    }
    Ok(enumeration.or(wsman))
}

/// The dialect of a filter.
pub(super) fn dialect(filter: Element<'_>) -> &str {
    filter.attribute("", "Dialect").unwrap_or(XPATH).trim()
}

/// What is enumerated: what the ResourceURI stands for, or what the filter says of it. All classes go with a
/// filter only, class declarations without one.
pub(super) fn source(
    filter: Option<Element<'_>>,
    wanted: Wanted,
    mode: Mode,
    scope: &Scope<'_>,
    reference: &Reference<'_>,
) -> Result<Source, Fault> {
    let (element, class) = match (filter, wanted) {
        (None, Wanted::Class(class)) => return Ok(Source::Class(class)),
        (None, Wanted::AllClasses) => {
            let text = wire::FILTER_REQUIRED.text();
            return Err(table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text));
        }
        (None, Wanted::Classes(_)) if mode != Mode::Object => {
            return Err(table::ENUMERATION_MODE_UNSUPPORTED.fault(wire::CLASS_MODE.text()));
        }
        (None, Wanted::Classes(list)) => return Ok(Source::Classes(list)),
        (Some(_), Wanted::Classes(_)) => {
            return Err(table::ENUMERATE_FILTERING_NOT_SUPPORTED.fault(wire::CLASS_FILTER.text()));
        }
        (Some(filter), Wanted::Class(class)) => (filter, Some(class)),
        (Some(filter), Wanted::AllClasses) => (filter, None),
    };
    let filter = Filter {
        element,
        class,
        scope,
        reference,
    };
    let dialect = dialect(element);
    match dialect {
        ASSOCIATION_FILTER => filter.associations(mode),
        WQL | WQL_DMTF => filter.text(Language::Wql, dialect),
        CQL => filter.text(Language::Cql, dialect),
        SELECTOR_FILTER => filter.selectors().map(Source::Select),
        XPATH => filter.xpath().map(Source::Select),
        _ => {
            let text = wire::FILTER_DIALECT.with("dialect", dialect);
            Err(table::ENUMERATE_FILTER_DIALECT_REQUESTED_UNAVAILABLE
                .fault(text)
                .with(Extra::Dialects(FILTER_DIALECTS)))
        }
    }
}

struct Filter<'a> {
    element: Element<'a>,
    /// Of the ResourceURI.
    class: Option<Arc<Class>>,
    scope: &'a Scope<'a>,
    /// How references in it are read.
    reference: &'a Reference<'a>,
}

impl Filter<'_> {
    fn associations(self, mode: Mode) -> Result<Source, Fault> {
        let found = associations::read(self.element, self.class, self.reference)?;
        if !found.properties.is_empty() && mode != Mode::Object {
            let text = wire::ASSOCIATION_EPR_PROPERTY.text();
            return Err(table::FRAGMENT_TRANSFER_NOT_SUPPORTED.fault(text));
        }
        Ok(Source::Associations(Box::new(found)))
    }

    /// What a filter in a dialect of text holds.
    fn content(&self, dialect: &str) -> Result<Cow<'_, str>, Fault> {
        if self.element.children().next().is_some() {
            let text = wire::FILTER_MARKUP.with("dialect", dialect);
            return Err(table::INVALID_FILTER_XML.fault(text));
        }
        Ok(self.element.text())
    }

    fn xpath(&self) -> Result<Select, Fault> {
        let text = self.content(XPATH)?;
        query::xpath_filter(self.class.as_ref(), &text, self.scope).map_err(fault)
    }

    fn text(&self, language: Language, dialect: &str) -> Result<Source, Fault> {
        let text = self.content(dialect)?;
        let query = Query::read(language, &text, self.scope).map_err(fault)?;
        let asks_for = match &query {
            Query::Select(select) => select.class.name.as_str(),
            Query::Related(_) => "associated objects",
        };
        // Windows takes queries on the URI of all classes only; one on the class that it asks for is clear.
        let fits = |class: &Arc<Class>| match &query {
            Query::Select(select) => select.class.is_a(class.name.as_str()),
            Query::Related(_) => false,
        };
        if let Some(class) = self.class.as_ref().filter(|c| !fits(c)) {
            let text = wire::FILTER_OTHER_CLASS
                .with("uri", &class.name)
                .with("query", asks_for);
            return Err(table::INVALID_URI_WMI_ENUM_WQL.fault(text));
        }
        Ok(match query {
            Query::Select(select) => Source::Select(select),
            Query::Related(related) => Source::Related(related),
        })
    }

    fn selectors(&self) -> Result<Select, Fault> {
        let Some(class) = &self.class else {
            let text = wire::FILTER_NEEDS_CLASS.text();
            return Err(table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text));
        };
        let set = self.element.child(ns::WSMAN, "SelectorSet");
        let selectors = set.map_or(Ok(Vec::new()), |set| self.reference.selectors(set));
        let selectors = selectors.map_err(|cause| {
            let text = wire::FILTER_SELECTORS.with("cause", cause);
            table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text)
        })?;
        let mut pairs = Vec::with_capacity(selectors.len());
        for selector in &selectors {
            match &selector.value {
                SelectorValue::Text(text) => pairs.push((selector.name, &**text)),
                SelectorValue::Reference(_) => {
                    let name = selector.name;
                    let text =
                        crate::text::catalog::query::SELECTOR_REFERENCE.with("selector", name);
                    return Err(table::ENUMERATE_CANNOT_PROCESS_FILTER.fault(text));
                }
            }
        }
        query::selector_filter(class, &pairs, self.scope).map_err(fault)
    }
}

fn fault(error: query::Error) -> Fault {
    table::ENUMERATE_CANNOT_PROCESS_FILTER
        .fault(error.text)
        .because(error.status)
}
