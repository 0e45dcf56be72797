//! Fragments: pieces of one datagram meet at its home, leave it together once they are all there, and are put in line again at
//! the flow's owner. There the first piece goes the way of a packet, with the whole datagram's length, and the rest follow it.

use super::Turn;
use super::own::Shard;
use crate::counters::DropReason;
use crate::engine::{Engine, Redirect, Redirected, Sink};
use crate::flow::{FlowKey, protocol};
use crate::id::{PortId, Ticks};
use crate::packet::{Family, Headers, Packet};
use crate::steering::fragments::{Fragment, FragmentKey, MOST_PIECES};

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
    const fn applied_to(self, headers: Headers) -> Headers {
        let Self { source_port, destination_port, protocol } = self;
        Headers { source_port, destination_port, protocol, ..headers.following() }
    }
}

/// A piece of a datagram on its way.
#[derive(Debug)]
pub(crate) struct Piece<P> {
    pub(crate) packet: P,
    /// Port it came in by.
    pub(crate) port: PortId,
    pub(super) headers: Headers,
}

impl<P: Packet> Piece<P> {
    /// Its part of the datagram's data; `None` when it is not all in the first segment.
    pub(super) fn part(&self) -> Option<&[u8]> {
        let Headers { network, ip_length, fragment_length, .. } = self.headers;
        let end = usize::from(network) + ip_length as usize;
        self.packet.data().get(end.checked_sub(fragment_length.into())?..end)
    }
}

/// Pieces that come one after the other, by where they come from: every home's, and those that another worker asks about.
#[derive(Debug)]
pub(crate) struct Lines<P> {
    lines: Box<[Vec<Piece<P>>]>,
    count: usize,
}

impl<P> Lines<P> {
    pub(crate) fn new(workers: u8) -> Self {
        let line = || Vec::with_capacity(MOST_PIECES.into());
        Self { lines: std::iter::repeat_with(line).take(usize::from(workers) + 1).collect(), count: 0 }
    }

    /// Pieces in all lines.
    pub(crate) fn len(&self) -> usize {
        self.count
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
                    self.piece_goes_on(Piece { packet, port, headers }, turn);
                }
                Fragment::Drop { packet: (packet, _), reason } => self.core.discard(packet, reason),
            }
        }
    }

    /// A piece of a whole datagram.
    fn piece_goes_on<S: Sink<P>>(&mut self, piece: Piece<P>, turn: &mut Turn<'_, S>) {
        let piece = Piece { headers: piece.headers.following(), ..piece };
        let Piece { packet, port, headers } = &piece;
        if !matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return self.core.not_ours(piece.port, piece.packet, &piece.headers, turn);
        }
        if self.core.owner.alone() {
            return self.line_up(self.core.id.index(), piece, 0, turn);
        }
        let key = headers.key(packet.data());
        match self.core.owner.of(&key, None, *port, turn.snapshot) {
            Shard::Of(owner) if owner != self.core.id => {
                let redirect = Redirect::FragmentToOwner(Learned::of(headers));
                let Piece { packet, port, .. } = piece;
                self.core.redirect(owner, Redirected { packet, port, redirect }, turn.sink);
            }
            Shard::Unknown => self.line_up(self.core.id.index(), piece, self.core.owner.others(), turn),
            _ => self.line_up(self.core.id.index(), piece, 0, turn),
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
        let home = self.core.home_of(&FragmentKey::new(packet.data(), &headers));
        let headers = learned.applied_to(headers);
        self.line_up(home.index(), Piece { packet, port, headers }, 0, turn);
    }

    /// A piece that another worker knows no connection for; `left` more may be asked.
    pub(super) fn piece_asked_about<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        (learned, left): (Learned, u8),
        turn: &mut Turn<'_, S>,
    ) {
        // Only one worker asks this one.
        let asked = self.lines.lines.len() - 1;
        let headers = learned.applied_to(headers);
        self.line_up(asked, Piece { packet, port, headers }, left, turn);
    }

    /// Puts a piece behind the one before it. What comes from one place comes in order; where a ring was full some are missing, and
    /// the others are of no use then.
    fn line_up<S: Sink<P>>(&mut self, line: usize, piece: Piece<P>, ask: u8, turn: &mut Turn<'_, S>) {
        let Some(pieces) = self.lines.lines.get_mut(line) else { return };
        let follows = match pieces.last() {
            Some(last) => follows(last, &piece),
            None => piece.headers.first_fragment(),
        };
        if !follows || pieces.len() == usize::from(MOST_PIECES) {
            self.lines.count -= pieces.len();
            for lost in pieces.drain(..) {
                self.core.discard(lost.packet, DropReason::FragmentOrphan);
            }
            if !piece.headers.first_fragment() {
                return self.core.discard(piece.packet, DropReason::FragmentOrphan);
            }
        }
        let last = !piece.headers.more_fragments();
        pieces.push(piece);
        self.lines.count += 1;
        if last {
            self.datagram(line, ask, turn);
        }
    }

    /// All pieces are in line: the first goes ahead.
    fn datagram<S: Sink<P>>(&mut self, line: usize, ask: u8, turn: &mut Turn<'_, S>) {
        // What came before goes before.
        self.flows(turn);
        let Some(pieces) = self.lines.lines.get_mut(line) else { return };
        self.lines.count -= pieces.len();
        let mut pieces = pieces.drain(..);
        let Some(Piece { packet, port, headers }) = pieces.next() else { return };
        self.core.rest.extend(pieces);
        let rest: u32 = self.core.rest.iter().map(|piece| u32::from(piece.headers.fragment_length)).sum();
        // The kernel's reassembly takes the fragment header out.
        let header = if headers.family == Family::V6 { 8 } else { 0 };
        let headers = headers.collected((headers.ip_length + rest).saturating_sub(header));
        self.enter(port, packet, headers, ask, turn);
        self.flows(turn);
        debug_assert!(self.core.rest.is_empty(), "a datagram that was left half way");
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
        self.lines.count = 0;
        for line in &mut self.lines.lines {
            for piece in line.drain(..) {
                self.core.discard(piece.packet, reason);
            }
        }
    }
}

/// Whether a piece is the next one of the same datagram.
fn follows<P: Packet>(last: &Piece<P>, piece: &Piece<P>) -> bool {
    let end = last.headers.fragment_offset.checked_add(last.headers.fragment_length);
    let key = |piece: &Piece<P>| FragmentKey::new(piece.packet.data(), &piece.headers);
    end == Some(piece.headers.fragment_offset) && last.headers.more_fragments() && key(last) == key(piece)
}
