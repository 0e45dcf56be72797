//! What the data path can do: the one place that refuses what it cannot do yet.

use super::{Refusal, ServiceKey};
use crate::address::Protocol;

/// # Errors
///
/// A protocol that is not forwarded.
pub(super) fn key(key: ServiceKey) -> Result<(), Refusal> {
    match key {
        ServiceKey::Address { protocol: Protocol::Tcp | Protocol::Udp, .. } | ServiceKey::Mark { .. } => {
            Ok(())
        }
        ServiceKey::Address { protocol, .. } => Err(Refusal::NoProtocol(protocol)),
    }
}

/// # Errors
///
/// Scheduling each packet of its own.
pub(super) fn one_packet(one_packet: bool) -> Result<(), Refusal> {
    if one_packet { Err(Refusal::NotYet("one-packet scheduling")) } else { Ok(()) }
}
