//! The pages for operators: what `docs/operating.md` lists, in its order.

use std::fs;
use std::path::Path;

/// The index of the pages.
pub(crate) const INDEX: &str = "docs/operating.md";
/// Every page in them is listed.
const FOLDERS: [&str; 2] = ["docs/guide", "docs/reference"];

/// README, the index and the pages that it lists, as paths below the root.
pub(crate) fn for_operators() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let index = fs::read_to_string(root.join(INDEX)).unwrap();
    let targets = index.split("](").skip(1);
    let targets = targets.filter_map(|rest| Some(rest.split_once(')')?.0));
    let listed: Vec<_> = targets.map(|target| format!("docs/{target}")).collect();
    for folder in FOLDERS {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let page = format!("{folder}/{name}");
            assert!(listed.contains(&page), "{INDEX} does not list {page}");
        }
    }
    let mut pages = vec!["README.md".to_owned(), INDEX.to_owned()];
    pages.extend(listed);
    pages
}
