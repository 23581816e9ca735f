//! `groupshot completions` and `groupshot man`: made from the definition of the commands.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::{Exit, Failure};
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
    let directory = &command.directory;
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|error| unwritten(directory, &error))
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
