//! The two address families, as one trait that the tables are generic over.

use crate::snapshot::ClientMask;
use std::fmt::{Debug, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use zerocopy::FromBytes;

/// An IP address of one family.
pub trait Address: Copy + Eq + Debug + Display + Send + Sync + 'static {
    /// Length on the wire in bytes.
    const LENGTH: usize;
    /// Shortest MTU a link may have (RFC 791, RFC 8200).
    const MINIMUM_MTU: u16;
    /// The address in memory that one thread writes and others may read.
    type Cells: Cells<Self>;
    /// Two addresses, source and destination, to be compared as one.
    type Ends: Copy + Eq + Debug;
    /// Such a pair in memory.
    type EndsCells: Cells<Self::Ends>;

    /// Joins two addresses.
    fn join(source: Self, destination: Self) -> Self::Ends;

    /// Back from [`Address::join`].
    fn split(ends: Self::Ends) -> (Self, Self);

    /// The address as four 32-bit words, most significant first; IPv4 fills the last.
    fn words(self) -> [u32; 4];

    /// Back from [`Address::words`].
    fn from_words(words: [u32; 4]) -> Self;

    /// From the bytes of a packet; the unspecified address when there are too few.
    fn read(bytes: &[u8]) -> Self;

    /// To the bytes of a packet; nothing when there are too few.
    fn write(self, bytes: &mut [u8]);

    /// The family-independent form.
    fn ip(self) -> IpAddr;

    /// The address, if `ip` is of this family.
    fn from_ip(ip: IpAddr) -> Option<Self>;

    /// The address with all but the leading `prefix` bits cleared.
    fn masked(self, prefix: u8) -> Self;

    /// The address under which a template of a mark is listed: the mark in its first four bytes.
    fn from_mark(mark: u32) -> Self;

    /// The address with all bits cleared that the mask leaves out; unchanged under a mask of the other family.
    fn under(self, mask: ClientMask) -> Self;
}

/// Memory for a value that one thread writes and others may read. All-zero bytes are a valid value.
pub trait Cells<T>: FromBytes + Debug + Send + Sync + 'static {
    /// Reads the value; a reader beside the writer may see parts of two.
    fn load(&self) -> T;

    /// Writes the value.
    fn store(&self, value: T);
}

/// An IPv4 address in memory.
#[derive(Debug, Default, FromBytes)]
#[repr(transparent)]
pub struct Ipv4Cells(AtomicU32);

impl Cells<Ipv4Addr> for Ipv4Cells {
    #[inline(always)]
    fn load(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.load(Relaxed))
    }

    #[inline(always)]
    fn store(&self, address: Ipv4Addr) {
        self.0.store(address.to_bits(), Relaxed);
    }
}

/// An IPv6 address in memory: the leading 64 bits, then the others.
#[derive(Debug, Default, FromBytes)]
#[repr(C)]
pub struct Ipv6Cells([AtomicU64; 2]);

impl Cells<Ipv6Addr> for Ipv6Cells {
    #[inline(always)]
    fn load(&self) -> Ipv6Addr {
        let [high, low] = &self.0;
        Ipv6Addr::from_bits(u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed)))
    }

    #[inline(always)]
    fn store(&self, address: Ipv6Addr) {
        let [high, low] = &self.0;
        let bits = address.to_bits();
        high.store((bits >> 64) as u64, Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        low.store(bits as u64, Relaxed);
    }
}

/// Two IPv4 addresses in memory, the first in the upper half.
#[derive(Debug, Default, FromBytes)]
#[repr(transparent)]
pub struct Ipv4EndsCells(AtomicU64);

impl Cells<u64> for Ipv4EndsCells {
    #[inline(always)]
    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline(always)]
    fn store(&self, ends: u64) {
        self.0.store(ends, Relaxed);
    }
}

/// Two IPv6 addresses in memory.
#[derive(Debug, Default, FromBytes)]
#[repr(C)]
pub struct Ipv6EndsCells([Ipv6Cells; 2]);

impl Cells<(Ipv6Addr, Ipv6Addr)> for Ipv6EndsCells {
    #[inline(always)]
    fn load(&self) -> (Ipv6Addr, Ipv6Addr) {
        (self.0[0].load(), self.0[1].load())
    }

    #[inline(always)]
    fn store(&self, (source, destination): (Ipv6Addr, Ipv6Addr)) {
        self.0[0].store(source);
        self.0[1].store(destination);
    }
}

impl Address for Ipv4Addr {
    const LENGTH: usize = 4;
    const MINIMUM_MTU: u16 = 68;
    type Cells = Ipv4Cells;
    type Ends = u64;
    type EndsCells = Ipv4EndsCells;

    #[inline(always)]
    fn join(source: Self, destination: Self) -> u64 {
        u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits())
    }

    #[inline(always)]
    fn split(ends: u64) -> (Self, Self) {
        (Self::from_bits((ends >> 32) as u32), Self::from_bits((ends & 0xffff_ffff) as u32))
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [0, 0, 0, self.to_bits()]
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self::from_bits(words[3])
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        bytes.first_chunk::<4>().map_or(Self::UNSPECIFIED, |octets| Self::from(*octets))
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8]) {
        if let Some(place) = bytes.first_chunk_mut() {
            *place = self.octets();
        }
    }

    #[inline(always)]
    fn ip(self) -> IpAddr {
        IpAddr::V4(self)
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn masked(self, prefix: u8) -> Self {
        Self::from_bits(self.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
    }

    fn from_mark(mark: u32) -> Self {
        Self::from_bits(mark)
    }

    fn under(self, mask: ClientMask) -> Self {
        match mask {
            ClientMask::V4(bits) => Self::from_bits(self.to_bits() & bits),
            ClientMask::V6(_) => self,
        }
    }
}

impl Address for Ipv6Addr {
    const LENGTH: usize = 16;
    const MINIMUM_MTU: u16 = 1280;
    type Cells = Ipv6Cells;
    type Ends = (Self, Self);
    type EndsCells = Ipv6EndsCells;

    #[inline(always)]
    fn join(source: Self, destination: Self) -> (Self, Self) {
        (source, destination)
    }

    #[inline(always)]
    fn split(ends: (Self, Self)) -> (Self, Self) {
        ends
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        let bits = self.to_bits();
        #[expect(clippy::cast_possible_truncation, reason = "one word of it")]
        [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self::from_bits(words.iter().fold(0, |bits, word| (bits << 32) | u128::from(*word)))
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        bytes.first_chunk::<16>().map_or(Self::UNSPECIFIED, |octets| Self::from(*octets))
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8]) {
        if let Some(place) = bytes.first_chunk_mut() {
            *place = self.octets();
        }
    }

    #[inline(always)]
    fn ip(self) -> IpAddr {
        IpAddr::V6(self)
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn masked(self, prefix: u8) -> Self {
        Self::from_bits(self.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0))
    }

    fn from_mark(mark: u32) -> Self {
        Self::from_bits(u128::from(mark) << 96)
    }

    fn under(self, mask: ClientMask) -> Self {
        match mask {
            ClientMask::V4(_) => self,
            ClientMask::V6(prefix) => self.masked(prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_leading_bits() {
        let v4: Ipv4Addr = "192.168.132.77".parse().unwrap();
        assert_eq!(v4.masked(24), "192.168.132.0".parse::<Ipv4Addr>().unwrap());
        assert_eq!(v4.under(ClientMask::V4(24)), "0.0.0.8".parse::<Ipv4Addr>().unwrap(), "ipvsadm -M 24");
        assert_eq!((v4.masked(32), v4.masked(0)), (v4, Ipv4Addr::UNSPECIFIED));
        let v6: Ipv6Addr = "fd00:1:2:3::4".parse().unwrap();
        assert_eq!(v6.masked(64), "fd00:1:2:3::".parse::<Ipv6Addr>().unwrap());
        assert_eq!((v6.under(ClientMask::V6(64)), v6.under(ClientMask::HOST_V4)), (v6.masked(64), v6));
        assert_eq!((v6.masked(128), v6.masked(0)), (v6, Ipv6Addr::UNSPECIFIED));
    }

    #[test]
    fn words_round_trip() {
        let v6: Ipv6Addr = "fd00:1:2:3:4:5:6:7".parse().unwrap();
        assert_eq!(Ipv6Addr::from_words(v6.words()), v6);
        let v4: Ipv4Addr = "10.1.2.3".parse().unwrap();
        assert_eq!(Ipv4Addr::from_words(v4.words()), v4);
    }

    #[test]
    fn cells_hold_addresses() {
        let (v4, v6) = (Ipv4Cells::default(), Ipv6Cells::default());
        assert_eq!((v4.load(), v6.load()), (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED));
        v4.store(Ipv4Addr::new(10, 1, 2, 3));
        v6.store("fd00:1:2:3:4:5:6:7".parse().unwrap());
        assert_eq!(v4.load(), Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(v6.load(), "fd00:1:2:3:4:5:6:7".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn pairs_are_compared_as_one() {
        let (one, other) = (Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(192, 0, 2, 1));
        let cells = Ipv4EndsCells::default();
        cells.store(Address::join(one, other));
        assert_eq!(cells.load(), 0x0a01_0203_c000_0201);
        assert_eq!(<Ipv4Addr as Address>::split(cells.load()), (one, other));
        let (one, other) = ("fd00::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let cells = Ipv6EndsCells::default();
        cells.store(<Ipv6Addr as Address>::join(one, other));
        assert_eq!(<Ipv6Addr as Address>::split(cells.load()), (one, other));
    }
}
