//! Any bytes as a request body: a typed request or a fault, and the fault can be written.
#![no_main]

use std::sync::LazyLock;

use groupshot::cim::Schema;
use groupshot::framing::Charset;
use groupshot::soap::Envelope;
use groupshot::wsman::request::{RequestLimits, Request};
use groupshot::xml;

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::builtin);
static LIMITS: LazyLock<RequestLimits> = LazyLock::new(RequestLimits::default);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok((text, _)) = Charset::decode(bytes, None) else {
        return;
    };
    let Ok(document) = xml::parse(&text) else {
        return;
    };
    let Ok(envelope) = Envelope::parse(document.root()) else {
        return;
    };
    let _ = Request::parse(&envelope, &SCHEMA, &LIMITS, "");
});
