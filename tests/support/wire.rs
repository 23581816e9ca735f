//! Calls over WS-Management that wait for their answer, and what a server shows, as plain records.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Path, Value};
use groupshot::client::{Client, Credentials, Error, Object};

use super::server::{PASSWORD, Server, USER};

/// CreateSnapshot's return value for "job started".
pub(crate) const STARTED: u64 = 4096;
/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client of one server.
pub(crate) struct Wire {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// What a method that starts a job answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) value: u64,
    pub(crate) job: Option<String>,
    pub(crate) set: Option<String>,
}

/// A job as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) state: u64,
    pub(crate) percent: u64,
    pub(crate) status: String,
    pub(crate) code: u64,
    pub(crate) error: String,
}

/// A snapshot set as a client sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) members: Vec<Member>,
}

impl Set {
    /// Was a file of it changed by somebody else, as far as the server has looked?
    pub(crate) fn is_damaged(&self) -> bool {
        let mut notes = self.members.iter().flat_map(|m| &m.notes);
        notes.any(|n| n.starts_with("damaged: "))
    }
}

/// A snapshot of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// InstanceID of its settings.
    pub(crate) id: String,
    pub(crate) machine: String,
    pub(crate) definition: PathBuf,
    pub(crate) notes: Vec<String>,
    /// File of each captured disk, by disk id.
    pub(crate) disks: BTreeMap<String, PathBuf>,
}

/// Everything that the tests look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Name and members by CollectionID.
    pub(crate) collections: BTreeMap<String, (String, Vec<String>)>,
    pub(crate) sets: BTreeMap<String, Set>,
    pub(crate) jobs: BTreeMap<String, Job>,
    /// Active file of each disk, by machine and disk id.
    pub(crate) tops: BTreeMap<(String, String), PathBuf>,
}

impl Wire {
    pub(crate) fn new(server: &Server) -> Self {
        let credentials = Credentials {
            user: USER.into(),
            password: PASSWORD.into(),
        };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            client: Client::new(&server.url(), &credentials).unwrap(),
        }
    }

    fn get(&self, target: &Path) -> Result<Object, Error> {
        self.runtime.block_on(self.client.get(target))
    }

    fn all(&self, class: &str) -> Result<Vec<Object>, Error> {
        self.runtime
            .block_on(self.client.enumerate(VIRTUALIZATION_V2, class))
    }

    fn invoke(
        &self,
        target: &Path,
        method: &str,
        arguments: &[(&str, Value)],
    ) -> Result<Object, Error> {
        self.runtime
            .block_on(self.client.invoke(target, method, arguments))
    }

    /// How many instances a class has.
    pub(crate) fn count(&self, class: &str) -> usize {
        let all = self.all(class);
        all.unwrap_or_else(|e| panic!("{class}: {e}")).len()
    }

    /// A group of these machines; its CollectionID.
    pub(crate) fn define(&self, name: &str, machines: &[&str]) -> Result<String, Error> {
        let service = object("Msvm_CollectionManagementService");
        let arguments = [("Name", name.into()), ("Type", "0".into())];
        let answer = self.invoke(&service, "DefineCollection", &arguments)?;
        assert_eq!(answer.number("ReturnValue"), Some(0), "{answer:?}");
        let group = answer
            .get("DefinedCollection")
            .as_reference()
            .unwrap()
            .clone();
        let id = group.text("CollectionID").unwrap().to_owned();
        for machine in machines {
            let answer = self.add_member(&id, machine)?;
            assert_eq!(answer.number("ReturnValue"), Some(0), "{answer:?}");
        }
        Ok(id)
    }

    /// Puts a machine into a group as soon as the server has seen that it was imported.
    pub(crate) fn add(&self, group: &str, machine: &str) {
        let began = Instant::now();
        loop {
            let answer = self.add_member(group, machine).unwrap();
            if answer.number("ReturnValue") == Some(0) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{answer:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn add_member(&self, group: &str, machine: &str) -> Result<Object, Error> {
        let member = object("Msvm_ComputerSystem")
            .key("CreationClassName", "Msvm_ComputerSystem")
            .key("Name", machine);
        let group = object("Msvm_VirtualSystemCollection").key("CollectionID", group);
        let arguments = [("Member", member.into()), ("Collection", group.into())];
        let service = object("Msvm_CollectionManagementService");
        self.invoke(&service, "AddMember", &arguments)
    }

    /// CreateSnapshot of a group with default settings but for the name.
    pub(crate) fn create(&self, group: &str, name: &str) -> Result<Created, Error> {
        self.create_with(group, &[("ElementName", name)])
    }

    /// CreateSnapshot of a group with these settings.
    pub(crate) fn create_with(
        &self,
        group: &str,
        settings: &[(&str, &str)],
    ) -> Result<Created, Error> {
        let settings: String = settings
            .iter()
            .map(|(name, value)| {
                format!(
                    "<PROPERTY NAME=\"{name}\" TYPE=\"string\"><VALUE>{value}</VALUE></PROPERTY>"
                )
            })
            .collect();
        let settings = format!(
            "<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\">{settings}</INSTANCE>"
        );
        let group = object("Msvm_VirtualSystemCollection").key("CollectionID", group);
        let arguments = [
            ("Collection", group.into()),
            ("SnapshotSettings", Value::String(settings)),
            ("SnapshotType", "1".into()),
        ];
        let service = object("Msvm_CollectionSnapshotService");
        let answer = self.invoke(&service, "CreateSnapshot", &arguments)?;
        Ok(created(&answer))
    }

    /// ApplySnapshot of a set.
    pub(crate) fn apply(&self, set: &str) -> Result<Created, Error> {
        self.on_set("ApplySnapshot", "SnapshotCollection", set)
    }

    /// DestroySnapshot of a set.
    pub(crate) fn destroy(&self, set: &str) -> Result<Created, Error> {
        self.on_set("DestroySnapshot", "AffectedSnapshotCollection", set)
    }

    /// ApplySnapshot of one machine's snapshot in a set.
    pub(crate) fn apply_member(&self, set: &str, machine: &str) -> Result<Created, Error> {
        self.on_member("ApplySnapshot", "Snapshot", set, machine)
    }

    /// DestroySnapshot of one machine's snapshot in a set.
    pub(crate) fn destroy_member(&self, set: &str, machine: &str) -> Result<Created, Error> {
        self.on_member("DestroySnapshot", "AffectedSnapshot", set, machine)
    }

    fn on_member(
        &self,
        method: &str,
        parameter: &str,
        set: &str,
        machine: &str,
    ) -> Result<Created, Error> {
        let shown = self.shown()?;
        let mut members = shown.sets[set].members.iter();
        let member = members.find(|m| m.machine == machine).unwrap();
        let snapshot =
            object("Msvm_VirtualSystemSettingData").key("InstanceID", member.id.as_str());
        let service = object("Msvm_VirtualSystemSnapshotService");
        let answer = self.invoke(&service, method, &[(parameter, snapshot.into())])?;
        Ok(created(&answer))
    }

    fn on_set(&self, method: &str, parameter: &str, set: &str) -> Result<Created, Error> {
        let service = object("Msvm_CollectionSnapshotService");
        let set = object("Msvm_SnapshotCollection").key("CollectionID", set);
        let answer = self.invoke(&service, method, &[(parameter, set.into())])?;
        Ok(created(&answer))
    }

    /// ExportSnapshot of a set.
    pub(crate) fn export(
        &self,
        set: &str,
        directory: &str,
        settings: Option<&str>,
    ) -> Result<Created, Error> {
        let set = object("Msvm_SnapshotCollection").key("CollectionID", set);
        let mut arguments = vec![
            ("SnapshotCollection", set.into()),
            ("ExportDirectory", Value::from(directory)),
        ];
        arguments.extend(settings.map(|text| ("ExportSettingData", Value::from(text))));
        let service = object("Msvm_CollectionSnapshotService");
        let answer = self.invoke(&service, "ExportSnapshot", &arguments)?;
        let job = answer.get("Job").as_reference();
        Ok(Created {
            value: answer.number("ReturnValue").unwrap(),
            job: job.and_then(|j| j.text("InstanceID")).map(str::to_owned),
            set: None,
        })
    }

    /// Asks a job to end.
    pub(crate) fn cancel(&self, job: &str) -> u64 {
        let job = object("Msvm_ConcreteJob").key("InstanceID", job);
        let arguments = [("RequestedState", Value::from("4"))];
        let answer = self.invoke(&job, "RequestStateChange", &arguments);
        answer.unwrap().number("ReturnValue").unwrap()
    }

    /// What a job affects: class and key of each.
    pub(crate) fn affected(&self, job: &str) -> Vec<(String, String)> {
        let links = self.all("Msvm_AffectedJobElement").unwrap();
        let of_job = links.iter().filter(|l| {
            let element = l.get("AffectingElement").as_reference();
            element.and_then(|e| e.text("InstanceID")) == Some(job)
        });
        let element = |l: &Object| {
            let element = l.get("AffectedElement").as_reference().unwrap();
            let keys = ["CollectionID", "Name"].map(|k| element.text(k));
            let key = keys.into_iter().flatten().next().unwrap();
            (element.class.to_string(), key.to_owned())
        };
        of_job.map(element).collect()
    }

    /// First status and health of a machine.
    pub(crate) fn health(&self, machine: &str) -> (u64, u64) {
        let system = object("Msvm_ComputerSystem")
            .key("CreationClassName", "Msvm_ComputerSystem")
            .key("Name", machine);
        let system = self.get(&system).unwrap();
        ["OperationalStatus", "HealthState"]
            .map(|name| system.number(name).unwrap())
            .into()
    }

    /// EnabledState and first status of a machine, with its words.
    pub(crate) fn state(&self, machine: &str) -> (u64, u64, String) {
        let system = object("Msvm_ComputerSystem")
            .key("CreationClassName", "Msvm_ComputerSystem")
            .key("Name", machine);
        let system = self.get(&system).unwrap();
        let number = |name| system.number(name).unwrap();
        let words = format!("{:?}", system.get("StatusDescriptions"));
        (number("EnabledState"), number("OperationalStatus"), words)
    }

    /// The job now.
    pub(crate) fn job(&self, id: &str) -> Result<Job, Error> {
        let job = object("Msvm_ConcreteJob").key("InstanceID", id);
        Ok(read_job(&self.get(&job)?))
    }

    /// Waits for the job to come so far.
    pub(crate) fn until(&self, id: &str, far: impl Fn(&Job) -> bool) -> Result<Job, Error> {
        let began = Instant::now();
        loop {
            let job = self.job(id)?;
            if far(&job) {
                return Ok(job);
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the job does not come so far: {job:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The job when it has ended.
    pub(crate) fn end(&self, id: &str) -> Result<Job, Error> {
        self.until(id, |job| job.state > 6)
    }

    /// A set that is taken and completed: its id.
    pub(crate) fn take(&self, group: &str, name: &str) -> String {
        let created = self.create(group, name).unwrap();
        assert_eq!(created.value, STARTED, "{}", self.why(&created));
        let job = self.end(&created.job.unwrap()).unwrap();
        assert_eq!((job.state, job.code, job.percent), (7, 0, 100), "{job:?}");
        created.set.unwrap()
    }

    /// The text behind a return value that is no success.
    pub(crate) fn why(&self, created: &Created) -> String {
        let job = created.job.as_deref().map(|id| self.job(id).unwrap());
        job.map(|j| j.error).unwrap_or_default()
    }

    /// Everything there is.
    pub(crate) fn shown(&self) -> Result<Shown, Error> {
        let mut shown = Shown::default();
        for group in self.all("Msvm_VirtualSystemCollection")? {
            let (id, name) = (group.text("CollectionID"), group.text("ElementName"));
            shown
                .collections
                .insert(id.into(), (name.into(), Vec::new()));
        }
        for link in self.all("Msvm_CollectedVirtualSystems")? {
            let group = shown
                .collections
                .get_mut(&end(&link, "Collection", "CollectionID"));
            group.unwrap().1.push(end(&link, "Member", "Name"));
        }
        for set in self.all("Msvm_SnapshotCollection")? {
            let name = set.text("ElementName").to_owned();
            let members = Vec::new();
            shown
                .sets
                .insert(set.text("CollectionID").into(), Set { name, members });
        }
        let disks = self.disks(&mut shown)?;
        let mut settings = BTreeMap::new();
        for one in self.all("Msvm_VirtualSystemSettingData")? {
            settings.insert(one.text("InstanceID").to_owned(), one);
        }
        for link in self.all("Msvm_CollectedSnapshots")? {
            let set = shown
                .sets
                .get_mut(&end(&link, "Collection", "CollectionID"));
            let id = end(&link, "Member", "InstanceID");
            let root = PathBuf::from(settings[&id].text("ConfigurationDataRoot"));
            let notes = settings[&id].all("Notes");
            set.unwrap().members.push(Member {
                id: id.clone(),
                machine: settings[&id].text("VirtualSystemIdentifier").to_owned(),
                definition: root.join(settings[&id].text("ConfigurationFile")),
                notes: notes
                    .filter_map(|n| n.as_str().map(str::to_owned))
                    .collect(),
                disks: disks.get(&id).cloned().unwrap_or_default(),
            });
        }
        for job in self.all("Msvm_ConcreteJob")? {
            let job = read_job(&job);
            shown.jobs.insert(job.id.clone(), job);
        }
        Ok(shown)
    }

    /// Disk files by the id of the settings that own them; those of machines become `tops`.
    fn disks(
        &self,
        shown: &mut Shown,
    ) -> Result<BTreeMap<String, BTreeMap<String, PathBuf>>, Error> {
        let mut owned: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
        for disk in self.all("Msvm_StorageAllocationSettingData")? {
            let mut parts = disk.text("InstanceID").split('\\');
            let (owner, id) = (parts.next().unwrap(), parts.next().unwrap().to_owned());
            let file = PathBuf::from(disk.text("HostResource"));
            owned.entry(owner.into()).or_default().insert(id, file);
        }
        for machine in self.all("Msvm_ComputerSystem")? {
            let machine = machine.text("Name").to_owned();
            for (disk, file) in owned
                .get(&format!("Microsoft:{machine}"))
                .into_iter()
                .flatten()
            {
                shown
                    .tops
                    .insert((machine.clone(), disk.clone()), file.clone());
            }
        }
        Ok(owned)
    }
}

fn created(answer: &Object) -> Created {
    let key = |parameter: &str, key: &str| {
        let reference = answer.get(parameter).as_reference();
        reference.and_then(|r| r.text(key)).map(str::to_owned)
    };
    Created {
        value: answer.number("ReturnValue").unwrap(),
        job: key("Job", "InstanceID"),
        set: key("ResultingSnapshotCollection", "CollectionID"),
    }
}

fn object(class: &str) -> Path {
    Path::new(VIRTUALIZATION_V2, class)
}

fn end(link: &Object, role: &str, key: &str) -> String {
    link.get(role)
        .as_reference()
        .unwrap()
        .text(key)
        .unwrap()
        .to_owned()
}

fn read_job(job: &Object) -> Job {
    let number = |name| job.number(name).unwrap_or_default();
    Job {
        id: job.text("InstanceID").to_owned(),
        state: number("JobState"),
        percent: number("PercentComplete"),
        status: job.text("JobStatus").to_owned(),
        code: number("ErrorCode"),
        error: job.text("ErrorDescription").to_owned(),
    }
}
