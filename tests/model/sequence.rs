//! Sequences of steps. One that fails becomes shorter first, by halves, and then each of its steps simpler.

use std::mem::take;

use proptest::strategy::{BoxedStrategy, NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// So many of these.
#[derive(Debug)]
pub(super) struct Sequence<T>(pub(super) BoxedStrategy<T>, pub(super) usize);

impl<T: std::fmt::Debug + 'static> Strategy for Sequence<T> {
    type Tree = Tree<T>;
    type Value = Vec<T>;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let steps = (0..self.1).map(|_| self.0.new_tree(runner));
        Ok(Tree {
            steps: steps.collect::<Result<_, _>>()?,
            left: vec![true; self.1],
            length: self.1.div_ceil(2),
            at: 0,
            cut: Vec::new(),
        })
    }
}

/// What is left of a sequence, and what is tried next.
pub(super) struct Tree<T> {
    steps: Vec<Box<dyn ValueTree<Value = T>>>,
    left: Vec<bool>,
    /// How many steps are cut out at once; 0 when steps become simpler.
    length: usize,
    /// The next step to be cut out or made simpler.
    at: usize,
    /// The steps that the last try has cut out.
    cut: Vec<usize>,
}

impl<T> Tree<T> {
    /// Whether there was anything left to cut out.
    fn cut(&mut self) -> bool {
        while self.length > 0 {
            let here = self.at..self.steps.len().min(self.at + self.length);
            self.at = here.end;
            if here.is_empty() {
                self.at = 0;
                self.length /= 2;
            }
            self.cut = here.filter(|n| self.left[*n]).collect();
            if !self.cut.is_empty() {
                self.set(false);
                return true;
            }
        }
        false
    }

    fn set(&mut self, left: bool) {
        self.cut.iter().for_each(|n| self.left[*n] = left);
    }
}

impl<T: std::fmt::Debug> ValueTree for Tree<T> {
    type Value = Vec<T>;

    fn current(&self) -> Vec<T> {
        let left = self.steps.iter().zip(&self.left).filter(|s| *s.1);
        left.map(|s| s.0.current()).collect()
    }

    fn simplify(&mut self) -> bool {
        if self.cut() {
            return true;
        }
        while self.at < self.steps.len() {
            if self.left[self.at] && self.steps[self.at].simplify() {
                return true;
            }
            self.at += 1;
        }
        false
    }

    fn complicate(&mut self) -> bool {
        if self.length == 0 && self.cut.is_empty() {
            return self.steps.get_mut(self.at).is_some_and(|s| s.complicate());
        }
        self.set(true);
        !take(&mut self.cut).is_empty()
    }
}

#[test]
fn a_failing_sequence_shrinks_to_the_steps_that_it_needs() {
    use proptest::test_runner::{Config, TestError};

    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let numbers = Sequence((0..100u8).boxed(), 50);
    // A large number and, somewhere behind it, one that is not small.
    let fails = |numbers: Vec<u8>| {
        let mut behind = numbers.iter().skip_while(|n| **n < 60).skip(1);
        match behind.any(|n| *n >= 7) {
            true => panic!("it fails"),
            false => Ok(()),
        }
    };
    let found = TestRunner::new(config).run(&numbers, fails);
    let Err(TestError::Fail(_, numbers)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(numbers, [60, 7]);
}
