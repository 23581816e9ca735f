//! Replays the fixtures of every fuzz target: seeds that reach far, and finds of past runs.

use std::fs;
use std::path::{Path, PathBuf};

use groupshot::cim::Schema;
use groupshot::cim::query;
use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::engine::qcow2::header::Header;
use groupshot::framing::Charset;
use groupshot::soap::Envelope;
use groupshot::wsman::request::{Request, RequestLimits};
use groupshot::xml;

#[test]
fn envelope() {
    let (schema, limits) = (Schema::builtin(), RequestLimits::default());
    let read = |bytes: &[u8]| {
        let (text, _) = Charset::decode(bytes, None).ok()?;
        let document = xml::parse(&text).ok()?;
        let envelope = Envelope::parse(document.root()).ok()?;
        Request::parse(&envelope, &schema, &limits, "").ok()
    };
    replay("envelope", |bytes| drop(read(bytes)));
}

#[test]
fn mof() {
    replay("mof", groupshot::cim::mof::fuzz_mof);
}

#[test]
fn instance_text() {
    let schema = Schema::builtin();
    replay("instance_text", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(groupshot::cim::cimxml::fuzz(
                &schema,
                VIRTUALIZATION_V2,
                text
            ));
        }
    });
}

#[test]
fn association_filter() {
    let schema = Schema::builtin();
    replay("association_filter", |bytes| {
        if let Ok(filter) = std::str::from_utf8(bytes) {
            assert!(groupshot::wsman::request::fuzz_association_filter(
                &schema, filter
            ));
        }
    });
}

#[test]
fn object_path() {
    replay("object_path", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(groupshot::cim::path::fuzz(text));
        }
    });
}

#[test]
fn wql() {
    let schema = Schema::builtin();
    replay("wql", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(query::fuzz(query::Language::Wql, text, &schema));
        }
    });
}

#[test]
fn cql() {
    let schema = Schema::builtin();
    replay("cql", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(query::fuzz(query::Language::Cql, text, &schema));
        }
    });
}

#[test]
fn xpath() {
    let schema = Schema::builtin();
    replay("xpath", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(query::fuzz_xpath(text, &schema));
        }
    });
}

#[test]
fn qcow2_header() {
    replay("qcow2_header", |bytes| {
        let Ok(header) = Header::parse(bytes) else {
            return;
        };
        let _ = (header.backing_format(), header.refusal());
        if let Some(again) = header.with_backing(b"/images/base.raw", "raw") {
            let read = Header::parse(&again).expect("our own header can be read");
            assert_eq!(read.backing_format().as_deref(), Some("raw"));
        }
    });
}

#[test]
fn qcow2_content() {
    replay("qcow2_content", |bytes| {
        assert!(groupshot::engine::content::fuzz(bytes).unwrap());
    });
}

#[test]
fn qmp() {
    replay("qmp", |bytes| {
        assert!(groupshot::engine::qemu::qmp::fuzz(bytes))
    });
}

#[test]
fn agent() {
    replay("agent", |bytes| {
        assert!(groupshot::engine::qemu::agent::fuzz(bytes))
    });
}

#[test]
fn query_block() {
    replay("query_block", |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(groupshot::engine::qemu::blocks::fuzz(text));
        }
    });
}

#[test]
fn every_fuzz_target_is_replayed_here() {
    let here = include_str!("fuzz_regression.rs");
    for entry in fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap() {
        let name = entry
            .unwrap()
            .path()
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            here.contains(&format!("replay(\"{name}\"")),
            "the finds of {name} are not replayed"
        );
    }
}

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = root().join("fixtures/fuzz").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.is_empty(), "{} is empty", path.display());
        run(&bytes);
        replayed += 1;
    }
    assert!(replayed > 0, "{} holds no fixture", folder.display());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
