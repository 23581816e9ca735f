//! `groupshot schema check` and `schema show`: what they print, without the printing.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use crate::cim::schema::{self, Schema, VIRTUALIZATION_V2};

use super::diagnostic::render_all;
use super::write::class_text;
use super::{Compiled, Place, Severity, Source, compile, included};

/// What a command has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its output, whole lines.
    pub text: String,
    /// Does the program end with success?
    pub success: bool,
}

/// Compiles the files, those they include, and what they need of the built-in schema: qualifier types and classes
/// that they use and do not declare. `read` gives the text of a file, or says why it cannot.
pub fn check(
    files: &[String],
    read: &mut dyn FnMut(&str) -> Result<String, String>,
    color: bool,
) -> Report {
    let mut text = String::new();
    let mut success = true;
    let mut loaded: Vec<(String, String)> = Vec::new();
    let mut wanted: VecDeque<(String, bool)> = files.iter().map(|f| (f.clone(), false)).collect();
    let mut seen = BTreeSet::new();
    while let Some((file, is_include)) = wanted.pop_front() {
        if !seen.insert(file.clone()) {
            continue;
        }
        match read(&file) {
            Ok(content) => {
                wanted.extend(included(&content).iter().map(|i| (beside(&file, i), true)));
                loaded.push((file, content));
            }
            // The compiler reports it where it is included.
            Err(_) if is_include => {}
            Err(reason) => {
                success = false;
                _ = writeln!(text, "error: {file}: {reason}");
            }
        }
    }
    let given = loaded.iter().map(|(name, text)| Source {
        name,
        text,
        place: Place::Namespace(VIRTUALIZATION_V2),
    });
    let builtin = schema::embedded().map(|source| Source {
        place: Place::Library,
        ..source
    });
    let sources: Vec<_> = given.chain(builtin).collect();
    let compiled = compile(&sources);
    text.push_str(&render_all(&compiled.diagnostics, color));
    text.push_str(&summary(loaded.len(), &compiled));
    Report {
        text,
        success: success && !compiled.has_errors(),
    }
}

fn summary(files: usize, compiled: &Compiled) -> String {
    let count = |severity| {
        compiled
            .diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    let number = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    };
    format!(
        "{}: {}, {}\n",
        number(files, "file"),
        number(count(Severity::Error), "error"),
        number(count(Severity::Warning), "warning")
    )
}

/// The path of an included file, which is named as seen from the file that includes it.
fn beside(file: &str, include: &str) -> String {
    let include = include.replace('\\', "/");
    let include = include.trim_start_matches("./");
    match file.rsplit_once('/') {
        Some((folder, _)) if !include.starts_with('/') => format!("{folder}/{include}"),
        _ => include.to_owned(),
    }
}

/// The class as MOF, with what it inherits; or the classes that could have been meant.
#[must_use]
pub fn show(schema: &Schema, class: &str) -> Report {
    let namespaces: Vec<_> = schema.namespaces().map(|n| n.as_str()).collect();
    let found: Vec<_> = namespaces
        .iter()
        .filter_map(|namespace| schema.class(namespace, class))
        .collect();
    if !found.is_empty() {
        let texts: Vec<_> = found.iter().map(|c| class_text(c)).collect();
        return Report {
            text: texts.join("\n"),
            success: true,
        };
    }
    let stem = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.split_once('_')
            .map_or(name.clone(), |(_, s)| s.to_owned())
    };
    let wanted = stem(class);
    let similar: BTreeSet<_> = namespaces
        .iter()
        .flat_map(|namespace| schema.classes(namespace))
        .map(|c| c.name.as_str())
        .filter(|name| !wanted.is_empty() && stem(name).contains(&wanted))
        .collect();
    let mut text = format!("error: the schema has no class {class}\n");
    for name in similar {
        _ = writeln!(text, "    there is {name}");
    }
    Report {
        text,
        success: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<'a>(
        texts: &'a [(&'a str, &'a str)],
    ) -> impl FnMut(&str) -> Result<String, String> + 'a {
        move |wanted| {
            let found = texts.iter().find(|(name, _)| *name == wanted);
            found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| "no such file".to_owned())
        }
    }

    #[test]
    fn check_follows_includes_and_uses_the_builtin_schema() {
        let texts = [
            ("a/all.mof", "#pragma include (\"sub\\\\one.mof\")\n"),
            (
                "a/sub/one.mof",
                "class My_Service : CIM_Service { uint8 X; };",
            ),
        ];
        let report = check(&["a/all.mof".to_owned()], &mut files(&texts), false);
        assert_eq!(report.text, "2 files: 0 errors, 0 warnings\n");
        assert!(report.success);
    }

    #[test]
    fn check_shows_place_and_line_of_an_error() {
        let texts = [("x.mof", "class My_X {\n  uint8 A\n  uint9 B;\n};\n")];
        let report = check(&["x.mof".to_owned()], &mut files(&texts), false);
        assert!(!report.success);
        for part in ["x.mof:2:9", "x.mof:3:3", "expected ;", "1 file: 2 errors"] {
            assert!(
                report.text.contains(part),
                "{part} not in:\n{}",
                report.text
            );
        }
        assert!(
            !report.text.contains('\u{1b}'),
            "no colours unless asked for"
        );
        let report = check(&["x.mof".to_owned()], &mut files(&texts), true);
        assert!(report.text.contains('\u{1b}'));
    }

    #[test]
    fn check_tells_what_it_cannot_read() {
        let texts = [("x.mof", "#pragma include (\"gone.mof\")")];
        let report = check(
            &["x.mof".to_owned(), "y.mof".to_owned()],
            &mut files(&texts),
            false,
        );
        assert!(!report.success);
        for part in [
            "error: y.mof: no such file",
            "gone.mof is included but not given",
        ] {
            assert!(
                report.text.contains(part),
                "{part} not in:\n{}",
                report.text
            );
        }
    }

    #[test]
    fn show_writes_a_class_or_names_similar_ones() {
        let schema = Schema::builtin();
        let report = show(&schema, "msvm_snapshotcollection");
        assert!(report.success);
        for part in [
            "class Msvm_SnapshotCollection : CIM_Collection {",
            "string CollectionID;",
        ] {
            assert!(
                report.text.contains(part),
                "{part} not in:\n{}",
                report.text
            );
        }
        let report = show(&schema, "CIM_SnapshotCollection");
        assert!(!report.success);
        assert!(report.text.contains("there is Msvm_SnapshotCollection"));
    }
}
