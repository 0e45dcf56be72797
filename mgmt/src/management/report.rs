//! What listings say.

use super::compile::key_of;
use super::connections;
use super::counters::{DestinationFigures, Present};
use super::network::describe;
use super::{Management, View};
use crate::desired::{self, MaglevOrder, Scheduler, Service, ServiceKey};
use crate::protocol::{
    Configuration, Count, DestinationList, DestinationState, DestinationStats, Fault, FaultKind, Latency,
    PAGE_MAX, Request, Response, ServicePage, ServicePageQuery, ServiceState, Stats, Traffic,
};
use dataplane::counters::{Counter, DropReason};
use dataplane::engine::Shared;
use std::sync::atomic::Ordering::Relaxed;

/// A counter as listings show it.
pub(crate) fn count(name: &str, value: u64, meaning: &str) -> Count {
    Count { name: name.to_owned(), value, meaning: meaning.to_owned() }
}

impl Management {
    /// Answers what does not take a running director: listings and counters.
    ///
    /// # Errors
    ///
    /// No such service, a bad cursor, or a request that takes more than this: a change, `status`, `events.list`.
    pub fn answer(&self, request: &Request, view: &View<'_>) -> Result<Response, Fault> {
        match request {
            Request::Stats(query) => {
                let mut stats = self.stats(view.shared);
                if !query.destinations {
                    stats.destinations = Vec::new();
                }
                Ok(Response::Stats(Box::new(stats)))
            }
            Request::ServiceList(query) => Ok(Response::Services(self.services(*query, view.shared))),
            Request::DestinationList(query) => {
                self.destinations(query.service, view.shared).map(Response::Destinations)
            }
            Request::ConfigGet => Ok(Response::Configuration(self.configuration())),
            Request::ConnectionList(query) => {
                connections::page(query, view, &self.servers).map(Response::Connections)
            }
            Request::Status | Request::EventsList(_) | Request::CountersZero(_) | Request::Change { .. } => {
                let message = format!("`{}` is not a listing", request.method());
                Err(Fault::new(FaultKind::Internal, message))
            }
        }
    }

    /// What the engines counted. Latencies are the running director's.
    #[must_use]
    pub fn stats(&self, shared: &Shared) -> Stats {
        let workers = &shared.counters;
        let sum = |counter: Counter| workers.iter().map(|one| one.get(counter)).sum();
        let dropped = |reason: DropReason| workers.iter().map(|one| one.dropped(reason)).sum();
        let mut counters: Vec<Count> = Counter::ALL
            .iter()
            .map(|counter| count(counter.label(), sum(*counter), counter.meaning()))
            .collect();
        let in_flight = workers.iter().map(|one| one.in_flight()).sum();
        counters.push(count("in_flight", in_flight, "Packets parked or held as early fragments now."));
        let mut all = Present::default();
        let mut destinations = Vec::with_capacity(self.desired.counts().1);
        for service in self.desired.services() {
            let (states, present) = self.destination_states(service, shared);
            all.add_all(present);
            let stats = |destination| DestinationStats { service: service.key, destination };
            destinations.extend(states.into_iter().map(stats));
        }
        Stats {
            counters,
            drops: DropReason::ALL
                .iter()
                .map(|reason| count(reason.label(), dropped(*reason), reason.meaning()))
                .collect(),
            imbalance: workers.iter().map(|one| one.imbalance()).sum(),
            totals: self.counters.all(all),
            destinations,
            apply: Latency::default(),
            grace_period: Latency::default(),
            burst: Latency::default(),
        }
    }

    fn destination_states(&self, service: &Service, shared: &Shared) -> (Vec<DestinationState>, Present) {
        let mut present = Present::default();
        let state = |destination| self.destination_state(service, destination, shared, &mut present);
        let states = service.destinations.iter().map(state).collect();
        (states, present)
    }

    fn destination_state(
        &self,
        service: &Service,
        destination: &desired::Destination,
        shared: &Shared,
        present: &mut Present,
    ) -> DestinationState {
        let server = destination.server;
        let found = self.compiler.lookup().find_destination(&key_of(service.key), server.ip, server.port);
        let table = &shared.destinations;
        let figures = found
            .map_or_else(DestinationFigures::default, |found| self.counters.destination(found.slot, table));
        present.add(&figures);
        let DestinationFigures { traffic, totals } = figures;
        let way = found.and_then(|found| self.compiler.way(found.slot));
        DestinationState {
            address: server,
            method: destination.method,
            weight: destination.weight,
            upper_threshold: destination.upper_threshold,
            lower_threshold: destination.lower_threshold,
            overloaded: found.is_some_and(|found| table.shared(found.slot).overloaded.load(Relaxed)),
            active: totals.active,
            inactive: totals.inactive,
            persistent: totals.templates,
            traffic,
            next_hop: way.map_or_else(
                || "unknown".to_owned(),
                |way| describe(way.next_hop, self.network.port_name(way.port)),
            ),
        }
    }

    fn service_state(&self, service: &Service, shared: &Shared) -> ServiceState {
        let (destinations, present) = self.destination_states(service, shared);
        let slot = self.compiler.lookup().service(&key_of(service.key));
        ServiceState {
            key: service.key,
            scheduler: service.scheduler,
            scheduler_flags: service.scheduler_flags,
            mh_size: (service.scheduler == Scheduler::Mh).then_some(service.maglev.size),
            mh_order: (service.scheduler == Scheduler::Mh).then(|| MaglevOrder::of(service.maglev)),
            one_packet: service.one_packet,
            persistent: service.persistence.map_or(0, |held| held.timeout_s),
            netmask: service.persistence.map(|held| held.mask),
            mss_clamp: service.mss_clamp,
            traffic: slot.map_or_else(Traffic::default, |slot| self.counters.service(slot, present)),
            destinations,
        }
    }

    fn services(&self, query: ServicePageQuery, shared: &Shared) -> ServicePage {
        let revision = self.desired.revision();
        if let Some(key) = query.service {
            let found = self.desired.service(key).ok().map(|service| self.service_state(service, shared));
            return ServicePage { revision, services: found.into_iter().collect(), next: None };
        }
        let limit = query.limit.unwrap_or(PAGE_MAX) as usize;
        let mut found = self.desired.services_after(query.after);
        let services: Vec<_> =
            found.by_ref().take(limit).map(|service| self.service_state(service, shared)).collect();
        let next = found.next().and_then(|_| services.last().map(|service| service.key));
        ServicePage { revision, services, next }
    }

    fn destinations(&self, key: ServiceKey, shared: &Shared) -> Result<DestinationList, Fault> {
        let service = self.desired.service(key)?;
        let (destinations, _) = self.destination_states(service, shared);
        Ok(DestinationList { service: key, destinations })
    }

    fn configuration(&self) -> Configuration {
        Configuration {
            revision: self.desired.revision(),
            services: self.desired.to_specs(),
            timeouts: self.desired.timeouts(),
            settings: self.desired.settings(),
            marks: self.desired.marks().to_vec(),
        }
    }
}
