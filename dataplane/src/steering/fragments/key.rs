//! What names a datagram in pieces.

use crate::flow::FlowKey;
use crate::id::WorkerId;
use crate::packet::{Family, Headers};

/// What the pieces of one datagram have in common (RFC 791; RFC 8200, 4.5, where the protocol is the first piece's alone).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentKey {
    pub(super) source: u128,
    pub(super) destination: u128,
    pub(super) identification: u32,
    pub(super) protocol: u8,
    pub(super) family: Family,
}

impl FragmentKey {
    /// The key of a fragment.
    #[must_use]
    pub fn new(data: &[u8], headers: &Headers) -> Self {
        let (source, destination, protocol) = match headers.key(data) {
            FlowKey::V4(tuple) => {
                let bits = |address: std::net::Ipv4Addr| u128::from(address.to_bits());
                (bits(tuple.source), bits(tuple.destination), tuple.protocol)
            }
            FlowKey::V6(tuple) => (tuple.source.to_bits(), tuple.destination.to_bits(), 0),
        };
        let (identification, family) = (headers.fragment_id, headers.family);
        Self { source, destination, identification, protocol, family }
    }

    /// A keyed hash that is not linear: multiply and fold.
    #[must_use]
    pub(super) fn hash(&self, secret: [u64; 2]) -> u64 {
        const LOW: u128 = u64::MAX as u128;
        let rest = u128::from(self.identification) << 16
            | u128::from(self.protocol) << 8
            | u128::from(self.family as u8);
        let halves =
            [self.source, self.destination, rest].into_iter().flat_map(|word| [word >> 64, word & LOW]);
        let multiplier = u128::from(secret[1] | 1);
        let mut state = u128::from(secret[0]);
        for half in halves {
            let product = (state ^ half) * multiplier;
            state = (product >> 64) ^ (product & LOW);
        }
        (state & LOW) as u64
    }

    /// The worker where the pieces meet, the same in every worker that was given the same `secret`.
    #[must_use]
    pub fn home(&self, secret: [u64; 2], workers: u8) -> WorkerId {
        let spread = (self.hash(secret) >> 32) * u64::from(workers);
        WorkerId(spread.to_be_bytes()[3])
    }
}

impl Default for FragmentKey {
    /// Of no datagram.
    fn default() -> Self {
        Self { source: 0, destination: 0, identification: 0, protocol: 0, family: Family::V4 }
    }
}
