//! Attributes, read as the kernel's parser reads those of old families: unknown ones are passed over, of two alike the last one
//! counts, what follows a broken one is ignored, and each known one is at least as long as its rule says.

use netlink_packet_core::{Emitable, Nla, NlasIterator};
use rustix::io::Errno;

/// What a known attribute must look like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Not looked at.
    Any,
    /// A number of at least so many bytes.
    Number(usize),
    /// At most so many bytes.
    Bytes(usize),
    /// A text that ends in a zero byte, of at most so many bytes without it.
    Text(usize),
    /// Other attributes.
    Nested,
}

impl Rule {
    fn check(self, value: &[u8]) -> Result<(), Errno> {
        let fits = match self {
            Self::Any => true,
            Self::Number(least) => value.len() >= least,
            Self::Bytes(most) => value.len() <= most,
            Self::Nested => value.is_empty() || value.len() >= netlink_packet_core::NLA_HEADER_SIZE,
            Self::Text(most) => {
                if !value.iter().take(most + 1).any(|byte| *byte == 0) {
                    return Err(Errno::INVAL);
                }
                value.strip_suffix(&[0]).unwrap_or(value).len() <= most
            }
        };
        if fits { Ok(()) } else { Err(Errno::RANGE) }
    }
}

/// The known attributes of a message or of a nest, by number.
#[derive(Debug)]
pub(super) struct Table<'a, const N: usize>([Option<&'a [u8]>; N]);

impl<'a, const N: usize> Table<'a, N> {
    /// Reads attributes by their rules; `rules[0]` is for no attribute.
    ///
    /// # Errors
    ///
    /// One breaks its rule: `ERANGE`, or `EINVAL` for a text without an end.
    pub(super) fn read(bytes: &'a [u8], rules: &[Rule; N]) -> Result<Self, Errno> {
        let mut table = [None; N];
        for attribute in NlasIterator::new(bytes).map_while(Result::ok) {
            let kind = usize::from(attribute.kind());
            if kind == 0 || kind >= N {
                continue;
            }
            let length = usize::from(attribute.length());
            let value = attribute.into_inner().get(netlink_packet_core::NLA_HEADER_SIZE..length);
            let value = value.ok_or(Errno::INVAL)?;
            rules[kind].check(value)?;
            table[kind] = Some(value);
        }
        Ok(Self(table))
    }

    /// The attributes inside one of these.
    ///
    /// # Errors
    ///
    /// `EINVAL`: it is missing, or one inside breaks its rule.
    pub(super) fn nest<const M: usize>(&self, kind: u16, rules: &[Rule; M]) -> Result<Table<'a, M>, Errno> {
        let inside = self.bytes(kind).ok_or(Errno::INVAL)?;
        Table::read(inside, rules).map_err(|_| Errno::INVAL)
    }

    /// An attribute's bytes.
    pub(super) fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.get(usize::from(kind)).copied().flatten()
    }

    fn number<const B: usize>(&self, kind: u16) -> Option<[u8; B]> {
        self.bytes(kind)?.first_chunk().copied()
    }

    /// A number of 8 bits.
    pub(super) fn u8(&self, kind: u16) -> Option<u8> {
        self.number(kind).map(u8::from_ne_bytes)
    }

    /// A number of 16 bits in the machine's order.
    pub(super) fn u16(&self, kind: u16) -> Option<u16> {
        self.number(kind).map(u16::from_ne_bytes)
    }

    /// A number of 16 bits in network order, as ports are.
    pub(super) fn port(&self, kind: u16) -> Option<u16> {
        self.number(kind).map(u16::from_be_bytes)
    }

    /// A number of 32 bits in the machine's order.
    pub(super) fn u32(&self, kind: u16) -> Option<u32> {
        self.number(kind).map(u32::from_ne_bytes)
    }

    /// A text without its zero byte and what follows it.
    pub(super) fn text(&self, kind: u16) -> Option<&'a [u8]> {
        self.bytes(kind)?.split(|byte| *byte == 0).next()
    }

    /// The first bytes of a value; what is missing is 0.
    pub(super) fn padded<const B: usize>(&self, kind: u16) -> Option<[u8; B]> {
        let value = self.bytes(kind)?;
        let mut padded = [0; B];
        padded.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        Some(padded)
    }
}

/// An attribute to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Nested(Vec<Attribute>),
}

impl Attribute {
    /// Bytes as they are.
    pub(super) fn bytes(kind: u16, value: impl Into<Vec<u8>>) -> Self {
        Self { kind, value: Value::Bytes(value.into()) }
    }

    /// A number of 16 bits in the machine's order.
    pub(super) fn u16(kind: u16, value: u16) -> Self {
        Self::bytes(kind, value.to_ne_bytes())
    }

    /// A number of 16 bits in network order.
    pub(super) fn port(kind: u16, value: u16) -> Self {
        Self::bytes(kind, value.to_be_bytes())
    }

    /// A number of 32 bits in the machine's order.
    pub(super) fn u32(kind: u16, value: u32) -> Self {
        Self::bytes(kind, value.to_ne_bytes())
    }

    /// A number of 64 bits in the machine's order.
    pub(super) fn u64(kind: u16, value: u64) -> Self {
        Self::bytes(kind, value.to_ne_bytes())
    }

    /// A text; its zero byte is added.
    pub(super) fn text(kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        Self::bytes(kind, value)
    }

    /// Attributes inside one, without the flag that says so: the family is older than the flag.
    pub(super) fn nested(kind: u16, inside: Vec<Self>) -> Self {
        Self { kind, value: Value::Nested(inside) }
    }
}

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        match &self.value {
            Value::Bytes(bytes) => bytes.len(),
            Value::Nested(inside) => inside.as_slice().buffer_len(),
        }
    }

    fn kind(&self) -> u16 {
        self.kind
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match &self.value {
            Value::Bytes(bytes) => buffer.copy_from_slice(bytes),
            Value::Nested(inside) => inside.as_slice().emit(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [Rule; 6] =
        [Rule::Any, Rule::Number(2), Rule::Bytes(16), Rule::Text(3), Rule::Nested, Rule::Any];

    fn written(attributes: &[Attribute]) -> Vec<u8> {
        let mut bytes = vec![0xff; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_reads_back() {
        let bytes = written(&[
            Attribute::u16(1, 0x1234),
            Attribute::bytes(2, [9; 5]),
            Attribute::text(3, "abc"),
            Attribute::nested(4, vec![Attribute::port(1, 80), Attribute::u64(5, 7)]),
            Attribute::u32(5, 6),
        ]);
        assert_eq!(bytes.len(), 8 + 12 + 8 + (4 + 8 + 12) + 8);
        let table = Table::read(&bytes, &RULES).unwrap();
        assert_eq!((table.u16(1), table.u32(5), table.text(3)), (Some(0x1234), Some(6), Some(&b"abc"[..])));
        assert_eq!(table.padded(2), Some([9, 9, 9, 9, 9, 0, 0]));
        let nest = table.nest(4, &RULES).unwrap();
        assert_eq!((nest.port(1), nest.u8(5), nest.u32(2)), (Some(80), Some(7), None));
        assert_eq!(table.nest(2, &RULES).unwrap().bytes(1), None);
    }

    #[test]
    fn rules_refuse_with_the_kernels_numbers() {
        for (attribute, errno) in [
            (Attribute::bytes(1, [1]), Some(Errno::RANGE)),
            (Attribute::bytes(1, [1, 2, 3]), None),
            (Attribute::bytes(2, [0; 17]), Some(Errno::RANGE)),
            (Attribute::bytes(2, []), None),
            (Attribute::text(3, "abcd"), Some(Errno::INVAL)),
            (Attribute::bytes(3, *b"abc"), Some(Errno::INVAL)),
            (Attribute::bytes(3, []), Some(Errno::INVAL)),
            (Attribute::bytes(3, *b"a\0cde"), Some(Errno::RANGE)),
            (Attribute::bytes(3, *b"\0"), None),
            (Attribute::bytes(4, [1, 2, 3]), Some(Errno::RANGE)),
            (Attribute::bytes(4, []), None),
            (Attribute::bytes(9, [1; 99]), None),
        ] {
            let bytes = written(std::slice::from_ref(&attribute));
            assert_eq!(Table::read(&bytes, &RULES).err(), errno, "{attribute:?}");
        }
    }

    #[test]
    fn the_last_of_two_counts_and_a_broken_one_ends_the_list() {
        let mut bytes = written(&[Attribute::u16(1, 1), Attribute::u16(1, 2)]);
        bytes.extend([3, 0, 5, 0]);
        bytes.extend(written(&[Attribute::u32(5, 5)]));
        let table = Table::read(&bytes, &RULES).unwrap();
        assert_eq!((table.u16(1), table.u32(5)), (Some(2), None));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            if let Ok(table) = Table::read(&bytes, &RULES) {
                let _nested = table.nest(4, &RULES);
                let _read = (table.u8(1), table.u16(1), table.port(1), table.u32(1), table.text(3));
            }
        }
    }
}
