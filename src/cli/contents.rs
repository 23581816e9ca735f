//! What a snapshot set holds: its members, the names of their machines, their disks. However many members there are,
//! few questions are asked.

use std::collections::BTreeMap;

use crate::cim::Path;
use crate::client::{Client, Object};

use super::failure::Failure;
use super::remote::{MACHINE, NAMESPACE, SNAPSHOT_SET};

pub(super) const SETTINGS: &str = "Msvm_VirtualSystemSettingData";
pub(super) const DISK: &str = "Msvm_StorageAllocationSettingData";
/// Of so many members machines and disks are asked for one by one; of more it is quicker to read those of the whole
/// server.
const FEW: usize = 4;

/// The members of a set and what belongs to them.
pub(super) struct Contents {
    /// The settings that each member keeps.
    pub(super) members: Vec<Object>,
    machines: BTreeMap<String, String>,
    disks: BTreeMap<String, Vec<Object>>,
}

impl Contents {
    pub(super) async fn read(client: &Client, set: &str) -> Result<Self, Failure> {
        let members = members(client, set).await?;
        let (machines, disks) = match members.len() {
            0..=FEW => of_each(client, &members).await?,
            _ => of_all(client).await?,
        };
        let mut contents = Self {
            members,
            machines: machines.iter().map(name).collect(),
            disks: BTreeMap::new(),
        };
        for disk in disks {
            let owner = disk.text("InstanceID").split('\\').next();
            let owner = owner.unwrap_or_default().to_owned();
            contents.disks.entry(owner).or_default().push(disk);
        }
        Ok(contents)
    }

    /// The name of the machine of a member; its id where the server has no such machine any more.
    pub(super) fn machine<'a>(&'a self, member: &'a Object) -> &'a str {
        let id = member.text("VirtualSystemIdentifier");
        self.machines.get(id).map_or(id, String::as_str)
    }

    /// The disks of a member.
    pub(super) fn disks(&self, member: &Object) -> &[Object] {
        let found = self.disks.get(member.text("InstanceID"));
        found.map_or(&[], Vec::as_slice)
    }
}

/// The settings that each member of a set keeps.
pub(super) async fn members(client: &Client, set: &str) -> Result<Vec<Object>, Failure> {
    let set = Path::new(NAMESPACE, SNAPSHOT_SET.class).key(SNAPSHOT_SET.key, set);
    let members = client.linked(&set, "Msvm_CollectedSnapshots", SETTINGS);
    Ok(members.await?)
}

/// The reference to a member.
pub(super) fn member_reference(member: &Object) -> Path {
    Path::new(NAMESPACE, SETTINGS).key("InstanceID", member.text("InstanceID"))
}

/// Machines and disks of these members.
async fn of_each(
    client: &Client,
    members: &[Object],
) -> Result<(Vec<Object>, Vec<Object>), Failure> {
    let (mut machines, mut disks) = (Vec::new(), Vec::new());
    for member in members {
        let id = literal(member.text("VirtualSystemIdentifier"));
        let named = format!("{} WHERE Name = {id}", query_machines());
        machines.append(&mut client.query(NAMESPACE, &named).await?);
        let settings = member_reference(member);
        let association = "Msvm_VirtualSystemSettingDataComponent";
        disks.append(&mut client.linked(&settings, association, DISK).await?);
    }
    Ok((machines, disks))
}

/// Machines and disks of the whole server, no more of each than is shown.
async fn of_all(client: &Client) -> Result<(Vec<Object>, Vec<Object>), Failure> {
    let disks =
        format!("SELECT InstanceID, ElementName, HostResource, PoolID, Reservation FROM {DISK}");
    let machines = client.query(NAMESPACE, &query_machines()).await?;
    Ok((machines, client.query(NAMESPACE, &disks).await?))
}

pub(super) fn query_machines() -> String {
    format!("SELECT {}, ElementName FROM {}", MACHINE.key, MACHINE.class)
}

pub(super) fn name(machine: &Object) -> (String, String) {
    let text = |property| machine.text(property).to_owned();
    (text(MACHINE.key), text("ElementName"))
}

/// A text as WQL has it.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\\', r"\\").replace('\'', r"\'");
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_query_ends_where_it_ends() {
        assert_eq!(literal("a"), "'a'");
        assert_eq!(literal(r"a\' OR Name <> '"), r"'a\\\' OR Name <> \''");
    }
}
