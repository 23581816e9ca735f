//! Filling one page of an enumeration: as many items as fit, and not longer than time allows.
//!
//! ```text
//!   here, for a moment ──▶ full or at the end? ──yes──▶ answer
//!                                 │ no
//!        ┌──▶ wait for a place ──▶ a turn of a worker ──▶ full or at the end? ──▶ answer
//!        └────────── no, and there is time ◀──────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::cim::InstanceError;
use crate::provider::Error;
use crate::text::catalog::operation as texts;
use crate::wsman::enumeration::{self, Form, Page};
use crate::wsman::fault::{Fault, Tried, table};
use crate::xml::Writer;

use super::Server;
use super::class;
use super::cursor::{Cursor, Item, Look, Shape};
use super::workers::Failed;

/// Inline budget: how long an evaluation may run on the async thread before it moves to a worker. About the cost of one
/// Get.
const HERE: Duration = Duration::from_micros(200);
/// How long an evaluation runs on a worker before the next one gets its turn.
const TURN: Duration = Duration::from_millis(20);
/// A page with items is not held back longer than this for more.
const PATIENCE: Duration = Duration::from_secs(5);

/// A page in the making, and the enumeration that it is from.
pub(super) struct Filling {
    pub(super) page: Page,
    pub(super) cursor: Box<Cursor>,
}

/// When a page is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    /// One that may be sent as it is, with a context to go on with.
    pub(super) soon: Duration,
    /// One without an item.
    pub(super) last: Duration,
    /// May one be sent without an item?
    pub(super) may_be_empty: bool,
}

/// Why the filling of a page has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// It is done.
    Done,
    /// The turn is over.
    Paused,
}

impl Due {
    /// For a request that began at one moment and may take so long.
    pub(super) fn new(began: Duration, time: Duration, may_be_empty: bool) -> Self {
        Self {
            soon: began + (time / 2).min(PATIENCE),
            last: began + time,
            may_be_empty,
        }
    }
}

/// Puts the items that come next on the page and leaves the cursor before the first that did not fit. A page that may
/// be sent is sent when it is due; nothing is lost by that.
///
/// # Errors
/// A [`Fault`] if not even one item fits, if the next item cannot be made, or if none came in time. The cursor comes
/// back unless its evaluation broke down.
pub(super) async fn fill(
    server: &Server,
    user: &Arc<str>,
    mut filling: Filling,
    due: Due,
    late: impl Fn() -> Fault,
) -> (Option<Filling>, Result<(), Fault>) {
    let mut evaluation = server.workers.begin(user);
    // A user who already has a long evaluation gets no inline time on the serving threads.
    if !server.workers.has_long(user) {
        let turn = server.clock.elapsed() + HERE;
        match filling.go_on(turn, due.last) {
            Ok(Stands::Paused) => {}
            Ok(Stands::Done) => return (Some(filling), Ok(())),
            Err(fault) => return (Some(filling), Err(fault)),
        }
    }
    loop {
        let may_go = due.may_be_empty || !filling.page.is_empty();
        let limit = if may_go { due.soon } else { due.last };
        let left = limit.saturating_sub(server.clock.elapsed());
        let place = match left.is_zero() {
            true => Err(Failed::Late),
            false => server.workers.place(&evaluation, left).await,
        };
        let place = match place {
            Ok(place) => place,
            Err(Failed::Late) if may_go => return (Some(filling), Ok(())),
            Err(Failed::Late) => return (Some(filling), Err(late())),
            Err(Failed::Broken) => return (Some(filling), Err(broken())),
        };
        let clock = server.clock.clone();
        let work = move || {
            let stands = filling.go_on(clock.elapsed() + TURN, due.last);
            (filling, stands)
        };
        match server.workers.run(place, work).await {
            Ok((back, Ok(Stands::Paused))) => filling = back,
            Ok((back, stands)) => return (Some(back), stands.map(|_| ())),
            Err(_) => return (None, Err(broken())),
        }
        evaluation.takes_long();
    }
}

/// An evaluation that came to no end.
pub(super) fn broken() -> Fault {
    table::INTERNAL_ERROR.fault(texts::BROKEN_EVALUATION.text())
}

impl Filling {
    /// Goes on until the page is done or the turn is over.
    fn go_on(&mut self, turn: Duration, deadline: Duration) -> Result<Stands, Fault> {
        let Self { page, cursor } = self;
        cursor.pace.allow(turn, deadline);
        let shape = cursor.shape.clone();
        let form = Form {
            cast: shape.cast.as_deref(),
            columns: shape.columns.as_deref(),
            properties: &shape.properties,
            mode: shape.mode,
            style: shape.style,
        };
        loop {
            let is_full = page.is_full();
            let item = match cursor.look() {
                Look::Paused => return Ok(Stands::Paused),
                Look::End => return Ok(Stands::Done),
                _ if is_full => return Ok(Stands::Done),
                Look::Item(item) => item,
                // What is good goes out first; the next page begins with the error.
                Look::Error(_) if !page.is_empty() => return Ok(Stands::Done),
                Look::Error(error) => {
                    let fault = fault(error.clone());
                    cursor.advance();
                    return Err(fault);
                }
            };
            if !put(page, item, form, &shape)? {
                return match page.is_empty() {
                    true => Err(too_large()),
                    false => Ok(Stands::Done),
                };
            }
            cursor.advance();
        }
    }
}

/// Puts an item on the page, if it fits.
fn put(page: &mut Page, item: &Item, form: Form<'_>, shape: &Shape) -> Result<bool, Fault> {
    let push = |page: &mut Page, in_full| {
        let written = page.push(|w| write(w, item, form, shape, in_full));
        written.map_err(|e| fault(Error::from(e)))
    };
    let fits = push(page, true)?;
    match !fits && page.is_empty() {
        true => push(page, false),
        false => Ok(fits),
    }
}

fn too_large() -> Fault {
    table::MAX_ENVELOPE_SIZE_EXCEEDED.fault(texts::ITEM_TOO_LARGE.text())
}

/// Writes an item; a class without what only people read, if even alone it would be too large (rule C-9).
fn write(
    w: &mut Writer,
    item: &Item,
    form: Form<'_>,
    shape: &Shape,
    in_full: bool,
) -> Result<(), InstanceError> {
    match item {
        Item::Class(class) => {
            class::item(w, class, shape.class_options, in_full);
            Ok(())
        }
        Item::Instance(instance) => enumeration::item(w, instance, form),
    }
}

fn fault(error: Error) -> Fault {
    Fault::from_status(error.status, error.text, Tried::Select)
}
