//! Stage 4, schedule: a packet without a connection looks for a service, a template and a destination.

use super::forward::How;
use super::{Slot, Turn};
use crate::address::Address;
use crate::connection::tcp::{self, Sender, State};
use crate::connection::{ConnectionId, FlowHash, Line, NewConnection, Table, flags};
use crate::counters::{Activity, Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::flow::{Tuple, port, protocol};
use crate::id::{DestinationSlot, PortId};
use crate::packet::sctp::Event;
use crate::packet::{Headers, Packet, WireAddress, source_mac, tcp as tcp_flags};
use crate::scheduler::{self, Own, Request};
use crate::snapshot::{DestinationView, Method, ServiceView, Snapshot};
use crate::template::TemplateHandle;

/// Milliseconds that a connection lives whose first packet has not been tracked: one opened by an ICMP error.
const UNTRACKED: u32 = 3_000;

/// Why no connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No service wants it.
    NotOurs,
    /// The service has no usable destination.
    NoDestination,
    /// Something is full, or `drop_packet` is at work.
    Drop(DropReason),
}

/// What became of a packet that a service wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// There is a connection now, which has not seen its first packet.
    Connection(ConnectionId),
    /// There is one that has.
    Tracked(ConnectionId),
    /// One-packet scheduling: this packet goes there, and nothing remains.
    Once(DestinationSlot, How),
}

/// What opens a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opener<'a, A> {
    /// From the client to the virtual service.
    pub(super) tuple: Tuple<A>,
    pub(super) hash: FlowHash,
    pub(super) port: PortId,
    pub(super) client_mac: [u8; 6],
    /// The connection's first packet; `None` for an ICMP error about such a connection (`schedule_icmp`).
    pub(super) first: Option<&'a Headers>,
}

/// The destination of a new connection.
pub(super) struct Choice {
    pub(super) slot: DestinationSlot,
    pub(super) template: Option<TemplateHandle>,
    /// Its place in the shared counts is reserved already.
    pub(super) reserved: bool,
}

impl<P: Packet> Core<P> {
    /// Opens a connection for the packet, where a service wants it.
    #[cold]
    pub(super) fn open<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        packet: &P,
        slot: &Slot<P>,
        turn: &mut Turn<'_, S>,
    ) -> Result<Opened, Fate> {
        let data = packet.data();
        if slot.headers.martian_source(data) || !opens(&slot.headers, turn.snapshot) {
            return Err(without_chunk(&slot.headers, data, turn.snapshot));
        }
        let request = Opener {
            tuple: A::tuple(&slot.headers, data),
            hash: slot.hash,
            port: slot.port,
            client_mac: source_mac(data),
            first: Some(&slot.headers),
        };
        self.open_for(table, &request, turn)
    }

    /// The same, with all that is needed of the packet.
    pub(super) fn open_for<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        request: &Opener<'_, A>,
        turn: &mut Turn<'_, S>,
    ) -> Result<Opened, Fate> {
        let tuple = &request.tuple;
        let service = turn.snapshot.service_of(tuple, request.port).ok_or(Fate::NotOurs)?;
        let service = turn.snapshot.service(service).ok_or(Fate::NotOurs)?;
        if self.defence.drops_packet() {
            return Err(Fate::Drop(DropReason::Defence));
        }
        // FTP's data connections are opened by the server.
        if tuple.source_port == port::FTP_DATA {
            return Err(Fate::NotOurs);
        }
        let chosen = match service.persistence {
            Some(persistence) => self.choose_persistent(service, persistence, tuple, turn),
            // Another port than the service's: only a persistent service takes those.
            None if service.key.mark() == 0 && service.key.port() != tuple.destination_port => {
                Err(Fate::NoDestination)
            }
            None => {
                let scheduled = self.schedule(service, tuple, turn);
                scheduled.map(|(slot, reserved)| Choice { slot, template: None, reserved })
            }
        };
        match chosen {
            Ok(choice) if service.one_packet && tuple.protocol == protocol::UDP => {
                Ok(self.use_once(&choice, service, tuple.destination_port, turn))
            }
            Ok(choice) => self.commit(table, request, service, &choice, turn),
            Err(Fate::NoDestination) => self.leave(table, request, service, turn),
            Err(fate) => Err(fate),
        }
    }

    /// The scheduler's choice, with its place in a bounded destination reserved.
    pub(super) fn schedule<A: Address, S>(
        &mut self,
        service: &ServiceView,
        tuple: &Tuple<A>,
        turn: &Turn<'_, S>,
    ) -> Result<(DestinationSlot, bool), Fate> {
        let cursor = &mut self.cursors[service.slot.index()];
        let request = Request {
            client: tuple.source.ip(),
            client_port: tuple.source_port,
            destination: tuple.destination.ip(),
            now: turn.now,
        };
        let mut own = Own {
            cursor,
            random: &mut self.random,
            localities: &mut self.localities,
            standings: &mut self.standings,
        };
        let loads = &self.shared.destinations;
        // A destination that another worker fills between choice and reservation is overloaded in the next round.
        for _ in 0..=service.candidates.len() {
            let index = scheduler::choose(service, &request, &mut own, loads).ok_or(Fate::NoDestination)?;
            self.shared.publish_cursor(self.id, service.slot, own.cursor.position);
            let candidate = service.candidates[index];
            if !service.shared_counts {
                return Ok((candidate.slot, false));
            }
            self.shared.destinations.fold(self.id, candidate.slot);
            let (upper, lower) = thresholds(turn.snapshot, candidate.slot);
            if service.scheduler.exceeds_thresholds() {
                self.shared.destinations.exceed(candidate.slot, upper, lower);
                return Ok((candidate.slot, true));
            }
            if self.shared.destinations.reserve(candidate.slot, upper, lower) {
                return Ok((candidate.slot, true));
            }
        }
        Err(Fate::NoDestination)
    }

    /// The service has nobody for the packet (`ip_vs_leave`).
    fn leave<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        request: &Opener<'_, A>,
        service: &ServiceView,
        turn: &mut Turn<'_, S>,
    ) -> Result<Opened, Fate> {
        let Tuple { destination, destination_port, .. } = request.tuple;
        let elsewhere = || !destination.ip().is_multicast() && !turn.snapshot.is_local(destination.ip());
        if turn.snapshot.settings.cache_bypass && service.key.mark() != 0 && elsewhere() {
            let choice = Choice { slot: DestinationSlot::NONE, template: None, reserved: false };
            return self.commit(table, request, service, &choice, turn);
        }
        if service.key.port() == port::FTP && destination_port != port::FTP {
            return Err(Fate::NotOurs);
        }
        Err(if request.first.is_none() { Fate::Drop(DropReason::NoDestination) } else { Fate::NoDestination })
    }

    /// One-packet scheduling: a connection that is closed as soon as it was opened.
    fn use_once<S: Sink<P>>(
        &self,
        choice: &Choice,
        service: &ServiceView,
        asked_for: u16,
        turn: &Turn<'_, S>,
    ) -> Opened {
        let view = turn.snapshot.destination(choice.slot).copied().unwrap_or_default();
        let activity = tcp::activity(State::Udp);
        let destinations = &self.shared.destinations;
        destinations.opened(self.id, choice.slot, activity, choice.reserved);
        destinations.closed(self.id, choice.slot, activity, view.upper_threshold, view.lower_threshold);
        self.counters().add(Counter::ConnectionsOpened, 1);
        self.counters().add(Counter::ConnectionsClosed, 1);
        let how = match view.method {
            Method::Direct => How::Direct,
            Method::Masquerade => {
                How::Masquerade { server: view.server, port: server_port(&view, service, asked_for) }
            }
            Method::Tunnel(_) => How::Tunnel,
        };
        Opened::Once(choice.slot, how)
    }

    /// Makes the connection and counts it.
    fn commit<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        request: &Opener<'_, A>,
        service: &ServiceView,
        choice: &Choice,
        turn: &mut Turn<'_, S>,
    ) -> Result<Opened, Fate> {
        let tuple = &request.tuple;
        let template = choice.template.filter(|handle| self.shared.templates.attach(*handle));
        let view = turn.snapshot.destination(choice.slot);
        let method = view.map_or(flags::BYPASS, |view| view.method.flags());
        let followed = request.first.filter(|_| view.is_some());
        let followed = followed.and_then(|headers| after_first(headers, method, self.defence.secure_tcp));
        let state = followed.unwrap_or_else(|| tcp::initial(tuple.protocol));
        let activity = tcp::activity(state);
        let inactive = if activity == Activity::Inactive { flags::INACTIVE } else { 0 };
        let timeouts = &turn.snapshot.timeouts;
        let timeout = request.first.map_or(UNTRACKED, |_| tcp::timeout(state, timeouts));
        let new = NewConnection {
            tuple: *tuple,
            server: view.and_then(|view| A::from_ip(view.server)).unwrap_or_else(|| A::from_words([0; 4])),
            server_port: view.map_or(0, |view| server_port(view, service, tuple.destination_port)),
            state,
            flags: inactive | method,
            timeout,
            destination: choice.slot,
            template: template.map_or(Line::<A>::NONE, TemplateHandle::index),
            side: Line::<A>::NONE,
            client_mac: request.client_mac,
            ingress: request.port,
            both_directions: view.is_some_and(|view| view.method == Method::Masquerade),
        };
        let mut opened = table.open(request.hash, &new, turn.now);
        if opened.is_err() && self.make_room(table, turn.snapshot, turn.now) {
            opened = table.open(request.hash, &new, turn.now);
        }
        let destinations = &self.shared.destinations;
        match opened {
            Ok(id) => {
                if view.is_some() {
                    destinations.opened(self.id, choice.slot, activity, choice.reserved);
                }
                self.counters().add(Counter::ConnectionsOpened, 1);
                if followed.is_none() {
                    return Ok(Opened::Connection(id));
                }
                table.line(id).count_packet();
                if let Some(handle) = template.filter(|_| state == State::Established) {
                    self.shared.templates.set_assured(handle.index());
                }
                Ok(Opened::Tracked(id))
            }
            Err(_) => {
                if choice.reserved {
                    let (upper, lower) = thresholds(turn.snapshot, choice.slot);
                    destinations.release(choice.slot, upper, lower);
                }
                if let Some(handle) = template {
                    self.shared.templates.detach(handle, turn.now);
                }
                Err(Fate::Drop(DropReason::TableFull))
            }
        }
    }
}

/// A destination's upper and lower threshold.
pub(super) fn thresholds(snapshot: &Snapshot, slot: DestinationSlot) -> (u32, u32) {
    snapshot.destination(slot).map_or((0, 0), |view| (view.upper_threshold, view.lower_threshold))
}

/// The port a connection has at its server: the server's, where the service has one port or none is persistent; the port the
/// client asked for, where that is not the service's or the server has none of its own.
fn server_port(view: &DestinationView, service: &ServiceView, asked_for: u16) -> u16 {
    let own = service.persistence.is_none() || asked_for == service.key.port();
    if own && view.server_port != 0 { view.server_port } else { asked_for }
}

/// The state of a connection after its first packet, so that it is counted and filed in the timing wheel once, not anew when that
/// packet is tracked. SCTP's is left to that, as is a piece without TCP header.
#[inline]
fn after_first(headers: &Headers, method: u32, secure: bool) -> Option<State> {
    match headers.protocol {
        protocol::UDP => Some(State::Udp),
        protocol::TCP if !headers.later_fragment() => {
            Some(tcp::next(State::None, method, Sender::Client, headers.tcp_flags, secure).0)
        }
        _ => None,
    }
}

/// Whether this is an SCTP packet without a chunk.
fn is_empty(headers: &Headers) -> bool {
    headers.protocol == protocol::SCTP && Event::from_number(headers.icmp_type).is_none()
}

/// What becomes of a packet that opens nothing: an SCTP packet to a virtual address that ends before its first chunk is dropped, as in
/// the kernel; others are not ours.
fn without_chunk(headers: &Headers, data: &[u8], snapshot: &Snapshot) -> Fate {
    if is_empty(headers) && snapshot.virtual_addresses.contains(headers.key(data).destination()) {
        Fate::Drop(DropReason::Malformed)
    } else {
        Fate::NotOurs
    }
}

/// Whether the packet may open a connection: any datagram, a SYN without RST or an INIT, with
/// `sloppy_tcp` and `sloppy_sctp` anything but RST and ABORT.
fn opens(headers: &Headers, snapshot: &Snapshot) -> bool {
    let sloppy = match headers.protocol {
        protocol::TCP => snapshot.settings.sloppy_tcp,
        protocol::SCTP => snapshot.settings.sloppy_sctp,
        _ => return !headers.is_follower(),
    };
    headers.tcp_flags & tcp_flags::RST == 0
        && !is_empty(headers)
        && (sloppy || headers.tcp_flags & tcp_flags::SYN != 0)
}
