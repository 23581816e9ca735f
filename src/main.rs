//! The `groupshot` program: hands its arguments to [`groupshot::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    groupshot::cli::main()
}
