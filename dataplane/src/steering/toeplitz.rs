//! The Toeplitz hash of receive-side scaling, as NICs compute it.

use crate::address::Address;

/// Key length in bytes that every NIC takes: enough for two IPv6 addresses and two ports.
pub const KEY_LENGTH: usize = 40;
/// Longest input in bytes.
pub const INPUT_LENGTH: usize = 36;

/// The two bytes that, repeated, make our key.
///
/// A key of period 16 bits makes the hash depend on the XOR of the input's 16-bit words alone: source and destination may
/// change places (Woo and Park, "Scalable TCP Session Monitoring with Symmetric Receive-side Scaling"), and it does not
/// matter where in the input a NIC that hashes some fields only puts them. The price: addresses and ports that count up
/// together cancel out, and such flows fall on few slots; ephemeral ports as systems draw them spread evenly.
pub const PERIOD: u16 = 0x6d5a;

/// [`PERIOD`] repeated to the length a NIC wants.
#[must_use]
pub fn key<const N: usize>() -> [u8; N] {
    let bytes = PERIOD.to_be_bytes();
    std::array::from_fn(|index| bytes[index % 2])
}

/// The hash bit by bit, as Microsoft's RSS specification defines it. Input beyond [`INPUT_LENGTH`] is not looked at.
#[must_use]
pub fn reference(key: &[u8; KEY_LENGTH], input: &[u8]) -> u32 {
    let mut hash = 0;
    for (index, byte) in input.iter().take(INPUT_LENGTH).enumerate() {
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                hash ^= window(key, index * 8 + bit);
            }
        }
    }
    hash
}

/// The 32 bits of the key from bit `at` on.
fn window(key: &[u8; KEY_LENGTH], at: usize) -> u32 {
    let mut bits = 0_u64;
    for byte in key.iter().skip(at / 8).take(5) {
        bits = (bits << 8) | u64::from(*byte);
    }
    ((bits >> (8 - at % 8)) & 0xffff_ffff) as u32
}

/// The hash with any key, a table look-up for each input byte.
#[derive(Clone)]
pub struct Toeplitz {
    tables: Box<[[u32; 256]]>,
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}

impl Toeplitz {
    /// Prepares a key: 36 KiB.
    #[must_use]
    pub fn new(key: &[u8; KEY_LENGTH]) -> Self {
        let table = |index: usize| {
            let windows: [u32; 8] = std::array::from_fn(|bit| window(key, index * 8 + bit));
            std::array::from_fn(|byte| {
                let set = windows.iter().enumerate().filter(|(bit, _)| byte & (0x80 >> bit) != 0);
                set.fold(0, |hash, (_, window)| hash ^ window)
            })
        };
        Self { tables: (0..INPUT_LENGTH).map(table).collect() }
    }

    /// The hash of `input`; what is beyond [`INPUT_LENGTH`] is not looked at.
    #[inline]
    #[must_use]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let pairs = self.tables.iter().zip(input);
        pairs.fold(0, |hash, (table, byte)| hash ^ table[usize::from(*byte)])
    }
}

/// The hash with a key of period 16 bits: two look-ups, whatever the length of the input.
#[derive(Clone)]
pub struct PeriodicHash {
    high: [u32; 256],
    low: [u32; 256],
}

impl std::fmt::Debug for PeriodicHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeriodicHash").finish_non_exhaustive()
    }
}

impl PeriodicHash {
    /// Prepares the key that repeats `period`.
    #[must_use]
    pub fn new(period: u16) -> Self {
        let windows: [u32; 16] = std::array::from_fn(|bit| {
            let turned = u32::from(period.rotate_left(u32::try_from(bit).unwrap_or(0)));
            turned << 16 | turned
        });
        let (first, second) = windows.split_at(8);
        let table = |windows: &[u32]| {
            std::array::from_fn(|byte| {
                let set = windows.iter().enumerate().filter(|(bit, _)| byte & (0x80 >> bit) != 0);
                set.fold(0, |hash, (_, window)| hash ^ window)
            })
        };
        Self { high: table(first), low: table(second) }
    }

    /// The hash of an input whose 16-bit words XOR to `folded`.
    #[inline(always)]
    #[must_use]
    pub const fn of(&self, folded: u16) -> u32 {
        let [high, low] = folded.to_be_bytes();
        self.high[high as usize] ^ self.low[low as usize]
    }
}

/// The XOR of an address's 16-bit words.
#[inline(always)]
#[must_use]
pub fn fold<A: Address>(address: A) -> u16 {
    let [a, b, c, d] = address.words();
    let word = a ^ b ^ c ^ d;
    (((word >> 16) ^ word) & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    const MICROSOFT: [u8; KEY_LENGTH] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Destination, source, hash of the addresses, hash with ports: "Verifying the RSS hash calculation".
    const VECTORS: [(&str, u16, &str, u16, u32, u32); 8] = [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc1_8cd5, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c_461c, 0xdde5_1bbf),
        (
            "fe80::200:f8ff:fe21:67cf",
            38024,
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn octets(address: &str) -> Vec<u8> {
        match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    #[test]
    fn microsofts_vectors() {
        let fast = Toeplitz::new(&MICROSOFT);
        for (to, to_port, from, from_port, addresses, whole) in VECTORS {
            let mut input = [octets(from), octets(to)].concat();
            assert_eq!((reference(&MICROSOFT, &input), fast.hash(&input)), (addresses, addresses), "{from}");
            input.extend(from_port.to_be_bytes());
            input.extend(to_port.to_be_bytes());
            assert_eq!((reference(&MICROSOFT, &input), fast.hash(&input)), (whole, whole), "{from}");
        }
    }

    #[test]
    fn the_key_repeats_to_any_length() {
        assert_eq!(key::<4>(), [0x6d, 0x5a, 0x6d, 0x5a]);
        assert_eq!(key::<52>()[..40], key::<40>());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 })
        })]

        #[test]
        fn tables_equal_the_definition(key: [u8; 20], more: [u8; 20], input in proptest::collection::vec(any::<u8>(), 0..40)) {
            let key: [u8; KEY_LENGTH] = [key, more].concat().try_into().unwrap();
            prop_assert_eq!(Toeplitz::new(&key).hash(&input), reference(&key, &input));
        }

        #[test]
        fn a_periodic_key_sees_only_the_fold(period: u16, words in proptest::collection::vec(any::<u16>(), 0..18)) {
            let bytes = period.to_be_bytes();
            let key = std::array::from_fn(|index| bytes[index % 2]);
            let input: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let folded = words.iter().fold(0, |all, word| all ^ word);
            prop_assert_eq!(PeriodicHash::new(period).of(folded), reference(&key, &input));
        }

        #[test]
        fn addresses_fold_by_words(v4: [u8; 4], v6: [u8; 16]) {
            let xor = |bytes: &[u8]| bytes.chunks(2).fold(0, |all, pair| all ^ u16::from_be_bytes([pair[0], pair[1]]));
            prop_assert_eq!(fold(std::net::Ipv4Addr::from(v4)), xor(&v4));
            prop_assert_eq!(fold(std::net::Ipv6Addr::from(v6)), xor(&v6));
        }
    }
}
