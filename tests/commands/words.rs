//! Messages speak of what the operator wrote, in words of the field: never of the program's types and libraries.

use std::fs;
use std::path::Path;

use groupshot::config::Config;

use super::{code, fails, said};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Site};

/// What no message may hold.
const FORBIDDEN: &[&str] = &[
    "usize",
    "i128",
    "wanted ",
    "u16",
    "u32",
    "u64",
    "i64",
    "f64",
    "invalid digit",
    "invalid type",
    "invalid value",
    "invalid length",
    "expected a boolean",
    "expected a string",
    "expected a sequence",
    "path string",
    "SocketAddr",
    "socket address syntax",
    "KeyMismatch",
    "InvalidContentType",
    "Os {",
    "machine *",
    "disk *",
    "members=1",
    "unknown field",
    "missing field",
    "unknown variant",
    "struct ",
    "enum ",
    "Utf8Error",
    "valid UTF-8",
    "Err(",
    "Some(",
    "None",
    "EOF while",
    "trailing characters",
    "std::",
    "serde",
    "expected value",
    "floating point",
    "ErrorKind",
    "panicked",
    "untagged",
];

fn assert_in_words(text: &str, what: &str) {
    // A level of the log and a path of a module are the operator's own words there.
    for word in FORBIDDEN {
        assert!(!text.contains(word), "{what}: `{word}` in: {text}");
    }
}

/// The keys of the documentation's example, with their section.
fn keys() -> Vec<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/mod.rs");
    let source = fs::read_to_string(source).unwrap();
    let example = source.lines().skip_while(|l| *l != "//! ```toml").skip(1);
    let example = example.take_while(|l| *l != "//! ```");
    let (mut section, mut keys) = (String::new(), Vec::new());
    for line in example {
        let line = line.trim_start_matches("//! ").trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(k, _)| !k.contains(' ')) {
            keys.push((section.clone(), key.to_owned()));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

#[test]
fn no_wrong_value_of_any_key_is_told_in_words_of_the_program() {
    let keys = keys();
    assert!(keys.len() > 35, "{keys:?}");
    let values = [
        "-1",
        "1.5",
        "true",
        "\"x\"",
        "\"\"",
        "[]",
        "[1]",
        "[\"x\"]",
        "{ a = 1 }",
        "99999999999",
        "99999999999999999999",
        "2026-01-01",
        "[{ user = \"a\" }]",
        "[{ user = 1, role = \"x\" }]",
        "[{ user = \"a\", role = \"chief\" }]",
        "1979-05-27T07:32:00Z",
        "inf",
        "'x' y",
    ];
    let mut told = 0;
    for (section, key) in &keys {
        for value in values {
            let text = format!("[{section}]\n{key} = {value}\n");
            for mistake in Config::parse(&text).err().into_iter().flatten() {
                assert_in_words(&mistake.text, &text);
                assert!(!mistake.text.contains('\n'), "{text}: {mistake:?}");
                told += 1;
            }
        }
        let whole = format!("{section} = 1\n");
        for mistake in Config::parse(&whole).unwrap_err() {
            assert_in_words(&mistake.text, &whole);
        }
    }
    assert!(told > 300, "{told}");
    for text in [
        "[",
        "[a",
        "a",
        "a =",
        "a = \"",
        "a = [1",
        "[a]\n[a]",
        "x = 1\nx = 2",
        "a = 1 1",
        "\u{0}",
    ] {
        for mistake in Config::parse(text).unwrap_err() {
            assert_in_words(&mistake.text, text);
        }
    }
}

#[test]
fn a_value_is_told_with_what_was_expected_and_what_was_found() {
    for (text, wanted) in [
        (
            "[listen]\nhttp = \"localhost\"",
            "listen.http: expected an address with a port, such as \"127.0.0.1:5985\" or \"[::]:5986\"",
        ),
        (
            "[auth]\nbasic = \"yes\"",
            "auth.basic: expected true or false, found \"yes\"",
        ),
        (
            "[limits]\ncontexts = -1",
            "limits.contexts: expected a whole number, 0 or more, found the number -1",
        ),
        (
            "[limits]\ncontexts = \"9\"",
            "limits.contexts: expected a whole number, 0 or more, found \"9\"",
        ),
        (
            "[export]\nroots = \"/a\"",
            "export.roots: expected a list in [ ], found \"/a\"",
        ),
        (
            "[engine]\ndefault = \"kvm\"",
            "engine.default: expected `library` or `sim`, found `kvm`",
        ),
        (
            "[engine]\ndefault = 5",
            "engine.default: expected a text in quotes",
        ),
        (
            "[limits]\ncontexts = 99999999999999999999",
            "limits.contexts: expected a whole number, 0 or more, found the number 99999999999999999999",
        ),
        (
            "[export]\nroots = [\"\"]",
            "export.roots must hold absolute paths, not ``",
        ),
        (
            "[listen]\nhttp = 5985",
            "listen.http: expected an address with a port",
        ),
    ] {
        let mistakes = Config::parse(text).unwrap_err();
        assert!(mistakes[0].text.starts_with(wanted), "{text}: {mistakes:?}");
    }
}

#[test]
fn no_wrong_option_of_a_command_is_told_in_words_of_the_program() {
    let nowhere = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["serve", "--listen", "x"][..], "expected ADDRESS:PORT"),
        (
            &["serve", "--tls-listen", "1.2.3.4:99999"],
            "expected ADDRESS:PORT",
        ),
        (&["serve", "--engine", "kvm"], "library"),
        (&["serve", "--machines=-1"], "machines"),
        (
            &["serve", "--machines", "many"],
            "a whole number from 0 to 100000",
        ),
        (&["quickstart", "--listen", "x"], "expected ADDRESS:PORT"),
        (&["history", "--limit", "many"], "a whole number from 1 to"),
        (&["history", "--since", "yesterday"], "expected a date"),
        (&["user", "unlock", "--address", "x"], "expected an address"),
        (&["user", "add", "a", "--role", "chief"], "operator"),
        (&["vm", "import", "a", "b", "--format", "vhd"], "qcow2"),
        (&["--color", "blue", "vm", "list"], "always"),
    ] {
        let out = run_in(nowhere.path(), args, "");
        assert_eq!(code(&out), 2, "{args:?}: {}", said(&out));
        let told = said(&out).replace("invalid value", "");
        assert_in_words(&told, &format!("{args:?}"));
        assert!(told.contains(part), "{args:?}: {told}");
    }
}

#[test]
fn no_broken_file_is_told_in_words_of_the_program() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    site.serve().stop();
    let folder = site.data.join("machines").join(&machine.id);
    let config = site.configuration("");
    let files = [
        ("groupshot.toml", config.clone()),
        ("users.json", site.data.join("users.json")),
        ("directory.json", site.data.join("directory.json")),
        ("relocate.json", site.data.join("relocate.json")),
        ("vm.toml", folder.join("vm.toml")),
        ("tops.json", folder.join("tops.json")),
    ];
    let wrong: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"{\"format\": \"x\"}",
        b"{\"format\": -1, \"users\": 3, \"tops\": []}",
        b"format = \"x\"",
        b"format = 1\nname = 3\n[[disk]]\nid = 1",
        b"\xFF\xFE\x00",
    ];
    let config = config.to_str().unwrap();
    for (name, file) in &files {
        let before = fs::read(file).ok();
        for text in wrong {
            fs::write(file, text).unwrap();
            for args in [
                &["config", "check", config][..],
                &["doctor", "--config", config],
                &["vm", "list"],
                &["vm", "set", "web", "--overlay-ok", "--yes"],
                &["user", "list"],
                &["history"],
            ] {
                let told = said(&run_in(&site.data, args, ""));
                assert_in_words(&told, &format!("{name} {text:?} {args:?}"));
            }
        }
        match before {
            Some(before) => fs::write(file, before).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
    }
}

#[test]
fn a_name_that_nobody_sees_is_refused_with_the_reason() {
    let site = Site::new(Ground::Host);
    let image = site.image("web", Image::Raw, 1);
    let server = site.serve();
    for name in ["\u{200B}", "\u{2060}\u{FEFF} "] {
        let import = ["vm", "import", name, image.to_str().unwrap()];
        let refused = run_in(&site.data, &import, "");
        fails(&refused, 1, "only characters that nobody sees");
        let create = server.cli(&["collection", "create", name]);
        fails(&create, 1, "only characters that nobody sees");
    }
}

#[test]
fn user_unlock_without_a_word_names_both_ways() {
    let data = tempfile::tempdir().unwrap();
    let refused = run_in(data.path(), &["user", "unlock"], "");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("NAME") && said.contains("--address"),
        "{said}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_in_words() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    for (line, told) in [
        ("level = \"info", "a text in quotes is not closed"),
        ("level = warn", "a text without quotes"),
        ("level", "the key has no value; expected `=`"),
        ("level = ", "there is no value"),
        (
            "level = \"a\" format = \"b\"",
            "the line goes on where it should end; expected the end of the line",
        ),
        ("level = 1\nlevel = 2", "the key stands twice"),
        ("level = [1", "a bracket is not closed; expected `]`"),
    ] {
        fs::write(&file, format!("[log]\n{line}\n")).unwrap();
        let out = run_in(
            home.path(),
            &["config", "check", file.to_str().unwrap()],
            "",
        );
        let said = text(&out.stderr);
        assert!(
            said.contains(told) && said.contains(": column "),
            "{line}: {said}"
        );
        assert!(
            !said.contains("invalid") && !said.contains("cannot be understood"),
            "{said}"
        );
    }
}
