//! Any text as an `<INSTANCE>` of the built-in schema; what is read is written and read again.
#![no_main]

use std::sync::LazyLock;

use groupshot::cim::Schema;
use groupshot::cim::schema::VIRTUALIZATION_V2;

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::builtin);

libfuzzer_sys::fuzz_target!(|text: &str| {
    assert!(groupshot::cim::cimxml::fuzz(&SCHEMA, VIRTUALIZATION_V2, text));
});
