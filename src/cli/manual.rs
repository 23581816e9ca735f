//! `groupshot completions` and `groupshot man`: made from the definition of the commands.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use crate::held::{self, Folder};

use super::Cli;
use super::failure::{Exit, Failure};
use super::output;
use super::sections;

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
    let directory = &command.directory;
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    let folder = held::make_path(directory, 0o755);
    let written = folder.and_then(|folder| write(&folder, all));
    written.map_err(|error| unwritten(directory, &error))
}

/// The page of a command, and those of its subcommands.
fn write(folder: &Folder, command: Command) -> io::Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write(folder, below.clone())?;
    }
    let sections = sections::of(&command);
    let has_subcommands = command.has_subcommands();
    let page = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if has_subcommands {
        page.render_subcommands_section(&mut text)?;
    }
    sections.to_writer(&mut text)?;
    page.render_version_section(&mut text)?;
    let name = page.get_filename();
    Ok(folder.replace_as(name.as_ref(), &text, 0o644, |_| Ok(()))?)
}

fn unwritten(directory: &Path, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Exit::Busy,
        _ => Exit::Failed,
    };
    Failure::new(exit, format_args!("{}: {error}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_pages_that_cannot_be_written_is_named() {
        for (kind, exit) in [
            (io::ErrorKind::PermissionDenied, Exit::Busy),
            (io::ErrorKind::ReadOnlyFilesystem, Exit::Busy),
            (io::ErrorKind::StorageFull, Exit::Failed),
        ] {
            let failure = unwritten(Path::new("/a/man"), &kind.into());
            assert_eq!(failure.exit, exit);
            assert!(failure.message.starts_with("/a/man: "), "{failure:?}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let directory = file.path().to_owned();
        let failure = pages(&Man { directory }).unwrap_err();
        let path = file.path().display().to_string();
        assert!(failure.message.starts_with(&path), "{failure:?}");
    }
}
