//! Reads routes: `struct rtmsg` and its attributes.

use super::wire::{Hop, INET, INET6, Malformed, Route, RouteKind, Table, attributes, ip, u16_at, u32_at};
use netlink_packet_core::{NlaBuffer, NlasIterator};
use std::net::IpAddr;

/// Reads a route; `None` for other families, tables, cache entries and routes by source.
pub(super) fn route(payload: &[u8]) -> Result<Option<Route>, Malformed> {
    const CLONED: u32 = 0x200;
    const LOW_BYTE: usize = if cfg!(target_endian = "little") { 0 } else { 3 };
    let Some(&[family, prefix, source_prefix, tos, table, protocol, _scope, kind, ..]) =
        payload.first_chunk::<12>()
    else {
        return Err(Malformed);
    };
    let flags = u32_at(payload, 8).ok_or(Malformed)?;
    let unspecified: IpAddr = match family {
        INET => IpAddr::from([0; 4]),
        INET6 => IpAddr::from([0; 16]),
        _ => return Ok(None),
    };
    if flags & CLONED != 0 || source_prefix != 0 {
        return Ok(None);
    }
    let mut found = RouteAttributes::default();
    let mut hop = RouteHop { flags: flags.to_ne_bytes()[LOW_BYTE], ..RouteHop::default() };
    for attribute in attributes(payload, 12)? {
        let attribute = attribute?;
        hop.read(family, &attribute)?;
        found.read(family, &attribute)?;
    }
    let Some(table) = (match found.table.unwrap_or_else(|| u32::from(table)) {
        254 => Some(Table::Main),
        255 => Some(Table::Local),
        _ => None,
    }) else {
        return Ok(None);
    };
    let kind = match kind {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        6..=8 => RouteKind::Refuse,
        _ => RouteKind::Other,
    };
    if found.hops.is_empty() && kind != RouteKind::Refuse && hop.index != 0 {
        found.hops.push(hop.finish());
    }
    let bits = if family == INET { 32 } else { 128 };
    if prefix > bits {
        return Err(Malformed);
    }
    Ok(Some(Route {
        table,
        destination: found.destination.unwrap_or(unspecified),
        prefix,
        tos,
        metric: found.metric.unwrap_or(0),
        protocol,
        kind,
        prefsrc: found.prefsrc,
        mtu: found.mtu,
        hops: found.hops,
    }))
}

#[derive(Default)]
struct RouteAttributes {
    destination: Option<IpAddr>,
    table: Option<u32>,
    metric: Option<u32>,
    prefsrc: Option<IpAddr>,
    mtu: Option<u32>,
    hops: Vec<Hop>,
}

impl RouteAttributes {
    fn read(&mut self, family: u8, attribute: &NlaBuffer<&[u8]>) -> Result<(), Malformed> {
        const RTA_DST: u16 = 1;
        const RTA_PRIORITY: u16 = 6;
        const RTA_PREFSRC: u16 = 7;
        const RTA_METRICS: u16 = 8;
        const RTA_MULTIPATH: u16 = 9;
        const RTA_TABLE: u16 = 15;
        const RTAX_MTU: u16 = 2;
        let value = attribute.value();
        match attribute.kind() {
            RTA_DST => self.destination = Some(ip(family, value)?),
            RTA_PRIORITY => self.metric = Some(u32_at(value, 0).ok_or(Malformed)?),
            RTA_PREFSRC => self.prefsrc = Some(ip(family, value)?),
            RTA_TABLE => self.table = Some(u32_at(value, 0).ok_or(Malformed)?),
            RTA_METRICS => {
                for metric in NlasIterator::new(value) {
                    let metric = metric.map_err(|_| Malformed)?;
                    if metric.kind() == RTAX_MTU {
                        self.mtu = u32_at(metric.value(), 0).filter(|mtu| *mtu != 0);
                    }
                }
            }
            RTA_MULTIPATH => self.hops = multipath(family, value)?,
            _ => {}
        }
        Ok(())
    }
}

#[derive(Default)]
struct RouteHop {
    index: u32,
    gateway: Option<IpAddr>,
    weight: u16,
    flags: u8,
    encapsulated: bool,
}

impl RouteHop {
    fn read(&mut self, family: u8, attribute: &NlaBuffer<&[u8]>) -> Result<(), Malformed> {
        const RTA_OIF: u16 = 4;
        const RTA_GATEWAY: u16 = 5;
        const RTA_VIA: u16 = 18;
        const RTA_ENCAP: u16 = 22;
        let value = attribute.value();
        match attribute.kind() {
            RTA_OIF => self.index = u32_at(value, 0).ok_or(Malformed)?,
            RTA_GATEWAY => self.gateway = Some(ip(family, value)?),
            RTA_VIA => {
                // An IPv4 route through an IPv6 router (RFC 5549): family, then the address.
                let family =
                    u16_at(value, 0).and_then(|family| u8::try_from(family).ok()).ok_or(Malformed)?;
                self.gateway = Some(ip(family, value.get(2..).unwrap_or(&[]))?);
            }
            RTA_ENCAP => self.encapsulated = true,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Hop {
        const DEAD: u8 = 1;
        const LINKDOWN: u8 = 16;
        Hop {
            index: self.index,
            gateway: self.gateway.filter(|gateway| !gateway.is_unspecified()),
            weight: self.weight.max(1),
            dead: self.flags & DEAD != 0,
            linkdown: self.flags & LINKDOWN != 0,
            encapsulated: self.encapsulated,
        }
    }
}

/// `struct rtnexthop`: length (2), flags (1), weight - 1 (1), interface (4), attributes.
fn multipath(family: u8, mut rest: &[u8]) -> Result<Vec<Hop>, Malformed> {
    let mut hops = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0).ok_or(Malformed)?);
        let entry = rest.get(..length).filter(|entry| entry.len() >= 8).ok_or(Malformed)?;
        let mut hop = RouteHop {
            index: u32_at(entry, 4).ok_or(Malformed)?,
            weight: u16::from(entry.get(3).copied().unwrap_or(0)).saturating_add(1),
            flags: entry.get(2).copied().unwrap_or(0),
            ..RouteHop::default()
        };
        for attribute in attributes(entry, 8)? {
            hop.read(family, &attribute?)?;
        }
        hops.push(hop.finish());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(hops)
}
