//! `uvsd`: the director.

use std::process::ExitCode;

fn main() -> ExitCode {
    mgmt::daemon::main()
}
