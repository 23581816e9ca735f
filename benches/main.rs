//! `cargo bench`: ratios within one run, for absolute times do not travel between machines.
//!
//! ```text
//!   cargo bench                      everything
//!   cargo bench -- parse wire        these parts: parse, wire, memory, enumerate, query, associate, fair, accept,
//!                                    tls, merge, life, stun
//!   cargo bench -- --short           few rounds, to see that everything still runs
//! ```
//!
//! Each row ends in `met` or `NOT MET`; what the rows mean is told in `docs/performance.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark may panic, measures time and prints"
)]

mod accept;
mod associate;
mod ceiling;
mod enumerate;
mod fair;
mod life;
mod load;
mod memory;
mod merge;
mod parse;
mod process;
#[path = "../tests/support/qemu.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod qemu;
mod query;
#[path = "../tests/support/remote.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod remote;
mod stun;
mod subject;
mod tls;
mod wire;

/// A part: its name, and what runs it; with `true` in few rounds.
type Part = (&'static str, fn(bool));

const PARTS: [Part; 12] = [
    ("parse", parse::run),
    ("wire", wire::run),
    ("memory", memory::run),
    ("enumerate", enumerate::run),
    ("query", query::run),
    ("associate", associate::run),
    ("fair", fair::run),
    ("accept", accept::run),
    ("tls", tls::run),
    ("merge", merge::run),
    ("life", life::run),
    ("stun", stun::run),
];

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let short = args.iter().any(|a| a == "--short");
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    for (name, run) in PARTS {
        if words.is_empty() || words.iter().any(|w| name.contains(w.as_str())) {
            println!("\n== {name}");
            run(short);
        }
    }
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    f64::midpoint(values[(n - 1) / 2], values[n / 2])
}

/// The middle half of the values: their first and third quartile.
fn spread(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 4], values[n - 1 - (n - 1) / 4])
}

/// The end of a row.
fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "NOT MET" }
}
