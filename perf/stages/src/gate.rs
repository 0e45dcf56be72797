//! Instruction counts of the stages, by valgrind's callgrind: the same on a busy machine as on a quiet one.
//!
//! Callgrind collects inside `measured` only, and writes what it has collected each time `finished` returns, once a stage.

use crate::stage::{STAGES, Stage};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

/// A count may differ from the expected one by this part of it.
pub const TOLERANCE: f64 = 0.03;
/// Rounds that are not counted: whatever is set up at first use is set up.
const WARM_UP: u32 = 8;
/// Rounds that are counted.
const ROUNDS: u32 = 96;

type Anyhow<T> = Result<T, Box<dyn Error>>;

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All counts are as expected.
    Passed,
    /// Some are not.
    Failed,
    /// The expected ones are another compiler's, or of another kind of processor.
    NotJudged,
}

/// What callgrind counts.
#[inline(never)]
fn measured(stage: &mut dyn Stage) -> u64 {
    black_box(stage).run()
}

/// Where callgrind writes down what it has counted.
#[inline(never)]
fn finished(name: &str) {
    black_box(name);
}

/// Runs every stage, and prints what each was for: what valgrind runs.
///
/// # Errors
/// A stage that does something else than it should.
pub fn run() -> Anyhow<()> {
    println!("processor {}", processor());
    for (name, make) in STAGES {
        let mut stage = make().map_err(|error| format!("{name}: {error}"))?;
        for _ in 0..WARM_UP {
            stage.prepare();
            stage.run();
        }
        let mut packets = 0;
        for _ in 0..ROUNDS {
            stage.prepare();
            packets += measured(&mut *stage);
        }
        finished(name);
        stage.check().map_err(|error| format!("{name}: {error}"))?;
        println!("{packets} {name}");
    }
    Ok(())
}

/// The instructions that code may choose by, as valgrind shows them to the program.
fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") { "x86_64 with AVX2" } else { "x86_64 without AVX2" }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

/// Instructions a packet by stage, and on what they were counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// What `rustc --version` says.
    pub toolchain: String,
    /// What the code may choose its instructions by.
    pub processor: String,
    /// By name of the stage.
    pub stages: BTreeMap<String, f64>,
}

/// Counts all stages of this very program.
///
/// # Errors
/// valgrind is not there, or did not write what was expected of it.
pub fn count(toolchain: &str) -> Anyhow<Counts> {
    let directory = std::env::temp_dir().join(format!("uvs-gate-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let counted = count_in(&directory, toolchain);
    fs::remove_dir_all(&directory)?;
    counted
}

fn count_in(directory: &Path, toolchain: &str) -> Anyhow<Counts> {
    let file = directory.join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--compress-strings=no", "--compress-pos=no"])
        .args(["--toggle-collect=stages::gate::measured*", "--dump-after=stages::gate::finished*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .arg("run")
        .output()
        .map_err(|error| format!("valgrind does not start ({error}): install the package valgrind"))?;
    if !output.status.success() {
        return Err(
            format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let processor = lines.next().and_then(|line| line.strip_prefix("processor ")).unwrap_or_default();
    let mut stages = BTreeMap::new();
    for (number, line) in lines.enumerate() {
        let (packets, name) = line.split_once(' ').ok_or("the stages say nothing")?;
        let path = directory.join(format!("counts.{}", number + 1));
        let dump = fs::read_to_string(&path).map_err(|error| format!("no counts of {name}: {error}"))?;
        let packets: u32 = packets.parse()?;
        let instructions = total(&dump).ok_or_else(|| format!("callgrind counted nothing in {name}"))?;
        if packets == 0 || instructions == 0.0 {
            return Err(format!("{name}: {instructions} instructions for {packets} packets").into());
        }
        stages.insert(name.to_owned(), instructions / f64::from(packets));
    }
    Ok(Counts { toolchain: toolchain.to_owned(), processor: processor.to_owned(), stages })
}

/// The instructions in a file of callgrind's.
fn total(dump: &str) -> Option<f64> {
    dump.lines().find_map(|line| line.strip_prefix("summary:"))?.split_whitespace().next()?.parse().ok()
}

impl Counts {
    /// As it is kept in a file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# Instructions a packet, by stage of its way (a connection, for those that open or close one).\n\
             # scripts/gate compares with these; scripts/gate --record writes them anew.\n",
        );
        let _ = writeln!(text, "toolchain {}\nprocessor {}", self.toolchain, self.processor);
        for (name, count) in &self.stages {
            let _ = writeln!(text, "{count:9.1} {name}");
        }
        text
    }

    /// From a file.
    ///
    /// # Errors
    /// The number of a line that is not to be read.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut counts = Self { toolchain: String::new(), processor: String::new(), stages: BTreeMap::new() };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            let (first, rest) = line.trim().split_once(' ').ok_or_else(|| format!("line {}", number + 1))?;
            match first {
                "toolchain" => rest.clone_into(&mut counts.toolchain),
                "processor" => rest.clone_into(&mut counts.processor),
                _ => {
                    let count = first.parse().map_err(|error| format!("line {}: {error}", number + 1))?;
                    counts.stages.insert(rest.to_owned(), count);
                }
            }
        }
        Ok(counts)
    }

    /// A table of what was counted beside what was expected, and whether that is within the tolerance.
    #[must_use]
    pub fn compare(&self, expected: &Self) -> (String, Verdict) {
        let mut table = format!("{:22} {:>9} {:>9} {:>8}\n", "stage", "expected", "counted", "change");
        if self.toolchain != expected.toolchain || self.processor != expected.processor {
            let place = |counts: &Self| format!("{}, {}", counts.toolchain, counts.processor);
            let _ = writeln!(
                table,
                "not judged: expected counts are of {}; these are of {}",
                place(expected),
                place(self)
            );
            return (table, Verdict::NotJudged);
        }
        let mut verdict = Verdict::Passed;
        let mut names: Vec<_> = self.stages.keys().chain(expected.stages.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (counted, wanted) = (self.stages.get(name), expected.stages.get(name));
            let number =
                |count: Option<&f64>| count.map_or_else(|| "-".to_owned(), |count| format!("{count:.1}"));
            let change = counted.zip(wanted).map(|(counted, wanted)| counted / wanted - 1.0);
            let fine = change.is_some_and(|change| change.abs() <= TOLERANCE);
            let percent = change.map_or_else(String::new, |change| format!("{:+.1} %", change * 100.0));
            let (counted, wanted) = (number(counted), number(wanted));
            let mark = if fine { "" } else { "  <-- beyond 3 %" };
            let _ = writeln!(table, "{name:22} {wanted:>9} {counted:>9} {percent:>8}{mark}");
            if !fine {
                verdict = Verdict::Failed;
            }
        }
        (table, verdict)
    }
}

/// Compares with the counts in `file`, and prints the table.
///
/// # Errors
/// The file is not to be read, or valgrind does not run.
pub fn check(file: &Path, toolchain: &str) -> Anyhow<Verdict> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let expected = Counts::from_text(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let (table, verdict) = count(toolchain)?.compare(&expected);
    print!("{table}");
    if verdict == Verdict::Failed {
        println!("If this is as it should be, record the new counts with scripts/gate --record and say why.");
    }
    Ok(verdict)
}

/// Writes the counts to `file`, and prints what changed.
///
/// # Errors
/// The file is not to be written, or valgrind does not run.
pub fn record(file: &Path, toolchain: &str) -> Anyhow<()> {
    let counts = count(toolchain)?;
    let text = fs::read_to_string(file).unwrap_or_default();
    if let Ok(before) = Counts::from_text(&text) {
        print!("{}", counts.compare(&before).0);
    }
    fs::write(file, counts.to_text()).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(stages: &[(&str, f64)]) -> Counts {
        Counts {
            toolchain: "rustc 1.95.0".to_owned(),
            processor: "x86_64 with AVX2".to_owned(),
            stages: stages.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        }
    }

    #[test]
    fn counts_survive_their_file() {
        let counts = counts(&[("parse ipv4 udp", 61.5), ("expiry", 1024.0)]);
        assert_eq!(Counts::from_text(&counts.to_text()).unwrap(), counts);
        assert_eq!(Counts::from_text("# x\nbad").unwrap_err(), "line 2");
        assert!(Counts::from_text("many parse").unwrap_err().starts_with("line 1: "));
    }

    #[test]
    fn three_percent_are_tolerated_and_more_are_named() {
        let expected = counts(&[("hash", 100.0), ("parse", 100.0)]);
        assert_eq!(counts(&[("hash", 102.9), ("parse", 97.1)]).compare(&expected).1, Verdict::Passed);
        let (table, verdict) = counts(&[("hash", 103.5), ("parse", 100.0)]).compare(&expected);
        assert_eq!(verdict, Verdict::Failed);
        let named: Vec<_> = table.lines().filter(|line| line.contains("beyond")).collect();
        assert_eq!(named.len(), 1);
        assert!(named[0].starts_with("hash") && named[0].contains("+3.5 %"), "{table}");
    }

    #[test]
    fn stages_that_come_and_go_are_named() {
        let expected = counts(&[("hash", 100.0)]);
        let (table, verdict) = counts(&[("parse", 100.0)]).compare(&expected);
        assert_eq!((verdict, table.matches("beyond").count()), (Verdict::Failed, 2));
    }

    #[test]
    fn another_compilers_counts_are_not_judged() {
        let expected = Counts { toolchain: "rustc 1.96.0".to_owned(), ..counts(&[("hash", 1.0)]) };
        let (table, verdict) = counts(&[("hash", 100.0)]).compare(&expected);
        assert_eq!(verdict, Verdict::NotJudged);
        assert!(table.contains("rustc 1.96.0") && table.contains("rustc 1.95.0"), "{table}");
    }

    #[test]
    fn callgrinds_summary_is_found() {
        assert_eq!(total("events: Ir\nsummary: 1234\n\n"), Some(1234.0));
        assert_eq!(total("events: Ir\n"), None);
    }
}
