//! Homes of fragments: where the pieces of a datagram meet.
//!
//! A datagram leaves when it is whole, its pieces in order and each as it came, the later ones with the ports of the first;
//! nothing is put together. What is refused and why follows the kernel (`ip_frag_queue`, RFC 5722, RFC 8200): a piece that
//! overlaps others in part, or that contradicts the length another one gave, ends the datagram, and what comes next begins a
//! new one; a piece that lies within what has been seen is a duplicate and is dropped.
//!
//! Floods cannot lock honest datagrams out: when there is no place the oldest go.

mod key;
#[cfg(test)]
mod tests;

pub use key::FragmentKey;

use crate::counters::DropReason;
use crate::id::Ticks;
use crate::packet::Headers;
use std::collections::VecDeque;

/// How long a datagram's pieces are waited for, from the first one seen: the kernel's `ipfrag_time`.
pub const LIFETIME: u32 = 30 * Ticks::SECOND;
/// Most pieces of one datagram: enough for the longest one on links of 576 bytes.
pub const MOST_PIECES: u8 = 128;
/// Most datagrams that one [`FragmentMap::advance`] lets go.
const MOST_EXPIRED: usize = 64;

/// A piece that leaves the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fragment<P> {
    /// The next piece of a datagram that is whole: from the first to the last one, without others between them.
    Pass {
        /// The piece, unchanged.
        packet: P,
        /// What is known of it: its own headers, with the ports and the protocol of the first piece.
        headers: Headers,
    },
    /// To be dropped and counted.
    Drop {
        /// The piece.
        packet: P,
        /// Why.
        reason: DropReason,
    },
}

/// What the map did, for statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FragmentCounters {
    /// Pieces taken in.
    pub accepted: u64,
    /// Pieces that went on.
    pub passed: u64,
    /// Pieces that were dropped.
    pub dropped: u64,
    /// Datagrams seen whole.
    pub completed: u64,
    /// Datagrams that were not within [`LIFETIME`].
    pub expired: u64,
    /// Datagrams that had to make place for newer ones.
    pub evicted: u64,
}

const NONE: u32 = u32::MAX;

/// What a piece is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Bytes none of them had, behind this piece; [`NONE`]: before all.
    New(u32),
    /// Nothing but bytes they had.
    Duplicate,
    /// Some of both, or a contradiction about the datagram's length.
    Overlap,
}

/// A datagram of which some pieces are missing.
#[derive(Debug)]
struct Datagram {
    key: FragmentKey,
    /// Its length, once its last piece has been seen.
    total: Option<u16>,
    /// Bytes held.
    bytes: u16,
    pieces: u8,
    expires: Ticks,
    /// Its pieces in order.
    first: u32,
    last: u32,
    /// The next in the hash chain, or in the list of free ones.
    chain: u32,
    older: u32,
    newer: u32,
}

/// A piece that waits for the others.
#[derive(Debug)]
struct Held<P> {
    content: Option<(P, Headers)>,
    /// The next of the same datagram, or the next free one.
    next: u32,
}

/// The datagrams of which one worker is the home. All memory is taken at the start.
#[derive(Debug)]
pub struct FragmentMap<P> {
    secret: [u64; 2],
    buckets: Box<[u32]>,
    datagrams: Box<[Datagram]>,
    free: u32,
    held: Box<[Held<P>]>,
    held_free: u32,
    held_count: usize,
    oldest: u32,
    newest: u32,
    out: VecDeque<Fragment<P>>,
    counters: FragmentCounters,
}

impl<P> FragmentMap<P> {
    /// A home for `datagrams` at once, holding at most `held` pieces; both count as 1 at least. `secret` keys the
    /// hash and is to be random.
    #[must_use]
    pub fn new(datagrams: u32, held: u32, secret: [u64; 2]) -> Self {
        let (datagrams, held) = (datagrams.clamp(1, NONE >> 2), held.clamp(1, NONE >> 2));
        let following = |count: u32| (1..=count).map(move |next| if next == count { NONE } else { next });
        Self {
            secret,
            buckets: vec![NONE; (datagrams * 2).next_power_of_two() as usize].into_boxed_slice(),
            datagrams: following(datagrams).map(Datagram::unused).collect(),
            free: 0,
            held: following(held).map(|next| Held { content: None, next }).collect(),
            held_free: 0,
            held_count: 0,
            oldest: NONE,
            newest: NONE,
            // Whatever happens, a piece leaves once: those held, and the one just taken in.
            out: VecDeque::with_capacity(held as usize + 1),
            counters: FragmentCounters::default(),
        }
    }

    /// Takes a piece in. What comes of it and of others is fetched with [`Self::pop`], which is to be called until it
    /// answers `None`.
    pub fn accept(&mut self, packet: P, key: FragmentKey, headers: &Headers, now: Ticks) {
        self.counters.accepted += 1;
        let index = self.find_or_add(key, now);
        match self.fit(index, headers) {
            Fit::Duplicate => {
                // What it says of the datagram's end holds all the same.
                self.datagrams[index as usize].hear_end(headers);
                self.refuse(packet, DropReason::FragmentInvalid);
            }
            Fit::Overlap => {
                self.let_go(index, DropReason::FragmentInvalid);
                self.refuse(packet, DropReason::FragmentInvalid);
            }
            Fit::New(before) => {
                if !self.hold(index, before, packet, headers) {
                    self.let_go(index, DropReason::FragmentFull);
                } else if self.is_whole(index) {
                    self.counters.completed += 1;
                    self.pass(index);
                    self.remove(index);
                }
            }
        }
    }

    /// Where a piece belongs.
    fn fit(&self, index: u32, headers: &Headers) -> Fit {
        let datagram = &self.datagrams[index as usize];
        let start = headers.fragment_offset;
        let end = start.saturating_add(headers.fragment_length);
        let last = !headers.more_fragments();
        let reach = self.span(datagram.last).map_or(0, |(_, end)| end);
        let lies = datagram.total.is_some_and(|total| end > total || (last && end != total));
        if lies || (last && end < reach) {
            return Fit::Overlap;
        }
        if start >= reach {
            return Fit::New(datagram.last);
        }
        let (mut at, mut before, mut touched) = (datagram.first, NONE, false);
        // The run of pieces without a gap that has been walked last.
        let mut run = (0, 0);
        while let Some((from, to)) = self.span(at) {
            run = if from == run.1 { (run.0, to) } else { (from, to) };
            if run.0 <= start && end <= run.1 {
                return Fit::Duplicate;
            }
            touched |= from < end && start < to;
            if from < start {
                before = at;
            }
            at = self.held[at as usize].next;
        }
        if touched { Fit::Overlap } else { Fit::New(before) }
    }

    /// Where the piece at `slot` begins and ends.
    fn span(&self, slot: u32) -> Option<(u16, u16)> {
        let (_, headers) = self.held.get(slot as usize)?.content.as_ref()?;
        let start = headers.fragment_offset;
        Some((start, start.saturating_add(headers.fragment_length)))
    }

    fn is_whole(&self, index: u32) -> bool {
        let Datagram { total, bytes, .. } = self.datagrams[index as usize];
        total == Some(bytes)
    }

    /// Sends a whole datagram on.
    fn pass(&mut self, index: u32) {
        let mut first = None;
        while let Some((packet, mut headers)) = self.take(index) {
            let Headers { source_port, destination_port, protocol, .. } = *first.get_or_insert(headers);
            headers = Headers { source_port, destination_port, protocol, ..headers };
            self.counters.passed += 1;
            self.out.push_back(Fragment::Pass { packet, headers });
        }
    }

    /// The next piece that leaves the map.
    #[inline]
    pub fn pop(&mut self) -> Option<Fragment<P>> {
        self.out.pop_front()
    }

    /// Lets datagrams go whose time is over, at most 64 in a call. To be followed by [`Self::pop`].
    #[inline]
    pub fn advance(&mut self, now: Ticks) {
        for _ in 0..MOST_EXPIRED {
            let oldest = self.oldest;
            if self.datagrams.get(oldest as usize).is_none_or(|datagram| !now.reached(datagram.expires)) {
                break;
            }
            self.counters.expired += 1;
            self.let_go(oldest, DropReason::FragmentOrphan);
        }
    }

    /// Forgets everything; held pieces are dropped for `reason`. To be followed by [`Self::pop`].
    pub fn clear(&mut self, reason: DropReason) {
        while self.oldest != NONE {
            self.let_go(self.oldest, reason);
        }
    }

    /// Pieces in the map: held, or not yet fetched.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.held_count + self.out.len()
    }

    /// What the map did so far.
    #[must_use]
    pub const fn counters(&self) -> FragmentCounters {
        self.counters
    }

    fn refuse(&mut self, packet: P, reason: DropReason) {
        self.counters.dropped += 1;
        self.out.push_back(Fragment::Drop { packet, reason });
    }

    /// Keeps a piece behind `before`; `false` when there is no place for it, and it is refused.
    fn hold(&mut self, index: u32, before: u32, packet: P, headers: &Headers) -> bool {
        while self.held_free == NONE && self.oldest != index {
            self.evict();
        }
        let slot = self.held_free;
        let datagram = &mut self.datagrams[index as usize];
        if slot == NONE || datagram.pieces == MOST_PIECES {
            self.refuse(packet, DropReason::FragmentFull);
            return false;
        }
        datagram.pieces += 1;
        datagram.bytes = datagram.bytes.saturating_add(headers.fragment_length);
        datagram.hear_end(headers);
        self.held_free = self.held[slot as usize].next;
        let after = match self.held.get_mut(before as usize) {
            Some(before) => std::mem::replace(&mut before.next, slot),
            None => std::mem::replace(&mut datagram.first, slot),
        };
        if after == NONE {
            datagram.last = slot;
        }
        self.held[slot as usize] = Held { content: Some((packet, *headers)), next: after };
        self.held_count += 1;
        true
    }

    /// The first piece held of a datagram.
    fn take(&mut self, index: u32) -> Option<(P, Headers)> {
        let datagram = &mut self.datagrams[index as usize];
        let slot = datagram.first;
        let place = self.held.get_mut(slot as usize)?;
        datagram.first = std::mem::replace(&mut place.next, self.held_free);
        self.held_free = slot;
        self.held_count -= 1;
        place.content.take()
    }

    fn bucket(&self, key: &FragmentKey) -> usize {
        // The home was chosen by the upper half of the same hash.
        let index = key.hash(self.secret) & (self.buckets.len() as u64 - 1);
        usize::try_from(index).unwrap_or(0)
    }

    fn find_or_add(&mut self, key: FragmentKey, now: Ticks) -> u32 {
        let bucket = self.bucket(&key);
        let mut at = self.buckets[bucket];
        while let Some(datagram) = self.datagrams.get(at as usize) {
            if datagram.key == key {
                if !now.reached(datagram.expires) {
                    return at;
                }
                self.counters.expired += 1;
                self.let_go(at, DropReason::FragmentOrphan);
                break;
            }
            at = datagram.chain;
        }
        if self.free == NONE {
            self.evict();
        }
        let index = self.free;
        let datagram = &mut self.datagrams[index as usize];
        self.free = datagram.chain;
        *datagram = Datagram { key, expires: now.after(LIFETIME), ..Datagram::unused(self.buckets[bucket]) };
        self.buckets[bucket] = index;
        self.link(index);
        index
    }

    /// Makes place: the oldest goes.
    fn evict(&mut self) {
        self.counters.evicted += 1;
        self.let_go(self.oldest, DropReason::FragmentFull);
    }

    fn let_go(&mut self, index: u32, reason: DropReason) {
        while let Some((packet, _)) = self.take(index) {
            self.refuse(packet, reason);
        }
        self.remove(index);
    }

    /// Frees a datagram that holds nothing.
    fn remove(&mut self, index: u32) {
        self.unlink(index);
        let bucket = self.bucket(&self.datagrams[index as usize].key);
        let next = std::mem::replace(&mut self.datagrams[index as usize].chain, self.free);
        self.free = index;
        if self.buckets[bucket] == index {
            self.buckets[bucket] = next;
            return;
        }
        let mut at = self.buckets[bucket];
        while let Some(datagram) = self.datagrams.get_mut(at as usize) {
            if datagram.chain == index {
                datagram.chain = next;
                return;
            }
            at = datagram.chain;
        }
    }

    /// Puts a datagram at the new end of the queue.
    fn link(&mut self, index: u32) {
        let newest = std::mem::replace(&mut self.newest, index);
        match self.datagrams.get_mut(newest as usize) {
            Some(datagram) => datagram.newer = index,
            None => self.oldest = index,
        }
        let datagram = &mut self.datagrams[index as usize];
        (datagram.older, datagram.newer) = (newest, NONE);
    }

    fn unlink(&mut self, index: u32) {
        let Datagram { older, newer, .. } = self.datagrams[index as usize];
        match self.datagrams.get_mut(older as usize) {
            Some(datagram) => datagram.newer = newer,
            None => self.oldest = newer,
        }
        match self.datagrams.get_mut(newer as usize) {
            Some(datagram) => datagram.older = older,
            None => self.newest = older,
        }
    }
}

impl Datagram {
    fn unused(chain: u32) -> Self {
        Self {
            key: FragmentKey::default(),
            total: None,
            bytes: 0,
            pieces: 0,
            expires: Ticks(0),
            first: NONE,
            last: NONE,
            chain,
            older: NONE,
            newer: NONE,
        }
    }

    /// The last piece tells where the datagram ends.
    fn hear_end(&mut self, headers: &Headers) {
        if !headers.more_fragments() {
            self.total = Some(headers.fragment_offset.saturating_add(headers.fragment_length));
        }
    }
}
