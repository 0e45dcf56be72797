//! Where a key's entry is: one-line buckets of tags and entry numbers.

use super::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    spin_loop,
};
use super::{TemplateKey, high_half, low_half};
use crate::engine::{Place, place};

/// Places in a bucket; with the lock word they fill a line.
const PLACES: usize = 7;
/// Tries for a bucket's lock. It is held for the time of one insertion, so that only a writer whose thread was interrupted
/// makes others give up.
const TRIES: usize = 128;

/// Word 0 is the lock: odd while a writer holds it, growing with every change. The others are 0 or hold a tag (high half) and
/// an entry's number plus 1 (low half); they are written only by the holder of the lock, and read by anybody.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    words: [AtomicU64; PLACES + 1],
}

impl Bucket {
    fn new() -> Self {
        Self { words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn lock(&self) -> bool {
        for _ in 0..TRIES {
            let version = self.words[0].load(Relaxed);
            if version.is_multiple_of(2)
                && self.words[0].compare_exchange(version, version + 1, Acquire, Relaxed).is_ok()
            {
                return true;
            }
            spin_loop();
        }
        false
    }

    /// For the holder of the lock only.
    fn unlock(&self) {
        let version = self.words[0].load(Relaxed);
        self.words[0].store(version + 1, Release);
    }
}

/// A key's two buckets and its tag.
#[derive(Debug, Clone, Copy)]
struct Home {
    buckets: [usize; 2],
    tag: u32,
}

#[derive(Debug)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    key: [u64; 2],
}

impl Index {
    /// An index for `entries` entries, half full when all of them are in use: with two buckets to choose from a key then finds no
    /// place in either less than once in 10⁹ times.
    pub(super) fn new(entries: u32, key: u128) -> Self {
        let buckets = (entries as usize * 2).div_ceil(PLACES).max(2);
        Self {
            buckets: std::iter::repeat_with(Bucket::new).take(buckets).collect(),
            key: [(key >> 64) as u64, (key & 0xFFFF_FFFF_FFFF_FFFF) as u64],
        }
    }

    pub(super) fn place(&self) -> Place {
        place("template index", &self.buckets)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Entries that may be the key's.
    #[inline]
    pub(super) fn candidates(&self, key: &TemplateKey) -> impl Iterator<Item = u32> {
        let home = self.home(key);
        home.buckets
            .into_iter()
            .flat_map(|bucket| &self.buckets[bucket].words[1..])
            .map(|word| word.load(Acquire))
            .filter(move |word| *word != 0 && high_half(*word) == home.tag)
            .map(|word| low_half(word) - 1)
    }

    /// Locks the key's buckets, always in order of their numbers, so that no two writers wait for each other. `None` when one is
    /// busy.
    pub(super) fn lock(&self, key: &TemplateKey) -> Option<Locked<'_>> {
        let home = self.home(key);
        let [a, b] = home.buckets;
        let (first, second) = (&self.buckets[a.min(b)], &self.buckets[a.max(b)]);
        if !first.lock() {
            return None;
        }
        if !second.lock() {
            first.unlock();
            return None;
        }
        Some(Locked { index: self, home })
    }

    /// Keyed multiply-fold over 128-bit products (as in wyhash): not linear, so that nobody who does not know the key can aim at a
    /// bucket.
    #[inline]
    fn home(&self, key: &TemplateKey) -> Home {
        let [k0, k1] = self.key;
        let [client_high, client_low, address_high, address_low, name] = key.words;
        let client = fold(client_high ^ k0, client_low ^ k1 ^ 0xA076_1D64_78BD_642F);
        let address = fold(address_high ^ k1, address_low ^ k0 ^ 0xE703_7ED1_A0B4_28DB);
        let hash = fold(client ^ name ^ k0.rotate_left(32), address ^ k1 ^ 0x8EBC_6AF0_9C88_C6E3);
        let tag = low_half(fold(hash ^ k1, k0 | 1));
        let place = |half: u64| ((half * self.buckets.len() as u64) >> 32) as usize;
        let first = place(hash >> 32);
        let mut second = place(hash & u64::from(u32::MAX));
        if second == first {
            second = (first + 1) % self.buckets.len();
        }
        Home { buckets: [first, second], tag }
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ (product & 0xFFFF_FFFF_FFFF_FFFF) as u64
}

/// A place in a bucket and what was in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    bucket: usize,
    place: usize,
    word: u64,
}

impl Spot {
    pub(super) fn entry(&self) -> Option<u32> {
        low_half(self.word).checked_sub(1)
    }
}

/// A key's two buckets, locked.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    index: &'a Index,
    home: Home,
}

impl Locked<'_> {
    /// All places, taken and empty.
    pub(super) fn all_spots(&self) -> impl Iterator<Item = Spot> {
        self.home.buckets.into_iter().flat_map(|bucket| {
            let words = self.index.buckets[bucket].words.iter().enumerate().skip(1);
            words.map(move |(place, word)| Spot { bucket, place, word: word.load(Relaxed) })
        })
    }

    /// Places with the key's tag.
    pub(super) fn spots(&self) -> impl Iterator<Item = Spot> {
        let tag = self.home.tag;
        self.all_spots().filter(move |spot| spot.word != 0 && high_half(spot.word) == tag)
    }

    /// An empty place in the emptier bucket.
    pub(super) fn empty_spot(&self) -> Option<Spot> {
        let free = |bucket: usize| {
            let words = &self.index.buckets[bucket].words[1..];
            words.iter().filter(|word| word.load(Relaxed) == 0).count()
        };
        let [first, second] = self.home.buckets;
        let bucket = if free(second) > free(first) { second } else { first };
        self.all_spots().find(|spot| spot.bucket == bucket && spot.word == 0)
    }

    pub(super) fn set(&self, spot: &Spot, entry: u32) {
        let word = u64::from(self.home.tag) << 32 | (u64::from(entry) + 1);
        self.word(spot).store(word, Release);
    }

    pub(super) fn clear(&self, spot: &Spot) {
        self.word(spot).store(0, Release);
    }

    fn word(&self, spot: &Spot) -> &AtomicU64 {
        &self.index.buckets[spot.bucket].words[spot.place]
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for bucket in self.home.buckets {
            self.index.buckets[bucket].unlock();
        }
    }
}
