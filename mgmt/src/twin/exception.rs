//! The thread that owns the twins and carries frames between them and the workers.

use super::bucket::{Bucket, RateLimit};
use super::lane::{Lane, Written};
use super::stats::{ExceptionStats, add};
use super::tap::Twin;
use crate::mirror::message::{LinkChange, set_link};
use crate::mirror::socket::{NetlinkError, RouteSocket};
use dataplane::exception::{ExceptionPath, PuntClass};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How the exception thread works.
#[derive(Debug, Clone)]
pub struct ExceptionOptions {
    /// What ARP, neighbour discovery and routing protocols may send to the kernel.
    pub control: RateLimit,
    /// What other frames for this host may.
    pub local: RateLimit,
    /// What frames to a virtual address but no service may.
    pub stray: RateLimit,
    /// Longest pause between two looks at the punt rings while there is work.
    pub busy_wait: Duration,
    /// Longest pause when there has been none for a while; the kernel's frames end any pause.
    pub idle_wait: Duration,
    /// A worker that has not completed a turn for so long costs all twins their carrier, so that routing daemons
    /// withdraw what nobody forwards any more; none: never.
    pub watchdog: Option<Duration>,
}

impl Default for ExceptionOptions {
    fn default() -> Self {
        Self {
            control: RateLimit { per_second: 50_000, burst: 10_000 },
            local: RateLimit { per_second: 300_000, burst: 30_000 },
            stray: RateLimit { per_second: 2_000, burst: 500 },
            busy_wait: Duration::from_micros(50),
            idle_wait: Duration::from_millis(1),
            watchdog: Some(Duration::from_millis(500)),
        }
    }
}

/// Frames of each class taken in one round, the most important first: what a flood of one can delay the others by.
const BUDGET: [usize; 3] = [256, 128, 64];
/// Frames read from each twin in one round.
const READS: usize = 64;

/// Starts the thread.
#[derive(Debug, Clone, Copy)]
pub struct ExceptionThread;

/// The running thread; stopped when dropped.
#[derive(Debug)]
pub struct ExceptionHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Ended>>,
}

type Ended = (Box<dyn ExceptionPath>, Vec<Twin>);

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    wake: OwnedFd,
    stats: ExceptionStats,
}

impl ExceptionThread {
    /// Starts carrying frames, in a thread named `uvs-exception` that inherits the caller's CPUs and signal mask. Frames
    /// of ports without a twin are counted and dropped.
    ///
    /// # Errors
    /// What making the thread or its descriptors returns.
    pub fn spawn(
        path: Box<dyn ExceptionPath>,
        twins: Vec<Twin>,
        options: ExceptionOptions,
    ) -> io::Result<ExceptionHandle> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stats: ExceptionStats::default(),
        });
        let carrier = RouteSocket::open().map_err(io::Error::other)?;
        let carrying = Carrying::new(path, twins, options, carrier, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("uvs-exception".to_owned()).spawn(move || {
            // Without it every pause is 50 µs longer.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            carrying.run()
        })?;
        Ok(ExceptionHandle { shared, thread: Some(thread) })
    }
}

impl ExceptionHandle {
    /// The thread's counters.
    #[must_use]
    pub fn stats(&self) -> &ExceptionStats {
        &self.shared.stats
    }

    /// Stops the thread and gives back what it owned: the twins go, with their addresses, when they are dropped. `None`
    /// when the thread died.
    pub fn stop(mut self) -> Option<(Box<dyn ExceptionPath>, Vec<Twin>)> {
        self.end()
    }

    fn end(&mut self) -> Option<Ended> {
        self.shared.stop.store(true, Release);
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        self.thread.take()?.join().ok()
    }
}

impl Drop for ExceptionHandle {
    fn drop(&mut self) {
        drop(self.end());
    }
}

struct Carrying {
    path: Box<dyn ExceptionPath>,
    lanes: Vec<Lane>,
    by_port: [Option<u8>; 256],
    buckets: [Bucket; 3],
    options: ExceptionOptions,
    epoll: OwnedFd,
    carrier: RouteSocket,
    carrier_on: bool,
    next_check: Instant,
    started: Instant,
    shared: Arc<Shared>,
}

/// What a round did.
struct Round {
    /// Frames carried that make the next pause short.
    moved: usize,
    /// A budget was used up: more is waiting.
    more: bool,
}

impl Carrying {
    fn new(
        path: Box<dyn ExceptionPath>,
        twins: Vec<Twin>,
        options: ExceptionOptions,
        carrier: RouteSocket,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let lanes = twins.into_iter().map(|twin| Lane::new(twin, &epoll)).collect::<Result<Vec<_>, _>>()?;
        let mut by_port = [None; 256];
        for (at, lane) in lanes.iter().enumerate() {
            by_port[lane.config.port.index()] = u8::try_from(at).ok();
        }
        let buckets = [options.control, options.local, options.stray].map(|limit| Bucket::new(limit, 0));
        let started = Instant::now();
        Ok(Self {
            path,
            lanes,
            by_port,
            buckets,
            options,
            epoll,
            carrier,
            carrier_on: true,
            next_check: started,
            started,
            shared,
        })
    }

    fn run(mut self) -> Ended {
        let mut wait = self.options.busy_wait;
        while !self.shared.stop.load(Acquire) {
            let now = Instant::now();
            add(&self.shared.stats.wake_ups, 1);
            let round = self.round(now);
            self.watch_workers(now);
            wait =
                if round.moved > 0 { self.options.busy_wait } else { (wait * 2).min(self.options.idle_wait) };
            if !round.more {
                self.sleep(wait);
            }
        }
        (self.path, self.lanes.into_iter().filter_map(Lane::into_twin).collect())
    }

    fn round(&mut self, now: Instant) -> Round {
        let mut round = Round { moved: 0, more: false };
        let nanoseconds = u64::try_from(now.duration_since(self.started).as_nanos()).unwrap_or(u64::MAX);
        for class in PuntClass::ALL {
            self.buckets[class.index()].refill(nanoseconds);
            let taken = self.punt(class);
            // Neither what the bucket refused nor stray frames are a reason to hurry back: a flood of them must not
            // cost the CPU that others need, and waits in its ring or is dropped there.
            if class != PuntClass::Stray {
                round.moved += taken;
                round.more |= taken == BUDGET[class.index()];
            }
        }
        for lane in &mut self.lanes {
            let read = lane.carry(&mut *self.path, READS, now, &self.epoll, &self.shared.stats);
            round.moved += read;
            round.more |= read == READS;
            if lane.remake(now, &self.epoll, &self.shared.stats) && !self.carrier_on {
                // The new one has a carrier that the others do not; the next check drops it.
                self.carrier_on = true;
            }
        }
        round
    }

    /// Hands punted frames of one class to the kernel; returns how many it took.
    fn punt(&mut self, class: PuntClass) -> usize {
        let Self { path, lanes, by_port, buckets, shared, .. } = self;
        let (stats, bucket) = (&shared.stats, &mut buckets[class.index()]);
        let (mut taken, mut refused, mut lost) = (0, 0, 0);
        path.drain(class, BUDGET[class.index()], &mut |port, frame| {
            let Some(lane) = by_port[port.index()].and_then(|at| lanes.get(usize::from(at))) else {
                lost += 1;
                return;
            };
            if !bucket.take() {
                refused += 1;
            } else if lane.write(frame, stats) == Written::Taken {
                taken += 1;
            }
        });
        if taken > 0 {
            add(&stats.to_kernel[class.index()], taken);
        }
        if refused > 0 {
            add(&stats.bucket_refused[class.index()], refused);
        }
        if lost > 0 {
            add(&stats.no_twin, lost);
        }
        usize::try_from(taken).unwrap_or(usize::MAX)
    }

    /// Drops the carrier when a worker stands still, and raises it when all move again.
    fn watch_workers(&mut self, now: Instant) {
        let Some(limit) = self.options.watchdog.filter(|_| now >= self.next_check) else { return };
        self.next_check = now + (limit / 8).clamp(Duration::from_millis(2), Duration::from_millis(50));
        let age = Duration::from_millis(self.path.slowest_worker_age_ms());
        let beating = age <= limit;
        if beating == self.carrier_on {
            return;
        }
        if let Err(error) = self.set_carrier(beating) {
            tracing::error!(%error, "the twins' carrier could not be {}", if beating { "raised" } else { "dropped" });
            return;
        }
        self.carrier_on = beating;
        self.shared.stats.carrier_down.store(!beating, Relaxed);
        if beating {
            tracing::warn!("all workers move again: the twins have their carrier back");
        } else {
            add(&self.shared.stats.carrier_drops, 1);
            tracing::error!("a worker has not completed a turn for {age:?}: the twins lose their carrier");
        }
    }

    fn set_carrier(&mut self, on: bool) -> Result<(), NetlinkError> {
        let change = LinkChange { carrier: Some(on), ..LinkChange::default() };
        // All are tried: one twin that was just deleted must not keep the others announcing.
        let mut result = Ok(());
        for index in self.lanes.iter().filter_map(Lane::index) {
            if let Err(error) = self.carrier.request(set_link(index, &change), 0) {
                result = Err(error);
            }
        }
        result
    }

    /// Until a twin has a frame, a stop is wanted, or `wait` is over.
    fn sleep(&self, wait: Duration) {
        let timeout = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        let mut fds =
            [PollFd::new(&self.epoll, PollFlags::IN), PollFd::new(&self.shared.wake, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timeout));
    }
}
