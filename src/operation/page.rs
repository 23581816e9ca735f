//! Filling one page of an enumeration: as many items as fit, and not longer than time allows.

use std::time::Duration;

use crate::cim::InstanceError;
use crate::clock::Clock;
use crate::provider::Error;
use crate::text::catalog::operation as texts;
use crate::wscim;
use crate::wsman::enumeration::{self, Form, Page};
use crate::wsman::fault::{Fault, Tried, table};
use crate::xml::Writer;

use super::class;
use super::cursor::{Cursor, Item, Shape};

/// The most items of one page, whatever the client asks for (rule Q-3).
pub(super) const ITEMS_MAX: usize = 32_000;
/// After so many items the clock is looked at.
const CLOCK_EVERY: usize = 16;

/// Puts the items that come next on the page and leaves the cursor before the first that did not fit.
/// A page that has items ends at the moment `until` of [`Clock::elapsed`].
///
/// # Errors
/// A [`Fault`] if not even one item fits, or if the next item cannot be made.
pub(super) fn fill(
    page: &mut Page<'_>,
    cursor: &mut Cursor,
    until: Duration,
    clock: &dyn Clock,
) -> Result<(), Fault> {
    let shape = cursor.shape.clone();
    let form = Form {
        cast: shape.cast.as_deref(),
        columns: shape.columns.as_deref(),
        mode: shape.mode,
        style: shape.style,
    };
    for n in 1_usize.. {
        if page.is_full() {
            break;
        }
        let item = match cursor.peek() {
            None => break,
            Some(Ok(item)) => item,
            // What is good goes out first; the next page begins with the error.
            Some(Err(_)) if !page.is_empty() => break,
            Some(Err(error)) => {
                let fault = fault(error.clone());
                cursor.advance();
                return Err(fault);
            }
        };
        let mut fits = page
            .push(|w| write(w, item, form, &shape, true))
            .map_err(|e| fault(Error::from(e)))?;
        if !fits && page.is_empty() {
            fits = page
                .push(|w| write(w, item, form, &shape, false))
                .map_err(|e| fault(Error::from(e)))?;
        }
        if !fits && page.is_empty() {
            return Err(table::MAX_ENVELOPE_SIZE_EXCEEDED.fault(texts::ITEM_TOO_LARGE.text()));
        }
        if !fits {
            break;
        }
        cursor.advance();
        if n.is_multiple_of(CLOCK_EVERY) && clock.elapsed() >= until {
            break;
        }
    }
    Ok(())
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
        Item::Instance(instance) if shape.properties.is_empty() => {
            enumeration::item(w, instance, form)
        }
        Item::Instance(instance) => {
            wscim::write_fragment(w, instance, &shape.properties, shape.style);
            Ok(())
        }
    }
}

fn fault(error: Error) -> Fault {
    Fault::from_status(error.status, error.text, Tried::Select)
}
