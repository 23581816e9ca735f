//! Queries in every dialect and both URI families: rules E-33, E-40, E-41, E-43 and E-44.

use groupshot::wscim::Family;

use super::ask::{Ask, class_uri, enumeration};
use super::book::Book;
use super::world::{COLLECTION, FAMILIES, Options, Reply, World, machine};

const ALL: &str = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>";
const EPRS: &str = "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>";
const BOTH: &str = "<w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode>";
const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
const WQL_DMTF: &str = "http://schemas.dmtf.org/wbem/wsman/1/WQL";
const CQL: &str = "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf";
const XPATH: &str = "http://www.w3.org/TR/1999/REC-xpath-19991116";
const SELECTORS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter";

/// An Enumerate of all classes with this filter.
fn on_all(family: Family, wish: &str, dialect: &str, filter: &str) -> Ask {
    let resource = match family {
        Family::Dmtf => "http://schemas.dmtf.org/wbem/wscim/1/*".to_owned(),
        Family::Wmi => class_uri(family, "*"),
    };
    let filter = format!("<w:Filter Dialect=\"{dialect}\">{filter}</w:Filter>");
    Ask::on(&enumeration("Enumerate"), &resource)
        .body(&format!("<n:Enumerate>{wish}{filter}</n:Enumerate>"))
}

fn on_class(family: Family, class: &str, dialect: &str, filter: &str) -> Ask {
    let filter = format!("{ALL}<w:Filter Dialect=\"{dialect}\">{filter}</w:Filter>");
    Ask::enumerate(family, class, &filter)
}

fn one_selector(name: &str, value: &str) -> String {
    format!("<w:SelectorSet><w:Selector Name=\"{name}\">{value}</w:Selector></w:SelectorSet>")
}

fn answers(family: Family) -> Vec<(&'static str, Ask)> {
    let wql = |wish: &str, text: &str| on_all(family, &format!("{ALL}{wish}"), WQL, text);
    let by_name = format!(
        "select * from Msvm_ComputerSystem where Name='{}'",
        machine(1)
    );
    let settings = format!(
        "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier='{}' And IsSaved='False'",
        machine(2)
    );
    let members = format!(
        "select * from Msvm_CollectedVirtualSystems where Collection = \
         '\\\\\\\\.\\\\root\\\\virtualization\\\\v2:Msvm_VirtualSystemCollection.CollectionID=\"{COLLECTION}\"'"
    );
    let columns = "SELECT Name, OperationalStatus, InstallDate, Description, __CLASS \
                   FROM CIM_ComputerSystem WHERE Caption='Virtual Machine'";
    let group = format!("{{Msvm_VirtualSystemCollection.CollectionID=\"{COLLECTION}\"}}");
    vec![
        ("by-key", wql("", &by_name)),
        (
            "by-element-name",
            wql(
                EPRS,
                "SELECT * FROM CIM_ComputerSystem WHERE ElementName = 'SIM-000002'",
            ),
        ),
        ("settings-of-a-machine", wql(EPRS, &settings)),
        ("by-key-eprs", wql(EPRS, &by_name)),
        ("by-key-both", wql(BOTH, &by_name)),
        (
            "of-nothing",
            wql("", "SELECT * FROM Msvm_SnapshotCollection"),
        ),
        (
            "superclass",
            wql(
                "",
                "SELECT * FROM CIM_CollectionOfMSEs WHERE __CLASS LIKE '%Collection'",
            ),
        ),
        ("columns", wql("", columns)),
        ("columns-eprs", wql(EPRS, columns)),
        ("columns-both", wql(BOTH, columns)),
        (
            "columns-of-an-association",
            wql("", &members.replace('*', "Member")),
        ),
        ("by-reference", wql(EPRS, &members)),
        (
            "dmtf-dialect-first-page",
            on_all(family, "<w:OptimizeEnumeration/>", WQL_DMTF, columns),
        ),
        (
            "associators",
            wql(
                EPRS,
                &format!("associators of {group} where ResultClass = CIM_ComputerSystem"),
            ),
        ),
        (
            "associators-keys-only",
            wql(
                "",
                &format!(
                    "ASSOCIATORS OF {group} WHERE AssocClass=Msvm_CollectedVirtualSystems Role=Collection ResultRole=Member KeysOnly"
                ),
            ),
        ),
        (
            "references",
            wql(
                EPRS,
                &format!("REFERENCES OF {group} WHERE ResultClass = Msvm_CollectedVirtualSystems"),
            ),
        ),
        (
            "on-its-class",
            on_class(family, "Msvm_ComputerSystem", WQL, &by_name),
        ),
        (
            "cql",
            on_all(
                family,
                ALL,
                CQL,
                "SELECT c.Name FROM Msvm_ComputerSystem AS c WHERE c.EnabledState &gt;= 2",
            ),
        ),
        (
            "selectors",
            on_class(
                family,
                "Msvm_ComputerSystem",
                SELECTORS,
                &one_selector("Caption", "Hosting Computer System"),
            ),
        ),
        (
            "xpath",
            on_class(
                family,
                "CIM_ComputerSystem",
                XPATH,
                "p:ElementName = 'sim-000002'",
            ),
        ),
        (
            "xpath-both",
            on_all(
                family,
                &format!("{ALL}{BOTH}"),
                XPATH,
                "/Msvm_ComputerSystem[OperationalStatus = 2 and not(contains(Caption, 'Hosting'))]",
            ),
        ),
    ]
}

fn refusals(family: Family) -> Vec<(&'static str, Ask)> {
    let wql = |text: &str| on_all(family, ALL, WQL, text);
    let system = "Msvm_ComputerSystem";
    vec![
        ("syntax", wql("SELECT * FORM Msvm_ComputerSystem")),
        ("class", wql("SELECT * FROM Msvm_Nix")),
        ("property", wql("SELECT Nix FROM Msvm_ComputerSystem")),
        (
            "type",
            wql("SELECT * FROM Msvm_ComputerSystem WHERE EnabledState = 'on'"),
        ),
        (
            "object",
            wql("ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='nix'}"),
        ),
        ("markup", wql("<x/>")),
        (
            "other-class",
            on_class(
                family,
                "Msvm_ConcreteJob",
                WQL,
                "SELECT * FROM Msvm_ComputerSystem",
            ),
        ),
        (
            "polymorphism",
            on_all(
                family,
                "<b:PolymorphismMode>None</b:PolymorphismMode>",
                WQL,
                "SELECT * FROM Msvm_ComputerSystem",
            ),
        ),
        (
            "dialect",
            on_all(family, ALL, "http://example.org/sql", "SELECT 1"),
        ),
        ("cql", on_all(family, ALL, CQL, "REFERENCES OF {x}")),
        (
            "xpath",
            on_class(family, system, XPATH, "ElementName = 'a' and\n //Name"),
        ),
        ("xpath-on-all", on_all(family, ALL, XPATH, "not(Name)")),
        (
            "selectors-on-all",
            on_all(family, ALL, SELECTORS, &one_selector("Name", "a")),
        ),
        (
            "selector",
            on_class(family, system, SELECTORS, &one_selector("Nix", "a")),
        ),
        (
            "selector-twice",
            on_class(
                family,
                system,
                SELECTORS,
                "<w:SelectorSet><w:Selector Name=\"Name\">a</w:Selector>\
                 <w:Selector Name=\"name\">b</w:Selector></w:SelectorSet>",
            ),
        ),
    ]
}

#[tokio::test]
async fn e_33_e_40_e_41_e_43_e_44_queries() {
    for (folder, cases) in [
        ("queries", answers as fn(Family) -> Vec<(&'static str, Ask)>),
        ("faults-query", refusals),
    ] {
        let mut book = Book::open(folder);
        for family in FAMILIES {
            let world = World::with_collection(Options::default()).await;
            for (name, ask) in cases(family) {
                book.check(name, family, &world.send(&ask).await);
            }
        }
        book.close();
    }
}

#[tokio::test]
async fn the_same_question_in_every_dialect_has_the_same_answer() {
    let items = |reply: &Reply| {
        let (_, rest) = reply.text.split_once("<w:Items>").unwrap();
        rest.split_once("</w:Items>").unwrap().0.to_owned()
    };
    let system = "Msvm_ComputerSystem";
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        for (condition, selector, some) in [
            (
                "Caption = 'Virtual Machine'",
                ("Caption", "Virtual Machine"),
                true,
            ),
            (
                "ElementName = 'sim-000002'",
                ("ElementName", "sim-000002"),
                true,
            ),
            ("HealthState = 5", ("HealthState", "5"), true),
            ("EnabledState = 9", ("EnabledState", "9"), false),
        ] {
            let text = format!("SELECT * FROM {system} WHERE {condition}");
            let (name, value) = selector;
            let mut asked = vec![
                on_all(family, ALL, WQL, &text),
                on_all(family, ALL, WQL_DMTF, &text),
                on_all(family, ALL, CQL, &text),
                on_class(family, system, WQL, &text),
                on_class(family, system, SELECTORS, &one_selector(name, value)),
                on_class(family, system, XPATH, condition),
                on_all(family, ALL, XPATH, &format!("{system}[{condition}]")),
                on_all(family, ALL, XPATH, &format!("/p:{system}/p:{condition}")),
            ];
            let first = items(&world.send(&asked.remove(0)).await);
            assert_eq!(!first.is_empty(), some, "{condition}");
            for ask in asked {
                assert_eq!(items(&world.send(&ask).await), first, "{condition}");
            }
        }
    }
}
