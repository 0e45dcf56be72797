//! Packet buffers that go round: what the engine sends comes back to be filled again, and nothing is allocated.

use crate::counters::{Counter, WorkerCounters};
use crate::engine::{Event, Redirected, Sink};
use crate::exception::PuntClass;
use crate::id::{PortId, WorkerId};
use crate::packet::Packet;

/// Room for outer headers: IPv6, UDP, GUE.
const HEADROOM: u16 = 64;
const ROOM: u16 = 192;
/// Buffers there are: a burst, and a few for frames that the engine makes.
const BUFFERS: usize = 64;

/// A buffer with its book-keeping behind the bytes, so that a packet is one pointer, as an mbuf is.
#[derive(Debug)]
#[repr(C, align(64))]
struct Buffer {
    bytes: [u8; (HEADROOM + ROOM) as usize],
    start: u16,
    length: u16,
    rss_hash: Option<u32>,
}

/// A frame in a small buffer; it starts on a cache line.
#[derive(Debug)]
pub struct LeanPacket(Box<Buffer>);

impl LeanPacket {
    fn new() -> Self {
        let bytes = [0; (HEADROOM + ROOM) as usize];
        Self(Box::new(Buffer { bytes, start: HEADROOM, length: 0, rss_hash: None }))
    }

    /// Longest frame.
    pub const ROOM: usize = ROOM as usize;

    /// All the room there is, to be written; then [`Self::cut`].
    #[inline(always)]
    pub fn reset(&mut self) -> &mut [u8] {
        self.0.start = HEADROOM;
        self.0.length = ROOM;
        self.data_mut()
    }

    /// Keeps the first `length` bytes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "at most the room there is")]
    pub fn cut(&mut self, length: usize) {
        self.0.length = length.min(Self::ROOM) as u16;
    }

    /// Says what a NIC would have hashed; the buffer keeps it until another is said.
    #[inline(always)]
    pub fn set_rss_hash(&mut self, hash: Option<u32>) {
        self.0.rss_hash = hash;
    }
}

impl Packet for LeanPacket {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        &self.0.bytes[self.0.start.into()..][..self.0.length.into()]
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        let Buffer { bytes, start, length, .. } = &mut *self.0;
        &mut bytes[usize::from(*start)..][..usize::from(*length)]
    }

    #[inline(always)]
    fn total_length(&self) -> usize {
        self.0.length.into()
    }

    #[inline(always)]
    fn segments(&self) -> u16 {
        1
    }

    #[inline(always)]
    fn rss_hash(&self) -> Option<u32> {
        self.0.rss_hash
    }

    #[inline(always)]
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let count = u16::try_from(count).ok()?;
        self.0.start = self.0.start.checked_sub(count)?;
        self.0.length += count;
        Some(&mut self.data_mut()[..count.into()])
    }

    fn set_length(&mut self, length: usize) -> bool {
        match u16::try_from(length) {
            Ok(length) if length <= HEADROOM + ROOM - self.0.start => {
                self.0.length = length;
                true
            }
            _ => false,
        }
    }

    /// The few buffers are always in the cache.
    #[inline(always)]
    fn prefetch(&self) {}
}

/// Source and sink of the engine's packets.
#[derive(Debug)]
pub struct Roundabout {
    free: Vec<LeanPacket>,
    transmitted: u64,
    bytes: u64,
}

impl Default for Roundabout {
    fn default() -> Self {
        Self::new()
    }
}

impl Roundabout {
    /// All buffers free.
    #[must_use]
    pub fn new() -> Self {
        Self {
            free: std::iter::repeat_with(LeanPacket::new).take(BUFFERS).collect(),
            transmitted: 0,
            bytes: 0,
        }
    }

    /// A buffer to fill. Those that the engine dropped are made anew.
    #[inline(always)]
    pub fn take(&mut self) -> LeanPacket {
        self.free.pop().unwrap_or_else(LeanPacket::new)
    }

    /// Counts what was sent since the last call, as a worker does at the end of its turn.
    #[inline(always)]
    pub fn flush(&mut self, counters: &WorkerCounters) {
        counters.add(Counter::Transmitted, std::mem::take(&mut self.transmitted));
        counters.add(Counter::TransmittedBytes, std::mem::take(&mut self.bytes));
    }

    #[inline(always)]
    fn give_back(&mut self, packet: LeanPacket) {
        if self.free.len() < BUFFERS {
            self.free.push(packet);
        }
    }
}

impl Sink<LeanPacket> for Roundabout {
    #[inline(always)]
    fn transmit(&mut self, _port: PortId, packet: LeanPacket) {
        self.transmitted += 1;
        self.bytes += packet.total_length() as u64;
        self.give_back(packet);
    }

    fn punt(&mut self, _class: PuntClass, _port: PortId, packet: LeanPacket) -> Result<(), LeanPacket> {
        self.give_back(packet);
        Ok(())
    }

    fn redirect(&mut self, _to: WorkerId, redirected: Redirected<LeanPacket>) -> Result<(), LeanPacket> {
        Err(redirected.packet)
    }

    fn allocate(&mut self) -> Option<LeanPacket> {
        let mut packet = self.take();
        packet.reset();
        packet.cut(0);
        Some(packet)
    }

    fn event(&mut self, _event: Event) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lean_packet_behaves_as_the_engine_expects() {
        let mut packet = LeanPacket::new();
        packet.reset()[..4].copy_from_slice(&[1, 2, 3, 4]);
        packet.cut(4);
        packet.prepend(20).unwrap().fill(9);
        assert_eq!((packet.total_length(), packet.segments(), packet.rss_hash()), (24, 1, None));
        assert_eq!(packet.data()[19..], [9, 1, 2, 3, 4]);
        assert!(packet.prepend(usize::from(HEADROOM)).is_none());
        assert!(packet.set_length(LeanPacket::ROOM + 20) && !packet.set_length(LeanPacket::ROOM + 21));
        assert_eq!(packet.reset().len(), LeanPacket::ROOM);
        assert!(packet.data().as_ptr().cast::<Buffer>().is_aligned());
        assert_eq!(size_of::<LeanPacket>(), 8);
    }

    #[test]
    fn what_is_sent_comes_back_and_is_counted() {
        let (mut roundabout, counters) = (Roundabout::new(), WorkerCounters::default());
        let mut packet = roundabout.take();
        packet.reset();
        packet.cut(64);
        roundabout.transmit(PortId(0), packet);
        assert_eq!(roundabout.free.len(), BUFFERS);
        roundabout.flush(&counters);
        roundabout.flush(&counters);
        assert_eq!((counters.get(Counter::Transmitted), counters.get(Counter::TransmittedBytes)), (1, 64));
    }
}
