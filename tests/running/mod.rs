//! Machines that a real QEMU runs.

mod import;
mod states;
