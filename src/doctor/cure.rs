//! What is repaired: one finding at a time, found again first. Each repair may be killed and repeated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::doctor::look::Ailment;
use crate::doctor::{Doctor, Kind};
use crate::engine::Top;
use crate::id::VmId;
use crate::snapshot::{DamagedDisk, Refused};

/// Who the jobs of repairs belong to.
const OWNER: &str = "doctor";

/// A repair.
pub(super) enum Cure {
    /// Ends operations as the start of a server does.
    Recover,
    /// Takes the disk for good as it is.
    Accept(DamagedDisk),
    /// Merges the hidden layers of the machine.
    Tidy(VmId),
    /// Closes the file to writers; the machine is one of those that it is kept for.
    Mode(PathBuf, VmId),
    /// Writes the `tops.json` of the machine anew.
    Tops(VmId),
    /// Moves the file away from where it is found again and again.
    SetAside(PathBuf),
}

impl Doctor {
    /// Repairs the finding of this kind and object, if it is still there; says what was done.
    ///
    /// # Errors
    /// Why it was not, in one line.
    pub async fn fix(self: &Arc<Self>, kind: Kind, object: &str) -> Result<String, String> {
        let Some(found) = self.found(kind, object).await else {
            return Ok("it is no longer so".to_owned());
        };
        let done = self.cure(found).await?;
        // What was done is told by what is found afterwards, not by who did it.
        match self.found(kind, object).await {
            Some(still) if still.cure.is_some() => {
                Err(format!("it is still so: {}; {done}", still.finding.text))
            }
            _ => Ok(done),
        }
    }

    async fn found(self: &Arc<Self>, kind: Kind, object: &str) -> Option<Ailment> {
        let mut all = self.ailments().await.into_iter();
        all.find(|a| a.finding.kind == kind && a.finding.object == object)
    }

    async fn cure(self: &Arc<Self>, found: Ailment) -> Result<String, String> {
        let Some(cure) = found.cure else {
            return Err("there is no repair for it".to_owned());
        };
        let coordinator = &self.deps.coordinator;
        match cure {
            Cure::Recover => {
                let recovered = coordinator.recover().await.map_err(|e| e.to_string())?;
                match recovered.stuck.first() {
                    None => Ok(format!("recovered: {recovered}")),
                    Some(stuck) => Err(format!("it cannot end now: {}", stuck.why)),
                }
            }
            Cure::Accept(disk) => {
                coordinator.accept_damage(&disk).await.map_err(why)?;
                Ok("accepted".to_owned())
            }
            Cure::Tidy(machine) => {
                let begun = coordinator.tidy(machine, OWNER.to_owned()).await;
                let begun = begun.map_err(why)?;
                coordinator.released(machine).await?;
                Ok(coordinator.status_of(begun.job).unwrap_or_default())
            }
            Cure::Mode(file, machine) => {
                let closed = coordinator.close_to_writers(&file, machine).await;
                closed.map_err(why)?;
                Ok("the mode is 0444".to_owned())
            }
            Cure::Tops(machine) => {
                let tops = coordinator.write_lost_tops(machine).await?;
                Ok(format!("written: {}", actives(&tops)))
            }
            Cure::SetAside(file) => {
                let coordinator = Arc::clone(coordinator);
                let moved = tokio::task::spawn_blocking(move || coordinator.set_aside(&file)).await;
                let moved = moved.map_err(|e| e.to_string())?;
                let to = moved.map_err(|e| e.to_string())?;
                Ok(format!("moved to {}", to.display()))
            }
        }
    }
}

/// The active file of each disk.
pub(super) fn actives(tops: &BTreeMap<String, Top>) -> String {
    let told = tops
        .iter()
        .map(|(disk, top)| format!("{disk} runs on {}", top.file.display()));
    told.collect::<Vec<_>>().join(", ")
}

fn why(refused: Refused) -> String {
    let (Refused::Failed(text) | Refused::InvalidParameter(text) | Refused::InvalidState(text)) =
        refused;
    text.render()
}
