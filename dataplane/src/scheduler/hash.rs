//! Hash functions of the hashing schedulers, bit for bit the kernel's: which server a client gets is part of the behaviour.
//! None of them is secret or collision-proof; nothing is stored under these hashes.

use std::net::IpAddr;

/// An address as one number: an IPv6 address folds to the XOR of its four words.
#[inline]
#[must_use]
pub(super) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments();
            let word = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
            word(a, b) ^ word(c, d) ^ word(e, f) ^ word(g, h)
        }
    }
}

/// Knuth's multiplicative hash with the golden ratio (TAOCP vol. 3, 6.4): the leading `bits` (1 to 32) of the product.
#[inline]
#[must_use]
pub(super) const fn golden(number: u32, bits: u32) -> u32 {
    number.wrapping_mul(0x61C8_8647) >> (32 - bits)
}

/// SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", INDOCRYPT 2012, with fewer rounds) of one little-endian
/// 32-bit number under a 128-bit key of two equal words; the lower half of the result.
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is the result")]
pub(super) const fn siphash_1_3(number: u32, key: u64) -> u32 {
    let mut v = [
        0x736f_6d65_7073_6575 ^ key,
        0x646f_7261_6e64_6f6d ^ key,
        0x6c79_6765_6e65_7261 ^ key,
        0x7465_6462_7974_6573 ^ key,
    ];
    // The last block: the message's four bytes, its length in the most significant byte.
    let block = 4 << 56 | number as u64;
    v[3] ^= block;
    v = round(v);
    v[0] ^= block;
    v[2] ^= 0xff;
    v = round(round(round(v)));
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[inline(always)]
const fn round(v: [u64; 4]) -> [u64; 4] {
    let [mut v0, mut v1, mut v2, mut v3] = v;
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_fold_to_one_number() {
        assert_eq!(fold("10.1.2.3".parse().unwrap()), 0x0a01_0203);
        assert_eq!(fold("fd00:1:2:3:4:5:6:7".parse().unwrap()), 0xfd00_0001 ^ 0x2_0003 ^ 0x4_0005 ^ 0x6_0007);
    }

    #[test]
    fn the_leading_bits_of_the_product_count() {
        assert_eq!(golden(1, 8), 0x61);
        assert_eq!(golden(1, 32), 0x61C8_8647);
        assert_eq!(golden(0x0a01_0005, 8), 0x0a01_0005_u32.wrapping_mul(0x61C8_8647) >> 24);
    }

    /// The rounds, put together as SipHash-2-4, give the paper's test vector; that the block is made right, the recorded choices
    /// of the kernel show.
    #[test]
    fn rounds_are_siphashes() {
        let (key0, key1) = (0x0706_0504_0302_0100_u64, 0x0f0e_0d0c_0b0a_0908_u64);
        let mut v = [
            0x736f_6d65_7073_6575 ^ key0,
            0x646f_7261_6e64_6f6d ^ key1,
            0x6c79_6765_6e65_7261 ^ key0,
            0x7465_6462_7974_6573 ^ key1,
        ];
        for block in [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908_u64 & 0x00ff_ffff_ffff_ffff | 15 << 56] {
            v[3] ^= block;
            v = round(round(v));
            v[0] ^= block;
        }
        v[2] ^= 0xff;
        v = round(round(round(round(v))));
        assert_eq!(v[0] ^ v[1] ^ v[2] ^ v[3], 0xa129_ca61_49be_45e5, "the vector of the paper's appendix A");
    }

    proptest! {
        #[test]
        fn folding_v4_is_the_address(bits: u32) {
            prop_assert_eq!(fold(IpAddr::from(bits.to_be_bytes())), bits);
        }
    }
}
