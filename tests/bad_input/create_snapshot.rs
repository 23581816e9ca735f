//! Each selector and each parameter of CreateSnapshot: missing, surplus, of the wrong type.

use super::*;

/// A collection without members: a call that is good in every other way answers 5.
const EMPTY: &str = "E3200000-0000-4000-8000-000000000001";

const TYPE: Expected = Fault("w:InvalidParameter", "TypeMismatch");
const VALUE: Expected = Fault("w:InvalidParameter", "InvalidValue");
const TWICE: Expected = Fault("w:InvalidParameter", "");

fn table() -> Table {
    let mut table = Table::start();
    let class = "Msvm_CollectionManagementService";
    let input = format!(
        r#"<p:DefineCollection_INPUT xmlns:p="{V2}/{class}"><p:Name>empty</p:Name><p:Id>{EMPTY}</p:Id><p:Type>0</p:Type></p:DefineCollection_INPUT>"#
    );
    let define = envelope(&format!("{V2}/{class}/DefineCollection"), class, "", &input);
    table.message("the collection", define, &Returns(0));
    table
}

fn selector(name: &str, value: &str) -> String {
    format!(r#"<w:Selector Name="{name}">{value}</w:Selector>"#)
}

fn epr(class: &str, selectors: &str) -> String {
    format!(
        "<a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters><w:ResourceURI>{V2}/{class}</w:ResourceURI><w:SelectorSet>{selectors}</w:SelectorSet></a:ReferenceParameters>"
    )
}

fn wrapped(epr: &str) -> String {
    format!("<a:EndpointReference>{epr}</a:EndpointReference>")
}

fn parameter(name: &str, content: &str) -> String {
    format!("<p:{name}>{content}</p:{name}>")
}

fn nil(name: &str) -> String {
    format!(r#"<p:{name} xsi:nil="true"/>"#)
}

fn collection() -> String {
    let epr = epr(
        "Msvm_VirtualSystemCollection",
        &selector("CollectionID", EMPTY),
    );
    parameter("Collection", &epr)
}

#[test]
fn h_17_every_selector() {
    let mut table = table();
    let host = host(&table);
    let keys = [
        ("CreationClassName", SERVICE),
        ("Name", "vssCollectionSnapshot"),
        ("SystemCreationClassName", "Msvm_ComputerSystem"),
        ("SystemName", host.as_str()),
    ];
    let all = |change: &dyn Fn(&str, &str) -> String| -> String {
        let set: String = keys
            .iter()
            .map(|(name, value)| change(name, value))
            .collect();
        let headers = format!("<w:SelectorSet>{set}</w:SelectorSet>");
        call_on(&headers, &(collection() + &parameter("SnapshotType", "2")))
    };
    let one = |key: &str, to: &dyn Fn(&str, &str) -> String| {
        all(&|name, value| {
            if name == key {
                to(name, value)
            } else {
                selector(name, value)
            }
        })
    };
    table.message("all there", all(&selector), &Returns(5));
    for (key, _) in keys {
        let missing = one(key, &|_, _| String::new());
        table.message(
            &format!("{key} missing, the others fit the service"),
            missing,
            &Returns(5),
        );
        let twice = one(key, &|n, v| selector(n, v).repeat(2));
        table.message(
            &format!("{key} twice"),
            twice,
            &Fault("w:InvalidSelectors", "DuplicateSelectors"),
        );
        let reference = wrapped(&epr("Msvm_ComputerSystem", &selector("Name", "x")));
        let wrong = one(key, &|n, _| selector(n, &reference));
        table.message(
            &format!("{key} of the wrong type"),
            wrong,
            &Fault("w:InvalidSelectors", "TypeMismatch"),
        );
        let other = one(key, &|n, _| selector(n, "other"));
        table.message(
            &format!("{key} of no instance"),
            other,
            &Fault("a:DestinationUnreachable", ""),
        );
        let empty = one(key, &|n, _| selector(n, ""));
        table.message(
            &format!("{key} empty"),
            empty,
            &Fault("a:DestinationUnreachable", ""),
        );
        let case = one(key, &|n, v| selector(&n.to_lowercase(), &v.to_uppercase()));
        table.message(&format!("{key} in another case"), case, &Returns(5));
        let unnamed = one(key, &|_, v| format!("<w:Selector>{v}</w:Selector>"));
        table.message(
            &format!("{key} without Name"),
            unnamed,
            &Fault("w:SchemaValidationError", ""),
        );
    }
    let surplus = |extra: &str| one("Name", &|n, v| selector(n, v) + extra);
    let unexpected = Fault("w:InvalidSelectors", "UnexpectedSelectors");
    table.message(
        "one too many",
        surplus(&selector("Colour", "blue")),
        &unexpected,
    );
    table.message(
        "a property that is no key",
        surplus(&selector("Started", "true")),
        &unexpected,
    );
    table.message(
        "its namespace",
        surplus(&selector("__cimnamespace", "root/virtualization/v2")),
        &Returns(5),
    );
    table.message(
        "another namespace",
        surplus(&selector("__cimnamespace", "root/cimv2")),
        &Fault("w:InternalError", ""),
    );
    let broken = wrapped("<a:Address>x</a:Address>");
    table.message(
        "a reference to nothing",
        surplus(&selector("X", &broken)),
        &Fault("w:InvalidSelectors", "InvalidValue"),
    );
    let deep = (0..10).fold(selector("X", "y"), |inner, _| {
        selector("X", &wrapped(&epr("Msvm_CollectedSnapshots", &inner)))
    });
    table.message(
        "references within references",
        surplus(&deep),
        &Fault("w:InvalidSelectors", ""),
    );
    let many: String = (0..100).map(|n| selector(&format!("S{n}"), "v")).collect();
    table.message(
        "a hundred",
        surplus(&many),
        &Fault("w:EncodingLimit", "SelectorLimit"),
    );
    let long = selector("X", &"x".repeat(40_000));
    table.message(
        "a long one",
        surplus(&long),
        &Fault("w:EncodingLimit", "SelectorLimit"),
    );
    table.close();
}

/// The name of the host, as the service has it.
fn host(table: &Table) -> String {
    let response = table.connect().post(USER, PASSWORD, get().as_bytes());
    response.element("SystemName").unwrap()
}

#[test]
fn i_2_i_4_the_parameter_collection() {
    let mut table = table();
    let given =
        |content: &str| call(&(parameter("Collection", content) + &parameter("SnapshotType", "2")));
    let group = "Msvm_VirtualSystemCollection";
    let id = selector("CollectionID", EMPTY);
    let path = |path: &str| given(&path.replace('&', "&amp;"));
    let contradictory = epr(
        group,
        &(id.clone() + &selector("__cimnamespace", "root/cimv2")),
    );
    let dmtf = groupshot::wscim::Family::Dmtf.class_uri("", group);
    let elsewhere = contradictory.replace(&format!("{V2}/{group}"), &dmtf);
    let cases = [
        ("missing", call(&parameter("SnapshotType", "2")), Returns(4)),
        (
            "nil",
            call(&(nil("Collection") + &parameter("SnapshotType", "2"))),
            Returns(4),
        ),
        ("bare", given(&epr(group, &id)), Returns(5)),
        ("wrapped", given(&wrapped(&epr(group, &id))), Returns(5)),
        (
            "of the superclass",
            given(&epr("CIM_CollectionOfMSEs", &id)),
            Returns(5),
        ),
        (
            "of another class",
            given(&epr("Msvm_SnapshotCollection", &id)),
            Returns(4),
        ),
        (
            "of a class beside",
            given(&epr("Msvm_ConcreteJob", &selector("InstanceID", EMPTY))),
            Returns(4),
        ),
        ("of no class", given(&epr("Msvm_NoSuch", &id)), Returns(4)),
        ("of all classes", given(&epr("*", &id)), VALUE),
        (
            "with the wrong key",
            given(&epr(group, &selector("Name", EMPTY))),
            Returns(4),
        ),
        ("without keys", given(&epr(group, "")), Returns(4)),
        (
            "with a key too many",
            given(&epr(group, &(id.clone() + &selector("X", "y")))),
            Returns(4),
        ),
        ("with a key twice", given(&epr(group, &id.repeat(2))), VALUE),
        (
            "to no instance",
            given(&epr(group, &selector("CollectionID", "C"))),
            Returns(4),
        ),
        ("to another namespace", given(&elsewhere), Returns(4)),
        ("that contradicts itself", given(&contradictory), VALUE),
        (
            "a resource of no known family",
            given(
                "<a:ReferenceParameters><w:ResourceURI>urn:x</w:ResourceURI></a:ReferenceParameters>",
            ),
            VALUE,
        ),
        (
            "no reference parameters",
            given("<a:Address>x</a:Address>"),
            VALUE,
        ),
        ("other markup", given("<x/>"), VALUE),
        ("empty", given(""), TYPE),
        ("blank", given("  "), TYPE),
        ("a number", given("17"), TYPE),
        (
            "path",
            path(&format!(r#"{group}.CollectionID="{EMPTY}""#)),
            Returns(5),
        ),
        (
            "path of this namespace",
            path(&format!(
                r#"root\virtualization\v2:{group}.CollectionID="{EMPTY}""#
            )),
            Returns(5),
        ),
        (
            "path of another namespace",
            path(&format!(r#"root\cimv2:{group}.CollectionID="{EMPTY}""#)),
            Returns(4),
        ),
        (
            "path of another host",
            path(&format!(
                r#"\\elsewhere\root\virtualization\v2:{group}.CollectionID="{EMPTY}""#
            )),
            Returns(4),
        ),
        (
            "path of another class",
            path(&format!(
                r#"Msvm_SnapshotCollection.CollectionID="{EMPTY}""#
            )),
            Returns(4),
        ),
        (
            "path without end",
            path(&format!(r#"{group}.CollectionID="{EMPTY}"#)),
            TYPE,
        ),
        (
            "path with a broken key",
            path(&format!("{group}.CollectionID=")),
            TYPE,
        ),
        ("path of nothing but a name", path(group), Returns(4)),
        (
            "twice",
            call(&(collection() + &collection() + &parameter("SnapshotType", "2"))),
            TWICE,
        ),
    ];
    for (name, body, expected) in cases {
        table.message(name, body, &expected);
    }
    table.close();
}

#[test]
fn semantics_3_the_parameter_snapshot_settings() {
    let mut table = table();
    let with = |settings: &str| call(&(collection() + settings + &parameter("SnapshotType", "2")));
    let text = |text: &str| {
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
        with(&parameter("SnapshotSettings", &escaped))
    };
    let class = "Msvm_VirtualSystemSnapshotSettingData";
    let instance = |properties: &str| {
        text(&format!(
            r#"<INSTANCE CLASSNAME="{class}">{properties}</INSTANCE>"#
        ))
    };
    let property = |name: &str, ty: &str, value: &str| {
        instance(&format!(
            r#"<PROPERTY NAME="{name}" TYPE="{ty}"><VALUE>{value}</VALUE></PROPERTY>"#
        ))
    };
    let deep = "<VALUE>".repeat(10_000) + &"</VALUE>".repeat(10_000);
    let cases = [
        ("missing", with(""), Returns(5)),
        ("nil", with(&nil("SnapshotSettings")), Returns(5)),
        ("empty", with("<p:SnapshotSettings/>"), Returns(5)),
        (
            "blank",
            with("<p:SnapshotSettings>  </p:SnapshotSettings>"),
            Returns(5),
        ),
        ("no properties", instance(""), Returns(5)),
        ("a name", property("ElementName", "string", "n"), Returns(5)),
        (
            "a property in another case",
            property("consistencylevel", "uint8", "2"),
            Returns(5),
        ),
        (
            "another TYPE",
            property("ConsistencyLevel", "string", "2"),
            Returns(5),
        ),
        (
            "a level that does not exist",
            property("ConsistencyLevel", "uint8", "3"),
            Returns(4),
        ),
        (
            "a level that is text",
            property("ConsistencyLevel", "uint8", "high"),
            Returns(4),
        ),
        (
            "a level out of range",
            property("ConsistencyLevel", "uint8", "256"),
            Returns(4),
        ),
        (
            "a backup type that does not exist",
            property("GuestBackupType", "uint8", "3"),
            Returns(4),
        ),
        (
            "a boolean that is none",
            property("IgnoreNonSnapshottableDisks", "boolean", "maybe"),
            Returns(4),
        ),
        (
            "an unknown property",
            property("Colour", "string", "blue"),
            Returns(4),
        ),
        (
            "another class",
            text(r#"<INSTANCE CLASSNAME="Msvm_Error"/>"#),
            Returns(4),
        ),
        (
            "no class",
            text(r#"<INSTANCE CLASSNAME="Msvm_NoSuch"/>"#),
            Returns(4),
        ),
        ("no class name", text("<INSTANCE/>"), Returns(4)),
        ("no instance", text("hello"), Returns(4)),
        (
            "half an instance",
            text(&format!(r#"<INSTANCE CLASSNAME="{class}">"#)),
            Returns(4),
        ),
        (
            "two instances",
            text(&format!(r#"<INSTANCE CLASSNAME="{class}"/>"#).repeat(2)),
            Returns(4),
        ),
        ("10 000 deep", instance(&deep), Returns(4)),
        (
            "an entity",
            text(&format!(
                "<!DOCTYPE x [<!ENTITY e 'e'>]><INSTANCE CLASSNAME=\"{class}\"/>"
            )),
            Returns(4),
        ),
        (
            "the markup of no class",
            with("<p:SnapshotSettings><p:Msvm_NoSuch/></p:SnapshotSettings>"),
            VALUE,
        ),
        ("twice", with(&"<p:SnapshotSettings/>".repeat(2)), TWICE),
    ];
    for (name, body, expected) in cases {
        table.message(name, body, &expected);
    }
    table.close();
}

#[test]
fn i_3_the_parameter_snapshot_type() {
    let mut table = table();
    let with = |ty: &str| call(&(collection() + ty));
    let given = |value: &str| with(&parameter("SnapshotType", value));
    for (value, expected) in [
        ("1", Returns(5)),
        ("2", Returns(5)),
        (" 2 ", Returns(5)),
        ("+2", Returns(5)),
        ("0x2", Returns(5)),
        ("0", Returns(6)),
        ("3", Returns(6)),
        ("32767", Returns(6)),
        ("32768", Returns(6)),
        ("65535", Returns(6)),
        ("65536", TYPE),
        ("-1", TYPE),
        ("2.0", TYPE),
        ("two", TYPE),
        ("", TYPE),
        ("true", TYPE),
        ("99999999999999999999999999", TYPE),
        ("<p:Two/>", TYPE),
    ] {
        table.message(&format!("SnapshotType '{value}'"), given(value), &expected);
    }
    table.message("missing", with(""), &Returns(4));
    table.message("nil", with(&nil("SnapshotType")), &Returns(4));
    table.message(
        "twice",
        with(&parameter("SnapshotType", "2").repeat(2)),
        &TWICE,
    );
    let typed = r#"<p:SnapshotType xsi:type="nonsense">2</p:SnapshotType>"#;
    table.message("of a type that is not judged", with(typed), &Returns(5));
    table.close();
}

#[test]
fn semantics_1_the_parameters_that_go_out() {
    let mut table = table();
    let with = |more: &str| call(&(collection() + &parameter("SnapshotType", "2") + more));
    let result = "ResultingSnapshotCollection";
    let nowhere = epr(
        "Msvm_SnapshotCollection",
        &selector("CollectionID", "nowhere"),
    );
    let cases = [
        ("result nil", with(&nil(result)), Returns(5)),
        (
            "result of no instance",
            with(&parameter(result, &nowhere)),
            Returns(5),
        ),
        (
            "result of another class",
            with(&parameter(result, &epr("Msvm_ConcreteJob", ""))),
            Returns(5),
        ),
        ("result is text", with(&parameter(result, "no path")), TYPE),
        ("job nil", with(&nil("Job")), Returns(5)),
        ("job empty", with("<p:Job/>"), Returns(5)),
        (
            "job is text",
            with(&parameter("Job", "nonsense")),
            Returns(5),
        ),
        (
            "a parameter that does not exist",
            with(&parameter("Colour", "blue")),
            Fault("w:InvalidParameter", "InvalidName"),
        ),
        (
            "ReturnValue",
            with(&parameter("ReturnValue", "0")),
            Fault("w:InvalidParameter", "InvalidName"),
        ),
        (
            "a parameter of no namespace",
            with("<SnapshotSettings/>"),
            Returns(5),
        ),
        (
            "a parameter in another case",
            with("<p:SNAPSHOTSETTINGS/>"),
            Returns(5),
        ),
    ];
    for (name, body, expected) in cases {
        table.message(name, body, &expected);
    }
    let action = format!("{V2}/{SERVICE}/CreateSnapshot");
    let body = |body: &str| envelope(&action, SERVICE, "", body);
    table.message("no input", body(""), &Returns(4));
    table.message(
        "the input of another method",
        body("<ApplySnapshot_INPUT/>"),
        &Fault("w:SchemaValidationError", ""),
    );
    table.message(
        "no input element",
        body("<x/>"),
        &Fault("w:SchemaValidationError", ""),
    );
    let explode = envelope(&format!("{V2}/{SERVICE}/Explode"), SERVICE, "", "");
    table.message(
        "an unknown method",
        explode,
        &Fault("a:ActionNotSupported", "ActionMismatch"),
    );
    let other = envelope(&action, "Msvm_ComputerSystem", "", "");
    table.message(
        "a method of another class",
        other,
        &Fault("a:ActionNotSupported", "ActionMismatch"),
    );
    table.close();
}
