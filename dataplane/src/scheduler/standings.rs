//! Which destination of a long list a counting scheduler prefers, known without a walk.
//!
//! A *race* is a tournament over a service's list: candidate i has the candidates 2i + 1 and 2i + 2 below it, and knows the best of
//! itself and all below. A changed count is carried up until nothing changes any more, at most once for each doubling of the list.
//! The counts this worker changes are told to it ([`Loads::next_change`]), so that with one worker every choice is what a walk of the
//! list would find. What other workers change is noticed when it makes the best one worse, because that one is looked at again, and
//! else by a sweep, a few candidates a choice.
//!
//! All races of a worker share memory for as many candidates as there can be destinations, allocated at start. When a list has
//! changed its race is run anew, by the first choice after that.

use super::{Loads, open_at, walk};
use crate::id::{DestinationSlot, ServiceSlot, WorkerId};
use crate::snapshot::{SchedulerKind, ServiceView};

/// Lists shorter than this are walked, which is quicker. Tests want both ways for lists that a reader can follow.
const LONG: usize = if cfg!(test) { 4 } else { 48 };
/// Candidates looked at again at every choice.
const SWEPT: u32 = 4;
/// No race, no candidate.
const NONE: u32 = u32::MAX;

/// How much a scheduler minds a destination: `measure` / `weight`, the less the better. Weight 0: it may not be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Burden {
    pub(super) measure: u64,
    pub(super) weight: u32,
}

impl Burden {
    /// Among destinations that may be chosen. Quotients are compared by multiplying across; the products take more than 64 bits.
    #[inline(always)]
    pub(super) fn is_less(self, other: Self) -> bool {
        u128::from(self.measure) * u128::from(other.weight)
            < u128::from(other.measure) * u128::from(self.weight)
    }

    /// The same among all: what may not be chosen comes last.
    #[inline(always)]
    fn is_before(self, other: Self) -> bool {
        self.weight != 0 && (other.weight == 0 || self.is_less(other))
    }
}

/// What `kind` measures of a usable destination, `None` when it would not take one like this.
#[inline(always)]
pub(super) fn burden(
    kind: SchedulerKind,
    slot: DestinationSlot,
    weight: u32,
    loads: &impl Loads,
) -> Option<Burden> {
    let (measure, weight) = match kind {
        SchedulerKind::Lc => (super::load(slot, loads), 1),
        SchedulerKind::Sed => (u64::from(loads.active(slot)) + 1, weight),
        // An idle destination is preferred whatever it weighs.
        SchedulerKind::Nq => match loads.active(slot) {
            0 => (0, weight),
            active => (u64::from(active) + 1, weight),
        },
        // The heaviest one: the smallest 1 / weight.
        SchedulerKind::Fo => (1, weight),
        SchedulerKind::Ovf if loads.active(slot) > weight => return None,
        SchedulerKind::Ovf => (1, weight),
        _ => (super::load(slot, loads), weight),
    };
    Some(Burden { measure, weight })
}

/// A candidate in its race.
#[derive(Debug, Clone, Copy)]
struct Runner {
    own: Burden,
    best: Burden,
    /// Whose `best` is.
    leader: u32,
    slot: DestinationSlot,
    /// 0 when it has left the list.
    weight: u32,
    upper_threshold: u32,
    /// Active connections, for lblc and lblcr; and the least busy of itself and all below.
    active: u32,
    idlest: [u32; 2],
}

/// A service's race.
#[derive(Debug, Clone, Copy)]
struct Race {
    generation: u32,
    list_version: u32,
    kind: SchedulerKind,
    /// Its part of the memory; nobody runs when `length` is 0.
    first: u32,
    length: u32,
    room: u32,
    swept: u32,
}

/// In which race a destination runs, and where.
#[derive(Debug, Clone, Copy)]
struct Place {
    service: u32,
    index: u32,
}

/// One worker's races.
#[derive(Debug)]
pub struct Standings {
    worker: WorkerId,
    races: Box<[Race]>,
    runners: Box<[Runner]>,
    /// Runners from here on belong to no race.
    used: u32,
    /// By destination slot.
    places: Box<[Place]>,
}

impl Standings {
    /// Races of a worker, of up to `services` services and `destinations` destinations.
    #[must_use]
    pub fn new(worker: WorkerId, services: usize, destinations: usize) -> Self {
        let race = Race {
            generation: 0,
            list_version: 0,
            kind: SchedulerKind::Wlc,
            first: 0,
            length: 0,
            room: 0,
            swept: 0,
        };
        let runner = Runner {
            own: Burden::default(),
            best: Burden::default(),
            leader: NONE,
            slot: DestinationSlot::NONE,
            weight: 0,
            upper_threshold: 0,
            active: 0,
            idlest: [0; 2],
        };
        Self {
            worker,
            races: vec![race; services].into_boxed_slice(),
            runners: vec![runner; destinations].into_boxed_slice(),
            used: 0,
            places: vec![Place { service: NONE, index: NONE }; destinations].into_boxed_slice(),
        }
    }

    /// Bytes that the races of so many services and destinations take.
    #[must_use]
    pub const fn bytes(services: usize, destinations: usize) -> usize {
        services * size_of::<Race>() + destinations * (size_of::<Runner>() + size_of::<Place>())
    }

    /// The usable destination that `service`'s scheduler prefers, the first of equals in list order.
    #[inline(always)]
    pub(super) fn least(
        &mut self,
        kind: SchedulerKind,
        service: &ServiceView,
        loads: &impl Loads,
    ) -> Option<usize> {
        if service.candidates.len() >= LONG && self.catch_up(service, loads) {
            return self.leader(service.slot, loads);
        }
        walk(service, loads, |candidate| burden(kind, candidate.slot, candidate.weight, loads))
    }

    /// Whether a destination of the list, usable or not, has fewer active connections than half its weight.
    pub(super) fn has_idle(&mut self, service: &ServiceView, loads: &impl Loads) -> bool {
        if service.candidates.len() >= LONG && self.catch_up(service, loads) {
            let race = self.races[service.slot.index()];
            let [active, weight] = self.runners[race.first as usize].idlest;
            return is_idle(active, weight);
        }
        let is_idle = |active, weight| is_idle(active, weight);
        service.candidates.iter().any(|one| !one.removed && is_idle(loads.active(one.slot), one.weight))
    }

    /// Brings the service's race up to date; whether there is one.
    #[inline(never)]
    fn catch_up(&mut self, service: &ServiceView, loads: &impl Loads) -> bool {
        let Some(race) = self.races.get(service.slot.index()) else { return false };
        if race.generation != service.generation || race.list_version != service.list_version {
            self.start(service, loads);
        }
        while let Some(slot) = loads.next_change(self.worker) {
            let Some(place) = self.places.get(slot.index()).copied() else { continue };
            if let Some(race) = self.races.get(place.service as usize).copied()
                && place.index < race.length
                && self.runners[(race.first + place.index) as usize].slot == slot
            {
                self.look_at(race, place.index, loads);
            }
        }
        let race = &mut self.races[service.slot.index()];
        if race.length == 0 {
            return false;
        }
        let swept = race.swept;
        race.swept = (swept + SWEPT) % race.length;
        let race = *race;
        (0..SWEPT).for_each(|step| self.look_at(race, (swept + step) % race.length, loads));
        true
    }

    /// The best of a race. What other workers did since it was looked at may have made it worse.
    fn leader(&mut self, service: ServiceSlot, loads: &impl Loads) -> Option<usize> {
        let race = self.races[service.index()];
        for _ in 0..race.length {
            let Runner { best, leader, .. } = self.runners[race.first as usize];
            if best.weight == 0 {
                return None;
            }
            self.look_at(race, leader, loads);
            let now = &self.runners[race.first as usize];
            if (now.best, now.leader) == (best, leader) {
                return Some(leader as usize);
            }
        }
        None
    }

    /// Runs a race from the start: the list has changed, or memory was taken away.
    #[cold]
    fn start(&mut self, service: &ServiceView, loads: &impl Loads) {
        let number = service.slot.index();
        let length = u32::try_from(service.candidates.len()).unwrap_or(NONE);
        let room = self.make_room(number, length);
        let race = &mut self.races[number];
        race.generation = service.generation;
        race.list_version = service.list_version;
        race.kind = service.scheduler;
        race.swept = 0;
        race.length = if room { length } else { 0 };
        let race = *race;
        for (index, candidate) in (0..race.length).zip(&service.candidates) {
            let weight = if candidate.removed { 0 } else { candidate.weight };
            let slot = candidate.slot;
            let runner = &mut self.runners[(race.first + index) as usize];
            *runner = Runner {
                own: Burden::default(),
                best: Burden::default(),
                leader: NONE,
                slot,
                weight,
                upper_threshold: candidate.upper_threshold,
                active: 0,
                idlest: [0; 2],
            };
            // Who has left the list may have lost its slot to another destination.
            if candidate.removed {
                continue;
            }
            let Some(place) = self.places.get_mut(slot.index()) else { continue };
            *place = Place { service: service.slot.0, index };
            if !loads.watch(self.worker, slot) {
                self.races[number].length = 0;
                return;
            }
            runner.measure(race.kind, loads);
        }
        (0..race.length).rev().for_each(|index| {
            self.judge(race, index);
        });
    }

    /// Gives a race memory for `length` runners; whether there is enough.
    fn make_room(&mut self, number: usize, length: u32) -> bool {
        if self.races[number].room >= length {
            return true;
        }
        let all = u32::try_from(self.runners.len()).unwrap_or(NONE);
        let generous = length.saturating_add(length / 4);
        for room in [generous, length] {
            if room <= all - self.used {
                self.races[number].first = self.used;
                self.races[number].room = room;
                self.used += room;
                return true;
            }
            // Every race begins anew, in as little memory as it takes.
            self.races.iter_mut().for_each(|race| (race.generation, race.length, race.room) = (0, 0, 0));
            self.used = 0;
        }
        false
    }

    /// Reads a runner's counts, and carries the change up.
    #[inline]
    fn look_at(&mut self, race: Race, index: u32, loads: &impl Loads) {
        let runner = &mut self.runners[(race.first + index) as usize];
        let before = (runner.own, runner.active);
        runner.measure(race.kind, loads);
        if (runner.own, runner.active) == before {
            return;
        }
        let mut index = index;
        while self.judge(race, index) && index > 0 {
            index = (index - 1) / 2;
        }
    }

    /// Finds the best of a runner and those below; whether that is news.
    #[inline]
    fn judge(&mut self, race: Race, index: u32) -> bool {
        let runners = &self.runners[race.first as usize..(race.first + race.length) as usize];
        let runner = &runners[index as usize];
        let (mut best, mut leader, mut idlest) = (runner.own, index, [runner.active, runner.weight]);
        for child in [2 * index + 1, 2 * index + 2] {
            let Some(child) = runners.get(child as usize) else { break };
            let equal = || !best.is_before(child.best);
            if child.best.is_before(best) || child.leader < leader && equal() {
                (best, leader) = (child.best, child.leader);
            }
            if busy(child.idlest).is_before(busy(idlest)) {
                idlest = child.idlest;
            }
        }
        let news = (best, leader, idlest) != (runner.best, runner.leader, runner.idlest);
        let runner = &mut self.runners[(race.first + index) as usize];
        (runner.best, runner.leader, runner.idlest) = (best, leader, idlest);
        news
    }
}

impl Runner {
    #[inline]
    fn measure(&mut self, kind: SchedulerKind, loads: &impl Loads) {
        if self.weight == 0 {
            return;
        }
        let usable = open_at(self.slot, self.upper_threshold, loads);
        let burden = usable.then(|| burden(kind, self.slot, self.weight, loads)).flatten();
        self.own = burden.unwrap_or_default();
        if matches!(kind, SchedulerKind::Lblc | SchedulerKind::Lblcr) {
            self.active = loads.active(self.slot);
        }
    }
}

const fn busy([active, weight]: [u32; 2]) -> Burden {
    Burden { measure: active as u64, weight }
}

fn is_idle(active: u32, weight: u32) -> bool {
    u64::from(active) * 2 < u64::from(weight)
}

#[cfg(test)]
mod tests;
