//! IPv4 options (RFC 791) of packets that pass: what a host writes into them, what of them goes into later fragments, and what
//! of them an answer to the packet repeats.

use super::checksum::fill_header;
use std::net::Ipv4Addr;

/// Longest options of a header.
const LONGEST: usize = 40;
const FIXED: usize = 20;

const END: u8 = 0;
const NOTHING: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 0x44;
const LOOSE_ROUTE: u8 = 0x83;
const STRICT_ROUTE: u8 = 0x89;
/// Option types with this bit go into every fragment.
const COPIED: u8 = 0x80;

/// The options are not a director's: malformed, which the kernel's stack tells the sender, or a source route, which it drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

/// The host that options are filled in by.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct Host<'a> {
    /// Any count of milliseconds: it is marked as not being counted from midnight.
    pub milliseconds: u32,
    /// Which addresses are this host's.
    pub is_own: &'a dyn Fn(Ipv4Addr) -> bool,
}

impl Host<'_> {
    const fn time(&self) -> [u8; 4] {
        const NOT_FROM_MIDNIGHT: u32 = 1 << 31;
        (self.milliseconds | NOT_FROM_MIDNIGHT).to_be_bytes()
    }
}

/// Whether [`record`] would take these options.
#[must_use]
pub fn acceptable(header: &[u8]) -> bool {
    let host = Host { milliseconds: 0, is_own: &|_| false };
    let mut copy = Copied::of(header);
    copy.is_some() && fill(copy.as_mut().map_or(&mut [][..], Copied::bytes), [0; 4], &host).is_ok()
}

/// Writes into a header's options what they ask of a host on the way: its address, the time, or that there was no room for it;
/// and corrects the header checksum. `header` is all of it. The address is the packet's own destination, as the kernel takes the
/// packet for one to this host.
///
/// # Errors
/// [`NotOurs`]; nothing was changed.
pub fn record(header: &mut [u8], host: &Host<'_>) -> Result<(), NotOurs> {
    let own = header.get(16..FIXED).and_then(|address| address.first_chunk()).copied().ok_or(NotOurs)?;
    let mut copy = Copied::of(header).ok_or(NotOurs)?;
    fill(copy.bytes(), own, host)?;
    let options = header.get_mut(FIXED..).ok_or(NotOurs)?;
    if options != copy.bytes() {
        options.copy_from_slice(copy.bytes());
        fill_header(header);
    }
    Ok(())
}

/// Makes a header that of a later fragment: options that belong to the first one alone give way to no-operations, so that the
/// header keeps its length. The checksum is left to the caller.
pub fn for_later_fragment(header: &mut [u8]) {
    let Some(mut rest) = header.get_mut(FIXED..) else { return };
    while let [kind, ..] = *rest {
        if kind == END {
            return;
        }
        let length = if kind == NOTHING { 1 } else { rest.get(1).copied().map_or(0, usize::from) };
        if length == 0 || length > rest.len() {
            return;
        }
        let (option, after) = rest.split_at_mut(length);
        if kind & COPIED == 0 {
            option.fill(NOTHING);
        }
        rest = after;
    }
}

/// The options of an answer to a packet, as Linux makes them for ICMP errors, echo replies and resets (RFC 1122, 3.2.2.6): the
/// record-route option and then the timestamp, as they left the packet that [`record`] has been at, with `own`, where the answer
/// comes from, in the next place.
///
/// # Errors
/// [`NotOurs`] where there is room for part of an entry: such a packet is not answered.
pub fn echoed(header: &[u8], own: Ipv4Addr, host: &Host<'_>) -> Result<Echoed, NotOurs> {
    let mut echoed = Echoed::NONE;
    for wanted in [RECORD_ROUTE, TIMESTAMP] {
        let Some(option) = find(header, wanted) else { continue };
        let place = echoed.options.get_mut(echoed.length..echoed.length + option.len()).ok_or(NotOurs)?;
        place.copy_from_slice(option);
        echoed.length += place.len();
        let full = place.get(2).is_none_or(|pointer| usize::from(*pointer) > place.len());
        match wanted {
            _ if full => {}
            RECORD_ROUTE => record_route(place, own.octets())?,
            _ => timestamp(place, own.octets(), host)?,
        }
    }
    echoed.length = echoed.length.next_multiple_of(4);
    Ok(echoed)
}

/// Options made here, padded to whole words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echoed {
    options: [u8; LONGEST],
    length: usize,
}

impl Echoed {
    /// No options.
    pub const NONE: Self = Self { options: [0; LONGEST], length: 0 };

    /// Their bytes, a multiple of 4, at most 40.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.options.get(..self.length).unwrap_or(&[])
    }
}

/// The first option of a kind.
fn find(header: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = header.get(FIXED..)?;
    while let [kind, ..] = *rest {
        let length = match kind {
            END => return None,
            NOTHING => 1,
            _ => usize::from(*rest.get(1)?),
        };
        if length == 0 || length > rest.len() {
            return None;
        }
        let (option, after) = rest.split_at(length);
        if kind == wanted {
            return Some(option);
        }
        rest = after;
    }
    None
}

/// A header's options, to be changed as a whole or not at all.
struct Copied {
    options: [u8; LONGEST],
    length: usize,
}

impl Copied {
    fn of(header: &[u8]) -> Option<Self> {
        let options = header.get(FIXED..)?;
        let mut copy = Self { options: [0; LONGEST], length: options.len() };
        copy.options.get_mut(..options.len())?.copy_from_slice(options);
        Some(copy)
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.options[..self.length]
    }
}

fn fill(mut rest: &mut [u8], own: [u8; 4], host: &Host<'_>) -> Result<(), NotOurs> {
    let mut seen = [false; 2];
    while let [kind, ..] = *rest {
        match kind {
            END => {
                rest.fill(END);
                return Ok(());
            }
            NOTHING => {
                rest = &mut rest[1..];
                continue;
            }
            _ => {}
        }
        let length = rest.get(1).copied().map_or(0, usize::from);
        if length < 2 || length > rest.len() {
            return Err(NotOurs);
        }
        let (option, after) = rest.split_at_mut(length);
        match kind {
            LOOSE_ROUTE | STRICT_ROUTE => return Err(NotOurs),
            RECORD_ROUTE | TIMESTAMP => {
                let seen = &mut seen[usize::from(kind == TIMESTAMP)];
                if std::mem::replace(seen, true) {
                    return Err(NotOurs);
                }
                if kind == RECORD_ROUTE { record_route(option, own)? } else { timestamp(option, own, host)? }
            }
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

/// Writes `bytes` where the option's pointer (counted from 1) says, and moves it on.
fn append(option: &mut [u8], bytes: &[u8]) -> Result<(), NotOurs> {
    let pointer = option[2];
    let at = usize::from(pointer) - 1;
    option.get_mut(at..at + bytes.len()).ok_or(NotOurs)?.copy_from_slice(bytes);
    option[2] = pointer.checked_add(u8::try_from(bytes.len()).map_err(|_| NotOurs)?).ok_or(NotOurs)?;
    Ok(())
}

fn record_route(option: &mut [u8], own: [u8; 4]) -> Result<(), NotOurs> {
    const FIRST: u8 = 4;
    match option.get(2) {
        Some(pointer) if *pointer >= FIRST => {
            let full = usize::from(*pointer) > option.len();
            if full { Ok(()) } else { append(option, &own) }
        }
        _ => Err(NotOurs),
    }
}

fn timestamp(option: &mut [u8], own: [u8; 4], host: &Host<'_>) -> Result<(), NotOurs> {
    const FIRST: u8 = 5;
    let Some([_, _, pointer, flags]) = option.first_chunk::<4>().copied() else { return Err(NotOurs) };
    if pointer < FIRST {
        return Err(NotOurs);
    }
    let (overflow, wish) = (flags >> 4, flags & 0x0f);
    if usize::from(pointer) > option.len() {
        // Prespecified addresses cannot run out of room; the others count who found none.
        if wish != 3 {
            option[3] = if overflow == 15 { return Err(NotOurs) } else { (overflow + 1) << 4 | wish };
        }
        return Ok(());
    }
    if usize::from(pointer) + 3 > option.len() {
        return Err(NotOurs);
    }
    let at = usize::from(pointer) - 1;
    match wish {
        0 => append(option, &host.time()),
        1 => {
            option.get(at..at + 8).ok_or(NotOurs)?;
            append(option, &own)?;
            append(option, &host.time())
        }
        3 => {
            let asked = option.get(at..at + 8).and_then(|place| place.first_chunk()).ok_or(NotOurs)?;
            let asked: [u8; 4] = *asked;
            if !(host.is_own)(asked.into()) {
                return Ok(());
            }
            append(option, &asked)?;
            append(option, &host.time())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::header_valid;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn header(options: &str) -> Vec<u8> {
        let mut header = hex("45000034000140004006000 00a0100050a000064".replace(' ', "").as_str());
        header.extend(hex(options));
        header[0] = 0x40 | u8::try_from(header.len() / 4).unwrap();
        fill_header(&mut header);
        header
    }

    fn text(options: &[u8]) -> String {
        options.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn is_own(address: Ipv4Addr) -> bool {
        address.octets()[..3] == [10, 0, 0]
    }

    const HOST: Host<'static> = Host { milliseconds: 0x0102_0304, is_own: &is_own };

    /// Options after the director, or none when they are not its own; times are 0x01020304.
    fn recorded(options: &str) -> Option<String> {
        let mut header = header(options);
        let before = header.clone();
        let taken = record(&mut header, &HOST);
        assert_eq!((taken.is_ok(), header_valid(&header)), (acceptable(&before), true));
        assert_eq!(header[..10], before[..10]);
        if taken.is_err() {
            assert_eq!(header, before);
            return None;
        }
        Some(text(&header[20..]))
    }

    /// What a kernel director emitted for the same options, and those it did not forward.
    #[test]
    fn options_are_filled_in_as_the_kernel_does() {
        let cases = [
            ("01010101", Some("01010101")),
            ("070b04000000000000000000", Some("070b080a0000640000000000")),
            ("070708010203040000000000", Some("070708010203040000000000")),
            ("070604010203040000000000", None),
            ("070204010203040000000000", None),
            ("070703010203040000000000", None),
            ("070705010203040000000000", None),
            ("07070400000000070704000000000000", None),
            ("44080500000000000000", Some("44080900810203040000")),
            ("440c05010000000000000000", Some("440c0d010a00006481020304")),
            ("440809000000000000000000", Some("440809100000000000000000")),
            ("4408090f0000000000000000", Some("4408091f0000000000000000")),
            ("440809f00000000000000000", None),
            ("440c0503c0a80a0300000000", Some("440c0503c0a80a0300000000")),
            ("440c05030a00006400000000", Some("440c0d030a00006481020304")),
            ("440c05030a00006500000000", Some("440c0d030a00006581020304")),
            ("440c05020a00006400000000", Some("440c05020a00006400000000")),
            ("440a05000000000000000000", Some("440a09008102030400000000")),
            ("440804000000000000000000", None),
            ("830704c0a80a0300", None),
            ("830708c0a80a0300", None),
            ("890704c0a80a0300", None),
            ("94040000", Some("94040000")),
            ("99040000", Some("99040000")),
            ("00070b04", Some("00000000")),
            ("070b0400", None),
            ("82020000", Some("82020000")),
            ("010144080500000000000000", Some("010144080900810203040000")),
        ];
        for (options, wanted) in cases {
            let padded = format!("{options:0<width$}", width = options.len().div_ceil(8) * 8);
            let wanted = wanted.map(|wanted| format!("{wanted:0<width$}", width = padded.len()));
            assert_eq!(recorded(&padded), wanted, "{options}");
        }
    }

    /// What a kernel director's ICMP errors had in their own headers, about packets to 10.0.0.100 with these options.
    #[test]
    fn an_answer_repeats_options_as_the_kernel_does() {
        for (options, wanted) in [
            ("070b04000000000000000000", "070b0c0a0000640a00006400"),
            ("0707040000000000", "0707080a00006400"),
            ("070b08010203040000000000", "070b0c010203040a00006400"),
            ("0707080102030400", "0707080102030400"),
            ("440c05010000000000000000", "440c0d010a00006481020304"),
            ("4408050000000000", "4408090081020304"),
            ("4414050100000000000000000000000000000000", "441415010a000064810203040a00006481020304"),
            ("44080900000000f0", "44080910000000f0"),
            ("440c05030a00006500000000", "440c0d030a00006581020304"),
            ("440c0503c0a80a0300000000", "440c0503c0a80a0300000000"),
            ("44140503c0a80a0300000000c0a80a0400000000", "44140503c0a80a0300000000c0a80a0400000000"),
            ("07070400000000440805000000000000", "0707080a000064440809008102030400"),
            ("44080500000000000707040000000001", "0707080a000064440809008102030400"),
            ("940400000707040000000000", "0707080a00006400"),
            ("010707040000000000000000", "0707080a00006400"),
            ("8207000102030401", ""),
            ("9904000001010101", ""),
        ] {
            let mut header = header(options);
            record(&mut header, &HOST).unwrap();
            let echoed = echoed(&header, Ipv4Addr::new(10, 0, 0, 100), &HOST).unwrap();
            assert_eq!(text(echoed.bytes()), wanted, "{options}");
        }
        assert_eq!(echoed(&header("070908010203040000000000"), Ipv4Addr::LOCALHOST, &HOST), Err(NotOurs));
    }

    #[test]
    fn later_fragments_keep_what_is_copied() {
        for (options, wanted) in [
            ("070b04000000000000000000", "010101010101010101010100"),
            ("8207000102030401", "8207000102030401"),
            ("0144040500820200000000ff", "0101010101820200000000ff"),
            ("07ff0400", "07ff0400"),
            ("07010400", "01010400"),
        ] {
            let mut header = header(options);
            for_later_fragment(&mut header);
            assert_eq!(header[20..], hex(wanted), "{options}");
        }
        for_later_fragment(&mut [0x45; 20]);
        for_later_fragment(&mut []);
    }

    proptest! {
        #[test]
        fn rubbish_is_survived_and_changes_nothing_but_options(words in proptest::collection::vec(any::<[u8; 4]>(), 0..10)) {
            let text = text(words.as_flattened());
            let _ = recorded(&text);
            let _ = echoed(&header(&text), Ipv4Addr::LOCALHOST, &HOST);
            for_later_fragment(&mut header(&text));
        }
    }
}
