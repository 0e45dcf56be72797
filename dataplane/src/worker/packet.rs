//! An mbuf as the engine's packet.

use crate::packet::Packet;
use dpdk::Mbuf;

/// An mbuf that the engine works on.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct DpdkPacket(pub(super) Mbuf);

impl Packet for DpdkPacket {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        self.0.data()
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    #[inline(always)]
    fn total_length(&self) -> usize {
        self.0.packet_len()
    }

    #[inline(always)]
    fn segments(&self) -> u16 {
        self.0.segments()
    }

    fn later_segments(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter_segments().skip(1)
    }

    #[inline(always)]
    fn rss_hash(&self) -> Option<u32> {
        self.0.rss_hash()
    }

    #[inline(always)]
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        self.0.prepend(count)
    }

    fn set_length(&mut self, length: usize) -> bool {
        if self.0.segments() != 1 {
            return false;
        }
        match length.checked_sub(self.0.len()) {
            Some(more) => self.0.append(more).is_some(),
            None => self.0.trim(self.0.len() - length),
        }
    }

    #[inline(always)]
    fn prefetch(&self) {
        self.0.prefetch_data();
    }
}
