//! A point of the program that stands still until a test lets it go on.

use std::path::Path;
use std::time::{Duration, Instant};

/// How long the program may take to come to the point.
const PATIENCE: Duration = Duration::from_secs(120);

/// Holds what comes to a fail point, until it is opened or dropped.
pub(crate) struct Gate(tempfile::NamedTempFile);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    /// The order for `GROUPSHOT_FAILPOINTS` that holds at this point.
    pub(crate) fn at(&self, point: &str) -> String {
        format!("{point}=hold:{}", self.path().display())
    }

    /// Waits until something stands at it.
    pub(crate) fn reached(&self) {
        let began = Instant::now();
        while std::fs::read(self.path()).unwrap().is_empty() {
            assert!(began.elapsed() < PATIENCE, "nothing comes to the gate");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets it go on.
    pub(crate) fn open(self) {
        drop(self);
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}
