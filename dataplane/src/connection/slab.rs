//! The memory of a table: one region, carved into parts, and the connection lines in it.
//!
//! Everything in a region is an atomic or a plain number for which every bit pattern is valid, is found by offset or index,
//! never by pointer, and so may lie anywhere. Only the owning worker writes; other threads read lines through [`Slab`].

use super::ConnectionId;
use super::line::{ConnectionView, Line};
use crate::address::Address;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use zerocopy::FromBytes;

/// Size of a huge page, to which a region's own memory is aligned.
const HUGE: usize = 2 << 20;
/// Size of a cache line, to which everything in a region is aligned.
pub(super) const LINE: usize = 64;

/// Memory for one table.
pub struct Region {
    base: NonNull<u8>,
    length: usize,
    zeroed: bool,
    /// What to give back; memory lent for the life of the process is not.
    owned: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: a region owns its memory exclusively (its own allocation, or a `&'static mut` it was given), like a `Box<[u8]>`.
unsafe impl Send for Region {}
// SAFETY: a shared `Region` alone gives no access to the memory; parts carved from it hold `Sync` values only.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("length", &self.length).field("owned", &self.owned.is_some()).finish()
    }
}

/// The system has no memory left for a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a region of {length} bytes")]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub length: usize,
}

impl Region {
    /// Zeroed memory of this process, in huge pages where the system gives them. Pages are taken when first touched.
    ///
    /// # Errors
    /// The allocator refuses.
    pub fn anonymous(length: usize) -> Result<Self, OutOfMemory> {
        // Not aligned by the allocator, which would then clear, and so touch, all of it: zero pages come from `calloc`.
        let align = if length >= HUGE { HUGE } else { LINE };
        let whole = length.checked_add(align).ok_or(OutOfMemory { length })?;
        let layout = Layout::from_size_align(whole, 1).map_err(|_| OutOfMemory { length })?;
        // SAFETY: the layout is at least `align` bytes long, never 0.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory { length })?;
        let skip = allocation.as_ptr().align_offset(align).min(align);
        // SAFETY: `skip <= align`, and the allocation is `length + align` bytes long.
        let base = unsafe { allocation.add(skip) };
        let region = Self { base, length, zeroed: true, owned: Some((allocation, layout)) };
        region.advise();
        Ok(region)
    }

    /// Memory lent for the rest of the process' life, such as a DPDK memzone. What it holds stays until a table is made in it.
    #[must_use]
    pub fn lent(memory: &'static mut [u8]) -> Self {
        let length = memory.len();
        Self { base: NonNull::from(memory).cast(), length, zeroed: false, owned: None }
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where it is.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        let start = self.base.as_ptr().addr();
        start..start + self.length
    }

    /// Takes all pages now, so that no worker waits for one later, and from the NUMA node of the calling thread's CPU.
    pub fn touch(&mut self) {
        for offset in (0..self.length).step_by(4096) {
            // SAFETY: `offset` is inside the region.
            let byte = unsafe { self.base.add(offset) };
            // SAFETY: the byte is inside the region, initialised, and nobody else holds it: `&mut self`.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as above.
            unsafe { byte.write_volatile(value) };
        }
    }

    /// Fills the region with zeroes where it is not known to hold them.
    pub(super) fn clear(&mut self) {
        if !self.zeroed {
            // SAFETY: the memory is `length` bytes long and nobody else holds it: `&mut self`.
            unsafe { self.base.write_bytes(0, self.length) };
        }
        self.zeroed = false;
    }

    #[cfg(any(miri, not(target_os = "linux")))]
    fn advise(&self) {}

    #[cfg(all(not(miri), target_os = "linux"))]
    fn advise(&self) {
        if self.length >= HUGE {
            let pointer = self.base.as_ptr().cast();
            // SAFETY: the range lies in memory this region owns, and this advice does not change what it holds.
            let advised =
                unsafe { rustix::mm::madvise(pointer, self.length, rustix::mm::Advice::LinuxHugepage) };
            // A kernel without huge pages is slower, not wrong.
            let _ = advised;
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some((allocation, layout)) = self.owned {
            // SAFETY: allocated in `anonymous` with this layout, given back once.
            unsafe { dealloc(allocation.as_ptr(), layout) };
        }
    }
}

/// Hands out a region's memory from front to back, each byte once.
#[derive(Debug)]
pub(super) struct Carver {
    region: Arc<Region>,
    offset: usize,
}

impl Carver {
    pub(super) fn new(region: Region) -> Self {
        Self { region: Arc::new(region), offset: 0 }
    }

    /// Bytes handed out so far.
    pub(super) fn taken(&self) -> usize {
        self.offset
    }

    /// The next `count` values, `None` when the region is too short or badly aligned.
    pub(super) fn take<T: FromBytes + Send + Sync>(&mut self, count: usize) -> Option<Part<T>> {
        let start = self.offset.next_multiple_of(LINE);
        let end = start.checked_add(count.checked_mul(size_of::<T>())?)?;
        if end > self.region.length {
            return None;
        }
        // SAFETY: `start <= end <= length`.
        let first: NonNull<T> = unsafe { self.region.base.add(start) }.cast();
        if !first.is_aligned() {
            return None;
        }
        self.offset = end;
        Some(Part { region: Arc::clone(&self.region), first, count })
    }
}

/// A slice in a region, kept alive by it.
pub(super) struct Part<T> {
    region: Arc<Region>,
    first: NonNull<T>,
    count: usize,
}

// SAFETY: a part is a shared slice of `T` (see `deref`), which may be sent when `T` is `Sync`.
unsafe impl<T: Sync> Send for Part<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Part<T> {}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { region: Arc::clone(&self.region), ..*self }
    }
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("count", &self.count).finish()
    }
}

impl<T> Deref for Part<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `Carver::take` checked bounds and alignment and gives each byte to one part, whose clones are of the same
        // type; the region lives as long as the part; its bytes are initialised, and `T: FromBytes` takes any of them.
        // Nobody has a `&mut` to the memory: `Region` is inside an `Arc` from which only `release` takes it, when unique.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl<T> Part<T> {
    /// Asks for the cache line in which value `index` begins.
    #[inline(always)]
    pub(super) fn prefetch(&self, index: usize) {
        self.prefetch_at(index, 0);
    }

    /// The same for a line `offset` bytes into the value.
    #[inline(always)]
    pub(super) fn prefetch_at(&self, index: usize, offset: usize) {
        let address = self.first.as_ptr().wrapping_add(index).cast::<u8>().wrapping_add(offset);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch is a hint and never faults, whatever the address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = address;
    }

    /// Gives the region back when this is the last part of it.
    pub(super) fn release(self) -> Option<Region> {
        Arc::try_unwrap(self.region).ok()
    }
}

/// A bit for each of 16 bytes, from the lowest of `low` to the highest of `high`, that equals `byte`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) fn equal_bytes(low: u64, high: u64, byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};

    #[inline]
    #[target_feature(enable = "sse2")]
    fn compare(low: u64, high: u64, byte: u8) -> u32 {
        let bytes = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()))).cast_unsigned()
    }

    // SAFETY: every x86-64 processor has SSE2.
    unsafe { compare(low, high, byte) }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) use equal_bytes_portable as equal_bytes;

/// The same on any processor.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
pub(super) fn equal_bytes_portable(low: u64, high: u64, byte: u8) -> u32 {
    let bytes = low.to_le_bytes().into_iter().chain(high.to_le_bytes());
    bytes.enumerate().fold(0, |found, (place, other)| found | u32::from(other == byte) << place)
}

/// First bytes of a region: what it holds, and the worker's bookkeeping.
#[derive(Debug, FromBytes)]
#[repr(C, align(64))]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) layout: AtomicU32,
    /// Length of an address in bytes: 4 or 16.
    pub(super) family: AtomicU32,
    pub(super) key: [AtomicU64; 2],
    pub(super) capacity: AtomicU32,
    pub(super) buckets: AtomicU32,
    pub(super) chunks: AtomicU32,
    padding: [AtomicU32; 5],
    /// Lines from here on were never used. Listings read it.
    pub(super) fresh: AtomicU32,
    /// First of the free lines, chained by their side handle; all ones: none.
    pub(super) free: AtomicU32,
    pub(super) live: AtomicU32,
    /// The wheel's next slot to fire, in slot numbers of 25 bits.
    pub(super) wheel_next: AtomicU32,
    /// Chunks from here on were never used.
    pub(super) wheel_fresh: AtomicU32,
    /// First free chunk + 1, 0: none.
    pub(super) wheel_free: AtomicU32,
    /// Entries that are no longer their connection's.
    pub(super) wheel_stale: AtomicU32,
    pub(super) wheel_entries: AtomicU32,
    pub(super) wheel_refused: AtomicU64,
    padding_2: [AtomicU32; 6],
}

/// Connection lines as other threads see them: read only.
#[derive(Debug)]
pub struct Slab<A: Address> {
    pub(super) lines: Part<Line<A>>,
    pub(super) header: Part<Header>,
}

impl<A: Address> Slab<A> {
    /// How many lines there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lines.len()
    }

    /// Where the memory of the whole table is.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        self.lines.region.addresses()
    }

    /// Lines from here on were never used: a listing walks the ids below.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.header[0].fresh.load(Relaxed)
    }

    /// Live connections right now.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.header[0].live.load(Relaxed)
    }

    /// What line `id` holds: all of it from one connection, `None` when there is none or when it changes hands just now.
    #[must_use]
    pub fn read(&self, id: ConnectionId) -> Option<ConnectionView<A>> {
        self.lines.get(id.index())?.read(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;

    #[test]
    fn the_header_is_two_cache_lines_the_second_written() {
        assert_eq!((size_of::<Header>(), align_of::<Header>()), (128, 64));
        assert_eq!(offset_of!(Header, fresh), 64);
    }

    #[test]
    fn parts_do_not_overlap_and_end_with_the_region() {
        let mut carver = Carver::new(Region::anonymous(256).unwrap());
        let first = carver.take::<AtomicU32>(3).unwrap();
        let second = carver.take::<AtomicU64>(16).unwrap();
        assert_eq!(carver.taken(), 64 + 128);
        assert!(carver.take::<AtomicU64>(9).is_none() && carver.take::<AtomicU64>(usize::MAX).is_none());
        let third = carver.take::<AtomicU64>(8).unwrap();
        first.iter().for_each(|cell| cell.store(1, Relaxed));
        second.iter().for_each(|cell| cell.store(2, Relaxed));
        assert!(first.iter().all(|cell| cell.load(Relaxed) == 1));
        assert!(third.iter().all(|cell| cell.load(Relaxed) == 0));
        assert_eq!(first.as_ptr().align_offset(LINE), 0);
        drop((carver, second, third));
        assert_eq!(first.release().unwrap().length(), 256);
    }

    #[test]
    fn large_regions_are_aligned_to_huge_pages() {
        let region = Region::anonymous(HUGE).unwrap();
        assert_eq!(region.base.as_ptr().align_offset(HUGE), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 1000 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn bytes_are_compared_alike_everywhere(bytes in any::<[u8; 16]>(), place in 0usize..16, other in any::<u8>()) {
            let word = |half: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[half * 8 + byte]));
            let wanted = |byte| (0..16).filter(|at| bytes[*at] == byte).fold(0, |found, at| found | 1 << at);
            for byte in [bytes[place], other, 0] {
                prop_assert_eq!(equal_bytes(word(0), word(1), byte), wanted(byte));
                prop_assert_eq!(equal_bytes_portable(word(0), word(1), byte), wanted(byte));
            }
        }
    }
}
