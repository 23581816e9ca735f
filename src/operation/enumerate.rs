//! WS-Enumeration Enumerate: opens a walk over the instances of a class. DSP0226 8.2, rules E-1 to E-10.

use std::sync::Arc;
use std::time::Duration;

use crate::cim::query::{Column, Select};
use crate::cim::{Class, Instance};
use crate::id::WireId;
use crate::provider::{Context, Depth, Error, Instances, Pace, Registry, Traversal};
use crate::text::catalog::operation as texts;
use crate::wscim::Style;
use crate::wsman::enumeration::Page;
use crate::wsman::fault::{Fault, Tried, table};
use crate::wsman::request::{
    self, Associations, ClassList, ClassOptions, Expires, Polymorphism, Source,
};

use super::Server;
use super::class;
use super::contexts::{Full, Lifetime};
use super::cursor::{Cursor, Item, Items, Shape, instances};
use super::exchange::Exchange;
use super::page::{self, Due, Filling};
use super::related;
use super::workers::Failed;

/// Answers with a context, and with the first items if the client asked for that.
pub(super) async fn enumerate(
    server: &Server,
    exchange: &Exchange<'_>,
    wish: request::Enumerate,
) -> Result<String, Fault> {
    let granted = wish.expires.map(|e| grant(server, e)).transpose()?;
    let (optimize, max_elements) = (wish.optimize, wish.max_elements);
    let octets = wish.octets;
    let cursor = opened(server, exchange, wish).await?;
    let id = WireId::random();
    let context = format!("uuid:{id}");
    let page = Page::enumerate(
        &exchange.reply_headers(),
        optimize,
        &context,
        granted.as_ref().map(|g| g.text.as_str()),
        exchange.count(cursor.shape.total),
        exchange.budget(max_elements.unwrap_or(1), None),
    );
    let cursor = Box::new(cursor);
    // Without items in the answer the client learns of an empty set by its first Pull (rule E-5).
    if !optimize {
        keep(server, exchange, id, (*cursor, octets), granted.as_ref())?;
        return Ok(page.finish(true));
    }
    let user = &exchange.context.identity.user;
    // Whoever wants items in this answer goes on with the context where there are none yet.
    let due = Due::new(exchange.began, exchange.headers.timeout, true);
    let filling = Filling { page, cursor };
    let late = || late(exchange);
    let (filling, filled) = page::fill(server, user, filling, due, late).await;
    filled?;
    let Some(Filling { page, cursor }) = filling else {
        return Err(page::broken());
    };
    let more = !cursor.at_end();
    if more {
        keep(server, exchange, id, (*cursor, octets), granted.as_ref())?;
    }
    Ok(page.finish(more))
}

/// Opens the walk: here, where that is no more than to look at a list, else on a worker.
async fn opened(
    server: &Server,
    exchange: &Exchange<'_>,
    wish: request::Enumerate,
) -> Result<Cursor, Fault> {
    let opening = Opening {
        registry: server.registry.clone(),
        context: Context {
            pace: Pace::by(server.clock.clone()),
            ..exchange.context.clone()
        },
        style: exchange.headers.style(),
        class_options: exchange.headers.class_options,
        wish,
    };
    if matches!(opening.wish.source, Source::Class(_)) {
        return opening.open();
    }
    let user = &exchange.context.identity.user;
    let evaluation = server.workers.begin(user);
    let until = exchange.began + exchange.headers.timeout;
    let left = until.saturating_sub(server.clock.elapsed());
    let failed = |failed| match failed {
        Failed::Late => late(exchange),
        Failed::Broken => page::broken(),
    };
    let place = server.workers.place(&evaluation, left).await;
    let place = place.map_err(failed)?;
    let opened = server.workers.run(place, move || opening.open()).await;
    opened.map_err(failed)?
}

fn late(exchange: &Exchange<'_>) -> Fault {
    let time = exchange.headers.timeout.as_secs_f32();
    table::OPERATION_TIMEDOUT.fault(texts::ENUMERATE_TIMED_OUT.with("seconds", time))
}

/// All that a walk is opened from.
struct Opening {
    registry: Arc<Registry>,
    context: Context,
    style: Style,
    class_options: ClassOptions,
    wish: request::Enumerate,
}

impl Opening {
    fn open(&self) -> Result<Cursor, Fault> {
        let polymorphism = self.wish.polymorphism;
        let found = match &self.wish.source {
            Source::Class(class) => self.of_class(class),
            Source::Select(select) => self.selected(select),
            Source::Related(related) => related::instances(&self.registry, &self.context, related)
                .map(Found::new)
                .map_err(no_object),
            Source::Associations(filter) => self.associated(filter),
            Source::Classes(list) => Ok(self.declarations(list)),
        }?;
        let is_cast = polymorphism == Polymorphism::ExcludeSubClassProperties;
        let shape = Shape {
            cast: found.class.filter(|_| is_cast),
            columns: found.columns,
            style: self.style,
            mode: self.wish.mode,
            max_elements: self.wish.max_elements,
            properties: found.properties,
            class_options: self.class_options,
            total: found.total,
        };
        Ok(Cursor::new(shape, self.context.pace.clone(), found.items))
    }

    fn of_class(&self, class: &Arc<Class>) -> Result<Found, Fault> {
        let depth = depth(self.wish.polymorphism);
        let found = self.registry.enumerate(&self.context, class, depth);
        Ok(Found {
            class: Some(class.clone()),
            total: self.registry.count(&self.context, class, depth),
            ..Found::new(found.map_err(not_listed)?)
        })
    }

    fn selected(&self, select: &Select) -> Result<Found, Fault> {
        let depth = depth(self.wish.polymorphism);
        let found = self.registry.select(&self.context, select, depth);
        Ok(Found {
            class: Some(select.class.clone()),
            columns: select.columns.clone(),
            ..Found::new(found.map_err(not_listed)?)
        })
    }

    /// Follows an association filter (rule E-42). Its object has to be one that exists (R8.2.1-4).
    fn associated(&self, filter: &Associations) -> Result<Found, Fault> {
        let traversal = Traversal {
            association: filter.association.clone(),
            role: filter.role.clone(),
            result: filter.result.clone(),
            result_role: filter.result_role.clone(),
            ..Traversal::default()
        };
        let (registry, context) = (&self.registry, &self.context);
        let found = match filter.links {
            true => registry.references(context, &filter.object, &traversal),
            false => registry.associators(context, &filter.object, &traversal),
        }
        .map_err(no_object)?;
        let class = filter.item_class().cloned();
        let is_exact = self.wish.polymorphism == Polymorphism::None;
        let exact = class.clone().filter(|_| is_exact);
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

    fn declarations(&self, list: &ClassList) -> Found {
        let schema = self.registry.schema();
        let classes = class::list(schema, list, self.class_options);
        let total = u64::try_from(classes.len()).ok();
        let mut classes = classes.into_iter();
        let pace = self.context.pace.clone();
        let next = move || match pace.is_over() {
            true => Some(Err(Error::paused())),
            false => classes.next().map(|class| Ok(Item::Class(class))),
        };
        Found {
            total,
            items: Box::new(std::iter::from_fn(next)),
            ..Found::new(Box::new(std::iter::empty()))
        }
    }
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
    (cursor, octets): (Cursor, usize),
    granted: Option<&Granted>,
) -> Result<(), Fault> {
    let user = &exchange.context.identity.user;
    let lifetime = granted.map_or(Lifetime::Idle, |g| Lifetime::Fixed(g.life));
    let now = server.clock.elapsed();
    let limits = server.contexts.limits();
    let text = match server
        .contexts
        .open(id, user, (cursor, octets), lifetime, now)
    {
        Ok(()) => return Ok(()),
        Err(Full::User) => texts::TOO_MANY_CONTEXTS
            .with("user", user)
            .with("limit", limits.per_user),
        Err(Full::Total) => texts::TOO_MANY_CONTEXTS_IN_TOTAL.with("limit", limits.total),
        Err(Full::OctetsOfUser) => texts::CONTEXTS_TOO_LONG
            .with("user", user)
            .with("limit", limits.octets_per_user),
        Err(Full::Octets) => texts::CONTEXTS_TOO_LONG_IN_TOTAL.with("limit", limits.octets),
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
