//! Row 4: a hundred thousand instances in pages of a thousand: memory per page, and time per instance over that of a
//! server with a thousand.

use std::time::{Duration, Instant};

use crate::process::Process;
use crate::{load, median, subject, verdict};

/// Items of one Pull.
const PAGE: usize = 1000;
/// The second half of the pages may take so much more resident memory than the first, in MiB.
const GROWTH: f64 = 2.0;
/// Time per instance may be so many times that of the small server.
const TIMES: f64 = 1.2;

pub(crate) fn run(short: bool) {
    let (many, rounds) = if short { (10_000, 3) } else { (100_000, 15) };
    let (large, small) = (Process::start(many), Process::start(1000));
    let (mut per_large, mut per_small) = (Vec::new(), Vec::new());
    let mut pages = Vec::new();
    for round in 0..rounds {
        let walk = walk(&large);
        per_large.push(walk.per_instance);
        // One page of the small server is over soon: as many walks as make the same number of instances, at most ten.
        let walks = (many / 1000).min(10);
        per_small.extend((0..walks).map(|_| self::walk(&small).per_instance));
        if round == 0 {
            pages = walk.resident;
        }
        if round == 2 && walk.took > Duration::from_secs(20) {
            break;
        }
    }
    let (first, second) = pages.split_at(pages.len() / 2);
    let most = |half: &[f64]| half.iter().copied().fold(0.0, f64::max);
    let (first, second) = (most(first), most(second));
    println!(
        "memory of the first walk over {many}: {first:.1} MiB at most in the first half of {} pages, \
         {second:.1} MiB in the second, target <= {GROWTH} MiB more: {}",
        pages.len(),
        verdict(second - first <= GROWTH)
    );
    let (large, small) = (median(per_large), median(per_small));
    println!(
        "time per instance: {large:.2} us of {many}, {small:.2} us of 1000, ratio {:.2}, target <= {TIMES}: {}",
        large / small,
        verdict(large / small <= TIMES)
    );
}

struct Walk {
    took: Duration,
    /// Microseconds.
    per_instance: f64,
    /// MiB after each page.
    resident: Vec<f64>,
}

/// Enumerates every computer system.
fn walk(server: &Process) -> Walk {
    let mut connection = load::Connection::open(server.address);
    let began = Instant::now();
    let (status, answer) = connection.exchange(&subject::open(server.address));
    assert_eq!(status, 200, "{answer}");
    let mut context = between(&answer, "EnumerationContext>").to_owned();
    let (mut count, mut resident) = (0, Vec::new());
    loop {
        let (status, answer) = connection.exchange(&subject::pull(server.address, &context, PAGE));
        assert_eq!(status, 200, "{answer}");
        count += answer.matches("</p:Msvm_ComputerSystem>").count();
        resident.push(server.resident());
        if answer.contains("EndOfSequence") {
            break;
        }
        between(&answer, "EnumerationContext>").clone_into(&mut context);
    }
    let took = began.elapsed();
    Walk {
        took,
        per_instance: took.as_secs_f64() * 1e6 / count as f64,
        resident,
    }
}

/// The text behind the first `tag`, up to the next tag.
fn between<'a>(answer: &'a str, tag: &str) -> &'a str {
    let (_, rest) = answer.split_once(tag).unwrap();
    rest.split('<').next().unwrap()
}
