//! What the mirror's thread shares with the threads that ask it.

use super::resolver::{Hop, ResolverCounts};
use super::view::NetworkView;
use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Addresses that wait to be asked for on demand; more are counted and dropped.
const ONCE_QUEUE: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) views: AtomicU64,
    pub(super) dumps: AtomicU64,
    pub(super) overruns: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) once_dropped: AtomicU64,
    wanted: AtomicU64,
    usable: AtomicU64,
    asked: AtomicU64,
    once_refused: AtomicU64,
}

/// The mirror's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct MirrorStats {
    /// Views published.
    pub views: u64,
    /// Tables of the kernel's that were read whole.
    pub dumps: u64,
    /// Times the kernel dropped notifications because they came faster than they were read; each was followed by
    /// reading everything anew.
    pub overruns: u64,
    /// Messages that contradicted themselves and were ignored.
    pub malformed: u64,
    /// Requests about neighbours that the kernel refused.
    pub refused: u64,
    /// Addresses to resolve on demand that were dropped because too many were waiting.
    pub once_dropped: u64,
    /// Next hops that are kept resolved.
    pub wanted: u64,
    /// Of these, usable.
    pub usable: u64,
    /// Requests to resolve.
    pub asked: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    view: Mutex<Arc<NetworkView>>,
    wanted: Mutex<Option<BTreeSet<Hop>>>,
    pub(super) once: ArrayQueue<Hop>,
    pub(super) wake: OwnedFd,
    stop: AtomicBool,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            view: Mutex::default(),
            wanted: Mutex::default(),
            once: ArrayQueue::new(ONCE_QUEUE),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stop: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    pub(super) fn view(&self) -> Arc<NetworkView> {
        Arc::clone(&lock(&self.view))
    }

    pub(super) fn publish(&self, view: Arc<NetworkView>) {
        self.counters.views.fetch_add(1, Relaxed);
        // Dropped after the lock is released: the last reference to a view frees its routes.
        let former = std::mem::replace(&mut *lock(&self.view), view);
        drop(former);
    }

    pub(super) fn want(&self, wanted: BTreeSet<Hop>) {
        let former = lock(&self.wanted).replace(wanted);
        drop(former);
        self.rouse();
    }

    pub(super) fn take_wanted(&self) -> Option<BTreeSet<Hop>> {
        lock(&self.wanted).take()
    }

    pub(super) fn resolve_once(&self, hop: Hop) -> bool {
        let queued = self.once.push(hop).is_ok();
        if queued {
            self.rouse();
        } else {
            self.counters.once_dropped.fetch_add(1, Relaxed);
        }
        queued
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Release);
        self.rouse();
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Acquire)
    }

    pub(super) fn awake(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    pub(super) fn resolver_counts(&self, counts: &ResolverCounts) {
        self.counters.wanted.store(counts.wanted as u64, Relaxed);
        self.counters.usable.store(counts.usable as u64, Relaxed);
        self.counters.asked.store(counts.asked, Relaxed);
        self.counters.once_refused.store(counts.once_refused, Relaxed);
    }

    pub(super) fn stats(&self) -> MirrorStats {
        let counters = &self.counters;
        MirrorStats {
            views: counters.views.load(Relaxed),
            dumps: counters.dumps.load(Relaxed),
            overruns: counters.overruns.load(Relaxed),
            malformed: counters.malformed.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            once_dropped: counters.once_dropped.load(Relaxed) + counters.once_refused.load(Relaxed),
            wanted: counters.wanted.load(Relaxed),
            usable: counters.usable.load(Relaxed),
            asked: counters.asked.load(Relaxed),
        }
    }

    fn rouse(&self) {
        // A full counter wakes just as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is one assignment: a panic elsewhere cannot leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
