//! What the configuration gives a twin: at start, and again whenever the kernel has forgotten it.

use crate::address::Prefix;
use crate::config;
use crate::mirror::apply::{self, Applier, ApplyError, RouteEntry};

fn applied(prefix: &Prefix) -> apply::Prefix {
    apply::Prefix { address: prefix.ip, length: prefix.length }
}

fn all(prefixes: &[Prefix]) -> Vec<apply::Prefix> {
    prefixes.iter().map(applied).collect()
}

/// Addresses, then routes through them, then neighbours. What is there already stays.
pub(super) fn set_up(port: &config::Port) -> Result<(), ApplyError> {
    let mut applier = Applier::open(&port.name)?;
    applier.addresses(&all(&port.addresses))?;
    let routes: Vec<_> =
        port.routes.iter().map(|route| RouteEntry { to: applied(&route.to), via: route.via }).collect();
    applier.routes(&routes)?;
    let neighbours: Vec<_> =
        port.neighbours.iter().map(|neighbour| (neighbour.address, neighbour.mac.0)).collect();
    applier.neighbours(&neighbours)
}

/// Last, when packets to them can be forwarded.
pub(super) fn add_virtual_addresses(port: &config::Port) -> Result<(), ApplyError> {
    Applier::open(&port.name)?.virtual_addresses(&all(&port.virtual_addresses))
}

/// First at a planned stop.
pub(super) fn remove_virtual_addresses(port: &config::Port) -> Result<(), ApplyError> {
    Applier::open(&port.name)?.remove_virtual_addresses(&all(&port.virtual_addresses))
}
