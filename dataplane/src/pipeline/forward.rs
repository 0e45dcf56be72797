//! Stages 6 and 7, rewrite and transmit: VS/DR changes MAC addresses and the TTL, and nothing else.

use super::Turn;
use super::answer::Refused;
use super::parking::Parked;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Event, Sink};
use crate::exception::PuntClass;
use crate::id::{DestinationSlot, PortId};
use crate::packet::checksum::decrement_ttl;
use crate::packet::icmp::Report;
use crate::packet::{Headers, Packet};
use crate::snapshot::{DestinationView, NextHop};

impl<P: Packet> Core<P> {
    /// Sends a packet of a virtual service on to its destination; `false` when it goes elsewhere. The order of the checks is
    /// the kernel's.
    #[inline(always)]
    pub(super) fn forward<S: Sink<P>>(
        &mut self,
        mut packet: P,
        port: PortId,
        headers: &Headers,
        to: DestinationSlot,
        destination: &DestinationView,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        if let NextHop::Resolved { destination_mac, source_mac } = destination.next_hop
            && headers.ttl > 1
            && headers.ip_length <= destination.mtu.into()
        {
            let _ = decrement_ttl(packet.data_mut(), headers.network.into(), headers.family);
            set_macs(packet.data_mut(), destination_mac, source_mac);
            turn.sink.transmit(destination.port, packet);
            return true;
        }
        self.held_up(packet, port, headers, to, destination, turn);
        false
    }

    /// Not straight on: no way, or a local one, or the packet's fault, or the next hop's MAC is not known yet.
    #[cold]
    fn held_up<S: Sink<P>>(
        &mut self,
        packet: P,
        port: PortId,
        headers: &Headers,
        to: DestinationSlot,
        destination: &DestinationView,
        turn: &mut Turn<'_, S>,
    ) {
        let headers = *headers;
        match destination.next_hop {
            NextHop::NoRoute => self.discard(packet, DropReason::NoRoute),
            NextHop::Local => self.punt(PuntClass::Local, port, packet, turn.sink),
            _ if headers.ttl <= 1 => {
                let refused = Refused { packet, port, headers, reason: DropReason::TtlExceeded };
                self.answer(refused, Report::TimeExceeded, turn);
            }
            _ if headers.ip_length > destination.mtu.into() => {
                let refused = Refused { packet, port, headers, reason: DropReason::OverMtu };
                self.over_mtu(refused, destination.mtu, turn);
            }
            _ => self.park(Parked { packet, port, headers, destination: to, deadline: turn.now }, turn),
        }
    }

    /// Too long for the next link: the sender learns the MTU.
    #[cold]
    fn over_mtu<S: Sink<P>>(&mut self, refused: Refused<P>, mtu: u16, turn: &mut Turn<'_, S>) {
        if refused.headers.dont_fragment() {
            self.answer(refused, Report::TooBig { mtu }, turn);
        } else {
            self.discard(refused.packet, DropReason::OverMtu);
        }
    }

    /// The next hop has no MAC yet.
    #[cold]
    fn park<S: Sink<P>>(&mut self, parked: Parked<P>, turn: &mut Turn<'_, S>) {
        let destination = parked.destination;
        if !self.parking.waits_for(destination) && !turn.sink.event(Event::Unresolved(destination)) {
            self.counters().add(Counter::EventsLost, 1);
        }
        match self.parking.park(parked, turn.now) {
            Ok(()) => self.counters().add(Counter::Parked, 1),
            Err(packet) => self.discard(packet, DropReason::ParkedFull),
        }
    }

    /// Forwards what is resolved by now and drops what has waited long enough.
    pub(crate) fn unpark<S: Sink<P>>(&mut self, turn: &mut Turn<'_, S>) {
        let (snapshot, now) = (turn.snapshot, turn.now);
        let ready = |parked: &Parked<P>| {
            let destination = snapshot.destination(parked.destination);
            now.reached(parked.deadline)
                || destination.is_none_or(|view| !view.available || view.next_hop != NextHop::Unresolved)
        };
        while let Some(parked) = self.parking.take(ready) {
            self.leave_parking(parked, turn);
        }
    }

    fn leave_parking<S: Sink<P>>(&mut self, parked: Parked<P>, turn: &mut Turn<'_, S>) {
        let Parked { packet, port, headers, destination: to, .. } = parked;
        let Some(destination) = turn.snapshot.destination(to).filter(|view| view.available) else {
            return self.discard(packet, DropReason::DestinationRemoved);
        };
        if destination.next_hop == NextHop::Unresolved {
            return self.discard(packet, DropReason::NeighbourUnresolved);
        }
        if self.forward(packet, port, &headers, to, destination, turn) {
            self.counters().add(Counter::Forwarded, 1);
        }
    }
}

/// Writes both MAC addresses of a frame.
#[inline(always)]
fn set_macs(data: &mut [u8], destination: [u8; 6], source: [u8; 6]) {
    if let Some(macs) = data.first_chunk_mut::<12>() {
        let (to, from) = macs.split_at_mut(6);
        to.copy_from_slice(&destination);
        from.copy_from_slice(&source);
    }
}
