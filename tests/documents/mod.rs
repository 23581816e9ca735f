//! The documents say what is there: links lead somewhere, tests that are named exist, the commands and the
//! configuration that are shown are the program's.

mod references;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use groupshot::config::Config;

/// Rule areas that `docs/conformance.md` goes through (`CL`: what clients need), and the states a rule may
/// have there.
const AREAS: &[&str] = &["N", "T", "H", "F", "X", "E", "I", "C", "O", "A", "Q", "CL"];
const MET: &str = "met";
const STATES: &[&str] = &[MET, "partly", "not met", "n/a"];

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (file, text) in documents() {
        for target in links(&text) {
            let path = target.split('#').next().unwrap();
            let outside = target.contains("://") || path.is_empty();
            if !outside && !file.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let known = tests();
    let mut wrong = Vec::new();
    let mut numbers = BTreeSet::new();
    for row in rows("docs/specification.md") {
        let [id, promise, kept] = row.as_slice() else {
            panic!("three cells: {row:?}");
        };
        let number = id.strip_prefix("S-").and_then(|n| n.parse::<u32>().ok());
        if number.is_none_or(|n| !numbers.insert(n)) {
            wrong.push(format!("{id} is no number, or stands twice"));
        }
        let names = code(kept);
        if names.is_empty() && !kept.contains("no test yet") {
            wrong.push(format!("{id} names no test and does not say so: {promise}"));
        }
        wrong.extend(unknown(&names, &known).map(|name| format!("{id} names {name}")));
    }
    let count = numbers.len();
    assert!(count >= 20, "{count} promises");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_one_state_and_its_tests_exist() {
    let known = tests();
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for row in rows("docs/conformance.md") {
        let [rule, about, state, kept] = row.as_slice() else {
            panic!("four cells: {row:?}");
        };
        let area = rule.split('-').next().unwrap();
        if !AREAS.contains(&area) {
            wrong.push(format!("{rule} is of no known area"));
        }
        if !STATES.contains(&state.as_str()) {
            wrong.push(format!("{rule} is `{state}`, none of {STATES:?}"));
        }
        if seen.insert(rule.clone(), about.clone()).is_some() {
            wrong.push(format!("{rule} stands twice"));
        }
        let names = code(kept);
        if state == MET && names.is_empty() {
            wrong.push(format!("{rule} is met and names no test"));
        }
        wrong.extend(unknown(&names, &known).map(|name| format!("{rule} names {name}")));
    }
    assert!(seen.len() >= 110, "{} rules", seen.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_configuration_that_is_shown_holds_the_defaults() {
    let text = read("docs/operating.md");
    let shown: Vec<_> = blocks(&text, "toml").collect();
    let config = shown.iter().find(|block| block.contains("[listen]"));
    assert_eq!(Config::parse(config.unwrap()), Ok(Config::default()));
}

/// Each `groupshot …` line of a block of shell commands: the command and its options are the program's.
#[test]
fn every_command_that_is_shown_is_known() {
    let mut shown = BTreeSet::new();
    for file in ["README.md", "docs/operating.md"] {
        let text = read(file);
        for line in blocks(&text, "sh").flat_map(str::lines) {
            let Some((_, after)) = format!(" {line}")
                .split_once(" groupshot ")
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
            else {
                continue;
            };
            let command = after.split(['|', '>', '#']).next().unwrap();
            shown.insert(command.trim().to_owned());
        }
    }
    assert!(shown.len() >= 20, "{shown:?}");
    for command in shown {
        let words: Vec<_> = command.split_whitespace().collect();
        let names = words.iter().take_while(|w| !w.starts_with('-')).take(2);
        let help = Command::new(env!("CARGO_BIN_EXE_groupshot"))
            .args(names)
            .arg("--help")
            .output()
            .unwrap();
        assert!(help.status.success(), "{command}");
        let help = String::from_utf8(help.stdout).unwrap();
        for option in words.iter().filter(|w| w.starts_with("--")) {
            assert!(help.contains(option), "{command}: {option}");
        }
    }
}

#[test]
fn the_map_of_the_tree_fits_in_one_reading() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 200, "ARCHITECTURE.md has {lines} lines");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Every document of the project with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = files(root(), "md", 0);
    for folder in ["docs", "schemas", "fixtures", "fuzz"] {
        found.extend(files(&root().join(folder), "md", 3));
    }
    assert!(found.len() >= 15, "{found:?}");
    found
}

/// The names of all tests, Rust and Python.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (folder, kind, start) in [
        ("src", "rs", "fn "),
        ("tests", "rs", "fn "),
        ("tests/python", "py", "def "),
    ] {
        for (_, text) in files(&root().join(folder), kind, 9) {
            for line in text.lines() {
                let Some((before, name)) = line.split_once(start) else {
                    continue;
                };
                if matches!(before.trim(), "" | "async") {
                    names.extend(name.split('(').next().map(str::to_owned));
                }
            }
        }
    }
    names
}

fn files(folder: &Path, kind: &str, depth: u8) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            found.extend(files(&path, kind, depth - 1));
        } else if path.extension().is_some_and(|e| e == kind) {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Rows of the tables of a document whose first cell looks like `A-1`, as cells.
fn rows(file: &str) -> Vec<Vec<String>> {
    let is_id = |cell: &str| {
        let number = cell.split_once('-').map_or("", |(_, n)| n);
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    };
    read(file)
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|'))
        .map(|row| row.split('|').map(|c| c.trim().to_owned()).collect())
        .filter(|row: &Vec<String>| is_id(&row[0]))
        .collect()
}

/// What stands in backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn unknown<'a>(names: &'a [&str], known: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
    names.iter().copied().filter(|name| !known.contains(*name))
}

/// The code blocks of one language.
fn blocks<'a>(text: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("```")
        .skip(1)
        .step_by(2)
        .filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}

/// Targets of `[…](…)`, outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    text.split("```")
        .step_by(2)
        .flat_map(|prose| prose.split("](").skip(1))
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}
