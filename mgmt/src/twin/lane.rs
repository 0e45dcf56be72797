//! One twin and its way to the workers.

use super::stats::{ExceptionStats, add};
use super::tap::{Twin, TwinConfig};
use dataplane::exception::{ExceptionPath, InjectError};
use rustix::event::epoll;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The longest frame that a TAP can hand over: 64 KiB of payload, Ethernet header, two VLAN tags.
const LONGEST_FRAME: usize = 65_535 + 14 + 8;
/// A frame that the workers' ring refuses waits this long for room; TCP of the host would pay for each one dropped.
const PATIENCE: Duration = Duration::from_millis(5);
const REMAKE_AFTER: Duration = Duration::from_secs(1);
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What became of a punted frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Taken,
    Lost,
}

pub(super) struct Lane {
    pub(super) config: TwinConfig,
    twin: Option<Twin>,
    buffer: Box<[u8]>,
    held: Option<(usize, Instant)>,
    remake_at: Instant,
    said_too_long: Option<Instant>,
}

impl Lane {
    pub(super) fn new(twin: Twin, epoll: &OwnedFd) -> rustix::io::Result<Self> {
        let config = twin.config().clone();
        let lane = Self {
            config,
            twin: Some(twin),
            buffer: vec![0; LONGEST_FRAME].into_boxed_slice(),
            held: None,
            remake_at: Instant::now(),
            said_too_long: None,
        };
        lane.watch(epoll)?;
        Ok(lane)
    }

    pub(super) fn into_twin(self) -> Option<Twin> {
        self.twin
    }

    /// Interface index, while there is an interface.
    pub(super) fn index(&self) -> Option<u32> {
        self.twin.as_ref().map(Twin::index)
    }

    /// Hands a punted frame to the kernel.
    pub(super) fn write(&self, frame: &[u8], stats: &ExceptionStats) -> Written {
        let Some(twin) = &self.twin else {
            add(&stats.tap_down, 1);
            return Written::Lost;
        };
        let lost = match twin.write(frame) {
            Ok(_) => return Written::Taken,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => &stats.tap_full,
            // EIO: down. EBADFD: deleted, which the next read notices.
            Err(Errno::IO | Errno::BADFD | Errno::NETDOWN) => &stats.tap_down,
            Err(_) => &stats.tap_refused,
        };
        add(lost, 1);
        Written::Lost
    }

    /// Carries up to `most` frames from the kernel to the workers; returns how many were read.
    pub(super) fn carry(
        &mut self,
        path: &mut dyn ExceptionPath,
        most: usize,
        now: Instant,
        epoll: &OwnedFd,
        stats: &ExceptionStats,
    ) -> usize {
        if self.held.is_some() && !self.retry(path, now, epoll, stats) {
            return 0;
        }
        for count in 0..most {
            let Some(twin) = &self.twin else { return count };
            match twin.read(&mut self.buffer) {
                Ok(length) => {
                    add(&stats.read, 1);
                    if !self.inject(path, length, now, stats) {
                        self.held = Some((length, now));
                        // Its readiness would end every sleep at once.
                        self.ignore(epoll);
                        return count + 1;
                    }
                }
                Err(Errno::BADFD) => {
                    tracing::error!(
                        interface = %self.config.name,
                        "somebody deleted the twin; it is made anew, its addresses and routes are lost"
                    );
                    self.twin = None;
                    self.remake_at = now + REMAKE_AFTER;
                    return count;
                }
                Err(_) => return count,
            }
        }
        most
    }

    /// Makes a deleted twin anew, trying once a second.
    pub(super) fn remake(&mut self, now: Instant, epoll: &OwnedFd, stats: &ExceptionStats) -> bool {
        if self.twin.is_some() || now < self.remake_at {
            return false;
        }
        self.remake_at = now + REMAKE_AFTER;
        self.held = None;
        match Twin::create(self.config.clone()) {
            Ok(twin) => {
                self.twin = Some(twin);
                let watched = self.watch(epoll).is_ok();
                add(&stats.twins_remade, u64::from(watched));
                watched
            }
            Err(error) => {
                tracing::error!(%error, "the twin could not be made anew; trying again");
                false
            }
        }
    }

    fn retry(
        &mut self,
        path: &mut dyn ExceptionPath,
        now: Instant,
        epoll: &OwnedFd,
        stats: &ExceptionStats,
    ) -> bool {
        let Some((length, since)) = self.held else { return true };
        if !self.inject(path, length, now, stats) {
            if now.duration_since(since) < PATIENCE {
                return false;
            }
            add(&stats.inject_full, 1);
        }
        self.held = None;
        if let Some(twin) = &self.twin {
            let _ = epoll::modify(epoll, twin, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
        }
        true
    }

    /// Whether the frame in the buffer is done with; `false` when it has to wait for room.
    fn inject(
        &mut self,
        path: &mut dyn ExceptionPath,
        length: usize,
        now: Instant,
        stats: &ExceptionStats,
    ) -> bool {
        match path.inject(self.config.port, self.buffer.get(..length).unwrap_or(&[])) {
            Ok(()) => {
                add(&stats.from_kernel, 1);
                true
            }
            Err(InjectError::Full) => false,
            Err(InjectError::TooLong { limit }) => {
                add(&stats.too_long, 1);
                if self.said_too_long.is_none_or(|said| now.duration_since(said) >= SAY_AGAIN) {
                    self.said_too_long = Some(now);
                    let (name, mtu) = (&self.config.name, self.config.mtu);
                    tracing::warn!(
                        "{name}: the kernel sends frames of {length} bytes, the port takes {limit}; they are dropped \
                         and counted as too_long. Put the MTU back: `ip link set {name} mtu {mtu}`"
                    );
                }
                true
            }
        }
    }

    fn watch(&self, epoll: &OwnedFd) -> rustix::io::Result<()> {
        let Some(twin) = &self.twin else { return Ok(()) };
        epoll::add(epoll, twin, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
    }

    fn ignore(&self, epoll: &OwnedFd) {
        if let Some(twin) = &self.twin {
            let _ = epoll::modify(epoll, twin, epoll::EventData::new_u64(0), epoll::EventFlags::empty());
        }
    }
}
