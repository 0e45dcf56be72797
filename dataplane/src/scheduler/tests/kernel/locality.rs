//! lblc and lblcr: a map from addresses to sets of servers, and a clock.

use super::{Kernel, Server};
use crate::scheduler::Request;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is remembered of an address; times in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Known {
    last_use: u64,
    last_change: u64,
    /// The newest first, with the weight each had in the list last.
    servers: Vec<Server>,
}

/// The timer of 60 s.
#[derive(Debug, Clone, Default)]
pub(super) struct Timer {
    next: u64,
    runs: u64,
}

impl Kernel {
    /// Forgets everything; from now on addresses are remembered for so many milliseconds.
    pub(in super::super) fn start_cache(&mut self, expiration: u64) {
        self.known.clear();
        self.expiration = expiration;
        self.timer = Timer { next: self.now + 60_000, runs: 0 };
    }

    /// Time passes. A cache of a few addresses is never crowded: only every 30th run of the timer does something.
    pub(in super::super) fn leap(&mut self, now: u64) {
        self.now = now;
        while self.timer.next <= now {
            self.timer.runs += 1;
            if self.timer.runs.is_multiple_of(30) {
                let (at, expiration) = (self.timer.next, self.expiration);
                self.known.retain(|_, known| known.last_use + expiration > at);
            }
            self.timer.next += 60_000;
        }
    }

    /// The servers that some address remembers.
    pub(in super::super) fn remembers(&self, name: u8) -> bool {
        self.known.values().any(|known| known.servers.iter().any(|server| server.name == name))
    }

    /// How many addresses remember each server.
    pub(in super::super) fn remembered(&self) -> BTreeMap<u8, usize> {
        let mut sums = BTreeMap::new();
        for server in self.known.values().flat_map(|known| &known.servers) {
            *sums.entry(server.name).or_default() += 1;
        }
        sums
    }

    fn wlc(&self) -> Option<u8> {
        self.least(|one| self.load(one), |one| one.weight.into())
    }

    fn is_busy(&self, server: &Server) -> bool {
        self.active(server) > u64::from(server.weight)
            && self.list.iter().any(|other| self.active(other) * 2 < u64::from(other.weight))
    }

    fn learn(&mut self, address: IpAddr, name: u8) {
        let server = *self.list.iter().find(|server| server.name == name).unwrap();
        let known = Known { last_use: self.now, last_change: self.now, servers: vec![server] };
        self.known.insert(address, known);
    }

    /// Brings the remembered weights up to date.
    fn recall(&mut self, address: IpAddr) -> Option<Vec<Server>> {
        let known = self.known.get_mut(&address)?;
        known.last_use = self.now;
        for server in &mut known.servers {
            if let Some(listed) = self.list.iter().find(|listed| listed.name == server.name) {
                server.weight = listed.weight;
            }
        }
        Some(known.servers.clone())
    }

    pub(super) fn lblc(&mut self, request: &Request) -> Option<u8> {
        if let Some(servers) = self.recall(request.destination) {
            let server = servers[0];
            if self.has(server.name) && server.weight > 0 && !self.is_busy(&server) {
                return Some(server.name);
            }
        }
        let chosen = self.wlc()?;
        self.learn(request.destination, chosen);
        Some(chosen)
    }

    pub(super) fn lblcr(&mut self, request: &Request) -> Option<u8> {
        let address = request.destination;
        let Some(servers) = self.recall(address) else {
            let chosen = self.wlc()?;
            self.learn(address, chosen);
            return Some(chosen);
        };
        let mut min: Option<Server> = None;
        for server in servers.iter().filter(|one| self.has(one.name) && self.usable(one)) {
            if min.is_none_or(|least| {
                self.load(&least) * u64::from(server.weight) > self.load(server) * u64::from(least.weight)
            }) {
                min = Some(*server);
            }
        }
        let stale = self.now > self.known[&address].last_change + self.expiration;
        if servers.len() > 1 && stale {
            let mut max: Option<Server> = None;
            for server in servers.iter().filter(|one| one.weight > 0) {
                if max.is_none_or(|most| {
                    self.load(&most) * u64::from(server.weight) < self.load(server) * u64::from(most.weight)
                }) {
                    max = Some(*server);
                }
            }
            if let Some(max) = max {
                let (now, known) = (self.now, self.known.get_mut(&address).unwrap());
                known.servers.retain(|server| server.name != max.name);
                known.last_change = now;
            }
        }
        if let Some(server) = min.filter(|server| !self.is_busy(server)) {
            return Some(server.name);
        }
        let chosen = self.wlc()?;
        let server = *self.list.iter().find(|server| server.name == chosen).unwrap();
        let (now, known) = (self.now, self.known.get_mut(&address).unwrap());
        if known.servers.iter().all(|server| server.name != chosen) {
            known.servers.insert(0, server);
            known.last_change = now;
        }
        Some(chosen)
    }
}
