//! One connection in memory.

use super::ConnectionId;
use super::tcp::State;
use crate::address::{Address, Cells};
use crate::flow::Tuple;
use crate::id::{DestinationSlot, PortId, Ticks};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use zerocopy::FromBytes;

/// The kernel's connection flags (`IP_VS_CONN_F_*`), with its values.
pub mod flags {
    /// Masquerading (method in the low three bits).
    pub const MASQUERADE: u32 = 0;
    /// The destination is this host.
    pub const LOCAL: u32 = 1;
    /// Tunnelling.
    pub const TUNNEL: u32 = 2;
    /// Direct routing.
    pub const DIRECT: u32 = 3;
    /// Forwarded by route, no destination.
    pub const BYPASS: u32 = 4;
    /// The bits of the forwarding method.
    pub const METHOD: u32 = 7;
    /// Made by the sync daemon.
    pub const SYNC: u32 = 0x20;
    /// In the index.
    pub const HASHED: u32 = 0x40;
    /// No reply has been seen here.
    pub const NO_OUTPUT: u32 = 0x80;
    /// Not in an active state.
    pub const INACTIVE: u32 = 0x100;
    /// The client's port is not known yet.
    pub const NO_CLIENT_PORT: u32 = 0x800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// For one packet only.
    pub const ONE_PACKET: u32 = 0x2000;
}

/// What names a connection that is to be opened, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewConnection<A> {
    /// From the client to the virtual service.
    pub tuple: Tuple<A>,
    /// The destination's address.
    pub server: A,
    /// The destination's port.
    pub server_port: u16,
    /// First state.
    pub state: State,
    /// The kernel's flag word, see [`flags`].
    pub flags: u32,
    /// Milliseconds without a packet after which it expires.
    pub timeout: u32,
    /// The destination.
    pub destination: DestinationSlot,
    /// Handle of its persistence template, [`Line::NONE`]: none.
    pub template: u32,
    /// Handle into a side table, [`Line::NONE`]: none.
    pub side: u32,
    /// Source MAC of its first packet.
    pub client_mac: [u8; 6],
    /// Port at which its first packet came.
    pub ingress: PortId,
    /// Whether replies are to be found too.
    pub both_directions: bool,
}

/// One connection: a cache line for IPv4, two for IPv6 with all that forwarding reads in the first.
///
/// One thread, the owning worker, writes; others read through [`super::Slab::read`]. The generation is odd while the line
/// is a connection and grows whenever that changes.
#[derive(Debug, FromBytes)]
#[repr(C, align(64))]
pub struct Line<A: Address> {
    /// The client's address and the virtual one.
    ends: A::EndsCells,
    /// Bits 0-39 protocol, virtual port and client port as [`crate::flow::names`] has them, 40-47 state, 48-63 server port.
    names: AtomicU64,
    flags: AtomicU32,
    generation: AtomicU32,
    last_seen: AtomicU32,
    timeout: AtomicU32,
    destination: AtomicU32,
    packets_in: AtomicU32,
    server: A::Cells,
    /// Deadline of the wheel entry that counts, in the wheel's form; 0: none. Belongs to the line, not to the connection.
    filed: AtomicU32,
    template: AtomicU32,
    /// Handle into a side table; chains free lines.
    side: AtomicU32,
    /// Bytes 0-5 client MAC, 6 ingress port, 7 marks.
    link: AtomicU64,
}

/// The bits of a line's names that a packet carries.
const CARRIED: u64 = (1 << 40) - 1;
const STATE_SHIFT: u32 = 40;
const SERVER_PORT_SHIFT: u32 = 48;

/// Mark: replies are in the index too.
const MARK_BOTH: u64 = 1 << 56;

impl<A: Address> Line<A> {
    /// No template, no side entry.
    pub const NONE: u32 = u32::MAX;

    /// The client's end and the virtual one, as the client's packets carry them.
    #[inline(always)]
    #[must_use]
    pub fn tuple(&self) -> Tuple<A> {
        let (source, destination) = A::split(self.ends.load());
        Tuple::named(source, destination, self.names.load(Relaxed))
    }

    /// Whether the client's packets carry this tuple.
    #[inline(always)]
    #[must_use]
    pub(super) fn is_of(&self, tuple: &Tuple<A>) -> bool {
        self.ends.load() == tuple.ends() && self.names.load(Relaxed) & CARRIED == tuple.names()
    }

    /// The server's end and the client's, as a masqueraded server's packets carry them.
    #[inline(always)]
    #[must_use]
    pub fn reply_tuple(&self) -> Tuple<A> {
        let Tuple { source: client, source_port, protocol, .. } = self.tuple();
        Tuple {
            source: self.server.load(),
            destination: client,
            source_port: self.server_port(),
            destination_port: source_port,
            protocol,
        }
    }

    /// The destination's address.
    #[inline(always)]
    #[must_use]
    pub fn server(&self) -> A {
        self.server.load()
    }

    /// The destination's port.
    #[inline(always)]
    #[must_use]
    pub fn server_port(&self) -> u16 {
        (self.names.load(Relaxed) >> SERVER_PORT_SHIFT) as u16
    }

    /// The state.
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> State {
        State::from_number(self.state_number())
    }

    /// Whether the state is one that a steady packet ([`crate::packet::Headers::is_steady`]) leaves as it is: TCP's ESTABLISHED, and
    /// that of UDP.
    #[inline(always)]
    #[must_use]
    pub fn is_steady(&self) -> bool {
        let state = self.state_number();
        state == State::Established as u8 || state == State::Udp as u8
    }

    #[inline(always)]
    fn state_number(&self) -> u8 {
        self.names.load(Relaxed).to_le_bytes()[5]
    }

    /// Sets the state.
    #[inline(always)]
    pub fn set_state(&self, state: State) {
        let others = self.names.load(Relaxed) & !(0xff << STATE_SHIFT);
        self.names.store(others | (state as u64) << STATE_SHIFT, Relaxed);
    }

    /// The kernel's flag word, see [`flags`].
    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }

    /// Sets the flag word.
    #[inline(always)]
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Relaxed);
    }

    /// Odd while the line is a connection; tells it from those before and after it in the same line.
    #[inline(always)]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    /// Whether the line is a connection.
    #[inline(always)]
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.generation() & 1 == 1
    }

    /// When the last packet came.
    #[inline(always)]
    #[must_use]
    pub fn last_seen(&self) -> Ticks {
        Ticks(self.last_seen.load(Relaxed))
    }

    /// Milliseconds without a packet after which it expires.
    #[inline(always)]
    #[must_use]
    pub fn timeout(&self) -> u32 {
        self.timeout.load(Relaxed)
    }

    /// When it expires if no packet comes.
    #[inline(always)]
    #[must_use]
    pub fn deadline(&self) -> Ticks {
        self.last_seen().after(self.timeout())
    }

    /// Whether it has seen no packet for its timeout.
    #[inline(always)]
    #[must_use]
    pub fn is_expired(&self, now: Ticks) -> bool {
        now.since(self.last_seen()) >= self.timeout()
    }

    /// The destination.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> DestinationSlot {
        DestinationSlot(self.destination.load(Relaxed))
    }

    /// Packets from the client, wrapping.
    #[inline(always)]
    #[must_use]
    pub fn packets_in(&self) -> u32 {
        self.packets_in.load(Relaxed)
    }

    /// Counts one packet from the client; the new count.
    #[inline(always)]
    pub fn count_packet(&self) -> u32 {
        let count = self.packets_in().wrapping_add(1);
        self.packets_in.store(count, Relaxed);
        count
    }

    /// Handle of its persistence template, [`Line::NONE`]: none.
    #[inline(always)]
    #[must_use]
    pub fn template(&self) -> u32 {
        self.template.load(Relaxed)
    }

    /// Handle into a side table, [`Line::NONE`]: none.
    #[inline(always)]
    #[must_use]
    pub fn side(&self) -> u32 {
        self.side.load(Relaxed)
    }

    /// Sets the handle into a side table.
    #[inline(always)]
    pub fn set_side(&self, side: u32) {
        self.side.store(side, Relaxed);
    }

    /// The client's MAC and the port it is reached through.
    #[inline(always)]
    #[must_use]
    pub fn client_link(&self) -> ([u8; 6], PortId) {
        unpack_link(self.link.load(Relaxed))
    }

    /// Whether replies are in the index too.
    #[inline(always)]
    pub(super) fn both_directions(&self) -> bool {
        self.link.load(Relaxed) & MARK_BOTH != 0
    }

    /// A packet came; whether its connection already lives as long without one as it is to from now on. If not, the table has to be told
    /// ([`super::Table::change_timeout`]).
    #[inline(always)]
    #[must_use]
    pub fn touch(&self, timeout: u32, now: Ticks) -> bool {
        self.set_last_seen(now);
        self.timeout() == timeout
    }

    #[inline(always)]
    pub(super) fn set_last_seen(&self, now: Ticks) {
        self.last_seen.store(now.0, Relaxed);
    }

    pub(super) fn set_timeout(&self, timeout: u32) {
        self.timeout.store(timeout, Relaxed);
    }

    #[inline(always)]
    pub(super) fn filed(&self) -> u32 {
        self.filed.load(Relaxed)
    }

    pub(super) fn set_filed(&self, filed: u32) {
        self.filed.store(filed, Relaxed);
    }

    /// Makes the line a connection, whose timeout is another one than `new` says where that is too long. It was none.
    pub(super) fn fill(&self, new: &NewConnection<A>, timeout: u32, now: Ticks) {
        self.ends.store(new.tuple.ends());
        let kept = (new.state as u64) << STATE_SHIFT | u64::from(new.server_port) << SERVER_PORT_SHIFT;
        self.names.store(new.tuple.names() | kept, Relaxed);
        self.set_flags(new.flags);
        self.set_last_seen(now);
        self.set_timeout(timeout);
        self.destination.store(new.destination.0, Relaxed);
        self.packets_in.store(0, Relaxed);
        self.server.store(new.server);
        self.template.store(new.template, Relaxed);
        self.set_side(new.side);
        let marks = if new.both_directions { MARK_BOTH } else { 0 };
        self.link.store(pack_link(new.client_mac, new.ingress) | marks, Relaxed);
        self.generation.store(self.generation().wrapping_add(1), Release);
    }

    /// Ends the connection. What is written to the line later is seen after this by every reader.
    pub(super) fn empty(&self) {
        self.generation.store(self.generation().wrapping_add(1), Relaxed);
        fence(Release);
    }

    /// Reads the line beside its writer, see [`super::Slab::read`].
    pub(super) fn read(&self, id: ConnectionId) -> Option<ConnectionView<A>> {
        let generation = self.generation.load(Acquire);
        if generation & 1 == 0 {
            return None;
        }
        let (client_mac, ingress) = self.client_link();
        let view = ConnectionView {
            id,
            generation,
            tuple: self.tuple(),
            server: self.server(),
            server_port: self.server_port(),
            state: self.state(),
            flags: self.flags(),
            last_seen: self.last_seen(),
            timeout: self.timeout(),
            destination: self.destination(),
            packets_in: self.packets_in(),
            template: self.template(),
            client_mac,
            ingress,
        };
        fence(Acquire);
        (self.generation() == generation).then_some(view)
    }
}

fn pack_link(mac: [u8; 6], ingress: PortId) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, ingress.0, 0])
}

fn unpack_link(link: u64) -> ([u8; 6], PortId) {
    let [a, b, c, d, e, f, port, _] = link.to_le_bytes();
    ([a, b, c, d, e, f], PortId(port))
}

/// A connection as a listing sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionView<A> {
    /// Its line.
    pub id: ConnectionId,
    /// Tells it from others in the same line.
    pub generation: u32,
    /// From the client to the virtual service.
    pub tuple: Tuple<A>,
    /// The destination's address.
    pub server: A,
    /// The destination's port.
    pub server_port: u16,
    /// Its state.
    pub state: State,
    /// The kernel's flag word, see [`flags`].
    pub flags: u32,
    /// When its last packet came.
    pub last_seen: Ticks,
    /// Milliseconds without a packet after which it expires.
    pub timeout: u32,
    /// The destination.
    pub destination: DestinationSlot,
    /// Packets from the client, wrapping.
    pub packets_in: u32,
    /// Handle of its persistence template, [`Line::NONE`]: none.
    pub template: u32,
    /// Source MAC of its packets.
    pub client_mac: [u8; 6],
    /// Port at which they come.
    pub ingress: PortId,
}

impl<A> ConnectionView<A> {
    /// Milliseconds until it expires if no packet comes.
    #[must_use]
    pub fn expires_in(&self, now: Ticks) -> u32 {
        self.timeout.saturating_sub(now.since(self.last_seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Offset and length of each field.
    fn fields<A: Address>() -> Vec<(&'static str, usize, usize)> {
        macro_rules! list {
            ($($field:ident: $type:ty),+) => {
                vec![$((stringify!($field), offset_of!(Line<A>, $field), size_of::<$type>())),+]
            };
        }
        list!(ends: A::EndsCells, names: u64, flags: u32, generation: u32, last_seen: u32, timeout: u32, destination: u32, packets_in: u32,
            server: A::Cells, filed: u32, template: u32, side: u32, link: u64)
    }

    fn check<A: Address>(size: usize) {
        assert_eq!((size_of::<Line<A>>(), align_of::<Line<A>>()), (size, 64));
        for (name, offset, length) in fields::<A>() {
            assert_eq!(offset / 64, (offset + length - 1) / 64, "{name} crosses a cache line");
            assert_eq!(offset % length.min(8), 0, "{name}");
        }
    }

    #[test]
    fn a_line_is_one_cache_line_or_two() {
        check::<Ipv4Addr>(64);
        check::<Ipv6Addr>(128);
        let used: usize = fields::<Ipv4Addr>().iter().map(|(_, _, length)| length).sum();
        assert_eq!(used, 64, "nothing is wasted");
    }

    #[test]
    fn what_forwarding_reads_lies_in_the_first_line() {
        for (name, offset, _) in fields::<Ipv6Addr>() {
            let hot = !["server", "filed", "template", "side", "link"].contains(&name);
            assert_eq!(offset < 64, hot, "{name}");
        }
    }

    #[test]
    fn mac_and_port_share_a_word_with_the_marks() {
        let (mac, port) = ([1, 2, 3, 4, 5, 0xFF], PortId(200));
        assert_eq!(unpack_link(pack_link(mac, port) | MARK_BOTH), (mac, port));
        assert_eq!(pack_link([0xFF; 6], PortId(0xFF)) & MARK_BOTH, 0);
    }
}
