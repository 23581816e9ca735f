//! Any bytes as a qcow2 header: an error or a header whose parts can be asked and rewritten.
#![no_main]

use groupshot::engine::qcow2::header::Header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes) else {
        return;
    };
    let _ = (header.backing_format(), header.refusal());
    if let Some(again) = header.with_backing(b"/images/base.raw", "raw") {
        let read = Header::parse(&again).expect("our own header can be read");
        assert_eq!(read.backing_format().as_deref(), Some("raw"));
    }
});
