//! `uvs-stages`: counts the instructions of the hot stages, and says where they are not those that are expected.

use stages::gate::{self, Verdict};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "Usage: uvs-stages check|record FILE TOOLCHAIN
  check   counts each stage's instructions under valgrind and compares them with those in FILE
  record  counts them and writes FILE
TOOLCHAIN is what rustc --version says: counts of another compiler are not compared.
(uvs-stages run is what valgrind runs.)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["run"] => gate::run().map(|()| Verdict::Passed),
        ["check", file, toolchain] => gate::check(Path::new(file), toolchain),
        ["record", file, toolchain] => gate::record(Path::new(file), toolchain).map(|()| Verdict::Passed),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(Verdict::Passed | Verdict::NotJudged) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("uvs-stages: {error}");
            ExitCode::FAILURE
        }
    }
}
