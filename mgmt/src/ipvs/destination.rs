//! Destinations on the wire: how one is named, how one is wanted, and how one is listed.

use rustix::io::Errno;

use super::attribute::{Attribute, Rule, Table};
use super::number::{carried, destination as kind, method as forwarding, tunnel as encapsulation};
use super::service;
use super::statistics::{self, wrapped};
use crate::address::{Endpoint, Server};
use crate::desired::{
    DestinationEdit, DestinationSpec, Family, Method, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
};
use crate::protocol::DestinationState;

/// What the attributes inside a destination must look like.
const RULES: [Rule; 16] = [
    Rule::Any,
    Rule::Bytes(16),
    Rule::Number(2),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Number(4),
    Rule::Nested,
    Rule::Number(2),
    Rule::Any,
    Rule::Number(1),
    Rule::Number(2),
    Rule::Number(2),
];

/// What a request to make or to change a destination says beyond its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    method: u32,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    tunnel_kind: u8,
    tunnel_port: u16,
    tunnel_flags: u16,
}

/// Reads the destination that a command names: an address of the service's family, unless it says which.
///
/// # Errors
///
/// `EINVAL`: none is named.
pub(super) fn read<'a, const N: usize>(carries: &Table<'a, N>) -> Result<Table<'a, 16>, Errno> {
    let table = carries.nest(carried::DEST, &RULES)?;
    let named = table.bytes(kind::ADDRESS).is_some() && table.port(kind::PORT).is_some();
    if named { Ok(table) } else { Err(Errno::INVAL) }
}

/// The server it names.
///
/// # Errors
///
/// `EAFNOSUPPORT`
pub(super) fn server(table: &Table<'_, 16>, service: Family) -> Result<Endpoint, Errno> {
    let family = match table.u16(kind::FAMILY) {
        None | Some(0) => service,
        Some(number) => service::family(number)?,
    };
    let bytes = table.padded(kind::ADDRESS).ok_or(Errno::INVAL)?;
    Ok(Endpoint { ip: service::address(family, bytes), port: table.port(kind::PORT).ok_or(Errno::INVAL)? })
}

impl Wanted {
    /// Reads what a destination shall be.
    ///
    /// # Errors
    ///
    /// `EINVAL`: something is missing.
    pub(super) fn read(table: &Table<'_, 16>) -> Result<Self, Errno> {
        let number = |kind| table.u32(kind).ok_or(Errno::INVAL);
        Ok(Self {
            method: number(kind::METHOD)? & forwarding::MASK,
            weight: number(kind::WEIGHT)?,
            upper_threshold: number(kind::UPPER_THRESHOLD)?,
            lower_threshold: number(kind::LOWER_THRESHOLD)?,
            tunnel_kind: table.u8(kind::TUNNEL_KIND).unwrap_or(0),
            tunnel_port: table.port(kind::TUNNEL_PORT).unwrap_or(0),
            tunnel_flags: table.u16(kind::TUNNEL_FLAGS).unwrap_or(0),
        })
    }

    /// Methods the kernel has and nobody asks for (local, bypass) are not there.
    fn method(&self) -> Result<Method, Errno> {
        match self.method {
            forwarding::MASQUERADE => Ok(Method::Masquerade),
            forwarding::DIRECT => Ok(Method::Direct),
            forwarding::TUNNEL => {
                let kind = match self.tunnel_kind {
                    encapsulation::IPIP => TunnelKind::Ipip,
                    encapsulation::GUE => TunnelKind::Gue,
                    encapsulation::GRE => TunnelKind::Gre,
                    _ => return Err(Errno::INVAL),
                };
                let checksum = match self.tunnel_flags {
                    flags if flags & encapsulation::CHECKSUM != 0 => TunnelChecksum::Plain,
                    flags if flags & encapsulation::REMOTE_CHECKSUM != 0 => TunnelChecksum::Remote,
                    _ => TunnelChecksum::None,
                };
                Ok(Method::Tunnel(Tunnel { kind, port: self.tunnel_port, checksum }))
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// A new destination.
    ///
    /// # Errors
    ///
    /// A forwarding method that is not there.
    pub(super) fn spec(&self, server: Endpoint) -> Result<DestinationSpec, Errno> {
        Ok(DestinationSpec {
            address: named(server),
            weight: self.weight,
            method: self.method()?,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }

    /// Another method, weight or other thresholds.
    ///
    /// # Errors
    ///
    /// A forwarding method that is not there.
    pub(super) fn edit(&self, service: ServiceKey, server: Endpoint) -> Result<DestinationEdit, Errno> {
        Ok(DestinationEdit {
            service,
            address: named(server),
            weight: Some(self.weight),
            method: Some(self.method()?),
            upper_threshold: Some(self.upper_threshold),
            lower_threshold: Some(self.lower_threshold),
        })
    }
}

/// A server by the address and port of the wire.
pub(super) fn named(server: Endpoint) -> Server {
    Server { ip: server.ip, port: Some(server.port) }
}

/// `IP_VS_CONN_F_*` of a method, and its tunnel's kind, port and flags.
fn numbers(method: Method) -> (u32, u8, u16, u16) {
    match method {
        Method::Masquerade => (forwarding::MASQUERADE, 0, 0, 0),
        Method::Direct => (forwarding::DIRECT, 0, 0, 0),
        Method::Tunnel(Tunnel { kind, port, checksum }) => {
            let kind = match kind {
                TunnelKind::Ipip => encapsulation::IPIP,
                TunnelKind::Gue => encapsulation::GUE,
                TunnelKind::Gre => encapsulation::GRE,
            };
            let flags = match checksum {
                TunnelChecksum::None => 0,
                TunnelChecksum::Plain => encapsulation::CHECKSUM,
                TunnelChecksum::Remote => encapsulation::REMOTE_CHECKSUM,
            };
            (forwarding::TUNNEL, kind, port, flags)
        }
    }
}

/// A destination with its counters.
pub(super) fn described(destination: &DestinationState) -> Attribute {
    let Endpoint { ip, port } = destination.address;
    let (method, tunnel_kind, tunnel_port, tunnel_flags) = numbers(destination.method);
    Attribute::nested(
        carried::DEST,
        vec![
            Attribute::bytes(kind::ADDRESS, service::address_bytes(ip)),
            Attribute::port(kind::PORT, port),
            Attribute::u32(kind::METHOD, method),
            Attribute::u32(kind::WEIGHT, destination.weight),
            Attribute::bytes(kind::TUNNEL_KIND, [tunnel_kind]),
            Attribute::port(kind::TUNNEL_PORT, tunnel_port),
            Attribute::u16(kind::TUNNEL_FLAGS, tunnel_flags),
            Attribute::u32(kind::UPPER_THRESHOLD, destination.upper_threshold),
            Attribute::u32(kind::LOWER_THRESHOLD, destination.lower_threshold),
            Attribute::u32(kind::ACTIVE, wrapped(destination.active)),
            Attribute::u32(kind::INACTIVE, wrapped(destination.inactive)),
            Attribute::u32(kind::PERSISTENT, wrapped(destination.persistent)),
            Attribute::u16(kind::FAMILY, service::family_number(Family::of(ip))),
            statistics::narrow(kind::STATS, &destination.traffic),
            statistics::wide(kind::STATS64, &destination.traffic),
        ],
    )
}
