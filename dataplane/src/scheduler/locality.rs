//! What lblc and lblcr remember: which destination, or set of destinations, the packets to an address were sent to last. One cache
//! for each worker and all its services, sized at start, written by that worker alone.
//!
//! Entries go as in the kernel: every service has a timer of 60 s, of which every 30th run drops the entries that nobody asked for in
//! the expiration time of the settings, and every other one, when the service has more than 16,384 entries, some of those that were
//! idle for 6 minutes. An entry that such a run has dropped is never found again from that moment on; its memory comes back when
//! the sweep, a few entries a millisecond, gets there. When the cache is full a choice is used but not remembered, and counted.
//!
//! An entry holds its destinations: one that was removed keeps its slot while an entry names it, and is found again when it comes
//! back.

use super::{Loads, Random};
use crate::id::{DestinationSlot, ServiceSlot, Ticks};
use crate::snapshot::{SchedulerKind, ServiceView, Settings, Snapshot};
use std::net::IpAddr;

/// Time between two runs of a service's timer, in milliseconds.
const INTERVAL: u32 = 60_000;
/// Every one of so many runs is a full check.
const FULL_CHECK: u8 = 30;
/// Entries of a service beyond which idle ones go early.
const CROWDED: u32 = 16_384;
/// What is idle then, in milliseconds.
const IDLE: u32 = 360_000;
/// Longest time that [`Ticks`] can tell, in milliseconds.
const LONGEST: u32 = i32::MAX as u32;
/// No entry, no member.
const NONE: u32 = u32::MAX;

/// A remembered address; free ones are chained by `next`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u128,
    service: ServiceSlot,
    /// 0: free.
    generation: u32,
    /// When somebody asked for it last.
    used: Ticks,
    /// When its set of destinations changed last.
    changed: Ticks,
    /// The newest member.
    members: u32,
    /// The next entry of the bucket.
    next: u32,
}

/// A destination of an entry; free ones are chained by `next`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) slot: DestinationSlot,
    /// Its weight when it was looked for last: a removed destination keeps the one it had.
    pub(super) weight: u32,
    /// Its place in the service's list then.
    place: u32,
    next: u32,
}

impl Member {
    /// Its place in the service's list after [`Localities::refresh`], `None` when it was removed.
    pub(super) fn place(&self) -> Option<usize> {
        (self.place != NONE).then_some(self.place as usize)
    }
}

/// What is known of one service.
#[derive(Debug, Clone, Copy, Default)]
struct Timer {
    /// The service's generation; 0: none that uses the cache.
    generation: u32,
    lblcr: bool,
    next: Ticks,
    runs: u8,
    /// The last full check.
    full: Option<Ticks>,
    entries: u32,
    /// Idle entries that the sweep is to drop.
    excess: u32,
}

/// An entry that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryId(u32);

/// One worker's cache.
#[derive(Debug)]
pub struct Localities {
    words: [u64; 3],
    /// Milliseconds, of lblc and lblcr.
    expirations: [u32; 2],
    buckets: Box<[u32]>,
    entries: Box<[Entry]>,
    free_entry: u32,
    /// Entries from here on were never used.
    fresh_entry: u32,
    members: Box<[Member]>,
    free_member: u32,
    fresh_member: u32,
    timers: Box<[Timer]>,
    /// When the first timer is due.
    due: Option<Ticks>,
    swept: u32,
    used: u32,
    refused: u64,
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    low ^ high
}

impl Localities {
    /// Room for `capacity` addresses (and twice as many destinations of them) of `services` services. `seed` is the secret of the
    /// hash: addresses are chosen by clients.
    #[must_use]
    pub fn new(capacity: u32, services: usize, seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let entry = Entry {
            address: 0,
            service: ServiceSlot(0),
            generation: 0,
            used: Ticks(0),
            changed: Ticks(0),
            members: NONE,
            next: NONE,
        };
        let member = Member { slot: DestinationSlot(0), weight: 0, place: NONE, next: NONE };
        let capacity = capacity as usize;
        Self {
            words: [(); 3].map(|()| random.bits() | 1),
            expirations: [LONGEST; 2],
            buckets: vec![NONE; capacity.next_power_of_two()].into_boxed_slice(),
            entries: vec![entry; capacity].into_boxed_slice(),
            free_entry: NONE,
            fresh_entry: 0,
            members: vec![member; capacity * 2].into_boxed_slice(),
            free_member: NONE,
            fresh_member: 0,
            timers: vec![Timer::default(); services].into_boxed_slice(),
            due: None,
            swept: 0,
            used: 0,
            refused: 0,
        }
    }

    /// Bytes that a cache of this capacity takes.
    #[must_use]
    pub const fn bytes(capacity: u32, services: usize) -> usize {
        let capacity = capacity as usize;
        capacity.next_power_of_two() * size_of::<u32>()
            + capacity * (size_of::<Entry>() + 2 * size_of::<Member>())
            + services * size_of::<Timer>()
    }

    /// Addresses remembered now.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used as usize
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Choices that were not remembered for lack of room, ever.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes over the expiration times.
    pub fn configure(&mut self, settings: &Settings) {
        self.expirations = [settings.lblc_expiration, settings.lblcr_expiration]
            .map(|seconds| seconds.saturating_mul(1000).min(LONGEST));
    }

    /// A service has a generation, maybe a new one: starts its timer if its scheduler needs it.
    pub fn begin(&mut self, service: &ServiceView, now: Ticks) {
        let lblcr = service.scheduler == SchedulerKind::Lblcr;
        let Some(timer) = self.timers.get_mut(service.slot.index()) else { return };
        if !(lblcr || service.scheduler == SchedulerKind::Lblc) || timer.generation == service.generation {
            return;
        }
        let next = now.after(INTERVAL);
        *timer = Timer { generation: service.generation, lblcr, next, runs: 1, ..Timer::default() };
        self.due = Some(self.due.filter(|due| next.reached(*due)).unwrap_or(next));
    }

    /// A millisecond's work: timers that are due, and a look at `budget` entries.
    pub fn tidy(&mut self, snapshot: &Snapshot, now: Ticks, budget: u32, loads: &impl Loads) {
        if self.due.is_some_and(|due| now.reached(due)) {
            self.run_timers(snapshot, now);
        }
        if self.used == 0 {
            return;
        }
        for _ in 0..budget.min(self.fresh_entry) {
            self.swept = (self.swept + 1) % self.fresh_entry;
            let entry = self.entries[self.swept as usize];
            let current = || {
                let service = snapshot.service(entry.service);
                service.is_some_and(|service| service.generation == entry.generation)
            };
            if entry.generation == 0 {
                continue;
            }
            let timer = &mut self.timers[entry.service.index()];
            let excess = timer.excess > 0 && now.since(entry.used) >= IDLE;
            timer.excess -= u32::from(excess);
            if excess || self.is_gone(&entry) || !current() {
                self.forget(EntryId(self.swept), loads);
            }
        }
    }

    fn run_timers(&mut self, snapshot: &Snapshot, now: Ticks) {
        let crowded = CROWDED.min(u32::try_from(self.entries.len() / 2).unwrap_or(CROWDED));
        self.due = None;
        for (slot, timer) in (0..).map(ServiceSlot).zip(&mut self.timers) {
            if timer.generation == 0 {
                continue;
            }
            if snapshot.service(slot).is_none_or(|service| service.generation != timer.generation) {
                *timer = Timer::default();
                continue;
            }
            while now.reached(timer.next) {
                if timer.runs == FULL_CHECK {
                    timer.full = Some(timer.next);
                    timer.runs = 0;
                } else if timer.entries > crowded {
                    let excess = (timer.entries - crowded).saturating_mul(4) / 3;
                    timer.excess = excess.min(crowded / 2);
                }
                timer.runs += 1;
                timer.next = timer.next.after(INTERVAL);
            }
            self.due = Some(self.due.filter(|due| timer.next.reached(*due)).unwrap_or(timer.next));
        }
    }

    /// Whether a full check has dropped the entry, or its service is another one.
    fn is_gone(&self, entry: &Entry) -> bool {
        let timer = &self.timers[entry.service.index()];
        let expiration = self.expirations[usize::from(timer.lblcr)];
        timer.generation != entry.generation
            || timer.full.is_some_and(|full| full.reached(entry.used) && full.since(entry.used) >= expiration)
    }

    #[inline]
    fn bucket(&self, service: ServiceSlot, address: u128) -> usize {
        let [k0, k1, k2] = self.words;
        let (high, low) = ((address >> 64) as u64, (address & 0xFFFF_FFFF_FFFF_FFFF) as u64);
        let hash = fold(fold(high ^ k0, low ^ k1) ^ u64::from(service.0), k2);
        usize::try_from(hash >> 32).unwrap_or(0) & (self.buckets.len() - 1)
    }

    /// What is remembered of `address`; asking keeps it young.
    pub(super) fn find(
        &mut self,
        service: &ServiceView,
        address: IpAddr,
        now: Ticks,
        loads: &impl Loads,
    ) -> Option<EntryId> {
        self.begin(service, now);
        if service.slot.index() >= self.timers.len() {
            return None;
        }
        let address = bits(address);
        let mut place = self.buckets[self.bucket(service.slot, address)];
        while let Some(entry) = self.entries.get_mut(place as usize) {
            if entry.address == address
                && entry.service == service.slot
                && entry.generation == service.generation
            {
                let found = *entry;
                if self.is_gone(&found) {
                    self.forget(EntryId(place), loads);
                    return None;
                }
                self.entries[place as usize].used = now;
                return Some(EntryId(place));
            }
            place = entry.next;
        }
        None
    }

    /// Remembers `candidate` (an index in the service's list) for `address`, which [`Localities::find`] has not found.
    pub(super) fn insert(
        &mut self,
        service: &ServiceView,
        address: IpAddr,
        candidate: usize,
        now: Ticks,
        loads: &impl Loads,
    ) {
        if service.slot.index() >= self.timers.len() {
            return;
        }
        let address = bits(address);
        let bucket = self.bucket(service.slot, address);
        let place = if self.free_entry != NONE { self.free_entry } else { self.fresh_entry };
        let Some(entry) = self.entries.get_mut(place as usize) else {
            self.refused += 1;
            return;
        };
        if place == self.fresh_entry {
            self.fresh_entry += 1;
        } else {
            self.free_entry = entry.next;
        }
        *entry = Entry {
            address,
            service: service.slot,
            generation: service.generation,
            used: now,
            changed: now,
            members: NONE,
            next: std::mem::replace(&mut self.buckets[bucket], place),
        };
        self.used += 1;
        self.timers[service.slot.index()].entries += 1;
        if !self.add(EntryId(place), service, candidate, now, loads) {
            self.forget(EntryId(place), loads);
        }
    }

    /// Puts `candidate` at the head of the entry's set, if it is not in it; whether there was room.
    pub(super) fn add(
        &mut self,
        entry: EntryId,
        service: &ServiceView,
        candidate: usize,
        now: Ticks,
        loads: &impl Loads,
    ) -> bool {
        let (Some(chosen), Ok(index)) = (service.candidates.get(candidate), u32::try_from(candidate)) else {
            return false;
        };
        let slot = chosen.slot;
        if self.members(entry).any(|(_, member)| member.slot == slot) {
            return true;
        }
        let place = if self.free_member != NONE { self.free_member } else { self.fresh_member };
        let Some(member) = self.members.get_mut(place as usize) else {
            self.refused += 1;
            return false;
        };
        if place == self.fresh_member {
            self.fresh_member += 1;
        } else {
            self.free_member = member.next;
        }
        let entry = &mut self.entries[entry.0 as usize];
        *member = Member {
            slot,
            weight: chosen.weight,
            place: index,
            next: std::mem::replace(&mut entry.members, place),
        };
        entry.changed = now;
        loads.hold(slot);
        true
    }

    /// The members of an entry with their numbers, the newest first.
    pub(super) fn members(&self, entry: EntryId) -> impl Iterator<Item = (u32, Member)> {
        let mut next = self.entries[entry.0 as usize].members;
        std::iter::from_fn(move || {
            let place = next;
            let member = *self.members.get(place as usize)?;
            next = member.next;
            Some((place, member))
        })
    }

    /// Looks where the members of an entry are in the service's list now.
    pub(super) fn refresh(&mut self, entry: EntryId, service: &ServiceView) {
        let mut number = self.entries[entry.0 as usize].members;
        while let Some(member) = self.members.get_mut(number as usize) {
            let is_it = |place: &u32| {
                let candidate = service.candidates.get(*place as usize);
                candidate.is_some_and(|one| one.slot == member.slot && !one.removed)
            };
            if !is_it(&member.place) {
                let places = 0..u32::try_from(service.candidates.len()).unwrap_or(NONE);
                member.place = places.into_iter().find(is_it).unwrap_or(NONE);
            }
            if let Some(candidate) = service.candidates.get(member.place as usize) {
                member.weight = candidate.weight;
            }
            number = member.next;
        }
    }

    /// Whether the entry has more than one member and `lblcr_expiration` has passed since its set changed.
    pub(super) fn is_stale(&self, entry: EntryId, now: Ticks) -> bool {
        let changed = self.entries[entry.0 as usize].changed;
        now.since(changed) > self.expirations[1] && self.members(entry).nth(1).is_some()
    }

    /// Takes a destination out of an entry's set.
    pub(super) fn remove(&mut self, entry: EntryId, number: u32, now: Ticks, loads: &impl Loads) {
        let Member { slot, next, .. } = self.members[number as usize];
        let before = self.members(entry).find(|(_, member)| member.next == number);
        match before {
            Some((before, _)) => self.members[before as usize].next = next,
            None => self.entries[entry.0 as usize].members = next,
        }
        self.entries[entry.0 as usize].changed = now;
        self.members[number as usize].next = std::mem::replace(&mut self.free_member, number);
        loads.release(slot);
    }

    /// Forgets an address.
    pub(super) fn forget(&mut self, entry: EntryId, loads: &impl Loads) {
        let EntryId(place) = entry;
        loop {
            let number = self.entries[place as usize].members;
            let Some(member) = self.members.get_mut(number as usize) else { break };
            self.entries[place as usize].members = std::mem::replace(&mut member.next, self.free_member);
            self.free_member = number;
            loads.release(self.members[number as usize].slot);
        }
        let Entry { address, service, generation, next, .. } = self.entries[place as usize];
        let bucket = self.bucket(service, address);
        if self.buckets[bucket] == place {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket];
            while let Some(entry) = self.entries.get_mut(before as usize) {
                if entry.next == place {
                    entry.next = next;
                    break;
                }
                before = entry.next;
            }
        }
        let timer = &mut self.timers[service.index()];
        if timer.generation == generation {
            timer.entries -= 1;
        }
        let freed = &mut self.entries[place as usize];
        freed.generation = 0;
        freed.next = std::mem::replace(&mut self.free_entry, place);
        self.used -= 1;
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests;
