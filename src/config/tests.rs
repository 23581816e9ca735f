//! The file as operators write it.

use std::time::Duration;

use super::*;
use crate::engine::settings::EngineKind;

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(Config::parse(""), Ok(Config::default()));
}

#[test]
fn the_example_of_the_documentation_is_valid_and_shows_the_defaults() {
    let source = include_str!("mod.rs");
    let example: String = source
        .lines()
        .skip_while(|l| *l != "//! ```toml")
        .skip(1)
        .take_while(|l| *l != "//! ```")
        .map(|l| format!("{}\n", l.trim_start_matches("//! ")))
        .collect();
    assert!(example.contains("[limits]"));
    assert_eq!(Config::parse(&example), Ok(Config::default()));
}

#[test]
fn values_are_read() {
    let config = Config::parse(
        "[listen]\nhttp = \"[::1]:0\"\n[limits]\nenvelope = 153600\noperation_timeout = 30\n\
         [snapshot]\ninline_wait = \"1m 30s\"\nreserve = \"10GiB\"\n[engine]\ndefault = \"sim\"\n",
    )
    .unwrap();
    assert_eq!(config.listen.http.to_string(), "[::1]:0");
    assert_eq!(config.limits.envelope, 153_600);
    assert_eq!(config.limits.operation_timeout, Duration::from_secs(30));
    assert_eq!(config.snapshot.inline_wait, Duration::from_secs(90));
    assert_eq!(config.snapshot.reserve, 10 << 30);
    assert_eq!(config.engine.default, EngineKind::Sim);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, part) in [
        (
            "[limits]\n\nenvelop = 1",
            3,
            "limits.envelop: unknown key `envelop`",
        ),
        ("[snapshots]\nreserve = 1", 1, "unknown key `snapshots`"),
        ("[listen]\nhttp = \"localhost\"", 2, "listen.http: "),
        ("[limits]\nenvelope = \"1 kB\"", 2, "limits.envelope: "),
        (
            "[limits]\nenvelope = 10",
            2,
            "limits.envelope must be between",
        ),
        (
            "[job]\nkeep = \"1s\"",
            2,
            "job.keep must be between 5m and 8784h",
        ),
        (
            "[export]\nroots = [\"/a\", \"b\"]",
            2,
            "export.roots must hold absolute paths, not `b`",
        ),
        (
            "[engine]\nmachines = 100001",
            2,
            "engine.machines must be at most 100000",
        ),
        ("[limits]\noperation_timeout = -1", 2, "a length of time"),
        (
            "[auth]\nlockout_seconds = 0",
            2,
            "auth.lockout_seconds must be between",
        ),
        (
            "[auth]\nlockout_failures = -1",
            2,
            "auth.lockout_failures: ",
        ),
        ("[tls]\nmin_version = \"1.1\"", 2, "tls.min_version: "),
        (
            "[tls]\n\ncertificate = \"c.pem\"",
            3,
            "tls.certificate needs tls.key beside it",
        ),
        (
            "[tls]\ncrl = \"c.pem\"",
            2,
            "tls.crl needs tls.client_ca beside it",
        ),
        (
            "[roles]\nmappings = [{ san = \"dns:a\", user = \"a\", role = \"reader\" }]",
            2,
            "roles.mappings needs tls.client_ca beside it",
        ),
        (
            "[tls]\nclient_ca = \"c\"\n[roles]\nmappings = [{ user = \"a\", role = \"reader\" }]",
            4,
            "must have one of subject, san and fingerprint",
        ),
        (
            "[tls]\nclient_ca = \"c\"\n[roles]\nmappings = [{ san = \"ann\", user = \"a\", role = \"reader\" }]",
            4,
            "`ann` is not upn:, email:, dns: or uri:",
        ),
        (
            "[engine]\nimage_roots = [\"/a\", \"b\"]",
            2,
            "engine.image_roots must hold absolute paths, not `b`",
        ),
        (
            "[http]\nallowed_origins = [\"https://a.example\", \"https://b.example/\"]",
            2,
            "http.allowed_origins cannot be read: `https://b.example/` is no origin",
        ),
        (
            "[http]\nallowed_origins = [\"null\"]",
            2,
            "`null` is no origin",
        ),
        ("[log]\nlevel = 3", 2, "log.level: "),
        ("[log]\nlevel = \"a=b=c\"", 2, "log.level cannot be read: "),
        ("[log]\naudit = 1", 2, "log.audit: "),
        ("[log]\naudit = \"\"", 2, "log.audit: "),
        (
            "[listen]\nhttps = \"127.0.0.1:5985\"",
            2,
            "listen.https is the address of listen.http",
        ),
        (
            "[limits]\nuser_connections = 0",
            2,
            "limits.user_connections must be between 1 and 1000000000",
        ),
        (
            "[limits]\nstop_timeout = \"1ms\"",
            2,
            "limits.stop_timeout must",
        ),
        ("[log\n", 1, ""),
    ] {
        let mistakes = Config::parse(text).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
        let reason = &mistakes[0].text;
        assert_eq!(mistakes[0].line, line, "{text}: {reason}");
        assert!(reason.contains(part), "{text}: {reason}");
        assert!(!reason.contains('\n'), "{reason}");
    }
}

/// What is read as a time, a size or a number is bounded on both sides, and the bound is told.
#[test]
fn no_time_size_or_number_is_beyond_what_makes_sense() {
    const HUGE: &str = "9223372036854775807";
    for (section, keys, bound) in [
        (
            "limits",
            &[
                "operation_timeout",
                "enumeration_timeout",
                "header_timeout",
                "packet_timeout",
                "idle_timeout",
                "stop_timeout",
            ][..],
            "24h",
        ),
        (
            "limits",
            &[
                "connections",
                "user_connections",
                "user_requests",
                "per_user",
                "contexts",
            ],
            "1000000000",
        ),
        ("limits", &["envelope"], "64MiB"),
        ("snapshot", &["inline_wait"], "24h"),
        ("snapshot", &["reserve"], "1024TiB"),
        ("snapshot", &["chain_cap"], "1000000000"),
        ("job", &["keep"], "8784h"),
        ("auth", &["lockout_seconds"], "31622400"),
        ("engine", &["machines"], ""),
    ] {
        for key in keys {
            let mistakes = Config::parse(&format!("[{section}]\n{key} = {HUGE}")).unwrap_err();
            let [mistake] = &mistakes[..] else {
                panic!("{key}: {mistakes:?}");
            };
            assert_eq!(mistake.key, format!("{section}.{key}"));
            assert!(mistake.text.contains(bound), "{}", mistake.text);
        }
    }
    // The bounds themselves can be reached.
    let most = "[limits]\nstop_timeout = \"24h\"\ncontexts = 1000000\n\
                [snapshot]\nreserve = \"1024TiB\"\n[job]\nkeep = \"8784h\"\n";
    assert!(Config::parse(most).is_ok());
}

#[test]
fn every_mistake_is_told_and_none_that_follows_from_another() {
    let text = "[listen]\nhttpp = \"a\"\n[limits]\nenvelope = \"12KB\"\nfoo = 1\n\
                [tls]\ncertificate = 3\nkey = \"k.pem\"\n[snapshot]\nreserve = -1\n\
                [[roles.mappings]]\nuser = \"a\"\n[job]\nkeep = \"1s\"\n\
                [export]\nroots = [\"/a\", \"b\", \"c\"]\n";
    let found = Config::parse(text).unwrap_err();
    let places: Vec<_> = found.iter().map(|m| (m.line, m.key.as_str())).collect();
    let wanted = [
        (2, "listen.httpp"),
        (4, "limits.envelope"),
        (5, "limits.foo"),
        (7, "tls.certificate"),
        (10, "snapshot.reserve"),
        (11, "roles.mappings"),
        (14, "job.keep"),
        (16, "export.roots"),
        (16, "export.roots"),
    ];
    assert_eq!(places, wanted, "{found:?}");
}
