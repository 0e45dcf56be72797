//! The keyed hash of flows.
//!
//! Multiply and fold (the 128-bit product of two keyed words, its halves xored) is not linear over GF(2): unlike CRC32C and
//! Toeplitz, keys that collide under one secret do not collide under another, so a client cannot choose its bucket.

use crate::address::Address;
use crate::flow::Tuple;

/// The secret of a table, drawn by whoever creates it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

/// Never prints the secret.
impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// A tuple's hash under a table's key, and the first bucket of the table that it leads to. Parts of the hash: bits 0-7 the tag,
/// 0-31 the stride, 32-63 (and below) the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowHash {
    pub(super) bits: u64,
    pub(super) home: usize,
}

impl FlowHash {
    /// The tag in the bucket, never 0.
    #[inline(always)]
    pub(super) const fn tag(self) -> u8 {
        let tag = self.bits.to_le_bytes()[0];
        if tag == 0 { 1 } else { tag }
    }
}

/// The words that the hash mixes in.
#[derive(Clone, Copy)]
pub(super) struct Schedule([u64; 6]);

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schedule(..)")
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    low ^ high
}

#[inline(always)]
fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Schedule {
    pub(super) fn new(key: HashKey) -> Self {
        let [first, second] = key.0;
        let mut state = first;
        Self([0; 6].map(|_| {
            // Steele, Lea, Flood: SplitMix64; the second half of the key enters each word.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state ^ second;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            // An odd word is never 0, and as a multiplier it loses nothing.
            (word ^ (word >> 31)) | 1
        }))
    }

    #[inline(always)]
    pub(super) fn hash<A: Address>(&self, tuple: &Tuple<A>) -> u64 {
        let [k0, k1, k2, k3, k4, k5] = self.0;
        let (source, destination) = (tuple.source.words(), tuple.destination.words());
        let ports = tuple.names();
        let mixed = if A::LENGTH == 4 {
            fold(join(source[3], destination[3]) ^ k0, ports ^ k1)
        } else {
            let first = fold(join(source[0], source[1]) ^ k0, join(source[2], source[3]) ^ k1);
            let second =
                fold(join(destination[0], destination[1]) ^ k4, join(destination[2], destination[3]) ^ k5);
            fold(first ^ ports ^ k2, second ^ k1.rotate_left(32))
        };
        fold(mixed ^ k2, k3)
    }
}
