//! Stage 4, schedule: a packet without a connection looks for a service, a template and a destination.

use super::{Slot, Turn};
use crate::address::Address;
use crate::connection::tcp::{self, State};
use crate::connection::{ConnectionId, Found, Line, NewConnection, Table, flags};
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::flow::{Tuple, port, protocol};
use crate::id::{DestinationSlot, Ticks};
use crate::packet::{Headers, Packet, WireAddress, source_mac, tcp as tcp_flags};
use crate::scheduler::{self, Own, Request};
use crate::snapshot::{DestinationView, Method, Persistence, ServiceView, Snapshot};
use crate::template::{TemplateError, TemplateHandle, TemplateKey};

/// Why no connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No service wants it.
    NotOurs,
    /// The service has no usable destination.
    NoDestination,
    /// Something is full.
    Drop(DropReason),
}

/// The destination of a new connection.
struct Choice {
    slot: DestinationSlot,
    template: Option<TemplateHandle>,
    /// Its place in the shared counts is reserved already.
    reserved: bool,
}

impl<P: Packet> Core<P> {
    /// Whether a connection that was found takes this packet. If not it is closed, and the packet looked at afresh.
    #[inline(always)]
    pub(super) fn usable<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        found: Found,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let line = table.line(found.id);
        let expired = line.is_expired(turn.now);
        let snapshot = turn.snapshot;
        // A server that was removed goes on answering, and its SYN opens nothing.
        let orphaned = snapshot.settings.expire_nodest_conn
            && !found.reverse
            && snapshot.destination(line.destination()).is_none_or(|destination| !destination.available);
        if expired
            || orphaned
            || (headers.tcp_flags & tcp_flags::SYN != 0
                && !found.reverse
                && is_reused(table, found, snapshot))
        {
            self.account_closed(table.line(found.id), turn.snapshot, turn.now);
            table.close(found.id);
            return false;
        }
        true
    }

    /// Opens a connection for the packet, where a service wants it.
    #[cold]
    pub(super) fn open<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        packet: &P,
        slot: &Slot<P>,
        turn: &mut Turn<'_, S>,
    ) -> Result<ConnectionId, Fate> {
        let tuple = A::tuple(&slot.headers, packet.data());
        let source_port = tuple.source_port;
        let snapshot = turn.snapshot;
        let service = snapshot.service_of(&tuple, slot.port).ok_or(Fate::NotOurs)?;
        let service = snapshot.service(service).ok_or(Fate::NotOurs)?;
        let from_nowhere = slot.headers.martian_source(packet.data());
        if source_port == port::FTP_DATA || from_nowhere || !opens(&slot.headers, snapshot) {
            return Err(Fate::NotOurs);
        }
        let choice = match service.persistence {
            Some(persistence) => self.choose_persistent(service, persistence, &tuple, turn),
            None => {
                let scheduled = self.schedule(service, &tuple, turn.now);
                scheduled.map(|(slot, reserved)| Choice { slot, template: None, reserved })
            }
        }?;
        let client_mac = source_mac(packet.data());
        self.commit(table, &tuple, slot, client_mac, &choice, turn)
    }

    /// The scheduler's choice, with its place in a bounded destination reserved.
    fn schedule<A: Address>(
        &mut self,
        service: &ServiceView,
        tuple: &Tuple<A>,
        now: Ticks,
    ) -> Result<(DestinationSlot, bool), Fate> {
        let cursor = &mut self.cursors[service.slot.index()];
        let request = Request {
            client: tuple.source.ip(),
            client_port: tuple.source_port,
            destination: tuple.destination.ip(),
            now,
        };
        let mut own = Own { cursor, random: &mut self.random, localities: &mut self.localities };
        // A destination that another worker fills between choice and reservation is overloaded in the next round.
        for _ in 0..=service.candidates.len() {
            let index =
                scheduler::choose(service, &request, &mut own, &*self.shared).ok_or(Fate::NoDestination)?;
            self.shared.publish_cursor(self.id, service.slot, own.cursor.position);
            let candidate = service.candidates[index];
            if !service.shared_counts {
                return Ok((candidate.slot, false));
            }
            self.shared.destinations.fold(self.id, candidate.slot);
            if service.scheduler.exceeds_thresholds() {
                self.shared.destinations.exceed(candidate.slot, candidate.upper_threshold);
                return Ok((candidate.slot, true));
            }
            if self.shared.destinations.reserve(candidate.slot, candidate.upper_threshold) {
                return Ok((candidate.slot, true));
            }
        }
        Err(Fate::NoDestination)
    }

    /// A persistent service: the client's template decides, whatever the destination's weight or load, and lives on for its
    /// whole timeout from now; without a template the scheduler decides and a template remembers it.
    fn choose_persistent<A: Address, S: Sink<P>>(
        &mut self,
        service: &ServiceView,
        persistence: Persistence,
        tuple: &Tuple<A>,
        turn: &mut Turn<'_, S>,
    ) -> Result<Choice, Fate> {
        let (client, virtual_address) = (tuple.source, tuple.destination);
        let key =
            TemplateKey::new(tuple.protocol, client, persistence.mask, virtual_address, service.key.port());
        let shared = self.shared.clone();
        if let Some((handle, slot)) = shared.templates.find(&key, turn.now) {
            if takes_templates(slot, turn.snapshot) {
                shared.templates.restart(handle, turn.now);
                self.counters().add(Counter::TemplateHits, 1);
                return Ok(self.by_template(service, slot, handle));
            }
            shared.templates.invalidate(handle);
        }
        let (slot, reserved) = self.schedule(service, tuple, turn.now)?;
        match shared.templates.insert(&key, slot, persistence.timeout, turn.now) {
            Ok((handle, winner, inserted)) => {
                if inserted {
                    shared
                        .destinations
                        .shared(slot)
                        .templates
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                if winner == slot {
                    return Ok(Choice { slot, template: Some(handle), reserved });
                }
                if reserved {
                    shared.destinations.release(slot);
                }
                Ok(self.by_template(service, winner, handle))
            }
            Err(error) => {
                if reserved {
                    shared.destinations.release(slot);
                }
                Err(Fate::Drop(match error {
                    TemplateError::Full => DropReason::TemplateFull,
                    TemplateError::Busy => DropReason::TemplateBusy,
                }))
            }
        }
    }

    /// A template's destination takes the connection above its threshold too; the count still reaches it.
    fn by_template(&self, service: &ServiceView, slot: DestinationSlot, template: TemplateHandle) -> Choice {
        if service.shared_counts {
            self.shared.destinations.fold(self.id, slot);
        }
        Choice { slot, template: Some(template), reserved: false }
    }

    /// Makes the connection and counts it.
    fn commit<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        tuple: &Tuple<A>,
        slot: &Slot<P>,
        client_mac: [u8; 6],
        choice: &Choice,
        turn: &mut Turn<'_, S>,
    ) -> Result<ConnectionId, Fate> {
        let template = choice.template.filter(|handle| self.shared.templates.attach(*handle));
        let state = tcp::initial(tuple.protocol);
        let view = turn.snapshot.destination(choice.slot);
        let method = view.map_or(Method::Direct, |view| view.method);
        let new = NewConnection {
            tuple: *tuple,
            server: view.and_then(|view| A::from_ip(view.server)).unwrap_or(tuple.destination),
            server_port: view
                .map_or(0, |view| server_port(view, tuple.destination_port, choice, turn.snapshot)),
            state,
            flags: method.flags() | flags::INACTIVE,
            timeout: tcp::timeout(state, &turn.snapshot.timeouts),
            destination: choice.slot,
            template: template.map_or(Line::<A>::NONE, TemplateHandle::index),
            side: Line::<A>::NONE,
            client_mac,
            ingress: slot.port,
            both_directions: method == Method::Masquerade,
        };
        let opened = table.open(slot.hash, &new, turn.now);
        let destinations = &self.shared.destinations;
        match opened {
            Ok(id) => {
                destinations.opened(self.id, choice.slot, tcp::activity(state), choice.reserved);
                self.counters().add(Counter::ConnectionsOpened, 1);
                Ok(id)
            }
            Err(_) => {
                if choice.reserved {
                    destinations.release(choice.slot);
                }
                if let Some(handle) = template {
                    self.shared.templates.detach(handle, turn.now);
                }
                Err(Fate::Drop(DropReason::TableFull))
            }
        }
    }
}

/// The port at the server's end. Without one of its own the destination keeps the port that was asked for; a persistent service
/// of many ports keeps it for all but its own.
fn server_port(destination: &DestinationView, asked: u16, choice: &Choice, snapshot: &Snapshot) -> u16 {
    let service = || snapshot.service(destination.service);
    let kept = choice.template.is_some() && service().is_some_and(|service| service.key.port() != asked);
    if kept || destination.server_port == 0 { asked } else { destination.server_port }
}

/// Whether the packet may open a connection: any datagram, a SYN without RST, with `sloppy_tcp` anything but RST.
fn opens(headers: &Headers, snapshot: &Snapshot) -> bool {
    if headers.protocol != protocol::TCP {
        return true;
    }
    headers.tcp_flags & tcp_flags::RST == 0
        && (headers.tcp_flags & tcp_flags::SYN != 0 || snapshot.settings.sloppy_tcp)
}

/// Whether a template may still lead to its destination.
fn takes_templates(slot: DestinationSlot, snapshot: &Snapshot) -> bool {
    snapshot.destination(slot).is_some_and(|destination| {
        destination.available && !(destination.quiesced && snapshot.settings.expire_quiescent_template)
    })
}

/// Whether a SYN means that the client uses its port again, so that the old connection gives way (`conn_reuse_mode`, and
/// `expire_nodest_conn` for quiesced destinations). Connections that a template controls are kept.
#[cold]
fn is_reused<A: Address>(table: &Table<A>, found: Found, snapshot: &Snapshot) -> bool {
    let line = table.line(found.id);
    let settings = &snapshot.settings;
    let quiesced =
        || snapshot.destination(line.destination()).is_some_and(|destination| destination.quiesced);
    if settings.expire_nodest_conn && quiesced() {
        return true;
    }
    if line.template() != Line::<A>::NONE || settings.conn_reuse_mode == 0 {
        return false;
    }
    match line.state() {
        State::TimeWait | State::Close => true,
        State::FinWait => settings.conn_reuse_mode & 2 != 0 && line.flags() & flags::NO_OUTPUT != 0,
        _ => false,
    }
}
