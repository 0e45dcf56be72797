//! `uvs-replay`: plays recorded scenarios of a real Linux director and compares.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(mgmt::replay::main())
}
