//! The servers behind masquerading: whose packets are replies.

use super::ServiceKey;
use super::index::{Cells, Hashed, mix};
use crate::flow::port;
use crate::id::ServiceSlot;
use std::net::IpAddr;

/// A server's end of masqueraded connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    /// The server.
    pub address: IpAddr,
    /// IP protocol number; 0 for those of a mark, which has all.
    pub protocol: u8,
    /// Its port; 0 where connections keep the port that was asked for.
    pub port: u16,
}

impl Hashed for ServerKey {
    #[inline(always)]
    fn hash(&self) -> u64 {
        mix(self.address.hash(), u64::from(self.port) << 8 | u64::from(self.protocol))
    }
}

/// What is known of a server's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Destinations at it, removed ones that may have connections included.
    places: u32,
    /// The service of all of them, where the virtual end follows from the server's.
    pub service: Option<ServiceSlot>,
}

/// R: an element leaves when its last destination is forgotten, which is when no connection names it any more. Cloning shares
/// it, the first change after it copies.
#[derive(Debug, Clone, Default)]
pub struct ServerSet {
    servers: Cells<ServerKey, Server>,
    addresses: Cells<IpAddr, u32>,
    /// Destinations in service, by the port they were given.
    in_service: Cells<ServerKey, u32>,
}

/// The end of a destination's connections, and whether every port and protocol may be meant.
pub(super) fn end_of(service: &ServiceKey, address: IpAddr, port: u16) -> ServerKey {
    match service {
        // FTP's data connections have ports of their own.
        ServiceKey::Address { protocol, port: 0 | port::FTP, .. } => {
            ServerKey { address, protocol: *protocol, port: 0 }
        }
        ServiceKey::Address { protocol, .. } => ServerKey { address, protocol: *protocol, port },
        ServiceKey::Mark { .. } => ServerKey { address, protocol: 0, port: 0 },
    }
}

/// Whether the virtual end of a connection follows from the server's: one address, and one port or the same port.
pub(super) const fn tells_virtual_end(service: &ServiceKey, port: u16) -> bool {
    match service {
        ServiceKey::Address { port: 0, .. } => port == 0,
        ServiceKey::Address { port, .. } => *port != port::FTP,
        ServiceKey::Mark { .. } => false,
    }
}

impl ServerSet {
    /// Whether there is no server: nothing is a reply then.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whether packets from this address may be replies, whatever their protocol and port.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some()
    }

    /// The server that a packet from this end may be a reply of.
    #[inline]
    #[must_use]
    pub fn find(&self, protocol: u8, address: IpAddr, port: u16) -> Option<Server> {
        self.addresses.get(&address)?;
        let named = |protocol, port| self.servers.get(&ServerKey { address, protocol, port });
        let found = [named(protocol, port), named(protocol, 0), named(0, 0)];
        found
            .into_iter()
            .flatten()
            .reduce(|one, other| Server { places: one.places + other.places, service: None })
    }

    /// Whether a server of exactly this end is in service, as the kernel asks for `nat_icmp_send`.
    #[must_use]
    pub fn in_service(&self, protocol: u8, address: IpAddr, port: u16) -> bool {
        let serves = |protocol| self.in_service.get(&ServerKey { address, protocol, port }).is_some();
        serves(protocol) || serves(0)
    }

    /// Adds a destination at `key`.
    pub fn insert(&mut self, key: ServerKey, service: Option<ServiceSlot>) {
        let server = match self.servers.get(&key) {
            Some(server) => Server {
                places: server.places + 1,
                service: server.service.filter(|_| server.service == service),
            },
            None => Server { places: 1, service },
        };
        self.servers.insert(key, server);
        more(&mut self.addresses, key.address);
    }

    /// Takes a destination at `key` out.
    pub fn remove(&mut self, key: ServerKey) {
        let Some(server) = self.servers.get(&key) else { return };
        if server.places > 1 {
            self.servers.insert(key, Server { places: server.places - 1, ..server });
        } else {
            self.servers.remove(&key);
        }
        less(&mut self.addresses, key.address);
    }

    /// Says that a destination of `service` at this address and port is in service.
    pub fn serve(&mut self, service: &ServiceKey, address: IpAddr, port: u16) {
        more(&mut self.in_service, given(service, address, port));
    }

    /// Says that it is no more.
    pub fn retire(&mut self, service: &ServiceKey, address: IpAddr, port: u16) {
        less(&mut self.in_service, given(service, address, port));
    }
}

fn given(service: &ServiceKey, address: IpAddr, port: u16) -> ServerKey {
    let protocol = match service {
        ServiceKey::Address { protocol, .. } => *protocol,
        ServiceKey::Mark { .. } => 0,
    };
    ServerKey { address, protocol, port }
}

fn more<K: Hashed>(counts: &mut Cells<K, u32>, key: K) {
    let count = counts.get(&key).unwrap_or(0);
    counts.insert(key, count + 1);
}

fn less<K: Hashed>(counts: &mut Cells<K, u32>, key: K) {
    match counts.get(&key) {
        Some(count) if count > 1 => {
            counts.insert(key, count - 1);
        }
        _ => {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> ServiceKey {
        ServiceKey::Address { protocol: 6, address: IpAddr::from([10, 0, 0, 100]), port }
    }

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 10, 3));

    #[test]
    fn an_element_leaves_with_its_last_destination() {
        let mut set = ServerSet::default();
        let end = end_of(&key(80), SERVER, 8080);
        set.insert(end, Some(ServiceSlot(1)));
        assert_eq!(set.find(6, SERVER, 8080).unwrap().service, Some(ServiceSlot(1)));
        assert_eq!((set.find(17, SERVER, 8080), set.find(6, SERVER, 80)), (None, None));
        set.insert(end, Some(ServiceSlot(2)));
        assert_eq!(set.find(6, SERVER, 8080).unwrap().service, None, "two services may be meant");
        set.remove(end);
        assert!(set.contains(SERVER) && set.find(6, SERVER, 8080).is_some());
        set.remove(end);
        assert!(set.is_empty() && set.find(6, SERVER, 8080).is_none());
    }

    #[test]
    fn every_port_is_meant_where_connections_keep_theirs() {
        let mut set = ServerSet::default();
        set.insert(end_of(&key(0), SERVER, 0), Some(ServiceSlot(1)));
        assert!(set.find(6, SERVER, 4711).is_some() && set.find(17, SERVER, 4711).is_none());
        set.insert(end_of(&ServiceKey::Mark { mark: 3, v6: false }, SERVER, 80), None);
        assert!(set.find(17, SERVER, 4711).is_some());
        assert_eq!(end_of(&key(21), SERVER, 21).port, 0, "FTP's data connections");
    }

    #[test]
    fn servers_in_service_are_known_by_their_own_port() {
        let mut set = ServerSet::default();
        set.serve(&key(80), SERVER, 8080);
        set.serve(&key(81), SERVER, 8080);
        set.retire(&key(80), SERVER, 8080);
        assert!(set.in_service(6, SERVER, 8080) && !set.in_service(17, SERVER, 8080));
        assert!(!set.in_service(6, SERVER, 80));
        set.retire(&key(81), SERVER, 8080);
        assert!(!set.in_service(6, SERVER, 8080));
    }
}
