//! Frames in several buffers.

use std::slice;

use dpdk_sys::rte_mbuf;

use super::Mbuf;

#[inline(always)]
pub(super) fn data(segment: &rte_mbuf) -> &[u8] {
    let start = segment.buf_addr.cast::<u8>().wrapping_add(usize::from(segment.data_off));
    // SAFETY: data_off + data_len <= buf_len is kept by DPDK and by every method here, the buffer is mapped
    // and initialised memory, and the segment's owner is borrowed.
    unsafe { slice::from_raw_parts(start, usize::from(segment.data_len)) }
}

#[inline(always)]
pub(super) fn data_mut(segment: &mut rte_mbuf) -> &mut [u8] {
    let start = segment.buf_addr.cast::<u8>().wrapping_add(usize::from(segment.data_off));
    // SAFETY: as in `data`; the owner is borrowed mutably and nobody shares the buffer.
    unsafe { slice::from_raw_parts_mut(start, usize::from(segment.data_len)) }
}

#[inline(always)]
pub(super) fn tailroom(segment: &rte_mbuf) -> usize {
    usize::from(segment.buf_len) - usize::from(segment.data_off) - usize::from(segment.data_len)
}

struct RawSegments<'a>(Option<&'a rte_mbuf>);

impl<'a> Iterator for RawSegments<'a> {
    type Item = &'a rte_mbuf;

    fn next(&mut self) -> Option<Self::Item> {
        let current = self.0?;
        // SAFETY: null, or the next segment, which belongs to the same borrowed owner.
        self.0 = unsafe { current.next.as_ref() };
        Some(current)
    }
}

/// The data of each segment of a frame, in order.
pub struct Segments<'a>(RawSegments<'a>);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(data)
    }
}

impl std::fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Segments")
    }
}

impl Mbuf {
    pub(super) fn raw_segments(&self) -> impl Iterator<Item = &rte_mbuf> {
        RawSegments(Some(self.raw()))
    }

    /// The data of each segment, in order.
    #[must_use]
    pub fn iter_segments(&self) -> Segments<'_> {
        Segments(RawSegments(Some(self.raw())))
    }

    #[inline(always)]
    pub(super) fn last(&self) -> &rte_mbuf {
        let head = self.raw();
        if head.nb_segs == 1 {
            return head;
        }
        self.raw_segments().last().unwrap_or(head)
    }

    #[inline(always)]
    pub(super) fn last_mut(&mut self) -> &mut rte_mbuf {
        let mut last = self.as_ptr();
        if self.raw().nb_segs > 1 {
            for segment in self.raw_segments() {
                if !segment.next.is_null() {
                    last = segment.next;
                }
            }
        }
        // SAFETY: the head, or a segment that belongs to it; `&mut self` makes this the only reference.
        unsafe { &mut *last }
    }

    /// Makes `tail` the end of this frame. Gives it back when the frame would have more segments or bytes
    /// than an mbuf can count.
    ///
    /// # Errors
    /// `tail`, unchanged.
    pub fn chain(&mut self, tail: Self) -> Result<(), Self> {
        let Some(segments) = self.raw().nb_segs.checked_add(tail.raw().nb_segs) else { return Err(tail) };
        let Some(length) = self.raw().pkt_len.checked_add(tail.raw().pkt_len) else { return Err(tail) };
        self.last_mut().next = tail.as_ptr();
        std::mem::forget(tail);
        let head = self.raw_mut();
        head.nb_segs = segments;
        head.pkt_len = length;
        Ok(())
    }

    /// Moves the whole frame into the first segment. False, and nothing changed, when it does not fit.
    #[must_use]
    pub fn linearize(&mut self) -> bool {
        if self.segments() == 1 {
            return true;
        }
        // SAFETY: `self` owns the chain; the function moves bytes within it and frees emptied segments.
        let result = unsafe { dpdk_sys::rte_pktmbuf_linearize(self.as_ptr()) };
        result == 0
    }
}
