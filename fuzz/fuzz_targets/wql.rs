//! Any text as a WQL query; what is read is checked against the schema, written and read again.
#![no_main]

use std::sync::LazyLock;

use groupshot::cim::Schema;
use groupshot::cim::query::{Language, fuzz};

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::builtin);

libfuzzer_sys::fuzz_target!(|text: &str| assert!(fuzz(Language::Wql, text, &SCHEMA)));
