//! Real QEMU processes that start members at the wrong moment.

mod disk;
mod foreign_starts;
mod guest;
