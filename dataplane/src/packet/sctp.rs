//! SCTP (RFC 9260): which chunk a packet begins with, and its checksum.

use super::headers::{be16, chunk};

/// Common header: ports, verification tag, checksum.
pub(super) const HEADER: usize = 12;
/// Type, flags and length of a chunk.
const CHUNK: usize = 4;

const INIT: u8 = 1;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// What the first chunk of a packet means for the state of its association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    /// DATA and every other chunk that says nothing about the association's beginning or end.
    Other = 1,
    /// The beginning.
    Init = 2,
    /// Its acknowledgement, with a cookie.
    InitAck = 3,
    /// The cookie comes back.
    CookieEcho = 4,
    /// Its acknowledgement: the association is there.
    CookieAck = 5,
    /// No more data.
    Shutdown = 6,
    /// Nor from the other end.
    ShutdownAck = 7,
    /// The end.
    ShutdownComplete = 8,
    /// Something was wrong.
    Error = 9,
    /// The end at once.
    Abort = 10,
}

impl Event {
    /// All of them, by number.
    pub const ALL: [Self; 10] = [
        Self::Other,
        Self::Init,
        Self::InitAck,
        Self::CookieEcho,
        Self::CookieAck,
        Self::Shutdown,
        Self::ShutdownAck,
        Self::ShutdownComplete,
        Self::Error,
        Self::Abort,
    ];

    /// The event of a number; 0 is none.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The event of a chunk's type.
    const fn of_type(kind: u8) -> Self {
        match kind {
            INIT => Self::Init,
            2 => Self::InitAck,
            ABORT => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            COOKIE_ECHO => Self::CookieEcho,
            COOKIE_ACK => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Other,
        }
    }
}

/// What the chunks of a packet say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    /// It begins with INIT.
    pub(super) init: bool,
    /// It begins with ABORT.
    pub(super) abort: bool,
    /// What moves the association's state.
    pub(super) event: Event,
}

/// Reads the first chunk of an SCTP packet of `length` bytes, and the one behind a cookie: an ABORT there counts, as in the kernel.
/// `packet` is what of it is in the first segment. `None` when there is no chunk; lengths that chunks claim are only believed within
/// the packet.
///
/// # Errors
///
/// How many bytes of the packet are needed, where the first segment has less.
pub(super) fn chunks(packet: &[u8], length: usize) -> Result<Option<Chunks>, usize> {
    if length < HEADER + CHUNK {
        return Ok(None);
    }
    let first = chunk::<CHUNK>(packet, HEADER).ok_or(HEADER + CHUNK)?;
    let own = usize::from(be16(first[2], first[3]));
    let next = HEADER + own.next_multiple_of(4);
    let mut event = Event::of_type(first[0]);
    if matches!(first[0], COOKIE_ECHO | COOKIE_ACK) && own >= CHUNK && next + CHUNK <= length {
        let next = chunk::<CHUNK>(packet, next).ok_or(next + CHUNK)?;
        event = if next[0] == ABORT { Event::Abort } else { event };
    }
    Ok(Some(Chunks { init: first[0] == INIT, abort: first[0] == ABORT, event }))
}

/// The reversed polynomial of CRC32c (RFC 9260, appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0 in reversed order.
const ONE: u32 = 1 << 31;
/// x^8, one byte.
const BYTE: u32 = 1 << 23;

/// The product of two polynomials modulo CRC32c's.
const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = (b >> 1) ^ if b & 1 != 0 { POLYNOMIAL } else { 0 };
    }
    product
}

/// The first 256 powers of `base`.
const fn powers(base: u32) -> [u32; 256] {
    let mut table = [ONE; 256];
    let mut index = 1;
    while index < 256 {
        table[index] = multiply(table[index - 1], base);
        index += 1;
    }
    table
}

/// x^(8n) for the low and the high byte of n.
static LOW: [u32; 256] = powers(BYTE);
static HIGH: [u32; 256] = powers(multiply(powers(BYTE)[255], BYTE));

/// The checksum, in host order, of a packet of `length` bytes whose first four bytes changed. CRCs are linear: the difference is the
/// CRC of the changed bits alone, moved over the bytes behind them, whatever these are. A wrong checksum stays wrong by the same
/// difference, for the receiver to find.
pub(super) fn updated(checksum: u32, old: [u8; 4], new: [u8; 4], length: u16) -> u32 {
    let changed = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    let [high, low] = length.to_be_bytes();
    let moved = multiply(LOW[usize::from(low)], HIGH[usize::from(high)]);
    checksum ^ multiply(changed, moved)
}

/// The checksum of a packet, in host order (RFC 9260, 6.8 and appendix A); its field counts as 0.
#[must_use]
pub fn checksum(packet: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in packet.iter().enumerate() {
        crc ^= u32::from(if (8..12).contains(&at) { 0 } else { *byte });
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(chunks: &[u8]) -> Vec<u8> {
        [&[0; HEADER], chunks].concat()
    }

    fn read(bytes: &[u8]) -> Option<Chunks> {
        chunks(bytes, bytes.len()).unwrap()
    }

    fn event(bytes: &[u8]) -> Option<Event> {
        read(&packet(bytes)).map(|chunks| chunks.event)
    }

    #[test]
    fn the_first_chunk_says_what_happens() {
        let types = [(1, Event::Init), (2, Event::InitAck), (6, Event::Abort), (7, Event::Shutdown)];
        let more = [(8, Event::ShutdownAck), (9, Event::Error), (10, Event::CookieEcho)];
        let last =
            [(11, Event::CookieAck), (14, Event::ShutdownComplete), (0, Event::Other), (3, Event::Other)];
        for (kind, expected) in types.into_iter().chain(more).chain(last).chain([(255, Event::Other)]) {
            assert_eq!(event(&[kind, 0, 0, 4]), Some(expected), "{kind}");
            assert_eq!(Event::from_number(expected as u8), Some(expected));
        }
        assert_eq!((Event::from_number(0), Event::from_number(11)), (None, None));
        let init = read(&packet(&[1, 0, 0, 4]));
        assert_eq!(init.map(|chunks| (chunks.init, chunks.abort)), Some((true, false)));
    }

    #[test]
    fn an_abort_behind_a_cookie_counts() {
        // As the kernel does, by the states that its listings show.
        assert_eq!(event(&[10, 0, 0, 4, 6, 0, 0, 4]), Some(Event::Abort));
        assert_eq!(event(&[11, 0, 0, 4, 6, 0, 0, 4]), Some(Event::Abort));
        assert_eq!(event(&[10, 0, 0, 5, 9, 0, 0, 0, 6, 0, 0, 4]), Some(Event::Abort));
        assert_eq!(event(&[10, 0, 0, 0, 6, 0, 0, 4]), Some(Event::CookieEcho));
        assert_eq!(event(&[10, 0, 0xff, 0xff, 6, 0, 0, 4]), Some(Event::CookieEcho));
        assert_eq!(event(&[10, 0, 0, 4, 6, 0, 0]), Some(Event::CookieEcho));
        let behind_cookie = read(&packet(&[10, 0, 0, 4, 6, 0, 0, 4]));
        assert!(behind_cookie.is_some_and(|chunks| !chunks.abort), "the packet begins with a cookie");
        assert_eq!(event(&[0, 0, 0]), None);
        assert_eq!(read(&[0; 5]), None);
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of the polynomial, with zeros where the checksum stands.
        assert_eq!(checksum(b"12345678\0\0\0\09"), checksum(b"12345678abcd9"));
        let mut zeros = [0_u8; 32];
        zeros[9] = 7;
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(checksum(&zeros), 0x8a91_36aa);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 })
        })]

        #[test]
        fn chunks_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let whole = read(&bytes);
            prop_assert_eq!(whole.is_some(), bytes.len() >= HEADER + CHUNK);
            for length in 0..bytes.len() {
                let first = chunks(&bytes[..length], bytes.len());
                prop_assert!(first == Ok(whole) || first.is_err_and(|needed| needed > length && needed <= bytes.len()));
            }
        }

        #[test]
        fn changed_ports_change_the_checksum_as_computing_it_anew(
            mut bytes in proptest::collection::vec(any::<u8>(), 12..2000), new: [u8; 4],
        ) {
            let old = [bytes[0], bytes[1], bytes[2], bytes[3]];
            let before = checksum(&bytes);
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&new);
            prop_assert_eq!(updated(before, old, new, length), checksum(&bytes));
        }
    }

    #[test]
    fn the_longest_packet() {
        let mut bytes = vec![0x5a; 65_515];
        let before = checksum(&bytes);
        bytes[3] = 1;
        assert_eq!(updated(before, [0x5a; 4], [0x5a, 0x5a, 0x5a, 1], 65_515), checksum(&bytes));
    }
}
