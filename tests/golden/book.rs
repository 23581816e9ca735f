//! The golden files: one for each answer of one folder, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use groupshot::wscim::Family;

use super::rules;
use super::world::Reply;

/// A folder of golden files.
pub(super) struct Book {
    folder: PathBuf,
    /// Does every answer of the folder have to be a fault? Otherwise none may be.
    faults: bool,
    update: bool,
    seen: BTreeSet<String>,
    message_ids: BTreeSet<String>,
    complaints: Vec<String>,
}

impl Book {
    pub(super) fn open(folder: &str) -> Self {
        let faults = folder.starts_with("faults-");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/golden")
            .join(folder);
        Self {
            folder,
            faults,
            update: std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1"),
            seen: BTreeSet::new(),
            message_ids: BTreeSet::new(),
            complaints: Vec::new(),
        }
    }

    /// Compares an answer that depends on the URI family.
    pub(super) fn check(&mut self, name: &str, family: Family, reply: &Reply) {
        let family = match family {
            Family::Dmtf => "dmtf",
            Family::Wmi => "wmi",
        };
        self.check_one(&format!("{name}.{family}"), reply);
    }

    /// Compares an answer.
    pub(super) fn check_one(&mut self, name: &str, reply: &Reply) {
        assert!(self.seen.insert(name.to_owned()), "{name} stands twice");
        let fault = reply.text.contains("<s:Fault>");
        if fault != self.faults {
            self.complaints.push(format!("{name}: a fault? {fault}"));
        }
        for broken in rules::broken(reply) {
            self.complaints.push(format!("{name}: {broken}"));
        }
        if let Some(id) = rules::message_id(&reply.text)
            && !self.message_ids.insert(id.to_owned())
        {
            self.complaints
                .push(format!("{name}: {id} was used before"));
        }
        let page = reply.page();
        let file = self.file(name);
        if self.update {
            fs::create_dir_all(&self.folder).unwrap();
            fs::write(&file, &page).unwrap();
            return;
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        if golden.trim().is_empty() {
            self.complaints
                .push(format!("{name}: {} is missing or empty", file.display()));
        } else if golden != page {
            self.complaints.push(difference(name, &golden, &page));
        }
    }

    /// Fails if anything differed, or if a file belongs to no answer.
    pub(super) fn close(mut self) {
        assert!(!self.seen.is_empty());
        for entry in fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let known = name
                .strip_suffix(".xml")
                .is_some_and(|n| self.seen.contains(n));
            if !known && self.update {
                fs::remove_file(&path).unwrap();
            } else if !known {
                self.complaints
                    .push(format!("{} belongs to no answer", path.display()));
            }
        }
        assert!(
            self.complaints.is_empty(),
            "{}",
            self.complaints.join("\n\n")
        );
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.xml"))
    }
}

/// The first line that differs, with one before.
fn difference(name: &str, golden: &str, page: &str) -> String {
    let (mut old, mut new) = (golden.lines(), page.lines());
    let mut before = "";
    for line in 1.. {
        match (old.next(), new.next()) {
            (Some(a), Some(b)) if a == b => before = a,
            (None, None) => break,
            (a, b) => {
                let (a, b) = (a.unwrap_or("(end)"), b.unwrap_or("(end)"));
                return format!(
                    "{name}, line {line}, behind {before}\n  golden: {a}\n  answer: {b}"
                );
            }
        }
    }
    format!("{name}: differs in line ends")
}
