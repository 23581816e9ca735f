//! Tests of instance text.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::class::{Class, Property, Qualifier, Qualifiers};
use super::super::datetime::DateTime;
use super::super::name::Name;
use super::super::path::Path;
use super::super::value::{Type, Value};
use super::*;

const NS: &str = "root/virtualization/v2";

fn property(name: &str, ty: Type, array: bool) -> Property {
    Property {
        name: Name::from(name),
        ty,
        array,
        key: false,
        default: Value::Null,
        origin: Name::from("X"),
        propagated: false,
        qualifiers: Qualifiers::default(),
    }
}

fn embedded(name: &str, array: bool) -> Property {
    let qualifier = Qualifier {
        name: Name::from("EmbeddedInstance"),
        ty: Type::String,
        value: Value::from("CIM_SettingData"),
        overridable: true,
        to_subclass: true,
        propagated: false,
    };
    Property {
        qualifiers: Qualifiers(vec![qualifier].into()),
        ..property(name, Type::String, array)
    }
}

fn class(name: &str, parent: Option<&Arc<Class>>, mut own: Vec<Property>) -> Arc<Class> {
    let mut properties = parent.map_or_else(Vec::new, |p| p.properties.clone());
    properties.append(&mut own);
    Arc::new(Class::new(
        Name::from(name),
        Arc::from(NS),
        parent.cloned(),
        properties,
        Vec::new(),
        Qualifiers::default(),
    ))
}

fn schema() -> Schema {
    let base = class(
        "CIM_SettingData",
        None,
        vec![
            property("InstanceID", Type::String, false),
            property("ElementName", Type::String, false),
        ],
    );
    let snapshot = class(
        "Msvm_VirtualSystemSnapshotSettingData",
        Some(&base),
        vec![
            property("ConsistencyLevel", Type::Uint8, false),
            property("IgnoreNonSnapshottableDisks", Type::Boolean, false),
        ],
    );
    let all = class(
        "Test_All",
        Some(&base),
        vec![
            property("Level", Type::Sint16, false),
            property("Ratio", Type::Real64, false),
            property("Letter", Type::Char16, false),
            property("When", Type::DateTime, false),
            property("Names", Type::String, true),
            property("Numbers", Type::Uint16, true),
            property("Flags", Type::Boolean, true),
            property("Job", Type::Reference(Name::from("CIM_Job")), false),
            property("Jobs", Type::Reference(Name::from("CIM_Job")), true),
            embedded("Inner", false),
            embedded("Inners", true),
        ],
    );
    Schema::new([base, snapshot, all])
}

fn read(text: &str) -> Result<Instance, CimXmlError> {
    parse_instance(&schema(), NS, text)
}

const MI: &str = r#"<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData"><PROPERTY NAME="ElementName" TYPE="string" MODIFIED="TRUE"><VALUE>night &amp; day</VALUE></PROPERTY><PROPERTY NAME="ConsistencyLevel" TYPE="uint8" MODIFIED="TRUE"><VALUE>2</VALUE></PROPERTY><PROPERTY NAME="IgnoreNonSnapshottableDisks" TYPE="boolean"><VALUE>true</VALUE></PROPERTY><PROPERTY NAME="InstanceID" TYPE="string"/></INSTANCE>"#;

const CIM_DTD: &str = r#"
<INSTANCE CLASSNAME="msvm_virtualsystemsnapshotsettingdata">
  <QUALIFIER NAME="dynamic" PROPAGATED="true" TYPE="boolean" TOSUBCLASS="false"><VALUE>TRUE</VALUE></QUALIFIER>
  <PROPERTY CLASSORIGIN="CIM_SettingData" TYPE="string" NAME="ElementName" PROPAGATED="true"><QUALIFIER NAME="MaxLen" TYPE="uint16"><VALUE>256</VALUE></QUALIFIER><VALUE>night &amp; day</VALUE></PROPERTY>
  <PROPERTY NAME="CONSISTENCYLEVEL" CLASSORIGIN="Msvm_VirtualSystemSnapshotSettingData" TYPE="sint32"><VALUE> 0x2 </VALUE></PROPERTY>
  <PROPERTY NAME="SoID" CLASSORIGIN="CIM_SettingData" PROPAGATED="true" TYPE="string"></PROPERTY>
  <PROPERTY NAME="IgnoreNonSnapshottableDisks" TYPE="boolean"><VALUE>TRUE</VALUE></PROPERTY>
</INSTANCE>"#;

const WMI_DTD: &str = "\u{FEFF}<?xml version=\"1.0\"?><DECLARATIONS><DECLGROUP><VALUE.OBJECT><CLASS NAME=\"X\"/></VALUE.OBJECT><VALUE.NAMEDINSTANCE><INSTANCENAME CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\"/>\
<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\">\
<PROPERTY NAME=\"__PATH\" CLASSORIGIN=\"___SYSTEM\" TYPE=\"string\"><VALUE>x</VALUE></PROPERTY>\
<PROPERTY.ARRAY NAME=\"__DERIVATION\" CLASSORIGIN=\"___SYSTEM\" TYPE=\"string\"><VALUE.ARRAY><VALUE>CIM_SettingData</VALUE></VALUE.ARRAY></PROPERTY.ARRAY>\
<PROPERTY NAME=\"ElementName\" TYPE=\"string\"><VALUE><![CDATA[night & day]]></VALUE></PROPERTY>\
<PROPERTY NAME=\"ConsistencyLevel\" TYPE=\"uint8\"><VALUE>2</VALUE></PROPERTY>\
<PROPERTY NAME=\"IgnoreNonSnapshottableDisks\" TYPE=\"boolean\"><VALUE>1</VALUE></PROPERTY>\
</INSTANCE></VALUE.NAMEDINSTANCE></DECLGROUP></DECLARATIONS>";

#[test]
fn every_dialect_gives_the_same_instance() {
    let expected = read(MI).unwrap();
    assert_eq!(expected.get("ConsistencyLevel"), Some(&Value::Uint8(2)));
    assert_eq!(
        expected.get("ElementName"),
        Some(&Value::from("night & day"))
    );
    assert_eq!(
        expected.get("IgnoreNonSnapshottableDisks"),
        Some(&Value::Boolean(true))
    );
    assert_eq!(expected.get("InstanceID"), Some(&Value::Null));
    for text in [CIM_DTD, WMI_DTD] {
        assert_eq!(read(text).as_ref(), Ok(&expected), "{text}");
        assert!(fuzz(&schema(), NS, text));
    }
}

/// An INSTANCE of `Test_All` with this content.
fn all(content: &str) -> Result<Instance, CimXmlError> {
    read(&format!(
        "<INSTANCE CLASSNAME='Test_All'>{content}</INSTANCE>"
    ))
}

#[test]
fn what_does_not_fit_is_told_with_its_property() {
    let table = [
        (
            "<PROPERTY NAME='Level'><VALUE>x</VALUE></PROPERTY>",
            "property Test_All.Level takes sint16, got 'x'",
        ),
        (
            "<PROPERTY NAME='Level'><VALUE>32768</VALUE></PROPERTY>",
            "property Test_All.Level takes sint16, got '32768'",
        ),
        (
            "<PROPERTY NAME='Level'><VALUE/></PROPERTY>",
            "property Test_All.Level takes sint16, got ''",
        ),
        (
            "<PROPERTY.ARRAY NAME='Level'><VALUE.ARRAY/></PROPERTY.ARRAY>",
            "property Test_All.Level takes sint16, got an array",
        ),
        (
            "<PROPERTY NAME='Names'><VALUE>a</VALUE></PROPERTY>",
            "property Test_All.Names takes string[], got one value",
        ),
        (
            "<PROPERTY.ARRAY NAME='Names'><VALUE.ARRAY><VALUE.NULL/></VALUE.ARRAY></PROPERTY.ARRAY>",
            "property Test_All.Names takes string[], got the element VALUE.NULL in VALUE.ARRAY",
        ),
        (
            "<PROPERTY NAME='Level'><VALUE>1</VALUE><VALUE>2</VALUE></PROPERTY>",
            "PROPERTY holds VALUE, expected one value",
        ),
        (
            "<PROPERTY NAME='Level'/><PROPERTY NAME='level'/>",
            "property Test_All.Level stands twice",
        ),
        (
            "<PROPERTY NAME='Other'/>",
            "class Test_All has no property Other",
        ),
        ("<PROPERTY/>", "PROPERTY needs the attribute NAME"),
        (
            "<VALUE>1</VALUE>",
            "INSTANCE holds VALUE, expected PROPERTY elements",
        ),
        (
            "<PROPERTY NAME='Job'><VALUE>?</VALUE></PROPERTY>",
            "property Test_All.Job takes CIM_Job ref, got '?'",
        ),
        (
            "<PROPERTY.OBJECT NAME='ElementName'><VALUE.OBJECT><INSTANCE CLASSNAME='CIM_SettingData'/></VALUE.OBJECT></PROPERTY.OBJECT>",
            "property Test_All.ElementName takes string, got instance of CIM_SettingData",
        ),
        (
            "<PROPERTY.OBJECT NAME='Level'><VALUE.OBJECT/></PROPERTY.OBJECT>",
            "property Test_All.Level takes sint16, got the element VALUE.OBJECT",
        ),
    ];
    for (content, message) in table {
        assert_eq!(all(content).unwrap_err().to_string(), message, "{content}");
    }
}

#[test]
fn what_is_no_instance_is_refused() {
    let unknown =
        |e: &CimXmlError| matches!(e, CimXmlError::UnknownClass { class, .. } if class == "Nix");
    let xml = |e: &CimXmlError| matches!(e, CimXmlError::Xml(_));
    let element = |e: &CimXmlError| matches!(e, CimXmlError::Element { .. });
    type Check<'a> = &'a dyn Fn(&CimXmlError) -> bool;
    let table: [(&str, Check<'_>); 9] = [
        ("", &xml),
        ("instance of Test_All {};", &xml),
        ("<INSTANCE CLASSNAME='Test_All'>", &xml),
        ("<!DOCTYPE CIM><INSTANCE CLASSNAME='Test_All'/>", &xml),
        ("<INSTANCE CLASSNAME='Nix'/>", &unknown),
        ("<INSTANCE/>", &|e| {
            matches!(e, CimXmlError::Attribute { .. })
        }),
        ("<CIM/>", &|e| matches!(e, CimXmlError::NotOneInstance(0))),
        (
            "<CIM><INSTANCE CLASSNAME='Test_All'/><INSTANCE CLASSNAME='Test_All'/></CIM>",
            &|e| matches!(e, CimXmlError::NotOneInstance(2)),
        ),
        ("<html/>", &element),
    ];
    for (text, is_expected) in table {
        let error = read(text).unwrap_err();
        assert!(is_expected(&error), "{text}: {error:?}");
    }
}

#[test]
fn references_come_as_elements_or_as_text() {
    let path = Path::new(NS, "Msvm_ConcreteJob").key("InstanceID", "A-1");
    let value = |content: &str| {
        let property = format!(
            "<PROPERTY.REFERENCE NAME='Job' REFERENCECLASS='X'><VALUE.REFERENCE>{content}</VALUE.REFERENCE></PROPERTY.REFERENCE>"
        );
        all(&property).map(|i| i.get("Job").cloned().unwrap())
    };
    let name = "<INSTANCENAME CLASSNAME='Msvm_ConcreteJob'><KEYBINDING NAME='InstanceID'><KEYVALUE VALUETYPE='string'>A-1</KEYVALUE></KEYBINDING></INSTANCENAME>";
    let local = "<LOCALNAMESPACEPATH><NAMESPACE NAME='root'/><NAMESPACE NAME='virtualization'/><NAMESPACE NAME='v2'/></LOCALNAMESPACEPATH>";
    let bare = Path {
        namespace: None,
        ..path.clone()
    };
    let table = [
        (name.to_owned(), bare),
        (
            format!("<LOCALINSTANCEPATH>{local}{name}</LOCALINSTANCEPATH>"),
            path.clone(),
        ),
        (
            format!(
                "<INSTANCEPATH><NAMESPACEPATH><HOST>HV01</HOST>{local}</NAMESPACEPATH>{name}</INSTANCEPATH>"
            ),
            path.clone().on("hv01"),
        ),
        (path.clone().on("hv01").to_string(), path.on("hv01")),
    ];
    for (content, path) in table {
        assert_eq!(value(&content), Ok(Value::from(path)), "{content}");
    }
    for content in [
        "",
        "<INSTANCENAME/>",
        "<INSTANCEPATH/>",
        "<KEYVALUE>a</KEYVALUE>",
        "<INSTANCENAME CLASSNAME='A'><KEYVALUE>a</KEYVALUE></INSTANCENAME>",
    ] {
        assert!(value(content).is_err(), "{content}");
    }
}

#[test]
fn name_is_the_first_attribute_and_null_has_no_value() {
    let schema = schema();
    let class = schema.class(NS, "Test_All").unwrap();
    let instance = Instance::new(class)
        .with("Level", -3_i16)
        .and_then(|i| i.with("Flags", vec![true, false]))
        .and_then(|i| i.with("ElementName", "a<b"))
        .unwrap();
    let text = write_instance(&instance);
    assert!(text.starts_with(
        r#"<INSTANCE CLASSNAME="Test_All"><PROPERTY NAME="InstanceID" TYPE="string"/><PROPERTY NAME="ElementName" TYPE="string"><VALUE>a&lt;b</VALUE></PROPERTY><PROPERTY NAME="Level" TYPE="sint16"><VALUE>-3</VALUE></PROPERTY>"#
    ));
    assert!(text.contains(
        r#"<PROPERTY.ARRAY NAME="Flags" TYPE="boolean"><VALUE.ARRAY><VALUE>TRUE</VALUE><VALUE>FALSE</VALUE></VALUE.ARRAY></PROPERTY.ARRAY>"#
    ));
    assert!(text.contains(r#"<PROPERTY.REFERENCE NAME="Job" REFERENCECLASS="CIM_Job"/>"#));
    assert_eq!(
        text.matches("<PROPERTY").count(),
        text.matches(" NAME=").count()
    );
}

#[test]
fn instances_inside_each_other_end_at_a_depth() {
    let nested = |n: usize| {
        let open = "<INSTANCE CLASSNAME='Test_All'><PROPERTY.OBJECT NAME='Inner'><VALUE.OBJECT>";
        let close = "</VALUE.OBJECT></PROPERTY.OBJECT></INSTANCE>";
        let core = "<INSTANCE CLASSNAME='Test_All'/>";
        format!("{}{core}{}", open.repeat(n), close.repeat(n))
    };
    assert!(read(&nested(EMBEDDED_MAX)).is_ok());
    assert!(fuzz(&schema(), NS, &nested(EMBEDDED_MAX)));
    assert_eq!(read(&nested(EMBEDDED_MAX + 1)), Err(CimXmlError::Depth));
}

proptest! {
    #[test]
    fn a_written_instance_reads_back(
        name in proptest::option::of("[^\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{FFFE}\u{FFFF}]{0,20}"),
        level in any::<Option<i16>>(),
        ratio in proptest::option::of(-1e300..1e300),
        letter in any::<u16>(),
        micros in any::<u32>(),
        names in proptest::collection::vec("[ -~]{0,8}", 0..4),
        key in "[ -~]{0,20}",
        depth in 0..3_usize,
    ) {
        let schema = schema();
        let class = schema.class(NS, "Test_All").unwrap();
        let job = Path::new(NS, "CIM_Job").key("InstanceID", &*key).on("h");
        let mut instance = Instance::new(class);
        instance.set("ElementName", name).unwrap();
        instance.set("Level", level).unwrap();
        instance.set("Ratio", ratio).unwrap();
        instance.set("Letter", Value::Char16(letter)).unwrap();
        instance.set("When", DateTime::Interval { micros: micros.into() }).unwrap();
        instance.set("Names", names).unwrap();
        instance.set("Job", job.clone()).unwrap();
        instance.set("Jobs", Value::Array(vec![job.clone().into(), Path::new(NS, "A").key("B", job).into()])).unwrap();
        for _ in 0..depth {
            let inner = Value::Instance(Box::new(instance.clone()));
            instance.set("Inners", Value::Array(vec![inner.clone(), inner])).unwrap();
        }
        let text = write_instance(&instance);
        prop_assert_eq!(parse_instance(&schema, NS, &text), Ok(instance));
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".*") {
        prop_assert!(fuzz(&schema(), NS, &text));
    }
}
