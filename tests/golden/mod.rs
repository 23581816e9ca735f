//! Golden envelopes: the answer to every operation and every fault, in both URI families, byte by byte.
//!
//! The answers come from `operation::Server` over simulated machines at a standing clock. What is random
//! (GUIDs) or depends on the place (paths, the version) is replaced by a name. `fixtures/golden` holds one
//! file for each answer; `UPDATE_GOLDEN=1 cargo test golden` writes them anew, and whoever does so reads
//! the difference against the rules. Apart from the files every answer is held against the rules that all
//! answers share, so that not even a rewritten file can break those.

mod ask;
mod associations;
mod book;
mod classes;
mod coverage;
mod faults;
mod header_faults;
mod methods;
mod operations;
mod queries;
mod rules;
mod world;
