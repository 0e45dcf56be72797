//! Writes what the configuration names into the kernel: addresses, routes and neighbours of a twin.
//!
//! Everything is idempotent: what is there already is left or replaced. Virtual addresses are set last, once the
//! workers run and next hops resolve, and removed first at a planned stop: the moment the kernel owns one, a routing
//! daemon may announce it.

use super::message;
use super::socket::{NetlinkError, RouteSocket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address with the length of its network's prefix, or a network: `192.168.132.30/24`. Without a length, the
/// address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits, at most 32 or 128.
    pub length: u8,
}

/// What is wrong with a [`Prefix`] as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length, such as 192.168.132.30/24 or fd00::30/64")]
pub struct InvalidPrefix(String);

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let invalid = || InvalidPrefix(text.to_owned());
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(most), str::parse).map_err(|_| invalid())?;
        if length > most { Err(invalid()) } else { Ok(Self { address, length }) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A route of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteEntry {
    /// Destination network.
    pub to: Prefix,
    /// Router; none when the destination is on the link.
    pub via: Option<IpAddr>,
}

/// An entry that the kernel did not take.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The twin is not there.
    #[error("interface {interface}: {error}")]
    Interface {
        /// Its name.
        interface: String,
        /// Why.
        error: NetlinkError,
    },
    /// The kernel refused an entry.
    #[error("{what} {entry} on {interface}: {error}{mend}")]
    Entry {
        /// What kind of entry.
        what: &'static str,
        /// The entry as the configuration names it.
        entry: String,
        /// Name of the twin.
        interface: String,
        /// Why.
        error: NetlinkError,
        /// What helps, when it is known.
        mend: &'static str,
    },
}

/// Writes into one interface.
#[derive(Debug)]
pub struct Applier {
    socket: RouteSocket,
    interface: String,
    index: u32,
}

impl Applier {
    /// Finds the interface.
    ///
    /// # Errors
    /// [`ApplyError::Interface`].
    pub fn open(interface: &str) -> Result<Self, ApplyError> {
        let failed = |error| ApplyError::Interface { interface: interface.to_owned(), error };
        let mut socket = RouteSocket::open().map_err(failed)?;
        let index = socket.link(interface).map_err(failed)?.index;
        Ok(Self { socket, interface: interface.to_owned(), index })
    }

    /// Sets addresses.
    ///
    /// # Errors
    /// The first that the kernel refuses.
    pub fn addresses(&mut self, addresses: &[Prefix]) -> Result<(), ApplyError> {
        addresses.iter().try_for_each(|address| self.address("address", address))
    }

    /// Sets virtual addresses; to be called last, once packets to them can be forwarded.
    ///
    /// # Errors
    /// The first that the kernel refuses.
    pub fn virtual_addresses(&mut self, addresses: &[Prefix]) -> Result<(), ApplyError> {
        addresses.iter().try_for_each(|address| self.address("virtual address", address))
    }

    /// Removes virtual addresses; those that are gone already are no error. All are tried.
    ///
    /// # Errors
    /// The first that the kernel refuses.
    pub fn remove_virtual_addresses(&mut self, addresses: &[Prefix]) -> Result<(), ApplyError> {
        let mut result = Ok(());
        for address in addresses {
            let request = message::delete_address(self.index, address.address, address.length);
            match self.socket.request(request, 0) {
                Err(error) if error.errno() == Some(Errno::ADDRNOTAVAIL) => {}
                Err(error) if result.is_ok() => {
                    result = Err(self.refused("virtual address", address, error, ""));
                }
                Err(_) => {}
                Ok(()) => {}
            }
        }
        result
    }

    /// Sets routes in the main table.
    ///
    /// # Errors
    /// The first that the kernel refuses.
    pub fn routes(&mut self, routes: &[RouteEntry]) -> Result<(), ApplyError> {
        routes.iter().try_for_each(|route| {
            let request = message::NewRoute {
                destination: masked(route.to),
                prefix: route.to.length,
                index: self.index,
                via: route.via,
            };
            self.set(message::new_route(&request)).map_err(|error| {
                let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
                let mend = match error.errno() {
                    Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => {
                        "; is the router within a network of one of the port's addresses?"
                    }
                    Some(Errno::NETDOWN) => "; the interface is down",
                    _ => "",
                };
                self.refused("route", &format!("{}{via}", route.to), error, mend)
            })
        })
    }

    /// Sets static neighbours.
    ///
    /// # Errors
    /// The first that the kernel refuses.
    pub fn neighbours(&mut self, neighbours: &[(IpAddr, [u8; 6])]) -> Result<(), ApplyError> {
        neighbours.iter().try_for_each(|(address, mac)| {
            self.set(message::permanent_neighbour(self.index, *address, *mac))
                .map_err(|error| self.refused("neighbour", address, error, ""))
        })
    }

    fn address(&mut self, what: &'static str, address: &Prefix) -> Result<(), ApplyError> {
        self.set(message::new_address(self.index, address.address, address.length)).map_err(|error| {
            let mend = match error.errno() {
                Some(Errno::ACCESS | Errno::PERM) if address.address.is_ipv6() => {
                    "; IPv6 is disabled on the interface (net.ipv6.conf.*.disable_ipv6)"
                }
                _ => "",
            };
            self.refused(what, address, error, mend)
        })
    }

    fn set(&mut self, request: RouteNetlinkMessage) -> Result<(), NetlinkError> {
        match self.socket.request(request, NLM_F_CREATE | NLM_F_REPLACE) {
            Err(error) if error.errno() == Some(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    fn refused(
        &self,
        what: &'static str,
        entry: &dyn fmt::Display,
        error: NetlinkError,
        mend: &'static str,
    ) -> ApplyError {
        ApplyError::Entry { what, entry: entry.to_string(), interface: self.interface.clone(), error, mend }
    }
}

/// The network itself: the kernel refuses routes to addresses within one.
fn masked(prefix: Prefix) -> IpAddr {
    match prefix.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.length.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.length.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Prefix, masked};

    #[test]
    fn prefixes_are_read_strictly() {
        let prefix: Prefix = "192.168.132.30/24".parse().unwrap();
        assert_eq!(
            (prefix.to_string().as_str(), masked(prefix)),
            ("192.168.132.30/24", [192, 168, 132, 0].into())
        );
        assert_eq!("10.0.0.1".parse::<Prefix>().unwrap().length, 32);
        assert_eq!("fd00::1".parse::<Prefix>().unwrap().length, 128);
        assert_eq!(masked("0.0.0.0/0".parse().unwrap()), std::net::Ipv4Addr::UNSPECIFIED);
        for wrong in ["", "10.0.0.1/33", "fd00::/129", "10.0.0/8", "10.0.0.1/", "10.0.0.1/ 8", "x/8"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
