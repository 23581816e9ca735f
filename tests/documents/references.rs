//! What source, tests and documents refer to is there: pages and their sections, links and their anchors, rules of
//! the wire, promises, decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{AREAS, documents, files, links, read, root, rows};

/// Whether `docs/conformance.md` passes over the rule, as nothing of it is there yet: eventing, Put, Create and
/// Delete, fragments.
fn is_to_come(rule: &str) -> bool {
    let (family, number) = rule.split_once('-').unwrap();
    family == "V" || family == "X" && number.parse::<u32>().unwrap() >= 10
}

/// Where a text stands, and the text with each comment that goes over several lines in one.
struct Text {
    file: PathBuf,
    text: String,
}

impl Text {
    fn of((file, text): (PathBuf, String)) -> Self {
        let mut joined = String::new();
        for line in text.lines() {
            let line = line.trim_start();
            let comment = line.trim_start_matches(['/', '!', '#']);
            joined.push_str(if comment.len() < line.len() {
                comment
            } else {
                line
            });
            joined.push(' ');
        }
        let file = file.strip_prefix(root()).unwrap().to_owned();
        Self { file, text: joined }
    }
}

/// Source, tests and benches, Rust and Python.
fn sources() -> Vec<Text> {
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for kind in ["rs", "py"] {
            found.extend(files(&root().join(folder), kind, 9));
        }
    }
    found.extend(files(root(), "rs", 0));
    assert!(found.len() >= 300, "{} sources", found.len());
    found.into_iter().map(Text::of).collect()
}

/// Source and documents.
fn everything() -> Vec<Text> {
    let mut found = sources();
    found.extend(documents().into_iter().map(Text::of));
    found
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_page_that_is_cited_is_there_with_its_section() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut sections = BTreeMap::new();
    for Text { file, text } in everything() {
        // Links are relative to their document.
        let is_document = file.extension().is_some_and(|e| e == "md");
        for (page, cited) in citations(&text) {
            let place = root().join(page.trim_start_matches("../"));
            if is_document && !page.starts_with("docs/") {
                continue;
            }
            seen += 1;
            if !place.is_file() {
                wrong.push(format!("{}: {page}", file.display()));
                continue;
            }
            let known = sections
                .entry(place.clone())
                .or_insert_with(|| sections_of(&read(place.to_str().unwrap())));
            let unknown = cited.iter().filter(|s| !known.contains(s.as_str()));
            wrong.extend(unknown.map(|s| format!("{}: {page} §{s}", file.display())));
        }
    }
    assert!(seen >= 60, "{seen} citations");
    assert_none(&wrong);
}

#[test]
fn every_link_to_a_heading_finds_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in documents() {
        for target in links(&text) {
            let Some((path, anchor)) = target.split_once('#') else {
                continue;
            };
            if path.contains("://") {
                continue;
            }
            seen += 1;
            let page = match path {
                "" => file.clone(),
                _ => file.parent().unwrap().join(path),
            };
            if !anchors_of(&read(page.to_str().unwrap())).contains(anchor) {
                wrong.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(seen >= 10, "{seen} links to headings");
    assert_none(&wrong);
}

#[test]
fn every_rule_that_is_named_has_its_text() {
    let texts: BTreeSet<String> = first_cells("docs/rules.md");
    assert!(texts.len() >= 150, "{} rules", texts.len());
    let mut families: BTreeSet<&str> = AREAS.iter().copied().collect();
    families.insert("V");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for Text { file, text } in everything() {
        let mut named = numbered(&text, &families);
        if file.extension().is_some_and(|e| e != "md") {
            named.extend(of_test_names(&text, &families));
        }
        for rule in named {
            if !texts.contains(&rule) {
                wrong.push(format!("{}: {rule}", file.display()));
            }
            seen.insert(rule);
        }
    }
    assert!(seen.len() >= 100, "{} rules are named", seen.len());
    assert_none(&wrong);
}

#[test]
fn every_rule_with_a_text_has_a_state_but_those_to_come() {
    let states = first_cells("docs/conformance.md");
    let texts = first_cells("docs/rules.md");
    let missing = texts
        .iter()
        .filter(|r| !is_to_come(r) && !states.contains(*r));
    let wrong: Vec<_> = missing.map(|r| format!("{r} has no state")).collect();
    assert_none(&wrong);
}

#[test]
fn every_promise_that_is_named_is_made() {
    let made: BTreeSet<String> = rows("docs/specification.md")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let family = BTreeSet::from(["S"]);
    let mut wrong = Vec::new();
    for Text { file, text } in everything() {
        let unknown = numbered(&text, &family).into_iter();
        let unknown = unknown.filter(|number| !made.contains(number));
        wrong.extend(unknown.map(|number| format!("{}: {number}", file.display())));
    }
    assert_none(&wrong);
}

#[test]
fn every_decision_that_is_named_was_made_and_is_listed() {
    let folder = root().join("docs/decisions");
    let made: BTreeMap<u32, String> = files(&folder, "md", 0)
        .into_iter()
        .filter_map(|(file, _)| {
            let name = file.file_name()?.to_str()?.to_owned();
            Some((number_of(&name)?, name))
        })
        .collect();
    assert!(made.len() >= 50, "{} decisions", made.len());
    let mut wrong = Vec::new();
    for Text { file, text } in everything() {
        for number in decisions_named(&text) {
            if !made.contains_key(&number) {
                wrong.push(format!("{}: decision {number}", file.display()));
            }
        }
        for (words, target) in linked(&text) {
            let of = Path::new(target)
                .file_name()
                .and_then(|n| number_of(n.to_str()?));
            if let (Some(of), Ok(said)) = (of, words.parse::<u32>())
                && of != said
            {
                wrong.push(format!("{}: [{said}]({target})", file.display()));
            }
        }
    }
    let list = read("docs/decisions/README.md");
    let listed: BTreeSet<&str> = links(&list).into_iter().collect();
    let unlisted = made.values().filter(|name| !listed.contains(name.as_str()));
    wrong.extend(unlisted.map(|name| format!("{name} is not listed")));
    assert_none(&wrong);
}

#[test]
fn a_reference_is_found_in_every_form_that_is_used() {
    let text = Text::of((
        root().join("src/lib.rs"),
        "/// So it is (`docs/cut.md`\n/// §3 and §4), see `README.md`.\nfn h_17_h_18_some() {}"
            .to_owned(),
    ));
    let cited = citations(&text.text);
    let of = |page: &str, sections: &[&str]| {
        (
            page.to_owned(),
            sections.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        cited,
        [of("docs/cut.md", &["3", "4"]), of("README.md", &[])]
    );
    let families = BTreeSet::from(["H", "CL", "S"]);
    assert_eq!(of_test_names(&text.text, &families), ["H-17", "H-18"]);
    let named = numbered("rules H-1 to CL-20, UTF-8, XH-3, S-4", &families);
    assert_eq!(named, ["H-1", "CL-20", "S-4"]);
    assert_eq!(
        decisions_named("Decision 7; decisions 28 and 9, [1](b)"),
        [7, 28, 9]
    );
    assert_eq!(
        linked("as [20](docs/words.md) says"),
        [("20", "docs/words.md")]
    );
    let page = "# A\n\n## 4a. Some *words*, `code`\n\n**4.2 More.** x\n\n## 5. B\n";
    assert_eq!(
        sections_of(page),
        ["4a", "4.2", "5"].map(str::to_owned).into()
    );
    let anchors = anchors_of(page);
    assert!(anchors.contains("4a-some-words-code"), "{anchors:?}");
}

/// The first cells of the tables of a page that look like `A-1`.
fn first_cells(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for row in rows(page) {
        assert!(
            found.insert(row[0].clone()),
            "{} stands twice in {page}",
            row[0]
        );
    }
    found
}

/// Names of pages, each with the sections that are cited right behind it: `docs/cut.md` §1, §3 and §4.
fn citations(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(".md") {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let before = &text[..at];
        let start = before.rfind(|c| !is_part(c)).map_or(0, |i| {
            i + before[i..].chars().next().map_or(1, char::len_utf8)
        });
        let after = &text[at + ".md".len()..];
        if start == at || after.starts_with(is_part) && !after.starts_with('.') {
            continue;
        }
        let page = format!("{}.md", &before[start..]);
        found.push((page, sections_cited(after)));
    }
    found
}

fn sections_cited(after: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = after.trim_start_matches('`').trim_start();
    while let Some(label) = rest.strip_prefix('§') {
        let end = label
            .find(|c: char| !(c.is_ascii_digit() || c.is_ascii_lowercase() || c == '.'))
            .unwrap_or(label.len());
        found.push(label[..end].trim_end_matches('.').to_owned());
        rest = &label[end..];
        let separators = [" to ", ", ", " and "];
        let next = separators.iter().find_map(|s| rest.strip_prefix(s));
        rest = next.unwrap_or("");
    }
    found
}

/// The numbers of a page's sections: of headings (`## 4. …`) and of paragraphs (`**4.1 …`).
fn sections_of(page: &str) -> BTreeSet<String> {
    let number = |line: &str| {
        let line = line.trim_start_matches(['#', '*']);
        let label = line.trim_start().split([' ', '\n']).next()?;
        let label = label.trim_end_matches('.');
        label
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| label.to_owned())
    };
    let lines = page
        .lines()
        .filter(|l| l.starts_with("##") || l.starts_with("**"));
    lines.filter_map(number).collect()
}

/// The anchors that a page's headings have.
fn anchors_of(page: &str) -> BTreeSet<String> {
    let prose = page.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for heading in prose.lines().filter(|l| l.starts_with('#')) {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let mut names = std::iter::once(anchor.clone()).chain(again);
        found.insert(names.find(|name| !found.contains(name)).unwrap());
    }
    found
}

/// What looks like `H-17`, of one of the families.
fn numbered(text: &str, families: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('-') {
        let before = &text[..at];
        let name = before.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let family = &before[name.len()..];
        let alone = !name.ends_with(|c: char| c.is_alphanumeric() || "_-".contains(c));
        let after = &text[at + 1..];
        let digits = after.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = &after[..after.len() - digits.len()];
        let ends = !digits.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if families.contains(family) && alone && ends && !number.is_empty() {
            found.push(format!("{family}-{number}"));
        }
    }
    found
}

/// The rules at the beginning of names of tests: `h_17_` and, behind one, `h_18_`.
fn of_test_names(text: &str, families: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["fn ", "def test_"] {
        for name in text.split(start).skip(1) {
            let name = name
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .next();
            let mut words = name.unwrap_or_default().split('_').peekable();
            while let Some(word) = words.next() {
                if found_of(word, words.peek().copied(), families, &mut found) {
                    words.next();
                } else if word != "to" && word != "and" {
                    break;
                }
            }
        }
    }
    found
}

fn found_of(
    word: &str,
    number: Option<&str>,
    families: &BTreeSet<&str>,
    found: &mut Vec<String>,
) -> bool {
    let family = word.to_uppercase();
    let number = number.filter(|n| n.parse::<u32>().is_ok());
    match number {
        Some(number) if families.contains(family.as_str()) => {
            found.push(format!("{family}-{number}"));
            true
        }
        _ => false,
    }
}

/// The number that the name of a decision's page begins with.
fn number_of(name: &str) -> Option<u32> {
    let (number, _) = name.split_once('-')?;
    (number.len() == 4).then(|| number.parse().ok())?
}

/// The numbers behind the word: `decision 7`, `decisions 28 and 29`.
fn decisions_named(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("ecision") {
        let mut rest = text[at + word.len()..].trim_start_matches('s');
        while let Some(after) = rest
            .strip_prefix(", ")
            .or_else(|| rest.strip_prefix(" and "))
            .or_else(|| rest.strip_prefix(' '))
        {
            let end = after.find(|c: char| !c.is_ascii_digit());
            let Ok(number) = after[..end.unwrap_or(after.len())].parse() else {
                break;
            };
            found.push(number);
            rest = &after[end.unwrap_or(after.len())..];
        }
    }
    found
}

/// Words and target of each link.
fn linked(text: &str) -> Vec<(&str, &str)> {
    text.match_indices("](")
        .filter_map(|(at, _)| {
            let words = text[..at].rsplit_once('[')?.1;
            let target = text[at + 2..].split_once(')')?.0;
            Some((words, target))
        })
        .collect()
}
