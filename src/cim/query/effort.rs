//! What a condition may cost, so that one that takes long can be stopped.

/// Counts what a condition costs, and stops it where it has cost enough.
pub trait Effort {
    /// So many more values, characters or classes were looked at.
    ///
    /// # Errors
    /// [`Stopped`]: the time is up.
    fn spend(&self, steps: usize) -> Result<(), Stopped>;
}

/// A condition was not judged to its end, for want of time. It may be judged anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// No limit.
pub(super) struct Free;

impl Effort for Free {
    fn spend(&self, _steps: usize) -> Result<(), Stopped> {
        Ok(())
    }
}
