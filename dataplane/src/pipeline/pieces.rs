//! Fragments: pieces of one datagram meet at its home, learn their ports there and go on to the flow's owner, each by itself.

use super::Turn;
use super::own::Shard;
use crate::counters::DropReason;
use crate::engine::{Engine, Redirect, Redirected, Sink};
use crate::flow::{FlowKey, protocol};
use crate::id::{PortId, Ticks};
use crate::packet::{Headers, Packet};
use crate::steering::fragments::{Fragment, FragmentKey};

/// What a later piece knows from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// Source port of the datagram, host order.
    pub source_port: u16,
    /// Destination port of the datagram, host order.
    pub destination_port: u16,
    /// Its transport protocol.
    pub protocol: u8,
}

impl Learned {
    /// What the headers of a later piece know of the first one's.
    pub(super) const fn of(headers: &Headers) -> Self {
        let Headers { source_port, destination_port, protocol, .. } = *headers;
        Self { source_port, destination_port, protocol }
    }

    /// A piece's headers, with the ports of the first.
    pub(super) const fn applied_to(self, headers: Headers) -> Headers {
        let Self { source_port, destination_port, protocol } = self;
        Headers { source_port, destination_port, protocol, ..headers }
    }
}

impl<P: Packet> Engine<P> {
    /// A piece as it was received: to its home, if it is for a virtual address or from a masqueraded server.
    #[cold]
    pub(super) fn piece<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let key = headers.key(packet.data());
        let snapshot = turn.snapshot;
        let marked = match &key {
            FlowKey::V4(tuple) => snapshot.marks.may_cover(tuple),
            FlowKey::V6(tuple) => snapshot.marks.may_cover(tuple),
        };
        let virtual_ = marked || snapshot.virtual_addresses.contains(key.destination());
        if !virtual_ && !snapshot.servers.contains(key.source()) {
            return self.core.not_ours(port, packet, &headers, turn);
        }
        let home = self.core.home_of(&FragmentKey::new(packet.data(), &headers));
        if home == self.core.id {
            self.piece_at_home(port, packet, headers, turn);
        } else {
            self.core.redirect(
                home,
                Redirected { packet, port, redirect: Redirect::FragmentToHome },
                turn.sink,
            );
        }
    }

    /// A piece at its home, with what it sets free.
    pub(super) fn piece_at_home<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let key = FragmentKey::new(packet.data(), &headers);
        self.core.fragments.accept((packet, port), key, &headers, turn.now);
        while let Some(fragment) = self.core.fragments.pop() {
            match fragment {
                Fragment::Pass { packet: (packet, port), headers } => {
                    self.piece_goes_on(port, packet, headers, turn);
                }
                Fragment::Drop { packet: (packet, _), reason } => self.core.discard(packet, reason),
            }
        }
    }

    /// A piece whose ports are known.
    fn piece_goes_on<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        if !matches!(headers.protocol, protocol::TCP | protocol::UDP) {
            return self.core.not_ours(port, packet, &headers, turn);
        }
        let key = headers.key(packet.data());
        match self.core.owner.of(&key, None, port, turn.snapshot) {
            Shard::Of(owner) if owner != self.core.id => {
                let redirect = Redirect::FragmentToOwner(Learned::of(&headers));
                self.core.redirect(owner, Redirected { packet, port, redirect }, turn.sink);
            }
            Shard::Unknown => self.enter(port, packet, headers, self.core.owner.others(), turn),
            _ => self.enter(port, packet, headers, 0, turn),
        }
    }

    /// A piece from its home; this worker owns the flow.
    pub(super) fn piece_of_flow<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        learned: Learned,
        turn: &mut Turn<'_, S>,
    ) {
        self.enter(port, packet, learned.applied_to(headers), 0, turn);
    }

    /// Drops pieces that waited in vain.
    pub(crate) fn forget_pieces(&mut self, now: Ticks) {
        self.core.fragments.advance(now);
        self.discard_refused();
    }

    fn discard_refused(&mut self) {
        while let Some(Fragment::Drop { packet: (packet, _), reason }) = self.core.fragments.pop() {
            self.core.discard(packet, reason);
        }
    }

    /// Drops all pieces that are held.
    pub(crate) fn drop_pieces(&mut self, reason: DropReason) {
        self.core.fragments.clear(reason);
        self.discard_refused();
    }
}
