//! No kind of fault without a golden envelope.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

#[test]
fn every_fault_that_the_source_names_has_a_golden_envelope() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    visit(&root.join("src"), &mut |path, text| {
        if !path.ends_with("tests.rs") {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            named.extend(kinds(code));
        }
    });
    assert!(
        named.len() > 50,
        "the search finds nothing any more: {named:?}"
    );
    let mut shown = BTreeSet::new();
    visit(&root.join("fixtures/golden"), &mut |_, text| {
        shown.extend(shown_kind(text))
    });
    let out_of_reach: BTreeSet<String> = OUT_OF_REACH
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    for name in &named {
        let (golden, excused) = (shown.contains(name), out_of_reach.contains(name));
        assert!(golden || excused, "{name} has no golden envelope");
        assert!(
            !golden || !excused,
            "{name} is in reach: take it off the list"
        );
    }
    let gone: Vec<_> = out_of_reach.difference(&named).collect();
    assert!(gone.is_empty(), "no longer in the source: {gone:?}");
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
