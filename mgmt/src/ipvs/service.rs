//! Virtual services on the wire: how one is named, how one is wanted, and how one is listed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use rustix::io::Errno;

use super::attribute::{Attribute, Rule, Table};
use super::number::{INET, INET6, carried, flag, service as kind};
use super::statistics;
use crate::address::{Endpoint, Protocol};
use crate::desired::{
    ClientMask, Family, Scheduler, SchedulerFlags, ServiceEdit, ServiceKey, ServiceSpec, scheduler,
};
use crate::protocol::ServiceState;

/// `IP_VS_SCHEDNAME_MAXLEN` and `IP_VS_PENAME_MAXLEN`.
const SCHEDULER_NAME: usize = 15;
const ENGINE_NAME: usize = 16;
/// What the attributes inside a service must look like.
const RULES: [Rule; 13] = [
    Rule::Any,
    Rule::Number(2),
    Rule::Number(2),
    Rule::Bytes(16),
    Rule::Number(2),
    Rule::Number(4),
    Rule::Text(SCHEDULER_NAME),
    Rule::Bytes(8),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Nested,
    Rule::Text(ENGINE_NAME),
    Rule::Any,
];

/// What a request to make or to change a service says beyond its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    scheduler: &'a [u8],
    engine: &'a [u8],
    flags: u32,
    /// Which flags it means.
    mask: u32,
    timeout_s: u32,
    netmask: [u8; 4],
}

/// The family of an `AF_*` number.
///
/// # Errors
///
/// `EAFNOSUPPORT`
pub(super) fn family(number: u16) -> Result<Family, Errno> {
    match number {
        INET => Ok(Family::Ipv4),
        INET6 => Ok(Family::Ipv6),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn family_number(family: Family) -> u16 {
    match family {
        Family::Ipv4 => INET,
        Family::Ipv6 => INET6,
    }
}

/// An address from the 16 bytes that carry either family.
pub(super) fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    match family {
        Family::Ipv4 => Ipv4Addr::new(a, b, c, d).into(),
        Family::Ipv6 => Ipv6Addr::from(bytes).into(),
    }
}

/// The 16 bytes that carry an address.
pub(super) fn address_bytes(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => bytes.iter_mut().zip(ip.octets()).for_each(|(to, from)| *to = from),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    bytes
}

fn protocol(number: u16) -> Result<Protocol, Errno> {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    known.into_iter().find(|known| u16::from(known.number()) == number).ok_or(Errno::PROTONOSUPPORT)
}

/// A service's key, or why there can be no such service here.
pub(super) type Key = Result<ServiceKey, Errno>;

/// Reads the service that a command is about.
///
/// # Errors
///
/// `EINVAL`: none is named; `EAFNOSUPPORT`.
pub(super) fn read<'a, const N: usize>(carries: &Table<'a, N>) -> Result<(Key, Table<'a, 13>), Errno> {
    let table = carries.nest(carried::SERVICE, &RULES)?;
    let family_number = table.u16(kind::FAMILY).ok_or(Errno::INVAL)?;
    let by_address = (table.u16(kind::PROTOCOL), table.padded(kind::ADDRESS), table.port(kind::PORT));
    let key = match (table.u32(kind::MARK), by_address) {
        (Some(mark), _) => {
            let family = family(family_number)?;
            NonZeroU32::new(mark).map(|mark| ServiceKey::Mark { mark, family }).ok_or(Errno::INVAL)
        }
        (None, (Some(number), Some(bytes), Some(port))) => {
            let family = family(family_number)?;
            let address = Endpoint { ip: address(family, bytes), port };
            protocol(number).map(|protocol| ServiceKey::Address { protocol, address })
        }
        _ => return Err(Errno::INVAL),
    };
    Ok((key, table))
}

impl<'a> Wanted<'a> {
    /// Reads what a service shall be.
    ///
    /// # Errors
    ///
    /// `EINVAL`: something is missing.
    pub(super) fn read(table: &Table<'a, 13>) -> Result<Self, Errno> {
        let flags: [u8; 8] = table.padded(kind::FLAGS).ok_or(Errno::INVAL)?;
        let (flags, mask) = flags.split_at(4);
        let number = |bytes: &[u8]| bytes.first_chunk().copied().map_or(0, u32::from_ne_bytes);
        Ok(Self {
            scheduler: table.text(kind::SCHEDULER).ok_or(Errno::INVAL)?,
            engine: table.text(kind::ENGINE).unwrap_or(&[]),
            flags: number(flags),
            mask: number(mask),
            timeout_s: table.u32(kind::TIMEOUT).ok_or(Errno::INVAL)?,
            netmask: table.padded(kind::NETMASK).ok_or(Errno::INVAL)?,
        })
    }

    /// Whether what it leaves open must be looked up in the service that is there.
    pub(super) fn is_partial(&self) -> bool {
        self.mask & flag::KNOWN != flag::KNOWN
    }

    fn resolved(&self, family: Family, present: u32) -> Result<Resolved, Errno> {
        let flags = present & !self.mask | self.flags & self.mask;
        let name = std::str::from_utf8(self.scheduler).map_err(|_| Errno::NOENT)?;
        let scheduler = scheduler(name).map_err(|_| Errno::NOENT)?;
        if !self.engine.is_empty() {
            return Err(Errno::NOENT);
        }
        let netmask = match family {
            Family::Ipv4 => ClientMask::Ipv4(Ipv4Addr::from(self.netmask)),
            Family::Ipv6 => {
                let prefix = u8::try_from(u32::from_ne_bytes(self.netmask)).unwrap_or(0);
                ClientMask::Prefix(prefix).held(family).ok_or(Errno::INVAL)?
            }
        };
        let persistent = flags & flag::PERSISTENT != 0;
        // The kernel keeps a template of 0 s no time at all; here that is no persistence, which was not asked for.
        if persistent && self.timeout_s == 0 {
            return Err(Errno::INVAL);
        }
        let bits = (flags & flag::SCHEDULER) >> flag::SCHEDULER_SHIFT;
        Ok(Resolved {
            scheduler,
            persistent: if persistent { self.timeout_s } else { 0 },
            netmask: persistent.then_some(netmask),
            one_packet: flags & flag::ONE_PACKET != 0,
            scheduler_flags: SchedulerFlags::from_bits(u8::try_from(bits).unwrap_or(0)),
        })
    }

    /// A new service.
    ///
    /// # Errors
    ///
    /// `ENOENT`: no such scheduler or persistence engine; `EINVAL`: a mask that is none.
    pub(super) fn spec(&self, key: ServiceKey) -> Result<ServiceSpec, Errno> {
        let Resolved { scheduler, persistent, netmask, one_packet, scheduler_flags } =
            self.resolved(key.family(), 0)?;
        Ok(ServiceSpec {
            persistent,
            netmask,
            one_packet,
            scheduler_flags,
            ..ServiceSpec::new(key, scheduler)
        })
    }

    /// Another scheduler, persistence or other flags for the service that is there with `present` flags.
    ///
    /// # Errors
    ///
    /// As for [`Self::spec`].
    pub(super) fn edit(&self, service: ServiceKey, present: u32) -> Result<ServiceEdit, Errno> {
        let wanted = self.resolved(service.family(), present)?;
        Ok(ServiceEdit {
            scheduler: Some(wanted.scheduler),
            persistent: Some(wanted.persistent),
            netmask: wanted.netmask,
            one_packet: Some(wanted.one_packet),
            scheduler_flags: Some(wanted.scheduler_flags),
            ..ServiceEdit::of(service)
        })
    }
}

struct Resolved {
    scheduler: Scheduler,
    persistent: u32,
    netmask: Option<ClientMask>,
    one_packet: bool,
    scheduler_flags: SchedulerFlags,
}

/// `IP_VS_SVC_F_*` of a service.
pub(super) fn flags(service: &ServiceState) -> u32 {
    let persistent = if service.persistent == 0 { 0 } else { flag::PERSISTENT };
    let one_packet = if service.one_packet { flag::ONE_PACKET } else { 0 };
    let scheduler = u32::from(service.scheduler_flags.bits()) << flag::SCHEDULER_SHIFT;
    flag::HASHED | persistent | one_packet | scheduler
}

/// The part of a client's address that counts, as the wire has it: a mask in network order, or a length.
pub(super) fn netmask(service: &ServiceState) -> [u8; 4] {
    let family = service.key.family();
    match service.netmask.and_then(|mask| mask.held(family)).unwrap_or_else(|| ClientMask::whole(family)) {
        ClientMask::Ipv4(mask) => mask.octets(),
        ClientMask::Prefix(prefix) => u32::from(prefix).to_ne_bytes(),
    }
}

/// A service with its counters.
pub(super) fn described(service: &ServiceState) -> Attribute {
    let key = service.key;
    let mut inside = vec![Attribute::u16(kind::FAMILY, family_number(key.family()))];
    match key {
        ServiceKey::Address { protocol, address } => inside.extend([
            Attribute::u16(kind::PROTOCOL, protocol.number().into()),
            Attribute::bytes(kind::ADDRESS, address_bytes(address.ip)),
            Attribute::port(kind::PORT, address.port),
        ]),
        ServiceKey::Mark { mark, .. } => inside.push(Attribute::u32(kind::MARK, mark.get())),
    }
    let mut all_flags = flags(service).to_ne_bytes().to_vec();
    all_flags.extend([0xff; 4]);
    inside.extend([
        Attribute::text(kind::SCHEDULER, service.scheduler.name()),
        Attribute::bytes(kind::FLAGS, all_flags),
        Attribute::u32(kind::TIMEOUT, service.persistent),
        Attribute::bytes(kind::NETMASK, netmask(service)),
        statistics::narrow(kind::STATS, &service.traffic),
        statistics::wide(kind::STATS64, &service.traffic),
    ]);
    Attribute::nested(carried::SERVICE, inside)
}
