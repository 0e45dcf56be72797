//! A packet in ordinary memory, laid out as an mbuf is: headroom, frame, tailroom.

use super::Packet;

/// A heap buffer with an mbuf's headroom, for tests, fuzzers, benches and the replay of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeapPacket {
    buffer: Box<[u8]>,
    start: usize,
    length: usize,
    /// Later segments of a chained packet; the engine looks at them for checksums alone.
    later: Vec<Box<[u8]>>,
    rss_hash: Option<u32>,
}

impl HeapPacket {
    /// Bytes before the frame, as `RTE_PKTMBUF_HEADROOM`.
    pub const HEADROOM: usize = 128;
    /// Bytes for the frame in a buffer of the usual size, as in an mbuf of `RTE_MBUF_DEFAULT_BUF_SIZE`.
    pub const ROOM: usize = 2048;

    /// A packet of one segment with this frame; longer frames than [`Self::ROOM`] get a buffer of their own length.
    #[must_use]
    pub fn new(frame: &[u8]) -> Self {
        Self::with_room(frame, Self::ROOM)
    }

    /// An empty packet, as it comes from a pool.
    #[must_use]
    pub fn fresh() -> Self {
        Self::new(&[])
    }

    /// A packet whose buffer holds frames of up to `room` bytes, at least this one.
    #[must_use]
    pub fn with_room(frame: &[u8], room: usize) -> Self {
        let mut buffer = vec![0; Self::HEADROOM + room.max(frame.len())].into_boxed_slice();
        buffer[Self::HEADROOM..][..frame.len()].copy_from_slice(frame);
        Self { buffer, start: Self::HEADROOM, length: frame.len(), later: Vec::new(), rss_hash: None }
    }

    /// A chained packet: `first` is what the engine sees, `later` one segment each.
    #[must_use]
    pub fn chained(first: &[u8], later: &[&[u8]]) -> Self {
        let later = later.iter().map(|segment| Box::from(*segment)).collect();
        Self { later, ..Self::new(first) }
    }

    /// The same packet with the hash that a NIC would have written.
    #[must_use]
    pub fn with_rss_hash(mut self, hash: Option<u32>) -> Self {
        self.rss_hash = hash;
        self
    }

    /// Sets what [`Packet::rss_hash`] answers.
    pub const fn set_rss_hash(&mut self, hash: Option<u32>) {
        self.rss_hash = hash;
    }

    /// The whole frame over all segments, copied.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut frame = self.data().to_vec();
        for segment in &self.later {
            frame.extend_from_slice(segment);
        }
        frame
    }
}

impl Packet for HeapPacket {
    #[inline]
    fn data(&self) -> &[u8] {
        &self.buffer[self.start..][..self.length]
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..][..self.length]
    }

    #[inline]
    fn total_length(&self) -> usize {
        self.length + self.later.iter().map(|segment| segment.len()).sum::<usize>()
    }

    #[inline]
    fn segments(&self) -> u16 {
        u16::try_from(1 + self.later.len()).unwrap_or(u16::MAX)
    }

    fn later_segments(&self) -> impl Iterator<Item = &[u8]> {
        self.later.iter().map(AsRef::as_ref)
    }

    #[inline]
    fn rss_hash(&self) -> Option<u32> {
        self.rss_hash
    }

    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        self.length += count;
        Some(&mut self.buffer[self.start..][..count])
    }

    fn set_length(&mut self, length: usize) -> bool {
        let fits = self.later.is_empty() && length <= self.buffer.len() - self.start;
        if fits {
            self.length = length;
        }
        fits
    }

    /// Does nothing: ordinary memory has no address to hand to the processor without `unsafe`, and tests need none.
    #[inline]
    fn prefetch(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_at_both_ends_within_its_room() {
        let mut packet = HeapPacket::new(&[1, 2, 3]);
        packet.prepend(20).unwrap().fill(9);
        assert_eq!(packet.data(), [[9; 20].as_slice(), &[1, 2, 3]].concat());
        assert!(packet.prepend(HeapPacket::HEADROOM).is_none());
        assert_eq!(packet.total_length(), 23);
        assert!(packet.set_length(HeapPacket::ROOM + 20) && !packet.set_length(HeapPacket::ROOM + 21));
        assert!(packet.set_length(21));
        assert_eq!(packet.data()[20..], [1]);
    }

    #[test]
    fn later_segments_are_beside_the_frame() {
        let mut packet = HeapPacket::chained(&[1], &[&[2, 3], &[4]]).with_rss_hash(Some(7));
        assert_eq!((packet.data(), packet.total_length(), packet.segments()), ([1].as_slice(), 4, 3));
        assert_eq!((packet.to_vec(), packet.rss_hash()), (vec![1, 2, 3, 4], Some(7)));
        assert!(packet.later_segments().eq([[2, 3].as_slice(), &[4]]));
        assert!(!packet.set_length(1), "a chained packet keeps its length");
        packet.set_rss_hash(None);
        assert_eq!(packet.rss_hash(), None);
        assert_eq!(HeapPacket::fresh().total_length(), 0);
    }
}
