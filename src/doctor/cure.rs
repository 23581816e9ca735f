//! What is repaired: one finding at a time, found again first. Each repair may be killed and repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::{About, Written};
use crate::doctor::line::{Progress, Tell};
use crate::doctor::look::{self, Ailment};
use crate::doctor::{Doctor, FindingKind};
use crate::engine::Top;
use crate::engine::import;
use crate::id::{JobId, VmId};
use crate::inventory::{Ended, Ending, What};
use crate::snapshot::{DamagedDisk, Refused};
use crate::store::{Change, State};

/// How often it is looked how far a repair is.
const LOOK: Duration = Duration::from_millis(200);
/// Who the jobs of repairs belong to.
const OWNER: &str = "doctor";

/// A repair.
pub(super) enum Cure {
    /// Ends operations as the start of a server does.
    Recover,
    /// Takes the disks for good as they are.
    Accept(Vec<DamagedDisk>),
    /// Merges the hidden layers of the machine.
    Tidy(VmId),
    /// Closes the file to writers; the machine is one of those that it is kept for.
    Mode(PathBuf, VmId),
    /// Writes the `tops.json` of the machine anew.
    Tops(VmId),
    /// Moves the file away from where it is found again and again.
    SetAside(PathBuf),
}

impl Ailment {
    /// Whether it is of damaged disks, and was told as this object when there were more or fewer of them.
    fn accepts(&self, object: &str) -> bool {
        let Some(Cure::Accept(disks)) = &self.cure else {
            return false;
        };
        let mut disks = disks.iter();
        disks.any(|disk| look::of_disk(disk) == object || look::of_files(disk) == object)
    }
}

impl Doctor {
    /// Takes a machine out of the library, while no operation works on it and none begins.
    ///
    /// # Errors
    /// In words what needs it, or what went wrong.
    pub(super) async fn remove(&self, id: VmId) -> Result<(), String> {
        let data_dir = self.deps.data_dir.clone();
        let remove = move || import::remove(&data_dir, id, |_| Vec::new());
        let removed = self.deps.coordinator.without(id, remove).await;
        removed.map_err(|why| why.english())
    }

    /// Repairs the finding of this kind and object, if it is still there; says what was done. Log and history tell of
    /// it as well.
    ///
    /// # Errors
    /// Why it was not, in one line.
    pub async fn fix(
        self: &Arc<Self>,
        kind: FindingKind,
        object: &str,
        tell: &Tell,
    ) -> Result<String, String> {
        let started = self.deps.clock.now();
        let Some(found) = self.found(kind, object).await else {
            return Ok("it is no longer so".to_owned());
        };
        let about = self.about(&found);
        let told = format!("{}, {object}", word(kind));
        let by_job = matches!(found.cure, Some(Cure::Tidy(_)));
        let mut written = Vec::new();
        let mut done = self.cure(found, tell, &mut written).await;
        // What was done is told by what is found afterwards, not by who did it.
        if let Ok(how) = &done
            && let Some(still) = self.found(kind, object).await.filter(|a| a.cure.is_some())
        {
            done = Err(format!("it is still so: {}; {how}", still.finding.text));
        }
        if by_job && done.is_ok() {
            return done; // its job tells of it
        }
        let (Ok(how) | Err(how)) = &done;
        let ended = Ended {
            what: What::Repair,
            outcome: match done {
                Ok(_) => Ending::Completed,
                Err(_) => Ending::Failed,
            },
            job: None,
            user: OWNER.to_owned(),
            about,
            started,
            ended: self.deps.clock.now(),
            reason: format!("{told}: {how}"),
            code: None,
            recovered: false,
        };
        ended.tell();
        let noted = Box::new(move |_: &State| vec![Change::Ended(ended)]);
        if let Err(error) = self.deps.store.transact(noted).await {
            tracing::warn!(%error, "A repair is not in the history");
        }
        for line in written {
            line.await;
        }
        done
    }

    /// The machine or set of a finding, as far as its repair knows.
    fn about(&self, found: &Ailment) -> About {
        match &found.cure {
            Some(Cure::Accept(disks)) => disks.iter().fold(About::default(), |about, disk| {
                let about = about.set(disk.set, &disk.set_name);
                about.machine(disk.machine, &disk.machine_name)
            }),
            Some(Cure::Tidy(id) | Cure::Tops(id) | Cure::Mode(_, id)) => {
                let machine = self.deps.compute.machine(*id);
                let name = machine.map(|m| m.name.clone()).unwrap_or_default();
                About::default().machine(id, &name)
            }
            Some(Cure::Recover | Cure::SetAside(_)) | None => About::default(),
        }
    }

    async fn found(self: &Arc<Self>, kind: FindingKind, object: &str) -> Option<Ailment> {
        let all = self.ailments().await;
        let mut all: Vec<_> = all.into_iter().filter(|a| a.finding.kind == kind).collect();
        let exact = all.iter().position(|a| a.finding.object == object);
        let found = exact.or_else(|| all.iter().position(|a| a.accepts(object)));
        found.map(|at| all.swap_remove(at))
    }

    /// Waits for what works on this job, or on all, and tells how far it is meanwhile.
    async fn watched<T>(
        &self,
        job: Option<JobId>,
        work: impl Future<Output = T>,
        tell: &Tell,
    ) -> T {
        tokio::pin!(work);
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = looks.tick() => {
                    if let Some((percent, text)) = self.deps.coordinator.progress(job) {
                        tell.send_replace(Some(Progress { percent, text }));
                    }
                }
            }
        }
    }

    /// `written`: the end of the writing of its audit lines, if it has any.
    async fn cure(
        &self,
        found: Ailment,
        tell: &Tell,
        written: &mut Vec<Written>,
    ) -> Result<String, String> {
        let Some(cure) = found.cure else {
            return Err("there is no repair for it".to_owned());
        };
        let coordinator = &self.deps.coordinator;
        match cure {
            Cure::Recover => {
                let recovered = self.watched(None, coordinator.recover(), tell).await;
                let recovered = recovered.map_err(|e| e.to_string())?;
                match recovered.stuck.first() {
                    None => Ok(format!("recovered: {recovered}")),
                    Some(stuck) => Err(format!("it cannot end now: {}", stuck.why.english())),
                }
            }
            Cure::Accept(disks) => {
                // One that cannot be accepted now keeps no other from it.
                let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
                for disk in &disks {
                    match coordinator.accept_damage(disk).await {
                        Ok((files, line)) => {
                            accepted.insert(files);
                            written.push(line);
                        }
                        Err(error) => drop(refused.insert(why(error))),
                    }
                }
                let told = |all: BTreeSet<String>| Vec::from_iter(all).join("; ");
                match (accepted.is_empty(), refused.is_empty()) {
                    (_, true) => Ok(format!("accepted: {}", told(accepted))),
                    (true, false) => Err(told(refused)),
                    (false, false) => {
                        let refused = told(refused);
                        Err(format!("{refused}; accepted: {}", told(accepted)))
                    }
                }
            }
            Cure::Tidy(machine) => {
                let begun = coordinator.tidy(machine, OWNER.to_owned()).await;
                let begun = begun.map_err(why)?;
                self.watched(Some(begun.job), coordinator.released(machine), tell)
                    .await?;
                Ok(coordinator.status_of(begun.job).unwrap_or_default())
            }
            Cure::Mode(file, machine) => {
                let closed = coordinator.close_to_writers(&file, machine).await;
                closed.map_err(why)?;
                Ok("it cannot be written any more".to_owned())
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

/// As scripts read it: `pending-merge`.
fn word(kind: FindingKind) -> String {
    let word = serde_json::to_value(kind).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
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
    text.english()
}
