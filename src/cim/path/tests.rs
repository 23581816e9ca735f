//! Tests of object paths.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::class::{Property, Qualifiers};
use super::super::value::Type;
use super::*;

fn guid() -> Path {
    Path::new("root/virtualization/v2", "Msvm_ComputerSystem")
        .key("CreationClassName", "Msvm_ComputerSystem")
        .key("Name", "0B1C")
}

#[test]
fn every_form_names_the_same_object() {
    let relative = Path {
        namespace: None,
        ..guid()
    };
    let table = [
        (
            r#"\\HV01\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="0B1C""#,
            guid().on("hv01"),
        ),
        (
            r#"//hv01/ROOT/virtualization/v2:msvm_computersystem.name='0b1c',creationclassname='Msvm_ComputerSystem'"#,
            guid().on("HV01"),
        ),
        (
            r#"\\.\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="0B1C""#,
            guid(),
        ),
        (
            r#"root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem", Name = "0B1C" "#,
            guid(),
        ),
        (
            r#"/root/virtualization/v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="0B1C""#,
            guid(),
        ),
        (
            r#"Msvm_ComputerSystem.Name="0B1C",CreationClassName="Msvm_ComputerSystem""#,
            relative,
        ),
        (
            "root/cimv2:Win32_Thing=@",
            Path::new("root/cimv2", "Win32_Thing"),
        ),
        (
            "root/cimv2:Win32_Thing",
            Path::new("root/cimv2", "Win32_Thing"),
        ),
        (
            "root/cimv2:T.A=0x10,B=-5,C=TRUE,D=false,E=+7",
            Path::new("root/cimv2", "T")
                .key("A", 16_u8)
                .key("B", -5_i16)
                .key("C", true)
                .key("D", false)
                .key("E", 7_u64),
        ),
        (
            r#"root/x:T.K="a:b=c,\"d\" \\ \'e\' 'f'""#,
            Path::new("root/x", "T").key("K", r#"a:b=c,"d" \ 'e' 'f'"#),
        ),
        (
            r#"root/x:T.K="Microsoft:1\Dev\0""#,
            Path::new("root/x", "T").key("K", r"Microsoft:1\Dev\0"),
        ),
    ];
    for (text, path) in table {
        assert_eq!(Path::parse(text).as_ref(), Ok(&path), "{text}");
        assert!(fuzz(text), "{text}");
    }
}

#[test]
fn a_text_that_is_no_path_is_told_why() {
    let table = [
        ("", PathError::ClassName(String::new())),
        (r"\\HOST\Class.K=1", PathError::Namespace),
        (r"\\HOST", PathError::Namespace),
        (r"\\\root\x:C", PathError::Namespace),
        (
            r"root\\x:C",
            PathError::NamespaceName(r"root\\x".to_owned()),
        ),
        (":C", PathError::NamespaceName(String::new())),
        ("root/x:", PathError::ClassName(String::new())),
        ("root/x:1C", PathError::ClassName("1C".to_owned())),
        (r#"C="v""#, PathError::AfterClass("C".to_owned())),
        ("C.", PathError::KeyName(String::new())),
        ("C.K", PathError::Equals("K".to_owned())),
        ("C.K=", PathError::Value("K".to_owned())),
        ("C.K=v", PathError::Value("K".to_owned())),
        ("C.K=18446744073709551616", PathError::Value("K".to_owned())),
        (r#"C.K="v"#, PathError::Quote("K".to_owned())),
        (r#"C.K="v\""#, PathError::Quote("K".to_owned())),
        ("C.K='v\"", PathError::Quote("K".to_owned())),
        ("C.K=1,k=2", PathError::Twice("k".to_owned())),
        ("C.K=1,", PathError::KeyName(String::new())),
        (r#"C.K="v" x"#, PathError::AfterValue("K".to_owned())),
    ];
    for (text, error) in table {
        assert_eq!(Path::parse(text), Err(error), "{text}");
    }
    let many: Vec<_> = (0..65).map(|n| format!("K{n}=1")).collect();
    let text = format!("C.{}", many.join(","));
    assert_eq!(Path::parse(&text), Err(PathError::TooMany));
}

#[test]
fn the_text_is_a_wmi_path_in_given_order() {
    let path = guid().on("hv01.lan").key("D", r#"a\b"c"#).key("N", 5_u8);
    assert_eq!(
        path.to_string(),
        r#"\\HV01.LAN\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="0B1C",D="a\\b\"c",N=5"#
    );
    assert_eq!(
        Path::new("root/x", "C")
            .key("B", true)
            .with_slashes()
            .to_string(),
        "root/x:C.B=TRUE"
    );
}

#[test]
fn h_17_string_keys_compare_without_case_and_in_any_order() {
    let a = Path::new("root/x", "C").key("A", "x").key("B", 1_u8);
    let b = Path::new("ROOT/X", "c").key("b", 1_u64).key("a", "X");
    assert_eq!(a, b);
    assert_ne!(a, Path::new("root/x", "C").key("A", "x").key("B", 2_u8));
    assert_ne!(a, Path::new("root/x", "C").key("A", "x"));
    assert_ne!(a, Path::new("root/y", "C").key("A", "x").key("B", 1_u8));
    assert_ne!(a, Path::new("root/x", "D").key("A", "x").key("B", 1_u8));
    assert_ne!(a, b.on("h"));
}

fn class(keys: &[(&str, Type)]) -> Class {
    let property = |(name, ty): &(&str, Type)| Property {
        name: Name::from(*name),
        ty: ty.clone(),
        array: false,
        key: true,
        default: Value::Null,
        origin: Name::from("C"),
        propagated: false,
        qualifiers: Qualifiers::default(),
    };
    let properties = keys.iter().map(property).collect();
    let namespace = Arc::from("root/x");
    Class::new(
        Name::from("C"),
        namespace,
        None,
        properties,
        Vec::new(),
        Qualifiers::default(),
    )
}

#[test]
fn keys_take_the_types_and_the_order_of_the_class() {
    let reference = Type::Reference(Name::from("CIM_Job"));
    let class = class(&[
        ("Id", Type::Uint16),
        ("On", Type::Boolean),
        ("Job", reference),
    ]);
    let path = Path::parse(r#"c.JOB="root/x:J.I=\"a\"",on="TRUE",id="5""#).unwrap();
    let typed = path.typed(&class).unwrap();
    assert_eq!(typed.class.as_str(), "C");
    let names: Vec<_> = typed.keys.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["Id", "On", "Job"]);
    assert_eq!(typed.get("id"), Some(&Value::Uint16(5)));
    assert_eq!(typed.get("On"), Some(&Value::Boolean(true)));
    let job = Path::new("root/x", "J").key("I", "A");
    assert_eq!(typed.get("Job"), Some(&Value::from(job)));
    assert_eq!(
        Path::parse(&typed.to_string()).unwrap().typed(&class),
        Ok(typed)
    );
}

#[test]
fn keys_that_do_not_fit_the_class_are_told_apart() {
    let class = class(&[("Id", Type::Uint8), ("Name", Type::String)]);
    let error = |text: &str| Path::parse(text).unwrap().typed(&class).unwrap_err();
    assert!(matches!(error("C.Id=1"), KeyError::Missing { key, .. } if key == "Name"));
    assert!(matches!(error("C.Id=1,Name='a',X=1"), KeyError::Unknown { key, .. } if key == "X"));
    assert!(matches!(error("C.Id=256,Name='a'"), KeyError::Mistyped { key, .. } if key == "Id"));
    assert!(matches!(error("C.Id='x',Name='a'"), KeyError::Mistyped { key, .. } if key == "Id"));
    assert!(matches!(error("C.Id=1,Name=5"), KeyError::Mistyped { key, .. } if key == "Name"));
}

prop_compose! {
    fn any_key()(
        name in "[A-Za-z_][A-Za-z0-9_]{0,8}",
        value in prop_oneof![
            any::<String>().prop_map(Value::String),
            any::<u64>().prop_map(Value::Uint64),
            (i64::MIN..0).prop_map(Value::Sint64),
            any::<bool>().prop_map(Value::Boolean),
        ],
    ) -> (Name, Value) {
        (Name::from(name), value)
    }
}

proptest! {
    #[test]
    fn a_written_path_reads_back(
        host in proptest::option::of("[A-Za-z][A-Za-z0-9.-]{0,12}"),
        namespace in "[a-z][a-z0-9_-]{0,6}(/[a-z][a-z0-9_-]{0,6}){0,2}",
        class in "[A-Za-z_][A-Za-z0-9_]{0,12}",
        keys in proptest::collection::vec(any_key(), 0..4),
    ) {
        let mut path = Path { host, ..Path::new(&namespace, class) };
        for (name, value) in keys {
            if path.get(name.as_str()).is_none() {
                path.keys.push((name, value));
            }
        }
        prop_assert_eq!(Path::parse(&path.to_string()), Ok(path.clone()));
        prop_assert_eq!(Path::parse(&path.with_slashes().to_string()), Ok(path));
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".*") {
        prop_assert!(fuzz(&text));
    }

    #[test]
    fn no_path_like_text_breaks_the_reader(text in r#"[\\/.:=,@"'a-c0-9x+ -]{0,40}"#) {
        prop_assert!(fuzz(&text));
    }
}
