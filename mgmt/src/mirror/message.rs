//! Requests to the kernel, as rtnetlink messages.

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::{IpAddr, Ipv4Addr};

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Asks for all links.
#[must_use]
pub fn get_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// Asks for all addresses.
#[must_use]
pub fn get_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Asks for all routes.
#[must_use]
pub fn get_routes() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRoute(RouteMessage::default())
}

/// Asks for all neighbours.
#[must_use]
pub fn get_neighbours() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())
}

/// Asks for one link by name.
#[must_use]
pub fn get_link(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    RouteNetlinkMessage::GetLink(message)
}

/// Changes to make to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkChange {
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Up or down.
    pub up: Option<bool>,
    /// Carrier on or off.
    pub carrier: Option<bool>,
}

/// Changes the link with `index`.
#[must_use]
pub fn set_link(index: u32, change: &LinkChange) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(change.carrier.map(|carrier| LinkAttribute::Carrier(u8::from(carrier))));
    RouteNetlinkMessage::SetLink(message)
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

/// Gives a link an address. Addresses of IPv6 are usable at once: a director's addresses are configured, and one that
/// waits for duplicate address detection answers nobody for a second or more.
#[must_use]
pub fn new_address(index: u32, address: IpAddr, prefix: u8) -> RouteNetlinkMessage {
    let mut message = address_message(index, address, prefix);
    match address {
        IpAddr::V4(address) if prefix < 31 => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            message
                .attributes
                .push(AddressAttribute::Broadcast(Ipv4Addr::from_bits(address.to_bits() | host)));
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
    }
    RouteNetlinkMessage::NewAddress(message)
}

/// Takes an address from a link.
#[must_use]
pub fn delete_address(index: u32, address: IpAddr, prefix: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(address_message(index, address, prefix))
}

/// A route to add to the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoute {
    /// Destination network.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Interface index.
    pub index: u32,
    /// Router; none for destinations on the link.
    pub via: Option<IpAddr>,
}

/// Adds a route, marked as an operator's.
#[must_use]
pub fn new_route(route: &NewRoute) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    let on_link = route.via.is_none() && route.destination.is_ipv4();
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(route.destination)));
    message.attributes.push(RouteAttribute::Oif(route.index));
    match route.via {
        Some(via) if via.is_ipv4() == route.destination.is_ipv4() => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
        }
        Some(via) => message.attributes.push(RouteAttribute::Via(RouteVia::from(via))),
        None => {}
    }
    RouteNetlinkMessage::NewRoute(message)
}

fn neighbour_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::None;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

/// Asks the kernel to resolve a neighbour and keep it. A kernel that does not know the mark uses the entry instead.
#[must_use]
pub fn keep_neighbour(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = neighbour_message(index, address);
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Asks the kernel to resolve a neighbour once; takes the mark from a kept one.
#[must_use]
pub fn use_neighbour(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = neighbour_message(index, address);
    message.header.flags = NeighbourFlags::Use;
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Sets a static neighbour.
#[must_use]
pub fn permanent_neighbour(index: u32, address: IpAddr, mac: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = neighbour_message(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};

    #[test]
    fn a_request_to_keep_a_neighbour_is_what_the_kernel_expects() {
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (0x505, 7);
        let request = keep_neighbour(5, [192, 168, 132, 68].into());
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let expected = [
            44, 0, 0, 0, 28, 0, 5, 5, 7, 0, 0, 0, 0, 0, 0,
            0, // length, RTM_NEWNEIGH, flags, sequence, port
            2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 1, 0, // AF_INET, interface 5, state 0, NTF_USE
            8, 0, 1, 0, 192, 168, 132, 68, // NDA_DST
            8, 0, 15, 0, 1, 0, 0, 0, // NDA_FLAGS_EXT: NTF_EXT_MANAGED
        ];
        assert_eq!(bytes, expected);
    }
}
