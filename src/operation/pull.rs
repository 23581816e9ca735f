//! WS-Enumeration Pull and Release: go on with a walk, or give it up. DSP0226 8.4 and 8.7, rules E-11 to E-15.

use std::time::Duration;

use crate::id::WireId;
use crate::soap::Vocabulary;
use crate::text::catalog::operation as texts;
use crate::text::{Message, Text};
use crate::wsman::enumeration::Page;
use crate::wsman::fault::{Fault, table};
use crate::wsman::request;

use super::Server;
use super::contexts::Unusable;
use super::cursor::Shape;
use super::exchange::Exchange;
use super::page::{self, Due, Filling};

/// Answers with the next items. The context alone says which enumeration is meant (rule E-3).
pub(super) async fn pull(
    server: &Server,
    exchange: &Exchange<'_>,
    wish: &request::Pull,
) -> Result<String, Fault> {
    let user = &exchange.context.identity.user;
    let (lease, cursor) = id(&wish.context)
        .and_then(|id| server.contexts.take(id, user, server.clock.elapsed()))
        .map_err(|e| fault(e, &wish.context))?;
    let items = items_wanted(wish, &cursor.shape);
    let page = Page::pull(
        &exchange.reply_headers(),
        &wish.context,
        exchange.count(cursor.shape.total),
        exchange.budget(items, wish.max_characters),
    );
    let time = exchange.headers.timeout;
    let max_time = wish.max_time.filter(|t| *t < time);
    // A page without an item would end the walk of clients that look for the first one.
    let due = Due::new(exchange.began, max_time.unwrap_or(time), false);
    let late = || match max_time {
        Some(time) => table::ENUMERATE_TIMED_OUT.fault(no_item(texts::NO_ITEM_IN_MAX_TIME, time)),
        None => table::OPERATION_TIMEDOUT.fault(no_item(texts::NO_ITEM_IN_TIME, time)),
    };
    let (filling, filled) = page::fill(server, user, Filling { page, cursor }, due, late).await;
    let Some(Filling { page, cursor }) = filling else {
        return Err(filled.err().unwrap_or_else(page::broken));
    };
    // Also after a fault the enumeration goes on: the client may ask again, with more room or time.
    let ended = filled.is_ok() && cursor.at_end();
    let more = !ended && lease.give_back(cursor, server.clock.elapsed());
    filled?;
    Ok(page.finish(more))
}

fn no_item(text: Message, time: Duration) -> Text {
    text.with("seconds", time.as_secs_f32())
}

/// Gives up an enumeration.
pub(super) fn release(
    server: &Server,
    exchange: &Exchange<'_>,
    context: &str,
) -> Result<String, Fault> {
    let user = &exchange.context.identity.user;
    id(context)
        .and_then(|id| server.contexts.release(id, user, server.clock.elapsed()))
        .map_err(|e| fault(e, context))?;
    exchange.finish(exchange.reply(Vocabulary::Enumeration))
}

/// The Pull's own number, else that of the Enumerate, else the misplaced one, else 1.
fn items_wanted(wish: &request::Pull, shape: &Shape) -> usize {
    wish.max_elements
        .or(shape.max_elements)
        .or(wish.max_elements_wsman)
        .unwrap_or(1)
}

fn id(context: &str) -> Result<WireId, Unusable> {
    let guid = context.strip_prefix("uuid:").unwrap_or(context);
    guid.parse().map_err(|_| Unusable::Unknown)
}

fn fault(unusable: Unusable, context: &str) -> Fault {
    match unusable {
        Unusable::Unknown => table::ENUMERATE_INVALID_ENUMERATION_CONTEXT
            .fault(texts::UNKNOWN_CONTEXT.with("context", context)),
        Unusable::NotYours => {
            table::ACCESS_DENIED.fault(texts::FOREIGN_CONTEXT.with("context", context))
        }
        Unusable::Busy => table::CONCURRENCY.fault(texts::BUSY_CONTEXT.with("context", context)),
    }
}
