//! Packet buffers, and how their headers are read and changed.

pub mod checksum;
pub mod datagram;
pub mod encapsulate;
mod headers;
mod heap;
pub mod icmp;
mod ipv6;
pub mod mss;
pub mod options;
mod parse;
mod plain;
pub mod rewrite;
#[cfg(test)]
pub(crate) mod sample;
pub mod sctp;
#[cfg(test)]
mod tests;

pub use headers::{Family, Headers, KeptTuple, WireAddress, tcp};
pub use heap::HeapPacket;
pub(crate) use ipv6::remove_fragment_header;
pub use parse::{Parsed, Refusal, destination_mac, parse, parse_into, source_mac};
pub(crate) use plain::Plain;

/// A packet buffer that the engine owns while it works on it: an mbuf, or a heap buffer with an mbuf's headroom.
///
/// The engine writes only the first segment, and reads the later ones of a packet for nothing but a checksum over all of it.
pub trait Packet: Sized {
    /// Bytes of the first segment, from the Ethernet header on.
    fn data(&self) -> &[u8];

    /// The same, to be changed.
    fn data_mut(&mut self) -> &mut [u8];

    /// Length of the whole frame in bytes, over all segments.
    fn total_length(&self) -> usize;

    /// Number of segments, 1 or more.
    fn segments(&self) -> u16;

    /// Bytes of every segment behind the first, in order; none in buffers of one segment.
    fn later_segments(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    /// The NIC's RSS hash, where it computed one.
    fn rss_hash(&self) -> Option<u32>;

    /// Grows the frame by `count` bytes at the front; `None` when the headroom is shorter.
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]>;

    /// Cuts the frame to `length` bytes, or grows its end (new bytes are unspecified). `false` when the buffer has no room
    /// or the packet has several segments.
    fn set_length(&mut self, length: usize) -> bool;

    /// Asks the processor for the first line of the frame.
    fn prefetch(&self);
}
