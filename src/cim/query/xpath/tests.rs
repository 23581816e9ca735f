//! Tables of XPath filters: what they let through, or what is wrong with them and where.

use proptest::prelude::*;

use super::*;
use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{DateTime, Instance, Path, Status, Value};

const GUID: &str = "6B29FC40-CA47-1067-B31D-00DD010662DA";

static SCHEMA: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::builtin);

fn scope() -> Scope<'static> {
    Scope {
        schema: &SCHEMA,
        namespace: VIRTUALIZATION_V2,
        host: "HV1",
    }
}

fn class(name: &str) -> &'static Arc<Class> {
    SCHEMA.class(VIRTUALIZATION_V2, name).unwrap()
}

/// A virtual machine `web1`, running, made on 2024-05-01T12:30:15Z.
fn machine() -> Instance {
    let made = DateTime::parse("2024-05-01T12:30:15Z").unwrap();
    Instance::new(class("Msvm_ComputerSystem"))
        .with("CreationClassName", "Msvm_ComputerSystem")
        .and_then(|i| i.with("Name", GUID))
        .and_then(|i| i.with("ElementName", "web1"))
        .and_then(|i| i.with("Caption", "it's \"one\""))
        .and_then(|i| i.with("EnabledState", 2_u16))
        .and_then(|i| i.with("OperationalStatus", vec![2_u16, 32768]))
        .and_then(|i| i.with("InstallDate", made))
        .unwrap()
}

fn read(on: Option<&str>, text: &str) -> Result<Select, Error> {
    select(on.map(class), text, &scope())
}

fn holds(text: &str) -> bool {
    let read = read(Some("CIM_ComputerSystem"), text);
    // A property of the leaf only is none of the class that the URI names.
    let read = read.or_else(|_| self::read(Some("Msvm_ComputerSystem"), text));
    read.unwrap_or_else(|e| panic!("{text}: {e}"))
        .filter
        .matches(&machine())
}

#[test]
fn filters_that_hold() {
    for text in [
        "ElementName = 'web1'",
        "ElementName=\"web1\"",
        "elementname = 'web1'",
        "'web1' = ElementName",
        "./ElementName = 'web1'",
        "p:ElementName = 'web1'",
        "ElementName/text() = 'web1'",
        "ElementName[. = 'web1']",
        "ElementName[text() = 'web1']",
        "ElementName[starts-with(., 'we')][contains(., 'b1')]",
        "/Msvm_ComputerSystem[ElementName = 'web1']",
        "/p:Msvm_ComputerSystem/p:ElementName = 'web1'",
        "Msvm_ComputerSystem/ElementName = 'web1'",
        "Msvm_ComputerSystem[ElementName = 'web1']/EnabledState = 2",
        "Msvm_ComputerSystem[ElementName = 'web1'][EnabledState = 2]",
        "CIM_ManagedElement[ElementName = 'web1']",
        "/CIM_ComputerSystem",
        "Msvm_ComputerSystem/.",
        ".",
        "ElementName",
        "ElementName/text()",
        "ElementName = 'web1' and EnabledState = 2",
        "ElementName = 'x' or EnabledState = 2 and not(EnabledState = 3)",
        "(ElementName = 'x' or EnabledState = 2) and EnabledState = 2",
        "EnabledState = '2'",
        "EnabledState = 2.0",
        "EnabledState >= 2 and EnabledState < 70000 and 3 > EnabledState",
        "EnabledState > -1 and EnabledState < 2.5 and EnabledState > .5",
        "EnabledState != 3",
        "starts-with(ElementName, 'web')",
        "contains(ElementName, 'eb')",
        "contains(ElementName, '')",
        "not(starts-with(ElementName, 'eb'))",
        "Caption = 'it''s' or contains(Caption, \"it's\")",
        "contains(Caption, '\"one\"')",
        "InstallDate = '20240501123015.000000+000'",
        "InstallDate > '2024-01-01T00:00:00Z'",
        "InstallDate/cim:Datetime > '2024-01-01T00:00:00Z'",
        "Name = '6B29FC40-CA47-1067-B31D-00DD010662DA'",
        "Name != ElementName",
        // One of the values is enough.
        "OperationalStatus = 2",
        "OperationalStatus = 32768",
        "OperationalStatus != 2",
        "OperationalStatus[1] = 2",
        "OperationalStatus[2]/text() = '32768'",
        "OperationalStatus[2][. > 2]",
        "OperationalStatus",
        "OperationalStatus[. > 2 and . < 40000]",
        "OperationalStatus[. > 2] = 32768",
        "not(OperationalStatus = 5)",
        "not(OperationalStatus[3])",
        // Of a null property there is nothing but its attribute; what is not true is false.
        "not(Description)",
        "not(Description = 'x')",
        "not(Description != 'x')",
        "Description/@xsi:nil",
        "Description/@xsi:nil = 'true'",
        "Description[@xsi:nil = 'true']",
        "Description[@nil]",
        "not(ElementName/@xsi:nil = 'true')",
        "ElementName[not(@xsi:nil = 'true')]",
        "StatusDescriptions/@xsi:nil = 'true'",
        "1 = 1",
        "'a' != 'A'",
        " \n ElementName\n=\t'web1' ",
    ] {
        let text = text.replace("'it''s' or ", "'its' or ");
        assert!(holds(&text), "{text}");
    }
}

#[test]
fn filters_that_do_not_hold() {
    for text in [
        "ElementName = 'WEB1'",
        "ElementName = 'web'",
        "EnabledState = 3",
        "EnabledState != 2",
        "not(EnabledState = 2)",
        "starts-with(ElementName, 'eb')",
        "contains(ElementName, '%')",
        "Name = ElementName",
        "Msvm_ComputerSystem[ElementName = 'x']/EnabledState = 2",
        "OperationalStatus = 5",
        "OperationalStatus[1] = 32768",
        "OperationalStatus[1] != 2",
        "OperationalStatus[3]",
        "OperationalStatus[3] != 2",
        "OperationalStatus[. > 2 and . < 3]",
        "OperationalStatus[. > 2] = 2",
        "not(OperationalStatus != 2)",
        "Description",
        "Description = ''",
        "Description != 'x'",
        "Description/text()",
        "Description[not(. = 'x')]",
        "Description/@xsi:nil = 'false'",
        "ElementName/@xsi:nil",
        "ElementName[@xsi:nil = 'true']",
        "contains(Description, '')",
        "StatusDescriptions",
        "StatusDescriptions != 'a'",
        "1 = 2",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn references_are_compared_as_paths() {
    let job = "6B29FC40-CA47-1067-B31D-00DD010662DB";
    let path = Path::new(VIRTUALIZATION_V2, "Msvm_ConcreteJob").key("InstanceID", job);
    let link = Instance::new(class("Msvm_AffectedJobElement"))
        .with("AffectedElement", machine().path().unwrap())
        .and_then(|i| i.with("AffectingElement", path))
        .unwrap();
    let text = format!(r#"AffectingElement = 'CIM_ConcreteJob.InstanceID="{job}"'"#);
    let found = read(Some("Msvm_AffectedJobElement"), &text).unwrap();
    assert!(found.filter.matches(&link));
    let other = text.replace(job, "x");
    let found = read(Some("Msvm_AffectedJobElement"), &other).unwrap();
    assert!(!found.filter.matches(&link));
}

#[test]
fn booleans_are_compared_with_their_words() {
    let settings = Instance::new(class("Msvm_VirtualSystemSettingData"))
        .with("IsSaved", false)
        .unwrap();
    for (text, wanted) in [
        ("IsSaved = 'false'", true),
        ("IsSaved = 'true'", false),
        ("IsSaved != 'true'", true),
        // There is such an element, whatever its value.
        ("IsSaved", true),
    ] {
        let found = read(Some("Msvm_VirtualSystemSettingData"), text).unwrap();
        assert_eq!(found.filter.matches(&settings), wanted, "{text}");
    }
}

#[test]
fn on_all_classes_the_filter_begins_with_its_class() {
    for text in [
        "Msvm_ComputerSystem[ElementName = 'web1']",
        "/p:msvm_computersystem/ElementName = 'web1'",
        "'web1' = Msvm_ComputerSystem/ElementName",
        "starts-with(Msvm_ComputerSystem/ElementName, 'web')",
        "Msvm_ComputerSystem and Msvm_ComputerSystem/EnabledState = 2",
    ] {
        let found = read(None, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(found.class.name, "Msvm_ComputerSystem", "{text}");
        assert!(found.filter.matches(&machine()), "{text}");
    }
    let found = read(None, "CIM_ManagedElement[ElementName = 'web1']").unwrap();
    assert_eq!(found.class.name, "CIM_ManagedElement");
    assert!(found.filter.matches(&machine()));
    // A class further down restricts, and has its own properties.
    let text = "CIM_System and Msvm_ComputerSystem[not(EnhancedSessionModeState = 2)]";
    let found = read(None, text).unwrap();
    assert_eq!(found.class.name, "CIM_System");
    assert!(found.filter.matches(&machine()));
    let found = read(None, "CIM_LogicalElement and CIM_Job").unwrap();
    assert!(!found.filter.matches(&machine()));
}

#[test]
fn what_must_be_equal_can_be_looked_up() {
    use crate::cim::query::Equality;
    let of = |text: &str| {
        let found = read(Some("Msvm_ComputerSystem"), text).unwrap();
        found.filter.equalities().to_vec()
    };
    let name = Equality::Property("ElementName".into(), Value::from("web1"));
    for text in [
        "ElementName = 'web1'",
        "/Msvm_ComputerSystem[ElementName = 'web1']",
        "Msvm_ComputerSystem/ElementName = 'web1'",
        "ElementName[. = 'web1']",
        "ElementName = 'web1' and contains(Name, 'x')",
    ] {
        assert_eq!(of(text), std::slice::from_ref(&name), "{text}");
    }
    for text in [
        "not(ElementName = 'web1')",
        "ElementName = 'web1' or EnabledState = 2",
        "ElementName != 'web1'",
        "OperationalStatus = 2",
        "OperationalStatus[1] = 2",
    ] {
        assert_eq!(of(text), [], "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let deep = format!("{}EnabledState = 2", "not(".repeat(33));
    let many = vec!["EnabledState=2"; 513].join(" or ");
    let long = format!("ElementName = '{}'", "x".repeat(LENGTH_MAX));
    let table: &[(&str, &str)] = &[
        (
            "",
            "line 1, column 1: expected a path, a literal, not() or '(', got the end of the query",
        ),
        (
            "ElementName =",
            "line 1, column 14: expected a path, a literal, not() or '(', got the end of the query",
        ),
        (
            "ElementName\n= 'web1",
            "line 2, column 3: expected ' at the end of the text, got the end of the query",
        ),
        (
            "ElementName = 'a' 'b'",
            "line 1, column 19: expected an operator or the end of the query, got 'b'",
        ),
        (
            "ElementName = 'a' AND EnabledState = 2",
            "line 1, column 19: expected an operator or the end of the query, got 'AND'",
        ),
        (
            "ElementName == 'a'",
            "line 1, column 14: expected a path, a literal, not() or '(', got '='",
        ),
        (
            "(ElementName = 'a'",
            "line 1, column 19: expected an operator or ')', got the end of the query",
        ),
        (
            "ElementName[. = 'a'",
            "line 1, column 20: expected an operator or ']', got the end of the query",
        ),
        (
            "'web1'",
            "line 1, column 7: expected a comparison operator, got the end of the query",
        ),
        (
            "ElementName/",
            "line 1, column 13: expected a step after '/', got the end of the query",
        ),
        (
            "/",
            "line 1, column 2: expected the name of a class, got the end of the query",
        ),
        (
            "EnabledState = 12abc",
            "line 1, column 16: expected a number, got '12abc'",
        ),
        (
            "ElementName = #",
            "line 1, column 15: expected a name, a literal or an operator, got '#'",
        ),
        (
            "contains(ElementName)",
            "line 1, column 21: expected ',', got ')'",
        ),
        (
            "contains(ElementName, Name)",
            "line 1, column 23: expected a text in quotes, got 'Name'",
        ),
        (
            "//ElementName = 'a'",
            "line 1, column 1: '//' is not offered in a query that enumerates instances",
        ),
        (
            "child::ElementName = 'a'",
            "line 1, column 6: '::' is not offered in a query that enumerates instances",
        ),
        (
            "ElementName/../Name = 'a'",
            "line 1, column 13: '..' is not offered in a query that enumerates instances",
        ),
        (
            "* = 'a'",
            "line 1, column 1: '*' is not offered in a query that enumerates instances",
        ),
        (
            "EnabledState + 1 = 3",
            "line 1, column 14: '+' is not offered in a query that enumerates instances",
        ),
        (
            "EnabledState mod 2 = 0",
            "line 1, column 14: 'mod' is not offered in a query that enumerates instances",
        ),
        (
            "ElementName | Name",
            "line 1, column 13: '|' is not offered in a query that enumerates instances",
        ),
        (
            "ElementName = $x",
            "line 1, column 15: '$' is not offered in a query that enumerates instances",
        ),
        (
            "count(OperationalStatus) = 1",
            "line 1, column 1: count() is not offered in a query that enumerates instances",
        ),
        (
            "position() = 1",
            "line 1, column 1: position() is not offered in a query that enumerates instances",
        ),
        (
            "EnabledState = true()",
            "line 1, column 16: true() is not offered; the values of booleans are compared with 'true' and 'false' in quotes",
        ),
        (
            "ElementName/@xsi:type = 'a'",
            "line 1, column 14: @xsi:type is not offered in a query that enumerates instances",
        ),
        (
            "Nix = 1",
            "line 1, column 1: Nix is neither a property of Msvm_ComputerSystem nor the name of a class",
        ),
        (
            "Msvm_ComputerSystem[Nix = 1]",
            "line 1, column 21: the class Msvm_ComputerSystem has no property Nix",
        ),
        (
            "Msvm_ComputerSystem[__CLASS = 'x']",
            "line 1, column 21: the class Msvm_ComputerSystem has no property __CLASS",
        ),
        (
            "./Msvm_ComputerSystem",
            "line 1, column 3: the class Msvm_ComputerSystem has no property Msvm_ComputerSystem",
        ),
        (
            "/ElementName = 'a'",
            "line 1, column 2: there is no class ElementName in the namespace root/virtualization/v2",
        ),
        (
            "Msvm_ConcreteJob[Name = 'a']",
            "line 1, column 1: no instance of Msvm_ComputerSystem can be a Msvm_ConcreteJob",
        ),
        (
            "EnabledState = 'on'",
            "line 1, column 16: EnabledState is of type uint16 and cannot be compared with 'on'",
        ),
        (
            "OperationalStatus = 'on'",
            "line 1, column 21: OperationalStatus is of type uint16 and cannot be compared with 'on'",
        ),
        (
            "ElementName = 5",
            "line 1, column 15: ElementName is of type string and cannot be compared with 5",
        ),
        (
            "InstallDate > 'today'",
            "line 1, column 15: InstallDate is of type datetime and cannot be compared with 'today'",
        ),
        (
            "ElementName > 'a'",
            "line 1, column 1: ElementName is of type string, and XPath orders numbers only; compare it with = or !=",
        ),
        (
            "ElementName = EnabledState",
            "line 1, column 1: ElementName (string) and EnabledState (uint16) cannot be compared",
        ),
        (
            "OperationalStatus = EnabledState",
            "line 1, column 1: OperationalStatus is an array; name one of its values by its position, as in OperationalStatus[1]",
        ),
        (
            "Msvm_ComputerSystem = 'a'",
            "line 1, column 1: there is no value here that could be compared; name a property",
        ),
        (
            "Msvm_ComputerSystem[1]",
            "line 1, column 21: the position of an instance is not offered in a query that enumerates instances",
        ),
        (
            "ElementName[1] = 'a'",
            "line 1, column 13: [1] is no position in ElementName: an array has positions, from 1, before any condition",
        ),
        (
            "OperationalStatus[0] = 2",
            "line 1, column 19: [0] is no position in OperationalStatus: an array has positions, from 1, before any condition",
        ),
        (
            "OperationalStatus[. = 2][1]",
            "line 1, column 26: [1] is no position in OperationalStatus: an array has positions, from 1, before any condition",
        ),
        (
            "ElementName/Name = 'a'",
            "line 1, column 13: there is nothing below ElementName that a filter could ask for",
        ),
        (
            "OperationalStatus[/Msvm_ComputerSystem/OperationalStatus = 2]",
            "line 1, column 19: '/' in the predicate of a property is not offered in a query that enumerates instances",
        ),
        (
            "InstallDate/Datetime/Datetime",
            "line 1, column 22: there is nothing below the text of a datetime that a filter could ask for",
        ),
        (
            "ElementName/text()/text()",
            "line 1, column 20: there is nothing below text() that a filter could ask for",
        ),
        (
            "text() = 'a'",
            "line 1, column 1: there is nothing below the instance that a filter could ask for",
        ),
        (
            "contains(EnabledState, '2')",
            "line 1, column 10: EnabledState is of type uint16; contains() takes a single string",
        ),
        (
            "starts-with(StatusDescriptions, 'a')",
            "line 1, column 13: StatusDescriptions is of type string[]; starts-with() takes a single string",
        ),
        (
            &deep,
            "line 1, column 133: conditions are nested more than 32 deep",
        ),
        (
            &many,
            "line 1, column 9217: there are more than 512 comparisons",
        ),
        (&long, "the query is longer than 32768 bytes"),
    ];
    for (text, wanted) in table {
        let error = read(Some("Msvm_ComputerSystem"), text).expect_err(text);
        assert_eq!(error.to_string(), *wanted, "{text}");
        assert_eq!(
            error.status == Status::InvalidClass,
            wanted.contains("there is no class")
        );
    }
    for (text, wanted) in [
        (
            "not(Msvm_ComputerSystem)",
            "line 1, column 1: on the URI of all classes the filter begins with the class of the instances, as in Msvm_ComputerSystem[ElementName = 'web']",
        ),
        (
            "ElementName = 'web1'",
            "line 1, column 1: there is no class ElementName in the namespace root/virtualization/v2",
        ),
        (
            "Msvm_ComputerSystem or CIM_ManagedElement",
            "line 1, column 24: no instance of Msvm_ComputerSystem can be a CIM_ManagedElement",
        ),
        (
            "CIM_System[EnabledState = 2] or CIM_System[EnhancedSessionModeState = 2]",
            "line 1, column 44: the class CIM_System has no property EnhancedSessionModeState",
        ),
    ] {
        assert_eq!(
            read(None, text).expect_err(text).to_string(),
            wanted,
            "{text}"
        );
    }
}

/// Words that mean something to a filter, and some that nearly do.
const TOKENS: [&str; 44] = [
    "/",
    "//",
    "[",
    "]",
    "(",
    ")",
    "=",
    "!=",
    "<",
    ">=",
    ",",
    ".",
    "..",
    "@",
    "*",
    "|",
    "-",
    "::",
    "and",
    "or",
    "not(",
    "contains(",
    "starts-with(",
    "text()",
    "true()",
    "[1]",
    "[2]",
    "@xsi:nil",
    "p:Name",
    "Msvm_ComputerSystem",
    "CIM_ManagedElement",
    "Msvm_ConcreteJob",
    "ElementName",
    "EnabledState",
    "InstallDate",
    "OperationalStatus",
    "'web'",
    "\"it's\"",
    "'true'",
    "2",
    "-7",
    "-0.0",
    ".5",
    "'",
];

proptest! {
    #[test]
    fn no_row_of_tokens_makes_the_reader_panic(picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let tokens: Vec<&str> = picks.iter().map(|p| *p.get(&TOKENS)).collect();
        for (start, between) in [("", ""), ("Msvm_ComputerSystem[", " "), ("ElementName = 'a' and ", " ")] {
            let text = format!("{start}{}", tokens.join(between));
            prop_assert!(fuzz(&text, &SCHEMA), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        prop_assert!(fuzz(&text, &SCHEMA));
    }
}
