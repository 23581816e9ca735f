//! Any bytes from a monitor: cut into lines in the same way, however they arrive.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert!(groupshot::engine::qemu::qmp::fuzz(bytes)));
