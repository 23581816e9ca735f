//! The queries of `docs/flows.md` §6 and the acceptance list of §7, as far as no flow goes through them.

use super::cmdlets::{Cmdlets, Object};
use super::{
    GROUP, MANAGEMENT, SET, SETTINGS, SNAPSHOTS, SYSTEM, create, group_of, server, service, take,
    wait,
};

const DISK: &str = "Msvm_StorageAllocationSettingData";
const JOB: &str = "Msvm_ConcreteJob";

/// The numbers of objects that a query finds, and that they are of this class.
fn count(client: &mut Cmdlets, query: &str, class: &str) -> usize {
    let found = client.query(query);
    for object in &found {
        assert_eq!(object.class, class, "{query}");
    }
    found.len()
}

/// A text as the literal of a query.
fn literal(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[test]
fn flow_6_every_form_of_query_that_the_flows_use() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 2);
    let (job, set) = take(&mut client, &group);
    let host = service(&mut client, SNAPSHOTS).get("SystemName");
    let machine = &machines[0];
    let name = machine.get("Name");
    let title = machine.get("ElementName");
    let members = client.associated(&set, "Msvm_CollectedSnapshots", SETTINGS);
    let member = members[0].path(&host);
    let (job, machine) = (job.path(&host), machine.path(&host));
    let settings = format!("SELECT * FROM {SETTINGS} WHERE VirtualSystemIdentifier = '{name}'");
    let component = "Msvm_VirtualSystemSettingDataComponent";
    let disk =
        format!("ASSOCIATORS OF {{{member}}} WHERE ResultClass = {DISK} AssocClass = {component}");
    let file = client.query(&disk).remove(0);
    let id = literal(&file.get("InstanceID"));
    let cases: &[(String, &str, usize)] = &[
        (format!("SELECT * FROM {SYSTEM}"), SYSTEM, 5),
        (
            format!("select * from msvm_computersystem where elementname='{title}'"),
            SYSTEM,
            1,
        ),
        (
            format!("SELECT * FROM {SYSTEM} WHERE ElementName=\"{title}\""),
            SYSTEM,
            1,
        ),
        (
            format!("SELECT * FROM {SYSTEM} WHERE Caption='Virtual Machine'"),
            SYSTEM,
            4,
        ),
        (
            format!("SELECT * FROM {SYSTEM} WHERE Name<>'{name}' AND Caption!='Virtual Machine'"),
            SYSTEM,
            1,
        ),
        (
            format!("SELECT * FROM {SYSTEM} WHERE EnabledState='3' OR EnabledState=2"),
            SYSTEM,
            5,
        ),
        // The machine's own settings and its snapshot, told apart by a boolean that is written as text.
        (settings.clone(), SETTINGS, 2),
        (format!("{settings} And IsSaved='False'"), SETTINGS, 2),
        (format!("{settings} And IsSaved='True'"), SETTINGS, 0),
        (
            format!(
                "SELECT * FROM CIM_VirtualSystemSettingData WHERE VirtualSystemIdentifier='{name}'"
            ),
            SETTINGS,
            2,
        ),
        (
            format!("SELECT * FROM {DISK} WHERE InstanceID='{id}'"),
            DISK,
            1,
        ),
        (
            format!("SELECT * FROM CIM_ResourceAllocationSettingData WHERE InstanceID='{id}'"),
            DISK,
            1,
        ),
        (
            format!(
                "SELECT * FROM {DISK} WHERE __PATH = '{}'",
                literal(&file.path(&host))
            ),
            DISK,
            1,
        ),
        (disk, DISK, 1),
        (
            format!(
                "associators of {{{machine}}} where resultclass = {SETTINGS} assocclass = Msvm_SnapshotOfVirtualSystem"
            ),
            SETTINGS,
            1,
        ),
        (
            format!(
                "ASSOCIATORS OF {{{machine}}} WHERE AssocClass = Msvm_MostCurrentSnapshotInBranch Role = Antecedent ResultRole = Dependent"
            ),
            SETTINGS,
            1,
        ),
        (
            format!(
                "ASSOCIATORS OF {{{machine}}} WHERE AssocClass = Msvm_MostCurrentSnapshotInBranch Role = Dependent"
            ),
            SETTINGS,
            0,
        ),
        (
            format!("ASSOCIATORS OF {{{job}}} WHERE ResultClass = {SET}"),
            SET,
            1,
        ),
        (
            format!("ASSOCIATORS OF {{{job}}} WHERE ResultClass = {SETTINGS}"),
            SETTINGS,
            0,
        ),
        (
            format!("REFERENCES OF {{{machine}}} WHERE ResultClass = Msvm_AffectedJobElement"),
            "Msvm_AffectedJobElement",
            1,
        ),
        (
            format!(
                "SELECT * FROM Msvm_AffectedJobElement WHERE AffectedElement = '{}'",
                literal(&machine)
            ),
            "Msvm_AffectedJobElement",
            1,
        ),
        (
            format!("SELECT * FROM {GROUP} WHERE ElementName = 'web'"),
            GROUP,
            1,
        ),
        (
            format!("SELECT * FROM {JOB} WHERE JobState = 7 AND JobType = '198'"),
            JOB,
            1,
        ),
    ];
    for (query, class, wanted) in cases {
        assert_eq!(count(&mut client, query, class), *wanted, "{query}");
    }
    // A projection has the properties that were named and no others.
    let named = client.query(&format!(
        "SELECT Name, ElementName FROM {SYSTEM} WHERE Name = '{name}'"
    ));
    assert_eq!(named.len(), 1);
    assert_eq!(
        (named[0].get("Name"), named[0].get("ElementName")),
        (name, title)
    );
    assert!(!named[0].text.contains("Caption"));
}

#[test]
fn flow_7_3_everything_agrees_the_moment_the_job_reads_7() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 3);
    for round in 1..=3 {
        let (_, set) = take(&mut client, &group);
        let id = |o: &Object| o.get("InstanceID");
        let mut members: Vec<_> = client
            .associated(&set, "Msvm_CollectedSnapshots", SETTINGS)
            .iter()
            .map(id)
            .collect();
        let mut linked = Vec::new();
        for machine in &machines {
            let all = client.associated(machine, "Msvm_SnapshotOfVirtualSystem", SETTINGS);
            assert_eq!(all.len(), round);
            let now = client.associated(machine, "Msvm_MostCurrentSnapshotInBranch", SETTINGS);
            linked.extend(now.iter().map(id));
        }
        members.sort();
        linked.sort();
        assert_eq!(members, linked);
        let plain: Vec<_> = client.instances(SETTINGS).iter().map(id).collect();
        assert!(members.iter().all(|m| plain.contains(m)));
        assert_eq!(client.instances(SET).len(), round);
    }
}

#[test]
fn flow_7_5_settings_in_every_form_that_clients_write() {
    let server = server();
    let mut client = Cmdlets::new(&server, true);
    let (group, _) = group_of(&mut client, "web", 1);
    let class = "Msvm_VirtualSystemSnapshotSettingData";
    let property = "<PROPERTY NAME=\"ConsistencyLevel\" TYPE=\"uint8\"><VALUE>2</VALUE></PROPERTY>";
    let plain = format!("<INSTANCE CLASSNAME=\"{class}\">{property}</INSTANCE>");
    let modified = property.replace("NAME=", "MODIFIED=\"TRUE\" NAME=");
    let of_mi = format!("<INSTANCE CLASSNAME=\"{class}\">{modified}</INSTANCE>");
    let of_wmi = format!(
        "\u{FEFF}<?xml version=\"1.0\"?>\r\n<INSTANCE CLASSNAME=\"{class}\">\
         <QUALIFIER NAME=\"dynamic\" TYPE=\"boolean\"><VALUE>TRUE</VALUE></QUALIFIER>\
         <PROPERTY NAME=\"__PATH\" CLASSORIGIN=\"___SYSTEM\" TYPE=\"string\"><VALUE>x</VALUE></PROPERTY>\
         <PROPERTY NAME=\"ConsistencyLevel\" CLASSORIGIN=\"{class}\" TYPE=\"sint32\"><VALUE>2</VALUE></PROPERTY>\
         <PROPERTY NAME=\"Caption\" PROPAGATED=\"true\" CLASSORIGIN=\"CIM_ManagedElement\" TYPE=\"string\"/>\
         </INSTANCE>"
    );
    let wrapped = format!(
        "<DECLARATIONS><DECLGROUP><VALUE.OBJECT>{plain}</VALUE.OBJECT></DECLGROUP></DECLARATIONS>"
    );
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        format!("<p:SnapshotSettings>{text}</p:SnapshotSettings>")
    };
    let forms = [
        String::new(),
        "<p:SnapshotSettings xsi:nil=\"true\"/>".to_owned(),
        "<p:SnapshotSettings/>".to_owned(),
        escaped(&plain),
        escaped(&of_mi),
        escaped(&of_wmi),
        escaped(&wrapped),
        "<p:SnapshotSettings xsi:nil=\"true\"/><p:ResultingSnapshotCollection xsi:nil=\"true\"/>"
            .to_owned(),
    ];
    for form in forms {
        let started = create(&mut client, &group, &form, 2);
        assert_eq!(started.get("ReturnValue"), "4096", "{form}");
        let job = wait(&mut client, &started.reference("Job", "InstanceID"));
        assert_eq!(job.get("JobState"), "7", "{form}: {}", job.text);
    }
}

#[test]
fn flow_7_6_a_group_is_named_by_references_and_paths_in_every_form() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, _) = group_of(&mut client, "web", 1);
    let snapshots = service(&mut client, SNAPSHOTS);
    let host = snapshots.get("SystemName");
    let id = group.get("CollectionID");
    let keys = format!("{GROUP}.CollectionID=\"{id}\"");
    let of_wmi = format!(
        "<a:EndpointReference>{}</a:EndpointReference>",
        group.epr().replace(
            "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/",
            "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/"
        )
    );
    let forms = [
        group.epr(),
        of_wmi,
        format!("\\\\{host}\\root\\virtualization\\v2:{keys}"),
        format!(
            "\\\\{}\\ROOT\\virtualization\\v2:{keys}",
            host.to_lowercase()
        ),
        format!("\\\\.\\root\\virtualization\\v2:{keys}"),
        format!("//{host}/root/virtualization/v2:{keys}"),
        format!("root\\virtualization\\v2:{keys}"),
        format!("root/virtualization/v2:{keys}"),
        keys.clone(),
        keys.to_lowercase(),
        format!("CIM_CollectionOfMSEs.CollectionID=\"{id}\""),
    ];
    for form in forms {
        let arguments =
            format!("<p:Collection>{form}</p:Collection><p:SnapshotType>2</p:SnapshotType>");
        let started = client.invoke(&snapshots, "CreateSnapshot", &arguments);
        assert_eq!(started.get("ReturnValue"), "4096", "{form}");
        let job = wait(&mut client, &started.reference("Job", "InstanceID"));
        assert_eq!(job.get("JobState"), "7", "{form}: {}", job.text);
    }
}

#[test]
fn flow_7_8_every_service_is_one_instance_and_runs() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    for class in [SNAPSHOTS, MANAGEMENT, "Msvm_VirtualSystemSnapshotService"] {
        service(&mut client, class);
        let query = format!("SELECT * FROM {class}");
        assert_eq!(count(&mut client, &query, class), 1);
    }
}

#[test]
fn flow_7_9_class_declarations_tell_codes_and_keys() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let snapshots = client.class(SNAPSHOTS);
    let method = snapshots
        .split("<METHOD NAME=\"CreateSnapshot\"")
        .nth(1)
        .unwrap();
    let method = method.split("</METHOD>").next().unwrap();
    // The code of a refusal has its words (flow 1, step 4); parameters say which way they go.
    for part in [
        "<QUALIFIER NAME=\"ValueMap\"",
        "<QUALIFIER NAME=\"Values\"",
        "<VALUE>4096</VALUE>",
        "<QUALIFIER NAME=\"IN\"",
        "<QUALIFIER NAME=\"OUT\"",
    ] {
        assert!(method.contains(part), "{part} in {method}");
    }
    for (class, key) in [
        (GROUP, "CollectionID"),
        (JOB, "InstanceID"),
        (SYSTEM, "Name"),
    ] {
        let class = client.class(class);
        let found = class
            .split(&format!("<PROPERTY NAME=\"{key}\""))
            .nth(1)
            .unwrap();
        let found = found.split("</PROPERTY>").next().unwrap();
        assert!(
            found.to_lowercase().contains("<qualifier name=\"key\""),
            "{found}"
        );
    }
}
