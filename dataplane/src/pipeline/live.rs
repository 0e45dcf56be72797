//! A connection was found: whether it takes the packet, and what becomes of one that nobody serves any more.

use super::lengths::alone;
use super::reply::ClientHop;
use super::{Slot, Turn};
use crate::address::Address;
use crate::connection::tcp::{self, Sender, State};
use crate::connection::{ConnectionId, Found, Line, Table, flags};
use crate::counters::{Activity, Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::flow::protocol;
use crate::id::{DestinationSlot, Ticks};
use crate::packet::checksum::decrement_ttl;
use crate::packet::{Headers, Packet, WireAddress, mss, tcp as tcp_flags};
use crate::snapshot::{NextHop, Snapshot};

/// What a connection that is closed gives back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    destination: DestinationSlot,
    activity: Activity,
    template: Option<u32>,
}

impl Leaving {
    pub(crate) fn of<A: Address>(line: &Line<A>) -> Self {
        Self {
            destination: line.destination(),
            activity: tcp::activity(line.state()),
            template: (line.template() != Line::<A>::NONE).then(|| line.template()),
        }
    }
}

impl<P: Packet> Core<P> {
    /// Whether a connection that was found takes this packet. If not it is closed, and the packet looked at afresh.
    #[inline(always)]
    pub(super) fn usable<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        found: Found,
        packet: &mut P,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let line = table.line(found.id);
        if line.is_expired(turn.now) {
            self.account_closed(line, turn.snapshot, turn.now);
            table.close(found.id);
            return false;
        }
        if headers.tcp_flags & tcp_flags::SYN != 0 {
            // A server's SYN or INIT opens nothing.
            if !found.reverse && is_reused(line, turn.snapshot) {
                self.give_way(table, found.id);
                return false;
            }
            self.clamp(line, packet.data_mut(), headers, turn.snapshot);
        }
        true
    }

    /// The MSS that a SYN of either end offers is at most what the connection's service allows, in a SYN that is sent again too.
    #[cold]
    pub(super) fn clamp<A: Address>(
        &self,
        line: &Line<A>,
        data: &mut [u8],
        headers: &Headers,
        snapshot: &Snapshot,
    ) {
        if headers.tcp_flags & tcp_flags::SYN == 0 || headers.protocol != protocol::TCP {
            return;
        }
        let destination = snapshot.destination(line.destination()).filter(|view| view.available);
        let service = destination.and_then(|view| snapshot.service(view.service));
        let Some(most) = service.and_then(|service| service.mss_clamp) else { return };
        let headers = alone(data, headers);
        if mss::clamp(data, &headers, most) {
            self.counters().add(Counter::MssClamped, 1);
        }
    }

    /// Closes a connection in favour of the next one of the same tuple. As in the kernel it is counted until that has been
    /// scheduled: [`Self::settle`] is to be called then.
    #[cold]
    fn give_way<A: Address>(&mut self, table: &mut Table<A>, id: ConnectionId) {
        self.leaving = Some(Leaving::of(table.line(id)));
        table.close(id);
    }

    /// Takes the connection that gave way out of the counts.
    pub(super) fn settle(&mut self, snapshot: &Snapshot, now: Ticks) {
        if let Some(leaving) = self.leaving.take() {
            self.account(leaving, snapshot, now);
        }
    }

    /// A packet of a connection whose destination is not there.
    #[cold]
    #[inline(never)]
    pub(super) fn unserved<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        if !turn.snapshot.index.has_family(A::LENGTH != 4) {
            // Without any service there is no director in the packet's way.
            return self.not_ours(slot.port, packet, &slot.headers, turn);
        }
        if table.line(id).flags() & flags::METHOD == flags::BYPASS {
            self.track(table, id, &slot.headers, Sender::Client, turn);
            return self.bypass(packet, slot, forwarded, turn);
        }
        if turn.snapshot.settings.expire_nodest_conn {
            self.give_way(table, id);
            return self.missed(table, packet, slot, forwarded, turn);
        }
        self.discard(packet, DropReason::DestinationRemoved);
    }

    /// On by route, past all servers. What cannot simply go on is left to the host's stack, which knows that way too.
    fn bypass<S: Sink<P>>(
        &mut self,
        mut packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        let headers = &slot.headers;
        let key = headers.key(packet.data());
        let address = key.destination();
        let route = turn.snapshot.routes.of_flow(key.source(), address).filter(|route| {
            let leads_on = matches!(route.next_hop, NextHop::Resolved { .. } | NextHop::Unresolved);
            leads_on && !headers.needs_care() && headers.ttl > 1 && headers.ip_length <= route.mtu.into()
        });
        let Some(route) = route else {
            return self.not_ours(slot.port, packet, headers, turn);
        };
        let via = route.via.unwrap_or(address);
        let hop = ClientHop { next_hop: route.next_hop, via, port: route.port, mtu: route.mtu };
        let _ = decrement_ttl(packet.data_mut(), headers.network.into(), headers.family);
        *forwarded += u64::from(self.send_to_client(packet, slot.port, headers, hop, turn));
    }

    /// Gives back what a connection held; the caller closes it.
    pub(crate) fn account_closed<A: Address>(&self, line: &Line<A>, snapshot: &Snapshot, now: Ticks) {
        self.account(Leaving::of(line), snapshot, now);
    }

    fn account(&self, leaving: Leaving, snapshot: &Snapshot, now: Ticks) {
        let Leaving { destination: slot, activity, template } = leaving;
        if slot != DestinationSlot::NONE {
            let view = snapshot.destination(slot);
            let thresholds = view.map(|view| (view.upper_threshold, view.lower_threshold));
            let (upper, lower) = thresholds.unwrap_or_default();
            self.shared.destinations.closed(self.id, slot, activity, upper, lower);
        }
        if let Some(template) = template {
            self.shared.templates.release(template, now);
        }
        self.counters().add(Counter::ConnectionsClosed, 1);
    }
}

/// Whether a SYN means that the client uses its port again, so that the old connection gives way (`conn_reuse_mode`, and
/// `expire_nodest_conn` for quiesced destinations). Connections that a template controls are kept.
#[cold]
fn is_reused<A: Address>(line: &Line<A>, snapshot: &Snapshot) -> bool {
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
        State::TimeWait | State::Close | State::SctpClosed => true,
        State::FinWait => settings.conn_reuse_mode & 2 != 0 && line.flags() & flags::NO_OUTPUT != 0,
        _ => false,
    }
}
