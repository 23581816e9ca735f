//! Rules of the source tree that the compiler does not check: layers, adapters, file heads and sizes, the map.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may `use crate::…` whom, bottom layer first. A module may import its
/// own layer's earlier lines and every layer below, and nothing else.
const LAYERS: &[&[&str]] = &[
    &[
        "text",
        "failpoint",
        "document",
        "telemetry",
        "held",
        "clock",
        "audit",
        "id",
        "settings",
    ],
    &["xml", "cim", "inventory"],
    &["framing", "soap", "wscim", "wsman", "handler"],
    &[
        "tls", "store", "auth", "job", "engine", "snapshot", "doctor", "client",
    ],
    &["provider"],
    &["operation"],
    &["http"],
    &["config", "server", "cli", "main"],
];

/// Imports that the layers would allow and the design does not.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("engine", &["cim", "job", "store"]), // an engine knows machines, not CIM
    ("job", &["cim", "xml"]),             // a job runs steps, whatever they are
    ("snapshot", &["cim", "xml", "soap", "wscim", "wsman"]), // the cut knows no CIM
    ("doctor", &["cim", "xml", "soap", "wscim", "wsman"]), // files and records, no wire
    ("client", &["store", "job", "engine", "snapshot", "doctor"]), // a client of any server
    ("provider", &["xml", "soap", "wscim", "wsman"]), // a provider speaks CIM only
    ("operation", &["store", "job", "engine", "snapshot"]), // reached through providers
    ("http", &["operation", "provider", "soap", "wscim", "wsman"]), // http hands bytes to a `Handler`
];

/// Named by `server`, which joins a port to its adapter, and by `config`,
/// which holds the adapter's settings; by nobody else.
const ADAPTERS: &[&str] = &[
    "engine::library",
    "engine::reflink",
    "engine::overlay",
    "engine::qemu",
    "engine::sim",
    "store::sqlite",
];

const LINES_MAX: usize = 900;

/// What opens files for writing, makes, replaces, renames or removes names, or changes owner, mode, times or attributes:
/// only `held` does. Beside [`FUNCTIONS`].
const WRITERS: &[&str] = &[
    "fs::copy(",
    "fs::write(",
    ".set_permissions(",
    ".set_times(",
    ".set_modified(",
    "File::create",
    "File::options()",
    "OpenOptions::new",
    "DirBuilder",
    "O_APPEND",
    "O_CREAT",
    "O_RDWR",
    "O_TMPFILE",
    "O_TRUNC",
    "O_WRONLY",
    "OFlags::APPEND",
    "OFlags::CREATE",
    "OFlags::RDWR",
    "OFlags::TMPFILE",
    "OFlags::TRUNC",
    "OFlags::WRONLY",
    "UnixListener::bind(",
    "UnixDatagram::bind(",
    "generate_to(",
];

/// Functions of std, nix, rustix and libc that do so, called by the path of their module or imported from it: a function
/// of ours may have such a name.
const FUNCTIONS: &[&str] = &[
    "chmod",
    "chmodat",
    "chown",
    "chownat",
    "create_dir",
    "create_dir_all",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "fremovexattr",
    "fsetxattr",
    "futimens",
    "hard_link",
    "ioctl_setflags",
    "lchown",
    "link",
    "linkat",
    "lremovexattr",
    "lsetxattr",
    "lutimes",
    "mkdir",
    "mkdirat",
    "mkfifo",
    "mkfifoat",
    "mknod",
    "mknodat",
    "remove_dir",
    "remove_dir_all",
    "remove_file",
    "removexattr",
    "rename",
    "renameat",
    "renameat2",
    "renameat_with",
    "set_permissions",
    "setxattr",
    "symlink",
    "symlinkat",
    "truncate",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
];

/// The modules that have them.
const OF_THE_SYSTEM: &[&str] = &["fcntl", "fs", "libc", "nix", "rustix", "stat", "unistd"];

/// Modules that do so themselves. `cli::prompt` opens the terminal, `failpoint` adds a line to a file that the orders of a test name, and `held` itself
/// passes its points. SQLite, which opens its own files by name and through no link, is no code of ours.
const WRITES_ITSELF: &[&str] = &["cli/prompt.rs", "failpoint.rs"];

#[test]
fn a_module_imports_only_from_layers_below() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let owner = owner(&path);
        if owner == "lib" {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            assert!(
                !line.contains("crate::{"),
                "{}:{}: one `use crate::…` line names one module",
                path.display(),
                n + 1
            );
            for target in crate_paths(line) {
                if target != owner && layer(&target) >= layer(&owner) && !before(&target, &owner) {
                    broken.push(format!(
                        "{}:{}: {owner} must not use {target}",
                        path.display(),
                        n + 1
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_forbidden_import_stays_out() {
    for (path, text) in sources() {
        let owner = owner(&path);
        let Some((_, banned)) = FORBIDDEN.iter().find(|(m, _)| *m == owner) else {
            continue;
        };
        for (n, line) in text.lines().enumerate() {
            for target in crate_paths(line) {
                assert!(
                    !banned.contains(&target.as_str()),
                    "{}:{}: {owner} must not use {target}",
                    path.display(),
                    n + 1
                );
            }
        }
    }
}

#[test]
fn only_server_and_config_name_an_adapter() {
    for (path, text) in sources() {
        let owner = owner(&path);
        for adapter in ADAPTERS {
            let inside = adapter.starts_with(&format!("{owner}::"));
            assert!(
                ["server", "config"].contains(&owner.as_str())
                    || inside
                    || !text.contains(&format!("crate::{adapter}")),
                "{} names the adapter {adapter}",
                path.display()
            );
        }
    }
}

#[test]
fn only_held_writes_replaces_and_removes_files() {
    let mut broken = Vec::new();
    let mut needed = BTreeSet::new();
    for (path, text) in sources() {
        let rel = path.strip_prefix(src()).unwrap().display().to_string();
        if rel.starts_with("held/") || rel.ends_with("tests.rs") || rel.contains("/tests/") {
            continue;
        }
        for (n, line) in writers(&text) {
            match WRITES_ITSELF.iter().find(|m| **m == rel) {
                Some(known) => drop(needed.insert(*known)),
                None => broken.push(format!("{rel}:{n}: {line}")),
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    let needed: Vec<_> = needed.into_iter().collect();
    assert_eq!(needed, WRITES_ITSELF, "the list holds who needs it, sorted");
}

#[test]
fn a_writer_is_found_in_each_form_and_wherever_it_stands() {
    let found = [
        "std::fs::rename(a, b)?;",
        "let gone = fs::remove_file(&file);",
        "nix::unistd::unlink(path)",
        "unistd::unlinkat(dir, name, flags)",
        "std::os::unix::fs::lchown(path, None, None)",
        "use std::os::unix::fs::{MetadataExt, chown};",
        "use nix::unistd::unlink as gone;",
        "use std::fs as files;",
        "rustix::fs::setxattr(path, name, &[], flags)",
        "fs::link(a, b)",
        "nix::sys::stat::utimensat(dir, path, &a, &b, flag)",
        "libc::truncate(path, 0)",
        "let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;",
        "let flags = OFlags::RDWR;",
        "file.set_modified(then)?;",
    ];
    for line in found {
        assert_eq!(writers(line).len(), 1, "{line}");
    }
    let fine = [
        "held::rename(a, b)?;",
        "place.rename(\"made\", \"other\", &made)?;",
        "fn unlink(core: &Core, file: &Path) -> bool {",
        "unlink(core, file, None)?;",
        "names.truncate(20);",
        "use std::fs::{self, Metadata};",
        "use nix::fcntl::{OFlag, open};",
        "use crate::held::rename;",
        "// fs::rename(",
        "let flags = OFlags::RDONLY;",
    ];
    for line in fine {
        assert_eq!(writers(line), [], "{line}");
    }
    let several = "use std::fs::{\n    self,\n    rename,\n};\n";
    assert_eq!(writers(several).len(), 1);
    let text = "fn a() {}\n\n#[cfg(test)]\nfn b() {}\n\nfn c() {\n    fs::rename(a, b);\n}\n\n\
                #[cfg(test)]\nmod tests {\n    fn d() {\n        fs::rename(a, b);\n    }\n}\n\n\
                fn e() {\n    fs::remove_file(a);\n}\n";
    let lines: Vec<_> = writers(text).into_iter().map(|(n, _)| n).collect();
    assert_eq!(lines, [7, 18]);
}

/// The lines of what writes, replaces or removes files, by their numbers.
fn writers(text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let mut found = Vec::new();
    let mut import = None;
    for (n, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap().trim();
        // An import may have several lines.
        if import.is_none() && (line.starts_with("use ") || line.contains(" use ")) {
            import = Some((n, String::new()));
        }
        if let Some((first, import_text)) = &mut import {
            import_text.push_str(line);
            if !line.ends_with(';') {
                continue;
            }
            if imports_a_writer(import_text) {
                found.push((*first + 1, import_text.clone()));
            }
            import = None;
        } else if WRITERS.iter().any(|w| line.contains(w)) || calls_a_writer(line) {
            found.push((n + 1, line.to_owned()));
        }
    }
    found
}

fn calls_a_writer(line: &str) -> bool {
    FUNCTIONS.iter().any(|function| {
        let call = format!("::{function}(");
        line.match_indices(&call).any(|(at, _)| {
            let module = words(&line[..at]).pop();
            module.is_some_and(|module| OF_THE_SYSTEM.contains(&module))
        })
    })
}

/// One of the functions, or one of their modules under a name of ours.
fn imports_a_writer(import: &str) -> bool {
    let words = words(import);
    let of_the_system = ["std", "nix", "rustix", "libc"];
    let root = words.iter().find(|w| !["pub", "crate", "use"].contains(w));
    root.is_some_and(|root| of_the_system.contains(root))
        && (words.iter().any(|word| FUNCTIONS.contains(word))
            || words
                .windows(2)
                .any(|two| OF_THE_SYSTEM.contains(&two[0]) && two[1] == "as"))
}

fn words(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).collect()
}

/// The text without its module of tests; the numbers of lines stay. Other items that only tests have stay too.
fn code(text: &str) -> String {
    const TESTS: &str = "#[cfg(test)]\nmod tests";
    let Some((before, tests)) = text.split_once(TESTS) else {
        return text.to_owned();
    };
    let end = match tests.starts_with(';') {
        true => 0,
        false => tests.find("\n}\n").unwrap_or(tests.len()),
    };
    let (tests, after) = tests.split_at(end);
    let lines = "\n".repeat(tests.matches('\n').count() + 1);
    format!("{before}{lines}{after}")
}

/// What looks at files.
const LOOKS: &[&str] = &[
    "fs::",
    "File::",
    "held::",
    "locks::",
    ".metadata()",
    ".canonicalize()",
    ".is_file()",
    ".is_dir()",
    ".exists()",
];

/// What providers name of `engine`: what was observed of machines, which they are handed. A port may wait for files.
const OBSERVED: &[&str] = &["Machines", "Observed"];

#[test]
fn providers_ask_no_engine() {
    let mut asked = Vec::new();
    for (path, text) in sources() {
        let Ok(below) = path.strip_prefix(src().join("provider")) else {
            continue;
        };
        // `text::catalog::engine` has the texts of it.
        let code = code(&text).replace("catalog::engine", "");
        let used = code.split("engine::").skip(1).flat_map(paths);
        for first in used.filter_map(|names| names.into_iter().next()) {
            if !OBSERVED.contains(&first.as_str()) {
                asked.push((below.display().to_string(), first));
            }
        }
    }
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn no_provider_looks_at_a_file() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let rel = path.strip_prefix(src()).unwrap().display().to_string();
        if !rel.starts_with("provider/") && !rel.starts_with("operation/") {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            if LOOKS.iter().any(|look| line.contains(look)) {
                broken.push(format!("{rel}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Kinds of operation that use another one, and what for.
const USED_KINDS: &[(&str, &str)] = &[
    ("apply", "destroy"), // what was active is removed as what a deleted set kept is
];

#[test]
fn the_saga_names_no_kind_and_a_kind_no_other() {
    let folder = |file: &str| {
        let below = file.strip_prefix("snapshot/")?;
        Some(
            below
                .split_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned(),
        )
    };
    let mut needed = BTreeSet::new();
    for (file, used) in uses() {
        let Some(own) = folder(&file).filter(|own| !own.is_empty()) else {
            continue;
        };
        for to in used {
            let Some(other) = folder(&to).filter(|it| !["", "saga", &own].contains(&&**it)) else {
                continue;
            };
            let known = USED_KINDS.iter().find(|used| **used == (&own, &other));
            let known = known.unwrap_or_else(|| panic!("src/{file} must not use {to}"));
            needed.insert(*known);
        }
    }
    assert!(needed.iter().eq(USED_KINDS), "the list holds who needs it");
}

/// Modules in which files of different folders use each other, if by way of others, and why. It may only shrink.
const CIRCLES: &[(&str, &str)] = &[
    (
        "cim",
        "a value may be a path, and the keys of a path are values",
    ),
    (
        "engine",
        "an adapter names the ports and errors, and these the drivers",
    ),
    (
        "text",
        "a text finds its words in the catalogue, which is made of messages",
    ),
];

/// Modules whose files do not use each other in a circle. A `mod.rs` does not count: it has the types of its folder, and
/// calls its files. It may only grow.
const STRAIGHT: &[&str] = &["operation", "server", "wsman"];

#[test]
fn no_circle_of_files_leaves_a_folder() {
    let mut uses = uses();
    let module = |file: &str| file.split('/').next().unwrap().to_owned();
    for (file, used) in &mut uses {
        // The layers see to the others.
        used.retain(|to| module(to) == module(file));
    }
    let mut needed = BTreeSet::new();
    let mut broken = Vec::new();
    let folder = |file: &str| Path::new(file).parent().unwrap().to_owned();
    for (a, b) in in_circles(&uses) {
        if folder(&a) == folder(&b) {
            continue;
        }
        match CIRCLES.iter().any(|(circle, _)| **circle == module(&a)) {
            true => _ = needed.insert(module(&a)),
            false => broken.push(format!("{a} and {b}")),
        }
    }
    uses.retain(|file, _| STRAIGHT.contains(&&*module(file)) && !file.ends_with("/mod.rs"));
    let left: BTreeSet<_> = uses.keys().cloned().collect();
    for used in uses.values_mut() {
        used.retain(|to| left.contains(to));
    }
    let straight = in_circles(&uses).into_iter();
    broken.extend(straight.map(|(a, b)| format!("{a} and {b}")));
    let broken = broken.join("\n");
    assert!(
        broken.is_empty(),
        "use each other, if by way of others:\n{broken}"
    );
    assert!(
        needed.iter().eq(CIRCLES.iter().map(|(module, _)| module)),
        "the list holds who needs it: {needed:?}"
    );
}

#[test]
fn a_circle_of_files_is_seen() {
    let uses = |pairs: &[(&str, &str)]| -> BTreeMap<String, BTreeSet<String>> {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            let to = to.to_string();
            uses.entry(to.clone()).or_default();
            uses.entry(from.to_string()).or_default().insert(to);
        }
        uses
    };
    assert_eq!(in_circles(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])), []);
    let found = in_circles(&uses(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]));
    let pairs = [("a", "b"), ("a", "c"), ("b", "c")];
    let pairs = pairs.map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(found, pairs);
    let names =
        |text: &str| -> Vec<String> { paths(text).iter().map(|names| names.join(" ")).collect() };
    assert_eq!(names("a::b;"), ["a b"]);
    assert_eq!(
        names("a::{self, b::{c, D as E}, f::g};"),
        ["a", "a b c", "a b D", "a f g"]
    );
    assert_eq!(names("a::B::new(c)"), ["a B new"]);
}

/// The pairs of files that use each other, directly or by way of others.
fn in_circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<(String, String)> {
    let reached = |from: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = todo.pop() {
            let next = uses[&file].iter().cloned();
            todo.extend(next.filter(|to| seen.insert(to.clone())));
        }
        seen
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|file| (file, reached(file))).collect();
    let mut found = Vec::new();
    for (a, from_a) in &reached {
        let back = from_a.iter().filter(|b| a < b && reached[b].contains(*a));
        found.extend(back.map(|b| ((*a).clone(), b.clone())));
    }
    found
}

/// The files below `src`, each with those of them that it uses outside its tests. What a module re-exports is used where it
/// is defined, and a re-export is no use.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<Vec<String>, (String, String)> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            let file = path.strip_prefix(src()).unwrap().to_str()?.to_owned();
            let is_test = file.contains("/tests") || file.ends_with("/fixture.rs");
            let code = code(&text);
            let code = code.lines().map(|line| line.split("//").next().unwrap());
            let code = code.collect::<Vec<_>>().join("\n");
            let code = code.replace("pub(in crate::", "pub(in ");
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
            let module = module.split('/').map(str::to_owned).collect();
            (!is_test && file != "lib.rs" && file != "main.rs").then_some((module, (file, code)))
        })
        .collect();
    let children = |module: &[String]| -> BTreeSet<&str> {
        let below = files.keys().filter(|it| it.len() == module.len() + 1);
        let below = below.filter(|it| it.starts_with(module));
        below.map(|it| it.last().unwrap().as_str()).collect()
    };
    // The paths that a file names, whole.
    let whole = |module: &[String], code: &str| -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for root in ["crate::", "super::"].into_iter().chain(children(module)) {
            let mut from = 0;
            while let Some(at) = code[from..].find(root).map(|at| from + at) {
                from = at + root.len();
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let named = match root {
                    "crate::" => paths(&code[from..]),
                    "super::" => paths(&code[at..]),
                    _ if code[from..].starts_with("::") => paths(&code[at..]),
                    _ => continue,
                };
                found.extend(named.into_iter().map(|mut names| {
                    let up = names.iter().take_while(|name| *name == "super").count();
                    names.drain(..up);
                    let base = match root {
                        "crate::" => &[][..],
                        _ => &module[..module.len() - up],
                    };
                    [base, &names].concat()
                }));
            }
        }
        found
    };
    let mut shown: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    let mut codes = BTreeMap::new();
    for (module, (_, code)) in &files {
        let mut rest = String::new();
        for statement in code.split_inclusive(';') {
            let Some(at) = statement.find("pub use ") else {
                rest.push_str(statement);
                continue;
            };
            rest.push_str(&statement[..at]);
            for path in whole(module, &statement[at..]) {
                let name = path.last().unwrap().clone();
                shown.insert([&module[..], &[name]].concat(), path);
            }
        }
        codes.insert(module, rest);
    }
    let file_of = |path: &[String]| {
        let mut path = path.to_vec();
        // A name may be shown by several modules, one above the other.
        for _ in 0..4 {
            let known = (1..=path.len()).find_map(|n| Some((n, shown.get(&path[..n])?)));
            let Some((n, real)) = known else { break };
            path = [real, &path[n..]].concat();
        }
        let found = (1..=path.len()).rev().find_map(|n| files.get(&path[..n]));
        found.map(|(file, _)| file.clone())
    };
    let mut uses = BTreeMap::new();
    for (module, (file, _)) in &files {
        let used = whole(module, &codes[module]);
        let used = used.iter().filter_map(|path| file_of(path));
        let used: BTreeSet<_> = used.filter(|used| used != file).collect();
        uses.insert(file.clone(), used);
    }
    uses
}

/// Files of `snapshot` that use modules of `engine` which are no ports, and which. It may only shrink.
const BESIDE_THE_PORTS: &[(&str, &[&str])] = &[
    (
        "chosen.rs",
        &["definition", "failure", "graph", "locks", "overlay", "turn"],
    ),
    ("tops.rs", &["definition", "graph", "names", "qcow2"]),
];

/// The ports, and what they are asked with, are named by `crate::engine` itself.
#[test]
fn snapshot_uses_the_ports_of_engine_and_nothing_behind_them() {
    let (root, engine) = (src().join("snapshot"), src().join("engine"));
    let is_module =
        |name: &str| engine.join(name).is_dir() || engine.join(format!("{name}.rs")).is_file();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let Ok(below) = path.strip_prefix(&root) else {
            continue;
        };
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code = code.lines().map(|line| line.split("//").next().unwrap());
        let code = code.collect::<Vec<_>>().join("\n");
        // `text::catalog::engine` has the texts of it.
        for path in code
            .replace("catalog::engine", "")
            .split("engine::")
            .skip(1)
        {
            let firsts = paths(path)
                .into_iter()
                .filter_map(|names| names.into_iter().next());
            let modules = firsts.filter(|first| is_module(first));
            let file = below.to_str().unwrap().to_owned();
            found.entry(file).or_default().extend(modules);
        }
    }
    found.retain(|_, modules| !modules.is_empty());
    let found: Vec<_> = found
        .iter()
        .map(|(file, modules)| {
            let modules: Vec<_> = modules.iter().map(String::as_str).collect();
            (file.as_str(), modules)
        })
        .collect();
    let known = BESIDE_THE_PORTS
        .iter()
        .map(|(file, modules)| (*file, modules.to_vec()));
    assert_eq!(
        found,
        known.collect::<Vec<_>>(),
        "the list holds who needs it, sorted"
    );
}

/// What a driver is called, and how it calls files, is known to it alone.
#[test]
fn snapshot_knows_no_driver_by_its_name_and_no_name_of_its_files() {
    for (path, text) in sources() {
        if !path.starts_with(src().join("snapshot")) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (n, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for word in [
                "\"overlay\"",
                "\"reflink\"",
                "\"sim\"",
                "\".part\"",
                "\".groupshot\"",
            ] {
                assert!(!line.contains(word), "{}:{}: {word}", path.display(), n + 1);
            }
        }
    }
}

/// The paths that a text begins with: those of a `use` line, `a::{self, b::c}` are two, or the one of an expression.
fn paths(text: &str) -> Vec<Vec<String>> {
    let (mut stem, mut rest) = (Vec::new(), text);
    loop {
        if let Some(braced) = rest.strip_prefix('{') {
            let below = items(braced)
                .into_iter()
                .flat_map(|item| paths(item.trim_start()));
            return below.map(|path| [&stem[..], &path].concat()).collect();
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        if !name.is_empty() && name != "self" {
            stem.push(name.to_owned());
        }
        match after.strip_prefix("::") {
            Some(next) => rest = next,
            None => return vec![stem],
        }
    }
}

/// What stands between the commas up to the end of a brace.
fn items(text: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|item| !item.trim().is_empty());
    found
}

/// Names that say nothing without their module: one type at most has each. Those of the kinds of operation (`Intent`,
/// `Record`) are used with their module.
const GENERAL: &[&str] = &["Config", "Kind", "Limits", "Options", "Settings"];

#[test]
fn a_general_name_has_one_meaning() {
    for name in GENERAL {
        let mut found = Vec::new();
        for (path, text) in sources() {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for line in code.lines().filter(|line| !line.starts_with(' ')) {
                let words = words(line.split("//").next().unwrap());
                let named = words.windows(2).any(|two| {
                    ["enum", "struct", "trait", "type"].contains(&two[0]) && two[1] == *name
                });
                if named {
                    found.push(path.display().to_string());
                }
            }
        }
        assert!(
            found.len() <= 1,
            "`{name}`: say whose, as in `TlsSettings`: {found:?}"
        );
    }
}

#[test]
fn every_file_opens_with_its_purpose() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//!"),
            "{} needs a `//!` first line",
            path.display()
        );
    }
}

#[test]
fn no_file_outgrows_a_sitting() {
    for (path, text) in sources() {
        let n = text.lines().count();
        assert!(
            n <= LINES_MAX,
            "{} has {n} lines, more than {LINES_MAX}",
            path.display()
        );
    }
}

#[test]
fn the_map_names_every_module() {
    let map = fs::read_to_string(src().join("../ARCHITECTURE.md")).unwrap();
    for module in LAYERS
        .iter()
        .flat_map(|l| l.iter())
        .filter(|m| **m != "main")
    {
        assert!(
            map.contains(&format!("`{module}`")),
            "ARCHITECTURE.md does not name `{module}`"
        );
    }
}

#[test]
fn every_module_has_a_layer() {
    let known: BTreeSet<_> = LAYERS
        .iter()
        .flat_map(|l| l.iter())
        .map(|s| s.to_string())
        .collect();
    for (path, _) in sources() {
        let o = owner(&path);
        assert!(o == "lib" || known.contains(&o), "{o} has no layer");
    }
}

fn layer(m: &str) -> usize {
    LAYERS
        .iter()
        .position(|l| l.contains(&m))
        .unwrap_or_else(|| panic!("{m} has no layer"))
}
fn before(a: &str, b: &str) -> bool {
    let l = LAYERS[layer(b)];
    layer(a) == layer(b) && l.iter().position(|x| *x == a) < l.iter().position(|x| *x == b)
}
#[test]
fn no_first_level_file_leaves_its_module_by_super() {
    for (path, text) in sources() {
        let depth = path.strip_prefix(src()).unwrap().components().count();
        let top = depth == 1 || (depth == 2 && path.ends_with("mod.rs"));
        let code = code(&text);
        assert!(
            !top || !code.contains("super::"),
            "{} leaves its module by `super::`; write `crate::…`",
            path.display()
        );
    }
}

fn owner(path: &Path) -> String {
    let rel = path.strip_prefix(src()).unwrap();
    let first = rel
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}
fn crate_paths(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap();
    // A first-level file reaches its neighbours by `super::` as well, and `main.rs` by the package name.
    let roots = code.replace("groupshot::", "crate::");
    roots
        .split("crate::")
        .skip(1)
        .map(|r| {
            r.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|s| !s.is_empty() && s.chars().next().unwrap().is_lowercase())
        .collect()
}
fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
fn sources() -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut todo = vec![src()];
    while let Some(dir) = todo.pop() {
        for e in fs::read_dir(dir).unwrap() {
            let p = e.unwrap().path();
            if p.is_dir() {
                todo.push(p);
            } else if p.extension().is_some_and(|x| x == "rs") {
                let t = fs::read_to_string(&p).unwrap();
                out.push((p, t));
            }
        }
    }
    out.sort();
    out
}
