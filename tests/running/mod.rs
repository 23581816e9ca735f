//! Machines that a real QEMU runs.

mod agent;
mod causal;
mod counter;
mod cut;
mod death;
mod import;
mod states;
mod unseen;
