//! What keeps others from disks: a [`Hold`] of guards, each of one thing that is held.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// Keeps everyone else from starting a machine on it, or writing it, as long as it lives. Dropping it may block.
pub trait Guard: Debug + Send {
    /// What is held, by the name by which it was taken.
    fn of(&self) -> &Path;

    /// Lets readers in, and no writer: at no moment could one have come between.
    ///
    /// # Errors
    /// It cannot be kept closed; it is let go then.
    fn freeze(self: Box<Self>) -> io::Result<Box<dyn Frozen>>;
}

/// Keeps writers from what sets keep, as long as it lives.
pub trait Frozen: Debug + Send {}

/// All that is held of a machine; dropping it lets it go. Empty where there is nothing that anybody could open.
#[derive(Debug, Default)]
#[must_use = "dropping it lets the disks go"]
pub struct Hold(Vec<Box<dyn Guard>>);

impl Hold {
    /// Of one thing.
    pub fn on(guard: impl Guard + 'static) -> Self {
        Self(vec![Box::new(guard)])
    }

    /// Whether this one is held, by the name by which it was taken.
    #[must_use]
    pub fn covers(&self, file: &Path) -> bool {
        self.0.iter().any(|guard| guard.of() == file)
    }

    /// Takes over all of another one.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn into_guards(self) -> impl Iterator<Item = Box<dyn Guard>> {
        self.0.into_iter()
    }
}
