//! Row 2: a CreateSnapshot envelope of a real client to a typed request, over a bare `NsReader` loop on the same bytes.

use std::hint::black_box;
use std::time::Instant;

use groupshot::cim::Schema;
use groupshot::framing::Charset;
use groupshot::soap::Envelope;
use groupshot::wsman::request::{Request, RequestLimits};
use groupshot::xml;

use crate::{ceiling, median, verdict};

/// What the design allows.
const TARGET: f64 = 1.5;

pub(crate) fn run(short: bool) {
    let rounds = if short { 201 } else { 2001 };
    let recorded = include_str!("../fixtures/wire/pypsrp-basic/invoke.request.txt");
    let (_, body) = recorded.split_once("\n\n").unwrap();
    let body = body.replace("@COLLECTION@", "11111111-1111-1111-1111-111111111111");
    let (schema, limits) = (Schema::builtin(), RequestLimits::default());
    let typed = || {
        let (text, _) = Charset::decode(body.as_bytes(), None).unwrap();
        let document = xml::parse(&text).unwrap();
        let envelope = Envelope::parse(document.root()).unwrap();
        black_box(Request::parse(&envelope, &schema, &limits, "").unwrap());
    };
    let bare = || {
        black_box(ceiling::walk(&body));
    };
    let mut ratios = Vec::new();
    let (mut typed_ns, mut bare_ns) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (ours, floor) = (nanoseconds(&typed), nanoseconds(&bare));
        ratios.push(ours / floor);
        typed_ns.push(ours);
        bare_ns.push(floor);
    }
    let ratio = median(ratios);
    println!(
        "{} octets: typed request {:.0} ns, bare loop {:.0} ns, ratio {ratio:.2}, target <= {TARGET}: {}",
        body.len(),
        median(typed_ns),
        median(bare_ns),
        verdict(ratio <= TARGET)
    );
}

fn nanoseconds(work: &dyn Fn()) -> f64 {
    const TIMES: u32 = 100;
    let began = Instant::now();
    for _ in 0..TIMES {
        work();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
}
