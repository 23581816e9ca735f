//! The calls of the `winrm` command: WMI URIs without a namespace selector, no options, small pages.

use std::fmt::Write as _;

use groupshot::xml;

use super::cmdlets::{Object, payload, visit};
use super::{GROUP, MANAGEMENT, SETTINGS, SNAPSHOTS, SYSTEM, server};
use crate::support::http::Connection;
use crate::support::server::{PASSWORD, Server, USER};

const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// Keys of an object.
type Keys<'a> = &'a [(&'a str, &'a str)];

struct Winrm(Connection);

impl Winrm {
    fn new(server: &Server) -> Self {
        Self(Connection::open(server.address))
    }

    /// `winrm get URI?key=value`
    fn get(&mut self, class: &str, keys: Keys<'_>) -> Object {
        payload(&self.send(&format!("{TRANSFER}/Get"), class, keys, ""))
    }

    /// `winrm invoke METHOD URI @{…}`, or with an input file, which may hold references
    fn invoke(&mut self, class: &str, method: &str, arguments: &str) -> Object {
        let uri = format!("{WMI}{class}");
        let body = format!("<p:{method}_INPUT xmlns:p=\"{uri}\">{arguments}</p:{method}_INPUT>");
        payload(&self.send(&format!("{uri}/{method}"), class, &[], &body))
    }

    /// `winrm enumerate URI` with what an option adds; the items of all pages
    fn enumerate(&mut self, class: &str, option: &str) -> Vec<String> {
        let body = format!(
            "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>2</w:MaxElements>{option}</n:Enumerate>"
        );
        let mut reply = self.send(&format!("{ENUMERATION}/Enumerate"), class, &[], &body);
        let mut found = items(&reply);
        while let Some(context) = super::cmdlets::context(&reply) {
            let body = format!(
                "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>\
                 <n:MaxElements>2</n:MaxElements></n:Pull>"
            );
            reply = self.send(&format!("{ENUMERATION}/Pull"), class, &[], &body);
            found.extend(items(&reply));
        }
        found
    }

    fn send(&mut self, action: &str, class: &str, keys: Keys<'_>, body: &str) -> String {
        let keys = match selectors(keys) {
            none if none.is_empty() => none,
            some => format!("<w:SelectorSet>{some}</w:SelectorSet>"),
        };
        let envelope = format!(
            "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
             xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
             xmlns:n=\"{ENUMERATION}\" xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
             xmlns:p=\"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd\" \
             xmlns:b=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd\"><s:Header>\
             <a:To>http://hv1:5985/wsman</a:To>\
             <w:ResourceURI s:mustUnderstand=\"true\">{WMI}{class}</w:ResourceURI>\
             <a:ReplyTo><a:Address s:mustUnderstand=\"true\">{ANONYMOUS}</a:Address></a:ReplyTo>\
             <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
             <w:MaxEnvelopeSize s:mustUnderstand=\"true\">153600</w:MaxEnvelopeSize>\
             <a:MessageID>uuid:33333333-0000-4000-8000-000000000001</a:MessageID>\
             <w:Locale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>\
             <p:DataLocale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>\
             <p:SessionId s:mustUnderstand=\"false\">uuid:44444444-0000-4000-8000-000000000001</p:SessionId>\
             <p:OperationID s:mustUnderstand=\"false\">uuid:55555555-0000-4000-8000-000000000001</p:OperationID>\
             <p:SequenceId s:mustUnderstand=\"false\">1</p:SequenceId>\
             <w:OperationTimeout>PT60.000S</w:OperationTimeout>{keys}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
        );
        let reply = self.0.post(USER, PASSWORD, envelope.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text()
    }
}

fn selectors(keys: Keys<'_>) -> String {
    let mut out = String::new();
    for (name, value) in keys {
        write!(out, "<w:Selector Name=\"{name}\">{value}</w:Selector>").unwrap();
    }
    out
}

/// A reference as it stands in an input file.
fn reference(class: &str, keys: Keys<'_>) -> String {
    format!(
        "<a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters><w:ResourceURI>{WMI}{class}</w:ResourceURI>\
         <w:SelectorSet>{}</w:SelectorSet></a:ReferenceParameters>",
        selectors(keys)
    )
}

/// What stands in the items of an answer, each as markup.
fn items(envelope: &str) -> Vec<String> {
    let document = xml::parse(envelope).unwrap();
    let mut found = Vec::new();
    visit(document.root(), &mut |e| {
        if e.local() == "Items" {
            for item in e.children() {
                let mut w = xml::Writer::new();
                assert!(w.copy(item, usize::MAX));
                found.push(w.into_string());
            }
        }
    });
    found
}

#[test]
fn winrm_gets_enumerates_in_every_shape_and_invokes() {
    let server = server();
    let mut winrm = Winrm::new(&server);
    // The only instance needs no keys; what it is called with can be given.
    let service = winrm.get(SNAPSHOTS, &[]);
    assert_eq!(service.get("Started"), "true");
    let name = service.get("Name");
    let host = service.get("SystemName");
    let keys = [
        ("CreationClassName", SNAPSHOTS),
        ("Name", &name),
        ("SystemCreationClassName", SYSTEM),
        ("SystemName", &host),
    ];
    assert_eq!(winrm.get(SNAPSHOTS, &keys).text, service.text);

    let machines = winrm.enumerate(SYSTEM, "");
    assert_eq!(machines.len(), 5);
    let eprs = "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>";
    for epr in winrm.enumerate(SYSTEM, eprs) {
        assert!(epr.contains(&format!("{WMI}{SYSTEM}<")), "{epr}");
        assert!(!epr.contains("__cimnamespace"), "{epr}");
    }
    // -shallow: nothing is of the superclass itself. -basepropertiesonly: all of it as the superclass.
    let shallow = "<b:PolymorphismMode>None</b:PolymorphismMode>";
    assert!(winrm.enumerate("CIM_ComputerSystem", shallow).is_empty());
    let base = "<b:PolymorphismMode>ExcludeSubClassProperties</b:PolymorphismMode>";
    let as_base = winrm.enumerate("CIM_ComputerSystem", base);
    assert_eq!(as_base.len(), 5);
    assert!(as_base.iter().all(|i| i.contains(":CIM_ComputerSystem ")));

    let made = winrm.invoke(
        MANAGEMENT,
        "DefineCollection",
        "<p:Name>by winrm</p:Name><p:Type>0</p:Type>",
    );
    assert_eq!(made.get("ReturnValue"), "0");
    let id = made.reference("DefinedCollection", "CollectionID");
    let group = reference(GROUP, &[("CollectionID", &id)]);
    let machine = winrm.enumerate(
        SYSTEM,
        "<w:Filter Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">\
         SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'sim-000001'</w:Filter>",
    );
    let machine = payload(&format!("<e><Body>{}</Body></e>", machine[0])).get("Name");
    let machine = [("CreationClassName", SYSTEM), ("Name", machine.as_str())];
    let arguments = format!(
        "<p:Member>{}</p:Member><p:Collection>{group}</p:Collection>",
        reference(SYSTEM, &machine)
    );
    let added = winrm.invoke(MANAGEMENT, "AddMember", &arguments);
    assert_eq!(added.get("ReturnValue"), "0");
    let arguments =
        format!("<p:Collection>{group}</p:Collection><p:SnapshotType>2</p:SnapshotType>");
    let started = winrm.invoke(SNAPSHOTS, "CreateSnapshot", &arguments);
    assert_eq!(started.get("ReturnValue"), "4096");
    let job = started.reference("Job", "InstanceID");
    super::until(|| {
        let state = winrm
            .get("Msvm_ConcreteJob", &[("InstanceID", &job)])
            .get("JobState");
        assert!(["4", "7"].contains(&state.as_str()), "{state}");
        state == "7"
    });
    assert_eq!(winrm.enumerate(SETTINGS, "").len(), 5);
}
