//! The timing wheel: when to look at a connection again.
//!
//! 1,024 slots of 128 ms, each a chain of 64-byte chunks of seven entries (connection, deadline). A deadline is rounded up
//! to its slot, so nothing fires early; one beyond the horizon is filed at its far end and looked at then. The horizon is a little
//! nearer than the two minutes for which a TCP connection is kept that has ended: the entry that an established one has covers its
//! end too, and no second one is left behind for the rest of a quarter of an hour.
//! The wheel knows nothing of connections: whether an entry still counts is for the table to say.

use super::slab::{Header, Part};
use crate::id::Ticks;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use zerocopy::FromBytes;

/// Slots of the wheel.
pub(super) const SLOTS: usize = ROUND as usize;
/// The same as a difference of slot numbers. Miri, for which a walk round the wheel takes long, has a smaller one.
const ROUND: u32 = if cfg!(miri) { 256 } else { 1024 };
/// Entries of a chunk.
pub(super) const ENTRIES: usize = 7;
/// Binary logarithm of a slot's length in milliseconds.
const SHIFT: u32 = 7;
/// A slot's length in milliseconds.
pub const SLOT_MS: u32 = 1 << SHIFT;
/// The farthest slot that is filed in.
const HORIZON: u32 = if cfg!(miri) { ROUND - 1 } else { 119_000 / SLOT_MS };
/// Slot numbers wrap where milliseconds do.
const SLOT_MASK: u32 = u32::MAX >> SHIFT;

/// Chunks that always suffice for `entries`: full ones, and one begun in each slot.
pub(super) fn chunks_for(entries: usize) -> usize {
    entries / ENTRIES + SLOTS + 1
}

/// Seven entries and the next chunk.
#[derive(Debug, FromBytes)]
#[repr(C, align(64))]
pub(super) struct Chunk {
    entries: [[AtomicU32; 2]; ENTRIES],
    /// Next chunk of the slot, or of the free ones, + 1; 0: none.
    next: AtomicU32,
    count: AtomicU32,
}

/// A connection and the deadline it was filed with (see [`Filed`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) filed: Filed,
}

/// A slot number, in milliseconds, + 1; 0: not filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filed(pub(super) u32);

impl Filed {
    pub(super) const NOT: Self = Self(0);

    fn at(slot: u32) -> Self {
        Self(slot << SHIFT | 1)
    }

    /// Whether it fires at `deadline` rounded up, or before.
    #[inline(always)]
    pub(super) fn covers(self, deadline: Ticks) -> bool {
        self != Self::NOT && Ticks(slot_of(deadline) << SHIFT).reached(Ticks(self.0 & !1))
    }
}

/// The first slot that begins at `deadline` or later.
#[inline(always)]
fn slot_of(deadline: Ticks) -> u32 {
    (deadline.0.wrapping_add(SLOT_MS - 1) >> SHIFT) & SLOT_MASK
}

/// `a - b` of slot numbers, negative when `a` is the earlier one.
#[inline(always)]
fn distance(a: u32, b: u32) -> i32 {
    (a.wrapping_sub(b) << SHIFT).cast_signed() >> SHIFT
}

/// The entries of a chunk that is due.
#[derive(Debug)]
pub(super) struct Batch {
    entries: [Entry; ENTRIES],
    count: usize,
}

impl Batch {
    pub(super) const fn new() -> Self {
        Self { entries: [Entry { id: 0, filed: Filed::NOT }; ENTRIES], count: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    #[inline(always)]
    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.get(..self.count).unwrap_or_default()
    }

    fn push(&mut self, entry: Entry) {
        if let Some(place) = self.entries.get_mut(self.count) {
            *place = entry;
            self.count += 1;
        }
    }
}

/// What a look at the wheel brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// That many entries are due.
    Due(u32),
    /// A slot that has no (more) entries.
    Passed,
    /// Nothing is due.
    Idle,
}

/// The wheel of a table. Its state lies in the region's header.
#[derive(Debug)]
pub(super) struct Wheel {
    header: Part<Header>,
    slots: Part<AtomicU32>,
    chunks: Part<Chunk>,
}

impl Wheel {
    pub(super) fn new(header: Part<Header>, slots: Part<AtomicU32>, chunks: Part<Chunk>) -> Self {
        Self { header, slots, chunks }
    }

    #[inline(always)]
    fn header(&self) -> &Header {
        &self.header[0]
    }

    /// Begins at `now`. Only for a wheel without entries.
    pub(super) fn start(&mut self, now: Ticks) {
        self.header().wheel_next.store(now.0 >> SHIFT, Relaxed);
    }

    /// Entries filed and not fired.
    #[cfg(test)]
    pub(super) fn len(&self) -> u32 {
        self.header().wheel_entries.load(Relaxed)
    }

    /// Files an entry; `None` when there is no chunk left, which a caller that keeps to the count of [`chunks_for`] never
    /// sees.
    pub(super) fn file(&mut self, id: u32, deadline: Ticks) -> Option<Filed> {
        let header = self.header();
        let next = header.wheel_next.load(Relaxed);
        let ahead = distance(slot_of(deadline), next).clamp(0, HORIZON.cast_signed());
        let slot = next.wrapping_add(ahead.cast_unsigned()) & SLOT_MASK;
        let head = &self.slots[slot as usize % SLOTS];
        let mut number = head.load(Relaxed);
        if number == 0 || self.chunk(number).count.load(Relaxed) as usize >= ENTRIES {
            let taken = self.take_chunk()?;
            let chunk = self.chunk(taken);
            chunk.next.store(number, Relaxed);
            chunk.count.store(0, Relaxed);
            head.store(taken, Relaxed);
            number = taken;
        }
        let chunk = self.chunk(number);
        let count = chunk.count.load(Relaxed);
        let filed = Filed::at(slot);
        let [entry_id, entry_filed] = &chunk.entries[count as usize];
        entry_id.store(id, Relaxed);
        entry_filed.store(filed.0, Relaxed);
        chunk.count.store(count + 1, Relaxed);
        header.wheel_entries.store(header.wheel_entries.load(Relaxed) + 1, Relaxed);
        Some(filed)
    }

    /// Whether nothing is due.
    #[inline(always)]
    pub(super) fn is_idle(&self, now: Ticks) -> bool {
        distance(now.0 >> SHIFT, self.header().wheel_next.load(Relaxed)) < 0
    }

    /// Moves a chunk of entries that are due into `batch`, which is empty, or goes one slot further. The chunk after it is asked for.
    pub(super) fn turn(&mut self, now: Ticks, batch: &mut Batch) -> Turn {
        let header = self.header();
        let next = header.wheel_next.load(Relaxed);
        let behind = distance(now.0 >> SHIFT, next);
        if behind < 0 {
            return Turn::Idle;
        }
        let head = &self.slots[next as usize % SLOTS];
        let number = head.load(Relaxed);
        if number == 0 {
            // After a long sleep one round finds everything.
            let skipped = behind.cast_unsigned().saturating_sub(ROUND);
            header.wheel_next.store(next.wrapping_add(1 + skipped) & SLOT_MASK, Relaxed);
            return Turn::Passed;
        }
        let chunk = self.chunk(number);
        let count = chunk.count.load(Relaxed);
        for [id, filed] in chunk.entries.iter().take(count as usize) {
            batch.push(Entry { id: id.load(Relaxed), filed: Filed(filed.load(Relaxed)) });
        }
        let following = chunk.next.load(Relaxed);
        head.store(following, Relaxed);
        chunk.next.store(header.wheel_free.load(Relaxed), Relaxed);
        header.wheel_free.store(number, Relaxed);
        if following != 0 {
            self.chunks.prefetch(following as usize - 1);
        }
        header.wheel_entries.store(header.wheel_entries.load(Relaxed) - count, Relaxed);
        Turn::Due(count)
    }

    /// Chunk `number`, counted from 1.
    #[inline(always)]
    fn chunk(&self, number: u32) -> &Chunk {
        &self.chunks[number as usize - 1]
    }

    fn take_chunk(&self) -> Option<u32> {
        let header = self.header();
        let free = header.wheel_free.load(Relaxed);
        if free != 0 {
            header.wheel_free.store(self.chunk(free).next.load(Relaxed), Relaxed);
            return Some(free);
        }
        let fresh = header.wheel_fresh.load(Relaxed);
        if fresh as usize >= self.chunks.len() {
            return None;
        }
        header.wheel_fresh.store(fresh + 1, Relaxed);
        Some(fresh + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::{Carver, Region};
    use super::*;
    use proptest::prelude::*;

    fn wheel(entries: usize, now: Ticks) -> Wheel {
        let chunks = chunks_for(entries);
        let length = size_of::<Header>() + SLOTS * 4 + chunks * size_of::<Chunk>();
        let mut carver = Carver::new(Region::anonymous(length).unwrap());
        let (header, slots) = (carver.take(1).unwrap(), carver.take(SLOTS).unwrap());
        let mut wheel = Wheel::new(header, slots, carver.take(chunks).unwrap());
        wheel.start(now);
        wheel
    }

    fn fired(wheel: &mut Wheel, now: Ticks) -> Vec<Entry> {
        let mut fired = Vec::new();
        loop {
            let mut batch = Batch::new();
            let turn = wheel.turn(now, &mut batch);
            fired.extend_from_slice(batch.entries());
            if turn == Turn::Idle {
                assert!(wheel.is_idle(now));
                return fired;
            }
        }
    }

    #[test]
    fn chunks_are_cache_lines() {
        assert_eq!((size_of::<Chunk>(), align_of::<Chunk>()), (64, 64));
    }

    #[test]
    fn chunks_suffice_whatever_the_slots() {
        let entries: u32 = if cfg!(miri) { 300 } else { 30_000 };
        let mut wheel = wheel(entries as usize, Ticks(0));
        for round in 0..3 {
            // One in each slot, then all that are left in one: the most chunks that are begun and not full.
            for id in 0..entries {
                let slot = if id < ROUND { id } else { 5 };
                assert!(wheel.file(id, Ticks((round * ROUND + slot) << SHIFT)).is_some(), "{round} {id}");
            }
            assert_eq!(wheel.len(), entries);
            let end = Ticks(((round + 1) * ROUND - 1) << SHIFT);
            assert_eq!(fired(&mut wheel, end).len(), entries as usize);
        }
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn without_chunks_an_entry_is_refused() {
        let mut wheel = wheel(0, Ticks(0));
        for slot in 0..=HORIZON {
            assert!(wheel.file(1, Ticks(slot << SHIFT)).is_some());
        }
        let room = (0..10_000).take_while(|_| wheel.file(1, Ticks(0)).is_some()).count();
        let unused = chunks_for(0) - HORIZON as usize - 1;
        assert_eq!(room, 6 + 7 * unused);
        assert_eq!(wheel.len() as usize, fired(&mut wheel, Ticks(u32::MAX >> 2)).len());
    }

    #[test]
    fn slot_numbers_wrap_with_the_clock() {
        assert_eq!(slot_of(Ticks(u32::MAX)), 0);
        assert_eq!(slot_of(Ticks(0)), 0);
        assert_eq!(slot_of(Ticks(1)), 1);
        assert_eq!((distance(0, SLOT_MASK), distance(SLOT_MASK, 0), distance(7, 3)), (1, -1, 4));
        assert!(Filed::at(SLOT_MASK).covers(Ticks(5)) && !Filed::at(5).covers(Ticks(u32::MAX - 1000)));
        assert!(!Filed::NOT.covers(Ticks(5)));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 3 } else { 300 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Against a list: nothing fires early, nothing is lost, and all fires in the slot it was filed for.
        #[test]
        fn the_wheel_is_a_list_of_deadlines(
            start in any::<u32>(),
            steps in proptest::collection::vec(
                (proptest::collection::vec(prop_oneof![0u32..1_000, 0u32..1_500_000], 0..20),
                 prop_oneof![0u32..200, 0u32..50_000, 0u32..3_000_000]),
                1..if cfg!(miri) { 4 } else { 30 }),
        ) {
            let mut now = Ticks(start);
            let mut wheel = wheel(1000, now);
            let mut waiting: Vec<Entry> = Vec::new();
            let mut id = 0;
            for (delays, pass) in steps {
                for delay in delays {
                    let deadline = now.after(delay);
                    let filed = wheel.file(id, deadline).unwrap();
                    let moment = Ticks(filed.0 & !1);
                    if delay < (HORIZON - 1) << SHIFT {
                        prop_assert!(moment.reached(deadline) && moment.since(deadline) <= 2 * SLOT_MS);
                    } else {
                        prop_assert!(moment.since(now) > (HORIZON - 1) << SHIFT);
                    }
                    waiting.push(Entry { id, filed });
                    id += 1;
                }
                now = now.after(pass);
                let mut fired = fired(&mut wheel, now);
                fired.sort_by_key(|entry| entry.id);
                let due = |entry: &Entry| now.reached(Ticks(entry.filed.0 & !1));
                let wanted: Vec<_> = waiting.iter().copied().filter(due).collect();
                prop_assert_eq!(fired, wanted);
                waiting.retain(|entry| !due(entry));
                prop_assert_eq!(wheel.len() as usize, waiting.len());
            }
        }
    }
}
