//! What was learnt of the ways to tunnels' ends.

use crate::id::Ticks;
use crate::steering::toeplitz;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a path MTU is believed, and the shortest one: the kernel's `mtu_expires` and `min_pmtu`.
const LIFE: u32 = 600 * Ticks::SECOND;
const SHORTEST: u16 = 552;

/// A destination's path MTU. Read for every long packet through a tunnel, written when a router tells of one: not on the line of the
/// counts, which every new connection writes.
#[derive(Debug, Default)]
pub struct PathMtu {
    /// MTU, a check of the server's address, and when it was told in [`Ticks`]; 0: none. Written by the worker that got the message.
    entry: AtomicU64,
    /// Packets from clients up to then.
    after: AtomicU64,
}

impl PathMtu {
    /// Believes that packets to `server` must not be longer than `mtu`, where the link takes `link`. Returns the MTU that clients are
    /// to be told: the kernel's cached route has what was learnt once a packet has gone by it, of `packets` until now.
    pub fn learn(&self, server: IpAddr, mtu: u16, link: u16, packets: u64, now: Ticks) -> u16 {
        let before = self.get(server, now);
        let known = before.map_or(link, |learnt| learnt.min(link));
        let believed = if mtu > known { known } else { mtu.max(SHORTEST.min(known)) };
        if mtu <= known {
            let entry = u64::from(believed) << 48 | u64::from(check(server)) << 32 | u64::from(now.0);
            self.entry.store(entry, Relaxed);
        }
        if before.is_none() {
            self.after.store(packets, Relaxed);
        }
        if before.is_some() && packets > self.after.load(Relaxed) { believed } else { link }
    }

    /// Whether none was ever learnt.
    #[inline(always)]
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.entry.load(Relaxed) == 0
    }

    /// The path MTU to `server` that was learnt. Packets of [`Self::always_passes`] need not ask.
    #[inline]
    #[must_use]
    pub fn get(&self, server: IpAddr, now: Ticks) -> Option<u16> {
        let [a, b, c, d, e, f, g, h] = self.entry.load(Relaxed).to_be_bytes();
        let mtu = u16::from_be_bytes([a, b]);
        let since = Ticks(u32::from_be_bytes([e, f, g, h]));
        let valid = mtu != 0 && u16::from_be_bytes([c, d]) == check(server) && now.since(since) < LIFE;
        valid.then_some(mtu)
    }

    /// Whether a packet of this length is within every path MTU that can be learnt.
    #[inline(always)]
    #[must_use]
    pub const fn always_passes(length: u32) -> bool {
        length <= SHORTEST as u32
    }
}

/// Tells a server's path MTU from that of the destination that had the slot before.
fn check(server: IpAddr) -> u16 {
    match server {
        IpAddr::V4(address) => toeplitz::fold(address),
        IpAddr::V6(address) => toeplitz::fold(address),
    }
}
