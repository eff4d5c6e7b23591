//! The command line of a node. Everything is in [`dunlin::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    dunlin::cli::main()
}
