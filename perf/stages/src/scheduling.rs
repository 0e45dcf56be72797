//! A service with any number of destinations, and the choices of its scheduler with the life of every connection around them.

use dataplane::counters::Activity;
use dataplane::engine::{Shared, SharedLimits};
use dataplane::flow::protocol;
use dataplane::id::{DestinationSlot, ServiceSlot, Ticks, WorkerId};
use dataplane::scheduler::{self, Cursor, Localities, Own, Random, Request, Standings};
use dataplane::snapshot::editor::{DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{Maglev, SchedulerKind, ServiceKey, Snapshot};
use std::collections::VecDeque;
use std::error::Error;
use std::net::IpAddr;

const WORKER: WorkerId = WorkerId(0);
const SERVICE: ServiceSlot = ServiceSlot(0);
/// Addresses that lblc and lblcr remember.
const LOCALITIES: u32 = 65_536;
/// Connections for each destination, about.
const POPULATION: u32 = 4;

/// One service, its connections, and the worker that chooses.
#[derive(Debug)]
pub struct Service {
    shared: Shared,
    snapshot: Snapshot,
    cursor: Cursor,
    random: Random,
    localities: Localities,
    standings: Standings,
    /// The newest last.
    connections: VecDeque<DestinationSlot>,
    most: usize,
    clients: Random,
}

impl Service {
    /// With so many destinations of weights 1 to 10, and connections to them.
    ///
    /// # Errors
    /// More destinations than a service takes.
    pub fn new(scheduler: SchedulerKind, destinations: u32) -> Result<Self, Box<dyn Error>> {
        let limits =
            SharedLimits { workers: 1, services: 1, destinations: destinations as usize, templates: 64 };
        let shared = Shared::new(limits, 1);
        let most = destinations as usize * POPULATION as usize;
        let mut service = Self {
            shared,
            snapshot: snapshot(scheduler, destinations)?,
            cursor: Cursor::start(WORKER),
            random: Random::seeded(1),
            localities: Localities::new(LOCALITIES, 1, 1),
            standings: Standings::new(WORKER, 1, destinations as usize),
            connections: VecDeque::with_capacity(most + 1),
            most,
            clients: Random::seeded(2),
        };
        for slot in 0..destinations {
            service.shared.destinations.fold(WORKER, DestinationSlot(slot));
        }
        for _ in 0..most {
            service.live();
        }
        Ok(service)
    }

    /// A connection opens and becomes active, where the scheduler chooses anybody; when there are enough, or nobody was chosen, the
    /// oldest one becomes inactive and closes.
    #[inline]
    pub fn live(&mut self) -> Option<DestinationSlot> {
        let chosen = self.choose();
        let table = &self.shared.destinations;
        if let Some(slot) = chosen.filter(|slot| table.reserve(*slot, 0, 0)) {
            table.opened(WORKER, slot, Activity::Inactive, true);
            table.changed(WORKER, slot, Activity::Active);
            self.connections.push_back(slot);
        }
        if (self.connections.len() > self.most || chosen.is_none())
            && let Some(oldest) = self.connections.pop_front()
        {
            table.changed(WORKER, oldest, Activity::Inactive);
            table.closed(WORKER, oldest, Activity::Inactive, 0, 0);
        }
        chosen
    }

    /// The scheduler's choice alone.
    #[inline]
    pub fn choose(&mut self) -> Option<DestinationSlot> {
        let service = self.snapshot.service(SERVICE)?;
        let number = self.clients.bits();
        let [a, b, c, d, e, f, ..] = number.to_be_bytes();
        let request = Request {
            client: IpAddr::from([198, 18, a, b]),
            client_port: u16::from_be_bytes([c, d]),
            destination: IpAddr::from([203, 0, e, f]),
            now: Ticks(1000),
        };
        let mut own = Own {
            cursor: &mut self.cursor,
            random: &mut self.random,
            localities: &mut self.localities,
            standings: &mut self.standings,
        };
        let chosen = scheduler::choose(service, &request, &mut own, &self.shared.destinations)?;
        service.candidates.get(chosen).map(|candidate| candidate.slot)
    }
}

fn snapshot(scheduler: SchedulerKind, destinations: u32) -> Result<Snapshot, Box<dyn Error>> {
    let mut editor = Editor::new(Limits { services: 1, destinations }, [].into());
    let key = key();
    let maglev = Maglev { size: Maglev::GREATEST, canonical: false };
    editor.add_service(ServiceSpec { maglev, ..ServiceSpec::new(key, scheduler) })?;
    for number in 0..destinations {
        editor.add_destination(&key, spec(number))?;
    }
    Ok(editor.publish())
}

fn key() -> ServiceKey {
    ServiceKey::Address { protocol: protocol::TCP, address: IpAddr::from([198, 19, 0, 1]), port: 80 }
}

fn spec(number: u32) -> DestinationSpec {
    let [_, b, c, d] = number.to_be_bytes();
    DestinationSpec::new(IpAddr::from([10, b, c, d]), 80, 1 + number % 10)
}

/// A service under mh whose table is filled again at every call.
#[derive(Debug)]
pub struct Refill {
    editor: Editor,
    weight: u32,
}

impl Refill {
    /// With so many destinations and a table of the greatest size.
    ///
    /// # Errors
    /// More destinations than a service takes.
    pub fn new(destinations: u32) -> Result<Self, Box<dyn Error>> {
        let mut editor = Editor::new(Limits { services: 1, destinations }, [].into());
        let maglev = Maglev { size: Maglev::GREATEST, canonical: false };
        editor.add_service(ServiceSpec { maglev, ..ServiceSpec::new(key(), SchedulerKind::Mh) })?;
        for number in 0..destinations {
            editor.add_destination(&key(), spec(number))?;
        }
        editor.publish();
        Ok(Self { editor, weight: 1 })
    }

    /// One destination's weight changes, and a snapshot is published.
    pub fn edit(&mut self) -> Option<Snapshot> {
        self.weight = if self.weight == 1 { 11 } else { 1 };
        let changed = DestinationSpec { weight: self.weight, ..spec(0) };
        self.editor.edit_destination(&key(), changed).ok()?;
        Some(self.editor.publish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheduler_chooses_among_few_and_many() {
        for scheduler in SchedulerKind::ALL {
            for destinations in [2, 100] {
                let mut service = Service::new(scheduler, destinations).unwrap();
                let chosen = (0..1000).filter(|_| service.live().is_some()).count();
                assert!(chosen >= 500, "{scheduler:?} {destinations}: {chosen}");
            }
        }
    }
}
