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
        let used = code.split("engine::").skip(1).flat_map(named);
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
    let is_kind = |folder: &str| !["", "saga"].contains(&folder);
    let mut needed = BTreeSet::new();
    for (file, used) in uses_within("snapshot") {
        let own = folder(&file);
        for to in used {
            let other = folder(&to);
            if own.is_empty() || other == own || !is_kind(&other) {
                continue;
            }
            let known = USED_KINDS.iter().find(|used| **used == (&own, &other));
            let known = known.unwrap_or_else(|| panic!("src/snapshot/{file} must not use {to}"));
            needed.insert(*known);
        }
    }
    assert!(needed.iter().eq(USED_KINDS), "the list holds who needs it");
}

#[test]
fn no_circle_of_files_leaves_a_folder_of_snapshot() {
    let uses = uses_within("snapshot");
    let reached = |from: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = todo.pop() {
            let next = uses[&file].iter().cloned();
            todo.extend(next.filter(|to| seen.insert(to.clone())));
        }
        seen
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|file| (file, reached(file))).collect();
    for (a, from_a) in &reached {
        for b in from_a.iter().filter(|b| folder(b) != folder(a)) {
            assert!(
                !reached[b].contains(*a),
                "src/snapshot: {a} and {b} use each other, if by way of others"
            );
        }
    }
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
            let firsts = named(path)
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

/// The files of a module, each with those of it that it uses outside its tests. Paths are those below its folder.
fn uses_within(module: &str) -> BTreeMap<String, BTreeSet<String>> {
    let root = src().join(module);
    let files: BTreeMap<_, _> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            let below = path.strip_prefix(&root).ok()?;
            Some((below.to_str()?.to_owned(), text))
        })
        .collect();
    let mut uses = BTreeMap::new();
    for (file, text) in &files {
        let code = code(text);
        let code = code.lines().map(|line| line.split("//").next().unwrap());
        let code: String = code.collect();
        assert!(
            !code.contains("super::"),
            "{module}/{file}: write `crate::…` for `super::…`"
        );
        let mut used = BTreeSet::new();
        for path in code.split(&format!("crate::{module}::")).skip(1) {
            for names in named(path) {
                // The longest beginning that is a file.
                let files = (0..=names.len()).rev().find_map(|n| {
                    let start = names[..n].join("/");
                    let own = [format!("{start}.rs"), format!("{start}/mod.rs")];
                    own.into_iter().find(|own| files.contains_key(own))
                });
                used.insert(files.unwrap_or_else(|| {
                    panic!("{module}/{file}: name the file that has {names:?}, not its re-export")
                }));
            }
        }
        used.remove(file);
        uses.insert(file.clone(), used);
    }
    uses
}

/// The paths that a path of a `use` line begins with, up to a second brace: `a::{self, b::c}` are two.
fn named(path: &str) -> Vec<Vec<String>> {
    let words = |text: &str| -> Vec<String> {
        let words = text.split("::").map(|word| {
            let word = word.trim_start();
            word.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        });
        words.take_while(|w| !w.is_empty() && w != "self").collect()
    };
    let end = path.find(|c: char| !(c.is_alphanumeric() || "_:{".contains(c)));
    let Some((stem, rest)) = path[..end.unwrap_or(path.len())]
        .split_once('{')
        .map(|(stem, _)| (stem, &path[stem.len() + 1..]))
    else {
        return vec![words(path)];
    };
    let within = rest.split('}').next().unwrap();
    let within = within.split(',').filter(|item| !item.trim().is_empty());
    within
        .map(|item| [words(stem), words(item)].concat())
        .collect()
}

/// The folder of a file of a module; empty for the module itself.
fn folder(file: &str) -> String {
    let (folder, _) = file.split_once('/').unwrap_or(("", file));
    folder.to_owned()
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
