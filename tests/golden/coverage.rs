//! No kind of fault and no operation without a golden envelope in both URI families.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use groupshot::wsman::fault::table;

/// Kinds that the source names but that no request can bring about today, and why.
const OUT_OF_REACH: &[(&str, &str)] = &[
    (
        "ALREADY_EXISTS",
        "CIM status of a Create, and no class has one",
    ),
    (
        "CONCURRENCY",
        "two Pulls of one context at the same instant; tested in `operation::contexts`",
    ),
    (
        "ENDPOINT_UNAVAILABLE",
        "CIM status of a provider that stops; HTTP answers 503 before",
    ),
    (
        "INTERNAL_ERROR",
        "a provider that fails or panics; tested in `operation`",
    ),
    (
        "ENUMERATE_TIMED_OUT",
        "an evaluation that takes longer than n:MaxTime; tested in `operation`",
    ),
    (
        "INVALID_REPRESENTATION",
        "CIM status of a Put or Create, and no class has one",
    ),
    (
        "INVALID_SELECTORS",
        "CIM status of keys that fit no class; the schema has typed them before",
    ),
    (
        "INVALID_XML_VALUES",
        "CIM status of a Put or Create, and no class has one",
    ),
];

/// Kinds that no request on a class brings about, and why: a golden file of no family is enough.
const OF_NO_FAMILY: &[(&str, &str)] = &[
    (
        "CHARACTER_SET",
        "of the Content-Type, before anything is read",
    ),
    (
        "ENUMERATE_FILTERING_NOT_SUPPORTED",
        "class declarations are one resource, the same in both families",
    ),
    (
        "OPTIONS_NOT_SUPPORTED",
        "of the configuration, which is no class",
    ),
    (
        "UNSUPPORTED_FEATURE",
        "a sealed body, which nobody can read",
    ),
    (
        "UNSUPPORTED_MEDIA",
        "of the Content-Type, before anything is read",
    ),
];

/// Operations on classes, as their actions end; calls of methods are looked for by method.
const OPERATIONS: &[&str] = &["Get", "Enumerate", "Pull", "Release"];

/// The families of golden files, as their names end.
const FAMILIES: [&str; 2] = ["dmtf", "wmi"];

#[test]
fn every_fault_that_the_source_names_has_a_golden_envelope_in_both_families() {
    let named = named();
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    visit(&golden(), &mut |path, text| {
        if let Some(kind) = shown_kind(text) {
            shown.entry(kind).or_default().insert(family(path));
        }
    });
    let (out_of_reach, of_none) = (names(OUT_OF_REACH), names(OF_NO_FAMILY));
    let mut complaints = Vec::new();
    for name in &named {
        let families = shown.get(name).cloned().unwrap_or_default();
        let both = FAMILIES.iter().all(|f| families.contains(*f));
        match (out_of_reach.contains(name), of_none.contains(name)) {
            (true, _) if families.is_empty() => {}
            (false, true) if !families.is_empty() && !both => {}
            (false, false) if both => {}
            _ => complaints.push(format!("{name}: {families:?}")),
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let gone: Vec<_> = out_of_reach.union(&of_none).collect();
    let gone: Vec<_> = gone.iter().filter(|n| !named.contains(**n)).collect();
    assert!(gone.is_empty(), "no longer in the source: {gone:?}");
}

#[test]
fn every_operation_on_a_class_has_a_golden_envelope_in_both_families() {
    let mut shown = BTreeSet::new();
    visit(&golden(), &mut |path, text| {
        let action = text.split_once("<a:Action>").map(|(_, rest)| rest);
        let action = action.and_then(|rest| rest.split('<').next());
        let verb = action.and_then(|a| a.rsplit('/').next()?.strip_suffix("Response"));
        if let Some(verb) = verb {
            shown.insert((verb.to_owned(), family(path)));
        }
    });
    for verb in OPERATIONS.iter().map(|v| (*v).to_owned()).chain(methods()) {
        for family in FAMILIES {
            let wanted = (verb.clone(), family.to_owned());
            assert!(shown.contains(&wanted), "{verb} has no golden.{family}");
        }
    }
}

/// The methods that do something here: the rows of services, and the arms by which other providers tell them apart.
fn methods() -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    let quoted = |text: &str| {
        let name = text.split('"').nth(1).filter(|name| !name.is_empty());
        name.map(str::to_owned)
    };
    let providers = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provider/virtualization");
    visit(&providers, &mut |path, text| {
        let rows = text.split("Row::not_supported(").skip(1);
        let named = text.split("    const NAME: &'static str = ").skip(1);
        methods.extend(rows.chain(named).filter_map(quoted));
        if path.ends_with("mod.rs") {
            let arms = text.lines().map(str::trim).filter(|l| l.starts_with('"'));
            let arms = arms.filter_map(|l| l.split_once(" =>")).map(|(arm, _)| arm);
            methods.extend(arms.filter_map(quoted));
        }
    });
    assert!(
        methods.len() > 15,
        "the search finds no method: {methods:?}"
    );
    methods
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden")
}

/// `dmtf`, `wmi`, or nothing for an answer of no family.
fn family(path: &Path) -> String {
    let stem = path.file_stem().unwrap().to_string_lossy();
    let family = FAMILIES.iter().find(|f| stem.ends_with(&format!(".{f}")));
    family.map_or_else(String::new, |f| (*f).to_owned())
}

fn names(list: &[(&str, &str)]) -> BTreeSet<String> {
    list.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// The kinds that the source names outside of its tests.
fn named() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    visit(&source, &mut |path, text| {
        if !path.ends_with("tests.rs") && !path.to_string_lossy().contains("/tests/") {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            named.extend(kinds(code));
        }
    });
    assert!(
        named.len() > 50,
        "the search finds nothing any more: {named:?}"
    );
    named
}

/// The names after `table::`.
fn kinds(code: &str) -> impl Iterator<Item = String> {
    code.split("table::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_')?;
        (end > 0).then(|| rest[..end].to_owned())
    })
}

/// The row of the table that a golden fault shows.
fn shown_kind(text: &str) -> Option<String> {
    let between = |start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0);
    let number = between(
        "<f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"",
        "\"",
    )?;
    let subcode = between("<s:Subcode>\n<s:Value>", "<").unwrap_or_default();
    let detail = between("/faultDetail/", "<").unwrap_or_default();
    let kind = table::ALL
        .iter()
        .find(|k| k.number.to_string() == number && k.subcode == subcode && k.detail == detail);
    let kind = kind.unwrap_or_else(|| panic!("no row for {number} {subcode} {detail}"));
    Some(kind.name.to_owned())
}

fn visit(folder: &Path, each: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, each);
        } else {
            each(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
