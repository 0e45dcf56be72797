//! Arrays of packets, as queues take and give them.

use std::fmt;
use std::iter::FusedIterator;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::slice;

use dpdk_sys::rte_mbuf;

use crate::mbuf::Mbuf;

/// Packets in a burst: what the pipeline works on at a time.
pub const BURST: usize = 32;

/// Up to `N` owned packets in a fixed array; derefs to a slice. Dropping it frees what it still holds.
pub struct Burst<const N: usize = BURST> {
    packets: [MaybeUninit<Mbuf>; N],
    // Invariant: the first `len` elements are initialised.
    len: usize,
}

impl<const N: usize> Burst<N> {
    const FITS: () = assert!(N > 0 && N <= u16::MAX as usize, "DPDK counts packets in 16 bits");

    /// An empty burst.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::FITS;
        Self { packets: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Packets that still fit.
    #[inline(always)]
    #[must_use]
    pub const fn room(&self) -> usize {
        N - self.len
    }

    /// Whether nothing more fits.
    #[inline(always)]
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == N
    }

    /// Adds a packet at the end.
    ///
    /// # Errors
    /// The packet, when the burst is full.
    #[inline(always)]
    pub fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        match self.packets.get_mut(self.len) {
            Some(slot) => {
                slot.write(packet);
                self.len += 1;
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Takes the last packet.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: initialised until `len` was lowered, and not read again.
        Some(unsafe { self.packets[self.len].assume_init_read() })
    }

    /// Takes the packet at `index`; the last one takes its place. `None` beyond the end.
    #[inline(always)]
    pub fn swap_remove(&mut self, index: usize) -> Option<Mbuf> {
        if index >= self.len {
            return None;
        }
        let last = self.len - 1;
        self.swap(index, last);
        self.pop()
    }

    /// Takes all packets out, in order. What the iterator does not yield is freed with it.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_, N> {
        let end = std::mem::replace(&mut self.len, 0);
        Drain { packets: &mut self.packets, next: 0, end }
    }

    /// Frees all packets, in one call.
    #[inline]
    pub fn clear(&mut self) {
        let count = std::mem::replace(&mut self.len, 0);
        free(&mut self.packets[..count]);
    }

    /// Where DPDK may write up to [`room`](Self::room) further packets.
    #[inline(always)]
    pub(crate) fn spare(&mut self) -> *mut *mut rte_mbuf {
        // `Mbuf` is a transparent non-null pointer.
        self.packets[self.len..].as_mut_ptr().cast::<*mut rte_mbuf>()
    }

    /// Takes over `count` packets that DPDK wrote at [`spare`](Self::spare).
    ///
    /// # Safety
    /// They were written, are owned by the caller, and fit.
    #[inline(always)]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.len += count;
    }

    /// The packets as DPDK reads them.
    #[inline(always)]
    pub(crate) fn pointers(&mut self) -> *mut *mut rte_mbuf {
        self.packets.as_mut_ptr().cast::<*mut rte_mbuf>()
    }

    /// Forgets the first `count` packets, which DPDK took over; the rest moves to the front.
    ///
    /// # Safety
    /// DPDK owns them now, and `count` is at most the length.
    #[inline(always)]
    pub(crate) unsafe fn forget_front(&mut self, count: usize) {
        debug_assert!(count <= self.len);
        let before = self.len;
        self.len -= count;
        if self.len > 0 {
            self.packets[..before].rotate_left(count);
        }
    }
}

/// Frees initialised packets in one call, leaving their slots uninitialised.
fn free(packets: &mut [MaybeUninit<Mbuf>]) {
    if packets.is_empty() {
        return;
    }
    let count = u32::try_from(packets.len()).unwrap_or(u32::MAX);
    let pointers = packets.as_mut_ptr().cast::<*mut rte_mbuf>();
    // SAFETY: `count` owned packets, which the callers no longer count as initialised.
    unsafe { dpdk_sys::rte_pktmbuf_free_bulk(pointers, count) };
}

impl<const N: usize> Default for Burst<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Drop for Burst<N> {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl<const N: usize> Deref for Burst<N> {
    type Target = [Mbuf];

    #[inline(always)]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` elements are initialised.
        unsafe { slice::from_raw_parts(self.packets.as_ptr().cast::<Mbuf>(), self.len) }
    }
}

impl<const N: usize> DerefMut for Burst<N> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` elements are initialised.
        unsafe { slice::from_raw_parts_mut(self.packets.as_mut_ptr().cast::<Mbuf>(), self.len) }
    }
}

impl<const N: usize> fmt::Debug for Burst<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterator of [`Burst::drain`].
pub struct Drain<'a, const N: usize> {
    packets: &'a mut [MaybeUninit<Mbuf>; N],
    // Invariant: `next..end` are initialised.
    next: usize,
    end: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = Mbuf;

    #[inline(always)]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let slot = &self.packets[self.next];
        self.next += 1;
        // SAFETY: initialised until `next` was raised, and not read again.
        Some(unsafe { slot.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl<const N: usize> ExactSizeIterator for Drain<'_, N> {}
impl<const N: usize> FusedIterator for Drain<'_, N> {}

impl<const N: usize> Drop for Drain<'_, N> {
    fn drop(&mut self) {
        free(&mut self.packets[self.next..self.end]);
    }
}

impl<const N: usize> fmt::Debug for Drain<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("left", &self.len()).finish_non_exhaustive()
    }
}
