//! FTP's control connections through VS/NAT: data connections that are announced on them are expected, a server's address in
//! the text becomes the virtual one, and sequence numbers follow.
//!
//! As the kernel's helper does it, on services of port 21, and never for a segment whose checksum is wrong, which is dropped. The text
//! of a segment that is not all in the first buffer, or is in fragments, is not read.

use super::forward::{How, Outgoing};
use super::lengths::alone;
use super::{Slot, Turn};
use crate::address::Address;
use crate::connection::tcp::{self, State};
use crate::connection::{ConnectionId, Line, NewConnection, Table, flags};
use crate::counters::DropReason;
use crate::engine::{Core, Sink};
use crate::flow::{Tuple, port, protocol};
use crate::ftp::{self, Announced, Asked, Mode, Owner, is_after};
use crate::id::{DestinationSlot, Ticks};
use crate::packet::rewrite::resize;
use crate::packet::{Headers, Packet, WireAddress, datagram, tcp as tcp_flags};
use crate::snapshot::{DestinationView, Snapshot};
use std::net::IpAddr;
use std::ops::Range;

/// How long an announced data connection is waited for: the kernel's LISTEN.
const PATIENCE: u32 = 120 * Ticks::SECOND;

/// Whether a packet belongs to a control connection.
pub(super) const fn speaks(headers: &Headers, control_port: u16) -> bool {
    control_port == port::FTP && headers.protocol == protocol::TCP && !headers.later_fragment()
}

/// What becomes of a server's segment on a control connection.
pub(super) enum Heard {
    /// It goes on; its headers, where its length changed.
    Passes(Option<Headers>),
    /// It goes no further.
    Dropped(DropReason),
    /// With the virtual address in its text it would be longer than its link takes by so many bytes. Nothing has changed.
    TooLong(u16),
}

/// Length of a TCP header with options, in bytes.
fn header_length(data: &[u8], headers: &Headers) -> u16 {
    data.get(usize::from(headers.transport) + 12).map_or(0, |offset| u16::from(offset >> 4) * 4)
}

/// The text of a whole TCP segment: where it is in the frame.
fn text_of<P: Packet>(packet: &P, headers: &Headers) -> Option<Range<usize>> {
    let data = packet.data();
    let start = usize::from(headers.transport) + usize::from(header_length(data, headers));
    let text = start..usize::from(headers.network) + headers.ip_length as usize;
    let whole = packet.segments() == 1 && !headers.is_fragment();
    (whole && text.start <= text.end && text.end <= data.len()).then_some(text)
}

fn number(data: &[u8], at: usize) -> u32 {
    data.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

const fn acknowledges(headers: &Headers) -> bool {
    headers.tcp_flags & tcp_flags::ACK != 0
}

/// The sequence number behind a segment that begins with `sequence`.
fn end_of(sequence: u32, headers: &Headers, data: &[u8]) -> u32 {
    let flag = |flag: u8| u32::from(headers.tcp_flags & flag != 0);
    let length = headers.transport_length().saturating_sub(header_length(data, headers));
    sequence.wrapping_add(length.into()).wrapping_add(flag(tcp_flags::SYN) + flag(tcp_flags::FIN))
}

fn owner_of<A: Address>(table: &Table<A>, id: ConnectionId) -> Owner {
    Owner { id, generation: table.line(id).generation(), v6: A::LENGTH != 4 }
}

/// Whether a packet may be of a data connection, which another worker's control connection announced.
pub(super) fn may_be_announced(headers: &Headers, snapshot: &Snapshot) -> bool {
    let data_port = |number: u16| number == port::FTP_DATA || number >= 1024;
    headers.protocol == protocol::TCP
        && snapshot.index.has_ftp()
        && data_port(headers.source_port)
        && data_port(headers.destination_port)
}

impl<P: Packet> Core<P> {
    /// Stages 6 and 7 for a packet of a connection that is not direct routing's.
    #[inline(never)]
    pub(super) fn send_changed<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        packet: P,
        slot: &Slot<P>,
        (to, destination, how): (DestinationSlot, &DestinationView, How),
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let mut packet = packet;
        let headers = &slot.headers;
        self.keep_control(table, id, turn.now);
        if matches!(how, How::Masquerade { .. })
            && speaks(headers, headers.destination_port)
            && let Err(reason) = self.client_speaks(table, id, &mut packet, headers, turn)
        {
            self.discard(packet, reason);
            return false;
        }
        self.forward(Outgoing { packet, port: slot.port, headers, to, destination }, how, turn)
    }

    /// A packet of a data connection: its control connection, on which nothing is said meanwhile, lives on for a minute at least, as
    /// the kernel lets none go that controls others.
    pub(super) fn keep_control<A: Address>(&self, table: &mut Table<A>, id: ConnectionId, now: Ticks) {
        const KEPT: u32 = 60 * Ticks::SECOND;
        let handle = table.line(id).side();
        if handle == Line::<A>::NONE {
            return;
        }
        let Some(owner) = self.controls.owner(handle).filter(|owner| owner.v6 == (A::LENGTH != 4)) else {
            return;
        };
        let line = table.line(owner.id);
        let theirs = owner.id != id && line.generation() == owner.generation && line.side() == handle;
        if theirs && !line.is_expired(now) && line.deadline().since(now) < KEPT {
            table.touch(owner.id, KEPT, now);
        }
    }

    /// Whether the checksum of a segment is right. The packets behind a first fragment are waiting.
    fn is_intact(&self, packet: &P, headers: &Headers) -> bool {
        let first = alone(packet.data(), headers);
        let rest = self.rest.iter().map(|piece| (&piece.packet, &piece.headers));
        datagram::sum(std::iter::once((packet, &first)).chain(rest)) == 0xffff
    }

    /// A client's segment on a control connection, or why it goes no further. One that acknowledges what was never sent is heard, but
    /// the kernel's connection tracking lets it pass no more.
    fn client_speaks<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        packet: &mut P,
        headers: &Headers,
        turn: &Turn<'_, S>,
    ) -> Result<(), DropReason> {
        if !self.is_intact(packet, headers) {
            return Err(DropReason::TcpChecksum);
        }
        let handle = table.line(id).side();
        let owner = owner_of(table, id);
        let segment = usize::from(headers.transport);
        let mut passes = Ok(());
        if let Some(control) = self.controls.get(handle, owner) {
            let end = end_of(number(packet.data(), segment + 4), headers, packet.data());
            if let Some(data) = packet.data_mut().get_mut(segment..) {
                ftp::shift_acknowledgement(data, &control.shift);
                if acknowledges(headers) && is_after(number(data, 8), control.server_end) {
                    passes = Err(DropReason::OutOfWindow);
                }
            }
            if passes.is_ok() && is_after(end, control.client_end) {
                control.client_end = end;
            }
        }
        if table.line(id).state() != State::Established {
            return passes;
        }
        let text = text_of(packet, headers).and_then(|text| packet.data().get(text));
        match text.and_then(|text| ftp::asked(text, A::LENGTH != 4)) {
            Some(Asked::Passive) => self.set_mode(handle, owner, Mode::Passive),
            Some(Asked::ExtendedPassive) => self.set_mode(handle, owner, Mode::ExtendedPassive),
            Some(Asked::Active(client, client_port)) => {
                self.set_mode(handle, owner, Mode::Active);
                let line = table.line(id);
                let control = line.tuple();
                if let Some(source) = A::from_ip(client) {
                    let tuple = Tuple {
                        source,
                        source_port: client_port,
                        destination_port: control.destination_port.wrapping_sub(1),
                        ..control
                    };
                    let server = (line.server(), line.server_port().wrapping_sub(1));
                    self.expect(table, id, tuple, server, turn);
                }
            }
            None => {}
        }
        passes
    }

    fn set_mode(&mut self, handle: u32, owner: Owner, mode: Mode) {
        if let Some(control) = self.controls.get(handle, owner) {
            control.mode = mode;
        }
    }

    /// A server's segment on a control connection, before it gets the virtual address.
    #[cold]
    pub(super) fn server_speaks<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        packet: &mut P,
        headers: &Headers,
        mtu: u16,
        turn: &Turn<'_, S>,
    ) -> Heard {
        if !self.is_intact(packet, headers) {
            return Heard::Dropped(DropReason::TcpChecksum);
        }
        let data = packet.data();
        let segment = usize::from(headers.transport);
        let (sequence, acknowledged) = (number(data, segment + 4), number(data, segment + 8));
        let end = end_of(sequence, headers, data);
        let owner = owner_of(table, id);
        let handle = self.control_of(table, id, owner, (end, acknowledged));
        let Some((handle, control)) =
            handle.and_then(|handle| Some((handle, self.controls.get(handle, owner)?)))
        else {
            return Heard::Passes(None);
        };
        if acknowledges(headers) && is_after(acknowledged, control.client_end) {
            // The kernel's connection tracking does not believe it, and leaves it as it is.
            return Heard::Passes(None);
        }
        if is_after(end, control.server_end) {
            control.server_end = end;
        }
        let again = control.answered.filter(|(answered, _)| *answered == sequence);
        let mode = again.map_or(control.mode, |(_, mode)| mode);
        let established = table.line(id).state() == State::Established;
        let text = text_of(packet, headers).filter(|_| established && mode != Mode::Active);
        let answer = text.and_then(|text| {
            let said = ftp::announced(packet.data().get(text.clone())?, mode == Mode::ExtendedPassive)?;
            Some((text.start, said))
        });
        let mut changed = None;
        if let Some((text, said)) = answer {
            let name = virtual_name(table.line(id), &said);
            let length = name.map_or(0, |name| name.bytes().len());
            let growth = u32::try_from(length.saturating_sub(said.numbers.len())).unwrap_or(0);
            if headers.dont_fragment() && headers.ip_length + growth > mtu.into() {
                return Heard::TooLong(u16::try_from(growth).unwrap_or(0));
            }
            self.announce(table, id, &said, turn);
            let place = text + said.numbers.start..text + said.numbers.end;
            changed = name.and_then(|name| resize(packet, headers, place, name.bytes()));
            if let Some(control) = self.controls.get(handle, owner) {
                (control.answered, control.mode) = (Some((sequence, mode)), Mode::Active);
            }
        }
        if let Some(control) = self.controls.get(handle, owner) {
            if let Some(changed) = &changed {
                let growth = i64::from(changed.ip_length) - i64::from(headers.ip_length);
                control.shift.grow(sequence, i32::try_from(growth).unwrap_or(0));
            }
            if let Some(data) = packet.data_mut().get_mut(segment..) {
                ftp::shift_sequence(data, &control.shift);
            }
        }
        Heard::Passes(changed)
    }

    /// The entry of a control connection, made when its server first speaks.
    fn control_of<A: Address>(
        &mut self,
        table: &Table<A>,
        id: ConnectionId,
        owner: Owner,
        ends: (u32, u32),
    ) -> Option<u32> {
        let line = table.line(id);
        if self.controls.get(line.side(), owner).is_some() {
            return Some(line.side());
        }
        let lives = |other: &Owner| {
            // Of the other family nothing is known here; its entries are left alone.
            other.v6 != owner.v6 || table.line(other.id).generation() == other.generation
        };
        let handle = self.controls.insert(owner, ends, lives)?;
        line.set_side(handle);
        Some(handle)
    }

    /// The server waits for a data connection.
    fn announce<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        said: &Announced,
        turn: &Turn<'_, S>,
    ) {
        let line = table.line(id);
        let named = said.address.map(IpAddr::V4).and_then(A::from_ip);
        let server = (named.unwrap_or_else(|| line.server()), said.port);
        let tuple = Tuple { source_port: 0, destination_port: said.port, ..line.tuple() };
        self.expect(table, id, tuple, server, turn);
    }

    /// A data connection that is to come; with client port 0 from any port.
    fn expect<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        control: ConnectionId,
        tuple: Tuple<A>,
        (server, server_port): (A, u16),
        turn: &Turn<'_, S>,
    ) {
        let hash = table.hash(&tuple);
        if let Some(found) = table.find(hash, &tuple) {
            let line = table.line(found.id);
            if !line.is_expired(turn.now) {
                if line.state() != State::Listen {
                    self.change_state(line, line.state(), State::Listen);
                }
                return table.touch(found.id, PATIENCE, turn.now);
            }
            self.account_closed(line, turn.snapshot, turn.now);
            table.close(found.id);
        }
        let line = table.line(control);
        let (client_mac, ingress) = line.client_link();
        let unknown = if tuple.source_port == 0 { flags::NO_CLIENT_PORT } else { 0 };
        let destination = line.destination();
        let new = NewConnection {
            tuple,
            server,
            server_port,
            state: State::Listen,
            flags: flags::MASQUERADE | flags::INACTIVE | unknown,
            timeout: PATIENCE,
            destination,
            template: Line::<A>::NONE,
            side: line.side(),
            client_mac,
            ingress,
            both_directions: true,
        };
        if table.open(hash, &new, turn.now).is_ok() {
            self.shared.destinations.joined(self.id, destination, tcp::activity(State::Listen), false);
        }
    }

    /// The first packet of a data connection that a server waits for at this port: it gets the connection.
    pub(super) fn announced<A: WireAddress, S: Sink<P>>(
        &self,
        table: &mut Table<A>,
        packet: &P,
        slot: &Slot<P>,
        turn: &Turn<'_, S>,
    ) -> Option<ConnectionId> {
        if slot.headers.protocol != protocol::TCP || !turn.snapshot.index.has_ftp() {
            return None;
        }
        let tuple = A::tuple(&slot.headers, packet.data());
        let waiting = Tuple { source_port: 0, ..tuple };
        let found = table.find(table.hash(&waiting), &waiting).filter(|found| !found.reverse)?;
        let line = table.line(found.id);
        if line.is_expired(turn.now) || line.flags() & flags::NO_CLIENT_PORT == 0 {
            return None;
        }
        let (client_mac, ingress) = line.client_link();
        let new = NewConnection {
            tuple,
            server: line.server(),
            server_port: line.server_port(),
            state: line.state(),
            flags: line.flags() & !flags::NO_CLIENT_PORT,
            timeout: PATIENCE,
            destination: line.destination(),
            template: Line::<A>::NONE,
            side: line.side(),
            client_mac,
            ingress,
            both_directions: true,
        };
        // Its line is free at once for the connection that takes its place.
        table.close(found.id);
        table.open(slot.hash, &new, turn.now).ok()
    }
}

/// What a 227 is to name in the server's place; `None` where it names no address, or cannot name the virtual one.
fn virtual_name<A: Address>(line: &Line<A>, said: &Announced) -> Option<Name> {
    let IpAddr::V4(address) = line.tuple().destination.ip() else { return None };
    said.address?;
    let ([a, b, c, d], [high, low]) = (address.octets(), said.port.to_be_bytes());
    let mut name = Name::default();
    std::fmt::Write::write_fmt(&mut name, format_args!("{a},{b},{c},{d},{high},{low}")).ok()?;
    Some(name)
}

/// Address and port of a 227, at the longest `255,255,255,255,255,255`.
#[derive(Clone, Copy, Default)]
struct Name {
    text: [u8; 24],
    length: usize,
}

impl Name {
    fn bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or(&[])
    }
}

impl std::fmt::Write for Name {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let place = self.text.get_mut(self.length..self.length + part.len()).ok_or(std::fmt::Error)?;
        place.copy_from_slice(part.as_bytes());
        self.length += part.len();
        Ok(())
    }
}
