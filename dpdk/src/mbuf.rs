//! Packet buffers.

use std::fmt;
use std::mem;
use std::ptr::NonNull;

use dpdk_sys::rte_mbuf;

mod chain;

pub use chain::Segments;

/// An owned packet: one buffer, or a chain of them for a frame that is longer than a buffer.
///
/// One pointer wide, and `Option<Mbuf>` too. Dropping it returns every segment to its mempool. The
/// accessors read and write DPDK's structure directly, without a call.
///
/// # Exclusive ownership
///
/// Nothing in this layer makes two mbufs share their bytes, and neither do the drivers that it was tested
/// with (null, ring, pcap, `af_packet`; `net_pcap` with `infinite_rx=1` copies each frame into a fresh
/// mbuf). A driver or library that does share (clones, DPDK's multicast) must not feed it;
/// [`Mbuf::is_exclusive`] tells, and is meant for tests and debug assertions.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

const _: () = assert!(size_of::<Option<Mbuf>>() == size_of::<*mut rte_mbuf>());

// SAFETY: an mbuf is owned by one thread at a time and tied to none; mempools take returns from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over an mbuf that DPDK handed out; `None` for null.
    ///
    /// # Safety
    /// The caller owns the whole chain at `pointer`, and its mempool outlives it (a [`crate::Mempool`] does).
    #[inline(always)]
    pub(crate) unsafe fn from_raw(pointer: *mut rte_mbuf) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> &rte_mbuf {
        // SAFETY: the pointer is valid while `self` owns the mbuf, and nobody else writes to it.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in `raw`, and `&mut self` makes this the only reference.
        unsafe { self.0.as_mut() }
    }

    /// Bytes of the first segment.
    #[inline(always)]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        chain::data(self.raw())
    }

    /// Bytes of the first segment, writable.
    #[inline(always)]
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        chain::data_mut(self.raw_mut())
    }

    /// Length of the first segment's data.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }

    /// Whether the first segment holds no data.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw().data_len == 0
    }

    /// Length of the frame, all segments together.
    #[inline(always)]
    #[must_use]
    pub fn packet_len(&self) -> usize {
        self.raw().pkt_len as usize
    }

    /// Number of segments; 1 for a frame in one buffer.
    #[inline(always)]
    #[must_use]
    pub fn segments(&self) -> u16 {
        self.raw().nb_segs
    }

    /// The port that received the frame; `u16::MAX` for an mbuf that was allocated.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.raw().port
    }

    /// Overwrites the receiving port.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        self.raw_mut().port = port;
    }

    /// The hash that the device computed over the fields of its RSS configuration, if it did.
    #[inline(always)]
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        let raw = self.raw();
        (raw.ol_flags & dpdk_sys::RTE_MBUF_F_RX_RSS_HASH != 0).then(|| raw.rss_hash_word())
    }

    /// The VLAN tag (priority and id, host order) that the device took out of the frame. This layer never
    /// asks for that, and `net_af_packet` puts back what the kernel took out, so `Some` means a device that
    /// does so on its own.
    #[inline(always)]
    #[must_use]
    pub fn stripped_vlan(&self) -> Option<u16> {
        let raw = self.raw();
        (raw.ol_flags & dpdk_sys::RTE_MBUF_F_RX_VLAN_STRIPPED != 0).then_some(raw.vlan_tci)
    }

    /// Free bytes in front of the data.
    #[inline(always)]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    /// Free bytes behind the data of the last segment.
    #[inline(always)]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        chain::tailroom(self.last())
    }

    /// Grows the frame by `count` bytes in front and returns them, with whatever they held before; `None`,
    /// and nothing changed, without the headroom.
    #[inline(always)]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let raw = self.raw_mut();
        let count = u16::try_from(count).ok()?;
        let data_len = raw.data_len.checked_add(count)?;
        raw.data_off = raw.data_off.checked_sub(count)?;
        raw.data_len = data_len;
        raw.pkt_len += u32::from(count);
        self.data_mut().get_mut(..usize::from(count))
    }

    /// Removes `count` bytes from the front. False, and nothing changed, when the first segment has fewer.
    #[inline(always)]
    #[must_use]
    pub fn adj(&mut self, count: usize) -> bool {
        let raw = self.raw_mut();
        let Ok(count) = u16::try_from(count) else { return false };
        let Some(left) = raw.data_len.checked_sub(count) else { return false };
        raw.data_len = left;
        raw.data_off += count;
        raw.pkt_len -= u32::from(count);
        true
    }

    /// Grows the frame by `count` bytes at the end of the last segment and returns them, with whatever they
    /// held before; `None`, and nothing changed, without the tailroom.
    #[inline(always)]
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        let added = u16::try_from(count).ok()?;
        if count > self.tailroom() {
            return None;
        }
        self.raw_mut().pkt_len += u32::from(added);
        let last = self.last_mut();
        let end = usize::from(last.data_len);
        last.data_len += added;
        chain::data_mut(last).get_mut(end..)
    }

    /// Removes `count` bytes from the end of the last segment. False, and nothing changed, when that
    /// segment has fewer.
    #[inline(always)]
    #[must_use]
    pub fn trim(&mut self, count: usize) -> bool {
        let Ok(count) = u16::try_from(count) else { return false };
        let last = self.last_mut();
        let Some(left) = last.data_len.checked_sub(count) else { return false };
        last.data_len = left;
        self.raw_mut().pkt_len -= u32::from(count);
        true
    }

    /// Copies the whole frame, all segments, to the front of `target`; returns its length, or `None` when
    /// `target` is shorter.
    pub fn copy_to(&self, target: &mut [u8]) -> Option<usize> {
        let mut end = 0;
        for segment in self.iter_segments() {
            let start = end;
            end += segment.len();
            target.get_mut(start..end)?.copy_from_slice(segment);
        }
        Some(end)
    }

    /// Empties the buffer and writes `frame` into it, behind the standard headroom. False when it does not
    /// fit one buffer: the mbuf is then empty.
    #[must_use]
    pub fn set_data(&mut self, frame: &[u8]) -> bool {
        self.reset();
        match self.append(frame.len()) {
            Some(room) => {
                room.copy_from_slice(frame);
                true
            }
            None => false,
        }
    }

    /// Back to the state of a freshly allocated mbuf: one segment, no data, standard headroom, no flags.
    /// Further segments are freed.
    pub fn reset(&mut self) {
        let raw = self.raw_mut();
        let rest = mem::replace(&mut raw.next, std::ptr::null_mut());
        raw.nb_segs = 1;
        raw.pkt_len = 0;
        raw.data_len = 0;
        raw.port = u16::MAX;
        raw.ol_flags = 0;
        raw.vlan_tci = 0;
        raw.data_off = HEADROOM.min(raw.buf_len);
        if !rest.is_null() {
            // SAFETY: the chain behind the first segment was this mbuf's, and has just been cut off.
            unsafe { dpdk_sys::rte_pktmbuf_free(rest) };
        }
    }

    /// Whether this packet shares its bytes with no other mbuf: reference counts of 1 and buffers of its
    /// own, in every segment.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        const ELSEWHERE: u64 = dpdk_sys::RTE_MBUF_F_INDIRECT | dpdk_sys::RTE_MBUF_F_EXTERNAL;
        self.raw_segments().all(|segment| segment.refcnt == 1 && segment.ol_flags & ELSEWHERE == 0)
    }

    /// Prefetches the first line of the data into all cache levels. Reads the mbuf itself.
    #[inline(always)]
    pub fn prefetch_data(&self) {
        let raw = self.raw();
        prefetch(raw.buf_addr.cast::<u8>().wrapping_add(usize::from(raw.data_off)).cast_const());
    }

    /// Prefetches the mbuf's first line, which every accessor reads.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        prefetch(self.as_ptr().cast::<u8>().cast_const());
    }
}

const HEADROOM: u16 = {
    assert!(dpdk_sys::RTE_PKTMBUF_HEADROOM <= 1024);
    #[allow(clippy::cast_possible_truncation, reason = "bounded by the assertion above")]
    {
        dpdk_sys::RTE_PKTMBUF_HEADROOM as u16
    }
};

#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it neither faults nor reads anything that the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` owns the chain, and its mempool outlives it.
        unsafe { dpdk_sys::rte_pktmbuf_free(self.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("packet_len", &self.packet_len())
            .field("segments", &self.segments())
            .field("headroom", &self.headroom())
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}
