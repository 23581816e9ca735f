//! `groupshot guard`: for the server alone, which starts it.

use clap::Args;

use crate::server;

use super::failure::Failure;

/// Lets machines go if the server that starts it dies while they stand still.
#[derive(Debug, Args)]
pub(super) struct Guard;

pub(super) fn run() -> Result<(), Failure> {
    server::guard().map_err(|e| {
        Failure::failed(format_args!(
            "a server starts the guard and hands machines over to it: {e}"
        ))
    })
}
