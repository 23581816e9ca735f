//! `groupshot completions` and `groupshot man`: made from the definition of the commands.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::Failure;
use super::output;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Where the pages go; made if it is not there.
    directory: PathBuf,
}

pub(super) fn completions(command: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "groupshot", &mut script);
    output::print(&script)
}

pub(super) fn pages(command: &Man) -> Result<(), Failure> {
    fs::create_dir_all(&command.directory)?;
    Ok(clap_mangen::generate_to(
        Cli::command(),
        &command.directory,
    )?)
}
