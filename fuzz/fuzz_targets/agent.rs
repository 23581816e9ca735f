//! Any bytes from a guest: cut into lines in the same way, however they arrive, within bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert!(groupshot::engine::qemu::agent::fuzz(bytes)));
