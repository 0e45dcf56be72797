//! `uvs-replay`: recorded scenarios of a real Linux director, played to the engine on a virtual clock and compared.
//!
//! ```text
//!  TRACE ─► records ─┬─ command ─► sh, the real ipvsadm ─► IPVS endpoint ─► Management ─► snapshot ─┐
//!                    ├─ packet ───────────────────────────────────────────────────────────► engines ─┼─► frames, text ─► compare
//!                    └─ time passes ──────────────────────────────────────────────────────► engines ─┘        │
//!                                                              punted frames ─► the host's stack ─► frames     └─► rules
//! ```
//!
//! Every trace is played by a process of its own in namespaces of its own ([`sandbox`]); the first process hands them out and
//! reports. Exit codes: 0 nothing differs, 1 something does, 2 something could not be played.

pub mod captures;
pub mod compare;
pub mod cursors;
pub mod decode;
pub mod faults;
pub mod host;
pub mod late;
pub mod mark_commands;
pub mod mask;
pub mod network_commands;
pub mod play;
pub mod refused;
pub mod report;
pub mod resets;
pub mod rules;
pub mod sandbox;
pub mod stand_in;
pub mod tables;
pub mod text;
pub mod trace;
pub mod world;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;

use captures::Captures;
use play::Player;
use report::{Report, TraceReport};
use rules::Rules;
use trace::Trace;

/// Between two signs of life of a long trace.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Plays recorded scenarios of a real Linux IPVS director to uvs and says what differs.
///
/// Needs root, or a kernel that lets users make namespaces, and ipvsadm. docs/replay.md has the details.
#[derive(Debug, Parser)]
#[command(name = "uvs-replay", version)]
struct Arguments {
    /// Recorded scenarios (NAME.jsonl)
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// One JSON object with everything instead of a line a trace
    #[arg(long)]
    json: bool,
    /// Traces played at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Workers of the director
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Show every difference, explained ones too, instead of the first unexplained one
    #[arg(long)]
    all: bool,
    /// Writes what came in to DIR/TRACE.in.pcap and what the engines sent to DIR/TRACE.out.pcap
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
    /// Rules of explained differences instead of the built-in docs/ipvs-differences.toml
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Plays one trace in the namespaces that this process was started in
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs `uvs-replay` with the process's arguments and returns its exit code.
#[must_use]
pub fn main() -> u8 {
    if let Some(asked) = stand_in::called() {
        return stand_in::act(&asked);
    }
    let arguments = Arguments::parse();
    if arguments.inside {
        return play_inside(&arguments);
    }
    match play_all(&arguments) {
        Ok(report) => exit_code(&report),
        Err(error) => {
            eprintln!("uvs-replay: {error}");
            2
        }
    }
}

fn exit_code(report: &Report) -> u8 {
    if report.traces.iter().any(|trace| trace.error.is_some()) {
        return 2;
    }
    u8::from(report.differ > 0)
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Hands the traces out and prints the reports in their order.
fn play_all(arguments: &Arguments) -> Result<Report, String> {
    rules(arguments)?;
    crate::cli::library().map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let (next, total) = (AtomicUsize::new(0), arguments.traces.len());
    let (done, reports) = mpsc::channel();
    let mut finished: Vec<Option<TraceReport>> = (0..total).map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..usize::from(arguments.jobs).min(total) {
            let (done, next, program) = (done.clone(), &next, &program);
            scope.spawn(move || {
                while let Some((place, path)) = Some(next.fetch_add(1, Relaxed))
                    .and_then(|place| Some((place, arguments.traces.get(place)?)))
                {
                    // The other end lives until all have reported.
                    let _ = done.send((place, play_in_child(program, path, arguments)));
                }
            });
        }
        drop(done);
        let mut printed = 0;
        for (count, (place, report)) in reports.iter().enumerate() {
            finished[place] = Some(report);
            while let Some(Some(report)) = finished.get(printed) {
                print_one(arguments, report);
                printed += 1;
            }
            progress(arguments, count + 1, total);
        }
    });
    let report = Report::new(arguments.workers, finished.into_iter().flatten().collect());
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        println!("{text}");
    } else if total > 1 {
        println!(
            "{total} traces, {} events, {} differ, {} explained",
            report.events, report.differ, report.explained
        );
    }
    Ok(report)
}

fn print_one(arguments: &Arguments, report: &TraceReport) {
    if !arguments.json {
        print!("{}", report.text(arguments.all));
        let _ = std::io::stdout().flush();
    }
}

/// On a terminal, when the reports go elsewhere.
fn progress(arguments: &Arguments, count: usize, total: usize) {
    let quiet = std::io::stdout().is_terminal() && !arguments.json;
    if std::io::stderr().is_terminal() && !quiet {
        let end = if count == total { "\n" } else { "" };
        eprint!("\r{count} of {total} traces{end}");
    }
}

fn play_in_child(program: &Path, path: &Path, arguments: &Arguments) -> TraceReport {
    let name = name_of(path);
    let mut words: Vec<OsString> = vec!["--inside".into(), "--workers".into()];
    words.push(arguments.workers.to_string().into());
    if let Some(rules) = &arguments.rules {
        words.extend(["--rules".into(), rules.into()]);
    }
    if let Some(directory) = &arguments.pcap {
        words.extend(["--pcap".into(), directory.into()]);
    }
    words.extend(["--".into(), path.into()]);
    let output = sandbox::enter(program, &words).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    match output {
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            TraceReport::failed(&name, format!("the process that played it ended with {}", output.status))
        }),
        Err(error) => TraceReport::failed(&name, format!("cannot run unshare: {error}")),
    }
}

fn rules(arguments: &Arguments) -> Result<Rules, String> {
    match &arguments.rules {
        None => Rules::built_in().map_err(|why| format!("docs/ipvs-differences.toml: {why}")),
        Some(path) => {
            let named = |why: String| format!("{}: {why}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
            Rules::parse(&text).map_err(named)
        }
    }
}

/// Plays the one trace and writes its report as JSON.
fn play_inside(arguments: &Arguments) -> u8 {
    let Some(path) = arguments.traces.first() else { return 2 };
    let report = play_one(arguments, path).unwrap_or_else(|error| TraceReport::failed(&name_of(path), error));
    match serde_json::to_string(&report) {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("uvs-replay: {error}");
            return 2;
        }
    }
    0
}

fn play_one(arguments: &Arguments, path: &Path) -> Result<TraceReport, String> {
    let start = Instant::now();
    // Before the namespaces hide what lies in /tmp.
    let trace = Trace::read(path).map_err(|error| error.to_string())?;
    let rules = rules(arguments)?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let library = crate::cli::library().map_err(|error| error.to_string())?;
    let captures =
        arguments.pcap.as_deref().map(|directory| Captures::new(directory, &name_of(path))).transpose()?;
    let mut player = Player::new(&program, &library, arguments.workers).map_err(|error| error.to_string())?;
    if let Some(captures) = captures {
        player.capture(captures);
    }
    let mut told = start;
    let progress = |place: usize| {
        if told.elapsed() >= SIGN_OF_LIFE {
            told = Instant::now();
            eprintln!("{}: record {place} of {}", trace.name, trace.records.len());
        }
    };
    let played = player.play(&trace, &rules, progress).map_err(|error| error.to_string())?;
    player.end_capture().map_err(|error| format!("--pcap: {error}"))?;
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(TraceReport::new(&trace.name, &played, milliseconds))
}
