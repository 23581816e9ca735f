//! One contract for every storage driver, run over simulated and real disks, and our locks and images
//! against QEMU's own tools.

mod contract;
mod flatten;
mod library;
mod live;
mod merge;
mod rigs;
mod running;
mod silent;
mod trouble;
mod with_qemu;
