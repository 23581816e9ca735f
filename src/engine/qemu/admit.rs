//! Whether a machine may be taken in by its monitors: they are nobody else's, and its QEMU, if it runs, has exactly the
//! images that are named.

use std::io;
use std::path::Path;

use crate::engine::failure::At;
use crate::engine::{EngineError, EngineErrorKind, locks};
use crate::inventory::{Format, Sockets};
use crate::text::Text;
use crate::text::catalog::engine as texts;

use super::inspect::{self, Asked, Found};
use super::peer::FileId;
use super::section;

/// An image that is to be a disk.
pub(crate) struct Wanted<'a> {
    /// The disk.
    pub(crate) disk: &'a str,
    /// Links resolved.
    pub(crate) file: &'a Path,
    /// What is open under that name.
    pub(crate) id: FileId,
    /// As was said.
    pub(crate) format: Format,
    /// Virtual size in bytes.
    pub(crate) size: u64,
}

/// Refuses sockets of managers, and a QEMU that runs and does not fit. Gives, in words, what was taken on trust. Blocks.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`] naming what does not fit; [`EngineErrorKind::Locked`] where somebody else has the
/// monitor or runs the machine.
pub(crate) fn admit(
    machine: &str,
    sockets: &Sockets,
    unmanaged_ok: bool,
    images: &[Wanted<'_>],
) -> Result<Vec<Text>, EngineError> {
    for socket in sockets.qmp.iter().chain(&sockets.agent) {
        if let Some(manager) = section::manager(socket) {
            let text = texts::SOCKET_MANAGED.with("machine", machine);
            let text = text.with("file", socket.display());
            return Err(unsupported(text.with("manager", manager)));
        }
    }
    let Some(first) = sockets.qmp.first() else {
        return off(machine, None, images).map(|()| Vec::new());
    };
    let failed = |socket: &Path, cause: String| {
        let text = texts::MONITOR_FAILED.with("machine", machine);
        text.with("file", socket.display()).with("cause", cause)
    };
    let asked = inspect::inspect(sockets);
    let asked = asked.map_err(|e| error(EngineErrorKind::Failed, failed(first, e.to_string())))?;
    let found = match asked {
        Asked::Nobody => return off(machine, Some(first), images).map(|()| Vec::new()),
        Asked::Mute(socket, cause) => {
            let text = failed(&socket, cause.to_string());
            return Err(error(EngineErrorKind::Locked, text));
        }
        Asked::Runs(found) => found,
    };
    if let Some(apart) = &found.apart {
        let text = texts::MONITOR_APART.with("machine", machine);
        return Err(unsupported(text.with("file", apart.display())));
    }
    if !found.jobs.is_empty() {
        // It is about to go on with other files than these.
        let text = texts::MONITOR_JOBS.with("machine", machine);
        let text = text.with("jobs", found.jobs.join(", "));
        return Err(error(EngineErrorKind::Locked, text));
    }
    fits(machine, &found, images)?;
    if !unmanaged_ok && !found.others.is_empty() {
        let text = texts::MONITOR_SHARED.with("machine", machine);
        let text = text.with("others", found.others.join(", "));
        return Err(error(EngineErrorKind::Locked, text));
    }
    Ok(match found.by_name {
        true => vec![texts::FOUND_BY_NAME.with("machine", machine)],
        false => Vec::new(),
    })
}

/// Nobody listens, or no socket is named: nothing may run it then.
fn off(machine: &str, socket: Option<&Path>, images: &[Wanted<'_>]) -> Result<(), EngineError> {
    let is_written = |it: &&Wanted<'_>| locks::is_written(it.file).unwrap_or(false);
    match images.iter().find(is_written) {
        None => Ok(()),
        Some(it) => {
            let at = At::new(machine, it.disk);
            let text = match socket {
                Some(socket) => at
                    .text(texts::RUNS_ELSEWHERE, it.file)
                    .with("socket", socket.display()),
                None => at.text(texts::RUNS_UNASKED, it.file),
            };
            Err(error(EngineErrorKind::Locked, text))
        }
    }
}

/// Refuses a QEMU that has other disks than these images, or shows its guest something else.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`] naming what does not fit.
pub(super) fn fits(machine: &str, found: &Found, images: &[Wanted<'_>]) -> Result<(), EngineError> {
    let captured = || found.disks.iter().filter(|(device, _)| device.is_captured);
    for image in images {
        let at = At::new(machine, image.disk);
        let of = |id: &io::Result<FileId>| id.as_ref().is_ok_and(|id| *id == image.id);
        let Some((device, _)) = captured().find(|(_, id)| of(id)) else {
            let others =
                captured().map(|(device, _)| format!("{} ({})", device.name, device.place()));
            let others: Vec<_> = others.collect();
            let others = match others.is_empty() {
                true => "none".to_owned(),
                false => others.join(", "),
            };
            let text = at.text(texts::DISK_NOT_OPEN, image.file);
            return Err(unsupported(text.with("others", others)));
        };
        if device.driver != image.format.as_str() {
            let text = at.text(texts::DISK_FORMAT, image.file);
            let text = text.with("found", device.driver.as_str());
            return Err(unsupported(text.with("format", image.format.as_str())));
        }
        if device.size != image.size {
            let text = at
                .text(texts::DISK_SIZE, image.file)
                .with("size", image.size);
            return Err(unsupported(text.with("found", device.size)));
        }
    }
    for (device, id) in captured() {
        let name = |text: Text| {
            let text = text
                .with("machine", machine)
                .with("device", device.name.as_str());
            text.with("file", device.place())
        };
        match id {
            Ok(id) if images.iter().any(|image| image.id == *id) => {}
            Ok(_) => return Err(unsupported(name(texts::DISK_STRANGE.text()))),
            Err(cause) => {
                let text = name(texts::DISK_UNTOLD.text());
                return Err(unsupported(text.with("cause", cause.to_string())));
            }
        }
    }
    Ok(())
}

fn unsupported(text: Text) -> EngineError {
    error(EngineErrorKind::Unsupported, text)
}

fn error(kind: EngineErrorKind, text: Text) -> EngineError {
    EngineError { kind, text }
}
