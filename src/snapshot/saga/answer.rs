//! What a request is answered: the ids of what runs now, or why nothing was begun.

use crate::id::{JobId, SetId};
use crate::text::Text;

/// The job runs; both ids are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// The set that it will publish or works on.
    pub set: SetId,
}

/// Not even begun; nothing was changed. Each is one return value of the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// 2: the store or the journal cannot be written.
    Failed(Text),
    /// 4: no such collection or set.
    InvalidParameter(Text),
    /// 5: an empty collection, a member or set that is busy or in the wrong state, a disk that cannot be
    /// worked on.
    InvalidState(Text),
}

impl Refused {
    /// Why.
    #[must_use]
    pub fn text(&self) -> &Text {
        match self {
            Self::Failed(text) | Self::InvalidParameter(text) | Self::InvalidState(text) => text,
        }
    }

    /// The same refusal in other words.
    pub(crate) fn saying(&self, text: Text) -> Self {
        match self {
            Self::Failed(_) => Self::Failed(text),
            Self::InvalidParameter(_) => Self::InvalidParameter(text),
            Self::InvalidState(_) => Self::InvalidState(text),
        }
    }
}
