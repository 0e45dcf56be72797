//! A program under test with the generator at the far end of its link.

use super::Bench;
use super::generator::Generator;
use crate::forward::devices::Devices;
use crate::forward::director::{Counts, Director};
use crate::forward::poller::Poller;
use crate::forward::testpmd::{Role, Testpmd};
use crate::progress::Progress;
use crate::table::{grouped, millions};
use crate::window::{Window, least_percent};
use anyhow::{Result, bail};
use generator::{Order, Outcome, Scheduled};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Until every flow has its connection: so fast, for so long at a time, and for so long at most.
const WARM_UP_RATE: f64 = 500_000.0;
const WARM_UP_SECONDS: f64 = 0.2;
const WARM_UP: Duration = Duration::from_secs(30);
/// What a link carries at most is the middle of so many windows.
const FLOODS: usize = 3;
const FLOOD_SECONDS: f64 = 0.25;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Uvsd,
    Testpmd,
}

/// What moves packets.
#[derive(Debug)]
enum Program {
    Uvsd(Box<Director>),
    Testpmd(Testpmd),
}

/// Both ends of a link. The generator goes last: one end of a memif does not bear to be left alone.
#[derive(Debug)]
pub(super) struct Session {
    program: Program,
    generator: Generator,
    threads: Vec<PathBuf>,
}

/// A window, and what is to be known of it beyond packets and time.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// Packets that came back, and the CPU time of the program under test.
    pub(super) window: Window,
    /// All else.
    pub(super) outcome: Outcome,
}

impl Trial {
    fn of(outcome: Outcome) -> Self {
        let window = Window {
            packets: outcome.returned,
            wall: Duration::from_nanos(outcome.wall_ns),
            cpu: outcome.threads.iter().map(|thread| Duration::from_nanos(thread.ran)).collect(),
        };
        Self { window, outcome }
    }

    /// The least share of its CPU that either end had, in percent.
    pub(super) fn share(&self) -> f64 {
        let share = |thread: &Scheduled| thread.ran as f64 / self.outcome.wall_ns.max(1) as f64;
        self.all().map(share).fold(f64::INFINITY, f64::min) * 100.0
    }

    fn all(&self) -> impl Iterator<Item = &Scheduled> {
        std::iter::once(&self.outcome.own).chain(&self.outcome.threads)
    }

    /// Whether it counts.
    pub(super) fn counts(&self) -> bool {
        self.outcome.returned > 0 && self.share() >= least_percent()
    }

    /// The longest that either end waited for its CPU in all.
    pub(super) fn waited(&self) -> Duration {
        Duration::from_nanos(self.all().map(|thread| thread.waited).max().unwrap_or(0))
    }

    /// Packets a second that came back while packets were sent.
    pub(super) fn rate(&self) -> f64 {
        self.outcome.returned as f64 * 1e9 / self.outcome.sending_ns.max(1) as f64
    }
}

impl Who {
    /// In words.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Uvsd => "uvsd",
            Self::Testpmd => crate::forward::CONTROL,
        }
    }
}

impl Session {
    /// Starts both ends, the link's server first, and lets packets through until all is as it will be.
    pub(super) fn start(who: Who, bench: &mut Bench<'_>) -> Result<Self> {
        bench.progress.step(&format!("starting {} and uvs-generator", who.name()));
        let Bench { plan, devices, directory, interrupt, uvsd, generator: path, .. } = bench;
        // Whoever made the last one was ended before it could take it away.
        Devices::remove_socket(directory.path())?;
        let generator = || Generator::start(path, plan, devices, directory, interrupt);
        let program = || -> Result<Program> {
            Ok(match who {
                Who::Uvsd => {
                    Program::Uvsd(Box::new(Director::start(uvsd, plan, devices, directory, interrupt)?))
                }
                Who::Testpmd => {
                    let log = directory.join("testpmd.log");
                    Program::Testpmd(Testpmd::start(Role::Control, plan, devices, &log, interrupt)?)
                }
            })
        };
        let (program, generator) = if devices.generator_first {
            let generator = generator()?;
            (program()?, generator)
        } else {
            (program()?, generator()?)
        };
        let (process, threads) = match &program {
            Program::Uvsd(director) => (director.process(), director.threads()),
            Program::Testpmd(testpmd) => (testpmd.process(), testpmd.threads()),
        };
        let schedstat = |thread: &u32| PathBuf::from(format!("/proc/{process}/task/{thread}/schedstat"));
        let threads = threads.iter().map(schedstat).collect();
        let mut session = Self { program, generator, threads };
        session.warm_up(bench)?;
        Ok(session)
    }

    fn warm_up(&mut self, bench: &mut Bench<'_>) -> Result<()> {
        let (start, flows) = (Instant::now(), bench.plan.rules.shape.flows);
        let mut misses = u64::MAX;
        loop {
            let trial = self.window(Some(WARM_UP_RATE), WARM_UP_SECONDS, bench)?;
            let opened = match &mut self.program {
                Program::Testpmd(_) => flows,
                Program::Uvsd(director) => {
                    let counts = director.counts()?;
                    let quiet = std::mem::replace(&mut misses, counts.get("misses")?) == misses;
                    if quiet { counts.get("connections_opened")? } else { 0 }
                }
            };
            if opened >= flows && trial.outcome.returned > 0 {
                return Ok(());
            }
            if start.elapsed() > WARM_UP {
                bail!(
                    "after {} s {} of {} flows have a connection, and {} of {} packets came back; dropped were: {:?}",
                    WARM_UP.as_secs(),
                    grouped(opened),
                    grouped(flows),
                    grouped(trial.outcome.returned),
                    grouped(trial.outcome.offered),
                    self.drops()?.drops
                );
            }
            bench.progress.far("connections", opened, flows);
        }
    }

    /// A window at a rate, or as fast as the link goes.
    pub(super) fn window(&mut self, rate: Option<f64>, seconds: f64, bench: &Bench<'_>) -> Result<Trial> {
        match &mut self.program {
            Program::Uvsd(director) => director.check()?,
            Program::Testpmd(testpmd) => testpmd.check()?,
        }
        let order = Order { file: 0, rate, seconds, threads: self.threads.clone() };
        Ok(Trial::of(self.generator.run(&order, bench.interrupt)?))
    }

    /// Packets a second that come back when the link is always full.
    pub(super) fn capacity(&mut self, bench: &Bench<'_>) -> Result<f64> {
        let trials =
            (0..FLOODS).map(|_| self.window(None, FLOOD_SECONDS, bench)).collect::<Result<Vec<_>>>()?;
        let rates: Vec<f64> = trials.iter().map(Trial::rate).collect();
        Ok(crate::window::median(&rates).unwrap_or(0.0))
    }

    /// What it has dropped so far: the director says why.
    pub(super) fn drops(&mut self) -> Result<Counts> {
        match &mut self.program {
            Program::Uvsd(director) => director.counts(),
            Program::Testpmd(_) => Ok(Counts::default()),
        }
    }

    /// Ends the program, then the generator.
    pub(super) fn end(&mut self) -> Result<()> {
        match &mut self.program {
            Program::Uvsd(director) => director.end()?,
            Program::Testpmd(testpmd) => testpmd.end()?,
        }
        self.generator.end()
    }
}

/// Says how a window went.
pub(super) fn say(trial: &Trial, progress: &mut Progress) {
    let Trial { outcome, .. } = trial;
    if trial.counts() {
        progress.step(&format!(
            "  {} packets/s, {} of {} lost, {:.1} % of the CPU",
            millions(trial.rate()),
            grouped(outcome.lost),
            grouped(outcome.judged),
            trial.share()
        ));
    } else {
        progress.step(&format!(
            "  a window with {:.1} % of the CPU, less than {:.0} %: discarded",
            trial.share(),
            least_percent()
        ));
    }
}

/// Adds drops up.
pub(super) fn add(to: &mut BTreeMap<String, u64>, drops: BTreeMap<String, u64>) {
    for (reason, count) in drops {
        *to.entry(reason).or_insert(0) += count;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A window of a second of which both ends had these shares, and lost so many of a million packets.
    pub(crate) fn trial(own: f64, other: f64, lost: u64) -> Trial {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a second")]
        let scheduled =
            |share: f64| Scheduled { ran: (share * 1e9) as u64, waited: ((1.0 - share) * 1e9) as u64 };
        Trial::of(Outcome {
            wall_ns: 1_000_000_000,
            sending_ns: 1_000_000_000,
            offered: 1_000_000,
            returned: 1_000_000 - lost,
            judged: 1_000_000,
            lost,
            own: scheduled(own),
            threads: vec![scheduled(other)],
            latencies: vec![(5_000, 500_000), (9_000, 500_000 - lost)],
            ..Outcome::default()
        })
    }

    #[test]
    fn either_end_can_spoil_a_window() {
        assert!(trial(1.0, 0.99, 0).counts());
        assert!(!trial(0.9, 1.0, 0).counts());
        assert!(!trial(1.0, 0.9, 0).counts());
        assert_eq!(trial(0.999, 0.998, 0).waited(), Duration::from_millis(2));
        assert!((trial(1.0, 1.0, 0).rate() - 1e6).abs() < 1.0);
    }
}
