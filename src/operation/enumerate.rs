//! WS-Enumeration Enumerate: opens a walk over the instances of a class. DSP0226 8.2, rules E-1 to E-10.

use std::sync::Arc;
use std::time::Duration;

use crate::cim::query::{Column, Select};
use crate::cim::{Class, Instance};
use crate::id::WireId;
use crate::provider::{Depth, Error, Instances, Traversal};
use crate::text::catalog::operation as texts;
use crate::wsman::enumeration::Page;
use crate::wsman::fault::{Fault, Tried, table};
use crate::wsman::request::{self, Associations, ClassList, Expires, Polymorphism, Source};

use super::Server;
use super::class;
use super::contexts::{Full, Lifetime};
use super::cursor::{Cursor, Item, Items, Shape, instances};
use super::exchange::Exchange;
use super::{page, related};

/// Answers with a context, and with the first items if the client asked for that.
pub(super) fn enumerate(
    server: &Server,
    exchange: &Exchange<'_>,
    wish: &request::Enumerate,
) -> Result<String, Fault> {
    let until = server.clock.elapsed() + exchange.headers.timeout;
    let granted = wish.expires.map(|e| grant(server, e)).transpose()?;
    let mut cursor = open(server, exchange, wish)?;
    let id = WireId::random();
    let context = format!("uuid:{id}");
    let mut page = Page::enumerate(
        &exchange.reply_headers(),
        wish.optimize,
        &context,
        granted.as_ref().map(|g| g.text.as_str()),
        exchange.count(cursor.shape.total),
        exchange.budget(wish.max_elements.unwrap_or(1), None),
    );
    page::fill(&mut page, &mut cursor, until, &*server.clock)?;
    // Without items in the answer the client learns of an empty set by its first Pull (rule E-5).
    let more = !wish.optimize || !cursor.at_end();
    if more {
        keep(server, exchange, id, cursor, granted.as_ref())?;
    }
    Ok(page.finish(more))
}

fn open(
    server: &Server,
    exchange: &Exchange<'_>,
    wish: &request::Enumerate,
) -> Result<Cursor, Fault> {
    let found = match &wish.source {
        Source::Class(class) => of_class(server, exchange, class, wish.polymorphism),
        Source::Select(select) => selected(server, exchange, select, wish.polymorphism),
        Source::Related(related) => {
            related::instances(&server.registry, &exchange.context, related)
                .map(Found::new)
                .map_err(no_object)
        }
        Source::Associations(filter) => associated(server, exchange, filter, wish.polymorphism),
        Source::Classes(list) => Ok(declarations(server, exchange, list)),
    }?;
    let is_cast = wish.polymorphism == Polymorphism::ExcludeSubClassProperties;
    let shape = Shape {
        cast: found.class.filter(|_| is_cast),
        columns: found.columns,
        style: exchange.headers.style(),
        mode: wish.mode,
        max_elements: wish.max_elements,
        properties: found.properties,
        class_options: exchange.headers.class_options,
        total: found.total,
    };
    Ok(Cursor::new(shape, found.items))
}

/// What the source of an enumeration gives.
struct Found {
    items: Items,
    /// The class of the items, where one is named.
    class: Option<Arc<Class>>,
    columns: Option<Arc<[Column]>>,
    properties: Vec<String>,
    total: Option<u64>,
}

impl Found {
    fn new(found: Instances) -> Self {
        Self {
            items: instances(found),
            class: None,
            columns: None,
            properties: Vec::new(),
            total: None,
        }
    }
}

const fn depth(polymorphism: Polymorphism) -> Depth {
    match polymorphism {
        Polymorphism::None => Depth::Exact,
        _ => Depth::Deep,
    }
}

fn of_class(
    server: &Server,
    exchange: &Exchange<'_>,
    class: &Arc<Class>,
    polymorphism: Polymorphism,
) -> Result<Found, Fault> {
    let (registry, context) = (&server.registry, &exchange.context);
    let found = registry.enumerate(context, class, depth(polymorphism));
    Ok(Found {
        class: Some(class.clone()),
        total: registry.count(context, class, depth(polymorphism)),
        ..Found::new(found.map_err(not_listed)?)
    })
}

fn selected(
    server: &Server,
    exchange: &Exchange<'_>,
    select: &Select,
    polymorphism: Polymorphism,
) -> Result<Found, Fault> {
    let (registry, context) = (&server.registry, &exchange.context);
    let found = registry.select(context, select, depth(polymorphism));
    Ok(Found {
        class: Some(select.class.clone()),
        columns: select.columns.clone(),
        ..Found::new(found.map_err(not_listed)?)
    })
}

/// Follows an association filter (rule E-42). Its object has to be one that exists (R8.2.1-4).
fn associated(
    server: &Server,
    exchange: &Exchange<'_>,
    filter: &Associations,
    polymorphism: Polymorphism,
) -> Result<Found, Fault> {
    let traversal = Traversal {
        association: filter.association.clone(),
        role: filter.role.clone(),
        result: filter.result.clone(),
        result_role: filter.result_role.clone(),
        ..Traversal::default()
    };
    let (registry, context) = (&server.registry, &exchange.context);
    let found = match filter.links {
        true => registry.references(context, &filter.object, &traversal),
        false => registry.associators(context, &filter.object, &traversal),
    }
    .map_err(no_object)?;
    let class = filter.item_class().cloned();
    let exact = class.clone().filter(|_| polymorphism == Polymorphism::None);
    let of_class = move |item: &Result<Instance, Error>| match (item, &exact) {
        (Ok(item), Some(class)) => item.class().name == class.name,
        _ => true,
    };
    Ok(Found {
        class,
        properties: filter.properties.clone(),
        ..Found::new(Box::new(found.filter(of_class)))
    })
}

fn declarations(server: &Server, exchange: &Exchange<'_>, list: &ClassList) -> Found {
    let schema = server.registry.schema();
    let classes = class::list(schema, list, exchange.headers.class_options);
    Found {
        total: u64::try_from(classes.len()).ok(),
        items: Box::new(classes.into_iter().map(|class| Ok(Item::Class(class)))),
        ..Found::new(Box::new(std::iter::empty()))
    }
}

/// The object that a filter names belongs to the filter (rule E-42).
fn no_object(error: Error) -> Fault {
    table::ENUMERATE_CANNOT_PROCESS_FILTER
        .fault(error.text)
        .because(error.status)
}

fn not_listed(error: Error) -> Fault {
    Fault::from_status(error.status, error.text, Tried::Select)
}

fn keep(
    server: &Server,
    exchange: &Exchange<'_>,
    id: WireId,
    cursor: Cursor,
    granted: Option<&Granted>,
) -> Result<(), Fault> {
    let user = &exchange.context.identity.user;
    let lifetime = granted.map_or(Lifetime::Idle, |g| Lifetime::Fixed(g.life));
    let now = server.clock.elapsed();
    let limits = server.contexts.limits();
    let text = match server.contexts.open(id, user, cursor, lifetime, now) {
        Ok(()) => return Ok(()),
        Err(Full::User) => texts::TOO_MANY_CONTEXTS
            .with("user", user)
            .with("limit", limits.per_user),
        Err(Full::Total) => texts::TOO_MANY_CONTEXTS_IN_TOTAL.with("limit", limits.total),
    };
    Err(table::QUOTA_MAX_OPERATIONS.fault(text))
}

/// A granted `n:Expires`.
struct Granted {
    life: Duration,
    /// In the form that was asked for.
    text: String,
}

/// Grants what is asked for, or as much as the server grants anyone (rule E-2).
fn grant(server: &Server, wanted: Expires) -> Result<Granted, Fault> {
    let now = server.clock.now();
    let longest = server.contexts.limits().longest;
    let wanted_life = match wanted {
        Expires::After(life) => life,
        Expires::At(moment) => Duration::try_from(moment.duration_since(now)).unwrap_or_default(),
    };
    let life = wanted_life.min(longest);
    if life.is_zero() {
        let time = match wanted {
            Expires::After(_) => "PT0S".to_owned(),
            Expires::At(moment) => moment.to_string(),
        };
        let text = texts::EXPIRES_IN_THE_PAST.with("time", time);
        return Err(table::ENUMERATE_INVALID_EXPIRATION_TIME.fault(text));
    }
    let text = match wanted {
        Expires::After(_) => format!("PT{}.{:03}S", life.as_secs(), life.subsec_millis()),
        Expires::At(moment) if life == wanted_life => moment.to_string(),
        Expires::At(_) => now.saturating_add(life).unwrap_or(now).to_string(),
    };
    Ok(Granted { life, text })
}
