//! Which active files an operation has changed: those of its machines before and after it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::cim::Path;
use crate::client::{Client, Object};

use super::contents::{DISK, SETTINGS, literal, members, name, query_machines};
use super::failure::Failure;
use super::output::one_line;
use super::remote::{COLLECTION, GROUPS, MACHINE, NAMESPACE, reference};

/// Of so many machines each is asked for by itself; of more it is quicker to read those of the whole server.
const FEW: usize = 64;
/// How the settings of a machine are called.
const PREFIX: &str = "Microsoft:";

/// What is known of the active files before an operation.
#[derive(Debug)]
pub(super) enum Before {
    /// Nobody waits for its end, so nobody asks.
    Unasked,
    Known(Actives),
    /// They could not be read.
    Unknown(Failure),
}

impl Before {
    /// Those of a collection's members.
    pub(super) async fn of_collection(client: &Client, collection: &Object, no_wait: bool) -> Self {
        match no_wait {
            true => Self::Unasked,
            false => Actives::of_collection(client, collection).await.into(),
        }
    }

    /// Those of the machines of a set.
    pub(super) async fn of_set(client: &Client, set: &str, no_wait: bool) -> Self {
        match no_wait {
            true => Self::Unasked,
            false => Actives::of_set(client, set).await.into(),
        }
    }

    /// What has changed since.
    ///
    /// # Errors
    /// They could not be read, before or now.
    pub(super) async fn changed(&self, client: &Client) -> Result<Vec<Changed>, Failure> {
        match self {
            Self::Unasked => Ok(Vec::new()),
            Self::Known(before) => {
                let now = Actives::of(client, before.machines.clone()).await?;
                Ok(before.changed(&now))
            }
            Self::Unknown(failure) => Err(failure.clone()),
        }
    }
}

impl From<Result<Actives, Failure>> for Before {
    fn from(read: Result<Actives, Failure>) -> Self {
        read.map_or_else(Self::Unknown, Self::Known)
    }
}

/// The active files of machines.
#[derive(Debug, Default)]
pub(super) struct Actives {
    /// Names by id; of those machines that are asked for.
    machines: BTreeMap<String, String>,
    /// By machine and disk.
    files: BTreeMap<(String, String), String>,
}

impl Actives {
    async fn of_collection(client: &Client, collection: &Object) -> Result<Self, Failure> {
        let machines = match collection.class == GROUPS {
            // Its collections may have any.
            true => named(client, None).await?,
            false => {
                let collection = reference(COLLECTION, collection);
                let association = "Msvm_CollectedVirtualSystems";
                let all = client.linked(&collection, association, MACHINE.class);
                all.await?.iter().map(name).collect()
            }
        };
        Self::of(client, machines).await
    }

    async fn of_set(client: &Client, set: &str) -> Result<Self, Failure> {
        let members = members(client, set).await?;
        let ids = members.iter().map(|m| m.text("VirtualSystemIdentifier"));
        let ids: Vec<&str> = ids.collect();
        Self::of(client, named(client, Some(&ids)).await?).await
    }

    async fn of(client: &Client, machines: BTreeMap<String, String>) -> Result<Self, Failure> {
        let disks = match machines.len() {
            0..=FEW => {
                let mut all = Vec::new();
                for id in machines.keys() {
                    let settings = Path::new(NAMESPACE, SETTINGS);
                    let settings = settings.key("InstanceID", format!("{PREFIX}{id}").as_str());
                    let association = "Msvm_VirtualSystemSettingDataComponent";
                    all.append(&mut client.linked(&settings, association, DISK).await?);
                }
                all
            }
            _ => {
                let all = format!("SELECT InstanceID, ElementName, HostResource FROM {DISK}");
                client.query(NAMESPACE, &all).await?
            }
        };
        let mut files = BTreeMap::new();
        for disk in disks {
            let owner = disk.text("InstanceID").split('\\').next();
            let owner = owner.and_then(|o| o.strip_prefix(PREFIX));
            let Some(id) = owner.filter(|id| machines.contains_key(*id)) else {
                continue;
            };
            let place = (id.to_owned(), disk.text("ElementName").to_owned());
            files.insert(place, disk.text("HostResource").to_owned());
        }
        Ok(Self { machines, files })
    }

    /// What is another one now, of each disk: machine, its name, disk, the file before and now.
    fn changed(&self, now: &Self) -> Vec<Changed> {
        let both = self.files.iter().filter_map(|(place, from)| {
            let to = now.files.get(place).filter(|to| *to != from)?;
            let (machine, disk) = place.clone();
            Some(Changed {
                name: self.machines.get(&machine).cloned().unwrap_or_default(),
                machine,
                disk,
                from: from.clone(),
                to: to.clone(),
            })
        });
        both.collect()
    }
}

/// A disk with another active file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    machine: String,
    name: String,
    disk: String,
    from: String,
    to: String,
}

impl Changed {
    pub(super) fn object(&self) -> Json {
        json!({
            "machine": self.machine, "name": self.name, "disk": self.disk,
            "from": self.from, "to": self.to,
        })
    }

    pub(super) fn in_words(&self) -> String {
        format!(
            "the active file of {}, {} is now {}; it was {}",
            one_line(&self.name),
            one_line(&self.disk),
            one_line(&self.to),
            one_line(&self.from)
        )
    }
}

/// The names of these machines, or of all, by id.
async fn named(
    client: &Client,
    only: Option<&[&str]>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = Vec::new();
    match only.filter(|ids| ids.len() <= FEW) {
        None => found = client.query(NAMESPACE, &query_machines()).await?,
        Some(ids) => {
            for id in ids {
                let one = format!("{} WHERE Name = {}", query_machines(), literal(id));
                found.append(&mut client.query(NAMESPACE, &one).await?);
            }
        }
    }
    let mut named: BTreeMap<String, String> = found.iter().map(name).collect();
    named.retain(|id, _| only.is_none_or(|ids| ids.contains(&id.as_str())));
    Ok(named)
}
