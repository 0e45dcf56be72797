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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::sample::{Random, Sample};
    use crate::packet::{Family, Headers};
    use crate::steering::{Owners, Steering};

    fn samples(count: usize) -> impl Iterator<Item = (HeapPacket, Headers)> {
        let mut random = Random::new(23);
        std::iter::repeat_with(move || Sample::new(&mut random))
            .map(|Sample { frame, headers }| (HeapPacket::new(&frame), headers))
            .take(if cfg!(miri) { count / 50 } else { count })
    }

    fn owner<A: Address>(owners: &Owners, tuple: Tuple<A>, request: bool) -> (u32, WorkerId) {
        let tuple = if request { tuple } else { tuple.reversed() };
        (owners.hash(&tuple), owners.owner(&tuple))
    }

    #[test]
    fn queues_are_the_owners_where_the_nic_hashes_the_steerings_fields() {
        // Steering, the port's fields, and whether its packets are requests.
        let setups = [
            (Steering::Client, Fields::Source, true),
            (Steering::Client, Fields::Destination, false),
            (Steering::Flow, Fields::Flow, true),
            (Steering::Flow, Fields::Flow, false),
        ];
        for (steering, fields, request) in setups {
            for workers in [1, 2, 3, 8] {
                let (nic, owners) =
                    (SoftwareNic::for_workers(workers, fields), Owners::new(steering, workers));
                for (mut packet, headers) in samples(500) {
                    if headers.is_fragment() || !matches!(headers.protocol, protocol::TCP | protocol::UDP) {
                        continue;
                    }
                    let queue = nic.receive(&mut packet);
                    let (hash, owner) = match headers.key(packet.data()) {
                        FlowKey::V4(tuple) => owner(&owners, tuple, request),
                        FlowKey::V6(tuple) => owner(&owners, tuple, request),
                    };
                    assert_eq!((packet.rss_hash(), queue), (Some(hash), owner));
                    assert_eq!(owners.owner_of_hash(hash), owner);
                }
            }
        }
    }

    #[test]
    fn without_fields_everything_is_on_queue_0() {
        let nic = SoftwareNic::for_workers(4, Fields::None);
        for (packet, _) in samples(100) {
            let mut packet = packet.with_rss_hash(Some(1));
            assert_eq!((nic.receive(&mut packet), packet.rss_hash()), (WorkerId(0), None));
        }
    }

    #[test]
    fn fragments_are_hashed_by_address_alone() {
        let nic = SoftwareNic::new(
            &std::array::from_fn(|byte| u8::try_from(byte).unwrap() ^ 0x5a),
            Indirection::even(8),
            Fields::Flow,
        );
        let mut fragments = 0;
        for (mut packet, headers) in samples(2000) {
            nic.receive(&mut packet);
            let addresses = usize::from(headers.network) + if headers.family == Family::V4 { 12 } else { 8 };
            let length = if headers.family == Family::V4 { 8 } else { 32 };
            let by_address = nic.hash.hash(&packet.data()[addresses..][..length]);
            let ports = matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
            fragments += u32::from(headers.is_fragment());
            assert_eq!(packet.rss_hash() == Some(by_address), headers.is_fragment() || !ports, "{headers:?}");
        }
        assert!(fragments > 0);
        let mut arp = HeapPacket::new(&[&[0xff; 12][..], &[8, 6], &[0; 28]].concat());
        assert_eq!((nic.receive(&mut arp), arp.rss_hash()), (WorkerId(0), None));
    }
}
