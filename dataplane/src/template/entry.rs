//! A template's own line, and the list of free ones.

use super::sync::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence, spin_loop,
};
use super::{TemplateKey, TemplateView, low_half};
use crate::id::{DestinationSlot, Ticks};

/// What a template that controls connections is given when it expires, in milliseconds.
const REARM: u32 = 60_000;
/// Tries to take an entry off the free list.
const TRIES: usize = 128;

/// In use. Bits of a state's flags.
const LIVE: u64 = 1 << 32;
/// A connection was established.
pub(super) const ASSURED: u64 = 1 << 33;
/// Not to be found any more.
pub(super) const INVALID: u64 = 1 << 34;
/// Not in the index any more; freed by the sweep alone.
const UNLINKED: u64 = 1 << 35;
/// Over before its time, as soon as it controls nothing.
const DROPPED: u64 = 1 << 36;
const GENERATION: u32 = 40;

/// A template's state in one word, so that counting a connection and freeing the entry exclude each other: controlled
/// connections (bits 0-31), flags (32-39), generation (40-63, never 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn controlled(self) -> u32 {
        low_half(self.0)
    }

    fn generation(self) -> u32 {
        (self.0 >> GENERATION) as u32
    }

    pub(super) fn is_linked(self) -> bool {
        !self.is(UNLINKED)
    }
}

/// One line. `key` and `destination` are written while the entry is nobody's; `state` changes by compare-and-swap alone; `expires`
/// and `timeout` are written by whoever has counted itself in `state`, and by the one that moves an expiry on.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    key: [AtomicU64; 5],
    state: AtomicU64,
    destination: AtomicU32,
    timeout: AtomicU32,
    expires: AtomicU32,
    /// Next free entry, or the number of entries at the end.
    next: AtomicU32,
}

impl Entry {
    /// Entry `index` of `count`, on the free list.
    pub(super) fn free(index: u32, count: u32) -> Self {
        Self {
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            state: AtomicU64::new(0),
            destination: AtomicU32::new(0),
            timeout: AtomicU32::new(0),
            expires: AtomicU32::new(0),
            next: AtomicU32::new((index + 1).min(count)),
        }
    }

    fn state(&self) -> State {
        State(self.state.load(Acquire))
    }

    /// Generation of the template that is here, or was last.
    pub(super) fn generation(&self) -> u32 {
        self.state().generation()
    }

    fn expires(&self) -> Ticks {
        Ticks(self.expires.load(Relaxed))
    }

    fn swap(&self, from: State, to: u64) -> bool {
        self.state.compare_exchange_weak(from.0, to, AcqRel, Relaxed).is_ok()
    }

    /// Whether `state`, read before, is that of a template that is over: nothing is controlled and its time is up.
    fn over(&self, state: State, now: Ticks) -> bool {
        state.controlled() == 0 && (state.is(DROPPED) || now.reached(self.expires()))
    }

    pub(super) fn key(&self) -> TemplateKey {
        TemplateKey { words: std::array::from_fn(|word| self.key[word].load(Relaxed)) }
    }

    /// For the holder of the entry's bucket's lock: entries in a locked bucket keep their key.
    pub(super) fn is_named(&self, key: &TemplateKey) -> bool {
        self.key() == *key
    }

    /// Generation and destination, if this is the usable template of `key`.
    #[inline]
    pub(super) fn read(&self, key: &TemplateKey, now: Ticks) -> Option<(u32, DestinationSlot)> {
        let state = self.state();
        if !state.is(LIVE) || state.is(INVALID) || self.key() != *key || self.over(state, now) {
            return None;
        }
        let destination = DestinationSlot(self.destination.load(Relaxed));
        self.unchanged_since(state).then_some((state.generation(), destination))
    }

    /// Whether what was read after `state` belongs to the same template.
    fn unchanged_since(&self, state: State) -> bool {
        fence(Acquire);
        let after = State(self.state.load(Relaxed));
        after.is(LIVE) && after.generation() == state.generation()
    }

    /// Makes a template of an entry that was taken off the free list; returns its generation.
    pub(super) fn fill(
        &self,
        key: &TemplateKey,
        destination: DestinationSlot,
        timeout: u32,
        now: Ticks,
    ) -> u32 {
        // Whoever reads one of these stores sees the entry's release as well, and so knows that the fields are not the old
        // template's.
        fence(Release);
        for (cell, word) in self.key.iter().zip(key.words) {
            cell.store(word, Relaxed);
        }
        self.destination.store(destination.0, Relaxed);
        self.timeout.store(timeout, Relaxed);
        self.expires.store(now.after(timeout).0, Relaxed);
        let before = self.state().0 >> GENERATION;
        let generation = if before + 1 < 1 << (64 - GENERATION) { before + 1 } else { 1 };
        self.state.store(generation << GENERATION | LIVE, Release);
        low_half(generation)
    }

    /// For the holder of the bucket's lock: generation and destination when the template is usable, else it is taken out of
    /// use and its place in the bucket is to be cleared.
    pub(super) fn unlink_if_unusable(&self, now: Ticks) -> Option<(u32, DestinationSlot)> {
        loop {
            let state = self.state();
            if !state.is(INVALID) && !self.over(state, now) {
                return Some((state.generation(), DestinationSlot(self.destination.load(Relaxed))));
            }
            if self.swap(state, state.0 | INVALID | UNLINKED) {
                return None;
            }
        }
    }

    /// Changes the state of the template of `generation` while there is one.
    fn update(&self, generation: u32, change: impl Fn(State) -> Option<u64>) -> bool {
        loop {
            let state = self.state();
            if !state.is(LIVE) || state.generation() != generation {
                return false;
            }
            match change(state) {
                None => return false,
                Some(to) if self.swap(state, to) => return true,
                Some(_) => spin_loop(),
            }
        }
    }

    pub(super) fn destination(&self) -> Option<DestinationSlot> {
        let state = self.state();
        let destination = DestinationSlot(self.destination.load(Relaxed));
        (state.is(LIVE) && self.unchanged_since(state)).then_some(destination)
    }

    pub(super) fn drop_unused(&self, spare_assured: bool) -> bool {
        self.update(self.generation(), |state| {
            let kept = state.controlled() > 0 || (spare_assured && state.is(ASSURED));
            (!kept).then_some(state.0 | DROPPED)
        })
    }

    pub(super) fn set_flag(&self, generation: u32, flag: u64) -> bool {
        self.update(generation, |state| Some(state.0 | flag))
    }

    pub(super) fn attach(&self, generation: u32) -> bool {
        self.update(generation, |state| state.controlled().checked_add(1).map(|_| state.0 + 1))
    }

    pub(super) fn restart(&self, generation: u32, now: Ticks) -> bool {
        // Counted in, the entry cannot be freed and given to another key while its time is written.
        if !self.attach(generation) {
            return false;
        }
        self.rearm(now);
        self.expires.store(now.after(self.timeout.load(Relaxed)).0, Relaxed);
        self.update(generation, |state| state.controlled().checked_sub(1).map(|_| state.0 - 1))
    }

    pub(super) fn detach(&self, generation: u32, now: Ticks) -> bool {
        self.update(generation, |state| {
            // The last one fixes when the template would be looked at next, before it lets go.
            if state.controlled() == 1 {
                self.rearm(now);
            }
            state.controlled().checked_sub(1).map(|_| state.0 - 1)
        })
    }

    /// Moves an expiry in the past on by whole rearmings, to the first after `now`. As in the kernel, that is the template's
    /// timeout from then on.
    fn rearm(&self, now: Ticks) {
        loop {
            let expires = self.expires();
            if !now.reached(expires) {
                return;
            }
            self.timeout.store(REARM, Relaxed);
            let later = expires.after((now.since(expires) / REARM + 1).saturating_mul(REARM));
            if self.expires.compare_exchange(expires.0, later.0, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// The state of a template that has expired. One that is kept by its connections is rearmed, so that its expiry never lies
    /// so far back that it would look like the future.
    pub(super) fn expired_state(&self, now: Ticks) -> Option<State> {
        let state = self.state();
        if !state.is(LIVE) {
            return None;
        }
        if state.controlled() > 0 {
            self.rearm(now);
            return None;
        }
        self.over(state, now).then_some(state)
    }

    /// Frees the entry if its state is still `state`.
    pub(super) fn release(&self, state: State) -> Option<DestinationSlot> {
        let destination = DestinationSlot(self.destination.load(Relaxed));
        let generation = u64::from(state.generation()) << GENERATION;
        self.state.compare_exchange(state.0, generation, AcqRel, Relaxed).ok()?;
        Some(destination)
    }

    pub(super) fn view(&self, now: Ticks) -> Option<TemplateView> {
        let state = self.state();
        if !state.is(LIVE) || self.over(state, now) {
            return None;
        }
        let mut remaining = self.expires().since(now);
        if remaining == 0 {
            remaining = REARM - now.since(self.expires()) % REARM;
        }
        let view = TemplateView {
            key: self.key(),
            destination: DestinationSlot(self.destination.load(Relaxed)),
            timeout: if self.expires().reached(now) { self.timeout.load(Relaxed) } else { REARM },
            remaining,
            controlled: state.controlled(),
            assured: state.is(ASSURED),
            invalid: state.is(INVALID),
        };
        self.unchanged_since(state).then_some(view)
    }
}

/// What the free list had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Free {
    /// This entry.
    Taken(u32),
    /// Nothing.
    Empty,
    /// Too many others at once.
    Contended,
}

/// A stack of free entries: the number of the first one (low half) and a count of changes (high half), so that a head that went
/// and came back is not taken for one that stayed.
#[derive(Debug)]
pub(super) struct FreeList {
    head: AtomicU64,
}

impl FreeList {
    /// All entries, in order, as [`Entry::free`] linked them.
    pub(super) fn all() -> Self {
        Self { head: AtomicU64::new(0) }
    }

    pub(super) fn take(&self, entries: &[Entry]) -> Free {
        let mut head = self.head.load(Acquire);
        for _ in 0..TRIES {
            let first = low_half(head);
            let Some(entry) = entries.get(first as usize) else { return Free::Empty };
            let to = Self::head(head, entry.next.load(Relaxed));
            match self.head.compare_exchange_weak(head, to, AcqRel, Acquire) {
                Ok(_) => return Free::Taken(first),
                Err(other) => head = other,
            }
            spin_loop();
        }
        Free::Contended
    }

    pub(super) fn give(&self, entries: &[Entry], index: u32) {
        let mut head = self.head.load(Acquire);
        loop {
            entries[index as usize].next.store(low_half(head), Relaxed);
            match self.head.compare_exchange_weak(head, Self::head(head, index), AcqRel, Acquire) {
                Ok(_) => return,
                Err(other) => head = other,
            }
            spin_loop();
        }
    }

    fn head(before: u64, first: u32) -> u64 {
        ((before >> 32) + 1) << 32 | u64::from(first)
    }
}
