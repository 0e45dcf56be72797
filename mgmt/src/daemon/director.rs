//! The publisher: the one thread that changes what workers read.

use super::backend::Message;
use super::events::Events;
use super::latency::Latencies;
use crate::control::{Occupancy, Peer};
use crate::desired::{Apply, Change};
use crate::instance::Placement;
use crate::management::{Management, View};
use crate::mirror::{Mirror, MirrorEvent};
use crate::protocol::{Changed, Fault, FaultKind, Request, Response};
use crate::twin::ExceptionHandle;
use dataplane::engine::Event;
use dataplane::id::PortId;
use dataplane::rcu::{MAXIMUM_RETIRED, Publisher};
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Clock, Runtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Between two looks at what workers say when nobody asks anything.
const TICK: Duration = Duration::from_millis(20);
/// Between two rounds of forgetting.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long the publisher itself waits for workers, to measure a grace period.
const GRACE: Duration = Duration::from_millis(20);
/// How long a change with `wait` waits for workers.
const WAIT: Duration = Duration::from_secs(2);

/// Events that one request makes at most.
const EVENTS_MAX: usize = 16;

/// Why the publisher's loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Stop,
    /// The configuration is to be read again, and the loop entered again.
    Reload,
}

/// Everything the publisher thread owns.
#[derive(Debug)]
pub(super) struct Director {
    pub(super) management: Management,
    pub(super) publisher: Publisher<Snapshot>,
    pub(super) runtime: Runtime,
    pub(super) mirror: Option<Mirror>,
    pub(super) exception: Option<ExceptionHandle>,
    pub(super) clock: Clock,
    pub(super) revision: Arc<AtomicU64>,
    pub(super) events: Events,
    pub(super) latencies: Latencies,
    pub(super) placement: Placement,
    pub(super) idle: String,
    /// Served once the director can answer.
    pub(super) sockets: Vec<Occupancy>,
    pub(super) started: Instant,
    pub(super) warnings: Vec<String>,
    /// The ports as configured: what their twins are given again when the kernel forgets it.
    pub(super) twins: Vec<crate::config::Port>,
    pub(super) loads: super::report::Loads,
    pub(super) housekept: Instant,
}

impl Director {
    /// Serves messages until told to stop or to read the configuration again.
    pub(super) fn run(&mut self, messages: &Receiver<Message>) -> Ended {
        loop {
            match messages.recv_timeout(TICK) {
                Ok(message) => {
                    if let Some(ended) = self.heed(message) {
                        return ended;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ended::Stop,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.tick();
        }
    }

    /// Does what one message asks for; says so when that is to end.
    pub(super) fn heed(&mut self, message: Message) -> Option<Ended> {
        match message {
            Message::Call { request, peer, answer } => {
                let response = self.call(request, peer);
                // The client may have left.
                let _ = answer.send(response);
            }
            Message::Network(event) => self.hear(&event),
            Message::Reload => return Some(Ended::Reload),
            Message::Stop => return Some(Ended::Stop),
        }
        None
    }

    /// What is due by time.
    pub(super) fn tick(&mut self) {
        self.publisher.reclaim();
        self.look_at_network();
        while let Some(event) = self.runtime.events().pop() {
            self.hurry(event);
        }
        if self.housekept.elapsed() >= HOUSEKEEPING {
            self.housekept = Instant::now();
            self.housekeep();
        }
        if self.management.changed() {
            self.publish();
        }
    }

    /// A packet waits for a MAC address.
    fn hurry(&self, event: Event) {
        let hop = match event {
            Event::Unresolved(slot) => self.management.way(slot).and_then(|way| way.hop),
            Event::UnresolvedNeighbour(port, address) => Some((port, address)),
        };
        if let (Some(mirror), Some((port, address))) = (&self.mirror, hop) {
            mirror.resolve_once(port, address);
        }
    }

    fn housekeep(&mut self) {
        let passed = self.passed();
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shared = self.runtime.shared();
        self.management.housekeep(now, shared, passed);
        self.management.tick_rates(now, shared);
        self.loads.measure(&self.runtime);
        self.latencies.collect_bursts(&self.runtime);
    }

    /// The newest revision that every worker has passed.
    fn passed(&self) -> u64 {
        let current = self.publisher.revision();
        let oldest = current.saturating_sub(MAXIMUM_RETIRED as u64 + 1);
        (oldest..=current).rev().find(|revision| self.publisher.passed(*revision)).unwrap_or(oldest)
    }

    /// The mirror's news.
    pub(super) fn hear(&mut self, event: &MirrorEvent) {
        match *event {
            // Of several in the queue the first brings the latest.
            MirrorEvent::View(_) => return self.look_at_network(),
            MirrorEvent::TwinChanged { port, mac, mtu } => {
                let name = self.management.network().port_name(port).to_owned();
                let text = match self.runtime.set_mac(port, mac) {
                    Ok(()) => {
                        self.management.network_mut().set_port_mac(port, mac);
                        format!(
                            "{name}: the twin's address is {}, its MTU {mtu}; the port follows",
                            crate::address::Mac(mac)
                        )
                    }
                    Err(error) => format!(
                        "{name}: the twin's address is {}, its MTU {mtu}; the NIC keeps its own address ({error})",
                        crate::address::Mac(mac)
                    ),
                };
                self.event("network", text);
            }
            MirrorEvent::TwinReplaced { port } => self.restore_twin(port, "was deleted and made anew"),
        }
        self.look_at_network();
        self.follow();
    }

    /// Takes over the mirror's latest view, told of it or not: a full queue loses the telling.
    fn look_at_network(&mut self) {
        let Some(view) = self.mirror.as_ref().map(Mirror::view) else { return };
        if view.revision != self.management.network().view_revision() {
            for port in self.management.network().came_up(&view) {
                self.restore_twin(port, "came up again");
            }
            self.management.network_mut().set_view(view);
            self.follow();
        }
    }

    fn follow(&mut self) {
        self.management.follow();
        self.want_hops();
    }

    /// The kernel forgot what the configuration gave a twin: routes when it was down, everything when it was deleted.
    fn restore_twin(&mut self, port: PortId, what: &str) {
        let Some(twin) = self.twins.get(port.index()).filter(|twin| twin.twin).cloned() else { return };
        let restored = super::twins::set_up(&twin).and_then(|()| super::twins::add_virtual_addresses(&twin));
        let text = match restored {
            Ok(()) => format!(
                "{}: the twin {what}; the configuration's addresses and routes are set again",
                twin.name
            ),
            Err(error) => format!("{}: the twin {what}; {error}", twin.name),
        };
        self.event("network", text);
    }

    pub(super) fn want_hops(&mut self) {
        if let (Some(mirror), Some(hops)) = (&self.mirror, self.management.take_hops()) {
            mirror.want(hops);
        }
    }

    pub(super) fn event(&mut self, kind: &str, text: String) {
        self.events.add(kind, self.management.desired().revision(), text);
    }

    /// Hands the next snapshot to the workers. `false`: too many are retired already; the next tick tries again.
    pub(super) fn publish(&mut self) -> bool {
        self.publisher.reclaim();
        if self.publisher.retired() >= MAXIMUM_RETIRED {
            return false;
        }
        if self.publisher.publish(self.management.snapshot()).is_err() {
            return false;
        }
        self.management.published(self.runtime.shared());
        let start = Instant::now();
        if self.publisher.wait_passed(self.publisher.revision(), GRACE) {
            self.latencies.grace(start.elapsed());
        }
        true
    }

    fn call(&mut self, request: Request, peer: Peer) -> Result<Response, Fault> {
        match request {
            Request::Change { change, wait } => {
                let changed = self.change(&change, wait);
                match &changed {
                    Ok(changed) if changed.changed && !changed.dry_run => {
                        let by = format!("uid {} pid {}", peer.uid, peer.pid);
                        self.made("change", &changed.changes, &by);
                    }
                    Ok(_) => {}
                    Err(fault) => self
                        .event("refusal", format!("{} (uid {} pid {})", fault.message, peer.uid, peer.pid)),
                }
                changed.map(Response::Changed)
            }
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Stats(query) => {
                let mut stats = self.stats();
                if !query.destinations {
                    stats.destinations = Vec::new();
                }
                Ok(Response::Stats(Box::new(stats)))
            }
            Request::EventsList(query) => Ok(Response::Events(self.events.page(query))),
            Request::CountersZero(zero) => {
                let zeroed = self.management.zero(zero, self.runtime.shared())?;
                let what = zero.service.map_or_else(|| "all".to_owned(), |service| service.to_string());
                let text = format!("counters of {what} are zero (uid {} pid {})", peer.uid, peer.pid);
                self.event("change", text);
                Ok(Response::Zeroed(zeroed))
            }
            request => {
                let shared = self.runtime.shared();
                let view = View { shared, tables: self.runtime.connections(), now: self.clock.now() };
                self.management.answer(&request, &view)
            }
        }
    }

    /// Checks, compiles and publishes one change: all of it or nothing.
    pub(super) fn change(&mut self, change: &Change, wait: bool) -> Result<Changed, Fault> {
        let start = Instant::now();
        let plan = self.management.prepare(change)?;
        if plan.dry_run || plan.is_empty() {
            return self.management.make(plan, self.runtime.shared());
        }
        self.publisher.reclaim();
        if self.publisher.retired() >= MAXIMUM_RETIRED {
            let laggard =
                self.publisher.laggard().map_or_else(String::new, |worker| format!(": worker {worker}"));
            let text = format!(
                "{MAXIMUM_RETIRED} states wait for a worker that does not turn{laggard}; nothing was changed"
            );
            return Err(Fault::new(FaultKind::Busy, text));
        }
        let mut changed = self.management.make(plan, self.runtime.shared())?;
        self.revision.store(changed.revision, Relaxed);
        self.publisher_publish(start);
        self.want_hops();
        changed.waited_us = wait.then(|| self.wait(start)).transpose()?;
        Ok(changed)
    }

    fn publisher_publish(&mut self, start: Instant) {
        let snapshot = self.management.snapshot();
        // There was room a moment ago, and only this thread publishes.
        let published = self.publisher.publish(snapshot);
        self.latencies.apply(start.elapsed());
        self.management.published(self.runtime.shared());
        if published.is_ok() {
            let start = Instant::now();
            if self.publisher.wait_passed(self.publisher.revision(), GRACE) {
                self.latencies.grace(start.elapsed());
            }
        }
    }

    /// Tells of changes; of a long series only how it begins, or it would push everything else out.
    pub(super) fn made(&mut self, kind: &str, changes: &[Change], by: &str) {
        for change in changes.iter().take(EVENTS_MAX) {
            self.event(kind, format!("{change} ({by})"));
        }
        if let Some(more) = changes.len().checked_sub(EVENTS_MAX).filter(|more| *more > 0) {
            self.event(kind, format!("and {more} changes more ({by})"));
        }
    }

    fn wait(&self, start: Instant) -> Result<u64, Fault> {
        if self.publisher.wait_passed(self.publisher.revision(), WAIT) {
            return Ok(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        let laggard = self.publisher.laggard().map_or_else(|| "one".to_owned(), |worker| worker.to_string());
        Err(Fault::new(
            FaultKind::Busy,
            format!("the change is made, but worker {laggard} has not passed it in 2 s"),
        ))
    }

    /// Makes a configuration the desired state.
    pub(super) fn apply(&mut self, wanted: Apply) -> Result<Changed, Fault> {
        self.change(&Change::Apply(wanted), false)
    }
}
