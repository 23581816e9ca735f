//! The state of an open enumeration: the items still to come, and the form in which the client wants them.

use std::fmt;
use std::sync::Arc;

use crate::cim::query::Column;
use crate::cim::{Class, Instance};
use crate::provider::{Error, Instances, Pace};
use crate::wscim::Style;
use crate::wsman::request::{ClassOptions, Mode};

/// The form of the items, fixed by the Enumerate.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// With `ExcludeSubClassProperties` the class asked for: items are cast to it.
    pub(super) cast: Option<Arc<Class>>,
    /// The properties that a query asks for.
    pub(super) columns: Option<Arc<[Column]>>,
    /// How values and references are written: in the form that the Enumerate used.
    pub(super) style: Style,
    /// Objects, references or both.
    pub(super) mode: Mode,
    /// `w:MaxElements` of the Enumerate: the size of a page where a Pull gives none.
    pub(super) max_elements: Option<usize>,
    /// Only these properties of each instance; empty means all.
    pub(super) properties: Vec<String>,
    /// How much of each class declaration.
    pub(super) class_options: ClassOptions,
    /// How many items there are, where the providers know.
    pub(super) total: Option<u64>,
}

/// What an enumeration lists.
#[derive(Debug)]
pub(super) enum Item {
    /// An instance.
    Instance(Instance),
    /// A class declaration.
    Class(Arc<Class>),
}

/// Items one by one, made as they are asked for.
pub(super) type Items = Box<dyn Iterator<Item = Result<Item, Error>> + Send>;

/// Instances as items.
pub(super) fn instances(instances: Instances) -> Items {
    Box::new(instances.map(|i| i.map(Item::Instance)))
}

/// An enumeration in progress. It can look one item ahead, so that `EndOfSequence` can go with the last item,
/// and so that an item that did not fit on a page is the first of the next.
pub(super) struct Cursor {
    /// The form of the items.
    pub(super) shape: Shape,
    /// The time of whoever goes on with it.
    pub(super) pace: Pace,
    rest: Items,
    next: Next,
}

/// What is known of the item to come.
#[derive(Debug)]
enum Next {
    Unseen,
    Is(Result<Item, Error>),
    End,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Look<'a> {
    /// This item.
    Item(&'a Item),
    /// None, for this reason.
    Error(&'a Error),
    /// That is not known yet: the turn is over.
    Paused,
    /// Nothing.
    End,
}

impl Cursor {
    /// Stands before the first of `items`, which go on at that pace. Nothing is evaluated.
    #[must_use]
    pub(super) fn new(shape: Shape, pace: Pace, items: Items) -> Self {
        Self {
            shape,
            pace,
            rest: items,
            next: Next::Unseen,
        }
    }

    /// What comes next; found now if it was not yet.
    pub(super) fn look(&mut self) -> Look<'_> {
        if matches!(self.next, Next::Unseen) {
            self.next = match self.rest.next() {
                Some(Err(error)) if error.is_paused() => return Look::Paused,
                Some(next) => Next::Is(next),
                None => Next::End,
            };
        }
        match &self.next {
            Next::Unseen => Look::Paused,
            Next::Is(Ok(item)) => Look::Item(item),
            Next::Is(Err(error)) => Look::Error(error),
            Next::End => Look::End,
        }
    }

    /// Goes on to the next item.
    pub(super) fn advance(&mut self) {
        if !self.at_end() {
            self.next = Next::Unseen;
        }
    }

    /// Is it known that everything is delivered?
    #[must_use]
    pub(super) fn at_end(&self) -> bool {
        matches!(self.next, Next::End)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("shape", &self.shape)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Cursor {
    /// A cursor at its end.
    pub(super) fn empty() -> Self {
        let shape = Shape {
            cast: None,
            columns: None,
            style: Style {
                family: crate::wscim::Family::Wmi,
                precise_arrays: false,
                show_types: false,
            },
            mode: Mode::Object,
            max_elements: None,
            properties: Vec::new(),
            class_options: ClassOptions::default(),
            total: None,
        };
        Self::new(shape, Pace::default(), Box::new(std::iter::empty()))
    }
}
