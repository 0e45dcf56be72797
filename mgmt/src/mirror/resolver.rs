//! Which next hops the kernel is asked to resolve and keep, and when it is asked again.
//!
//! Pure: events and moments in, requests out. The kernel resolves a managed entry (`NTF_EXT_MANAGED`) and keeps it
//! fresh, but forgets it when the link goes down, gives up for up to five seconds when nobody answers, and loses the
//! mark when any tool touches the entry; each of these is answered by asking again.

use super::settle::Moment;
use super::wire::Neighbour;
use dataplane::id::PortId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// A next hop: the port and the neighbour's address.
pub type Hop = (PortId, IpAddr);

/// What the kernel is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Resolve and keep it.
    Keep(Hop),
    /// Resolve it, once.
    Use(Hop),
    /// Keep it no longer.
    Release(Hop),
}

/// Asked again this long after nobody answered: the kernel's own next try may be five seconds away.
const FAILED_RETRY: Duration = Duration::from_secs(1);
/// Asked again when nothing at all was heard for this long, and how often an entry is used that cannot be managed.
const REFRESH: Duration = Duration::from_secs(5);
/// Never asked more often than this, whatever happens.
const PACE: Duration = Duration::from_millis(100);
/// An entry that does not take the mark after so many requests is kept by using it.
const MARK_ATTEMPTS: u8 = 3;
/// Addresses resolved on demand that are remembered, so that each packet waiting for one does not ask again.
const ONCE_LIMIT: usize = 4096;
const ONCE_MEMORY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Unknown,
    Usable,
    Failed,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    condition: Condition,
    managed: bool,
    fixed: bool,
    attempts: u8,
    asked: Option<Moment>,
    due: Option<Moment>,
}

/// Requests that were made, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResolverCounts {
    /// Next hops that are wanted.
    pub wanted: usize,
    /// Of these, usable now.
    pub usable: usize,
    /// Requests to resolve or keep.
    pub asked: u64,
    /// Requests on demand that were not remembered because too many were.
    pub once_refused: u64,
}

/// Keeps the wanted next hops resolved.
#[derive(Debug, Default)]
pub struct Resolver {
    wanted: BTreeMap<Hop, Wanted>,
    schedule: BTreeSet<(Moment, Hop)>,
    urgent: VecDeque<Request>,
    once: BTreeMap<Hop, Moment>,
    running: BTreeSet<PortId>,
    asked: u64,
    once_refused: u64,
}

impl Resolver {
    /// Replaces the set of wanted next hops; `known` gives what is already known about one.
    pub fn want(&mut self, wanted: &BTreeSet<Hop>, now: Moment, known: impl Fn(Hop) -> Option<Neighbour>) {
        let dropped: Vec<Hop> = self.wanted.keys().filter(|hop| !wanted.contains(hop)).copied().collect();
        for hop in dropped {
            if let Some(entry) = self.wanted.remove(&hop) {
                self.unschedule(hop, entry.due);
                if !entry.fixed && entry.asked.is_some() && self.running.contains(&hop.0) {
                    self.urgent.push_back(Request::Release(hop));
                }
            }
        }
        for hop in wanted {
            if self.wanted.contains_key(hop) {
                continue;
            }
            let fresh = Wanted {
                condition: Condition::Unknown,
                managed: false,
                fixed: false,
                attempts: 0,
                asked: None,
                due: None,
            };
            self.wanted.insert(*hop, fresh);
            self.reschedule(*hop, Some(now));
            if let Some(neighbour) = known(*hop) {
                self.seen(*hop, &neighbour, now);
            }
        }
    }

    /// Resolves one address now, without keeping it.
    pub fn resolve_once(&mut self, hop: Hop, now: Moment) {
        if let Some(entry) = self.wanted.get(&hop) {
            if entry.condition != Condition::Usable {
                self.ask_soon(hop, now);
            }
            return;
        }
        if !self.running.contains(&hop.0) || self.once.get(&hop).is_some_and(|until| now < *until) {
            return;
        }
        if self.once.len() >= ONCE_LIMIT {
            self.once.retain(|_, until| now < *until);
            if self.once.len() >= ONCE_LIMIT {
                self.once_refused += 1;
                return;
            }
        }
        self.once.insert(hop, now + ONCE_MEMORY);
        self.urgent.push_back(Request::Use(hop));
    }

    /// The kernel told about a neighbour.
    pub fn seen(&mut self, hop: Hop, neighbour: &Neighbour, now: Moment) {
        let Some(entry) = self.wanted.get_mut(&hop) else { return };
        entry.managed = neighbour.managed;
        entry.fixed = neighbour.fixed();
        entry.condition = if neighbour.usable() {
            Condition::Usable
        } else if neighbour.state & super::wire::nud::FAILED != 0 {
            Condition::Failed
        } else {
            Condition::Unknown
        };
        if entry.managed {
            entry.attempts = 0;
        }
        let entry = *entry;
        let due = match entry.condition {
            _ if entry.fixed && entry.condition == Condition::Usable => None,
            Condition::Usable if entry.managed => None,
            Condition::Failed => Some(now + FAILED_RETRY),
            // The mark was lost, or never taken.
            Condition::Usable | Condition::Unknown if !entry.managed => Some(self.again(&entry, now)),
            Condition::Usable | Condition::Unknown => Some(now + REFRESH),
        };
        // An earlier appointment stays: repeated FAILED notices must not push the retry out.
        let due = match (due, entry.due) {
            (Some(due), Some(present)) if entry.condition == Condition::Failed => Some(due.min(present)),
            (due, _) => due,
        };
        self.reschedule(hop, due);
    }

    /// The kernel forgot a neighbour.
    pub fn gone(&mut self, hop: Hop, now: Moment) {
        let Some(entry) = self.wanted.get_mut(&hop) else { return };
        entry.condition = Condition::Unknown;
        entry.managed = false;
        entry.fixed = false;
        self.ask_soon(hop, now);
    }

    /// A port's twin gained or lost its carrier; nothing is asked while it has none.
    pub fn set_running(&mut self, port: PortId, running: bool, now: Moment) {
        if running == self.running.contains(&port) {
            return;
        }
        if !running {
            self.running.remove(&port);
            return;
        }
        self.running.insert(port);
        let hops: Vec<Hop> = self.wanted.keys().filter(|hop| hop.0 == port).copied().collect();
        for hop in hops {
            if let Some(entry) = self.wanted.get_mut(&hop).filter(|entry| !entry.fixed) {
                entry.condition = Condition::Unknown;
                entry.managed = false;
                entry.attempts = 0;
                self.reschedule(hop, Some(now));
            }
        }
    }

    /// Addresses or routes changed: what is unresolved may be resolvable now.
    pub fn reachability_changed(&mut self, now: Moment) {
        let hops: Vec<Hop> = self
            .wanted
            .iter()
            .filter(|(_, entry)| entry.condition != Condition::Usable)
            .map(|(hop, _)| *hop)
            .collect();
        for hop in hops {
            self.ask_soon(hop, now);
        }
    }

    /// The kernel refused to keep a next hop.
    pub fn refused(&mut self, hop: Hop, now: Moment) {
        if self.wanted.contains_key(&hop) {
            self.reschedule(hop, Some(now + FAILED_RETRY));
        }
    }

    /// The next request that is due, if any.
    pub fn next(&mut self, now: Moment) -> Option<Request> {
        if let Some(request) = self.urgent.pop_front() {
            self.asked += u64::from(!matches!(request, Request::Release(_)));
            return Some(request);
        }
        loop {
            let (due, hop) = *self.schedule.first()?;
            if due > now {
                return None;
            }
            self.schedule.remove(&(due, hop));
            let running = self.running.contains(&hop.0);
            let Some(entry) = self.wanted.get_mut(&hop) else { continue };
            entry.due = None;
            // Asked for all when the carrier comes back.
            if !running {
                continue;
            }
            entry.asked = Some(now);
            entry.attempts = entry.attempts.saturating_add(1);
            let managed = entry.attempts <= MARK_ATTEMPTS || entry.condition != Condition::Usable;
            self.reschedule(hop, Some(now + REFRESH));
            self.asked += 1;
            return Some(if managed { Request::Keep(hop) } else { Request::Use(hop) });
        }
    }

    /// When the next request falls due.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        if self.urgent.is_empty() { self.schedule.first().map(|(due, _)| *due) } else { Some(Moment::ZERO) }
    }

    /// Figures for `status`.
    #[must_use]
    pub fn counts(&self) -> ResolverCounts {
        ResolverCounts {
            wanted: self.wanted.len(),
            usable: self.wanted.values().filter(|entry| entry.condition == Condition::Usable).count(),
            asked: self.asked,
            once_refused: self.once_refused,
        }
    }

    fn again(&self, entry: &Wanted, now: Moment) -> Moment {
        match entry.asked {
            Some(asked) if entry.attempts >= MARK_ATTEMPTS => (asked + REFRESH).max(now),
            Some(asked) => (asked + PACE).max(now),
            None => now,
        }
    }

    fn ask_soon(&mut self, hop: Hop, now: Moment) {
        let Some(entry) = self.wanted.get(&hop) else { return };
        let soon = entry.asked.map_or(now, |asked| (asked + PACE).max(now));
        let due = entry.due.map_or(soon, |due| due.min(soon));
        self.reschedule(hop, Some(due));
    }

    fn reschedule(&mut self, hop: Hop, due: Option<Moment>) {
        let Some(entry) = self.wanted.get_mut(&hop) else { return };
        let former = std::mem::replace(&mut entry.due, due);
        self.unschedule(hop, former);
        if let Some(due) = due {
            self.schedule.insert((due, hop));
        }
    }

    fn unschedule(&mut self, hop: Hop, due: Option<Moment>) {
        if let Some(due) = due {
            self.schedule.remove(&(due, hop));
        }
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
