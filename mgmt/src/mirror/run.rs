//! The mirror's thread: hears the kernel, settles, publishes views, keeps next hops resolved.

use super::resolver::{Hop, Request, Resolver};
use super::settle::{Moment, Settler};
use super::shared::Shared;
use super::socket::{Group, NetlinkError, Received, RouteSocket};
use super::state::{Effect, State};
use super::wire::{Event, answer, decode, kind};
use super::{MirrorEvent, MirrorOptions, Notify, message};
use dataplane::id::PortId;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const GROUPS: [Group; 6] = [
    Group::Link,
    Group::Neighbour,
    Group::Ipv4Address,
    Group::Ipv4Route,
    Group::Ipv6Address,
    Group::Ipv6Route,
];
/// Datagrams taken before the loop looks at anything else; more wait in the socket.
const READS: usize = 512;
/// Requests sent before the loop looks at anything else.
const SENDS: usize = 128;
/// Requests whose refusal can still be told from each other.
const PENDING: usize = 1024;
const RETRY: Duration = Duration::from_millis(100);

/// What is to be read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Resync {
    Routes,
    All,
}

pub(super) struct Worker {
    hearing: RouteSocket,
    reading: RouteSocket,
    asking: RouteSocket,
    state: State,
    settler: Settler,
    resolver: Resolver,
    pending: VecDeque<(u32, Hop)>,
    resync: Option<(Moment, Resync)>,
    reported: BTreeMap<PortId, (u32, [u8; 6], u32)>,
    shared: Arc<Shared>,
    started: Instant,
}

impl Worker {
    /// Subscribes first and reads second, so that nothing is missed between.
    pub(super) fn new(options: &MirrorOptions, shared: Arc<Shared>) -> Result<Self, NetlinkError> {
        let hearing = RouteSocket::subscribe(&GROUPS, options.receive_buffer)?;
        let mut worker = Self {
            hearing,
            reading: RouteSocket::open()?,
            asking: RouteSocket::open()?,
            state: State::new(options.ports.clone(), options.withdraw_after),
            settler: Settler::new(options.settle_quiet, options.settle_limit),
            resolver: Resolver::default(),
            pending: VecDeque::with_capacity(PENDING),
            resync: None,
            reported: BTreeMap::new(),
            shared,
            started: Instant::now(),
        };
        worker.read_all(Moment::ZERO)?;
        worker.publish(&mut |_| {});
        Ok(worker)
    }

    pub(super) fn run(mut self, notify: &mut Notify) {
        while !self.shared.stopping() {
            if let Err(error) = self.turn(notify) {
                tracing::warn!(%error, "mirror: the kernel's tables could not be followed; reading them again");
                self.want_resync(Resync::All, RETRY);
                std::thread::sleep(RETRY);
            }
        }
    }

    fn turn(&mut self, notify: &mut Notify) -> Result<(), NetlinkError> {
        self.hear()?;
        self.hear_refusals()?;
        self.take_orders();
        let now = self.now();
        if let Some((due, what)) = self.resync.filter(|(due, _)| *due <= now) {
            self.resync = None;
            if let Err(error) = self.read_anew(what, now) {
                tracing::warn!(%error, "mirror: reading the kernel's tables failed; trying again");
                self.resync = Some((due.max(now) + RETRY, what));
            }
        }
        if self.state.withdraw(now) {
            self.settler.changed(now);
        }
        if self.settler.take(now) {
            self.publish(notify);
        }
        self.ask()?;
        self.shared.resolver_counts(&self.resolver.counts());
        self.sleep()
    }

    fn hear(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..READS {
            match self.hearing.receive()? {
                Received::Nothing => break,
                Received::Overrun => {
                    self.shared.counters.overruns.fetch_add(1, Relaxed);
                    self.want_resync(Resync::All, Duration::ZERO);
                }
                Received::Datagram(length) => {
                    let now = self.now();
                    let mut effects = Vec::new();
                    let mut messages = self.hearing.datagram(length);
                    for message in messages.by_ref() {
                        match decode(&message) {
                            Ok(Some(event)) => {
                                self.state.apply(event, now, &mut |effect| effects.push(effect));
                                self.settler.changed(now);
                            }
                            Ok(None) => {}
                            Err(_) => _ = self.shared.counters.malformed.fetch_add(1, Relaxed),
                        }
                    }
                    self.shared.counters.malformed.fetch_add(u64::from(messages.malformed()), Relaxed);
                    self.act_on(&effects, now);
                }
            }
        }
        Ok(())
    }

    fn act_on(&mut self, effects: &[Effect], now: Moment) {
        let mut reachability = false;
        for effect in effects {
            match *effect {
                Effect::Bound(port) => {
                    tracing::info!(port = port.0, "mirror: the twin is there");
                    self.want_resync(Resync::All, Duration::ZERO);
                }
                Effect::Unbound(port) => {
                    tracing::warn!(port = port.0, "mirror: the twin is gone");
                    self.resolver.set_running(port, false, now);
                    self.want_resync(Resync::Routes, Duration::ZERO);
                }
                Effect::Toggled { port, running } => {
                    self.resolver.set_running(port, running, now);
                    self.want_resync(Resync::Routes, Duration::ZERO);
                }
                Effect::Neighbour(port, neighbour) => {
                    self.resolver.seen((port, neighbour.address), &neighbour, now);
                }
                Effect::NeighbourGone(port, address) => self.resolver.gone((port, address), now),
                Effect::Reachability => reachability = true,
            }
        }
        if reachability {
            self.resolver.reachability_changed(now);
        }
    }

    fn hear_refusals(&mut self) -> Result<(), NetlinkError> {
        let now = self.now();
        for _ in 0..READS {
            let length = match self.asking.receive()? {
                Received::Datagram(length) => length,
                // What was lost are refusals of requests that are repeated anyway.
                Received::Overrun => continue,
                Received::Nothing => break,
            };
            for message in self.asking.datagram(length).filter(|message| message.kind == kind::ERROR) {
                let Some((errno, explanation)) = answer(&message).filter(|(errno, _)| *errno != 0) else {
                    continue;
                };
                let hop = self
                    .pending
                    .iter()
                    .find(|(sequence, _)| *sequence == message.sequence)
                    .map(|(_, hop)| *hop);
                self.shared.counters.refused.fetch_add(1, Relaxed);
                let Some(hop) = hop else { continue };
                let error = NetlinkError::Refused { errno, explanation };
                tracing::debug!(port = hop.0.0, address = %hop.1, %error, "mirror: next hop refused");
                self.resolver.refused(hop, now);
            }
        }
        Ok(())
    }

    fn take_orders(&mut self) {
        let now = self.now();
        if let Some(wanted) = self.shared.take_wanted() {
            let state = &self.state;
            self.resolver.want(&wanted, now, |(port, address)| state.neighbour_of(port, address).copied());
        }
        while let Some(hop) = self.shared.once.pop() {
            self.resolver.resolve_once(hop, now);
        }
    }

    fn ask(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..SENDS {
            let Some(request) = self.resolver.next(self.now()) else { break };
            let (Request::Keep(hop) | Request::Use(hop) | Request::Release(hop)) = request;
            let Some(index) = self.state.index_of(hop.0) else { continue };
            // Any request about a static entry makes the kernel forget that it is static.
            if self.state.neighbour_of(hop.0, hop.1).is_some_and(|neighbour| neighbour.fixed()) {
                continue;
            }
            let sequence = match request {
                Request::Keep(_) => {
                    self.asking.send(message::keep_neighbour(index, hop.1), NLM_F_CREATE | NLM_F_REPLACE)?
                }
                Request::Use(_) => {
                    self.asking.send(message::use_neighbour(index, hop.1), NLM_F_CREATE | NLM_F_REPLACE)?
                }
                // Takes the mark, creates nothing; the kernel forgets the entry when nobody uses it.
                Request::Release(_) => {
                    self.asking.send(message::use_neighbour(index, hop.1), NLM_F_REPLACE)?
                }
            };
            if self.pending.len() >= PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back((sequence, hop));
        }
        Ok(())
    }

    fn want_resync(&mut self, what: Resync, after: Duration) {
        let due = self.now() + after;
        self.resync =
            Some(self.resync.map_or((due, what), |(known, other)| (known.min(due), other.max(what))));
    }

    fn read_anew(&mut self, what: Resync, now: Moment) -> Result<(), NetlinkError> {
        match what {
            Resync::All => self.read_all(now)?,
            Resync::Routes => self.read_routes(now)?,
        }
        self.settler.changed(now);
        self.resolver.reachability_changed(now);
        Ok(())
    }

    fn read_all(&mut self, now: Moment) -> Result<(), NetlinkError> {
        let mut effects = Vec::new();
        let links = self.dump(&message::get_links())?;
        let present: BTreeSet<u32> = links
            .iter()
            .filter_map(|event| if let Event::Link(link) = event { Some(link.index) } else { None })
            .collect();
        self.state.keep_links(&present, &mut |effect| effects.push(effect));
        self.apply(links, now, &mut effects);
        let addresses = self.dump(&message::get_addresses())?;
        let present: BTreeSet<_> = addresses
            .iter()
            .filter_map(|event| match event {
                Event::Address(address) => Some((address.index, address.address, address.prefix)),
                _ => None,
            })
            .collect();
        self.state.keep_addresses(&present, now);
        self.apply(addresses, now, &mut effects);
        self.read_routes(now)?;
        let neighbours = self.dump(&message::get_neighbours())?;
        let present: BTreeSet<_> = neighbours
            .iter()
            .filter_map(|event| match event {
                Event::Neighbour(neighbour) => Some((neighbour.index, neighbour.address)),
                _ => None,
            })
            .collect();
        self.state.keep_neighbours(&present, &mut |effect| effects.push(effect));
        self.apply(neighbours, now, &mut effects);
        // Everything was just read: a twin that was found while reading needs no second reading.
        effects.retain(|effect| {
            !matches!(effect, Effect::Bound(_) | Effect::Unbound(_) | Effect::Toggled { .. })
        });
        let running: Vec<_> = self.state.running().collect();
        for (port, running) in running {
            self.resolver.set_running(port, running, now);
        }
        self.act_on(&effects, now);
        Ok(())
    }

    fn read_routes(&mut self, now: Moment) -> Result<(), NetlinkError> {
        let routes = self.dump(&message::get_routes())?;
        let routes = routes.into_iter().filter_map(|event| match event {
            Event::Route(route, placement) => Some((route, placement)),
            _ => None,
        });
        self.state.replace_routes(routes, now);
        Ok(())
    }

    fn dump(
        &mut self,
        request: &netlink_packet_route::RouteNetlinkMessage,
    ) -> Result<Vec<Event>, NetlinkError> {
        let (events, malformed) = self.reading.dump(request)?;
        self.shared.counters.dumps.fetch_add(1, Relaxed);
        self.shared.counters.malformed.fetch_add(malformed, Relaxed);
        Ok(events)
    }

    fn apply(&mut self, events: Vec<Event>, now: Moment, effects: &mut Vec<Effect>) {
        for event in events {
            self.state.apply(event, now, &mut |effect| effects.push(effect));
        }
    }

    fn publish(&mut self, notify: &mut dyn FnMut(MirrorEvent)) {
        let Some(view) = self.state.view() else { return };
        let view = Arc::new(view);
        self.shared.publish(Arc::clone(&view));
        for (port, link) in &view.links {
            let now = (link.index, link.mac, link.mtu);
            let Some(told) = self.reported.insert(*port, now).filter(|told| *told != now) else { continue };
            if told.0 != now.0 {
                notify(MirrorEvent::TwinReplaced { port: *port });
            }
            if (told.1, told.2) != (now.1, now.2) {
                notify(MirrorEvent::TwinChanged { port: *port, mac: link.mac, mtu: link.mtu });
            }
        }
        notify(MirrorEvent::View(view));
    }

    fn sleep(&mut self) -> Result<(), NetlinkError> {
        let now = self.now();
        let resync = self.resync.map(|(due, _)| due);
        let next = [self.settler.deadline(), self.resolver.deadline(), self.state.next_withdrawal(), resync];
        let timeout = next.into_iter().flatten().min().map(|due| due.saturating_sub(now));
        let timeout =
            timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
        let mut fds = [
            PollFd::new(&self.hearing, PollFlags::IN),
            PollFd::new(&self.asking, PollFlags::IN),
            PollFd::new(&self.shared.wake, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        if !fds[2].revents().is_empty() {
            self.shared.awake();
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }
}
