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

/// Whose shard a flow is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shard {
    /// This worker's.
    Of(WorkerId),
    /// A reply whose virtual end is not known, with workers chosen by it: all are asked in turn.
    Unknown,
    /// Nobody's: the flow is none of a virtual service.
    Nobodys,
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

    /// How many other workers there are.
    pub(super) fn others(&self) -> u8 {
        self.workers.saturating_sub(1)
    }

    /// The worker that is asked after `worker`.
    pub(super) fn after(&self, worker: WorkerId) -> WorkerId {
        WorkerId((worker.0 + 1) % self.workers.max(1))
    }

    /// The owner of a flow to or from a virtual address, of one that mark rules cover, or from a masqueraded server.
    #[inline]
    pub(super) fn of(
        &self,
        key: &FlowKey,
        rss_hash: Option<u32>,
        port: PortId,
        snapshot: &Snapshot,
    ) -> Shard {
        let rss_hash = rss_hash.filter(|_| self.trusted.get(port.index()).copied().unwrap_or(false));
        match key {
            FlowKey::V4(tuple) => self.of_tuple(tuple, rss_hash, snapshot),
            FlowKey::V6(tuple) => self.of_tuple(tuple, rss_hash, snapshot),
        }
    }

    fn of_tuple<A: Address>(&self, tuple: &Tuple<A>, rss_hash: Option<u32>, snapshot: &Snapshot) -> Shard {
        let virtual_addresses = &snapshot.virtual_addresses;
        if virtual_addresses.contains(tuple.destination.ip()) || snapshot.marks.cover(tuple) {
            let by_nic = rss_hash.map(|hash| self.owners.owner_of_hash(hash));
            return Shard::Of(by_nic.unwrap_or_else(|| self.owners.owner(tuple)));
        }
        // A reply: the NIC may have hashed the wrong end.
        let request = tuple.reversed();
        if virtual_addresses.contains(tuple.source.ip()) || snapshot.marks.cover(&request) {
            return Shard::Of(self.owners.owner(&request));
        }
        self.of_reply(tuple, snapshot)
    }

    /// The owner of a masqueraded server's packet. Where the client alone decides that is enough, else the virtual end is that of
    /// the server's service.
    fn of_reply<A: Address>(&self, tuple: &Tuple<A>, snapshot: &Snapshot) -> Shard {
        let Some(server) = snapshot.servers.find(tuple.protocol, tuple.source.ip(), tuple.source_port) else {
            return Shard::Nobodys;
        };
        let request = tuple.reversed();
        if self.owners.steering() == Steering::Client {
            return Shard::Of(self.owners.owner(&request));
        }
        let service = server.service.and_then(|slot| snapshot.service(slot));
        let address = service.and_then(|service| A::from_ip(service.key.address()?));
        match (service, address) {
            (Some(service), Some(destination)) => {
                let port = service.key.port();
                let destination_port = if port == 0 { tuple.source_port } else { port };
                Shard::Of(self.owners.owner(&Tuple { destination, destination_port, ..request }))
            }
            _ => Shard::Unknown,
        }
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
