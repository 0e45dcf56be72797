//! The maximum segment size option of TCP (RFC 9293, 3.7.1), and how it is lowered in a packet that passes.

use super::checksum;
use super::headers::Headers;
use std::ops::RangeInclusive;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
/// Length of the option, kind and length included.
const LENGTH: usize = 4;
/// Length of a TCP header without options.
const FIXED: usize = 20;
/// Where the checksum is in it.
const CHECKSUM: usize = 16;

/// The values that make sense of a clamp, in bytes of TCP data.
///
/// The least is what a SYN without the option means (RFC 9293, 3.7.1): 536 over IPv4, 1220 over IPv6. A lower clamp would not hold
/// for such a SYN, and is of no use either: every IPv4 host takes 576 bytes (RFC 1122, 3.3.2), every IPv6 link carries 1280. The
/// greatest is what the longest packet carries behind headers of 40 and 60 bytes (RFC 6691).
#[must_use]
pub const fn clamps(v6: bool) -> RangeInclusive<u16> {
    if v6 { 1220..=65_475 } else { 536..=65_495 }
}

/// Lowers the MSS options of a TCP segment that are greater than `most`, with the checksum (RFC 1624); whether there was one.
///
/// `headers` are what parsing said of this frame, of a first piece with its own length. Options are read as a Linux host reads them: up to
/// the first that is cut short or has no length, every option of the kind counts, and one of another length does not. What is not all
/// in the first segment of a buffer, or in the first piece of a datagram, stays as it is.
#[cold]
pub fn clamp(data: &mut [u8], headers: &Headers, most: u16) -> bool {
    let end = data.len().min(usize::from(headers.network) + headers.ip_length as usize);
    let Some(segment) = data.get_mut(headers.transport.into()..end) else { return false };
    let claimed = segment.get(12).map_or(0, |words| usize::from(words >> 4) * 4);
    let length = claimed.min(segment.len());
    let Some(header) = segment.get_mut(..length).filter(|header| header.len() > FIXED) else { return false };
    let mut lowered = false;
    let mut at = FIXED;
    while let Some(&kind) = header.get(at) {
        match kind {
            END => break,
            NOTHING => at += 1,
            _ => {
                let Some(option) =
                    header.get(at + 1).and_then(|&length| header.get(at..at + usize::from(length)))
                else {
                    break;
                };
                let length = option.len();
                if length < 2 {
                    break;
                }
                if kind == MSS && length == LENGTH {
                    lowered |= lower(header, at + 2, most);
                }
                at += length;
            }
        }
    }
    lowered
}

/// Writes `most` at `at` where what stands there is greater.
fn lower(header: &mut [u8], at: usize, most: u16) -> bool {
    let Some(value) = header.get_mut(at..at + 2).and_then(|bytes| bytes.first_chunk_mut::<2>()) else {
        return false;
    };
    let old = u16::from_be_bytes(*value);
    if old <= most {
        return false;
    }
    *value = most.to_be_bytes();
    // At an odd place its bytes are halves of two words, and their sum is that of the bytes the other way round.
    let (old, new) = if at.is_multiple_of(2) { (old, most) } else { (old.swap_bytes(), most.swap_bytes()) };
    if let Some(field) = header.get_mut(CHECKSUM..).and_then(|bytes| bytes.first_chunk_mut::<2>()) {
        *field = checksum::update_16(u16::from_be_bytes(*field), old, new).to_be_bytes();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::{HeapPacket, Packet, Parsed, parse, tcp};
    use super::*;
    use crate::bench::Frame;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    const ENDS: [[&str; 2]; 2] =
        [["10.1.0.5:1024", "10.0.0.100:80"], ["[2001:db8:1::5]:1024", "[2001:db8::100]:80"]];

    fn syn(v6: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let [source, destination] = ENDS[usize::from(v6)].map(|end| end.parse::<SocketAddr>().unwrap());
        let (tcp_options, payload) = (options.to_vec(), payload.to_vec());
        Frame { tcp_options, payload, ..Frame::new(source, destination) }.tcp(tcp::SYN)
    }

    fn headers(frame: &[u8]) -> Headers {
        match parse(frame, frame.len(), 1) {
            Parsed::Flow(headers) => headers,
            other => panic!("{other:?}"),
        }
    }

    /// The options after a clamp of `most`, and whether that changed any; the frame must be the one that would have been built.
    fn clamped(v6: bool, options: &[u8], most: u16) -> (Vec<u8>, bool) {
        let mut packet = HeapPacket::new(&syn(v6, options, b"early"));
        let headers = headers(packet.data());
        let lowered = clamp(packet.data_mut(), &headers, most);
        let at = usize::from(headers.transport) + FIXED;
        let after = packet.data()[at..at + options.len()].to_vec();
        assert_eq!(packet.data(), syn(v6, &after, b"early"));
        (after, lowered)
    }

    /// What is to become of options, written down as plainly as can be.
    fn model(options: &[u8], most: u16) -> Vec<u8> {
        let mut after = options.to_vec();
        let mut at = 0;
        while at < options.len() && options[at] != 0 {
            if options[at] == 1 {
                at += 1;
                continue;
            }
            let Some(&length) = options.get(at + 1) else { break };
            let length = usize::from(length);
            if length < 2 || at + length > options.len() {
                break;
            }
            if options[at] == 2 && length == 4 {
                let value = u16::from_be_bytes([options[at + 2], options[at + 3]]);
                after[at + 2..at + 4].copy_from_slice(&value.min(most).to_be_bytes());
            }
            at += length;
        }
        after
    }

    #[test]
    fn what_is_greater_is_lowered_and_nothing_is_raised() {
        for v6 in [false, true] {
            for (options, wanted) in [
                // 1460, 1400, 1399, 0; what Linux sends; behind one NOP, so that the value has an odd place.
                (&[2, 4, 0x05, 0xb4][..], Some(&[2, 4, 0x05, 0x78][..])),
                (&[2, 4, 0x05, 0x78], None),
                (&[2, 4, 0x05, 0x77], None),
                (&[2, 4, 0, 0], None),
                (
                    &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
                    Some(&[2, 4, 0x05, 0x78, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]),
                ),
                (&[1, 2, 4, 0xff, 0xff, 0, 0, 0], Some(&[1, 2, 4, 0x05, 0x78, 0, 0, 0])),
                // The last one counts at some hosts, the first at others.
                (&[2, 4, 0x05, 0xb4, 2, 4, 0x23, 0x00], Some(&[2, 4, 0x05, 0x78, 2, 4, 0x05, 0x78])),
                // None, and none that a host would read.
                (&[], None),
                (&[4, 2, 1, 1], None),
                (&[0, 2, 4, 0x05, 0xb4, 0, 0, 0], None),
                (&[3, 0, 2, 4, 0x05, 0xb4, 0, 0], None),
                (&[3, 1, 2, 4, 0x05, 0xb4, 0, 0], None),
                (&[8, 200, 2, 4, 0x05, 0xb4, 0, 0], None),
                (&[2, 3, 0xff, 1], None),
                (&[2, 6, 0xff, 0xff, 0, 0, 1, 1], None),
                (&[1, 2, 4, 0xff], None),
                (&[1, 1, 1, 2], None),
            ] {
                let expected = (wanted.unwrap_or(options).to_vec(), wanted.is_some());
                assert_eq!(clamped(v6, options, 1400), expected, "{options:?}");
            }
        }
    }

    #[test]
    fn a_header_that_is_not_all_there_is_read_as_far_as_it_is() {
        let whole = syn(false, &[2, 4, 0x05, 0xb4, 1, 2, 4, 0x05, 0xb4, 0, 0, 0], &[]);
        let headers = headers(&whole);
        for length in 0..=whole.len() {
            let mut cut = whole[..length].to_vec();
            let lowered = clamp(&mut cut, &headers, 536);
            assert_eq!(lowered, length >= 34 + FIXED + LENGTH, "{length}");
            assert_eq!(cut.len(), length);
        }
        // A first piece of 24 bytes, behind which Ethernet padding looks like an option.
        let mut piece = whole.clone();
        let of_piece = headers.alone(20 + 24);
        assert!(clamp(&mut piece, &of_piece, 536));
        assert_eq!(piece[58..], whole[58..]);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_by_the_same_difference() {
        let (mut right, lowered) =
            (syn(false, &[2, 4, 0x05, 0xb4], &[]), syn(false, &[2, 4, 0x02, 0x18], &[]));
        let headers = headers(&right);
        let wrong = |frame: &mut [u8]| frame[34 + CHECKSUM] ^= 0x40;
        wrong(&mut right);
        assert!(clamp(&mut right, &headers, 536));
        let back = u16::from_be_bytes([right[50], right[51]]);
        let was = u16::from_be_bytes([lowered[50], lowered[51]]);
        assert!([0x4000, 0xbfff, 0xc000, 0x3fff].contains(&back.wrapping_sub(was)), "{back:04x} {was:04x}");
    }

    #[test]
    fn the_least_clamp_is_what_a_syn_without_the_option_means() {
        assert_eq!((clamps(false), clamps(true)), (536..=65_495, 1220..=65_475));
    }

    /// Options that a host might send, and rubbish.
    fn options() -> impl Strategy<Value = Vec<u8>> {
        let one = prop_oneof![
            Just(vec![0]),
            Just(vec![1]),
            any::<[u8; 2]>().prop_map(|[high, low]| vec![2, 4, high, low]),
            (0..8_u8, 0..12_u8, any::<[u8; 4]>())
                .prop_map(|(kind, length, rest)| { [&[kind, length][..], &rest[..]].concat() }),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(one, 0..12).prop_map(|parts| {
            let mut all = parts.concat();
            all.truncate(40);
            all.truncate(all.len() / 4 * 4);
            all
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 16 } else { 2048 })
        })]

        #[test]
        fn any_options_become_what_the_model_says_with_the_checksum_of_a_packet_built_so(
            options in options(), most: u16, v6: bool,
        ) {
            let wanted = model(&options, most);
            let changed = wanted != options;
            prop_assert_eq!(clamped(v6, &options, most), (wanted, changed));
        }

        #[test]
        fn headers_that_lie_do_no_harm(
            mut data in proptest::collection::vec(any::<u8>(), 0..120),
            network: u16, transport: u16, ip_length: u32, most: u16, near: bool,
        ) {
            let near_to = |value: u16| if near { value % 80 } else { value };
            let headers = Headers {
                network: near_to(network),
                transport: near_to(transport),
                ip_length: if near { ip_length % 150 } else { ip_length },
                ..Headers::default()
            };
            let length = data.len();
            clamp(&mut data, &headers, most);
            prop_assert_eq!(data.len(), length);
        }
    }
}
