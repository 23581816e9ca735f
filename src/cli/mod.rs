//! The command line: one file for each group of commands, nothing but words in and words out.
//!
//! Commands that act on the data directory call `server`; those that act on a server, ours or another,
//! speak WS-Management through `client`. Results go to standard output (for people, or with `--json` as
//! objects with a `version`), everything else to standard error as one line.

mod actives;
mod apart;
mod call;
mod check;
mod collection;
mod configuration;
mod contents;
mod doctor;
mod failure;
mod guard;
mod history;
mod job;
mod local;
mod manual;
mod naming;
mod output;
mod owner;
mod prompt;
mod quickstart;
mod rebuild;
mod relocate;
mod remote;
mod rescue;
mod schema;
mod screen;
mod sections;
mod serve;
mod show;
mod snapshot;
mod stop;
mod terminal;
mod user;
mod vm;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::telemetry;

use failure::Failure;
use output::Output;
use screen::Color;

/// Snapshot sets of whole groups of virtual machines, over WS-Management.
#[derive(Debug, Parser)]
#[command(name = "groupshot", version, propagate_version = true)]
struct Cli {
    /// Print one JSON object instead of text for people; an error as one on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only: no progress, no notes.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Colours: on a terminal, unless NO_COLOR is set; always; or never.
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Show the main job on fresh machines with real disks, then stay up for any client.
    Quickstart(quickstart::Quickstart),
    /// Groups of machines, on a server.
    #[command(subcommand)]
    Collection(collection::Command),
    /// Snapshot sets, on a server.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Jobs, on a server.
    #[command(subcommand)]
    Job(job::Command),
    /// The library of machines, in the data directory.
    #[command(subcommand)]
    Vm(vm::Command),
    /// Users and their roles, in the data directory.
    #[command(subcommand)]
    User(user::Command),
    /// Write new paths after the data directory or image folders were moved.
    Relocate(relocate::Relocate),
    /// End what operations in flight left when the server died, without a server.
    Rescue(rescue::Rescue),
    #[command(hide = true)]
    Guard(guard::Guard),
    /// CIM classes: compile MOF, show what is built in.
    #[command(subcommand)]
    Schema(schema::Command),
    /// The configuration file.
    #[command(subcommand)]
    Config(configuration::Command),
    /// Say what is wrong in the data directory, and repair it; a running server is asked.
    Doctor(doctor::Doctor),
    /// Show how operations ended in the last 30 days; a running server is asked.
    History(history::History),
    /// Print a completion script for a shell.
    Completions(manual::Completions),
    /// Write the manual pages into a directory.
    Man(manual::Man),
}

/// How long whoever reads the log is waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Runs the program with the arguments it was started with.
pub fn main() -> ExitCode {
    let command = Cli::command().color(refused_in(env::args_os()));
    let parsed = command.try_get_matches();
    let cli = match parsed.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap too; both go where they should.
            let in_json = env::args_os().any(|word| word == "--json");
            match error.use_stderr() && in_json {
                true => Output::new(true, false, Color::Never).error(&Failure::usage(said(&error))),
                false => {
                    if let Err(failure) = printed(&error) {
                        Output::new(in_json, false, Color::Never).error(&failure);
                        return ExitCode::from(failure.exit.code());
                    }
                }
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::new(cli.json, cli.quiet, cli.color);
    let is_apart = cli.command.looks_at_files();
    // Where there is no other process, it is done here.
    if is_apart && let Some(code) = apart::done() {
        return code;
    }
    let code = match run(cli.command, &output) {
        Ok(()) => 0,
        Err(failure) => {
            telemetry::finish(LAST_LINES);
            output.error(&failure);
            failure.exit.code()
        }
    };
    telemetry::finish(LAST_LINES);
    if is_apart {
        apart::through(code);
    }
    ExitCode::from(code)
}

impl Command {
    /// Whether it looks at files of machines itself.
    const fn looks_at_files(&self) -> bool {
        match self {
            Self::Vm(_)
            | Self::Relocate(_)
            | Self::Rescue(_)
            | Self::Config(_)
            | Self::Doctor(_) => true,
            Self::Serve(_)
            | Self::Quickstart(_)
            | Self::Collection(_)
            | Self::Snapshot(_)
            | Self::Job(_)
            | Self::User(_)
            | Self::Guard(_)
            | Self::Schema(_)
            | Self::History(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}

/// Shows help or version, or what is wrong with the command line. Of that the exit code tells enough.
fn printed(error: &clap::Error) -> Result<(), Failure> {
    let shown = error.print().and_then(|()| io::stdout().flush());
    match shown {
        Err(e) if !error.use_stderr() && e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// In which colours a command line is refused that could not be read.
fn refused_in(words: impl Iterator<Item = OsString>) -> ColorChoice {
    let words: Vec<_> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let apart = words.windows(2).find_map(|two| match two {
        [name, value] if name == "--color" => Some(value.as_str()),
        _ => None,
    });
    let joined = words.iter().find_map(|w| w.strip_prefix("--color="));
    match joined.or(apart) {
        Some("never") => ColorChoice::Never,
        Some("always") => ColorChoice::Always,
        _ => ColorChoice::Auto,
    }
}

/// What is wrong with the command line, in one line: without the usage and the advice for people.
fn said(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn run(command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Serve(command) => serve::run(&command, output),
        Command::Quickstart(command) => quickstart::run(&command, output),
        Command::Collection(command) => remote::block_on(collection::run(command, output)),
        Command::Snapshot(command) => remote::block_on(snapshot::run(command, output)),
        Command::Job(command) => remote::block_on(job::run(command, output)),
        Command::Vm(command) => vm::run(&command, output),
        Command::User(command) => user::run(&command, output),
        Command::Relocate(command) => relocate::run(&command, output),
        Command::Rescue(command) => rescue::run(&command, output),
        Command::Guard(_) => guard::run(),
        Command::Schema(command) => schema::run(&command, output),
        Command::Config(command) => configuration::run(&command, output),
        Command::Doctor(command) => doctor::run(&command, output),
        Command::History(command) => history::run(&command, output),
        Command::Completions(command) => manual::completions(&command),
        Command::Man(command) => manual::pages(&command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_line_that_cannot_be_read_is_told_in_one_line() {
        for (words, wanted) in [
            ("groupshot snapshot lst", "unrecognized subcommand 'lst'"),
            (
                "groupshot vm show",
                "the following required arguments were not provided: <MACHINE>",
            ),
            (
                "groupshot snapshot create a --consistency soft",
                "invalid value 'soft' for '--consistency <CONSISTENCY>' [possible values: application, crash]",
            ),
        ] {
            let error = Cli::try_parse_from(words.split(' ')).unwrap_err();
            assert_eq!(said(&error), wanted);
        }
    }

    #[test]
    fn the_colours_of_a_refusal_are_those_that_were_asked_for() {
        for (words, wanted) in [
            ("groupshot x", ColorChoice::Auto),
            ("groupshot x --color never", ColorChoice::Never),
            ("groupshot --color=always x", ColorChoice::Always),
            ("groupshot x --color", ColorChoice::Auto),
        ] {
            let words = words.split(' ').map(OsString::from);
            assert_eq!(refused_in(words), wanted);
        }
    }
}
