//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A *sum* is the ones'-complement sum of big-endian 16-bit words, folded to 16 bits; a *checksum* is its complement, the
//! value that stands in a header.

use super::Family;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Folds the carries of a wide sum back into 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum & 0xffff) as u16
}

/// Folds the carries of a sum of less than 64 Ki words of 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold_short(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum & 0xffff) as u16
}

/// Ones'-complement addition of two sums.
#[inline(always)]
#[must_use]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The sum of `data`; an odd last byte counts as the high half of a word.
#[inline]
#[must_use]
pub fn sum(data: &[u8]) -> u16 {
    // The sum does not depend on byte order (RFC 1071, 2.B), so words are added as the machine loads them and only the
    // folded result is swapped. 32-bit words in a 64-bit sum cannot overflow below 16 GiB.
    let (words, rest) = data.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be_bytes(fold(total).to_ne_bytes())
}

/// The sum of data that comes in parts of whatever lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Running {
    sum: u16,
    length: usize,
}

impl Running {
    /// Takes in what comes next.
    pub fn take(&mut self, part: &[u8]) {
        let sum = sum(part);
        // Behind an odd number of bytes every byte stands in the other half of its word (RFC 1071, 2.B).
        self.sum = add(self.sum, if self.length.is_multiple_of(2) { sum } else { sum.swap_bytes() });
        self.length += part.len();
    }

    /// The sum so far.
    #[must_use]
    pub const fn sum(self) -> u16 {
        self.sum
    }

    /// How many bytes it is over.
    #[must_use]
    pub const fn length(self) -> usize {
        self.length
    }
}

/// Whether an IPv4 header without options carries a right checksum, as parsing asks for every packet.
#[inline(always)]
#[must_use]
pub(super) fn plain_header_valid(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    total_valid(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum())
}

/// Whether an IPv4 header whose 32-bit words, in whichever byte order, add up to this carries a right checksum.
#[inline(always)]
#[must_use]
pub(super) const fn total_valid(total: u64) -> bool {
    // A sum folds to 0xffff exactly when it is a multiple of it and not 0, which no header with a version is; the
    // processor multiplies once instead of folding.
    total.is_multiple_of(0xffff)
}

/// Whether an IPv4 header (all of it, options included) carries a right checksum.
#[inline]
#[must_use]
pub fn header_valid(header: &[u8]) -> bool {
    sum(header) == 0xffff
}

/// Writes the checksum of an IPv4 header, options included; shorter slices than 20 bytes are left alone.
#[inline]
pub fn fill_header(header: &mut [u8]) {
    if header.len() < 20 {
        return;
    }
    header[10..12].fill(0);
    let checksum = !sum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The checksum after a 16-bit word of the covered data changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
#[must_use]
pub const fn update_16(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// The checksum after a 32-bit word, aligned to 16 bits, changed from `old` to `new`.
#[inline]
#[must_use]
pub const fn update_32(checksum: u16, old: u32, new: u32) -> u16 {
    !fold((!checksum) as u64 + (!old) as u64 + new as u64)
}

/// The sum of TCP's and UDP's pseudo header over IPv4; `length` is that of the transport header and its data in bytes.
#[inline]
#[must_use]
pub const fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u16 {
    fold(source.to_bits() as u64 + destination.to_bits() as u64 + protocol as u64 + length as u64)
}

/// The sum of the pseudo header over IPv6 (RFC 8200, 8.1), which ICMPv6 has too.
#[inline]
#[must_use]
pub const fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u32) -> u16 {
    fold(words(source) + words(destination) + protocol as u64 + length as u64)
}

/// The four 32-bit words of an address, added up.
const fn words(address: Ipv6Addr) -> u64 {
    let bits = address.to_bits();
    let (high, low) = ((bits >> 64) as u64, (bits & 0xffff_ffff_ffff_ffff) as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

/// Takes one from the TTL or hop limit of the IP header at `network`, keeping an IPv4 header checksum right, and returns
/// what is left; `None`, with nothing changed, when it is 0 already or the header is not there.
#[inline]
pub fn decrement_ttl(data: &mut [u8], network: usize, family: Family) -> Option<u8> {
    match family {
        Family::V4 => {
            // TTL, protocol and checksum are one word, read and written as one.
            let word = data.get_mut(network + 8..)?.first_chunk_mut::<4>()?;
            let old = u32::from_le_bytes(*word);
            let left = (old & 0xff).checked_sub(1)?;
            // The TTL is the high half of its 16 bits, the low one as a little-endian number: the checksum grows by 1. A carry
            // goes round, and complement zero is written as 0, as RFC 1624 and the kernel have it.
            let sum = (old >> 16) + 1;
            let sum = sum + u32::from(sum >= 0xffff);
            *word = (sum << 16 | old & 0xff00 | left).to_le_bytes();
            u8::try_from(left).ok()
        }
        Family::V6 => {
            let limit = data.get_mut(network + 7)?;
            *limit = limit.checked_sub(1)?;
            Some(*limit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(data: &[u8]) -> u16 {
        let mut total = 0_u32;
        for pair in data.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    fn halves(word: u32) -> [u16; 2] {
        [(word >> 16) as u16, (word & 0xffff) as u16]
    }

    fn cases() -> ProptestConfig {
        ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 16 } else { 2048 })
        }
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xab]), 0xab00);
        assert_eq!(sum(&[0xff; 65_536]), 0xffff);
    }

    #[test]
    fn rfc_1624_example_does_not_come_to_minus_zero() {
        assert_eq!(update_16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn short_headers_are_left_alone() {
        fill_header(&mut [0; 19]);
        assert_eq!(decrement_ttl(&mut [9; 11], 0, Family::V4), None);
        assert_eq!(decrement_ttl(&mut [9; 7], 0, Family::V6), None);
        let mut dead = [0; 20];
        assert_eq!(decrement_ttl(&mut dead, 0, Family::V4), None);
        assert_eq!(dead, [0; 20]);
    }

    #[test]
    fn every_checksum_survives_a_decrement() {
        // The id takes all values, and with it the checksum.
        for id in (0..=u16::MAX).step_by(if cfg!(miri) { 4099 } else { 1 }) {
            let mut header = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 5, 10, 0, 0, 100];
            header[4..6].copy_from_slice(&id.to_be_bytes());
            fill_header(&mut header);
            assert_eq!(decrement_ttl(&mut header, 0, Family::V4), Some(63));
            let mut whole = header;
            fill_header(&mut whole);
            assert_eq!(header, whole);
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn fast_sum_is_the_naive_sum(data: Vec<u8>) {
            prop_assert_eq!(sum(&data), naive(&data));
        }

        #[test]
        fn parts_add_up_whatever_their_lengths(parts: Vec<Vec<u8>>) {
            let mut running = Running::default();
            parts.iter().for_each(|part| running.take(part));
            let whole = parts.concat();
            prop_assert_eq!((running.sum(), running.length()), (sum(&whole), whole.len()));
        }

        #[test]
        fn the_short_test_of_a_header_is_the_long_one(header: [u8; 20]) {
            prop_assert_eq!(plain_header_valid(&header), naive(&header) == 0xffff);
            let mut header = header;
            header[0] |= 0x40;
            fill_header(&mut header);
            prop_assert!(plain_header_valid(&header));
        }

        #[test]
        fn updates_equal_a_new_computation(mut data in proptest::collection::vec(any::<u8>(), 8..64), new: u32) {
            // Without this, data of all zeros has two checksums.
            data[6] |= 1;
            let before = !sum(&data);
            let old = u32::from_be_bytes(*data.first_chunk().unwrap());
            data[..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update_32(before, old, new), !sum(&data));
            let step = update_16(before, halves(old)[0], halves(new)[0]);
            prop_assert_eq!(update_16(step, halves(old)[1], halves(new)[1]), !sum(&data));
        }

        #[test]
        fn a_filled_header_is_valid_and_stays_so(
            options in 0_usize..=10, mut header in proptest::collection::vec(any::<u8>(), 60), network in 0_usize..40,
        ) {
            header.truncate(20 + 4 * options);
            header[8] = header[8].max(1);
            header[0] = 0x45;
            fill_header(&mut header);
            prop_assert!(header_valid(&header));
            let mut frame = vec![0; network];
            frame.extend_from_slice(&header);
            prop_assert_eq!(decrement_ttl(&mut frame, network, Family::V4), Some(header[8] - 1));
            header[8] -= 1;
            fill_header(&mut header);
            prop_assert_eq!(&frame[network..], &header[..]);
        }

        #[test]
        fn pseudo_headers_equal_their_bytes(a: [u8; 16], b: [u8; 16], protocol: u8, length: u32) {
            let short = (length & 0xffff) as u16;
            let v4 = [&a[..4], &b[..4], &[0, protocol], &short.to_be_bytes()].concat();
            let (from, to) = (Ipv4Addr::from(*a.first_chunk::<4>().unwrap()), Ipv4Addr::from(*b.first_chunk::<4>().unwrap()));
            prop_assert_eq!(pseudo_v4(from, to, protocol, short), naive(&v4));
            let v6 = [&a[..], &b[..], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
            prop_assert_eq!(pseudo_v6(a.into(), b.into(), protocol, length), naive(&v6));
        }
    }
}
