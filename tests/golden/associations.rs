//! The association filter (rule E-42): every form and every mode, and each way to get it wrong, in both families.

use groupshot::wscim::Family;

use super::ask::{Ask, NAMESPACE, class_uri, enumeration, epr};
use super::book::Book;
use super::world::{COLLECTION, FAMILIES, Options, World, machine};

const DIALECT: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
const GROUP: &str = "Msvm_VirtualSystemCollection";
const SYSTEM: &str = "Msvm_ComputerSystem";
const MEMBERS: &str =
    "<b:AssociationClassName>Msvm_CollectedVirtualSystems</b:AssociationClassName>";
const ALL: &str = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>";

fn group(family: Family) -> String {
    epr(family, GROUP, &[("CollectionID", COLLECTION)])
}

/// An Enumerate of every class with this filter; `more` stands before it.
fn filtered(family: Family, more: &str, filter: &str) -> Ask {
    let body = format!(
        "<n:Enumerate>{ALL}{more}<w:Filter Dialect=\"{DIALECT}\">{filter}</w:Filter></n:Enumerate>"
    );
    let ask = match family {
        Family::Dmtf => Ask::on(
            &enumeration("Enumerate"),
            "http://schemas.dmtf.org/wbem/wscim/1/*",
        )
        .selector("__cimnamespace", NAMESPACE),
        Family::Wmi => Ask::on(&enumeration("Enumerate"), &class_uri(family, "*")),
    };
    ask.body(&body)
}

fn objects(object: &str, more: &str) -> String {
    format!("<b:AssociatedInstances><b:Object>{object}</b:Object>{more}</b:AssociatedInstances>")
}

fn links(object: &str, more: &str) -> String {
    format!("<b:AssociationInstances><b:Object>{object}</b:Object>{more}</b:AssociationInstances>")
}

fn good(family: Family) -> Vec<(&'static str, Ask)> {
    let group = group(family);
    let mode = |mode: &str| format!("<w:EnumerationMode>{mode}</w:EnumerationMode>");
    let poly = |mode: &str| format!("<b:PolymorphismMode>{mode}</b:PolymorphismMode>");
    let members = objects(
        &group,
        &format!("{MEMBERS}<b:ResultClassName>cim_computersystem</b:ResultClassName>"),
    );
    let of_class = |name: &str| format!("<b:ResultClassName>{name}</b:ResultClassName>");
    let other = match family {
        Family::Dmtf => Family::Wmi,
        Family::Wmi => Family::Dmtf,
    };
    let vm = machine(1).to_string();
    let vm = epr(
        family,
        SYSTEM,
        &[("CreationClassName", SYSTEM), ("Name", &vm)],
    );
    vec![
        ("objects", filtered(family, "", &members)),
        (
            "objects-eprs",
            filtered(family, &mode("EnumerateEPR"), &members),
        ),
        (
            "objects-both",
            filtered(family, &mode("EnumerateObjectAndEPR"), &members),
        ),
        (
            "objects-cast",
            filtered(family, &poly("ExcludeSubClassProperties"), &members),
        ),
        (
            "objects-exact-class",
            filtered(family, &poly("None"), &members),
        ),
        (
            "objects-by-roles",
            filtered(
                family,
                &mode("EnumerateEPR"),
                &objects(
                    &vm,
                    "<b:ResultRole>COLLECTION</b:ResultRole><b:Role>member</b:Role>",
                ),
            ),
        ),
        (
            "objects-wrong-role",
            filtered(
                family,
                "",
                &objects(&group, &format!("{MEMBERS}<b:Role>Member</b:Role>")),
            ),
        ),
        (
            "objects-of-everything",
            filtered(
                family,
                &mode("EnumerateEPR"),
                &objects(
                    &vm,
                    "<b:AssociationClassName/><b:Role/><b:ResultClassName/><b:ResultRole/>",
                ),
            ),
        ),
        (
            "objects-picked",
            filtered(
                family,
                "",
                &objects(
                    &group,
                    &format!(
                        "{MEMBERS}<b:IncludeResultProperty>name</b:IncludeResultProperty>\
                         <b:IncludeResultProperty>ElementName</b:IncludeResultProperty>\
                         <b:IncludeResultProperty>NoSuch</b:IncludeResultProperty>"
                    ),
                ),
            ),
        ),
        (
            "object-of-the-other-family",
            filtered(
                family,
                &mode("EnumerateEPR"),
                &objects(&epr(other, GROUP, &[("CollectionID", COLLECTION)]), MEMBERS),
            ),
        ),
        (
            "object-wrapped",
            filtered(
                family,
                &mode("EnumerateEPR"),
                &objects(
                    &format!("<a:EndpointReference>{group}</a:EndpointReference>"),
                    MEMBERS,
                ),
            ),
        ),
        (
            "object-by-superclass",
            filtered(
                family,
                &mode("EnumerateEPR"),
                &objects(
                    &epr(
                        family,
                        "CIM_CollectionOfMSEs",
                        &[("CollectionID", COLLECTION)],
                    ),
                    MEMBERS,
                ),
            ),
        ),
        ("links", filtered(family, "", &links(&group, ""))),
        (
            "links-eprs",
            filtered(family, &mode("EnumerateEPR"), &links(&group, "")),
        ),
        (
            "links-both",
            filtered(
                family,
                &mode("EnumerateObjectAndEPR"),
                &links(&group, &of_class("CIM_MemberOfCollection")),
            ),
        ),
        (
            "links-by-role",
            filtered(
                family,
                &mode("EnumerateEPR"),
                &links(&vm, "<b:Role>ManagedElement</b:Role>"),
            ),
        ),
        ("on-a-class", {
            let body = filtered(family, &mode("EnumerateEPR"), &objects(&vm, "")).body;
            Ask::enumerate(family, "CIM_Collection", "").body(&body)
        }),
    ]
}

#[tokio::test]
async fn e_42_the_association_filter_in_every_form() {
    let mut book = Book::open("associations");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        for (name, ask) in good(family) {
            book.check(name, family, &world.send(&ask).await);
        }
    }
    book.close();
}

fn bad(family: Family) -> Vec<(&'static str, Ask)> {
    let group = group(family);
    let ask = |filter: &str| filtered(family, "", filter);
    let with = |more: &str| ask(&objects(&group, more));
    let nobody = "C0110000-0000-4000-8000-00000000DEAD";
    let pick = "<b:IncludeResultProperty>Name</b:IncludeResultProperty>";
    vec![
        ("empty", ask("")),
        ("other-element", ask("<b:Associated/>")),
        (
            "two-walks",
            ask(&format!("{}{}", objects(&group, ""), links(&group, ""))),
        ),
        (
            "no-object",
            ask("<b:AssociatedInstances><b:Role>Member</b:Role></b:AssociatedInstances>"),
        ),
        ("object-as-text", ask(&objects("Msvm_ComputerSystem", ""))),
        (
            "object-of-no-class",
            ask(&objects(&epr(family, "Msvm_None", &[("Name", "x")]), "")),
        ),
        (
            "object-that-is-not-there",
            ask(&objects(
                &epr(family, GROUP, &[("CollectionID", nobody)]),
                "",
            )),
        ),
        (
            "object-with-other-keys",
            ask(&objects(&epr(family, GROUP, &[("Name", "both")]), "")),
        ),
        (
            "object-without-keys",
            ask(&objects(&epr(family, SYSTEM, &[]), "")),
        ),
        ("links-of-an-association", ask(&links(&group, MEMBERS))),
        ("unknown-element", with("<b:Depth>2</b:Depth>")),
        ("role-twice", with("<b:Role>a</b:Role><b:Role>b</b:Role>")),
        ("nameless-property", with("<b:IncludeResultProperty/>")),
        (
            "unknown-class",
            with("<b:ResultClassName>Msvm_None</b:ResultClassName>"),
        ),
        (
            "no-association",
            with("<b:AssociationClassName>Msvm_ComputerSystem</b:AssociationClassName>"),
        ),
        (
            "picked-references",
            filtered(
                family,
                "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>",
                &objects(&group, pick),
            ),
        ),
        ("class-beside-the-resource", {
            let body = with("<b:ResultClassName>Msvm_ComputerSystem</b:ResultClassName>").body;
            Ask::enumerate(family, "CIM_Collection", "").body(&body)
        }),
    ]
}

#[tokio::test]
async fn e_42_each_mistake_in_an_association_filter_is_named() {
    let mut book = Book::open("faults-associations");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        for (name, ask) in bad(family) {
            book.check(name, family, &world.send(&ask).await);
        }
    }
    book.close();
}
