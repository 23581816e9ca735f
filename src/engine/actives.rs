//! What is recorded of the active files of the machines in a library, for those who ask an engine.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::definition::{self, TOPS, Tops};
use crate::engine::{Actives, EngineError, InTurn, Recorded, library, names, turn};
use crate::held;
use crate::id::VmId;

/// [`definition::recorded_there`], as far as others are told: of a library whose folder is away nothing is concluded.
///
/// # Errors
/// As there.
pub(crate) fn recorded(machines: &Path) -> Result<Vec<Recorded>, EngineError> {
    told_of(machines, definition::recorded_there(machines))
}

/// [`recorded`], where there need not be a library.
///
/// # Errors
/// As [`definition::recorded`].
pub(crate) fn recorded_if_any(machines: &Path) -> Result<Vec<Recorded>, EngineError> {
    told_of(machines, definition::recorded(machines))
}

fn told_of(
    machines: &Path,
    all: io::Result<Vec<(VmId, io::Result<Tops>)>>,
) -> Result<Vec<Recorded>, EngineError> {
    let all = all.map_err(|e| library::directory_failed(machines, &e))?;
    let all = all.into_iter();
    let told = all.map(|(id, stored)| told_as(machines, id, stored));
    Ok(told.collect())
}

/// [`definition::stored`], as far as others are told.
pub(crate) fn recorded_of(machines: &Path, id: VmId) -> Option<Recorded> {
    let stored = definition::stored(machines, id).transpose()?;
    Some(told_as(machines, id, stored))
}

/// A turn at the library whose machines are in this folder.
///
/// # Errors
/// It cannot be seen who has it.
pub(crate) fn turn(machines: &Path, given_up: &dyn Fn() -> bool) -> io::Result<Option<InTurn>> {
    let turn = turn::take_in(machines, turn::PATIENCE, given_up)?;
    Ok(turn.map(boxed))
}

fn boxed(turn: turn::Turn) -> InTurn {
    Box::new(turn)
}

fn told_as(machines: &Path, id: VmId, stored: io::Result<Tops>) -> Recorded {
    let sets = machines.with_file_name(held::SETS);
    Recorded {
        machine: id,
        file: machines.join(id.to_string()).join(TOPS),
        active: stored.ok().map(|stored| told(stored, &sets, id)),
    }
}

/// The folder of machines, or of one.
pub(crate) fn folder_of(machines: &Path, id: Option<VmId>) -> PathBuf {
    id.map_or_else(|| machines.to_owned(), |id| machines.join(id.to_string()))
}

fn told(stored: Tops, sets: &Path, machine: VmId) -> Actives {
    Actives {
        all: stored.actives(|file| names::is_made_for(sets, machine, file)),
        tops: stored.tops,
        complete: stored.complete,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::clock::SystemClock;
    use crate::engine::Compute;
    use crate::engine::library::{Library, machines_directory};
    use crate::engine::sim::Sim;

    #[test]
    fn a_library_that_is_away_does_not_tell_that_nothing_is_needed() {
        let data = tempfile::tempdir().unwrap();
        let sim = Sim::new(data.path(), 1, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(sim.recorded().unwrap().len(), 0, "there is no library");
        let library = Library::open(data.path(), SystemClock::shared()).unwrap();
        assert_eq!(library.recorded().unwrap().len(), 0);
        let machines = machines_directory(data.path());
        std::fs::rename(&machines, data.path().join("away")).unwrap();
        assert!(library.recorded().is_err());
        assert_eq!(sim.recorded().unwrap().len(), 0);
    }
}
