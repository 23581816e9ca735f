//! Method calls, I-1 to I-6: every form of every kind of argument.

use crate::cim::cimxml::EMBEDDED_MAX;
use crate::cim::{DateTime, Path, Value};
use crate::wsman::fault::{FaultKind, table};
use crate::wsman::fixture::{Ask, DMTF, V2, WMI, reference, selectors};
use crate::wsman::request::{Invoke, Operation};

fn ask(children: &str) -> Ask {
    let uri = format!("{WMI}T_Service");
    let body = format!(r#"<p:Do_INPUT xmlns:p="{uri}">{children}</p:Do_INPUT>"#);
    Ask::new(&format!("{uri}/Do"), &uri, &keys(), &body)
}

fn keys() -> String {
    selectors(&[("CreationClassName", "T_Service"), ("Name", "s")])
}

fn invoke(ask: &Ask) -> Invoke {
    match ask.request().operation {
        Operation::Invoke(invoke) => invoke,
        other => panic!("{other:?}"),
    }
}

fn argument(children: &str, name: &str) -> Value {
    let invoke = invoke(&ask(children));
    let at = invoke
        .method
        .parameters
        .iter()
        .position(|p| p.name == *name);
    invoke.arguments[at.unwrap()].clone()
}

fn refused(ask: &Ask, kind: &'static FaultKind, names: &str) {
    let fault = ask.fault();
    assert_eq!(fault.kind.name, kind.name, "{fault:?}");
    let text = fault.text.english();
    assert!(text.contains(names), "{names:?} is not named in {text:?}");
}

#[test]
fn i_1_the_action_names_the_class_or_a_superclass_and_a_method_of_it() {
    let ask = ask("");
    let call = invoke(&ask);
    assert_eq!(call.method.name.as_str(), "Do");
    assert_eq!(call.target.class.name.as_str(), "T_Service");
    assert_eq!(call.arguments.len(), call.method.parameters.len());
    assert!(call.arguments.iter().all(Value::is_null));

    let action = format!("{WMI}T_Service/Do");
    for (action_now, method) in [
        (format!("{WMI}t_service/dO"), "Do"),
        (format!("{DMTF}T_Service/Do"), "Do"),
        (format!("{WMI}T_System/Start"), "Start"),
        (format!("{WMI}T_Service/Start"), "Start"),
    ] {
        let ask = ask
            .replace(&action, &action_now)
            .replace("Do_INPUT", &format!("{method}_INPUT"));
        let ask = ask.replace("</p:Do_INPUT", &format!("</p:{method}_INPUT"));
        assert_eq!(invoke(&ask).method.name.as_str(), method, "{action_now}");
    }
    for action_now in [
        format!("{WMI}T_Service/Nope"),
        format!("{WMI}T_Job/Do"),
        format!("{WMI}T_Machine/Do"),
    ] {
        refused(
            &ask.replace(&action, &action_now),
            &table::ACTION_MISMATCH,
            "T_Service",
        );
    }
}

#[test]
fn i_1_without_selectors_the_class_itself_is_called() {
    let uri = format!("{WMI}T_Service");
    let call = invoke(&Ask::new(&format!("{uri}/Count"), &uri, "", ""));
    assert!(call.method.is_static);
    assert!(call.target.path.keys.is_empty());
}

#[test]
fn i_2_the_input_is_matched_by_name_alone() {
    let uri = format!("{WMI}T_Service");
    for body in [
        "<Do_INPUT><Kind>2</Kind></Do_INPUT>",
        r#"<q:do_input xmlns:q="urn:q" xsi:type="Do_INPUT_Type"><kIND>2</kIND></q:do_input>"#,
        r#"<Do_INPUT xmlns="urn:d"><Kind xsi:type="cim:cimUnsignedShort"> 2 </Kind></Do_INPUT>"#,
    ] {
        let call = invoke(&Ask::new(&format!("{uri}/Do"), &uri, &keys(), body));
        assert_eq!(call.arguments[1], Value::Uint16(2), "{body}");
    }
    for body in ["<Do/>", "<Other_INPUT/>", "<INPUT/>", "<é/>"] {
        let ask = Ask::new(&format!("{uri}/Do"), &uri, &keys(), body);
        refused(&ask, &table::SCHEMA_VALIDATION_ERROR, "Do_INPUT");
    }
}

#[test]
fn i_2_unknown_repeated_and_mistyped_parameters_are_named() {
    refused(
        &ask("<p:Nope>1</p:Nope>"),
        &table::INVALID_PARAMETER_NAME,
        "Nope",
    );
    let twice = "<p:Kind>1</p:Kind><p:Kind>2</p:Kind>";
    refused(&ask(twice), &table::INVALID_PARAMETER, "Kind");
    for (name, text) in [
        ("Kind", "x"),
        ("Kind", "65536"),
        ("Kind", "-1"),
        ("Kind", ""),
        ("Kind", "1.0"),
        ("Flag", "maybe"),
        ("Flag", ""),
        ("Delta", "2147483648"),
        ("Ratio", "much"),
        ("When", "yesterday"),
        ("Letter", "70000"),
        ("Kind", "<p:x/>"),
        ("Bytes", "256"),
        ("Jobs", "not a path at all"),
    ] {
        let ask = ask(&format!("<p:{name}>{text}</p:{name}>"));
        refused(&ask, &table::PARAMETER_TYPE_MISMATCH, name);
    }
    let nil = r#"<p:Notes>a</p:Notes><p:Notes xsi:nil="true"/>"#;
    refused(&ask(nil), &table::PARAMETER_TYPE_MISMATCH, "Notes");
}

#[test]
fn i_3_absent_and_nil_are_null_and_empty_is_an_empty_text() {
    assert!(argument("", "Kind").is_null());
    assert!(argument(r#"<p:Kind xsi:nil="true"/>"#, "Kind").is_null());
    assert!(argument(r#"<p:Notes xsi:nil="1"/>"#, "Notes").is_null());
    assert!(argument("", "Notes").is_null());
    assert_eq!(argument("<p:Settings/>", "Settings"), Value::from(""));
    assert_eq!(
        argument("<p:Notes></p:Notes>", "Notes"),
        Value::from(vec![""])
    );
    let two = argument(
        "<p:Notes>a</p:Notes><p:Kind>1</p:Kind><p:Notes> b </p:Notes>",
        "Notes",
    );
    assert_eq!(two, Value::from(vec!["a", " b "]));
}

#[test]
fn i_3_what_only_goes_out_is_not_looked_at() {
    for out in [
        "<p:Size/>",
        "<p:Size>x</p:Size>",
        r#"<p:Made xsi:nil="true"/>"#,
    ] {
        assert!(argument(out, "Size").is_null());
    }
}

#[test]
fn i_3_an_empty_reference_that_comes_back_is_null() {
    for out in [
        "<p:Result/>",
        "<p:Result> \n </p:Result>",
        r#"<p:Result xsi:nil="true"/>"#,
        "<p:Result/><p:Result></p:Result>",
    ] {
        assert!(argument(out, "Result").is_null(), "{out}");
    }
    refused(
        &ask("<p:Target/>"),
        &table::PARAMETER_TYPE_MISMATCH,
        "Target",
    );
}

#[test]
fn i_4_an_address_of_this_server_in_any_of_its_names_is_no_other_host() {
    let bare = reference(&format!("{WMI}T_Job"), &[("InstanceID", "j")]);
    let anonymous = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
    let host = |address: &str| {
        let epr = bare.replace(anonymous, address);
        let value = argument(&format!("<p:Result>{epr}</p:Result>"), "Result");
        value.as_reference().unwrap().host.clone()
    };
    for ours in [
        anonymous,
        "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous/",
        "http://www.w3.org/2005/08/addressing/anonymous",
        "",
        "default",
        "http://h:5985/wsman",
        "HTTPS://H./wsman?x",
        "http://u@ASKED.example/wsman",
        "http://localhost:1/",
        "http://localhost.localdomain/wsman",
        "http://127.0.0.1:5985",
        "http://127.8.0.1/wsman",
        "https://[::1]:5986/wsman",
        "https://[::ffff:127.0.0.1]/wsman",
    ] {
        assert_eq!(host(ours), None, "{ours}");
    }
    for (other, named) in [
        ("http://otherhost:5985/wsman", "otherhost"),
        ("https://h2/wsman", "h2"),
        ("http://localhostile/wsman", "localhostile"),
        ("http://asked.example@evil/wsman", "evil"),
        ("http://[fe80::1]/wsman", "fe80::1"),
        ("http://10.0.0.1/wsman", "10.0.0.1"),
    ] {
        assert_eq!(host(other).as_deref(), Some(named), "{other}");
    }
}

#[test]
fn i_4_two_references_in_the_place_of_one_are_refused() {
    let bare = reference(&format!("{WMI}T_Job"), &[("InstanceID", "j")]);
    let wrapped = format!("<a:EndpointReference>{bare}</a:EndpointReference>");
    let uri = format!("<w:ResourceURI>{WMI}T_Job</w:ResourceURI>");
    let two_uris = bare.replace(&uri, &format!("{uri}{uri}"));
    for two in [
        format!("{bare}{bare}"),
        format!("{wrapped}{wrapped}"),
        format!("{bare}{wrapped}"),
        format!("<a:EndpointReference>{bare}{bare}</a:EndpointReference>"),
        two_uris,
    ] {
        let ask = ask(&format!("<p:Result>{two}</p:Result>"));
        refused(&ask, &table::PARAMETER_INVALID_VALUE, "Result");
        refused(
            &ask,
            &table::PARAMETER_INVALID_VALUE,
            "stands more than once",
        );
    }
}

#[test]
fn i_4_a_reference_comes_in_three_forms_and_either_family() {
    let job = Path::new(V2, "T_Job").key("InstanceID", "j");
    let bare_wmi = reference(&format!("{WMI}T_Job"), &[("InstanceID", "j")]);
    let with_namespace = [("InstanceID", "j"), ("__cimnamespace", V2)];
    let bare_dmtf = reference(&format!("{DMTF}t_job"), &with_namespace);
    let no_namespace = reference(&format!("{DMTF}T_Job"), &[("instanceid", "j")]);
    let properties = bare_wmi.replace("ReferenceParameters", "ReferenceProperties");
    let forms = [
        bare_wmi.clone(),
        format!("\n {bare_wmi} \n"),
        bare_dmtf,
        no_namespace,
        properties,
        format!("<a:EndpointReference>{bare_wmi}</a:EndpointReference>"),
        r#"\\.\root\virtualization\v2:T_Job.InstanceID="j""#.into(),
        r#" T_Job.InstanceID='j' "#.into(),
        r#"root/virtualization/v2:T_Job.InstanceID="j""#.into(),
        r#"<![CDATA[T_Job.InstanceID="j"]]>"#.into(),
    ];
    for form in forms {
        let value = argument(&format!("<p:Result>{form}</p:Result>"), "Result");
        assert_eq!(value, Value::from(job.clone()), "{form}");
        assert_eq!(value.as_reference().unwrap().text("InstanceID"), Some("j"));
    }
    let elsewhere = argument(
        r#"<p:Result>\\OTHER\root\virtualization\v2:T_Job.InstanceID="j"</p:Result>"#,
        "Result",
    );
    assert_eq!(
        elsewhere.as_reference().unwrap().host.as_deref(),
        Some("OTHER")
    );
    let two = format!("<p:Jobs>{bare_wmi}</p:Jobs><p:Jobs>T_Job.InstanceID='k'</p:Jobs>");
    let two = argument(&two, "Jobs");
    assert_eq!(two.as_array().unwrap().len(), 2);
}

#[test]
fn i_4_a_reference_that_leads_nowhere_is_still_a_reference() {
    // Whether it exists, and whether its class is the right one, is the method's to say.
    for (uri, keys) in [
        (format!("{WMI}T_Nope"), vec![("X", "y")]),
        (format!("{WMI}T_Job"), vec![("Wrong", "y")]),
        (format!("{WMI}T_Job"), vec![]),
        (format!("{WMI}T_Number"), vec![("Id", "x"), ("On", "1")]),
    ] {
        let epr = reference(&uri, &keys);
        let value = argument(&format!("<p:Result>{epr}</p:Result>"), "Result");
        assert_eq!(value.as_reference().unwrap().keys.len(), keys.len());
    }
}

#[test]
fn i_4_a_reference_that_cannot_be_read_faults() {
    let foreign = reference("urn:what", &[]);
    let twice = reference(&format!("{WMI}T_Job"), &[("a", "1"), ("A", "2")]);
    for (form, names) in [
        (&*foreign, "urn:what"),
        (&*twice, "stands more than once"),
        ("<a:Address>x</a:Address>", "w:ResourceURI"),
        ("<a:EndpointReference/>", "w:ResourceURI"),
        ("<q:x xmlns:q='urn:q'/>", "w:ResourceURI"),
    ] {
        let ask = ask(&format!("<p:Result>{form}</p:Result>"));
        refused(&ask, &table::PARAMETER_INVALID_VALUE, names);
    }
}

#[test]
fn i_4_omi_sends_a_reference_as_an_instance_with_its_keys() {
    let value = argument(
        &format!(
            r#"<p:Result xmlns:x="http://www.w3.org/2001/XMLSchema" xmlns:p1="{DMTF}T_Job" x:type="p1:T_Job_Type"><p1:InstanceID>j</p1:InstanceID></p:Result>"#
        ),
        "Result",
    );
    let expected = Path::new(V2, "T_Job").key("InstanceID", "j");
    assert_eq!(value, Value::from(expected));
}

#[test]
fn i_5_embedded_text_stays_text_and_markup_is_an_instance() {
    let text = r#"<INSTANCE CLASSNAME="T_Setting"/>"#;
    let escaped = format!("<p:Settings>{}</p:Settings>", text.replace('<', "&lt;"));
    assert_eq!(argument(&escaped, "Settings"), Value::from(text));
    let cdata = format!("<p:Settings><![CDATA[{text}]]></p:Settings>");
    assert_eq!(argument(&cdata, "Settings"), Value::from(text));

    let inside = "<q:InstanceID>i</q:InstanceID><q:Level>3</q:Level><q:Names>a</q:Names><q:Names>b</q:Names>";
    let class = format!(
        r#"<p:Settings><q:T_Setting xmlns:q="{WMI}T_Setting">{inside}</q:T_Setting></p:Settings>"#
    );
    let typed = format!(
        r#"<p:Settings xmlns:q="{DMTF}T_Setting" xsi:type="q:T_Setting_Type">{inside}</p:Settings>"#
    );
    for markup in [class, typed] {
        let value = argument(&markup, "Settings");
        let Value::Instance(read) = value else {
            panic!("{value:?}");
        };
        assert_eq!(read.get("Level"), Some(&Value::Uint32(3)));
        assert_eq!(read.get("Names"), Some(&Value::from(vec!["a", "b"])));
    }
    for (markup, names) in [
        ("<q:T_Nope xmlns:q='urn:q'/>", "T_Nope"),
        ("<q:T_Setting xmlns:q='urn:q'><q:Foo/></q:T_Setting>", "Foo"),
    ] {
        let ask = ask(&format!("<p:Settings>{markup}</p:Settings>"));
        refused(&ask, &table::PARAMETER_INVALID_VALUE, names);
    }
    for bad in [
        "<q:Level>x</q:Level>",
        "<q:InstanceID><q:T_Setting/></q:InstanceID>",
    ] {
        let ask = ask(&format!(
            "<p:Settings><q:T_Setting xmlns:q='urn:q'>{bad}</q:T_Setting></p:Settings>"
        ));
        refused(&ask, &table::PARAMETER_TYPE_MISMATCH, "Settings");
    }
}

/// What is nested is never written as text into text: each level would make it longer.
#[test]
fn i_5_embedded_instances_as_markup_are_nested_as_deep_as_in_text() {
    let nested = |depth: usize| {
        let (open, close) = (
            "<q:T_Setting><q:Inside>".repeat(depth - 1),
            "</q:Inside></q:T_Setting>".repeat(depth - 1),
        );
        format!("<p:Settings xmlns:q='urn:q'>{open}<q:T_Setting/>{close}</p:Settings>")
    };
    let mut value = argument(&nested(EMBEDDED_MAX), "Settings");
    for _ in 1..EMBEDDED_MAX {
        let Value::Instance(outer) = value else {
            panic!("{value:?}");
        };
        value = outer.get("Inside").unwrap().clone();
    }
    assert!(matches!(value, Value::Instance(_)));
    let ask = ask(&nested(EMBEDDED_MAX + 1));
    refused(&ask, &table::PARAMETER_INVALID_VALUE, "nested too deeply");
}

#[test]
fn section_6_3_every_type_is_read_in_its_forms() {
    let moment = |text: &str| Value::DateTime(DateTime::parse(text).unwrap());
    let cim = r#"xmlns:c="http://schemas.dmtf.org/wbem/wscim/1/common""#;
    let table = [
        ("Kind", "0xFF".to_owned(), Value::Uint16(255)),
        ("Flag", "TRUE".into(), Value::Boolean(true)),
        ("Flag", " 0 ".into(), Value::Boolean(false)),
        ("Delta", "+5".into(), Value::Sint32(5)),
        ("Delta", "-5".into(), Value::Sint32(-5)),
        ("Ratio", "1.5e3".into(), Value::Real64(1500.0)),
        ("Ratio", "-INF".into(), Value::Real64(f64::NEG_INFINITY)),
        ("Letter", "A".into(), Value::Char16(65)),
        (
            "When",
            format!("<c:Datetime {cim}>2024-05-01T12:30:15.5Z</c:Datetime>"),
            moment("20240501123015.500000+000"),
        ),
        (
            "When",
            "2024-05-01T12:30:15+02:00".into(),
            moment("20240501123015.000000+120"),
        ),
        (
            "When",
            "20240501123015.000000+120".into(),
            moment("20240501123015.000000+120"),
        ),
        (
            "When",
            format!("<c:Interval {cim}>P1DT2H3M4S</c:Interval>"),
            moment("00000001020304.000000:000"),
        ),
        (
            "When",
            "P1DT2H3M4S".into(),
            moment("00000001020304.000000:000"),
        ),
        (
            "When",
            format!("<c:CIM_DateTime {cim}>2024**********.******+000</c:CIM_DateTime>"),
            moment("2024**********.******+000"),
        ),
        ("Bytes", "7".into(), Value::from(vec![7u8])),
        (
            "Bytes",
            "AAEC/w==".into(),
            Value::from(vec![0u8, 1, 2, 255]),
        ),
    ];
    for (name, text, value) in table {
        let read = argument(&format!("<p:{name}>{text}</p:{name}>"), name);
        assert_eq!(read, value, "{name} {text}");
    }
    let bytes = argument("<p:Bytes>1</p:Bytes><p:Bytes>2</p:Bytes>", "Bytes");
    assert_eq!(bytes, Value::from(vec![1u8, 2]));
}
