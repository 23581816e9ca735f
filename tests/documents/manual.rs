//! The manual pages: each command's has all sections, and says what `docs/reference/commands.md` says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::{assert_known, files, read};

const REFERENCE: &str = "docs/reference/commands.md";
const SECTIONS: [&str; 4] = ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"];

/// The items of each section of a page: what, and the text.
type Page = BTreeMap<String, Vec<(String, String)>>;

/// The page of each command, by what is typed behind `groupshot`; empty for that of the program.
fn pages() -> BTreeMap<String, (Page, String)> {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_groupshot"))
        .arg("man")
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(made.success());
    let name = |file: &Path| {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let name = name.strip_prefix("groupshot").unwrap();
        name.replace('-', " ").trim().to_owned()
    };
    let found = files(folder.path(), "1", 0).into_iter();
    found
        .map(|(file, text)| (name(&file), (page(&text), plain(&text))))
        .collect()
}

fn page(text: &str) -> Page {
    let mut page = Page::new();
    for section in text.split("\n.SH ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        let items = body.split(".TP\n").skip(1).map(|item| {
            let (what, text) = item.split_once('\n').unwrap();
            let text = text.lines().filter(|l| !l.starts_with('.'));
            let text: Vec<_> = text.map(plain).collect();
            (plain(what), text.join(" "))
        });
        page.insert(title.trim_matches('"').to_owned(), items.collect());
    }
    page
}

/// Without what roff needs.
fn plain(text: &str) -> String {
    let text = ["\\fB", "\\fI", "\\fR", "\\&"]
        .iter()
        .fold(text.to_owned(), |text, mark| text.replace(mark, ""));
    text.replace("\\-", "-").replace("\\*(Aq", "'")
}

/// The rows of the table of the reference that has this head, without marks and targets of links.
fn table(head: &str) -> Vec<Vec<String>> {
    let text = read(REFERENCE);
    let (_, rows) = text.split_once(head).unwrap();
    let rows = rows.lines().skip(2).take_while(|line| !line.is_empty());
    rows.map(|row| {
        let row = row.trim().trim_start_matches('|').trim_end_matches('|');
        let cells = row.split('|');
        cells.map(|c| without_marks(c.trim())).collect()
    })
    .collect()
}

fn without_marks(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once(')').unwrap().1;
    }
    plain.replace(['[', '`'], "")
}

/// The commands that do something, as the program's help knows them: those of groups, and those without any below.
fn leaves(pages: &BTreeMap<String, (Page, String)>) -> Vec<&str> {
    let is_group = |name: &str| pages.keys().any(|k| k.starts_with(&format!("{name} ")));
    let all = pages.keys().map(String::as_str);
    all.filter(|name| !name.is_empty() && !is_group(name))
        .collect()
}

#[test]
fn every_manual_page_has_all_sections() {
    let pages = pages();
    assert!(pages.len() >= 35, "{} pages", pages.len());
    let mut examples = 0;
    for (command, (page, _)) in &pages {
        for section in SECTIONS {
            let items = page.get(section);
            let items = items.unwrap_or_else(|| panic!("{command}: no {section}"));
            assert!(
                section == "FILES" || !items.is_empty(),
                "{command}: {section}"
            );
        }
        for (line, _) in &page["EXAMPLES"] {
            let typed = line.strip_prefix("groupshot ").unwrap();
            assert!(typed.starts_with(command.as_str()), "{command}: {line}");
            assert_known(typed);
            examples += 1;
        }
    }
    assert!(examples >= 50, "{examples} examples");
}

#[test]
fn the_exit_codes_of_the_reference_are_those_of_the_manual_pages() {
    let pages = pages();
    let meanings: BTreeMap<_, _> = table("| exit code | means |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let told: BTreeMap<_, _> = pages[""].0["EXIT STATUS"].iter().cloned().collect();
    assert_eq!(told, meanings);
    let mut rows = table("| command | exit codes | here also |").into_iter();
    let mut wrong = Vec::new();
    let mut commands = leaves(&pages);
    for row in &mut rows {
        let Some(at) = commands.iter().position(|c| *c == row[0]) else {
            wrong.push(format!("{} is no command", row[0]));
            continue;
        };
        let command = commands.remove(at);
        let status = &pages[command].0["EXIT STATUS"];
        let codes: Vec<_> = status.iter().map(|(code, _)| code.as_str()).collect();
        let also = status.iter().filter_map(|(code, text)| {
            let more = text.strip_prefix(meanings[code].as_str())?;
            Some(format!("{code}: {}", more.strip_prefix(" Also here: ")?))
        });
        let shown = (codes.join(" "), also.collect::<Vec<_>>().join(" "));
        if shown != (row[1].clone(), row[2].clone()) {
            wrong.push(format!("{command}: the page has {shown:?}"));
        }
    }
    wrong.extend(commands.iter().map(|c| format!("{c} has no row")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_variable_of_an_option_is_told_of() {
    let pages = pages();
    for (command, (page, text)) in &pages {
        let told = &page["ENVIRONMENT"];
        let options = text.split("GROUPSHOT_").skip(1);
        for rest in options {
            let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            let name = format!("GROUPSHOT_{}", &rest[..end.unwrap_or(rest.len())]);
            assert!(told.iter().any(|(v, _)| *v == name), "{command}: {name}");
        }
    }
    let all: BTreeMap<_, _> = pages[""].0["ENVIRONMENT"].iter().cloned().collect();
    let shown: BTreeMap<_, _> = table("| variable | read for |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let plain = |(v, text): (String, String)| (v, text.replace('`', ""));
    let all: BTreeMap<_, _> = all.into_iter().map(plain).collect();
    assert_eq!(all, shown);
}
