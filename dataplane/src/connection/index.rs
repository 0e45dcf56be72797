//! From tuples to connections: cache-line buckets of tags and ids.
//!
//! A bucket has twelve one-byte tags, compared at once, and a count of the entries that found it full on their way to a
//! later bucket; a search goes on only where that count is not 0. The way through the buckets is home + i * stride, both
//! from the hash, modulo a prime number of buckets. Nothing is ever moved, so there is no pause for a rehash.

use super::hash::FlowHash;
use super::slab::{Part, equal_bytes};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use zerocopy::FromBytes;

/// Entries in a bucket.
pub(super) const WIDTH: usize = 12;
/// Buckets looked at before an entry is refused. At four fifths full a fifth of the buckets is: (1/5)^32.
const PROBES: usize = 32;
/// Numbers above this one are reply entries of connection `number & !REVERSE`.
pub(super) const REVERSE: u32 = 1 << 31;

const OVERFLOW_SHIFT: u32 = 32;
const OVERFLOW_MAXIMUM: u64 = u16::MAX as u64;

/// Buckets for `entries` at four fifths full: a prime, so that every stride visits all of them.
pub(super) fn buckets_for(entries: usize) -> usize {
    let least = (entries * 5).div_ceil(WIDTH * 4).max(3);
    let is_prime = |n: usize| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (least..).find(|n| is_prime(*n)).unwrap_or(least)
}

/// 64 bytes: tags and overflow count in the control words, then ids.
#[derive(Debug, FromBytes)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Bytes 0-11 tags (0: free), bytes 12-13 overflow count.
    control: [AtomicU64; 2],
    ids: [AtomicU32; WIDTH],
}

impl Bucket {
    /// A bit for each place with this tag; tag 0 finds free places.
    #[inline(always)]
    fn matches(&self, tag: u8) -> u32 {
        let [low, high] = &self.control;
        equal_bytes(low.load(Relaxed), high.load(Relaxed), tag) & ((1 << WIDTH) - 1)
    }

    #[inline(always)]
    fn overflow(&self) -> u64 {
        (self.control[1].load(Relaxed) >> OVERFLOW_SHIFT) & OVERFLOW_MAXIMUM
    }

    fn add_overflow(&self) {
        self.control[1].store(self.control[1].load(Relaxed) + (1 << OVERFLOW_SHIFT), Relaxed);
    }

    fn remove_overflow(&self) {
        debug_assert!(self.overflow() > 0, "an overflow that was never counted");
        self.control[1].store(self.control[1].load(Relaxed) - (1 << OVERFLOW_SHIFT), Relaxed);
    }

    /// Takes a free place; whether there was one.
    #[inline(always)]
    fn take(&self, tag: u8, id: u32) -> bool {
        let free = self.matches(0);
        if free == 0 {
            return false;
        }
        let place = free.trailing_zeros() as usize;
        if let Some(cell) = self.ids.get(place) {
            cell.store(id, Relaxed);
        }
        self.set_tag(place, tag);
        true
    }

    /// Where `id` lies under `tag`.
    #[inline(always)]
    fn place_of(&self, tag: u8, id: u32) -> Option<usize> {
        places(self.matches(tag)).find(|place| self.ids.get(*place).is_some_and(|at| at.load(Relaxed) == id))
    }

    #[inline(always)]
    fn set_tag(&self, place: usize, tag: u8) {
        let word = &self.control[place / 8];
        let shift = place % 8 * 8;
        let others = word.load(Relaxed) & !(0xFF << shift);
        word.store(others | u64::from(tag) << shift, Relaxed);
    }
}

/// Places set in a mask, lowest first.
#[inline(always)]
fn places(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            place as usize
        })
    })
}

/// The buckets of a table.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Part<Bucket>,
}

/// No room along the way of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Index {
    pub(super) fn new(buckets: Part<Bucket>) -> Self {
        Self { buckets }
    }

    /// Adds the first bucket to a hash.
    #[inline(always)]
    pub(super) fn locate(&self, bits: u64) -> FlowHash {
        let (_, place) = bits.carrying_mul(self.buckets.len() as u64, 0);
        FlowHash { bits, home: usize::try_from(place).unwrap_or(usize::MAX) }
    }

    /// The bucket after `bucket` on the way of a hash.
    #[inline(always)]
    fn next(&self, hash: FlowHash, bucket: usize) -> usize {
        let others = self.buckets.len() as u64 - 1;
        let stride = ((hash.bits & u64::from(u32::MAX)) * others) >> 32;
        let next = bucket + 1 + usize::try_from(stride).unwrap_or(0);
        if next >= self.buckets.len() { next - self.buckets.len() } else { next }
    }

    /// All buckets on the way of a hash.
    fn way(&self, hash: FlowHash) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(hash.home), move |bucket| Some(self.next(hash, *bucket)))
            .take(PROBES.min(self.buckets.len()))
    }

    /// Asks for the first bucket.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: FlowHash) {
        self.buckets.prefetch(hash.home);
    }

    /// The first id whose tag is that of the hash, from the first bucket alone. With none there but entries gone further,
    /// asks for the second bucket.
    #[inline(always)]
    pub(super) fn glance(&self, hash: FlowHash) -> Option<u32> {
        let bucket = self.buckets.get(hash.home)?;
        let found = bucket.matches(hash.tag());
        if found != 0 {
            return bucket.ids.get(found.trailing_zeros() as usize).map(|id| id.load(Relaxed));
        }
        if bucket.overflow() != 0 {
            self.buckets.prefetch(self.next(hash, hash.home));
        }
        None
    }

    /// The first id of this hash for which `is_it` holds.
    #[inline(always)]
    pub(super) fn search(&self, hash: FlowHash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = hash.tag();
        let mut number = hash.home;
        for _ in 0..PROBES.min(self.buckets.len()) {
            let bucket = &self.buckets[number];
            for place in places(bucket.matches(tag)) {
                let id = bucket.ids[place].load(Relaxed);
                if is_it(id) {
                    return Some(id);
                }
            }
            if bucket.overflow() == 0 {
                return None;
            }
            number = self.next(hash, number);
        }
        None
    }

    /// Adds an id.
    #[inline]
    pub(super) fn insert(&mut self, hash: FlowHash, id: u32) -> Result<(), NoRoom> {
        if self.buckets[hash.home].take(hash.tag(), id) {
            return Ok(());
        }
        self.insert_beyond(hash, id)
    }

    /// The same where the first bucket is full.
    #[cold]
    fn insert_beyond(&mut self, hash: FlowHash, id: u32) -> Result<(), NoRoom> {
        for (steps, number) in self.way(hash).enumerate() {
            let bucket = &self.buckets[number];
            if bucket.take(hash.tag(), id) {
                return Ok(());
            }
            if bucket.overflow() == OVERFLOW_MAXIMUM {
                self.undo(hash, steps);
                return Err(NoRoom);
            }
            bucket.add_overflow();
        }
        self.undo(hash, usize::MAX);
        Err(NoRoom)
    }

    /// Takes back the overflow counts of the first `steps` buckets.
    fn undo(&self, hash: FlowHash, steps: usize) {
        for number in self.way(hash).take(steps) {
            self.buckets[number].remove_overflow();
        }
    }

    /// Makes an id the first that a search of its hash finds for which `is_it` holds.
    pub(super) fn prefer(&mut self, hash: FlowHash, id: u32, is_it: impl Fn(u32) -> bool) {
        let mut first: Option<(usize, usize)> = None;
        for number in self.way(hash) {
            let bucket = &self.buckets[number];
            for place in places(bucket.matches(hash.tag())) {
                let cell = &bucket.ids[place];
                let found = cell.load(Relaxed);
                if found == id {
                    if let Some((number, place)) = first {
                        let before = &self.buckets[number].ids[place];
                        cell.store(before.load(Relaxed), Relaxed);
                        before.store(id, Relaxed);
                    }
                    return;
                }
                if first.is_none() && is_it(found) {
                    first = Some((number, place));
                }
            }
        }
    }

    /// Removes an id; whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, hash: FlowHash, id: u32) -> bool {
        let bucket = &self.buckets[hash.home];
        if let Some(place) = bucket.place_of(hash.tag(), id) {
            bucket.set_tag(place, 0);
            return true;
        }
        self.remove_beyond(hash, id)
    }

    /// The same where it is not in the first bucket.
    #[cold]
    fn remove_beyond(&mut self, hash: FlowHash, id: u32) -> bool {
        for (steps, number) in self.way(hash).enumerate() {
            let bucket = &self.buckets[number];
            if let Some(place) = bucket.place_of(hash.tag(), id) {
                bucket.set_tag(place, 0);
                self.undo(hash, steps);
                return true;
            }
            if bucket.overflow() == 0 {
                return false;
            }
        }
        false
    }

    /// How many buckets hold how many entries, and how many entries lie beyond their first bucket.
    #[cfg(test)]
    pub(super) fn histogram(&self) -> ([usize; WIDTH + 1], u64) {
        let mut histogram = [0; WIDTH + 1];
        for bucket in &*self.buckets {
            histogram[WIDTH - bucket.matches(0).count_ones() as usize] += 1;
        }
        (histogram, self.buckets.iter().map(Bucket::overflow).sum())
    }
}
