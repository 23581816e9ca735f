//! Machines that a real QEMU runs.

mod cut;
mod import;
mod states;
