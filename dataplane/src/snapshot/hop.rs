//! What most packets need of their destination, precomputed when a snapshot is made.

use super::{DestinationView, NextHop};
use crate::id::PortId;

/// Where a destination's packets go that can go straight on: a quarter of a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Hop {
    /// The frame's destination and source addresses, as they stand in it.
    pub macs: [u8; 12],
    /// Longest IP packet that goes straight on; 0 where none does: the destination was removed, or its next hop is not known or
    /// this host.
    pub longest: u16,
    /// Port to send from.
    pub port: PortId,
}

impl Hop {
    /// Nothing goes straight on.
    pub const NOWHERE: Self = Self { macs: [0; 12], longest: 0, port: PortId(0) };

    /// Of a destination.
    #[must_use]
    pub fn of(destination: &DestinationView) -> Self {
        match destination.next_hop {
            NextHop::Resolved { destination_mac: [a, b, c, d, e, f], source_mac: [g, h, i, j, k, l] }
                if destination.available =>
            {
                let macs = [a, b, c, d, e, f, g, h, i, j, k, l];
                Self { macs, longest: destination.mtu, port: destination.port }
            }
            _ => Self::NOWHERE,
        }
    }
}

impl Default for Hop {
    fn default() -> Self {
        Self::NOWHERE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_and_resolved_is_a_way() {
        let next_hop =
            NextHop::Resolved { destination_mac: [1, 2, 3, 4, 5, 6], source_mac: [7, 8, 9, 10, 11, 12] };
        let there = DestinationView {
            next_hop,
            available: true,
            mtu: 1500,
            port: PortId(3),
            ..DestinationView::default()
        };
        let macs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(Hop::of(&there), Hop { macs, longest: 1500, port: PortId(3) });
        assert_eq!(Hop::of(&DestinationView { available: false, ..there }), Hop::NOWHERE);
        for next_hop in [NextHop::Unresolved, NextHop::NoRoute, NextHop::Local] {
            assert_eq!(Hop::of(&DestinationView { next_hop, ..there }), Hop::NOWHERE);
        }
        assert_eq!(size_of::<Hop>(), 16);
    }
}
