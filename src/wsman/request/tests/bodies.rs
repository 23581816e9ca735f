//! Bodies of Enumerate, Pull and Release, E-1 to E-33.

use std::time::Duration;

use crate::wsman::fault::{FaultKind, table};
use crate::wsman::fixture::{Ask, DMTF, ENUMERATE, WMI, selectors};
use crate::wsman::request::{Enumerate, Expires, Mode, Operation, Polymorphism, Pull, Source};

const PULL: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull";
const RELEASE: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Release";
const ALL: &str = "http://schemas.dmtf.org/wbem/wscim/1/*";

fn ask(children: &str) -> Ask {
    let body = format!("<n:Enumerate>{children}</n:Enumerate>");
    Ask::new(ENUMERATE, &format!("{WMI}t_system"), "", &body)
}

fn enumerate(children: &str) -> Enumerate {
    match ask(children).request().operation {
        Operation::Enumerate(enumerate) => enumerate,
        other => panic!("{other:?}"),
    }
}

fn pull(children: &str) -> Ask {
    let body = format!("<n:Pull>{children}</n:Pull>");
    Ask::new(PULL, &format!("{WMI}T_System"), "", &body)
}

fn pulled(children: &str) -> Pull {
    match pull(children).request().operation {
        Operation::Pull(pull) => pull,
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
fn e_1_a_plain_enumerate_has_the_defaults() {
    let plain = enumerate("");
    assert!(matches!(&plain.source, Source::Class(class) if class.name == *"T_System"));
    assert!(!plain.optimize);
    assert_eq!(plain.max_elements, None);
    assert_eq!(plain.mode, Mode::Object);
    assert_eq!(plain.polymorphism, Polymorphism::IncludeSubClassProperties);
    assert_eq!(plain.expires, None);
}

#[test]
fn e_1_children_come_in_any_order_and_unknown_ones_are_passed_over() {
    let full = enumerate(
        "<b:PolymorphismMode> None </b:PolymorphismMode><p:SessionId>x</p:SessionId><w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode><w:MaxElements>32000</w:MaxElements><w:OptimizeEnumeration xsi:nil=\"true\"/><n:Expires>PT10M</n:Expires><q:x xmlns:q=\"urn:q\"/>",
    );
    assert!(full.optimize);
    assert_eq!(full.max_elements, Some(32000));
    assert_eq!(full.mode, Mode::ObjectAndEpr);
    assert_eq!(full.polymorphism, Polymorphism::None);
    assert_eq!(full.expires, Some(Expires::After(Duration::from_secs(600))));
}

#[test]
fn e_1_another_body_or_none_is_a_schema_error() {
    let uri = format!("{WMI}T_System");
    for body in ["", "<n:Pull/>", "<Enumerate/>", "<w:Enumerate/>"] {
        let ask = Ask::new(ENUMERATE, &uri, "", body);
        refused(&ask, &table::SCHEMA_VALIDATION_ERROR, "Enumerate");
    }
    let end_to = ask("<n:EndTo><a:Address>http://x/</a:Address></n:EndTo>");
    refused(&end_to, &table::UNSUPPORTED_ADDRESSING_MODE, "n:EndTo");
}

#[test]
fn e_2_expires_is_a_positive_duration_or_a_moment() {
    let with = |text: &str| format!("<n:Expires>{text}</n:Expires>");
    let moment = enumerate(&with("2030-01-01T00:00:00Z")).expires;
    let expected: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(moment, Some(Expires::At(expected)));
    for text in ["PT0S", "-PT5S"] {
        refused(
            &ask(&with(text)),
            &table::ENUMERATE_INVALID_EXPIRATION_TIME,
            text,
        );
    }
    for text in ["", "soon", "60"] {
        let kind = &table::ENUMERATE_UNSUPPORTED_EXPIRATION_TYPE;
        refused(&ask(&with(text)), kind, text);
    }
}

#[test]
fn e_7_the_enumeration_mode_is_known() {
    let with = |text: &str| format!("<w:EnumerationMode>{text}</w:EnumerationMode>");
    assert_eq!(enumerate(&with(" EnumerateEPR ")).mode, Mode::Epr);
    refused(
        &ask(&with("EnumerateAll")),
        &table::ENUMERATION_MODE_UNSUPPORTED,
        "EnumerateAll",
    );
}

#[test]
fn e_8_max_elements_is_above_zero() {
    let with = |text: &str| format!("<w:MaxElements>{text}</w:MaxElements>");
    assert_eq!(enumerate(&with(" 5 ")).max_elements, Some(5));
    let huge = enumerate(&with("99999999999999999999999")).max_elements;
    assert_eq!(huge, Some(usize::MAX));
    for text in ["0", "", "-1", "many"] {
        refused(&ask(&with(text)), &table::MAX_ELEMENTS_NOT_SUPPORTED, text);
    }
}

#[test]
fn e_9_enumerate_takes_no_key() {
    let class = format!("{WMI}T_System");
    let given = selectors(&[("Name", "a")]);
    let ask = Ask::new(ENUMERATE, &class, &given, "<n:Enumerate/>");
    refused(&ask, &table::ENUMERATE_WMI_INVALID_KEY, "Name");
    let given = selectors(&[("__cimnamespace", "root/virtualization/v2")]);
    let dmtf = format!("{DMTF}T_System");
    Ask::new(ENUMERATE, &dmtf, &given, "<n:Enumerate/>").request();
}

#[test]
fn e_11_to_e_14_pull_gives_the_context_and_its_limits() {
    let context = "<n:EnumerationContext>\n uuid:C \n</n:EnumerationContext>";
    let plain = pulled(context);
    assert_eq!(plain.context, "uuid:C");
    let none = (None, None, None, None);
    let limits = |p: &Pull| {
        (
            p.max_elements,
            p.max_elements_wsman,
            p.max_characters,
            p.max_time,
        )
    };
    assert_eq!(limits(&plain), none);
    let full = pulled(&format!(
        "<n:MaxTime>PT5S</n:MaxTime><w:OptimizeEnumeration/>{context}<w:MaxElements>7</w:MaxElements><n:MaxElements>9</n:MaxElements><n:MaxCharacters>99999</n:MaxCharacters>"
    ));
    let five = Some(Duration::from_secs(5));
    assert_eq!(limits(&full), (Some(9), Some(7), Some(99999), five));
    // In the wrong namespace it never faults.
    let odd = pulled(&format!("{context}<w:MaxElements>0</w:MaxElements>"));
    assert_eq!(limits(&odd), none);
    for (child, kind) in [
        (
            "<n:MaxElements>0</n:MaxElements>",
            &table::MAX_ELEMENTS_NOT_SUPPORTED,
        ),
        (
            "<n:MaxCharacters>0</n:MaxCharacters>",
            &table::SCHEMA_VALIDATION_ERROR,
        ),
        ("<n:MaxTime>long</n:MaxTime>", &table::MAXTIME_NOT_SUPPORTED),
    ] {
        refused(&pull(&format!("{context}{child}")), kind, "Max");
    }
}

#[test]
fn e_3_a_pull_goes_by_its_context_whatever_the_resource() {
    let ask = pull("<n:EnumerationContext>uuid:C</n:EnumerationContext>");
    let uri = format!("{WMI}T_System");
    for other in [
        "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/*",
        "http://schemas.dmtf.org/wbem/wscim/1/*",
        "urn:whatever",
    ] {
        ask.replace(&uri, other).request();
    }
}

#[test]
fn e_12_and_e_15_a_context_is_required() {
    let gone = &table::ENUMERATE_INVALID_ENUMERATION_CONTEXT;
    refused(&pull(""), gone, "n:EnumerationContext");
    refused(
        &pull("<n:EnumerationContext/>"),
        gone,
        "n:EnumerationContext",
    );
    let release = |body: &str| Ask::new(RELEASE, &format!("{WMI}T_System"), "", body);
    let body = "<n:Release><n:EnumerationContext>uuid:C</n:EnumerationContext></n:Release>";
    match release(body).request().operation {
        Operation::Release(context) => assert_eq!(context, "uuid:C"),
        other => panic!("{other:?}"),
    }
    refused(&release("<n:Release/>"), gone, "n:EnumerationContext");
    refused(
        &release("<n:Pull/>"),
        &table::SCHEMA_VALIDATION_ERROR,
        "Release",
    );
}

#[test]
fn e_31_the_polymorphism_mode_is_known() {
    let with = |text: &str| format!("<b:PolymorphismMode>{text}</b:PolymorphismMode>");
    let mode = enumerate(&with("ExcludeSubClassProperties")).polymorphism;
    assert_eq!(mode, Polymorphism::ExcludeSubClassProperties);
    refused(
        &ask(&with("Some")),
        &table::POLYMORPHISM_MODE_UNSUPPORTED,
        "Some",
    );
}

#[test]
fn e_33_every_class_at_once_needs_a_filter() {
    let ask = Ask::new(ENUMERATE, ALL, "", "<n:Enumerate/>");
    refused(
        &ask,
        &table::ENUMERATE_CANNOT_PROCESS_FILTER,
        "filter is required",
    );
    let nowhere = selectors(&[("__cimnamespace", "root/nowhere")]);
    let ask = Ask::new(ENUMERATE, ALL, &nowhere, "<n:Enumerate/>");
    refused(&ask, &table::RESOURCE_NOT_FOUND, "root/nowhere");
}

#[test]
fn e_40_a_query_stands_in_either_filter_and_on_either_uri() {
    for dialect in [
        "http://schemas.microsoft.com/wbem/wsman/1/WQL",
        "http://schemas.dmtf.org/wbem/wsman/1/WQL",
        "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf",
    ] {
        for filter in ["n:Filter", "w:Filter"] {
            let text = "select Name from T_System where Name = 'a'";
            let body = format!(
                r#"<n:Enumerate><{filter} Dialect="{dialect}"> {text} </{filter}></n:Enumerate>"#
            );
            for uri in [ALL.to_owned(), format!("{WMI}*"), format!("{WMI}T_System")] {
                let ask = Ask::new(ENUMERATE, &uri, "", &body);
                let Operation::Enumerate(wish) = ask.request().operation else {
                    panic!("{uri}");
                };
                let Source::Select(select) = wish.source else {
                    panic!("{uri}");
                };
                assert_eq!(select.class.name.as_str(), "T_System");
                assert_eq!(select.columns.unwrap().len(), 1);
                assert_eq!(select.filter.equalities().len(), 1);
            }
            let other = Ask::new(ENUMERATE, &format!("{WMI}T_Job"), "", &body);
            refused(&other, &table::INVALID_URI_WMI_ENUM_WQL, "T_Job");
        }
    }
}

#[test]
fn e_40_what_is_no_known_filter_is_refused() {
    refused(
        &ask(r#"<w:Filter Dialect="http://example.org/xpath">//x</w:Filter>"#),
        &table::ENUMERATE_FILTER_DIALECT_REQUESTED_UNAVAILABLE,
        "xpath",
    );
    refused(
        &ask("<w:Filter/><n:Filter/>"),
        &table::ENUMERATE_CANNOT_PROCESS_FILTER,
        "n:Filter and w:Filter",
    );
    let wql = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
    refused(
        &ask(&format!(r#"<w:Filter Dialect="{wql}"><x/></w:Filter>"#)),
        &table::INVALID_FILTER_XML,
        "not elements",
    );
}

#[test]
fn e_40_a_filter_without_a_dialect_is_xpath() {
    let text = "T_System[Name = 'a']";
    for dialect in [
        "",
        r#" Dialect="http://www.w3.org/TR/1999/REC-xpath-19991116""#,
    ] {
        for filter in ["n:Filter", "w:Filter"] {
            let body = format!("<n:Enumerate><{filter}{dialect}>{text}</{filter}></n:Enumerate>");
            for uri in [ALL.to_owned(), format!("{WMI}*"), format!("{WMI}T_System")] {
                let ask = Ask::new(ENUMERATE, &uri, "", &body);
                let Operation::Enumerate(wish) = ask.request().operation else {
                    panic!("{uri}");
                };
                let Source::Select(select) = wish.source else {
                    panic!("{uri}");
                };
                assert_eq!(select.class.name.as_str(), "T_System");
                assert!(select.columns.is_none());
                assert_eq!(select.filter.equalities().len(), 1);
            }
            let other = Ask::new(ENUMERATE, &format!("{WMI}T_Job"), "", &body);
            let place = "line 1, column 1: no instance of T_Job can be a T_System";
            refused(&other, &table::ENUMERATE_CANNOT_PROCESS_FILTER, place);
        }
    }
    refused(
        &ask("<w:Filter>//x</w:Filter>"),
        &table::ENUMERATE_CANNOT_PROCESS_FILTER,
        "line 1, column 1: '//' is not offered",
    );
    refused(
        &ask("<w:Filter><x/></w:Filter>"),
        &table::INVALID_FILTER_XML,
        "not elements",
    );
}

#[test]
fn e_41_a_bad_query_is_refused_with_its_place() {
    let wql = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
    refused(
        &ask(&format!(
            r#"<w:Filter Dialect="{wql}">SELECT Nix FROM T_System</w:Filter>"#
        )),
        &table::ENUMERATE_CANNOT_PROCESS_FILTER,
        "line 1, column 8: the class T_System has no property Nix",
    );
}
