//! Identities and units: small integers that must not be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Index of a port in the configuration, the same in every part of the director.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortId(pub u8);

/// Index of a worker, 0 to n-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u8);

/// Stable place of a virtual service; outlives snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceSlot(pub u32);

/// Stable place of a destination; outlives snapshots and is reused only when no connection, template or cursor names it
/// and every worker has passed a quiescent point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DestinationSlot(pub u32);

impl PortId {
    /// The port's place in tables indexed by port.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl WorkerId {
    /// The worker's place in tables indexed by worker.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl ServiceSlot {
    /// The service's place in tables indexed by slot.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl DestinationSlot {
    /// No destination: of connections that are forwarded by route.
    pub const NONE: Self = Self(u32::MAX);

    /// The destination's place in tables indexed by slot.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Milliseconds of a monotonic clock, wrapping every 49.7 days. Compare only with the methods, never with `<`: they are
/// right for moments less than 24.8 days apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ticks(pub u32);

impl Ticks {
    /// One second.
    pub const SECOND: u32 = 1_000;

    /// The moment `milliseconds` later.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, milliseconds: u32) -> Self {
        Self(self.0.wrapping_add(milliseconds))
    }

    /// Milliseconds from `earlier` to `self`, 0 when `earlier` is in the future.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        let distance = self.0.wrapping_sub(earlier.0);
        if distance > i32::MAX as u32 { 0 } else { distance }
    }

    /// Whether `self` is `other` or later.
    #[inline(always)]
    #[must_use]
    pub const fn reached(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) <= i32::MAX as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Ticks;

    #[test]
    fn ticks_are_wrap_safe() {
        let before = Ticks(u32::MAX - 5);
        let after = before.after(10);
        assert_eq!(after, Ticks(4));
        assert_eq!(after.since(before), 10);
        assert_eq!(before.since(after), 0);
        assert!(after.reached(before) && after.reached(after) && !before.reached(after));
    }
}
