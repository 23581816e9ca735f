//! The last look before a file is written into or removed, once nothing is waited for any more.
//!
//! Whoever takes a machine into the library, or accepts another image of one, does so in its turn, and refuses files
//! that an operation holds. An operation holds the files that it writes, and then waits for a turn: what came before is
//! seen, and what comes later is refused. Files that it only removes it does not hold; they go within its turn.

use std::path::Path;
use std::sync::Arc;

use crate::engine::{InTurn, Survey};
use crate::snapshot::destroy::Member;
use crate::snapshot::destroy::look::survey;
use crate::snapshot::saga::core::Core;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// The files as they are after the turn of everybody who came before; of those that the operation holds.
///
/// # Errors
/// Why the file must stay: others have the turn, or it is given up; what may lie on it cannot be seen.
pub(super) fn held(
    core: &Arc<Core>,
    member: &Member,
    file: &Path,
    given_up: &dyn Fn() -> bool,
) -> Result<Box<dyn Survey>, Text> {
    drop(turn(core, file, given_up)?);
    look(core, member, file)
}

/// The files as they are in a turn that lasts as long as it is kept.
///
/// # Errors
/// As [`held`].
pub(super) fn in_turn(
    core: &Arc<Core>,
    member: &Member,
    file: &Path,
) -> Result<(Box<dyn Survey>, InTurn), Text> {
    let turn = turn(core, file, &|| false)?;
    Ok((look(core, member, file)?, turn))
}

/// The turn, for the sake of this file.
///
/// # Errors
/// Others have it, or it is given up.
pub(crate) fn turn(core: &Core, file: &Path, given_up: &dyn Fn() -> bool) -> Result<InTurn, Text> {
    let turn = core.deps.compute.turn(given_up).map_err(|error| {
        let text = texts::LIBRARY_UNSEEN.with("file", file.display());
        text.with("cause", error)
    })?;
    turn.ok_or_else(|| texts::LIBRARY_BUSY.with("file", file.display()))
}

fn look(core: &Arc<Core>, member: &Member, file: &Path) -> Result<Box<dyn Survey>, Text> {
    if !core.deps.compute.renew() {
        return Err(texts::LIBRARY_UNENDED.with("file", file.display()));
    }
    survey(core, member).map_err(|e| e.text)
}
