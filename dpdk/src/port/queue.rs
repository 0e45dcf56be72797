//! The queues of a started port.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::running::Shared;
use crate::burst::Burst;

/// Makes a handle `!Sync`: a queue belongs to one thread at a time.
pub(super) type OneThread = PhantomData<Cell<()>>;

/// A receive queue. There is one handle per port and number; dropping it gives the number free again.
pub struct RxQueue {
    port: u16,
    queue: u16,
    shared: Arc<Shared>,
    one_thread: OneThread,
}

/// A transmit queue. There is one handle per port and number; dropping it gives the number free again.
pub struct TxQueue {
    port: u16,
    queue: u16,
    shared: Arc<Shared>,
    one_thread: OneThread,
}

/// Reserves a queue number; false when it is taken or does not exist.
fn take(taken: &[AtomicBool], queue: u16) -> bool {
    taken.get(usize::from(queue)).is_some_and(|taken| !taken.swap(true, Ordering::AcqRel))
}

fn give_back(taken: &[AtomicBool], queue: u16) {
    if let Some(taken) = taken.get(usize::from(queue)) {
        taken.store(false, Ordering::Release);
    }
}

impl RxQueue {
    pub(super) fn take(shared: &Arc<Shared>, queue: u16) -> Option<Self> {
        take(&shared.rx, queue).then(|| Self {
            port: shared.handle.id,
            queue,
            shared: Arc::clone(shared),
            one_thread: PhantomData,
        })
    }

    /// Adds received packets to `burst`, as many as there are and fit; returns how many. Never waits.
    ///
    /// Vector drivers receive in groups of 4 or 8 and give nothing when fewer fit: hand them bursts with
    /// room for 32.
    #[inline(always)]
    pub fn receive<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "Burst asserts that N fits 16 bits")]
        let room = burst.room() as u16;
        // SAFETY: the queue is set up and its port started while the handle lives, no other thread uses the
        // queue, and the burst has room for that many pointers.
        let count = unsafe { dpdk_sys::rte_eth_rx_burst(self.port, self.queue, burst.spare(), room) };
        // SAFETY: the driver wrote `count` mbufs and gave them away.
        unsafe { burst.grow(usize::from(count)) };
        usize::from(count)
    }

    /// The port's number, as in [`crate::Mbuf::port`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The queue's number.
    #[must_use]
    pub fn queue(&self) -> u16 {
        self.queue
    }
}

impl TxQueue {
    pub(super) fn take(shared: &Arc<Shared>, queue: u16) -> Option<Self> {
        take(&shared.tx, queue).then(|| Self {
            port: shared.handle.id,
            queue,
            shared: Arc::clone(shared),
            one_thread: PhantomData,
        })
    }

    /// Hands the packets of `burst` to the device, from the front, and returns how many it took. The rest
    /// stays in `burst`, moved to the front; the caller sends it later or drops it. Never waits.
    ///
    /// A packet of several segments may only be sent where [`super::Capabilities::multi_segment_tx`] is
    /// set; elsewhere [`crate::Mbuf::linearize`] it first, or the driver may send its first segment alone.
    #[inline(always)]
    pub fn transmit<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "Burst asserts that N fits 16 bits")]
        let length = burst.len() as u16;
        // SAFETY: the queue is set up and its port started while the handle lives, no other thread uses the
        // queue, and `burst` owns that many mbufs.
        let sent = unsafe { dpdk_sys::rte_eth_tx_burst(self.port, self.queue, burst.pointers(), length) };
        // SAFETY: the driver took the first `sent` mbufs over.
        unsafe { burst.forget_front(usize::from(sent)) };
        usize::from(sent)
    }

    /// The port's number, as in [`crate::Mbuf::port`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The queue's number.
    #[must_use]
    pub fn queue(&self) -> u16 {
        self.queue
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        give_back(&self.shared.rx, self.queue);
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        give_back(&self.shared.tx, self.queue);
    }
}

impl fmt::Debug for RxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RxQueue({}, {})", self.shared.handle.name, self.queue)
    }
}

impl fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxQueue({}, {})", self.shared.handle.name, self.queue)
    }
}
