//! What most packets need of their destination, and most replies of their route, precomputed when a snapshot is made.

use super::{DestinationView, NextHop, RouteView};
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
        let DestinationView { next_hop, port, mtu, available, .. } = *destination;
        Self::resolved(next_hop, port, mtu).filter(|_| available).unwrap_or(Self::NOWHERE)
    }

    fn resolved(next_hop: NextHop, port: PortId, longest: u16) -> Option<Self> {
        let NextHop::Resolved { destination_mac: to, source_mac: from } = next_hop else { return None };
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&to);
        macs[6..].copy_from_slice(&from);
        Some(Self { macs, longest, port })
    }
}

impl Default for Hop {
    fn default() -> Self {
        Self::NOWHERE
    }
}

/// Where replies go that can go straight on, by a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nowhere: they are not to be sent here, or the next hop is not known.
    Nowhere,
    /// To a known next hop.
    Known(Hop),
    /// To clients on the link itself, as far as they came in by it: their MACs are with their connections.
    OnLink {
        /// Port of the link.
        port: PortId,
        /// Longest IP packet that goes straight on.
        longest: u16,
    },
}

impl Exit {
    /// Of a route.
    #[must_use]
    pub fn of(route: &RouteView) -> Self {
        match *route {
            RouteView { next_hop: NextHop::Unresolved, via: None, port, mtu, .. } => {
                Self::OnLink { port, longest: mtu }
            }
            RouteView { next_hop, port, mtu, .. } => {
                Hop::resolved(next_hop, port, mtu).map_or(Self::Nowhere, Self::Known)
            }
        }
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
    #[test]
    fn routes_lead_to_known_routers_and_to_clients_on_the_link() {
        let next_hop =
            NextHop::Resolved { destination_mac: [1, 2, 3, 4, 5, 6], source_mac: [7, 8, 9, 10, 11, 12] };
        let via = Some("192.0.2.1".parse().unwrap());
        let route = RouteView { next_hop, via, source: None, port: PortId(3), mtu: 1500 };
        let macs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let known = Exit::Known(Hop { macs, longest: 1500, port: PortId(3) });
        assert_eq!(Exit::of(&route), known);
        assert_eq!(Exit::of(&RouteView { via: None, ..route }), known);
        let unresolved = RouteView { next_hop: NextHop::Unresolved, ..route };
        assert_eq!(Exit::of(&unresolved), Exit::Nowhere);
        let on_link = RouteView { via: None, ..unresolved };
        assert_eq!(Exit::of(&on_link), Exit::OnLink { port: PortId(3), longest: 1500 });
        for next_hop in [NextHop::NoRoute, NextHop::Local] {
            assert_eq!(Exit::of(&RouteView { next_hop, via: None, ..route }), Exit::Nowhere);
        }
    }
}
