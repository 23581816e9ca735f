//! Any answers to `query-block` and `query-named-block-nodes`, a line each: no more disks than are named.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| assert!(groupshot::engine::qemu::blocks::fuzz(text)));
