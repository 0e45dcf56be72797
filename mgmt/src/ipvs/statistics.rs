//! Counters as the family carries them: once in numbers of 32 bits, which wrap, and once in numbers of 64.

use super::attribute::Attribute;
use super::number::stats as kind;
use crate::protocol::Traffic;

/// The lower half of a counter: what the kernel puts into its 32-bit attributes.
pub(super) fn wrapped(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

fn counters(traffic: &Traffic) -> [(u16, u64); 10] {
    [
        (kind::CONNECTIONS, traffic.connections),
        (kind::IN_PACKETS, traffic.in_packets),
        (kind::OUT_PACKETS, traffic.out_packets),
        (kind::IN_BYTES, traffic.in_bytes),
        (kind::OUT_BYTES, traffic.out_bytes),
        (kind::CONNECTIONS_PER_S, traffic.connections_per_s),
        (kind::IN_PACKETS_PER_S, traffic.in_packets_per_s),
        (kind::OUT_PACKETS_PER_S, traffic.out_packets_per_s),
        (kind::IN_BYTES_PER_S, traffic.in_bytes_per_s),
        (kind::OUT_BYTES_PER_S, traffic.out_bytes_per_s),
    ]
}

/// `IPVS_*_ATTR_STATS`: bytes have 64 bits, everything else 32.
pub(super) fn narrow(number: u16, traffic: &Traffic) -> Attribute {
    let written = |(kind, value)| match kind {
        kind::IN_BYTES | kind::OUT_BYTES => Attribute::u64(kind, value),
        _ => Attribute::u32(kind, wrapped(value)),
    };
    Attribute::nested(number, counters(traffic).into_iter().map(written).collect())
}

/// `IPVS_*_ATTR_STATS64`.
pub(super) fn wide(number: u16, traffic: &Traffic) -> Attribute {
    let written = |(kind, value)| Attribute::u64(kind, value);
    Attribute::nested(number, counters(traffic).into_iter().map(written).collect())
}

#[cfg(test)]
mod tests {
    use super::super::number::service;
    use super::*;

    #[test]
    fn all_but_bytes_wrap_at_32_bits_and_nothing_at_64() {
        let many = (3 << 32) + 7;
        let traffic =
            Traffic { connections: many, out_bytes: many, out_bytes_per_s: many, ..Traffic::default() };
        let expected = [
            Attribute::u32(kind::CONNECTIONS, 7),
            Attribute::u32(kind::IN_PACKETS, 0),
            Attribute::u32(kind::OUT_PACKETS, 0),
            Attribute::u64(kind::IN_BYTES, 0),
            Attribute::u64(kind::OUT_BYTES, many),
            Attribute::u32(kind::CONNECTIONS_PER_S, 0),
            Attribute::u32(kind::IN_PACKETS_PER_S, 0),
            Attribute::u32(kind::OUT_PACKETS_PER_S, 0),
            Attribute::u32(kind::IN_BYTES_PER_S, 0),
            Attribute::u32(kind::OUT_BYTES_PER_S, 7),
        ];
        assert_eq!(narrow(service::STATS, &traffic), Attribute::nested(service::STATS, expected.to_vec()));
        let wide_values = (1..=10).zip([many, 0, 0, 0, many, 0, 0, 0, 0, many]);
        let expected = wide_values.map(|(kind, value)| Attribute::u64(kind, value)).collect();
        assert_eq!(wide(service::STATS64, &traffic), Attribute::nested(service::STATS64, expected));
    }
}
