//! The compiler as a whole: what it makes of sound MOF, and every message for bad MOF with its place.

use super::*;
use crate::cim::schema::embedded;
use crate::cim::value::{Type, Value};

const NAMESPACE: &str = "root/test";

/// Compiles the texts, each a file `a.mof`, `b.mof`, … , with the built-in qualifier types.
fn compiled(texts: &[&str]) -> Compiled {
    let names = ["a.mof", "b.mof", "c.mof"];
    let mut sources: Vec<_> = texts
        .iter()
        .zip(names)
        .map(|(text, name)| Source {
            name,
            text,
            place: Place::Namespace(NAMESPACE),
        })
        .collect();
    for source in embedded().filter(|s| s.name == "schemas/qualifiers.mof") {
        sources.push(source);
    }
    compile(&sources)
}

fn sound(texts: &[&str]) -> Vec<Arc<Class>> {
    let compiled = compiled(texts);
    assert!(
        compiled.diagnostics.is_empty(),
        "{:#?}",
        compiled.diagnostics
    );
    compiled.classes
}

/// The classes by name.
fn class(classes: &[Arc<Class>], name: &str) -> Arc<Class> {
    classes
        .iter()
        .find(|c| c.name == *name)
        .expect(name)
        .clone()
}

/// `fixtures/mof/findings.txt`: bad MOF, `----`, all that is said about it, `====`. `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn every_error_is_said_with_its_place() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/mof/findings.txt");
    let golden = std::fs::read_to_string(path).expect(path);
    let mut now = String::new();
    for case in golden.split_inclusive("====\n") {
        let (mof, _) = case.split_once("----\n").expect("a case has a line ----");
        let findings = compiled(&[mof]).diagnostics;
        assert!(!findings.is_empty(), "nothing is said about: {mof}");
        let lines: String = findings.iter().map(|f| format!("{f}\n")).collect();
        now.push_str(&format!("{mof}----\n{lines}====\n"));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &now).expect(path);
    }
    assert!(golden == now, "other findings than in {path}:\n{now}");
}

const DEVICES: &str = r#"
[Abstract, Description ("Root")]
class T_Element {
    [Description ("A name")] string Name;
    uint8 Level = 3;
    [Description ("Goes")] uint32 Go ([In] uint8 Speed, [In (false), Out] string Why, [In, Out] uint8 Both, uint8 Plain);
};
"#;

const DISK: &str = r#"
class T_Disk : T_Element {
    uint64 Size;
    [Key, Override ("name"), MaxLen (0x10)] string NAME;
    [Static, Override ("Go")] uint32 Go ([In] uint8 Speed, [In (false), Out] string Why, [In, Out] uint8 Both, uint8 Plain);
    sint8 Levels[4] = {-1, +2, 0x7F, 011, 11b};
};
class T_BigDisk : T_Disk { };
[Association] class T_Next { [Key] T_Disk ref Left; [Key] T_Disk ref Right; };
"#;

#[test]
fn classes_come_flattened_whatever_the_order_of_files() {
    for texts in [[DEVICES, DISK], [DISK, DEVICES]] {
        let disk = class(&sound(&texts), "t_disk");
        let names: Vec<_> = disk.properties.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["Name", "Level", "Size", "Levels"]);
        assert_eq!(
            disk.keys().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["Name"]
        );
        let name = disk.property("NAME").unwrap();
        assert_eq!(
            (name.origin.as_str(), name.propagated),
            ("T_Element", false)
        );
        let level = disk.property("Level").unwrap();
        assert_eq!(
            (level.origin.as_str(), level.propagated),
            ("T_Element", true)
        );
        assert_eq!(level.default, Value::Uint8(3));
        let levels = [-1, 2, 127, 9, 3].map(Value::Sint8);
        assert_eq!(
            disk.property("Levels").unwrap().default,
            Value::Array(levels.to_vec())
        );
        assert_eq!(&*disk.namespace, NAMESPACE);
        assert_eq!(disk.lineage().count(), 2);
    }
}

#[test]
fn qualifiers_travel_by_their_flavors() {
    let classes = sound(&[DEVICES, DISK]);
    let (element, disk, big) = (
        class(&classes, "T_Element"),
        class(&classes, "T_Disk"),
        class(&classes, "T_BigDisk"),
    );
    assert!(element.is_abstract() && !disk.is_abstract());
    let root = disk.qualifiers.get("description").unwrap();
    assert!(root.propagated && root.value == Value::from("Root"));
    let name = disk.property("Name").unwrap();
    assert!(name.qualifiers.get("Description").unwrap().propagated);
    assert!(!name.qualifiers.get("Key").unwrap().propagated);
    assert_eq!(
        name.qualifiers.get("MaxLen").unwrap().value,
        Value::Uint32(16)
    );
    assert!(name.qualifiers.get("Override").is_some());
    let name = big.property("Name").unwrap();
    assert!(name.key && name.qualifiers.is("Key"));
    assert!(
        name.qualifiers.get("Override").is_none(),
        "Override is restricted"
    );
    assert!(class(&classes, "T_Next").is_association());
}

#[test]
fn methods_keep_place_origin_and_direction_of_parameters() {
    let classes = sound(&[DEVICES, DISK]);
    let disk = class(&classes, "T_Disk");
    assert_eq!(disk.methods.len(), 1);
    let go = disk.method("go").unwrap();
    assert!(go.is_static && !go.propagated && go.origin == "T_Element");
    let directions: Vec<_> = go.parameters.iter().map(|p| (p.input, p.output)).collect();
    assert_eq!(
        directions,
        [(true, false), (false, true), (true, true), (true, false)]
    );
    assert!(
        class(&classes, "T_BigDisk")
            .method("Go")
            .unwrap()
            .propagated
    );
    assert!(go.qualifiers.get("Description").unwrap().propagated);
}

#[test]
fn keywords_may_be_names_and_strings_may_be_split() {
    let text = "\u{FEFF}class T_A as $a { [Description (\"one \"\n\"two\") : Translatable] string Class; string Instance = NULL;\n\
                boolean Ref = TRUE; /* ; } */ real32 Real = 1.5; char16 Char = '\\x41'; datetime Flavor; // }\n\
                uint32 Of ([IN] string Schema, T_A REF Any); };";
    let a = class(&sound(&[text]), "T_A");
    let description = a
        .property("class")
        .unwrap()
        .qualifiers
        .get("Description")
        .unwrap();
    assert_eq!(description.value, Value::from("one two"));
    assert_eq!(a.property("Char").unwrap().default, Value::Char16(65));
    assert_eq!(a.property("Real").unwrap().default, Value::Real32(1.5));
    let of = a.method("Of").unwrap();
    assert_eq!(of.parameters[1].ty, Type::Reference("T_A".into()));
}

#[test]
fn a_library_gives_what_is_needed_to_each_namespace() {
    let library = Source {
        name: "library.mof",
        text: "class L_Root { [Key] string Id; }; class L_Kind : L_Root { }; class L_Unused { };",
        place: Place::Library,
    };
    let mine = Source {
        name: "mine.mof",
        text: "class M_A : L_Kind { };\n#pragma namespace (\"root\\\\other\")\nclass M_B : L_Root { };",
        place: Place::Namespace("root/mine"),
    };
    let qualifiers = embedded().filter(|s| s.name == "schemas/qualifiers.mof");
    let sources: Vec<_> = [mine, library].into_iter().chain(qualifiers).collect();
    let compiled = compile(&sources);
    assert!(
        compiled.diagnostics.is_empty(),
        "{:?}",
        compiled.diagnostics
    );
    let found: Vec<_> = compiled
        .classes
        .iter()
        .map(|c| format!("{}:{}", c.namespace, c.name))
        .collect();
    assert_eq!(
        found,
        [
            "root/mine:L_Root",
            "root/mine:L_Kind",
            "root/mine:M_A",
            "root/other:L_Root",
            "root/other:M_B"
        ]
    );
}

#[test]
fn inheritance_of_any_depth_ends() {
    let chain: String = (0..5000)
        .map(|n| format!("class C{n} : C{} {{ uint8 P; }};\n", n + 1))
        .collect();
    assert!(compiled(&[&chain]).has_errors());
    let chain: String = (0..5000)
        .rev()
        .map(|n| format!("class C{n} : C{} {{ }};\n", n + 1))
        .collect();
    let compiled = compiled(&[&format!("{chain} class C5000 {{ }};")]);
    assert!(
        compiled
            .diagnostics
            .iter()
            .any(|d| d.rule == Rule::InheritanceDepth)
    );
}

const WORDS: &[&str] = &[
    "class",
    "Qualifier",
    "instance",
    "of",
    "as",
    "$a",
    "A",
    "B",
    ":",
    ";",
    ",",
    "=",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "uint8",
    "string",
    "ref",
    "Key",
    "Override",
    "Association",
    "Scope",
    "Flavor",
    "any",
    "Restricted",
    "ToSubclass",
    "1",
    "-1",
    "1.5",
    "0x",
    "\"x\"",
    "\"",
    "'a'",
    "'",
    "/*",
    "*/",
    "//",
    "\n",
    "#pragma",
    "include",
    "namespace",
    "null",
    "true",
    "é",
    "\u{FEFF}",
    "\\",
    "%",
    "EmbeddedInstance",
    "ValueMap",
];

proptest::proptest! {
    #[test]
    fn no_order_of_words_can_make_it_panic(
        picks in proptest::collection::vec(0..WORDS.len(), 0..80)
    ) {
        let text: Vec<_> = picks.iter().map(|n| WORDS[*n]).collect();
        fuzz_mof(text.join(" ").as_bytes());
    }

    #[test]
    fn no_bytes_can_make_it_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        fuzz_mof(&bytes);
    }
}
