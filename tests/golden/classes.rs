//! Class declarations (rules C-1 to C-9), as PowerShell asks for them, and whether what is served fits them (I-19).

use std::collections::{BTreeMap, BTreeSet};

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Schema, Type};
use groupshot::wscim::Family;
use groupshot::xml::{self, Element};

use super::ask::{Ask, NAMESPACE, enumeration, transfer};
use super::book::Book;
use super::world::{FAMILIES, Options, World, create_snapshot};

const CLASSES: &str = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";
/// The options of Get-CimClass, in its order.
const POWERSHELL: [(&str, &str); 3] = [
    ("IncludeInheritanceHierarchy", "true"),
    ("IncludeInheritedElements", "true"),
    ("IncludeQualifiers", "true"),
];
const ALL: &str = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>";

fn options(of: &[(&str, &str)]) -> String {
    let option = |(name, value): &(&str, &str)| {
        format!("<w:Option Name=\"{name}\" Type=\"xs:boolean\">{value}</w:Option>")
    };
    let of: String = of.iter().map(option).collect();
    format!(
        "<w:OptionSet xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         <w:Option Name=\"__MI_CallbackRegistration\" Type=\"xs:int\">11</w:Option>{of}</w:OptionSet>"
    )
}

fn get(class: &str, of: &[(&str, &str)]) -> Ask {
    Ask::on(&transfer("Get"), CLASSES)
        .selector("__cimnamespace", NAMESPACE)
        .selector("ClassName", class)
        .header(&options(of))
}

fn list(class: &str, of: &[(&str, &str)], body: &str) -> Ask {
    Ask::on(&enumeration("Enumerate"), CLASSES)
        .selector("__cimnamespace", NAMESPACE)
        .selector("ClassName", class)
        .header(&options(of))
        .body(&format!("<n:Enumerate>{body}</n:Enumerate>"))
}

#[tokio::test]
async fn c_1_to_c_5_class_declarations() {
    let mut book = Book::open("classes");
    let world = World::new().await;
    let names = [("ExcludeClassSpecification", "true")];
    let deep = [
        ("ExcludeClassSpecification", "true"),
        ("IncludeSubClasses", "true"),
    ];
    let level = [
        ("ExcludeClassSpecification", "true"),
        ("IncludeSubClasses", "false"),
    ];
    let own = [
        ("IncludeInheritedElements", "false"),
        ("IncludeClassOrigin", "false"),
        ("IncludeQualifiers", "true"),
    ];
    for (name, ask) in [
        (
            "get-as-powershell",
            get("msvm_collectionsnapshotservice", &POWERSHELL),
        ),
        (
            "get-settings",
            get("Msvm_VirtualSystemSnapshotSettingData", &POWERSHELL),
        ),
        (
            "get-association",
            get("Msvm_CollectedVirtualSystems", &POWERSHELL),
        ),
        ("get-plain", get("Msvm_ConcreteJob", &[])),
        ("get-own-only", get("Msvm_ConcreteJob", &own)),
        ("list-names", list("", &names, ALL)),
        ("list-top", list("", &level, ALL)),
        ("list-below", list("CIM_Collection", &names, ALL)),
        ("list-deep", list("CIM_Collection", &deep, ALL)),
        ("list-first", list("", &[], "<w:OptimizeEnumeration/>")),
    ] {
        book.check_one(name, &world.send(&ask).await);
    }
    book.close();
}

#[tokio::test]
async fn c_6_what_cannot_be_described_is_named() {
    let mut book = Book::open("faults-classes");
    let world = World::new().await;
    let here = || Ask::on(&transfer("Get"), CLASSES).selector("__cimnamespace", NAMESPACE);

    let filter =
        "<w:Filter Dialect=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter\"/>";
    let epr = "<a:EndpointReference><a:Address>x</a:Address><a:ReferenceParameters><w:ResourceURI>http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/X</w:ResourceURI></a:ReferenceParameters></a:EndpointReference>";
    let elsewhere = Ask::on(&transfer("Get"), CLASSES)
        .selector("__cimnamespace", "root/cimv2")
        .selector("ClassName", "Win32_Service");
    for (name, ask) in [
        ("unknown-class", get("Msvm_None", &POWERSHELL)),
        ("unknown-namespace", elsewhere),
        ("no-class", here()),
        ("empty-class", get("", &POWERSHELL)),
        ("class-as-epr", here().selector("ClassName", epr)),
        (
            "other-selector",
            get("Msvm_ConcreteJob", &[]).selector("InstanceID", "1"),
        ),
        ("list-unknown-class", list("Msvm_None", &[], ALL)),
        (
            "list-eprs",
            list(
                "",
                &[],
                "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>",
            ),
        ),
        ("list-filtered", list("", &[], filter)),
        (
            "put",
            get("Msvm_ConcreteJob", &[]).change(|a| a.action = Some(transfer("Put"))),
        ),
    ] {
        book.check_one(name, &world.send(&ask).await);
    }
    book.close();
}

/// The children of the Items of an answer.
fn items(text: &str) -> Vec<String> {
    let document = xml::parse(text).unwrap();
    let mut found = Vec::new();
    visit(document.root(), &mut |e| {
        if e.local() == "Items" {
            found.extend(e.children().map(|c| {
                let mut w = xml::Writer::new();
                assert!(w.copy(c, usize::MAX));
                w.into_string()
            }));
        }
    });
    found
}

fn visit(element: Element<'_>, each: &mut dyn FnMut(Element<'_>)) {
    each(element);
    element.children().for_each(|c| visit(c, each));
}

#[tokio::test]
async fn c_5_every_class_is_listed_in_pages_that_fit() {
    let world = World::new().await;
    let size = 32_768;
    let limit = format!("<w:MaxEnvelopeSize>{size}</w:MaxEnvelopeSize>");
    let mut reply = world.send(&list("", &POWERSHELL, ALL).header(&limit)).await;
    let mut names = Vec::new();
    let mut pages = 0;
    loop {
        assert!(reply.text.len() <= size, "{}", reply.text.len());
        assert_eq!(reply.status, 200, "{}", reply.text);
        pages += 1;
        for item in items(&reply.text) {
            let document = xml::parse(&item).unwrap();
            let class = document.root();
            assert_eq!((class.namespace(), class.local()), ("", "CLASS"));
            names.push(class.attribute("", "NAME").unwrap().to_owned());
        }
        if reply.text.contains("EndOfSequence") {
            break;
        }
        let pull = format!(
            "<n:Pull><n:EnumerationContext>{}</n:EnumerationContext><n:MaxElements>32000</n:MaxElements></n:Pull>",
            reply.context()
        );
        let ask = Ask::on(&enumeration("Pull"), CLASSES).header(&limit);
        reply = world.send(&ask.body(&pull)).await;
    }
    assert!(pages > 3, "{pages}");
    let schema = Schema::builtin();
    let all: Vec<String> = schema
        .classes(VIRTUALIZATION_V2)
        .map(|c| c.name.to_string())
        .collect();
    assert_eq!(names, all);
}

#[tokio::test]
async fn c_9_a_class_too_large_for_the_client_comes_without_its_descriptions() {
    let world = World::new().await;
    let small = "<w:MaxEnvelopeSize>18000</w:MaxEnvelopeSize>";
    let ask = get("Msvm_VirtualSystemSettingData", &POWERSHELL);
    let full = world.send(&ask).await;
    assert!(full.text.contains("<QUALIFIER NAME=\"Description\""));
    assert!(full.text.len() > 18_000, "{}", full.text.len());
    let brief = world.send(&ask.header(small)).await;
    assert_eq!(brief.status, 200, "{}", brief.text);
    assert!(brief.text.len() <= 18_000);
    assert!(!brief.text.contains("<QUALIFIER NAME=\"Description\""));
    assert!(brief.text.contains("NAME=\"key\""));
}

/// A declared property: its type (or the class it refers to), and whether it is an array.
type Declared = BTreeMap<String, (String, bool)>;

/// The properties of a `<CLASS>`.
fn declared(class: &str) -> Declared {
    let document = xml::parse(class).unwrap();
    let mut found = Declared::new();
    visit(document.root(), &mut |e| {
        let kind = match e.local() {
            "PROPERTY" => Some((e.attribute("", "TYPE").unwrap(), false)),
            "PROPERTY.ARRAY" => Some((e.attribute("", "TYPE").unwrap(), true)),
            "PROPERTY.REFERENCE" => Some(("reference", false)),
            _ => None,
        };
        if let Some((ty, array)) = kind {
            let name = e.attribute("", "NAME").unwrap().to_owned();
            assert!(found.insert(name, (ty.to_owned(), array)).is_none());
        }
    });
    found
}

/// Is what stands in a property element of that type?
fn fits(element: Element<'_>, ty: &str) -> bool {
    let inside: Vec<&str> = element.children().map(|c| c.local()).collect();
    let text = element.text();
    match ty {
        "reference" => inside == ["Address", "ReferenceParameters"],
        "datetime" => inside == ["Datetime"] || inside == ["Interval"],
        "string" => inside.is_empty(),
        "boolean" => *text == *"true" || *text == *"false",
        ty if ty.starts_with("uint") => text.parse::<u64>().is_ok(),
        ty if ty.starts_with("sint") => text.parse::<i64>().is_ok(),
        other => panic!("no rule for {other}"),
    }
}

#[tokio::test]
async fn i_19_every_property_of_every_served_instance_is_declared_with_its_type() {
    let world = World::with_collection(Options::default()).await;
    let job = world.start(&create_snapshot(Family::Dmtf, 1, "")).await;
    world.ended(job).await;
    let schema = Schema::builtin();
    let tops = schema
        .classes(VIRTUALIZATION_V2)
        .filter(|c| c.superclass.is_none());
    let mut seen = BTreeSet::new();
    for top in tops {
        for family in FAMILIES {
            let reply = world
                .send(&Ask::enumerate(family, top.name.as_str(), ALL))
                .await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            for item in items(&reply.text) {
                let document = xml::parse(&item).unwrap();
                let instance = document.root();
                let reply = world.send(&get(instance.local(), &POWERSHELL)).await;
                let (_, class) = reply.text.split_once("<s:Body>").unwrap();
                let class = class.split("</s:Body>").next().unwrap();
                let declared = declared(class);
                assert!(!declared.is_empty());
                let mut count = BTreeMap::new();
                for property in instance.children() {
                    let name = property.local();
                    let (ty, array) = declared
                        .get(name)
                        .unwrap_or_else(|| panic!("{}.{name} is not declared", instance.local()));
                    let nil = "http://www.w3.org/2001/XMLSchema-instance";
                    let null = property.attribute(nil, "nil") == Some("true");
                    assert!(
                        null || fits(property, ty),
                        "{}.{name}: {ty}",
                        instance.local()
                    );
                    *count.entry(name).or_insert(0) += 1;
                    assert!(*array || count[name] == 1, "{}.{name}", instance.local());
                }
                seen.insert(instance.local().to_owned());
            }
        }
    }
    let served = schema.classes(VIRTUALIZATION_V2);
    let concrete = served.filter(|c| !c.is_abstract()).count();
    assert!(seen.len() > 20 && seen.len() <= concrete, "{seen:?}");
}

#[test]
fn the_declarations_say_what_the_schema_says() {
    let schema = Schema::builtin();
    for class in schema.classes(VIRTUALIZATION_V2) {
        let mut w = xml::Writer::new();
        let detail = groupshot::cim::cimxml::Detail {
            qualifiers: true,
            class_origin: true,
            inherited: true,
            hierarchy: true,
            descriptions: true,
        };
        groupshot::cim::cimxml::write_class(&mut w, class, detail);
        let text = w.into_string();
        let declared = declared(&text);
        assert_eq!(declared.len(), class.properties.len(), "{}", class.name);
        for property in &class.properties {
            let (ty, array) = &declared[property.name.as_str()];
            let expected = match &property.ty {
                Type::Reference(_) => "reference",
                other => other.keyword(),
            };
            assert_eq!((ty.as_str(), *array), (expected, property.array));
        }
        let document = xml::parse(&text).unwrap();
        let mut keys = 0;
        let mut methods = 0;
        visit(document.root(), &mut |e| {
            keys += usize::from(e.attribute("", "NAME") == Some("key"));
            methods += usize::from(e.local() == "METHOD");
            if e.local().starts_with("PARAMETER") {
                let says = |name| e.children().any(|q| q.attribute("", "NAME") == Some(name));
                assert!(says("ID") && (says("IN") || says("OUT")), "{}", class.name);
            }
        });
        assert_eq!(keys, class.keys().count(), "{}", class.name);
        assert_eq!(methods, class.methods.len(), "{}", class.name);
    }
}

/// The order of calls of `Get-CimInstance`: the first page, the class, then the rest.
#[tokio::test]
async fn c_7_the_class_is_fetched_between_enumerate_and_pull() {
    let world = World::with_collection(Options::default()).await;
    let both = "<w:OptimizeEnumeration/><w:MaxElements>1</w:MaxElements><w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode>";
    let class = "Msvm_ComputerSystem";
    let first = world
        .send(&Ask::enumerate(Family::Dmtf, class, both).header(&options(&[])))
        .await;
    let declaration = world.send(&get(class, &POWERSHELL)).await;
    assert!(
        declaration
            .text
            .contains("<CLASS NAME=\"Msvm_ComputerSystem\"")
    );
    let rest = "<n:MaxElements>32000</n:MaxElements>";
    let pull = Ask::pull(Family::Dmtf, class, &first.context(), rest);
    let rest = world.send(&pull).await;
    let count = items(&first.text).len() + items(&rest.text).len();
    assert_eq!(count, 3, "{}", rest.text);
    assert!(rest.text.contains("<n:EndOfSequence/>"));
}
