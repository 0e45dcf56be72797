//! `uvsctl`: see and change a running director.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(mgmt::cli::main())
}
