//! Reads what the mirror needs from rtnetlink messages, and nothing else.
//!
//! Attributes that the mirror does not use are never interpreted, so that a newer kernel's additions cannot make a
//! message unreadable. Layouts: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`, `linux/neighbour.h`; fields
//! are in the machine's byte order, addresses in network order.

use super::wire_route::route;
use netlink_packet_core::{NlaBuffer, NlasIterator};
use std::net::{IpAddr, Ipv6Addr};

/// Message types that the mirror reads.
pub mod kind {
    /// End of a dump, with its error code.
    pub const DONE: u16 = 3;
    /// Answer to a request: an errno, 0 for success.
    pub const ERROR: u16 = 2;
    /// A link appeared or changed.
    pub const NEW_LINK: u16 = 16;
    /// A link is gone.
    pub const DEL_LINK: u16 = 17;
    /// An address appeared or changed.
    pub const NEW_ADDRESS: u16 = 20;
    /// An address is gone.
    pub const DEL_ADDRESS: u16 = 21;
    /// A route appeared or changed.
    pub const NEW_ROUTE: u16 = 24;
    /// A route is gone.
    pub const DEL_ROUTE: u16 = 25;
    /// A neighbour appeared or changed.
    pub const NEW_NEIGHBOUR: u16 = 28;
    /// A neighbour is gone.
    pub const DEL_NEIGHBOUR: u16 = 29;
}

const HEADER: usize = 16;
pub(super) const INET: u8 = 2;
pub(super) const INET6: u8 = 10;

/// One netlink message inside a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq` of the request it answers, 0 in notifications.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram, in order; ends at the first whose length cannot be true.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
    malformed: bool,
}

impl<'a> Messages<'a> {
    /// Reads `datagram`.
    #[must_use]
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram, malformed: false }
    }

    /// Whether reading ended at a header that cannot be true.
    #[must_use]
    pub const fn malformed(&self) -> bool {
        self.malformed
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let length = u32_at(rest, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let fields = (u16_at(rest, 4), u16_at(rest, 6), u32_at(rest, 8), rest.get(HEADER..length));
        let (Some(kind), Some(flags), Some(sequence), Some(payload)) = fields else {
            self.malformed = true;
            return None;
        };
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message { kind, flags, sequence, payload })
    }
}

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, never reused while the interface lives.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// `IFF_UP`: an operator wants it up.
    pub up: bool,
    /// `IFF_RUNNING`: it has a carrier.
    pub running: bool,
    /// Hardware address, when it has six bytes.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the interface below, for a macvlan.
    pub macvlan_of: Option<u32>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Interface index.
    pub index: u32,
    /// The local address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Whether duplicate address detection is still going on or has failed.
    pub tentative: bool,
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Delivers it here.
    Local,
    /// Delivers it here as a broadcast.
    Broadcast,
    /// Refuses it: blackhole, unreachable, prohibit.
    Refuse,
    /// Anything else, such as anycast or multicast.
    Other,
}

/// One way a route may send a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Index of the interface it leaves by.
    pub index: u32,
    /// The router; none when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Share of the packets relative to the others, 1 to 256.
    pub weight: u16,
    /// The kernel has taken it out of service.
    pub dead: bool,
    /// Its interface has no carrier.
    pub linkdown: bool,
    /// It wants an encapsulation that the director does not make.
    pub encapsulated: bool,
}

/// The two routing tables that the mirror keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// What operators and routing daemons write.
    Main,
    /// What the kernel derives from addresses; asked first.
    Local,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Table it is in.
    pub table: Table,
    /// Destination network.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Type of service; 0 for nearly all.
    pub tos: u8,
    /// Metric, less is better.
    pub metric: u32,
    /// Who made it (`rtm_protocol`: 2 kernel, 3 boot, 4 static, 12 bird …).
    pub protocol: u8,
    /// What it does.
    pub kind: RouteKind,
    /// Source address it prefers.
    pub prefsrc: Option<IpAddr>,
    /// Path MTU in bytes, when the route fixes one.
    pub mtu: Option<u32>,
    /// Ways out; empty for routes that refuse.
    pub hops: Vec<Hop>,
}

/// `ndm_state` bits (`linux/neighbour.h`).
pub mod nud {
    /// Being resolved for the first time.
    pub const INCOMPLETE: u16 = 0x01;
    /// Nobody answered.
    pub const FAILED: u16 = 0x20;
    /// No resolution needed.
    pub const NOARP: u16 = 0x40;
    /// Set by an operator.
    pub const PERMANENT: u16 = 0x80;
    /// Reachable, stale, delay, probe, noarp, permanent: a frame may be sent, given an address.
    pub const VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | NOARP | PERMANENT;
}

/// A neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface index.
    pub index: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// `ndm_state`, see [`nud`].
    pub state: u16,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Whether the kernel keeps it fresh for us (`NTF_EXT_MANAGED`).
    pub managed: bool,
}

impl Neighbour {
    /// Whether a frame may be sent to it now.
    #[must_use]
    pub const fn usable(&self) -> bool {
        self.state & nud::VALID != 0 && self.mac.is_some()
    }

    /// Whether no resolution is wanted or possible: static entries must never be asked for, a request would turn them
    /// into dynamic ones.
    #[must_use]
    pub const fn fixed(&self) -> bool {
        self.state & (nud::NOARP | nud::PERMANENT) != 0
    }
}

/// How a new route relates to those of the same destination and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Takes the place of the first one.
    Replace,
    /// Comes after the others.
    Append,
    /// Comes before the others.
    Prepend,
}

/// One change of the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is there.
    Link(Link),
    /// A link is gone; its index.
    LinkGone(u32),
    /// An address is there.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route is there.
    Route(Route, Placement),
    /// A route, or some of its ways, is gone.
    RouteGone(Route),
    /// A neighbour is there.
    Neighbour(Neighbour),
    /// A neighbour is gone.
    NeighbourGone(Neighbour),
}

/// A message that contradicts itself; counted, never acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed rtnetlink message")]
pub struct Malformed;

/// Reads one message; `None` for what the mirror does not keep (other families, tables, cache entries).
///
/// # Errors
/// [`Malformed`] when lengths contradict each other.
pub fn decode(message: &Message<'_>) -> Result<Option<Event>, Malformed> {
    let payload = message.payload;
    Ok(match message.kind {
        kind::NEW_LINK | kind::DEL_LINK => link(payload)?.map(|link| {
            if message.kind == kind::NEW_LINK { Event::Link(link) } else { Event::LinkGone(link.index) }
        }),
        kind::NEW_ADDRESS => address(payload)?.map(Event::Address),
        kind::DEL_ADDRESS => address(payload)?.map(Event::AddressGone),
        kind::NEW_ROUTE => route(payload)?.map(|route| Event::Route(route, placement(message.flags))),
        kind::DEL_ROUTE => route(payload)?.map(Event::RouteGone),
        kind::NEW_NEIGHBOUR => neighbour(payload)?.map(Event::Neighbour),
        kind::DEL_NEIGHBOUR => neighbour(payload)?.map(Event::NeighbourGone),
        _ => None,
    })
}

/// What the kernel says in an `NLMSG_ERROR` or `NLMSG_DONE`: 0 or a positive errno, and its explanation if it gave one.
#[must_use]
pub fn answer(message: &Message<'_>) -> Option<(i32, Option<String>)> {
    const ACK_TLVS: u16 = 0x200;
    const CAPPED: u16 = 0x100;
    const EXPLANATION: u16 = 1;
    let code = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
    let mut explanation = None;
    if message.flags & ACK_TLVS != 0 && message.kind == kind::ERROR {
        let quoted = if message.flags & CAPPED != 0 || code == 0 {
            HEADER
        } else {
            usize::try_from(u32_at(message.payload, 4)?).ok()?.next_multiple_of(4)
        };
        let attributes = message.payload.get(4_usize.checked_add(quoted)?..).unwrap_or(&[]);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            if attribute.kind() == EXPLANATION {
                let text = attribute.value().split(|byte| *byte == 0).next().unwrap_or(&[]);
                explanation = Some(String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    Some((code.checked_neg()?, explanation))
}

const fn placement(flags: u16) -> Placement {
    const REPLACE: u16 = 0x100;
    const MULTIPART: u16 = 0x2;
    const APPEND: u16 = 0x800;
    // A dump lists routes in the order in which the kernel tries them.
    if flags & MULTIPART != 0 || flags & APPEND != 0 {
        Placement::Append
    } else if flags & REPLACE != 0 {
        Placement::Replace
    } else {
        Placement::Prepend
    }
}

fn link(payload: &[u8]) -> Result<Option<Link>, Malformed> {
    const IFF_UP: u32 = 1;
    const IFF_RUNNING: u32 = 0x40;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINK: u16 = 5;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    let (Some(index), Some(flags)) = (u32_at(payload, 4), u32_at(payload, 8)) else { return Err(Malformed) };
    // Bridges announce their ports by link messages of their own family; a DELLINK of theirs removes no interface.
    if payload.first() != Some(&0) {
        return Ok(None);
    }
    let mut link = Link {
        index,
        name: String::new(),
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        mac: None,
        mtu: 0,
        macvlan_of: None,
    };
    let (mut below, mut macvlan) = (None, false);
    for attribute in attributes(payload, 16)? {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0).ok_or(Malformed)?,
            IFLA_LINK => below = u32_at(value, 0),
            IFLA_LINKINFO => {
                macvlan = NlasIterator::new(value)
                    .map_while(Result::ok)
                    .any(|info| info.kind() == IFLA_INFO_KIND && text(info.value()) == "macvlan");
            }
            _ => {}
        }
    }
    link.macvlan_of = below.filter(|_| macvlan);
    Ok(Some(link))
}

fn address(payload: &[u8]) -> Result<Option<Address>, Malformed> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_FLAGS: u16 = 8;
    const TENTATIVE_OR_FAILED: u32 = 0x40 | 0x08;
    const OPTIMISTIC: u32 = 0x04;
    let (Some(&[family, prefix, flags, _]), Some(index)) = (payload.first_chunk::<4>(), u32_at(payload, 4))
    else {
        return Err(Malformed);
    };
    if family != INET && family != INET6 {
        return Ok(None);
    }
    let (mut peer, mut local, mut flags) = (None, None, u32::from(flags));
    for attribute in attributes(payload, 8)? {
        let attribute = attribute?;
        match attribute.kind() {
            IFA_ADDRESS => peer = Some(ip(family, attribute.value())?),
            IFA_LOCAL => local = Some(ip(family, attribute.value())?),
            IFA_FLAGS => flags = u32_at(attribute.value(), 0).ok_or(Malformed)?,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's; IPv6 sends no IFA_LOCAL otherwise.
    let address = local.or(peer).ok_or(Malformed)?;
    let tentative = flags & TENTATIVE_OR_FAILED != 0 && flags & OPTIMISTIC == 0;
    Ok(Some(Address { index, address, prefix, tentative }))
}

fn neighbour(payload: &[u8]) -> Result<Option<Neighbour>, Malformed> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const NDA_FLAGS_EXT: u16 = 15;
    const NTF_PROXY: u8 = 0x08;
    const NTF_EXT_MANAGED: u32 = 1;
    let (Some(index), Some(state), Some(&family), Some(&flags)) =
        (u32_at(payload, 4), u16_at(payload, 8), payload.first(), payload.get(10))
    else {
        return Err(Malformed);
    };
    if (family != INET && family != INET6) || flags & NTF_PROXY != 0 {
        return Ok(None);
    }
    let (mut address, mut mac, mut managed) = (None, None, false);
    for attribute in attributes(payload, 12)? {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NDA_DST => address = Some(ip(family, value)?),
            NDA_LLADDR => mac = value.try_into().ok(),
            NDA_FLAGS_EXT => managed = u32_at(value, 0).ok_or(Malformed)? & NTF_EXT_MANAGED != 0,
            _ => {}
        }
    }
    let address = address.ok_or(Malformed)?;
    Ok(Some(Neighbour { index, address, state, mac, managed }))
}

pub(super) type Attributes<'a> = std::iter::Map<
    NlasIterator<&'a [u8]>,
    fn(
        Result<NlaBuffer<&'a [u8]>, netlink_packet_core::DecodeError>,
    ) -> Result<NlaBuffer<&'a [u8]>, Malformed>,
>;

pub(super) fn attributes(payload: &[u8], header: usize) -> Result<Attributes<'_>, Malformed> {
    let attributes = payload.get(header..).ok_or(Malformed)?;
    Ok(NlasIterator::new(attributes).map(|attribute| attribute.map_err(|_| Malformed)))
}

pub(super) fn ip(family: u8, value: &[u8]) -> Result<IpAddr, Malformed> {
    match family {
        INET => <[u8; 4]>::try_from(value).map(IpAddr::from).map_err(|_| Malformed),
        INET6 => <[u8; 16]>::try_from(value)
            .map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
            .map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or(&[])).into_owned()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}
