//! Where an enumeration stands: what is still to come, and in which form the client wants it.

use std::fmt;
use std::sync::Arc;

use crate::cim::query::Column;
use crate::cim::{Class, Instance};
use crate::provider::{Error, Instances};
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

/// An enumeration in progress. It looks one item ahead, so that `EndOfSequence` can go with the last item,
/// and so that an item that did not fit on a page is the first of the next.
pub(super) struct Cursor {
    /// The form of the items.
    pub(super) shape: Shape,
    rest: Items,
    next: Option<Result<Item, Error>>,
}

impl Cursor {
    /// Stands before the first of `items`.
    #[must_use]
    pub(super) fn new(shape: Shape, mut items: Items) -> Self {
        let next = items.next();
        Self {
            shape,
            rest: items,
            next,
        }
    }

    /// The item to come, `None` at the end.
    #[must_use]
    pub(super) fn peek(&self) -> Option<&Result<Item, Error>> {
        self.next.as_ref()
    }

    /// Goes on to the next item.
    pub(super) fn advance(&mut self) {
        self.next = self.rest.next();
    }

    /// Is everything delivered?
    #[must_use]
    pub(super) fn at_end(&self) -> bool {
        self.next.is_none()
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
        Self::new(shape, Box::new(std::iter::empty()))
    }
}
