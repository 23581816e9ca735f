//! Selectors and targets, H-17, H-18, X-1, X-2.

use crate::cim::Value;
use crate::wsman::config::Part;
use crate::wsman::fault::{FaultKind, table};
use crate::wsman::fixture::{Ask, DMTF, ENUMERATE, GET, V2, WMI, reference, selectors};
use crate::wsman::request::{Operation, Target};
use crate::wsman::uri;

fn ask(class: &str, selectors: &str) -> Ask {
    Ask::new(GET, &format!("{WMI}{class}"), selectors, "")
}

fn target(ask: &Ask) -> Target {
    match ask.request().operation {
        Operation::Get(target) => target,
        other => panic!("{other:?}"),
    }
}

fn refused(ask: &Ask, kind: &'static FaultKind, names: &str) {
    let fault = ask.fault();
    assert_eq!(fault.kind.name, kind.name, "{fault:?}");
    let text = fault.text.english();
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
fn h_17_each_surplus_or_repeated_selector_is_named() {
    let class = ("CreationClassName", "T_System");
    let name = ("Name", "a");
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

/// Whether they name an instance is found out where the instances are.
#[test]
fn x_3_some_of_the_keys_are_kept_as_such() {
    let all = [("CreationClassName", "T_System"), ("Name", "a")];
    for given in [&all[..1], &all[1..], &all[..]] {
        let found = target(&ask("T_System", &selectors(given)));
        let keys: Vec<_> = found
            .path
            .keys
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let names: Vec<_> = given.iter().map(|(name, _)| *name).collect();
        assert_eq!((keys, found.path.partial), (names, given.len() < 2));
    }
    assert!(
        !target(&ask("T_System", "")).path.partial,
        "none is not some"
    );
    // In a reference among the keys too.
    let inner = reference(&format!("{WMI}T_System"), &[("Name", "a")]);
    let inner = format!("<a:EndpointReference>{inner}</a:EndpointReference>");
    let link = target(&ask("T_Link", &selectors(&[("Antecedent", &inner)])));
    assert!(link.path.partial);
    let inner = link.path.get("Antecedent").and_then(Value::as_reference);
    assert!(inner.unwrap().partial);
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
    // Each level would double them: 2.5 MB in all.
    let quotes = |count: usize| {
        let text = nested(8)
            .text
            .replace(">j<", &format!(">{}<", "\"".repeat(count)));
        Ask { text }
    };
    target(&quotes(10));
    refused(&quotes(10_000), &table::SELECTOR_LIMIT, "32768");
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

const CIMV2: &str = "root/cimv2";

/// A request on a URI of the WMI family, whose selector names another namespace.
fn contradicted(action: &str, uri: &str, keys: &[(&str, &str)], body: &str) -> Ask {
    let given = [keys, &[("__cimnamespace", CIMV2)]].concat();
    Ask::new(action, uri, &selectors(&given), body)
}

#[test]
fn h_18_a_uri_that_contradicts_the_namespace_selector_is_refused_by_each_operation() {
    let (one, all) = (format!("{WMI}T_Service"), format!("{WMI}*"));
    let start = format!("{WMI}T_Service/Count");
    let put = GET.replace("Get", "Put");
    let filter = |dialect: &str, text: &str| {
        format!("<n:Enumerate><w:Filter Dialect=\"{dialect}\">{text}</w:Filter></n:Enumerate>")
    };
    let wql = filter(uri::WQL, "SELECT * FROM T_Service");
    let object = reference(&format!("{WMI}T_Job"), &[("InstanceID", "j")]);
    let linked =
        format!("<b:AssociatedInstances><b:Object>{object}</b:Object></b:AssociatedInstances>");
    let linked = filter(uri::ASSOCIATION_FILTER, &linked);
    for (action, uri, body) in [
        (GET, &one, ""),
        (&put, &one, ""),
        (ENUMERATE, &one, "<n:Enumerate/>"),
        (ENUMERATE, &one, &wql),
        (ENUMERATE, &one, &linked),
        (ENUMERATE, &all, &wql),
        (ENUMERATE, &all, &linked),
        (&start, &one, ""),
    ] {
        let ask = contradicted(action, uri, &[], body);
        refused(&ask, &table::DIFFERENT_CIM_SELECTOR, CIMV2);
        let agrees = ask.replace(CIMV2, V2);
        assert!(
            action == put || agrees.received().request.is_ok(),
            "{action} {uri}"
        );
        // Neither URI of the DMTF family names a namespace: there the selector alone counts.
        let dmtf = ask.replace(uri, &uri.replace(WMI, DMTF));
        refused(&dmtf, &table::RESOURCE_NOT_FOUND, CIMV2);
    }
}

#[test]
fn h_18_a_reference_that_contradicts_itself_is_refused_wherever_it_stands() {
    let job = format!("{WMI}T_Job");
    let keys = [("InstanceID", "j"), ("__CIMNamespace", CIMV2)];
    let bad = reference(&job, &keys);
    let wrapped = format!("<a:EndpointReference>{bad}</a:EndpointReference>");
    let key = selectors(&[("Antecedent", &wrapped), ("Dependent", &wrapped)]);
    refused(&ask("T_Link", &key), &table::DIFFERENT_CIM_SELECTOR, CIMV2);

    let walk = format!("<b:AssociatedInstances><b:Object>{bad}</b:Object></b:AssociatedInstances>");
    let dialect = uri::ASSOCIATION_FILTER;
    let body =
        format!("<n:Enumerate><w:Filter Dialect=\"{dialect}\">{walk}</w:Filter></n:Enumerate>");
    let enumerate = Ask::new(ENUMERATE, &format!("{WMI}*"), "", &body);
    refused(&enumerate, &table::INVALID_FILTER_XML, CIMV2);

    let service = format!("{WMI}T_Service");
    let body = format!("<p:Do_INPUT><p:Jobs>{bad}</p:Jobs></p:Do_INPUT>");
    let call = Ask::new(&format!("{service}/Do"), &service, "", &body);
    refused(&call, &table::PARAMETER_INVALID_VALUE, CIMV2);

    // An empty selector says nothing, as in the header of a request.
    for namespace in ["", "ROOT\\virtualization\\v2"] {
        let call = call.replace(CIMV2, namespace);
        assert!(call.received().request.is_ok(), "{namespace}");
    }
}

#[test]
fn h_18_a_method_of_a_class_of_another_namespace_is_not_called() {
    let uri = format!("{WMI}T_Service");
    let action = format!("{uri}/Count");
    let call = Ask::new(&action, &uri, "", "");
    assert!(call.received().request.is_ok());
    let elsewhere = action.replace("virtualization/v2", "cimv2");
    refused(
        &call.replace(&action, &elsewhere),
        &table::ACTION_MISMATCH,
        "Count",
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
