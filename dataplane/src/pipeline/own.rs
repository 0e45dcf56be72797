//! Stage 2, own: which worker's shard a flow belongs to, and whether a frame is for this host at all.

use crate::address::Address;
use crate::engine::Core;
use crate::flow::{FlowKey, Tuple};
use crate::id::{PortId, WorkerId};
use crate::packet::{Packet, destination_mac};
use crate::snapshot::Snapshot;
use crate::steering::{Owners, Steering};

/// Finds a flow's owner. The same on every worker, so that all agree.
#[derive(Debug)]
pub(crate) struct Owner {
    workers: u8,
    owners: Owners,
    /// By port: the NIC hashes with our key over the fields that the steering needs.
    trusted: Box<[bool]>,
}

/// To whom a frame is addressed on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressee {
    /// This port.
    Us,
    /// A group, or all hosts.
    Everybody,
    /// Another host: the port is promiscuous, or the switch floods.
    Other,
}

impl Owner {
    pub(crate) fn new(workers: u8, steering: Steering, trusted: Box<[bool]>) -> Self {
        Self { workers, owners: Owners::new(steering, workers), trusted }
    }

    /// Whether there is only one worker: then nothing is computed.
    #[inline(always)]
    pub(super) fn alone(&self) -> bool {
        self.workers == 1
    }

    /// The owner of a flow to or from a virtual address; `None` for other flows.
    #[inline]
    pub(super) fn of(
        &self,
        key: &FlowKey,
        rss_hash: Option<u32>,
        port: PortId,
        snapshot: &Snapshot,
    ) -> Option<WorkerId> {
        let rss_hash = rss_hash.filter(|_| self.trusted.get(port.index()).copied().unwrap_or(false));
        match key {
            FlowKey::V4(tuple) => self.of_tuple(tuple, rss_hash, snapshot),
            FlowKey::V6(tuple) => self.of_tuple(tuple, rss_hash, snapshot),
        }
    }

    fn of_tuple<A: Address>(
        &self,
        tuple: &Tuple<A>,
        rss_hash: Option<u32>,
        snapshot: &Snapshot,
    ) -> Option<WorkerId> {
        if snapshot.virtual_addresses.contains(tuple.destination.ip()) {
            let by_nic = rss_hash.map(|hash| self.owners.owner_of_hash(hash));
            return Some(by_nic.unwrap_or_else(|| self.owners.owner(tuple)));
        }
        // A reply: the NIC may have hashed the wrong end.
        snapshot.virtual_addresses.contains(tuple.source.ip()).then(|| self.owners.owner(&tuple.reversed()))
    }
}

impl<P: Packet> Core<P> {
    /// Whether a frame received on `port` is for this host.
    #[inline]
    pub(super) fn addressee(&self, port: PortId, data: &[u8], snapshot: &Snapshot) -> Addressee {
        let mac = destination_mac(data);
        match snapshot.ports.get(port.index()) {
            Some(view) if view.mac == mac => Addressee::Us,
            _ if mac[0] & 1 == 1 => Addressee::Everybody,
            Some(view) if view.more_macs.contains(&mac) => Addressee::Us,
            _ => Addressee::Other,
        }
    }
}
