//! Publication of values to workers, with quiescent-state-based reclamation.
//!
//! One [`Publisher`] swaps a pointer; each worker has one [`Reader`] and reads through it once a burst. Between two reads a
//! reader holds nothing of an older value, so the start of a read says that it has passed all that it had seen published. A
//! worker that sleeps is [offline](Reader::offline) and holds nobody up. Retired values are freed by the publisher's thread.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::time::Duration;

#[cfg(loom)]
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicPtr, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicPtr, AtomicU64, Ordering, fence},
};

/// Most values that wait to be freed.
pub const MAXIMUM_RETIRED: usize = 8;

/// A reader that holds nothing.
const OFFLINE: u64 = u64::MAX;

/// A value that is no longer current.
struct Retired<T> {
    /// The revision that replaced it.
    revision: u64,
    value: AtomicPtr<T>,
}

struct Shared<T> {
    current: CachePadded<AtomicPtr<T>>,
    /// Revision of the current value; grows after `current` is swapped. Written by the publisher alone.
    revision: CachePadded<AtomicU64>,
    /// For each reader, the revision it had seen when it last began to read, or [`OFFLINE`]. Written by the reader alone.
    seen: Box<[CachePadded<AtomicU64>]>,
    /// Oldest first. Locked by the publisher alone; here so that it outlives the last reader.
    retired: Mutex<Vec<Retired<T>>>,
}

impl<T> Shared<T> {
    /// The reader that has not passed `revision`, the one furthest behind.
    fn laggard(&self, revision: u64) -> Option<usize> {
        // Pairs with the fence in `Reader::online`: either that reader sees the pointer swapped before this, or it is seen
        // here as online.
        fence(Ordering::SeqCst);
        let seen = self.seen.iter().map(|seen| seen.load(Ordering::Acquire)).enumerate();
        seen.filter(|(_, seen)| *seen < revision).min_by_key(|(_, seen)| *seen).map(|(reader, _)| reader)
    }

    /// The retired values; a panic while they were locked leaves them as they were.
    fn retired(&self) -> impl std::ops::DerefMut<Target = Vec<Retired<T>>> + '_ {
        self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let retired = std::mem::take(&mut *self.retired());
        let pointers = retired.iter().map(|retired| retired.value.load(Ordering::Relaxed));
        for pointer in pointers.chain([self.current.load(Ordering::Relaxed)]) {
            // SAFETY: made by `Box::into_raw` in `new` or `publish`; each is either current or on the list once, and taken
            // off it before it is freed. Publisher and readers are gone: `&mut self`.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

/// Publishing is refused while too many values wait for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAXIMUM_RETIRED} values wait for reader {reader} to pass")]
pub struct Refused {
    /// The reader furthest behind.
    pub reader: usize,
}

/// Publishes values of `T`. One thread has it.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

/// Makes a publisher and its readers, all of them online and holding nothing. The first value is revision 0.
pub fn channel<T: Send + Sync>(value: T, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let shared = Arc::new(Shared {
        current: CachePadded::new(AtomicPtr::new(Box::into_raw(Box::new(value)))),
        revision: CachePadded::new(AtomicU64::new(0)),
        seen: (0..readers).map(|_| CachePadded::new(AtomicU64::new(OFFLINE))).collect(),
        retired: Mutex::new(Vec::new()),
    });
    let readers =
        (0..readers).map(|number| Reader { shared: Arc::clone(&shared), number, seen: OFFLINE }).collect();
    (Publisher { shared }, readers)
}

impl<T: Send + Sync> Publisher<T> {
    /// Replaces the current value; the new one's revision. Frees what every reader has passed.
    ///
    /// # Errors
    /// [`MAXIMUM_RETIRED`] values still wait; `value` is dropped.
    pub fn publish(&mut self, value: T) -> Result<u64, Refused> {
        self.reclaim();
        if self.retired() >= MAXIMUM_RETIRED
            && let Some(reader) = self.laggard()
        {
            return Err(Refused { reader });
        }
        let new = Box::into_raw(Box::new(value));
        let old = self.shared.current.swap(new, Ordering::AcqRel);
        let revision = self.revision() + 1;
        self.shared.revision.store(revision, Ordering::Release);
        self.shared.retired().push(Retired { revision, value: AtomicPtr::new(old) });
        self.reclaim();
        Ok(revision)
    }

    /// Frees retired values that every reader has passed; how many.
    pub fn reclaim(&mut self) -> usize {
        let mut retired = self.shared.retired();
        let passed = retired.iter().take_while(|value| self.shared.laggard(value.revision).is_none()).count();
        for value in retired.drain(..passed) {
            // SAFETY: made by `Box::into_raw`, and off the list now. Every reader has begun a read, or gone online, since the
            // pointer was swapped, or is offline (`laggard`): none has a reference to it or can get one. What they did with
            // it happens before this, by their release store of `seen` and the acquire load in `laggard`.
            drop(unsafe { Box::from_raw(value.value.load(Ordering::Relaxed)) });
        }
        passed
    }

    /// Revision of the current value.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Relaxed)
    }

    /// Values that wait to be freed.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.shared.retired().len()
    }

    /// Whether no reader uses a value older than `revision`, nor ever will.
    #[must_use]
    pub fn passed(&self, revision: u64) -> bool {
        revision <= self.revision() && self.shared.laggard(revision).is_none()
    }

    /// The reader that is furthest behind the current value, if any is.
    #[must_use]
    pub fn laggard(&self) -> Option<usize> {
        self.shared.laggard(self.revision())
    }

    /// Waits until [`Publisher::passed`], at most `limit`; whether it did.
    #[cfg(not(loom))]
    #[must_use]
    pub fn wait_passed(&self, revision: u64, limit: Duration) -> bool {
        let start = std::time::Instant::now();
        let mut pause = Duration::from_micros(10);
        while !self.passed(revision) {
            if start.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        true
    }

    /// The current value; the publisher's thread alone replaces it.
    #[must_use]
    pub fn current(&self) -> &T {
        // SAFETY: the current value is freed only after it was replaced, which takes `&mut self`.
        unsafe { &*self.shared.current.load(Ordering::Relaxed) }
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("readers", &self.shared.seen.len()).finish_non_exhaustive()
    }
}

/// Reads what is published. One worker has it.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    number: usize,
    /// What this reader last stored in `shared.seen`.
    seen: u64,
}

impl<T: Send + Sync> Reader<T> {
    /// Reads the current value. Says by this that nothing older is in use here.
    #[inline(always)]
    pub fn with<R>(&mut self, read: impl FnOnce(&T) -> R) -> R {
        if self.seen == OFFLINE {
            self.online();
        } else {
            // The revision is stored after the pointer: a reader that has seen it gets that value or a newer one below.
            let revision = self.shared.revision.load(Ordering::Acquire);
            if revision != self.seen {
                self.announce(revision);
            }
        }
        let current = self.shared.current.load(Ordering::Acquire);
        // SAFETY: the pointer came from `Box::into_raw`. The value is freed only when `seen` reaches the revision that
        // replaced it (`reclaim`), and only this reader moves `seen`, not before the next call: `&mut self`.
        read(unsafe { &*current })
    }

    /// Says that this reader will not read for a while, and holds nothing.
    pub fn offline(&mut self) {
        self.announce(OFFLINE);
    }

    /// Takes part again. [`Reader::with`] does it too.
    #[cold]
    pub fn online(&mut self) {
        self.announce(self.shared.revision.load(Ordering::Acquire));
        // Pairs with the fence in `Shared::laggard`.
        fence(Ordering::SeqCst);
    }

    /// The reader's number, as [`Refused`] and [`Publisher::laggard`] name it.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }
}

impl<T> Reader<T> {
    #[inline(always)]
    fn announce(&mut self, seen: u64) {
        self.seen = seen;
        if let Some(cell) = self.shared.seen.get(self.number) {
            cell.store(seen, Ordering::Release);
        }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.announce(OFFLINE);
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("number", &self.number).finish_non_exhaustive()
    }
}
