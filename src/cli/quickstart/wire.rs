//! The calls of the demonstration, each shown as it is made.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cim::Path;
use crate::client::{Client, Credentials, Object};
use crate::inventory::Machine;

use super::super::contents::{self, Contents};
use super::super::failure::Failure;
use super::super::job;
use super::super::output::{Output, count};
use super::super::remote::{COLLECTION, MACHINE, NAMESPACE, SNAPSHOT_SET, all, reference};
use super::super::{collection, snapshot};
use super::say;

/// A client that tells what it does.
pub(super) struct Wire {
    client: Client,
    output: Output,
}

impl Wire {
    pub(super) fn new(
        address: SocketAddr,
        credentials: &Credentials,
        output: Output,
    ) -> Result<Self, Failure> {
        Ok(Self {
            client: Client::new(&format!("http://{address}/wsman"), credentials)?,
            output,
        })
    }

    pub(super) fn url(&self) -> &str {
        self.client.url()
    }

    pub(super) async fn identify(&self) -> Result<(), Failure> {
        let identity = self.client.identify().await?;
        say(format_args!(
            "→ Identify\n← {} {}",
            identity.vendor, identity.version
        ))?;
        Ok(())
    }

    /// The collection of that name with these members; defined if an earlier run has not.
    pub(super) async fn collection(
        &self,
        name: &str,
        machines: &[Machine],
    ) -> Result<Path, Failure> {
        let known = all(&self.client, COLLECTION).await?;
        if let Some(found) = known.iter().find(|c| c.text("ElementName") == name) {
            let id = found.text(COLLECTION.key);
            say(format_args!(
                "→ Enumerate CIM_CollectionOfMSEs\n← collection `{name}` {id}"
            ))?;
            return Ok(reference(COLLECTION, found));
        }
        let made = collection::define(&self.client, name, false).await?;
        let id = made.text(COLLECTION.key).unwrap_or_default();
        say(format_args!(
            "→ Msvm_CollectionManagementService.DefineCollection Name={name} Type=0\n← 0, collection {id}"
        ))?;
        for machine in machines {
            let member = Path::new(NAMESPACE, MACHINE.class)
                .key("CreationClassName", MACHINE.class)
                .key("Name", machine.id.to_string().as_str());
            let arguments = [
                ("Member", member.into()),
                ("Collection", made.clone().into()),
            ];
            collection::call(&self.client, "AddMember", &arguments).await?;
            say(format_args!(
                "→ Msvm_CollectionManagementService.AddMember Member={}\n← 0",
                machine.name
            ))?;
        }
        Ok(made)
    }

    /// Takes a set, follows its job if there is one; the id of the set.
    pub(super) async fn create(&self, of: &Path, name: &str) -> Result<String, Failure> {
        let settings = snapshot::named(name);
        say(format_args!(
            "→ Msvm_CollectionSnapshotService.CreateSnapshot Collection={} SnapshotType=1 ElementName={name}",
            of.text(COLLECTION.key).unwrap_or_default()
        ))?;
        let answer = snapshot::call_create(&self.client, of.clone(), &settings, "1").await?;
        let set = answer.get("ResultingSnapshotCollection").as_reference();
        let set = set
            .and_then(|s| s.text(SNAPSHOT_SET.key))
            .unwrap_or_default();
        let value = answer.text("ReturnValue");
        let told = format!("{value}, snapshot set {set}");
        self.follow(&answer, &told).await?;
        self.show_window(set).await?;
        Ok(set.to_owned())
    }

    /// Puts the machines back to a set, follows the job if there is one.
    pub(super) async fn apply(&self, set: &str, name: &str) -> Result<(), Failure> {
        say(format_args!(
            "\n→ Msvm_CollectionSnapshotService.ApplySnapshot SnapshotCollection={set} (`{name}`)"
        ))?;
        let target = Path::new(NAMESPACE, SNAPSHOT_SET.class).key(SNAPSHOT_SET.key, set);
        let answer = snapshot::call_apply(&self.client, target).await?;
        self.follow(&answer, answer.text("ReturnValue")).await
    }

    /// Tells an answer, and its job to the end if it has one.
    async fn follow(&self, answer: &Object, told: &str) -> Result<(), Failure> {
        let Some(job) = answer.get("Job").as_reference() else {
            say(format_args!("← {told}, no job: it is done"))?;
            return Ok(());
        };
        let id = job.text("InstanceID").unwrap_or_default();
        say(format_args!("← {told}, job {id}"))?;
        let ended = job::wait_for_end(&self.client, job, &self.output).await?;
        if let Some(failure) = job::failure(&ended) {
            return Err(failure);
        }
        say(format_args!("  job {id}: {}", ended.text("JobStatus")))?;
        Ok(())
    }

    /// The captured disks of a set: machine and file.
    pub(super) async fn captured(&self, set: &str) -> Result<Vec<(String, PathBuf)>, Failure> {
        say("→ Enumerate what Msvm_CollectedSnapshots links to the set, its machines and disks")?;
        let contents = Contents::read(&self.client, set).await?;
        let mut out = Vec::new();
        for member in &contents.members {
            for disk in contents.disks(member) {
                let file = PathBuf::from(disk.text("HostResource"));
                out.push((contents.machine(member).to_owned(), file));
            }
        }
        if out.is_empty() {
            return Err(Failure::failed(format_args!(
                "snapshot set {set} holds no disk"
            )));
        }
        Ok(out)
    }

    /// From the first to the last capture of the set.
    async fn show_window(&self, set: &str) -> Result<(), Failure> {
        say("→ Enumerate what Msvm_CollectedSnapshots links to the set")?;
        let members = contents::members(&self.client, set).await?;
        let times = members
            .iter()
            .filter_map(|m| m.text("CreationTime").parse().ok());
        let times: Vec<jiff::Timestamp> = times.collect();
        if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
            let window = last.duration_since(*first).as_micros();
            say(format_args!(
                "  {} captured within {window} µs, from {first}",
                count(members.len(), "machine")
            ))?;
        }
        Ok(())
    }
}

/// Commands to paste into a shell on this host.
pub(super) fn ready_lines(address: SocketAddr, user: &str, password: &str) -> String {
    let (host, port) = (address.ip(), address.port());
    format!(
        r#"pypsrp (pip install pypsrp):
  python3 -c 'import xml.etree.ElementTree as E; from pypsrp.wsman import WSMan, NAMESPACES as N; w = WSMan("{host}", port={port}, ssl=False, auth="basic", encryption="never", username="{user}", password="{password}"); e = E.Element("{{%s}}Enumerate" % N["wsen"]); E.SubElement(e, "{{%s}}OptimizeEnumeration" % N["wsman"]); E.SubElement(e, "{{%s}}MaxElements" % N["wsman"]).text = "100"; print(E.tostring(w.enumerate("http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_SnapshotCollection", e), encoding="unicode"))'
PowerShell on Windows (plain HTTP needs AllowUnencrypted in winrm/config/client):
  $s = New-CimSession -ComputerName {host} -Port {port} -Authentication Basic -Credential {user}; Get-CimInstance -CimSession $s -Namespace root/virtualization/v2 -ClassName Msvm_SnapshotCollection
This program:
  GROUPSHOT_URL=http://{address}/wsman GROUPSHOT_USER={user} GROUPSHOT_PASSWORD={password} groupshot snapshot list"#
    )
}
