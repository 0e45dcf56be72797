//! Homes of fragments: where the pieces of a datagram meet, so that all of them go the way of the first.
//!
//! Only the first piece carries ports. The home remembers them for the later ones, holds pieces that came before the
//! first, and lets each go on unchanged; nothing is put together. What it refuses and why follows the kernel
//! (`inet_frag_queue_insert`, RFC 5722, RFC 8200): a piece that overlaps others in part, or that contradicts the length
//! another one gave, makes the whole datagram invalid; a piece that lies within what has been seen is a duplicate and
//! passes, the receiver's own reassembly discards it. Here that means: once the first piece is known; among held pieces
//! a duplicate is dropped. A first piece with other ports starts the datagram afresh, since its identification has been
//! used again.
//!
//! Floods cannot lock honest datagrams out: when there is no place the oldest go, those still without a first piece
//! before the others.

mod coverage;
mod key;
#[cfg(test)]
mod tests;

pub use key::FragmentKey;

use crate::counters::DropReason;
use crate::id::Ticks;
use crate::packet::Headers;
use coverage::{Coverage, Fit, Span};
use std::collections::VecDeque;

/// How long a datagram's pieces are waited for, from the first one seen and again from the one with the ports: the
/// kernel's `ipfrag_time`.
pub const LIFETIME: u32 = 30 * Ticks::SECOND;
/// Most pieces of one datagram that are held.
pub const MOST_HELD: u8 = 16;
/// Most datagrams that one [`FragmentMap::advance`] lets go.
const MOST_EXPIRED: usize = 64;

/// A piece that leaves the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fragment<P> {
    /// Goes on. The headers are the piece's own, with the ports and the protocol of the first piece.
    Pass {
        /// The piece, unchanged.
        packet: P,
        /// What is known of it.
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
    /// Pieces held until their first piece came, or did not.
    pub held: u64,
    /// Datagrams seen whole.
    pub completed: u64,
    /// Datagrams that were not within [`LIFETIME`].
    pub expired: u64,
    /// Datagrams that had to make place for newer ones.
    pub evicted: u64,
}

const NONE: u32 = u32::MAX;

/// What later pieces learn from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Learned {
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

/// A datagram, in one of the two queues while it is in use.
#[derive(Debug)]
struct Datagram {
    key: FragmentKey,
    coverage: Coverage,
    learned: Option<Learned>,
    /// Overlapped or lied: nothing of it passes any more.
    invalid: bool,
    expires: Ticks,
    /// Pieces held, in the order they came.
    held_first: u32,
    held_last: u32,
    held_count: u8,
    /// The next in the hash chain, or in the list of free ones.
    chain: u32,
    older: u32,
    newer: u32,
}

/// A piece that waits for its first piece.
#[derive(Debug)]
struct Held<P> {
    content: Option<(P, Headers)>,
    /// The next of the same datagram, or the next free one.
    next: u32,
}

/// Datagrams in the order in which they expire.
#[derive(Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE }
    }
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
    /// Without and with their first piece.
    waiting: Queue,
    known: Queue,
    out: VecDeque<Fragment<P>>,
    counters: FragmentCounters,
}

impl<P> FragmentMap<P> {
    /// A home for `datagrams` at once, holding at most `held` early pieces; both count as 1 at least. `secret` keys the
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
            waiting: Queue::default(),
            known: Queue::default(),
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
        let datagram = &mut self.datagrams[index as usize];
        if datagram.invalid {
            return self.refuse(packet, DropReason::FragmentInvalid);
        }
        let first = headers.first_fragment().then_some(Learned {
            source_port: headers.source_port,
            destination_port: headers.destination_port,
            protocol: headers.protocol,
        });
        if first.is_some() && datagram.learned.is_some() && first != datagram.learned {
            datagram.coverage = Coverage::default();
        }
        let unheld =
            datagram.held_count == MOST_HELD || (self.held_free == NONE && self.waiting.oldest == index);
        if unheld && datagram.learned.or(first).is_none() {
            return self.refuse(packet, DropReason::FragmentFull);
        }
        let start = headers.fragment_offset;
        let piece = Span { start, end: start.saturating_add(headers.fragment_length) };
        match (datagram.coverage.insert(piece, !headers.more_fragments()), datagram.learned.or(first)) {
            (Fit::Overlap, _) => {
                datagram.invalid = true;
                self.drop_held(index, DropReason::FragmentInvalid);
                return self.refuse(packet, DropReason::FragmentInvalid);
            }
            (Fit::NoRoom, _) => return self.refuse(packet, DropReason::FragmentFull),
            (Fit::Duplicate, None) => return self.refuse(packet, DropReason::FragmentInvalid),
            (Fit::New, None) => return self.hold(index, packet, headers),
            (Fit::New | Fit::Duplicate, Some(known)) => {
                let learned = first.unwrap_or(known);
                self.learn(index, learned, now);
                self.pass(packet, *headers, learned);
                while let Some((packet, headers)) = self.take_held(index) {
                    self.pass(packet, headers, learned);
                }
            }
        }
        if self.datagrams[index as usize].coverage.complete() {
            self.counters.completed += 1;
            self.remove(index);
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
            let expired = |index: u32| index != NONE && now.reached(self.datagrams[index as usize].expires);
            let Some(index) = [self.waiting.oldest, self.known.oldest].into_iter().find(|at| expired(*at))
            else {
                break;
            };
            self.counters.expired += 1;
            self.let_go(index, DropReason::FragmentOrphan);
        }
    }

    /// Forgets everything; held pieces are dropped for `reason`. To be followed by [`Self::pop`].
    pub fn clear(&mut self, reason: DropReason) {
        while let Some(index) = [self.waiting.oldest, self.known.oldest].into_iter().find(|at| *at != NONE) {
            self.let_go(index, reason);
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

    fn pass(&mut self, packet: P, mut headers: Headers, learned: Learned) {
        self.counters.passed += 1;
        headers.source_port = learned.source_port;
        headers.destination_port = learned.destination_port;
        headers.protocol = learned.protocol;
        self.out.push_back(Fragment::Pass { packet, headers });
    }

    /// Notes what the first piece said; the datagram's time starts again when that is new.
    fn learn(&mut self, index: u32, learned: Learned, now: Ticks) {
        if self.datagrams[index as usize].learned != Some(learned) {
            self.unlink(index);
            let datagram = &mut self.datagrams[index as usize];
            datagram.learned = Some(learned);
            datagram.expires = now.after(LIFETIME);
            self.link(index);
        }
    }

    /// Keeps a piece until its first piece comes.
    fn hold(&mut self, index: u32, packet: P, headers: &Headers) {
        while self.held_free == NONE && self.waiting.oldest != index {
            self.evict();
        }
        let slot = self.held_free;
        let datagram = &mut self.datagrams[index as usize];
        if slot == NONE {
            return self.refuse(packet, DropReason::FragmentFull);
        }
        let last = std::mem::replace(&mut datagram.held_last, slot);
        datagram.held_count += 1;
        if last == NONE {
            datagram.held_first = slot;
        } else {
            self.held[last as usize].next = slot;
        }
        let place = &mut self.held[slot as usize];
        self.held_free = std::mem::replace(&mut place.next, NONE);
        place.content = Some((packet, *headers));
        self.held_count += 1;
        self.counters.held += 1;
    }

    /// The oldest piece held for a datagram.
    fn take_held(&mut self, index: u32) -> Option<(P, Headers)> {
        let datagram = &mut self.datagrams[index as usize];
        let slot = datagram.held_first;
        let place = self.held.get_mut(slot as usize)?;
        datagram.held_first = std::mem::replace(&mut place.next, self.held_free);
        datagram.held_count -= 1;
        if datagram.held_first == NONE {
            datagram.held_last = NONE;
        }
        self.held_free = slot;
        self.held_count -= 1;
        place.content.take()
    }

    fn drop_held(&mut self, index: u32, reason: DropReason) {
        while let Some((packet, _)) = self.take_held(index) {
            self.refuse(packet, reason);
        }
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

    /// Makes place: the oldest goes, one without its first piece if there is any.
    fn evict(&mut self) {
        let waiting = self.waiting.oldest;
        let oldest = if waiting == NONE { self.known.oldest } else { waiting };
        self.counters.evicted += 1;
        self.let_go(oldest, DropReason::FragmentFull);
    }

    fn let_go(&mut self, index: u32, reason: DropReason) {
        self.drop_held(index, reason);
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

    fn queue(&mut self, index: u32) -> &mut Queue {
        if self.datagrams[index as usize].learned.is_some() { &mut self.known } else { &mut self.waiting }
    }

    /// Puts a datagram at the new end of its queue.
    fn link(&mut self, index: u32) {
        let queue = self.queue(index);
        let newest = std::mem::replace(&mut queue.newest, index);
        if newest == NONE {
            queue.oldest = index;
        } else {
            self.datagrams[newest as usize].newer = index;
        }
        let datagram = &mut self.datagrams[index as usize];
        (datagram.older, datagram.newer) = (newest, NONE);
    }

    fn unlink(&mut self, index: u32) {
        let Datagram { older, newer, .. } = self.datagrams[index as usize];
        if let Some(datagram) = self.datagrams.get_mut(older as usize) {
            datagram.newer = newer;
        } else {
            self.queue(index).oldest = newer;
        }
        if let Some(datagram) = self.datagrams.get_mut(newer as usize) {
            datagram.older = older;
        } else {
            self.queue(index).newest = older;
        }
    }
}

impl Datagram {
    fn unused(chain: u32) -> Self {
        Self {
            key: FragmentKey::default(),
            coverage: Coverage::default(),
            learned: None,
            invalid: false,
            expires: Ticks(0),
            held_first: NONE,
            held_last: NONE,
            held_count: 0,
            chain,
            older: NONE,
            newer: NONE,
        }
    }
}
