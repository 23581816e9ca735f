//! Any bytes as a MOF file: errors or classes, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| groupshot::cim::mof::fuzz_mof(bytes));
