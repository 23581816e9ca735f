//! The real server dies by SIGKILL, at every named place and at any moment, and again while it recovers.
//! After the next start nothing that a client was told is lost, nothing half done is left, and every disk
//! holds what it must.

mod at_each_step;
mod at_each_step_of_apply;
mod at_each_step_of_destroy;
mod at_random;
mod ledger;
mod power_cut;
