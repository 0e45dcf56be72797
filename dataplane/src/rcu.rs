//! Publication of values to workers, with quiescent-state-based reclamation.
//!
//! One [`Publisher`] swaps a pointer; each worker has one [`Reader`] and reads through it once a burst. Between two reads a
//! reader holds nothing of an older value, so the start of a read says that it has passed all that it had seen published. A
//! worker that sleeps is [offline](Reader::offline) and holds nobody up. Retired values are freed by the publisher's thread.

use crossbeam_utils::CachePadded;
use std::fmt;
#[cfg(not(loom))]
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

/// Makes a publisher and its readers, which are offline until they first read. The first value is revision 0.
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

    /// Where the revision and what readers say of it lie, and the current value, by name.
    #[cfg(not(loom))]
    #[must_use]
    pub fn places(&self) -> Vec<crate::engine::Place> {
        use crate::engine::place;
        use std::slice::from_ref;
        let Shared { current, revision, seen, .. } = &*self.shared;
        vec![
            place("pointer to the snapshot", from_ref(current)),
            place("revision", from_ref(revision)),
            place("revisions that workers have seen", seen),
            place("snapshot", from_ref(self.current())),
        ]
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    /// Says when it is dropped, and is recognisable while it is not.
    struct Value {
        number: u64,
        twice: u64,
        dropped: Arc<AtomicUsize>,
    }

    impl Value {
        fn new(number: u64, dropped: &Arc<AtomicUsize>) -> Self {
            Self { number, twice: number * 2, dropped: Arc::clone(dropped) }
        }
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.twice = u64::MAX;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn dropped(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::Relaxed)
    }

    #[test]
    fn what_different_threads_write_is_in_different_pairs_of_lines() {
        let (publisher, readers) = channel(0_u64, 3);
        let places = publisher.places();
        let cells = places.iter().filter(|(name, _)| *name != "snapshot");
        for (name, range) in cells {
            assert_eq!((range.start % 128, range.len() % 128), (0, 0), "{name}");
        }
        assert_eq!(size_of_val(&*readers[0].shared.seen), 3 * 128);
    }

    #[test]
    fn a_value_lives_until_every_reader_has_passed() {
        let counter = Arc::new(AtomicUsize::new(0));
        let (mut publisher, mut readers) = channel(Value::new(0, &counter), 2);
        assert_eq!(readers[0].with(|value| value.number), 0);
        assert_eq!(readers[1].with(|value| value.number), 0);
        assert_eq!(publisher.publish(Value::new(1, &counter)), Ok(1));
        assert_eq!((publisher.current().number, publisher.retired(), dropped(&counter)), (1, 1, 0));
        assert_eq!((publisher.passed(0), publisher.passed(1), publisher.laggard()), (true, false, Some(0)));
        assert_eq!(readers[0].with(|value| value.number), 1);
        assert_eq!((publisher.reclaim(), publisher.laggard()), (0, Some(1)));
        assert!(!publisher.wait_passed(1, Duration::from_millis(2)));
        assert_eq!(readers[1].with(|value| value.number), 1);
        assert!(publisher.wait_passed(1, Duration::ZERO));
        assert!(publisher.passed(1) && !publisher.passed(2), "the future has not been passed");
        assert_eq!((publisher.reclaim(), publisher.retired(), dropped(&counter)), (1, 0, 1));
        assert_eq!((readers[0].number(), readers[1].number()), (0, 1));
    }

    #[test]
    fn a_sleeping_reader_holds_nobody_up() {
        let counter = Arc::new(AtomicUsize::new(0));
        let (mut publisher, mut readers) = channel(Value::new(0, &counter), 2);
        // Not begun yet: offline.
        assert_eq!(publisher.publish(Value::new(1, &counter)), Ok(1));
        assert_eq!(dropped(&counter), 1);
        readers[0].online();
        readers[1].with(|_| ());
        readers[1].offline();
        publisher.publish(Value::new(2, &counter)).unwrap();
        assert_eq!((dropped(&counter), publisher.laggard()), (1, Some(0)));
        readers[0].offline();
        assert_eq!((publisher.reclaim(), dropped(&counter)), (1, 2));
        assert_eq!(readers[1].with(|value| value.number), 2);
    }

    #[test]
    fn too_many_retired_are_refused_by_name() {
        let counter = Arc::new(AtomicUsize::new(0));
        let (mut publisher, mut readers) = channel(Value::new(0, &counter), 3);
        readers.iter_mut().for_each(|reader| reader.with(|_| ()));
        for number in 1..=8 {
            assert_eq!(publisher.publish(Value::new(number, &counter)), Ok(number));
            readers[0].with(|value| assert_eq!(value.number, number));
            readers[2].with(|value| assert_eq!(value.number, number));
        }
        let refused = publisher.publish(Value::new(9, &counter)).unwrap_err();
        assert_eq!(refused.to_string(), "8 values wait for reader 1 to pass");
        assert_eq!((publisher.revision(), publisher.retired(), dropped(&counter)), (8, 8, 1));
        readers[1].with(|value| assert_eq!(value.number, 8));
        assert_eq!(publisher.publish(Value::new(9, &counter)), Ok(9));
        drop(readers);
        assert_eq!(publisher.reclaim(), 1);
        drop(publisher);
        assert_eq!(dropped(&counter), 11);
    }

    #[test]
    fn whoever_goes_last_cleans_up() {
        let counter = Arc::new(AtomicUsize::new(0));
        let (mut publisher, mut readers) = channel(Value::new(0, &counter), 1);
        readers[0].with(|_| ());
        publisher.publish(Value::new(1, &counter)).unwrap();
        drop(publisher);
        assert_eq!(dropped(&counter), 0);
        assert_eq!(readers[0].with(|value| value.number), 1);
        drop(readers);
        assert_eq!(dropped(&counter), 2);
    }

    #[test]
    fn readers_beside_a_publisher_see_whole_values_in_order() {
        let rounds = if cfg!(miri) { 30 } else { 50_000 };
        let counter = Arc::new(AtomicUsize::new(0));
        let (mut publisher, readers) = channel(Value::new(0, &counter), 3);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for mut reader in readers {
                let stop = &stop;
                scope.spawn(move || {
                    let (mut last, mut turns) = (0, 0u32);
                    while !stop.load(Ordering::Relaxed) {
                        let number = reader.with(|value| {
                            let number = value.number;
                            assert_eq!(value.twice, number * 2, "freed while in use");
                            number
                        });
                        assert!(number >= last);
                        last = number;
                        turns = turns.wrapping_add(1);
                        if turns.is_multiple_of(7) {
                            reader.offline();
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut published = 0;
            while published < rounds {
                match publisher.publish(Value::new(published + 1, &counter)) {
                    Ok(revision) => {
                        published += 1;
                        assert_eq!(revision, published);
                    }
                    Err(refused) => {
                        assert!(refused.reader < 3);
                        std::thread::yield_now();
                    }
                }
                assert!(publisher.retired() <= MAXIMUM_RETIRED);
            }
            assert!(publisher.wait_passed(rounds, Duration::from_secs(60)));
            stop.store(true, Ordering::Relaxed);
        });
        publisher.reclaim();
        assert_eq!(publisher.retired(), 0);
    }
}

/// Every order of loads and stores of small programs: `RUSTFLAGS="--cfg loom" cargo test -p dataplane
/// --no-default-features --release rcu`.
#[cfg(all(test, loom))]
mod exhaustive {
    use super::*;
    use loom::sync::atomic::AtomicBool;

    /// Marks its place among `FREED` when it is dropped.
    struct Value {
        number: usize,
        freed: Arc<[AtomicBool; 3]>,
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.freed[self.number].store(true, Ordering::Relaxed);
        }
    }

    fn freed() -> Arc<[AtomicBool; 3]> {
        Arc::new([AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false)])
    }

    /// Reads as a worker does: the value must be alive from the begin of the read to its end.
    fn read(reader: &mut Reader<Value>) -> usize {
        reader.with(|value| {
            assert!(!value.freed[value.number].load(Ordering::Relaxed), "freed before");
            loom::thread::yield_now();
            assert!(!value.freed[value.number].load(Ordering::Relaxed), "freed while in use");
            value.number
        })
    }

    #[test]
    fn a_reader_and_two_publications() {
        loom::model(|| {
            let freed = freed();
            let value = |number| Value { number, freed: Arc::clone(&freed) };
            let (mut publisher, mut readers) = channel(value(0), 1);
            let mut reader = readers.remove(0);
            let thread = loom::thread::spawn(move || {
                let first = read(&mut reader);
                let second = read(&mut reader);
                assert!(second >= first);
            });
            publisher.publish(value(1)).unwrap();
            publisher.publish(value(2)).unwrap();
            publisher.reclaim();
            thread.join().unwrap();
            publisher.reclaim();
            assert_eq!(publisher.retired(), 0);
        });
    }

    #[test]
    fn a_reader_that_sleeps_between() {
        loom::model(|| {
            let freed = freed();
            let value = |number| Value { number, freed: Arc::clone(&freed) };
            let (mut publisher, mut readers) = channel(value(0), 1);
            let mut reader = readers.remove(0);
            let thread = loom::thread::spawn(move || {
                read(&mut reader);
                reader.offline();
                read(&mut reader);
            });
            publisher.publish(value(1)).unwrap();
            publisher.reclaim();
            thread.join().unwrap();
        });
    }

    #[test]
    fn passed_means_passed() {
        loom::model(|| {
            let freed = freed();
            let value = |number| Value { number, freed: Arc::clone(&freed) };
            let (mut publisher, mut readers) = channel(value(0), 1);
            let mut reader = readers.remove(0);
            let told = Arc::new(AtomicBool::new(false));
            let tell = Arc::clone(&told);
            let thread = loom::thread::spawn(move || {
                read(&mut reader);
                let told = told.load(Ordering::Acquire);
                let number = read(&mut reader);
                assert!(!told || number == 1, "an older value after it was passed");
            });
            let revision = publisher.publish(value(1)).unwrap();
            if publisher.passed(revision) {
                tell.store(true, Ordering::Release);
            }
            thread.join().unwrap();
        });
    }

    #[test]
    fn two_readers() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let freed = freed();
            let value = |number| Value { number, freed: Arc::clone(&freed) };
            let (mut publisher, readers) = channel(value(0), 2);
            let threads: Vec<_> = readers
                .into_iter()
                .map(|mut reader| loom::thread::spawn(move || read(&mut reader)))
                .collect();
            publisher.publish(value(1)).unwrap();
            publisher.reclaim();
            threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() <= 1));
        });
    }
}
