//! How many cache lines workers take from each other, counted: this program runs once more under valgrind's lackey, which tells every
//! address that is read or written, with each worker in a thread of its own. A model of coherent caches then says which accesses find
//! the line in another core's cache.
//!
//! The trace knows nothing of what is meant to be shared, so lines that are shared by accident are counted like any other. Not in it
//! are what surrounds the engine in the director: the driver's queues and the pool of packet buffers.

mod coherence;
mod traced;

use super::Setting;
use crate::cli::SteeringArgument;
use crate::progress::Progress;
use crate::results::Quantities;
use anyhow::{Context, Result, bail};
use coherence::{Access, Agent, Caches};
use dataplane::steering::Steering;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
pub(crate) use traced::run as run_traced;

/// The management thread among the agents.
const MANAGEMENT: Agent = 299;
/// The first mark of a phase.
const PHASE: usize = 300;
/// All marks.
const MARKS: u64 = 512;

/// What a stretch of the trace is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    WarmUp,
    NewConnections,
    Established,
    Publications,
    Redirects,
    Expiry,
}

impl Phase {
    const MEASURED: [(Self, &'static str); 5] = [
        (Self::NewConnections, "new_connection"),
        (Self::Established, "established_packet"),
        (Self::Publications, "worker_and_publication"),
        (Self::Redirects, "redirected_packet"),
        (Self::Expiry, "closed_connection"),
    ];

    fn of(mark: u64) -> Self {
        let at = |(phase, _): &&(Self, &str)| *phase as u64 + PHASE as u64 == mark;
        Self::MEASURED.iter().find(at).map_or(Self::WarmUp, |(phase, _)| *phase)
    }
}

/// What the program under valgrind says of itself.
#[derive(Debug, Default)]
struct Said {
    marks: OnceLock<u64>,
}

/// A named range of addresses.
type Named = (Range<u64>, String);

/// Lines taken in one phase, by where they lie.
type Taken = BTreeMap<Phase, BTreeMap<String, u64>>;

/// Counts for so many workers: `lines_taken_per_…` of 64 bytes, and `line_pairs_taken_per_…` of 128, as prefetchers fetch them.
pub(super) fn measure(setting: &Setting<'_>, workers: u8, progress: &mut Progress) -> Result<Quantities> {
    progress.step(&format!("counting the lines that {workers} workers take from each other"));
    let mut child = spawn(setting, workers)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else { bail!("valgrind has no output") };
    let said = Arc::new(Said::default());
    let listener = {
        let said = Arc::clone(&said);
        std::thread::spawn(move || listen(stdout, &said))
    };
    let mut trace = Trace::new(said);
    let rest = trace.read(BufReader::with_capacity(1 << 20, stderr), || setting.interrupt.check());
    if rest.is_err() {
        // It is ended for good below, whether this reaches it or not.
        let _ = child.kill();
    }
    let status = child.wait().context("valgrind is lost")?;
    let (places, units) = listener.join().ok().context("the listener has ended")??;
    let other = rest?;
    if !status.success() {
        bail!("valgrind: {status}: {other}");
    }
    trace.summary(&places, &units, workers, progress)
}

fn spawn(setting: &Setting<'_>, workers: u8) -> Result<Child> {
    let arguments = setting.arguments;
    let steering = match setting.steering {
        Steering::Client => "client",
        Steering::Flow => "flow",
    };
    // As many packets with many workers as with few.
    let rounds = (64 / usize::from(workers)).clamp(2, 16);
    Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--log-fd=2"])
        .arg(std::env::current_exe().context("cannot find this program's own file")?)
        .args(["traced", "--workers", &workers.to_string(), "--steering", steering])
        .args(["--mode", setting.rules.forwarding.mode.name(), "--protocol", arguments.protocol.name()])
        .args(["--scheduler", arguments.scheduler.name(), "--rounds", &rounds.to_string()])
        .args([
            "--destinations",
            &arguments.destinations.to_string(),
            "--burst",
            &arguments.burst.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("valgrind does not start: install the package valgrind, or leave --lines out")
}

/// Reads what the program says: places, marks, how many of what there was in each phase.
fn listen(stdout: ChildStdout, said: &Said) -> Result<(Vec<Named>, BTreeMap<u64, u64>)> {
    let (mut places, mut units) = (Vec::new(), BTreeMap::new());
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["place", start, end, name] => places.push((start.parse()?..end.parse()?, (*name).to_owned())),
            ["units", phase, count] => drop(units.insert(phase.parse()?, count.parse()?)),
            // Said once.
            ["marks", at] => drop(said.marks.set(at.parse()?)),
            _ => bail!("the program under valgrind says `{line}`"),
        }
    }
    Ok((places, units))
}

/// The trace as far as it was read.
struct Trace {
    said: Arc<Said>,
    agent: Agent,
    phase: Phase,
    lines: Caches,
    pairs: Caches,
    /// Addresses of lines taken, and of pairs of lines.
    taken: [BTreeMap<(Phase, u64), u64>; 2],
}

impl Trace {
    fn new(said: Arc<Said>) -> Self {
        let (lines, pairs) = (Caches::new(6), Caches::new(7));
        Self { said, agent: 0, phase: Phase::WarmUp, lines, pairs, taken: Default::default() }
    }

    /// Reads to the end; returns what was said beside the trace.
    fn read(&mut self, mut text: impl BufRead, mut check: impl FnMut() -> Result<()>) -> Result<String> {
        let (mut line, mut other, mut count) = (Vec::new(), String::new(), 0_u32);
        loop {
            line.clear();
            if text.read_until(b'\n', &mut line).context("valgrind's trace breaks off")? == 0 {
                return Ok(other);
            }
            count = count.wrapping_add(1);
            if count.trailing_zeros() >= 20 {
                check()?;
            }
            match line.first() {
                Some(b'I') => {}
                Some(b' ') => self.access(&line),
                _ if other.len() < 4096 && !line.starts_with(b"==") => {
                    other.push_str(&String::from_utf8_lossy(&line));
                }
                _ => {}
            }
        }
    }

    /// A line such as ` S 1ffeffdf38,8`: L reads, S writes, M does both.
    fn access(&mut self, line: &[u8]) {
        let Some(marks) = self.said.marks.get() else { return };
        let Some((kind, address, length)) = parse(line) else { return };
        if kind != b'L' && (*marks..marks + MARKS).contains(&address) {
            let mark = address - marks;
            if mark >= PHASE as u64 {
                self.phase = Phase::of(mark);
            } else {
                self.agent = u16::try_from(mark).unwrap_or(0);
            }
            return;
        }
        if self.agent == 0 {
            return;
        }
        let access = if kind == b'L' { Access::Read } else { Access::Write };
        for (caches, taken) in [&mut self.lines, &mut self.pairs].into_iter().zip(&mut self.taken) {
            caches.access(self.agent, access, address, length, |line| {
                *taken.entry((self.phase, line)).or_default() += 1;
            });
        }
    }

    fn summary(
        &self,
        places: &[Named],
        units: &BTreeMap<u64, u64>,
        workers: u8,
        progress: &mut Progress,
    ) -> Result<Quantities> {
        let mut quantities = Quantities::new();
        let mut named = Taken::new();
        for ((phase, line), count) in &self.taken[0] {
            let inside = |(range, _): &&Named| range.start < line + 64 && *line < range.end;
            let name =
                places.iter().find(inside).map_or_else(|| "elsewhere".to_owned(), |(_, name)| name.clone());
            *named.entry(*phase).or_default().entry(name).or_default() += count;
        }
        for (phase, unit) in Phase::MEASURED {
            let all = units.get(&(phase as u64)).copied().filter(|units| *units > 0);
            let all = all.with_context(|| format!("nothing was counted per {unit}"))? as f64;
            for (taken, what) in self.taken.iter().zip(["lines", "line_pairs"]) {
                let sum: u64 = taken.iter().filter(|((of, _), _)| *of == phase).map(|(_, count)| count).sum();
                quantities.insert(format!("{what}_taken_per_{unit}"), sum as f64 / all);
            }
            for (name, count) in named.get(&phase).into_iter().flatten() {
                let each = *count as f64 / all;
                progress.step(&format!(
                    "  {workers} workers, per {}: {each:.3} of {name}",
                    unit.replace('_', " ")
                ));
            }
        }
        self.say_unnamed(places, progress);
        Ok(quantities)
    }

    /// The lines that nobody has a name for, the most often taken first.
    fn say_unnamed(&self, places: &[Named], progress: &mut Progress) {
        let mut unnamed: Vec<_> = (self.taken[0].iter())
            .filter(|((phase, line), _)| {
                *phase != Phase::WarmUp
                    && !places.iter().any(|(range, _)| range.start < line + 64 && *line < range.end)
            })
            .collect();
        unnamed.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((phase, line), count) in unnamed.into_iter().take(8) {
            progress.step(&format!("  elsewhere: line {line:#x} {count} times ({phase:?})"));
        }
    }
}

fn parse(line: &[u8]) -> Option<(u8, u64, u64)> {
    let kind = *line.get(1)?;
    let rest = std::str::from_utf8(line.get(3..)?).ok()?.trim_end();
    let (address, length) = rest.split_once(',')?;
    Some((kind, u64::from_str_radix(address, 16).ok()?, length.parse().ok()?))
}

impl From<SteeringArgument> for Steering {
    fn from(argument: SteeringArgument) -> Self {
        match argument {
            SteeringArgument::Client => Self::Client,
            SteeringArgument::Flow => Self::Flow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_counted_between_marks() {
        let said = Said::default();
        said.marks.set(0x1000).unwrap();
        let mut trace = Trace::new(Arc::new(said));
        // Phase 2 is established packets; agents 1 and 2 write the same line, 3 is read by both.
        let text = [
            "==1== Lackey",
            "I  04000a40,3",
            " S 0000112e,1",
            " S 00001001,1",
            " S 00005000,8",
            " L 00006000,4",
            " S 00001000,1",
            " S 00005000,8",
            " S 00001002,1",
            " M 00005008,8",
            " L 00006000,4",
            " S 00001000,1",
        ];
        let text = text.join("\n");
        assert_eq!(trace.read(text.as_bytes(), || Ok(())).unwrap(), "");
        assert_eq!(trace.taken[0], BTreeMap::from([((Phase::Established, 0x5000), 1)]));
        let units = Phase::MEASURED.iter().map(|(phase, _)| (*phase as u64, 4)).collect();
        let places = [(0x5000..0x5040, "a counter".to_owned())];
        let quantities = trace.summary(&places, &units, 2, &mut Progress::new()).unwrap();
        assert!((quantities["lines_taken_per_established_packet"] - 0.25).abs() < 1e-9);
        assert!(quantities["line_pairs_taken_per_new_connection"] < 1e-9);
    }
}
