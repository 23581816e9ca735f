//! Selectors and targets, H-17, H-18, X-1, X-2.

use crate::cim::Value;
use crate::wsman::config::Part;
use crate::wsman::fault::{Kind, table};
use crate::wsman::fixture::{Ask, DMTF, GET, V2, WMI, reference, selectors};
use crate::wsman::request::{Operation, Target};

fn ask(class: &str, selectors: &str) -> Ask {
    Ask::new(GET, &format!("{WMI}{class}"), selectors, "")
}

fn target(ask: &Ask) -> Target {
    match ask.request().operation {
        Operation::Get(target) => target,
        other => panic!("{other:?}"),
    }
}

fn refused(ask: &Ask, kind: &'static Kind, names: &str) {
    let fault = ask.fault();
    assert_eq!(fault.kind.name, kind.name, "{fault:?}");
    let text = fault.text.render();
    assert!(text.contains(names), "{names:?} is not named in {text:?}");
}

#[test]
fn x_1_all_keys_make_a_target_in_the_order_of_the_class() {
    let given = selectors(&[("NAME", " a&amp;b "), ("creationclassname", "T_System")]);
    let target = target(&ask("t_SYSTEM", &given));
    assert_eq!(target.class.name.as_str(), "T_System");
    assert_eq!(target.path.namespace.as_deref(), Some(V2));
    let keys: Vec<_> = target
        .path
        .keys
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str().unwrap()))
        .collect();
    // Blanks around a selector are part of it (N-6).
    assert_eq!(keys, [("CreationClassName", "T_System"), ("Name", " a&b ")]);
}

#[test]
fn x_2_no_selector_at_all_means_the_only_instance() {
    assert!(target(&ask("T_System", "")).path.keys.is_empty());
    assert!(
        target(&ask("T_System", "<w:SelectorSet/>"))
            .path
            .keys
            .is_empty()
    );
}

#[test]
fn h_17_values_are_typed_by_the_key() {
    let typed = target(&ask(
        "T_Number",
        &selectors(&[("Id", " 0x10 "), ("On", "TRUE")]),
    ));
    assert_eq!(typed.path.get("Id"), Some(&Value::Uint32(16)));
    assert_eq!(typed.path.get("On"), Some(&Value::Boolean(true)));
    for (id, on, names) in [
        ("x", "1", "Id"),
        ("-1", "1", "Id"),
        ("4294967296", "1", "uint32"),
        ("", "1", "Id"),
        ("1", "yes", "On"),
    ] {
        let ask = ask("T_Number", &selectors(&[("Id", id), ("On", on)]));
        refused(&ask, &table::INVALID_SELECTOR_VALUE, names);
    }
}

#[test]
fn h_17_each_missing_surplus_or_repeated_selector_is_named() {
    let class = ("CreationClassName", "T_System");
    let name = ("Name", "a");
    let missing = &table::INSUFFICIENT_SELECTORS;
    refused(
        &ask("T_System", &selectors(&[class])),
        missing,
        "selector Name",
    );
    refused(
        &ask("T_System", &selectors(&[name])),
        missing,
        "CreationClassName",
    );
    let surplus = &table::UNEXPECTED_SELECTORS;
    let given = selectors(&[class, name, ("State", "2")]);
    refused(&ask("T_System", &given), surplus, "State");
    let given = selectors(&[class, name, ("Nope", "2")]);
    refused(&ask("T_System", &given), surplus, "Nope");
    let twice = &table::DUPLICATE_SELECTORS;
    let given = selectors(&[class, name, ("NAME", "b")]);
    refused(&ask("T_System", &given), twice, "NAME");
    let unnamed = "<w:SelectorSet><w:Selector>a</w:Selector></w:SelectorSet>";
    refused(
        &ask("T_System", unnamed),
        &table::SCHEMA_VALIDATION_ERROR,
        "Name",
    );
}

#[test]
fn h_17_reference_keys_are_nested_references() {
    let system = reference(
        &format!("{WMI}T_System"),
        &[("Name", "a"), ("CreationClassName", "T_System")],
    );
    let job = reference(
        &format!("{DMTF}T_Job"),
        &[("InstanceID", "j"), ("__cimnamespace", V2)],
    );
    let wrap = |inner: &str| format!("<a:EndpointReference>{inner}</a:EndpointReference>");
    let given = selectors(&[("Antecedent", &wrap(&system)), ("Dependent", &wrap(&job))]);
    let link = target(&ask("T_Link", &given));
    let antecedent = link
        .path
        .get("Antecedent")
        .and_then(Value::as_reference)
        .unwrap();
    assert_eq!(antecedent.class.as_str(), "T_System");
    assert_eq!(antecedent.text("Name"), Some("a"));
    let dependent = link
        .path
        .get("Dependent")
        .and_then(Value::as_reference)
        .unwrap();
    assert_eq!(dependent.text("InstanceID"), Some("j"));
    assert_eq!(dependent.namespace.as_deref(), Some(V2));

    let text = selectors(&[
        ("Antecedent", "T_System.Name='a'"),
        ("Dependent", &wrap(&job)),
    ]);
    refused(
        &ask("T_Link", &text),
        &table::SELECTOR_TYPEMISMATCH,
        "Antecedent",
    );
    let epr = selectors(&[("CreationClassName", "x"), ("Name", &wrap(&job))]);
    refused(
        &ask("T_System", &epr),
        &table::SELECTOR_TYPEMISMATCH,
        "Name",
    );
    let foreign = wrap(&reference("urn:what", &[]));
    let given = selectors(&[("Antecedent", &foreign), ("Dependent", &wrap(&job))]);
    refused(
        &ask("T_Link", &given),
        &table::INVALID_SELECTOR_VALUE,
        "urn:what",
    );
    let empty = selectors(&[("Antecedent", &wrap("")), ("Dependent", &wrap(&job))]);
    refused(
        &ask("T_Link", &empty),
        &table::INVALID_SELECTOR_VALUE,
        "w:ResourceURI",
    );
}

#[test]
fn h_17_nesting_and_size_have_limits() {
    let nested = |levels: usize| {
        let mut inner = reference(&format!("{WMI}T_Job"), &[("InstanceID", "j")]);
        for _ in 1..levels {
            let wrapped = format!("<a:EndpointReference>{inner}</a:EndpointReference>");
            inner = reference(&format!("{WMI}T_Chain"), &[("Link", &wrapped)]);
        }
        let wrapped = format!("<a:EndpointReference>{inner}</a:EndpointReference>");
        ask("T_Chain", &selectors(&[("Link", &wrapped)]))
    };
    target(&nested(8));
    refused(&nested(9), &table::EPR_NESTING_EXCEEDED, "8");
    let many: Vec<String> = (0..65).map(|n| format!("k{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|n| (&**n, "v")).collect();
    refused(
        &ask("T_System", &selectors(&many)),
        &table::SELECTOR_LIMIT,
        "64",
    );
    let long = "x".repeat(33_000);
    let given = selectors(&[("CreationClassName", "T_System"), ("Name", &long)]);
    refused(&ask("T_System", &given), &table::SELECTOR_LIMIT, "32768");
}

#[test]
fn h_18_the_namespace_selector_is_no_key_and_agrees_with_the_uri() {
    let keys = [("InstanceID", "j")];
    let with = |uri: &str, namespace: &str| {
        let given = [keys.as_slice(), &[("__CIMnamespace", namespace)]].concat();
        Ask::new(GET, uri, &selectors(&given), "")
    };
    let wmi = &format!("{WMI}T_Job");
    let dmtf = &format!("{DMTF}T_Job");
    for (uri, namespace) in [
        (wmi, V2),
        (wmi, r"ROOT\Virtualization\V2"),
        (dmtf, V2),
        (dmtf, "root\\virtualization\\v2"),
        (dmtf, ""),
    ] {
        let target = target(&with(uri, namespace));
        assert_eq!(
            target.path.namespace.as_deref(),
            Some(V2),
            "{uri} {namespace}"
        );
        assert_eq!(target.path.keys.len(), 1);
    }
    // Absent: the default.
    target(&Ask::new(GET, dmtf, &selectors(&keys), ""));
    refused(
        &with(wmi, "root/cimv2"),
        &table::DIFFERENT_CIM_SELECTOR,
        "root/cimv2",
    );
    refused(
        &with(dmtf, "root/cimv2"),
        &table::RESOURCE_NOT_FOUND,
        "root/cimv2",
    );
}

#[test]
fn resources_that_are_no_class_answer_get_by_name() {
    let get = |uri: &str| Ask::new(GET, uri, "", "");
    let config = get("http://schemas.microsoft.com/wbem/wsman/1/config");
    assert!(matches!(
        config.request().operation,
        Operation::GetConfig(Part::All)
    ));
    let part = get("http://schemas.microsoft.com/wbem/wsman/1/config/service");
    assert!(matches!(
        part.request().operation,
        Operation::GetConfig(Part::Service)
    ));
    let part = get("http://schemas.microsoft.com/wbem/wsman/1/config/listener");
    refused(&part, &table::INVALID_RESOURCE_URI, "config/listener");
    let all = get("http://schemas.dmtf.org/wbem/wscim/1/*");
    refused(&all, &table::ACTION_MISMATCH, "Get");
    let metadata = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";
    let asked = Ask::new(GET, metadata, &selectors(&[("ClassName", "t_system")]), "");
    let found = asked.request().operation;
    assert!(matches!(found, Operation::GetClass(c) if c.name == *"T_System"));
    refused(&get(metadata), &table::INSUFFICIENT_SELECTORS, "ClassName");
    let put = config.replace(GET, "http://schemas.xmlsoap.org/ws/2004/09/transfer/Put");
    refused(&put, &table::ACCESS_DENIED, "configuration");
}
