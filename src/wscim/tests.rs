//! WS-CIM both ways: every type, array and null.

use crate::cim::mof::{Place, Source, compile};
use crate::cim::{DateTime, Instance, Path, Schema, Value};
use crate::soap::ns;
use crate::xml::{Writer, parse};

use super::*;

const MOF: &str = r#"
class E_All {
  [Key] string Id;
  boolean B; uint8 U8; uint16 U16; uint32 U32; uint64 U64; sint8 S8; sint16 S16; sint32 S32; sint64 S64;
  real32 R32; real64 R64; char16 C; string S; datetime D;
  boolean Bs[]; uint8 U8s[]; uint64 U64s[]; sint16 S16s[]; real64 R64s[]; char16 Cs[]; string Ss[]; datetime Ds[];
  [OctetString] uint8 Octets[];
  [EmbeddedObject] string Inside;
  [EmbeddedInstance("E_Part")] string Part;
};
class E_Sub : E_All { string More; };
class E_Part { string Name; uint32 Levels[]; };
[Association] class E_Link { [Key] E_All ref From; [Key] E_All ref To; };
class E_Doer {
  [Key] string Id;
  uint32 Do([In] string Name, [In(false), Out] E_All ref Made, [In(false), Out] string Notes[], [In, Out] uint16 Level);
};
"#;

const NAMESPACE: &str = "root/test";

fn schema() -> Schema {
    let source = |name, text| Source {
        name,
        text,
        place: Place::Namespace(NAMESPACE),
    };
    let qualifiers = include_str!("../../schemas/qualifiers.mof");
    let compiled = compile(&[source("q.mof", qualifiers), source("e.mof", MOF)]);
    assert!(!compiled.has_errors(), "{:#?}", compiled.diagnostics);
    Schema::new(compiled.classes)
}

fn style(family: Family) -> Style {
    Style {
        family,
        precise_arrays: false,
        show_types: false,
    }
}

fn instance(class: &str) -> Instance {
    Instance::new(schema().class(NAMESPACE, class).unwrap())
}

/// The instance in an envelope that declares what answers declare.
fn written(instance: &Instance, style: Style) -> String {
    let mut w = Writer::new();
    w.open(
        "s",
        "Body",
        &[
            ("xmlns:s", ns::SOAP),
            ("xmlns:a", ns::ADDRESSING),
            ("xmlns:w", ns::WSMAN),
        ],
    );
    write_instance(&mut w, instance, None, style);
    w.close("s", "Body");
    w.into_string()
}

/// The element of one property.
fn property(instance: &Instance, style: Style, name: &str) -> String {
    let text = written(instance, style);
    let Some(from) = text.find(&format!("<p:{name}")) else {
        return String::new();
    };
    let end = format!("</p:{name}>");
    let rest = &text[from..];
    let next = rest.rfind(&end).map(|at| at + end.len());
    rest[..next.unwrap_or_else(|| rest.find("/>").unwrap() + 2)].to_owned()
}

fn round_trip(instance: &Instance, style: Style) -> Instance {
    let text = written(instance, style);
    let document = parse(&text).unwrap();
    let schema = schema();
    let reference = Reference {
        schema: &schema,
        namespace: NAMESPACE,
        names: Names::default(),
    };
    let element = document.root().children().next().unwrap();
    read_instance(element, &reference).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn values() -> Vec<(&'static str, Value)> {
    let moment = |text: &str| Value::DateTime(DateTime::parse(text).unwrap());
    vec![
        ("B", Value::Boolean(true)),
        ("B", Value::Boolean(false)),
        ("U8", Value::Uint8(u8::MAX)),
        ("U16", Value::Uint16(u16::MAX)),
        ("U32", Value::Uint32(u32::MAX)),
        ("U64", Value::Uint64(u64::MAX)),
        ("S8", Value::Sint8(i8::MIN)),
        ("S16", Value::Sint16(i16::MIN)),
        ("S32", Value::Sint32(i32::MIN)),
        ("S64", Value::Sint64(i64::MIN)),
        ("R32", Value::Real32(0.1)),
        ("R64", Value::Real64(-1.5e300)),
        ("R64", Value::Real64(f64::INFINITY)),
        ("C", Value::Char16(65)),
        ("C", Value::Char16(7)),
        ("C", Value::Char16(0xD800)),
        ("S", Value::from(" <a> & \"b\"\r\n\t ]]> é𝄞 ")),
        ("S", Value::from("")),
        ("D", moment("20240501123015.123456+120")),
        ("D", moment("20240501123015.000000+000")),
        ("D", moment("00000001020304.500000:000")),
        ("D", moment("2024**********.******+000")),
        ("Bs", Value::from(vec![true, false])),
        ("U8s", Value::from(vec![0u8, 255])),
        ("U64s", Value::from(vec![u64::MAX])),
        ("S16s", Value::from(vec![-1i16, 1])),
        ("R64s", Value::from(vec![0.0f64, 2.5])),
        (
            "Cs",
            Value::Array(vec![Value::Char16(48), Value::Char16(49)]),
        ),
        ("Ss", Value::from(vec!["a", "", " c "])),
        (
            "Ds",
            Value::Array(vec![moment("P1D"), moment("2024-05-01T12:30:15Z")]),
        ),
        ("Octets", Value::from(vec![0u8, 0, 0, 6])),
        ("Part", Value::from(r#"<INSTANCE CLASSNAME="E_Part"/>"#)),
    ]
}

#[test]
fn section_6_3_every_type_comes_back_as_it_went() {
    for (name, value) in values() {
        let given = instance("E_All")
            .with("Id", "i")
            .unwrap()
            .with(name, value.clone())
            .unwrap();
        for family in [Family::Dmtf, Family::Wmi] {
            let read = round_trip(&given, style(family));
            assert_eq!(
                read.get(name),
                Some(&value),
                "{name} {}",
                written(&given, style(family))
            );
        }
    }
}

#[test]
fn i_17_nulls_and_empty_arrays() {
    let precise = Style {
        precise_arrays: true,
        ..style(Family::Wmi)
    };
    let all_null = instance("E_All");
    assert_eq!(
        property(&all_null, style(Family::Wmi), "U16"),
        r#"<p:U16 xsi:nil="true"/>"#
    );
    assert_eq!(
        property(&all_null, style(Family::Wmi), "Ss"),
        r#"<p:Ss xsi:nil="true"/>"#
    );
    assert_eq!(
        property(&all_null, precise, "U16"),
        r#"<p:U16 xsi:nil="true"/>"#
    );
    assert_eq!(
        property(&all_null, precise, "Ss"),
        r#"<p:Ss xmlns:m="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd" xsi:nil="true" m:IsNullArray="true"/>"#
    );
    assert_eq!(round_trip(&all_null, style(Family::Wmi)), all_null);
    assert_eq!(round_trip(&all_null, precise), all_null);
    let empty = all_null.with("Ss", Value::Array(vec![])).unwrap();
    assert_eq!(property(&empty, style(Family::Wmi), "Ss"), "");
    assert_eq!(property(&empty, precise, "Ss"), "");
}

#[test]
fn i_16_datetimes_stand_in_an_element_of_their_kind() {
    let with = |text: &str| {
        let value = Value::DateTime(DateTime::parse(text).unwrap());
        property(
            &instance("E_All").with("D", value).unwrap(),
            style(Family::Wmi),
            "D",
        )
    };
    assert_eq!(
        with("20240501123015.123456+000"),
        "<p:D><cim:Datetime>2024-05-01T12:30:15.123456Z</cim:Datetime></p:D>"
    );
    assert_eq!(
        with("20240501123015.500000+000"),
        "<p:D><cim:Datetime>2024-05-01T12:30:15.5Z</cim:Datetime></p:D>"
    );
    let interval = with("00000000010203.000000:000");
    assert!(interval.starts_with("<p:D><cim:Interval>P"), "{interval}");
}

#[test]
fn i_18_an_instance_names_its_class_and_has_every_property_in_order() {
    let text = written(&instance("E_Sub"), style(Family::Wmi));
    let document = parse(&text).unwrap();
    let element = document.root().children().next().unwrap();
    let uri = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/test/E_Sub";
    assert!(element.is(uri, "E_Sub"), "{text}");
    assert_eq!(element.attribute(ns::XSI, "type"), Some("p:E_Sub_Type"));
    let names: Vec<_> = element
        .children()
        .map(|c| c.local().to_ascii_lowercase())
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.len(), 26 + 1);
    assert!(element.children().all(|c| c.namespace() == uri));
    let dmtf = written(&instance("E_Sub"), style(Family::Dmtf));
    assert!(dmtf.contains(r#"xmlns:p="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/E_Sub""#));
}

#[test]
fn e_31_a_cast_instance_has_the_superclass_only() {
    let schema = schema();
    let base = schema.class(NAMESPACE, "E_All").unwrap();
    let mut w = Writer::new();
    write_instance(&mut w, &instance("E_Sub"), Some(base), style(Family::Wmi));
    let text = w.into_string();
    assert!(
        text.contains("<p:E_All ") && text.contains("wmi/root/test/E_All\""),
        "{text}"
    );
    assert!(!text.contains("p:More"), "{text}");
    assert!(text.contains("p:Id"), "{text}");
}

#[test]
fn h_25_types_are_shown_where_wanted() {
    let shown = Style {
        show_types: true,
        ..style(Family::Wmi)
    };
    for (name, value, expected) in [
        (
            "B",
            Value::Boolean(true),
            r#"<p:B xsi:type="cim:cimBoolean">true</p:B>"#,
        ),
        (
            "U8",
            Value::Uint8(1),
            r#"<p:U8 xsi:type="cim:cimUnsignedByte">1</p:U8>"#,
        ),
        (
            "S64",
            Value::Sint64(-1),
            r#"<p:S64 xsi:type="cim:cimLong">-1</p:S64>"#,
        ),
        (
            "S",
            Value::from("x"),
            r#"<p:S xsi:type="cim:cimString">x</p:S>"#,
        ),
    ] {
        let given = instance("E_All").with(name, value).unwrap();
        assert_eq!(property(&given, shown, name), expected);
    }
}

#[test]
fn i_12_references_are_written_bare_in_the_family_of_the_request() {
    let path = |id: &str| Path::new(NAMESPACE, "E_All").key("Id", id);
    let link = instance("E_Link")
        .with("From", path("a"))
        .unwrap()
        .with("To", path("b"))
        .unwrap();
    let from = |family| property(&link, style(family), "From");
    assert_eq!(
        from(Family::Wmi),
        r#"<p:From><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address><a:ReferenceParameters><w:ResourceURI>http://schemas.microsoft.com/wbem/wsman/1/wmi/root/test/E_All</w:ResourceURI><w:SelectorSet><w:Selector Name="Id">a</w:Selector></w:SelectorSet></a:ReferenceParameters></p:From>"#
    );
    let dmtf = from(Family::Dmtf);
    assert!(dmtf.contains(r#"<w:ResourceURI>http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/E_All</w:ResourceURI>"#), "{dmtf}");
    assert!(
        dmtf.contains(r#"<w:Selector Name="__cimnamespace">root/test</w:Selector>"#),
        "{dmtf}"
    );
    for family in [Family::Wmi, Family::Dmtf] {
        assert_eq!(round_trip(&link, style(family)), link);
    }
    // A reference to an association has references for keys.
    let mut w = Writer::new();
    epr::write_wrapped(&mut w, &link.path().unwrap(), Family::Wmi);
    let text = w.into_string();
    assert_eq!(text.matches("<a:EndpointReference>").count(), 3, "{text}");
}

#[test]
fn i_14_embedded_instances_are_text_or_markup_as_declared() {
    let part = instance("E_Part")
        .with("Name", "n")
        .unwrap()
        .with("Levels", vec![1u32, 2])
        .unwrap();
    let inside = Value::Instance(Box::new(part));
    let as_text = instance("E_All").with("Part", inside.clone()).unwrap();
    let text = property(&as_text, style(Family::Wmi), "Part");
    assert!(text.contains("&lt;INSTANCE"), "{text}");
    let as_markup = instance("E_All").with("Inside", inside).unwrap();
    let markup = property(&as_markup, style(Family::Wmi), "Inside");
    assert!(markup.contains(r#"xsi:type="q:E_Part_Type"><q:Levels>1</q:Levels><q:Levels>2</q:Levels><q:Name>n</q:Name></p:Inside>"#), "{markup}");
    assert_eq!(round_trip(&as_markup, style(Family::Wmi)), as_markup);
}

#[test]
fn i_10_to_i_15_a_result_has_its_parameters_in_order_and_the_return_value_last() {
    let schema = schema();
    let method = schema
        .class(NAMESPACE, "E_Doer")
        .unwrap()
        .method("Do")
        .unwrap();
    let uri = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/e_doer";
    let write = |outputs: &[(&str, Value)], code: u32| {
        let mut w = Writer::new();
        write_output(
            &mut w,
            uri,
            method,
            outputs,
            &Value::Uint32(code),
            style(Family::Dmtf),
        );
        w.into_string()
    };
    let frame = format!(
        r#"<p:Do_OUTPUT xmlns:p="{uri}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common">"#
    );
    assert_eq!(
        write(&[], 4),
        format!(
            r#"{frame}<p:Made xsi:nil="true"/><p:Notes xsi:nil="true"/><p:Level xsi:nil="true"/><p:ReturnValue>4</p:ReturnValue></p:Do_OUTPUT>"#
        )
    );
    let made = Path::new(NAMESPACE, "E_All").key("Id", "i");
    let full = write(
        &[
            ("Level", Value::Uint16(2)),
            ("notes", Value::from(vec!["a", "b"])),
            ("Made", made.into()),
        ],
        4096,
    );
    let order = [
        "<p:Made><a:Address>",
        "<p:Notes>a</p:Notes><p:Notes>b</p:Notes>",
        "<p:Level>2</p:Level><p:ReturnValue>4096</p:ReturnValue></p:Do_OUTPUT>",
    ];
    let at: Vec<_> = order
        .iter()
        .map(|part| {
            full.find(part)
                .unwrap_or_else(|| panic!("{part} is not in {full}"))
        })
        .collect();
    assert!(at.is_sorted(), "{full}");
}

#[test]
fn an_instance_that_does_not_fit_its_class_is_refused_by_name() {
    let schema = schema();
    let reference = Reference {
        schema: &schema,
        namespace: NAMESPACE,
        names: Names::default(),
    };
    let read = |text: &str| {
        let document = parse(text).unwrap();
        read_instance(document.root(), &reference).map_err(|e| e.to_string())
    };
    let error = |text: &str| read(text).unwrap_err();
    assert_eq!(error("<E_None/>"), "there is no class E_None");
    assert_eq!(
        error("<E_All><Nope/></E_All>"),
        "class E_All has no property Nope"
    );
    assert!(error("<E_All><U8>256</U8></E_All>").contains("uint8"));
    assert!(error("<E_All><U8>1</U8><U8>2</U8></E_All>").contains("no array"));
    let text = format!(
        r#"<q:e_all xmlns:q="{}{NAMESPACE}/E_All"><q:u8>1</q:u8></q:e_all>"#,
        uri::WMI
    );
    assert_eq!(read(&text).unwrap().get("U8"), Some(&Value::Uint8(1)));
}
