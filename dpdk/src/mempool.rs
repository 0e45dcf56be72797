//! Pools of packet buffers.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_mempool;

use crate::burst::Burst;
use crate::eal::{Eal, EalGuard};
use crate::errno::Errno;
use crate::log::{self, LogTail};
use crate::mbuf::Mbuf;

/// The algorithm of a pool's shared ring, which serves whoever has no per-lcore cache or emptied it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolOps {
    /// `ring_mp_mc`, DPDK's default: a thread that is preempted in the middle of a call makes all others
    /// spin until it runs again, which takes milliseconds on a shared CPU.
    Default,
    /// `ring_mt_rts`: nobody waits for a preempted thread (until the others are an eighth of the ring
    /// ahead), so that threads of ordinary scheduling may allocate and free too. Needs a ring with slots to
    /// spare, see [`MempoolConfig::buffers`].
    #[default]
    Relaxed,
}

impl PoolOps {
    const fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Default => c"ring_mp_mc",
            Self::Relaxed => c"ring_mt_rts",
        }
    }
}

/// How to make a mempool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Unique in the process, 1 to 25 bytes.
    pub name: String,
    /// Number of buffers, at least. The shared ring has the next power of two less one slots. With
    /// [`PoolOps::Relaxed`] an eighth of them must stay free, and a number that leaves less is raised to the
    /// power of two: a thread preempted in the middle of an allocation holds back the ring's tail, to the
    /// others the ring then looks full, and DPDK loses a buffer that it cannot put back, without a word.
    pub buffers: u32,
    /// Buffers that each lcore keeps for itself, at most 512 and two thirds of `buffers`; 0 for none.
    pub cache: u32,
    /// Bytes of packet data that a buffer holds behind the standard headroom (128 bytes); see
    /// [`data_room_for_mtu`].
    pub data_room: u16,
    /// The shared ring's algorithm.
    pub ops: PoolOps,
    /// NUMA node, or `None` for any.
    pub socket: Option<u32>,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            name: "uvs".to_owned(),
            buffers: 8192,
            cache: 256,
            data_room: data_room_for_mtu(1500),
            ops: PoolOps::default(),
            socket: None,
        }
    }
}

/// Ethernet header, two VLAN tags and checksum: what a frame may add to the MTU.
pub(crate) const FRAME_OVERHEAD: u32 = 14 + 2 * 4 + 4;

/// The data room that holds a frame of `mtu` in one segment: at least 2048 bytes, in whole cache lines.
/// A receiver with smaller buffers chains several, if it can.
#[must_use]
pub fn data_room_for_mtu(mtu: u16) -> u16 {
    const LARGEST: u16 = u16::MAX - HEADROOM - 63;
    let frame = (u32::from(mtu) + FRAME_OVERHEAD).max(2048).next_multiple_of(64);
    u16::try_from(frame).unwrap_or(LARGEST).min(LARGEST)
}

const HEADROOM: u16 = 128;
const _: () = assert!(dpdk_sys::RTE_PKTMBUF_HEADROOM == HEADROOM as u32);

/// Why there is no mempool.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// A value that DPDK would refuse without saying which.
    #[error("mempool {name}: {reason}")]
    Invalid {
        /// The pool.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// DPDK's refusal; mostly too little memory.
    #[error(
        "mempool {name}: {buffers} buffers of {data_room} bytes (some {mib} MiB; the EAL has {eal_mib} MiB \
         in all) were refused: {errno}{log}"
    )]
    Refused {
        /// The pool.
        name: String,
        /// Buffers asked.
        buffers: u32,
        /// Bytes of data in each.
        data_room: u16,
        /// Memory that takes.
        mib: u64,
        /// Memory that the EAL was given.
        eal_mib: u32,
        /// The reason as a number.
        errno: Errno,
        /// What DPDK logged.
        log: LogTail,
    },
}

/// A pool of mbufs; clones are handles on the same pool. Any thread may allocate and free.
///
/// When the last handle is dropped the pool is freed if every buffer is back, else leaked, because the
/// outstanding mbufs still point into it.
#[derive(Clone)]
pub struct Mempool(Arc<Inner>);

struct Inner {
    pool: NonNull<rte_mempool>,
    config: MempoolConfig,
    eal: Option<Arc<EalGuard>>,
}

// SAFETY: the pool is used through functions that are safe on many threads at once (multi-producer,
// multi-consumer rings), and freed by whichever thread drops the last handle.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// Makes a pool and fills it.
    ///
    /// # Errors
    /// Refused for impossible sizes, a name in use, or too little memory.
    pub fn new(eal: &Eal, config: &MempoolConfig) -> Result<Self, MempoolError> {
        let mut config = config.clone();
        config.buffers = with_slack(config.ops, config.buffers);
        let config = &config;
        let name =
            validate(config).map_err(|reason| MempoolError::Invalid { name: config.name.clone(), reason })?;
        let socket = config.socket.and_then(|socket| i32::try_from(socket).ok()).unwrap_or(-1);
        let pool = log::record(|| {
            // SAFETY: both strings end in NUL and are copied; the EAL runs, as `eal` shows.
            let pool = unsafe {
                dpdk_sys::rte_pktmbuf_pool_create_by_ops(
                    name.as_ptr(),
                    config.buffers,
                    config.cache,
                    0,
                    HEADROOM + config.data_room,
                    socket,
                    config.ops.name().as_ptr(),
                )
            };
            NonNull::new(pool).ok_or_else(Errno::last)
        })
        .map_err(|(errno, log)| MempoolError::Refused {
            name: config.name.clone(),
            buffers: config.buffers,
            data_room: config.data_room,
            mib: memory_bytes(config) >> 20,
            eal_mib: eal.guard().memory_mib,
            errno,
            log,
        })?;
        Ok(Self(Arc::new(Inner { pool, config: config.clone(), eal: Some(Arc::clone(eal.guard())) })))
    }

    /// Allocates an empty mbuf, or `None` when the pool has none left.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is alive.
        let pointer = unsafe { dpdk_sys::rte_pktmbuf_alloc(self.as_ptr()) };
        // SAFETY: null, or a fresh mbuf that is ours; `Inner::drop` keeps its pool alive.
        unsafe { Mbuf::from_raw(pointer) }
    }

    /// Adds `count` empty mbufs to `burst`: all of them, or none and false when the pool or the burst has
    /// too little left.
    #[inline]
    #[must_use]
    pub fn alloc_bulk<const N: usize>(&self, burst: &mut Burst<N>, count: usize) -> bool {
        if count > burst.room() {
            return false;
        }
        let Ok(wanted) = u32::try_from(count) else { return false };
        // SAFETY: the pool is alive and the burst has room for `count` pointers.
        let result = unsafe { dpdk_sys::rte_pktmbuf_alloc_bulk(self.as_ptr(), burst.spare(), wanted) };
        if result != 0 {
            return false;
        }
        // SAFETY: `count` fresh mbufs were written, and they are ours.
        unsafe { burst.grow(count) };
        true
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// What the pool was made with; the number of buffers is the real one.
    #[must_use]
    pub fn config(&self) -> &MempoolConfig {
        &self.0.config
    }

    /// Buffers in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.config.buffers as usize
    }

    /// Buffers in the pool and its caches. Exact at rest, an estimate while others allocate.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.available()
    }

    /// Buffers handed out: mbufs, and what drivers hold in their receive and transmit queues.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.capacity().saturating_sub(self.available())
    }

    /// Memory that the buffers take, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        memory_bytes(&self.0.config)
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl Inner {
    fn available(&self) -> usize {
        // SAFETY: the pool is alive; the function reads counters.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) as usize }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.available() < self.config.buffers as usize {
            std::mem::forget(self.eal.take());
            return;
        }
        // SAFETY: this was the last handle and every buffer is back, so nothing points into the pool.
        unsafe { dpdk_sys::rte_mempool_free(self.pool.as_ptr()) };
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool")
            .field("name", &self.name())
            .field("capacity", &self.capacity())
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

/// An object is its header and trailer (64 bytes), the mbuf (128) and the buffer.
fn memory_bytes(config: &MempoolConfig) -> u64 {
    u64::from(config.buffers) * (64 + 128 + u64::from(HEADROOM) + u64::from(config.data_room))
}

/// The number of buffers that keeps the shared ring of the next power of two from looking full.
fn with_slack(ops: PoolOps, buffers: u32) -> u32 {
    let Some(size) = buffers.checked_add(1).and_then(u32::checked_next_power_of_two) else { return buffers };
    // DPDK lets consumers run ahead of the tail by an eighth of the capacity.
    let enough = buffers + size.div_ceil(8) < size;
    if ops == PoolOps::Default || enough || buffers == 0 { buffers } else { size }
}

fn validate(config: &MempoolConfig) -> Result<CString, String> {
    let name = CString::new(config.name.as_str()).map_err(|_| "its name contains a NUL byte".to_owned())?;
    if config.name.is_empty() || config.name.len() > 25 {
        return Err("its name must have 1 to 25 bytes".to_owned());
    }
    if config.buffers == 0 {
        return Err("0 buffers".to_owned());
    }
    // DPDK's own rule: one and a half caches must fit the pool.
    let most = dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE.min(config.buffers - config.buffers.div_ceil(3));
    if config.cache > most {
        return Err(format!("a cache of {} of {} buffers; at most {most}", config.cache, config.buffers));
    }
    if config.data_room > u16::MAX - HEADROOM {
        return Err(format!("a data room of {}; at most {}", config.data_room, u16::MAX - HEADROOM));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_rooms() {
        assert_eq!(data_room_for_mtu(0), 2048);
        assert_eq!(data_room_for_mtu(1500), 2048);
        assert_eq!(data_room_for_mtu(9000), 9088);
        assert!(data_room_for_mtu(u16::MAX) <= u16::MAX - HEADROOM);
    }

    #[test]
    fn relaxed_rings_have_slots_to_spare() {
        for (asked, made) in
            [(0, 0), (1, 2), (1000, 1024), (1023, 1024), (1024, 1024), (8191, 8192), (7000, 7000)]
        {
            assert_eq!(with_slack(PoolOps::Relaxed, asked), made, "{asked}");
            assert_eq!(with_slack(PoolOps::Default, asked), asked);
        }
        assert_eq!(with_slack(PoolOps::Relaxed, u32::MAX), u32::MAX);
        for buffers in 1..5000_u32 {
            let made = with_slack(PoolOps::Relaxed, buffers);
            let capacity = (made + 1).next_power_of_two() - 1;
            assert!(made >= buffers && capacity - made >= capacity / 8, "{buffers}");
        }
    }

    #[test]
    fn impossible_pools_are_named() {
        let fine = MempoolConfig::default();
        assert!(validate(&fine).is_ok());
        let reason = |config: MempoolConfig| validate(&config).unwrap_err();
        let long = MempoolConfig { name: "x".repeat(26), ..fine };
        assert!(reason(MempoolConfig { cache: 513, ..fine.clone() }).contains("at most 512"));
        assert!(reason(MempoolConfig { buffers: 30, cache: 21, ..fine.clone() }).contains("at most 20"));
        assert!(reason(long).contains("1 to 25"));
        assert!(reason(MempoolConfig { buffers: 0, cache: 0, ..fine.clone() }).contains("0 buffers"));
        assert!(reason(MempoolConfig { data_room: u16::MAX, ..fine }).contains("at most 65407"));
    }
}
