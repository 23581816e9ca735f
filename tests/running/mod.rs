//! Machines that a real QEMU runs.

mod agent;
mod import;
mod states;
