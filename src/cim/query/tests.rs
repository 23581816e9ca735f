//! Tables of queries: what they give, or what is wrong with them and where.

use proptest::prelude::*;

use super::*;
use crate::cim::DateTime;
use crate::cim::schema::VIRTUALIZATION_V2;
use crate::text::catalog::query as texts;

const GUID: &str = "6B29FC40-CA47-1067-B31D-00DD010662DA";

fn schema() -> Schema {
    Schema::builtin()
}

fn scope(schema: &Schema) -> Scope<'_> {
    Scope {
        schema,
        namespace: VIRTUALIZATION_V2,
        host: "HV1",
    }
}

fn new(schema: &Schema, class: &str) -> Instance {
    let class: &Arc<Class> = schema.class(VIRTUALIZATION_V2, class).unwrap();
    Instance::new(class)
}

/// A virtual machine `web1`, running, made on 2024-05-01T12:30:15Z.
fn machine(schema: &Schema) -> Instance {
    let made = DateTime::parse("2024-05-01T12:30:15Z").unwrap();
    new(schema, "Msvm_ComputerSystem")
        .with("CreationClassName", "Msvm_ComputerSystem")
        .and_then(|i| i.with("Name", GUID))
        .and_then(|i| i.with("ElementName", "web1"))
        .and_then(|i| i.with("EnabledState", 2_u16))
        .and_then(|i| i.with("OperationalStatus", vec![2_u16]))
        .and_then(|i| i.with("InstallDate", made))
        .unwrap()
}

fn select(language: Language, text: &str) -> Select {
    let schema = schema();
    match Query::read(language, text, &scope(&schema)) {
        Ok(Query::Select(select)) => select,
        other => panic!("{text}: {other:?}"),
    }
}

fn error(language: Language, text: &str) -> String {
    let schema = schema();
    let error = Query::read(language, text, &scope(&schema)).expect_err(text);
    error.to_string()
}

/// Is the machine in the result of the condition?
fn holds(language: Language, condition: &str) -> bool {
    let schema = schema();
    let text = format!("SELECT * FROM Msvm_ComputerSystem WHERE {condition}");
    select(language, &text).filter.matches(&machine(&schema))
}

#[test]
fn conditions_that_hold() {
    let path =
        format!(r#"Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"{GUID}\""#);
    for condition in [
        "ElementName = 'web1'",
        "ElementName = \"WEB1\"",
        "elementNAME = 'web1'",
        "'web1' = ElementName",
        "Msvm_ComputerSystem.ElementName = 'web1'",
        "EnabledState = 2",
        "EnabledState = '2'",
        "EnabledState = 0x2",
        "EnabledState = 2.0",
        "EnabledState <> 3 AND EnabledState != '3'",
        "EnabledState >= 2 and EnabledState < 70000",
        "3 > EnabledState",
        "EnabledState > -1",
        "EnabledState < 2.5",
        "ElementName LIKE 'web%'",
        "ElementName LIKE '%EB_'",
        "ElementName LIKE '[a-z]eb[^2-9]'",
        "ElementName LIKE '[v=x]eb1'",
        "NOT ElementName LIKE 'db%'",
        "ElementName NOT LIKE 'db%'",
        "ElementName > 'abc' AND ElementName < 'xyz'",
        "Description IS NULL",
        "Description = NULL",
        "ElementName IS NOT NULL",
        "ElementName <> NULL",
        "OperationalStatus IS NOT NULL",
        "ElementName = 'x' OR EnabledState = 2 AND NOT (EnabledState = 3)",
        "(ElementName = 'x' OR EnabledState = 2) AND EnabledState = 2",
        "InstallDate = '20240501123015.000000+000'",
        "InstallDate = '20240501143015.000000+120'",
        "InstallDate > '2024-01-01T00:00:00Z'",
        "InstallDate < '20250101000000.000000+000'",
        "__CLASS = 'msvm_computersystem'",
        "__CLASS LIKE 'Msvm%'",
        "__SUPERCLASS = 'CIM_ComputerSystem'",
        "__NAMESPACE = 'root/virtualization/v2'",
        r"__NAMESPACE = 'root\\virtualization\\v2'",
        "__SERVER = 'hv1'",
        "__GENUS = 2",
        r"__PATH LIKE '\\\\HV1\\root%'",
        "__THIS ISA 'CIM_ManagedElement'",
        "__this isa \"Msvm_ComputerSystem\"",
        "1 = 1",
        "'a' = 'A'",
        &format!("__PATH = '{path}'"),
        &format!(r"__PATH = '\\\\HV1\\root\\virtualization\\v2:{path}'"),
        &format!(r"__PATH = '\\\\.\\root/virtualization/v2:{path}'"),
        &format!("__RELPATH = '{path}'"),
        &format!("Name = '{}'", GUID.to_lowercase()),
    ] {
        assert!(holds(Language::Wql, condition), "{condition}");
    }
}

#[test]
fn conditions_that_do_not_hold() {
    for condition in [
        "ElementName = 'web'",
        "ElementName = 'web1 '",
        "EnabledState = 3",
        "EnabledState <> 2",
        "ElementName LIKE 'eb1'",
        "ElementName LIKE 'web[^1]'",
        "ElementName LIKE ''",
        "NOT EnabledState = 2",
        "1 = 2",
        // Compared with null nothing is true, nor is its opposite.
        "Description = 'x'",
        "Description <> 'x'",
        "NOT Description = 'x'",
        "Description LIKE '%'",
        "Description = 'x' AND EnabledState = 2",
        "NULL = NULL",
        "ElementName IS NULL",
        "__THIS ISA 'Msvm_ConcreteJob'",
        "InstallDate <> '2024-05-01T12:30:15Z'",
        // A length and a moment have no order.
        "InstallDate > '00000001000000.000000:000'",
        r#"__PATH = '\\\\OTHER\\root\\virtualization\\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="6B29FC40-CA47-1067-B31D-00DD010662DA"'"#,
    ] {
        assert!(!holds(Language::Wql, condition), "{condition}");
    }
}

#[test]
fn quoted_booleans_are_compared_with_booleans() {
    let schema = schema();
    let settings = new(&schema, "Msvm_VirtualSystemSettingData")
        .with("IsSaved", false)
        .unwrap();
    for (condition, wanted) in [
        ("IsSaved = 'True'", false),
        ("IsSaved = 'FALSE'", true),
        ("IsSaved = FALSE", true),
        ("IsSaved = 0", true),
        ("IsSaved <> true", true),
    ] {
        let text = format!("SELECT * FROM CIM_VirtualSystemSettingData WHERE {condition}");
        let text = text.replace("CIM_", "Msvm_");
        assert_eq!(
            select(Language::Wql, &text).filter.matches(&settings),
            wanted,
            "{condition}"
        );
    }
}

#[test]
fn references_are_compared_as_paths() {
    let schema = schema();
    let job = "6B29FC40-CA47-1067-B31D-00DD010662DB";
    let vm = machine(&schema).path().unwrap();
    let link = new(&schema, "Msvm_AffectedJobElement")
        .with("AffectedElement", vm)
        .and_then(|i| {
            i.with(
                "AffectingElement",
                Path::new(VIRTUALIZATION_V2, "Msvm_ConcreteJob").key("InstanceID", job),
            )
        })
        .unwrap();
    let q = |condition: &str| {
        let text = format!("SELECT * FROM Msvm_AffectedJobElement WHERE {condition}");
        select(Language::Wql, &text).filter.matches(&link)
    };
    assert!(q(&format!(
        r#"AffectingElement = 'Msvm_ConcreteJob.InstanceID="{job}"'"#
    )));
    assert!(q(&format!(
        r#"AffectingElement = '\\\\hv1\\root\\virtualization\\v2:Msvm_ConcreteJob.InstanceID="{job}"'"#
    )));
    assert!(q(&format!(
        r#"AffectingElement = 'CIM_ConcreteJob.InstanceID="{job}"'"#
    )));
    assert!(q(&format!(
        r#"AffectedElement = 'Msvm_ComputerSystem.Name=\"{GUID}\",CreationClassName=\"Msvm_ComputerSystem\"'"#
    )));
    assert!(q("AffectedElement ISA 'CIM_ComputerSystem'"));
    assert!(!q("AffectedElement ISA 'CIM_ConcreteJob'"));
    assert!(!q(
        r#"AffectingElement = 'Msvm_ConcreteJob.InstanceID="x"'"#
    ));
    assert!(q(
        r#"AffectingElement <> 'Msvm_ConcreteJob.InstanceID="x"'"#
    ));
}

#[test]
fn cql_compares_strings_with_case_and_has_aliases() {
    for (condition, wanted) in [
        ("ElementName = 'web1'", true),
        ("ElementName = 'WEB1'", false),
        ("EnabledState = 2 AND NOT EnabledState > 2", true),
        ("Msvm_ComputerSystem ISA CIM_ComputerSystem", true),
    ] {
        assert_eq!(holds(Language::Cql, condition), wanted, "{condition}");
    }
    let text = "SELECT c.Name FROM Msvm_ComputerSystem AS c WHERE c.EnabledState = 2";
    let schema = schema();
    assert!(
        select(Language::Cql, text)
            .filter
            .matches(&machine(&schema))
    );
}

#[test]
fn cql_looks_into_arrays_and_tells_where_an_instance_is() {
    let path =
        format!(r#"Msvm_ComputerSystem.CreationClassName=\"Msvm_ComputerSystem\",Name=\"{GUID}\""#);
    for (condition, wanted) in [
        ("OperationalStatus[0] = 2", true),
        ("c.OperationalStatus[0] <> 2", false),
        ("OperationalStatus[1] IS NULL", true),
        ("NOT OperationalStatus[1] = 2", false),
        ("ANY s IN OperationalStatus SATISFIES (s = 2)", true),
        (
            "ANY s IN c.OperationalStatus SATISFIES (s > 2 AND s < 5)",
            false,
        ),
        (
            "EVERY s IN OperationalStatus SATISFIES (s >= 2 OR s IS NULL)",
            true,
        ),
        ("NOT EVERY s IN OperationalStatus SATISFIES (s = 3)", true),
        ("ANY s IN StatusDescriptions SATISFIES (s LIKE '%')", false),
        (
            "NOT ANY s IN StatusDescriptions SATISFIES (s LIKE '%')",
            false,
        ),
        ("ANY s IN __DERIVATION SATISFIES (s = 'CIM_System')", true),
        ("ElementName = 'we' || 'b' || '1'", true),
        ("CLASSNAME(c) = 'Msvm_ComputerSystem'", true),
        ("CLASSNAME(OBJECTPATH(c)) = 'Msvm_ComputerSystem'", true),
        ("CLASSNAME() = 'CIM_ComputerSystem'", false),
        (
            "NAMESPACENAME(OBJECTPATH()) = 'root/virtualization/v2'",
            true,
        ),
        ("HOSTPORT(Msvm_ComputerSystem) = 'HV1'", true),
        (&format!("OBJECTPATH(c) = '{path}'"), true),
    ] {
        let text = format!("SELECT Name FROM Msvm_ComputerSystem AS c WHERE {condition}");
        let found = select(Language::Cql, &text);
        assert_eq!(
            found.filter.matches(&machine(&schema())),
            wanted,
            "{condition}"
        );
    }
}

#[test]
fn what_cql_does_not_offer_is_told_with_its_place() {
    for (text, wanted) in [
        (
            "SELECT DISTINCT Name FROM Msvm_ComputerSystem",
            "line 1, column 8: 'DISTINCT' is not offered in a query that enumerates instances",
        ),
        (
            "SELECT FIRST 5 Name FROM Msvm_ComputerSystem",
            "line 1, column 8: 'FIRST' is not offered in a query that enumerates instances",
        ),
        (
            "SELECT COUNT(*) FROM Msvm_ComputerSystem",
            "line 1, column 8: COUNT() is not offered in a query that enumerates instances",
        ),
        (
            "SELECT x.* FROM Msvm_ComputerSystem AS c",
            "line 1, column 8: x is neither the class of the query nor its alias",
        ),
        (
            "SELECT c.*, c.Name FROM Msvm_ComputerSystem AS c",
            "line 1, column 11: expected ',' or FROM, got ','",
        ),
        (
            "SELECT a.Name FROM Msvm_ComputerSystem AS a, CIM_Job AS b",
            "line 1, column 44: a join of classes is not offered in a query that enumerates instances",
        ),
        (
            "SELECT Name FROM Msvm_ComputerSystem WHERE Name = 'a' ORDER BY Name",
            "line 1, column 55: 'ORDER' is not offered in a query that enumerates instances",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE UPPERCASE(Name) = 'A'",
            "line 1, column 41: UPPERCASE() is not offered in a query that enumerates instances",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE CLASSNAME(x) = 'A'",
            "line 1, column 51: x is neither the class of the query nor its alias",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE CLASSNAME('x') = 'A'",
            "line 1, column 51: expected a class, an alias or ')', got 'x'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE OperationalStatus = 2",
            "line 1, column 41: OperationalStatus is an array; a condition compares single values, or tests an array with IS NULL",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE OperationalStatus[-1] = 2",
            "line 1, column 59: expected the number of an element, from 0, got -1",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name[0] = 'a'",
            "line 1, column 41: Name is no array",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ANY x IN Name SATISFIES (x = 2)",
            "line 1, column 50: Name is no array",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ANY x IN OperationalStatus = 2",
            "line 1, column 68: expected SATISFIES, got '='",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ANY x IN OperationalStatus SATISFIES (x = 'on')",
            "line 1, column 83: x is of type uint16 and cannot be compared with 'on'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ANY x IN OperationalStatus SATISFIES (y = 2)",
            "line 1, column 79: the class Msvm_ComputerSystem has no property y",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ANY x IN OperationalStatus SATISFIES (ANY y IN OperationalStatus SATISFIES (x = y))",
            "line 1, column 83: ANY or EVERY within another is not offered in a query that enumerates instances",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name = 'a' || Caption",
            "line 1, column 55: expected a text in quotes after '||', got 'Caption'",
        ),
    ] {
        assert_eq!(error(Language::Cql, text), wanted, "{text}");
    }
    // None of this is WQL.
    for condition in [
        "OperationalStatus[0] = 2",
        "ANY s IN OperationalStatus SATISFIES (s = 2)",
        "Name = 'a' || 'b'",
        "CLASSNAME() = 'a'",
    ] {
        let text = format!("SELECT * FROM Msvm_ComputerSystem WHERE {condition}");
        assert!(
            error(Language::Wql, &text).contains(": expected "),
            "{text}"
        );
    }
}

#[test]
fn columns_come_once_and_by_name() {
    for all in ["c.*", "Msvm_ComputerSystem.*"] {
        let text = format!("SELECT {all} FROM Msvm_ComputerSystem AS c WHERE c.Name = 'a'");
        assert!(select(Language::Cql, &text).columns.is_none());
        let written = parse(Language::Cql, &text).unwrap().to_string();
        assert_eq!(written, text);
    }
    let text = "select Name, __Class, elementname, NAME from msvm_computersystem";
    let columns = select(Language::Wql, text).columns.unwrap();
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["__CLASS", "ElementName", "Name"]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let over = format!(
        "SELECT * FROM Msvm_ComputerSystem WHERE {}EnabledState = 2",
        "(".repeat(33)
    );
    let many = vec!["EnabledState=2"; 513].join(" OR ");
    let many = format!("SELECT * FROM Msvm_ComputerSystem WHERE {many}");
    let long = format!("SELECT * FROM X WHERE Name = '{}'", "x".repeat(LENGTH_MAX));
    let table: &[(&str, &str)] = &[
        (
            "",
            "line 1, column 1: expected SELECT, ASSOCIATORS OF or REFERENCES OF, got the end of the query",
        ),
        (
            "SELEKT * FROM X",
            "line 1, column 1: expected SELECT, ASSOCIATORS OF or REFERENCES OF, got 'SELEKT'",
        ),
        (
            "SELECT FROM X",
            "line 1, column 8: expected '*' or the name of a property, got 'FROM'",
        ),
        (
            "SELECT *, Name FROM X",
            "line 1, column 9: expected ',' or FROM, got ','",
        ),
        (
            "SELECT * FROM",
            "line 1, column 14: expected the name of a class, got the end of the query",
        ),
        (
            "SELECT *\nFROM Msvm_ComputerSystem\nWERE Name = 'x'",
            "line 3, column 1: expected WHERE or the end of the query, got 'WERE'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE",
            "line 1, column 40: expected a property, a literal, NOT or '(', got the end of the query",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name",
            "line 1, column 45: expected a comparison operator, LIKE, IS or ISA, got the end of the query",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name = 'x' AND",
            "line 1, column 55: expected a property, a literal, NOT or '(', got the end of the query",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE (Name = 'x'",
            "line 1, column 52: expected AND, OR or ')', got the end of the query",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name = 'x",
            "line 1, column 48: expected ' at the end of the text, got the end of the query",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name = 'x' garbage",
            "line 1, column 52: expected the end of the query, got 'garbage'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name == 'x'",
            "line 1, column 47: expected a property or a literal, got '='",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name IS 5",
            "line 1, column 49: expected NULL or NOT NULL, got 5",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name LIKE 5",
            "line 1, column 51: expected a pattern in quotes, got 5",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name LIKE '[a'",
            "line 1, column 51: the pattern '[a' has '[' without ']'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState = 12abc",
            "line 1, column 56: expected a number, got '12abc'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem;",
            "line 1, column 34: expected a name, a literal or an operator, got ';'",
        ),
        (
            "SELECT * FROM Nix",
            "line 1, column 15: there is no class Nix in the namespace root/virtualization/v2",
        ),
        (
            "SELECT Nix FROM Msvm_ComputerSystem",
            "line 1, column 8: the class Msvm_ComputerSystem has no property Nix",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Nix = 1",
            "line 1, column 41: the class Msvm_ComputerSystem has no property Nix",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE x.Name = 'a'",
            "line 1, column 41: x is neither the class of the query nor its alias",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState = 'on'",
            "line 1, column 56: EnabledState is of type uint16 and cannot be compared with 'on'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState = TRUE",
            "line 1, column 56: EnabledState is of type uint16 and cannot be compared with TRUE",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 5",
            "line 1, column 55: ElementName is of type string and cannot be compared with 5",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE InstallDate > 'today'",
            "line 1, column 55: InstallDate is of type datetime and cannot be compared with 'today'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE InstallDate = '20240501******.******+000'",
            "line 1, column 55: InstallDate is of type datetime and cannot be compared with '20240501******.******+000'",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = EnabledState",
            "line 1, column 41: ElementName (string) and EnabledState (uint16) cannot be compared",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE OperationalStatus = 2",
            "line 1, column 41: OperationalStatus is an array; a condition compares single values, or tests an array with IS NULL",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState LIKE '2'",
            "line 1, column 41: EnabledState is of type uint16; LIKE takes a string property",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState > NULL",
            "line 1, column 56: NULL is compared with =, <> or IS only",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WHERE Name ISA 'CIM_Job'",
            "line 1, column 41: Name is of type string; ISA takes __THIS or a reference",
        ),
        (
            "SELECT * FROM Msvm_AffectedJobElement WHERE AffectedElement > 'X.A=1'",
            "line 1, column 45: values of type CIM_ManagedElement ref have no order; compare them with = or <>",
        ),
        (
            "SELECT * FROM Msvm_AffectedJobElement WHERE AffectedElement = '1'",
            "line 1, column 63: '1' is no object path: '1' is no class name",
        ),
        (
            "SELECT * FROM Msvm_AffectedJobElement WHERE AffectedElement = 'Nix.A=1'",
            "line 1, column 63: 'Nix.A=1' is no object path: there is no class Nix in root/virtualization/v2",
        ),
        (
            "SELECT * FROM Msvm_ComputerSystem WITHIN 3",
            "line 1, column 35: 'WITHIN' is not offered in a query that enumerates instances",
        ),
        ("ASSOCIATORS {x}", "line 1, column 13: expected OF, got 'x'"),
        (
            "ASSOCIATORS OF {x",
            "line 1, column 16: expected '}' after the object path, got the end of the query",
        ),
        (
            "ASSOCIATORS OF {Msvm_ComputerSystem}",
            "line 1, column 16: 'Msvm_ComputerSystem' is no object path: the path of a Msvm_ComputerSystem needs the key Name",
        ),
        (
            "ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='a'} WHERE Nix = a",
            "line 1, column 56: expected ResultClass, AssocClass, Role, ResultRole, RequiredQualifier, RequiredAssocQualifier, KeysOnly, ClassDefsOnly, SchemaOnly, got 'Nix'",
        ),
        (
            "REFERENCES OF {Msvm_ConcreteJob.InstanceID='a'} WHERE AssocClass = a",
            "line 1, column 55: expected ResultClass, Role, RequiredQualifier, KeysOnly, ClassDefsOnly, SchemaOnly, got 'AssocClass'",
        ),
        (
            "ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='a'} WHERE Role = a Role = b",
            "line 1, column 65: Role stands twice",
        ),
        (
            "ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='a'} WHERE ClassDefsOnly",
            "line 1, column 56: ClassDefsOnly is not offered in a query that enumerates instances",
        ),
        (
            "ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='a'} WHERE ResultClass = Nix",
            "line 1, column 70: there is no class Nix in the namespace root/virtualization/v2",
        ),
        (
            &over,
            "line 1, column 73: conditions are nested more than 32 deep",
        ),
        (
            &many,
            "line 1, column 9257: there are more than 512 comparisons",
        ),
        (&long, "the query is longer than 32768 bytes"),
    ];
    for (text, wanted) in table {
        assert_eq!(error(Language::Wql, text), *wanted, "{text}");
    }
    assert_eq!(
        error(Language::Cql, "ASSOCIATORS OF {x}"),
        "line 1, column 1: expected SELECT, got 'ASSOCIATORS'"
    );
}

#[test]
fn an_unknown_class_has_a_status_of_its_own() {
    let schema = schema();
    let read = |text| {
        Query::read(Language::Wql, text, &scope(&schema))
            .unwrap_err()
            .status
    };
    assert_eq!(read("SELECT * FROM Nix"), Status::InvalidClass);
    assert_eq!(
        read("SELECT Nix FROM Msvm_ComputerSystem"),
        Status::InvalidQuery
    );
}

#[test]
fn related_objects_are_named_in_every_form() {
    let schema = schema();
    let keys = format!(r#"CreationClassName="Msvm_ComputerSystem",Name="{GUID}""#);
    for object in [
        format!("Msvm_ComputerSystem.{keys}"),
        format!(r"\\HV1\root\virtualization\v2:Msvm_ComputerSystem.{keys}"),
        format!(r"\\\\HV1\\root\\virtualization\\v2:Msvm_ComputerSystem.{keys}"),
        format!(
            "root/virtualization/v2:Msvm_ComputerSystem.{}",
            keys.replace('"', "'")
        ),
    ] {
        let text = format!(
            "associators of {{{object}}} where ResultClass = Msvm_VirtualSystemSettingData \
             AssocClass='Msvm_SettingsDefineState' role=ManagedElement ResultRole = SettingData \
             RequiredAssocQualifier=Association KeysOnly"
        );
        let Ok(Query::Related(related)) = Query::read(Language::Wql, &text, &scope(&schema)) else {
            panic!("{text}");
        };
        assert_eq!(related.kind, RelatedKind::Associators);
        assert_eq!(related.object.text("Name"), Some(GUID));
        assert_eq!(
            related.result_class.unwrap().name,
            "Msvm_VirtualSystemSettingData"
        );
        assert_eq!(
            related.assoc_class.unwrap().name,
            "Msvm_SettingsDefineState"
        );
        assert_eq!(related.role.unwrap(), "managedelement");
        assert_eq!(related.result_role.unwrap(), "SettingData");
        assert_eq!(related.required_assoc_qualifier.unwrap(), "Association");
        assert!(related.keys_only);
    }
}

#[test]
fn what_must_be_equal_can_be_looked_up() {
    let of = |condition: &str| {
        let text = format!("SELECT * FROM Msvm_ComputerSystem WHERE {condition}");
        select(Language::Wql, &text).filter.equalities().to_vec()
    };
    let property = |name: &str, value: Value| Equality::Property(name.into(), value);
    assert_eq!(
        of("ElementName = 'Web1'"),
        [property("ElementName", "web1".into())]
    );
    assert_eq!(
        of("Name = 'a' AND (EnabledState = '2' AND Caption LIKE 'x')"),
        [
            property("Name", "a".into()),
            property("EnabledState", Value::Uint16(2))
        ]
    );
    assert_eq!(of("Name = 'a' OR ElementName = 'b'"), []);
    assert_eq!(of("NOT Name = 'a'"), []);
    assert_eq!(of("Name > 'a'"), []);
    let path = r#"__PATH = 'Msvm_ComputerSystem.CreationClassName="x",Name="y"'"#;
    assert!(matches!(of(path).as_slice(), [Equality::Object(_)]));
}

#[test]
fn a_selector_filter_compares_any_property_of_the_class() {
    let schema = schema();
    let class = schema
        .class(VIRTUALIZATION_V2, "Msvm_ComputerSystem")
        .unwrap();
    let read = |selectors: &[(&str, &str)]| selector_filter(class, selectors, &scope(&schema));
    let vm = machine(&schema);
    assert!(
        read(&[("elementname", "WEB1"), ("EnabledState", "2")])
            .unwrap()
            .filter
            .matches(&vm)
    );
    assert!(
        !read(&[("ElementName", "web1"), ("EnabledState", "3")])
            .unwrap()
            .filter
            .matches(&vm)
    );
    for (selectors, wanted) in [
        (
            &[][..],
            "a selector filter holds one w:SelectorSet with at least one w:Selector",
        ),
        (
            &[("Nix", "a")][..],
            "the selector Nix of the filter is no property of Msvm_ComputerSystem",
        ),
        (
            &[("__CLASS", "a")][..],
            "the selector __CLASS of the filter is no property of Msvm_ComputerSystem",
        ),
        (
            &[("Name", "a'b")][..],
            "the value of the selector Name of the filter holds a quotation mark",
        ),
        (
            &[("EnabledState", "on")][..],
            "the selector EnabledState of the filter takes uint16, got 'on'",
        ),
        (
            &[("OperationalStatus", "2")][..],
            "the selector OperationalStatus of the filter is of type uint16[]; a selector filter takes no arrays, datetimes and references",
        ),
        (
            &[("InstallDate", "2")][..],
            "the selector InstallDate of the filter is of type datetime; a selector filter takes no arrays, datetimes and references",
        ),
    ] {
        assert_eq!(read(selectors).unwrap_err().to_string(), wanted);
    }
}

/// Conditions of every kind, nested a little.
fn conditions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        ("[A-Za-z_][A-Za-z0-9_]{0,8}x", "[ -~é]{0,8}").prop_map(|(p, v)| {
            format!("{p} = '{}'", v.replace('\\', r"\\").replace('\'', r"\'"))
        }),
        ("[A-Z]{1,4}x", any::<i64>()).prop_map(|(p, n)| format!("{n} <= {p}")),
        (
            "[A-Z]{1,4}x",
            any::<f64>().prop_filter("finite", |n| n.is_finite())
        )
            .prop_map(|(p, n)| format!("{p} <> {n:e}")),
        "[A-Z]{1,4}x".prop_map(|p| format!("c.{p} IS NOT NULL")),
        "[A-Z]{1,4}x".prop_map(|p| format!("{p} NOT LIKE '%a[^b]_'")),
        "[A-Z]{1,4}x".prop_map(|p| format!("__this ISA {p}")),
        "[A-Z]{1,4}x".prop_map(|p| format!("{p}[3] = 'a' || 'b'")),
        "[A-Z]{1,4}x".prop_map(|p| format!("ANY v IN c.{p} SATISFIES (v = 1 OR v[0] = 2)")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|c| format!("NOT ({c})")),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|c| format!("({})", c.join(" AND "))),
            prop::collection::vec(inner, 2..4).prop_map(|c| format!("({})", c.join(") OR ("))
                .replace("((", "(")
                .replace("))", ")")),
        ]
    })
}

/// Words that mean something to a query, and some that nearly do.
const TOKENS: [&str; 56] = [
    "SELECT",
    "*",
    "FROM",
    "WHERE",
    "AND",
    "OR",
    "NOT",
    "(",
    ")",
    "=",
    "<>",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    ",",
    ".",
    "LIKE",
    "IS",
    "NULL",
    "ISA",
    "TRUE",
    "AS",
    "ASSOCIATORS",
    "REFERENCES",
    "OF",
    "ResultClass",
    "KeysOnly",
    "Role",
    "Msvm_ComputerSystem",
    "ElementName",
    "EnabledState",
    "InstallDate",
    "OperationalStatus",
    "__PATH",
    "__THIS",
    "'web'",
    "\"a\\\"b\"",
    "'[a-z'",
    "'%_[^]]'",
    "2",
    "-7",
    "0x1F",
    "1.5e-3",
    "ANY",
    "x",
    "IN",
    "SATISFIES",
    "[0]",
    "||",
    "CLASSNAME(",
    "OBJECTPATH()",
    "{Msvm_ConcreteJob.InstanceID='a'}",
    "{\\\\.\\root",
    "'\\",
];

static TOKEN_SCHEMA: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::builtin);

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(condition in conditions()) {
        let text = format!("SELECT * FROM X WHERE {condition}");
        for language in [Language::Wql, Language::Cql] {
            if let Ok(statement) = parse(language, &text) {
                let written = statement.to_string();
                let again = parse(language, &written);
                prop_assert_eq!(again.map(|s| s.to_string()).ok(), Some(written));
            }
        }
    }

    #[test]
    fn no_row_of_tokens_makes_the_reader_panic(picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
        let tokens: Vec<&str> = picks.iter().map(|p| *p.get(&TOKENS)).collect();
        for start in ["", "SELECT * FROM Msvm_ComputerSystem WHERE ", "ASSOCIATORS OF {Msvm_ConcreteJob.InstanceID='a'} WHERE "] {
            let text = format!("{start}{}", tokens.join(" "));
            prop_assert!(fuzz(Language::Wql, &text, &TOKEN_SCHEMA), "{}", text);
            prop_assert!(fuzz(Language::Cql, &text, &TOKEN_SCHEMA), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        let schema = Schema::default();
        prop_assert!(fuzz(Language::Wql, &text, &schema));
        prop_assert!(fuzz(Language::Cql, &text, &schema));
    }
}

/// Both are rendered with the whole: names and signs as they are, the rest in its language.
#[test]
fn what_was_expected_and_what_was_found_are_texts_within_the_text() {
    let schema = schema();
    let error = |language, text: &str| {
        let error = Query::read(language, text, &scope(&schema)).unwrap_err();
        let args = ["expected", "got"].map(|name| error.text.arg(name).cloned().unwrap());
        (error.text.id().to_owned(), args)
    };
    let plain = |word: &str| Argument::Plain(word.to_owned());
    let (id, args) = error(Language::Wql, "SELECT * FROM");
    assert_eq!(id, texts::SYNTAX.id);
    assert_eq!(args, [texts::CLASS_NAME.into(), texts::END.into()]);
    let (_, args) = error(Language::Cql, "SELECT * CIM_A");
    assert_eq!(args, [texts::COMMA_OR_FROM.into(), plain("'CIM_A'")]);
    let (_, args) = error(Language::Wql, "ASSOCIATORS {A.B='c'}");
    assert_eq!(args[0], plain("OF"));
}

/// Counts, and stops at a number.
struct Up(std::cell::Cell<usize>);

impl Effort for Up {
    fn spend(&self, steps: usize) -> Result<(), Stopped> {
        self.0.set(self.0.get() + steps);
        match self.0.get() > 100_000 {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
}

#[test]
fn a_long_text_is_stopped_while_it_is_looked_at() {
    let like = format!(
        "SELECT * FROM Msvm_ComputerSystem WHERE ElementName LIKE '%{}b%'",
        "_".repeat(6400)
    );
    let vm = machine(&schema())
        .with("ElementName", "a".repeat(50_000))
        .unwrap();
    let spent = Up(0.into());
    let judged = select(Language::Wql, &like).filter.judge(&vm, &spent);
    assert_eq!(judged, Err(Stopped));
    assert!(spent.0.get() < 110_000, "{:?}", spent.0);
}
