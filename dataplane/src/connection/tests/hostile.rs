//! Keys chosen to collide: linear hashes fall to a little algebra, the table's must not.

use super::super::hash::Schedule;
use super::super::index::{WIDTH, buckets_for};
use super::*;

/// Bytes as the linear hashes read them: source, destination, ports, in network order.
fn bytes<A: Address>(tuple: &Tuple<A>) -> Vec<u8> {
    let words = |address: A| address.words().into_iter().skip(4 - A::LENGTH / 4).flat_map(u32::to_be_bytes);
    let ports = [tuple.source_port, tuple.destination_port].into_iter().flat_map(u16::to_be_bytes);
    words(tuple.source).chain(words(tuple.destination)).chain(ports).collect()
}

/// Castagnoli's CRC (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

/// Toeplitz as NICs compute it, with Microsoft's example key.
fn toeplitz(bytes: &[u8]) -> u32 {
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    let key_bit = |bit: usize| u32::from(KEY[bit / 8] >> (7 - bit % 8) & 1);
    let window = |first: usize| (0..32).fold(0, |window, bit| window << 1 | key_bit(first + bit));
    let set = (0..bytes.len() * 8).filter(|bit| bytes[bit / 8] >> (7 - bit % 8) & 1 == 1);
    set.fold(0, |hash, bit| hash ^ window(bit))
}

/// A tuple from bits: source address, source port, then low bits of destination and its port.
fn from_bits<A: Address>(bits: u128) -> Tuple<A> {
    let part = |shift: u32| u32::try_from((bits >> shift) & u128::from(u32::MAX)).unwrap();
    let short = |shift: u32| (part(shift) & 0xFFFF) as u16;
    Tuple {
        source: A::from_words([part(80), part(96), 0xFE, part(0)]),
        destination: A::from_words([0xFD00_0000, 0, 0, 0x0A00_0000 | part(48) & 0xFFFF]),
        source_port: short(32),
        destination_port: short(64),
        protocol: 6,
    }
}

/// Keys with the same `hash`, by elimination over GF(2): changes of the key that the hash does not see are a vector space.
fn colliding<A: Address>(hash: impl Fn(&[u8]) -> u32, count: usize) -> Vec<Tuple<A>> {
    let of = |bits: u128| hash(&bytes(&from_bits::<A>(bits)));
    let zero = of(0);
    let free_bits = if A::LENGTH == 4 { 80 } else { 128 };
    let (mut pivots, mut kernel): (Vec<(u32, u128)>, Vec<u128>) = (Vec::new(), Vec::new());
    for bit in 0..free_bits {
        let (mut image, mut change) = (of(1 << bit) ^ zero, 1u128 << bit);
        for (pivot, with) in &pivots {
            if image & (1 << pivot.ilog2()) != 0 {
                (image, change) = (image ^ pivot, change ^ with);
            }
        }
        if image == 0 { kernel.push(change) } else { pivots.push((image, change)) }
    }
    assert!(1 << kernel.len().min(60) >= count, "{} dimensions", kernel.len());
    let mut bits = 0;
    let keys = (1..=count).map(|step| {
        bits ^= kernel[step.trailing_zeros() as usize];
        from_bits(bits)
    });
    let keys: Vec<Tuple<A>> = keys.collect();
    for key in keys.iter().step_by(count.div_ceil(1000)) {
        assert_eq!(hash(&bytes(key)), hash(&bytes(&keys[0])));
    }
    keys
}

/// Mean of 1 when a fair throw of keys into buckets: variance over mean of the number of keys in each.
fn spread(counts: &[u32]) -> f64 {
    let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / counts.len() as f64;
    counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum::<f64>() / counts.len() as f64 / mean
}

fn assert_flat<A: Address>(name: &str, keys: &[Tuple<A>]) {
    let schedule = Schedule::new(KEY);
    let (mut homes, mut tags) = (vec![0; buckets_for(keys.len())], vec![0; 256]);
    let mut table = table::<A>(u32::try_from(keys.len()).unwrap(), false, Ticks(0));
    for key in keys {
        let hash = schedule.hash(key);
        let home = (u128::from(hash) * homes.len() as u128) >> 64;
        homes[usize::try_from(home).unwrap()] += 1;
        tags[usize::from(hash.to_le_bytes()[0])] += 1;
        open(&mut table, &new(*key, 60_000), Ticks(0)).unwrap();
    }
    let (histogram, overflow) = table.index.histogram();
    let fullest = homes.iter().max().unwrap();
    let beyond = overflow as f64 / keys.len() as f64;
    println!(
        "{name}: {} keys, spread of buckets {:.3}, of tags {:.3}, fullest home {fullest}, {beyond:.4} steps beyond the home \
         each, buckets by entries {histogram:?}",
        keys.len(),
        spread(&homes),
        spread(&tags)
    );
    assert!((0.97..1.03).contains(&spread(&homes)), "{name}: buckets {}", spread(&homes));
    assert!((0.6..1.5).contains(&spread(&tags)), "{name}: tags {}", spread(&tags));
    assert!(*fullest < 40, "{name}: {fullest}");
    assert!(beyond < 0.1, "{name}: {beyond}");
    assert!(find(&table, &keys[keys.len() / 2]).is_some());
}

fn colliding_keys_spread<A: Address>(family: &str) {
    let count = 1_000_000;
    assert_flat(&format!("{family} CRC32C"), &colliding::<A>(crc32c, count));
    assert_flat(&format!("{family} Toeplitz"), &colliding::<A>(toeplitz, count));
    // And neighbours, as a scan or a NAT pool would send them.
    let neighbours: Vec<_> = (0..count as u128).map(from_bits::<A>).collect();
    assert_flat(&format!("{family} neighbours"), &neighbours);
}

#[test]
#[cfg(not(miri))]
fn keys_that_collide_under_linear_hashes_spread() {
    colliding_keys_spread::<Ipv4Addr>("IPv4");
    colliding_keys_spread::<Ipv6Addr>("IPv6");
}

#[test]
fn the_linear_hashes_are_the_standard_ones() {
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    let tuple = Tuple {
        source: Ipv4Addr::new(66, 9, 149, 187),
        destination: Ipv4Addr::new(161, 142, 100, 80),
        source_port: 2794,
        destination_port: 1766,
        protocol: 6,
    };
    assert_eq!(toeplitz(&bytes(&tuple)), 0x51cc_c178);
}

/// Each bit of the key changes each bit of the hash about every second time.
fn every_bit_matters<A: Address>() {
    let schedule = Schedule::new(KEY);
    let (samples, free_bits) =
        if cfg!(miri) { (2, 8) } else { (2_000, if A::LENGTH == 4 { 80 } else { 128 }) };
    for bit in 0..free_bits {
        let mut changed = [0u32; 64];
        for sample in 0..samples {
            let bits = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835u128.wrapping_mul(sample * 2 + 1);
            let (one, other) =
                (schedule.hash(&from_bits::<A>(bits)), schedule.hash(&from_bits::<A>(bits ^ 1 << bit)));
            for (place, count) in changed.iter_mut().enumerate() {
                *count += ((one ^ other) >> place & 1) as u32;
            }
        }
        if cfg!(not(miri)) {
            for count in changed {
                assert!((800..1200).contains(&count), "bit {bit}: {count}");
            }
        }
    }
}

#[test]
fn the_hash_mixes() {
    every_bit_matters::<Ipv4Addr>();
    every_bit_matters::<Ipv6Addr>();
    let other = Schedule::new(HashKey([KEY.0[0], KEY.0[1] ^ 1]));
    assert_ne!(Schedule::new(KEY).hash(&v4(1, 1)), other.hash(&v4(1, 1)));
    assert_eq!(format!("{KEY:?} {other:?}"), "HashKey(..) Schedule(..)");
}

#[test]
fn one_hash_for_all_fills_its_way_and_then_is_refused() {
    let mut table = table::<Ipv4Addr>(500, false, Ticks(0));
    let hash = table.hash(&v4(0, 0));
    let most = u32::try_from(32 * WIDTH).unwrap();
    for number in 0..most {
        table.index.insert(hash, number).unwrap();
    }
    let before = table.index.histogram();
    assert!(table.index.insert(hash, most).is_err());
    assert_eq!(table.index.histogram(), before);
    let sample = if cfg!(miri) { 97 } else { 1 };
    for number in (0..most).rev().step_by(sample) {
        assert_eq!(table.index.search(hash, |id| id == number), Some(number));
    }
    assert_eq!(table.index.search(hash, |_| false), None);
    // Out of order, so that earlier buckets have room while later ones are still in use.
    for number in (0..most).step_by(2).chain((1..most - 1).step_by(2)) {
        assert!(table.index.remove(hash, number));
        if (number as usize).is_multiple_of(sample) {
            assert!(!table.index.remove(hash, number));
            assert!(table.index.search(hash, |id| id == most - 1).is_some());
        }
    }
    assert!(table.index.remove(hash, most - 1));
    assert_eq!(table.index.search(hash, |_| true), None);
    let (histogram, overflow) = table.index.histogram();
    assert_eq!((histogram[0], overflow), (histogram.iter().sum(), 0));
}
