//! Any bytes as a qcow2 image: read by its tables, unpacked, and written; an error, or the same bytes again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(groupshot::engine::content::fuzz(bytes).unwrap());
});
