//! Any markup as an association filter in an Enumerate of every class.
#![no_main]

use std::sync::LazyLock;

use groupshot::cim::Schema;

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::builtin);

libfuzzer_sys::fuzz_target!(|filter: &str| {
    assert!(groupshot::wsman::request::fuzz_association_filter(&SCHEMA, filter));
});
