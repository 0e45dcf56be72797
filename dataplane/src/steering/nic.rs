//! A NIC in software, in front of engines in tests and benches.

use super::toeplitz::{KEY_LENGTH, Toeplitz};
use super::{Indirection, toeplitz};
use crate::address::Address;
use crate::flow::{FlowKey, Tuple, protocol};
use crate::id::WorkerId;
use crate::packet::{HeapPacket, Packet, Parsed, parse};

/// Which fields a port hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fields {
    /// None: everything arrives on queue 0, without a hash.
    None,
    /// Source address and port alone.
    Source,
    /// Destination address and port alone.
    Destination,
    /// The whole 4-tuple.
    Flow,
}

impl Fields {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Source, Self::Destination, Self::Flow];
}

/// A port with receive-side scaling. Like real ones it hashes TCP, UDP and SCTP with their ports, fragments and other IP
/// packets by address, and nothing else.
#[derive(Debug, Clone)]
pub struct SoftwareNic {
    hash: Toeplitz,
    indirection: Indirection,
    fields: Fields,
}

impl SoftwareNic {
    /// A port that hashes `fields` with `key` and looks its queue up in `indirection`.
    #[must_use]
    pub fn new(key: &[u8; KEY_LENGTH], indirection: Indirection, fields: Fields) -> Self {
        Self { hash: Toeplitz::new(key), indirection, fields }
    }

    /// A port as the director sets it up for this many workers.
    #[must_use]
    pub fn for_workers(workers: u8, fields: Fields) -> Self {
        Self::new(&toeplitz::key(), Indirection::even(workers), fields)
    }

    /// Writes the hash into the packet and says on which queue it arrives.
    pub fn receive(&self, packet: &mut HeapPacket) -> WorkerId {
        let hash = self.hash(packet);
        packet.set_rss_hash(hash);
        hash.map_or(WorkerId(0), |hash| self.indirection.worker(hash))
    }

    fn hash(&self, packet: &HeapPacket) -> Option<u32> {
        if self.fields == Fields::None {
            return None;
        }
        let data = packet.data();
        let Parsed::Flow(headers) = parse(data, packet.total_length(), packet.segments()) else {
            return None;
        };
        let transport = matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let with_ports = transport && !headers.is_fragment();
        Some(match headers.key(data) {
            FlowKey::V4(tuple) => self.hash_tuple(&tuple, with_ports),
            FlowKey::V6(tuple) => self.hash_tuple(&tuple, with_ports),
        })
    }

    /// The hash of the chosen fields; those that are not are zeros, in their places.
    fn hash_tuple<A: Address>(&self, tuple: &Tuple<A>, with_ports: bool) -> u32 {
        let source = matches!(self.fields, Fields::Source | Fields::Flow);
        let destination = matches!(self.fields, Fields::Destination | Fields::Flow);
        let mut input = Vec::with_capacity(toeplitz::INPUT_LENGTH);
        for (address, chosen) in [(tuple.source, source), (tuple.destination, destination)] {
            let bytes: Vec<u8> = address.words().into_iter().flat_map(u32::to_be_bytes).collect();
            input.extend(bytes[16 - A::LENGTH..].iter().map(|byte| if chosen { *byte } else { 0 }));
        }
        if with_ports {
            for (port, chosen) in [(tuple.source_port, source), (tuple.destination_port, destination)] {
                input.extend(if chosen { port } else { 0 }.to_be_bytes());
            }
        }
        self.hash.hash(&input)
    }
}
