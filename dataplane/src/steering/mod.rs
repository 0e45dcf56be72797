//! Which worker a packet belongs to: the NIC's hash, computed alike in software, and the homes of fragments.
//!
//! What is computed here has to agree with what NICs do, so the hash is Toeplitz's. It is linear, anybody who knows the key
//! can aim at one worker, and it is never the hash of a table.

pub mod fragments;
pub mod nic;
pub mod toeplitz;

use crate::address::Address;
use crate::flow::Tuple;
use crate::id::WorkerId;
use serde::{Deserialize, Serialize};
use toeplitz::PeriodicHash;

/// Which fields of a request decide on the worker. One choice for all ports, fixed at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// The client's address and port: for ports that hash those fields alone, and where no port hashes at all. A reply of a
    /// masqueraded server needs nothing but its destination.
    Client,
    /// The request's whole 4-tuple: for NICs that only hash that.
    Flow,
}

/// Slots of the indirection table. NICs with larger tables repeat it.
pub const SLOTS: usize = 128;

/// From hash to worker, the same on every port and in software. One reader each, never changed while packets flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indirection([WorkerId; SLOTS]);

impl Indirection {
    /// Slots dealt out to `workers` in turn; 0 counts as 1.
    #[must_use]
    pub fn even(workers: u8) -> Self {
        let mut next = (0..workers.max(1)).cycle().map(WorkerId);
        Self(std::array::from_fn(|_| next.next().unwrap_or(WorkerId(0))))
    }

    /// The worker of a hash.
    #[inline(always)]
    #[must_use]
    pub const fn worker(&self, hash: u32) -> WorkerId {
        self.0[hash as usize % SLOTS]
    }

    /// The table, as a port is given it.
    #[must_use]
    pub const fn slots(&self) -> &[WorkerId; SLOTS] {
        &self.0
    }
}

/// Says which worker owns a flow.
#[derive(Debug, Clone)]
pub struct Owners {
    steering: Steering,
    hash: PeriodicHash,
    indirection: Indirection,
}

impl Owners {
    /// Flows spread evenly over `workers`.
    #[must_use]
    pub fn new(steering: Steering, workers: u8) -> Self {
        Self { steering, hash: PeriodicHash::new(toeplitz::PERIOD), indirection: Indirection::even(workers) }
    }

    /// The choice of fields.
    #[must_use]
    pub const fn steering(&self) -> Steering {
        self.steering
    }

    /// The indirection table, for the ports to be set up with.
    #[must_use]
    pub const fn indirection(&self) -> &Indirection {
        &self.indirection
    }

    /// What a NIC set up for this steering computes for a request, that is a tuple whose source is the client.
    #[inline]
    #[must_use]
    pub fn hash<A: Address>(&self, request: &Tuple<A>) -> u32 {
        let client = toeplitz::fold(request.source) ^ request.source_port;
        match self.steering {
            Steering::Client => self.hash.of(client),
            Steering::Flow => {
                self.hash.of(client ^ toeplitz::fold(request.destination) ^ request.destination_port)
            }
        }
    }

    /// The worker that owns the flow of a request, that is a tuple whose source is the client: packets of the other direction
    /// are asked for reversed.
    #[inline]
    #[must_use]
    pub fn owner<A: Address>(&self, request: &Tuple<A>) -> WorkerId {
        self.indirection.worker(self.hash(request))
    }

    /// The worker of a hash that a NIC computed over the fields of this steering.
    #[inline(always)]
    #[must_use]
    pub const fn owner_of_hash(&self, hash: u32) -> WorkerId {
        self.indirection.worker(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn tuple(client: u32, port: u16) -> Tuple<Ipv4Addr> {
        Tuple {
            source: Ipv4Addr::from_bits(0x0a01_0000 + client),
            destination: Ipv4Addr::new(192, 168, 132, 254),
            source_port: port,
            destination_port: 80,
            protocol: 6,
        }
    }

    #[test]
    fn clients_spread_over_workers() {
        for (steering, workers) in [(Steering::Client, 3_u8), (Steering::Flow, 8), (Steering::Client, 1)] {
            let owners = Owners::new(steering, workers);
            let mut counts = vec![0_u32; workers.into()];
            for client in 0..100 {
                for step in 0..64_u16 {
                    let tuple = tuple(client, 32_768 | step.wrapping_mul(40_503));
                    counts[owners.owner(&tuple).index()] += 1;
                    assert_eq!(owners.owner_of_hash(owners.hash(&tuple)), owners.owner(&tuple));
                }
            }
            let even = 6400 / u32::from(workers);
            assert!(counts.iter().all(|count| count.abs_diff(even) < even / 5), "{steering:?} {counts:?}");
        }
    }

    #[test]
    fn client_steering_looks_at_the_client_alone() {
        let owners = Owners::new(Steering::Client, 8);
        let one = tuple(7, 1024);
        let other = Tuple { destination: Ipv4Addr::new(10, 0, 0, 9), destination_port: 443, ..one };
        assert_eq!(owners.hash(&one), owners.hash(&other));
        let flow = Owners::new(Steering::Flow, 8);
        assert_ne!(flow.hash(&one), flow.hash(&other));
        assert_eq!(flow.hash(&one), flow.hash(&one.reversed()));
    }

    #[test]
    fn no_workers_are_one() {
        assert_eq!(Indirection::even(0).slots(), &[WorkerId(0); SLOTS]);
        assert_eq!(Indirection::even(3).worker(127), WorkerId(1));
        assert_eq!(Owners::new(Steering::Flow, 2).steering(), Steering::Flow);
    }
}
