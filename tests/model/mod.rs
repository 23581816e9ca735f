//! Random sequences of everything that can be done to machines and their snapshot sets, against a model that
//! knows every byte. A failing sequence shrinks and prints itself.

mod change;
mod check;
mod sequence;
mod step;
mod world;

use proptest::test_runner::{Config, TestRng, TestRunner, basic_result_cache};

use crate::support::site::Ground;

use self::sequence::Sequence;
use self::step::op;
use self::world::World;

/// Steps of one sequence.
const STEPS: usize = 50;

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn over_overlays_the_model_knows_every_byte() {
    sequences(Ground::Host);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn over_clones_the_model_knows_every_byte() {
    sequences(Ground::Xfs);
}

fn sequences(ground: Ground) {
    // The long run is another one each time: 10 000 steps with both grounds. The short one repeats.
    let long = std::env::var_os("GROUPSHOT_TEST_LONG").is_some();
    let cases = if long { 100 } else { 3 };
    let config = Config {
        cases,
        max_shrink_iters: 200,
        max_shrink_time: 600_000, // milliseconds
        failure_persistence: None,
        result_cache: basic_result_cache,
        ..Config::default()
    };
    let steps = Sequence(op(), STEPS);
    let run = |ops: Vec<step::Op>| {
        let mut world = World::new(ground);
        for (n, op) in ops.iter().enumerate() {
            world.step(n, op);
        }
        world.check("at the end");
        Ok(())
    };
    let mut runner = match long {
        true => TestRunner::new(config),
        false => {
            let chance = TestRng::deterministic_rng(config.rng_algorithm);
            TestRunner::new_with_rng(config, chance)
        }
    };
    if let Err(e) = runner.run(&steps, run) {
        panic!("{ground:?}: {e}");
    }
}
