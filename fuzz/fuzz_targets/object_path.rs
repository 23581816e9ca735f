//! Any text as an object path; what is read is written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| assert!(groupshot::cim::path::fuzz(text)));
