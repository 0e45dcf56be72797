//! What the recorded kernel chose freely, taken out of two frames before they are compared.
//!
//! | masked | where |
//! | --- | --- |
//! | IPv4 identification | in frames from one of the director's own addresses, without DF and with another identification than the packet that caused them: ICMP errors, echo replies, outer headers of tunnels |
//! | IPv6 flow label | in packets from one of the director's own addresses, with another label than the packet that caused them: the kernel derives it from a secret |
//! | time in an IPv4 timestamp option (RFC 781), also in a packet that an ICMP error quotes | where the packet that caused the frame had no time yet |
//! | UDP source port | in datagrams from one of the director's own addresses that carry the packet that caused them: GUE, whose port the kernel derives from a secret |
//! | IPv6 fragment identification | in fragments: a kernel director has put the datagram together and cuts it anew |
//!
//! A checksum over a masked field only has to be right; GUE's has to be the same but for the port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::packet::checksum;

/// Bytes before the IP header.
const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
/// Bytes of the UDP and GUE headers.
const GUE_HEADERS: usize = 12;
const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
const DONT_FRAGMENT: u8 = 0x40;
/// Takes the place of a right checksum over masked fields.
const RIGHT: [u8; 2] = [0xff, 0xff];

/// Whether the kernel's frame and ours are equal but for what is masked.
#[must_use]
pub fn equal(kernel: &[u8], ours: &[u8], received: Option<&[u8]>, own: &dyn Fn(IpAddr) -> bool) -> bool {
    if kernel == ours {
        return true;
    }
    if kernel.len() != ours.len() {
        return false;
    }
    let free = Free::of(kernel, received, own);
    let mask = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        mask_times(&mut frame, received);
        if free.port {
            mask_source_port(&mut frame);
        }
        if free.identification {
            mask_identification(&mut frame);
        }
        if free.label {
            mask_label(&mut frame);
        }
        if let Some(fragment) = fragment(&frame).map(|place| ETHERNET + place) {
            frame[fragment + 4..fragment + 8].fill(0);
        }
        frame
    };
    mask(kernel) == mask(ours)
}

/// What the kernel was free to choose in a frame that it emitted.
#[derive(Debug, Clone, Copy, Default)]
struct Free {
    identification: bool,
    port: bool,
    label: bool,
}

impl Free {
    fn of(kernel: &[u8], received: Option<&[u8]>, own: &dyn Fn(IpAddr) -> bool) -> Self {
        let port = received.is_some_and(|received| carries(kernel, received));
        if let Some(header) = ipv4(kernel) {
            if !own(Ipv4Addr::new(header[12], header[13], header[14], header[15]).into()) {
                return Self::default();
            }
            // A tunnel's outer header may be cut into pieces, the inner one keeps what it had.
            let passed_on = received
                .and_then(ipv4)
                .is_some_and(|cause| cause[4..6] == header[4..6] && cause[9] == header[9]);
            let identification = header[6] & DONT_FRAGMENT == 0 && !passed_on;
            return Self { identification, port, label: false };
        }
        let Some(header) = ipv6(kernel) else { return Self::default() };
        let source: [u8; 16] = header[8..24].try_into().unwrap_or_default();
        if !own(Ipv6Addr::from(source).into()) {
            return Self::default();
        }
        let label = received.and_then(ipv6).is_none_or(|cause| label(cause) != label(header));
        Self { identification: false, port, label }
    }
}

/// Where an IPv6 packet's fragment header is, when it follows the fixed header.
fn fragment(frame: &[u8]) -> Option<usize> {
    let header = ipv6(frame)?;
    (header[6] == FRAGMENT && header.len() >= IPV6 + 8).then_some(IPV6)
}

/// Where the packet inside a tunnel's begins in its frame, and which protocol carries it.
fn inside(frame: &[u8]) -> Option<(usize, u8)> {
    let (next, after) = match (ipv4(frame), ipv6(frame)) {
        // A later piece says nothing about what is inside.
        (Some(header), _) if header[6] & 0x1f == 0 && header[7] == 0 => {
            (header[9], ETHERNET + usize::from(header[0] & 15) * 4)
        }
        (None, Some(header)) => match fragment(frame) {
            Some(place) if header[place + 2] == 0 && header[place + 3] & 0xf8 == 0 => {
                (header[place], ETHERNET + place + 8)
            }
            Some(_) => return None,
            None => (header[6], ETHERNET + IPV6),
        },
        _ => return None,
    };
    let own = match next {
        IPIP | IPV6_IN_IP => 0,
        UDP => GUE_HEADERS,
        GRE if frame.get(after)? & 0x80 != 0 => 8,
        GRE => 4,
        _ => return None,
    };
    Some((after + own, next))
}

/// Whether a frame is GUE around a packet from and to the addresses of the received one.
fn carries(frame: &[u8], received: &[u8]) -> bool {
    let Some((at, UDP)) = inside(frame) else { return false };
    let inner = frame.get(at..).unwrap_or_default();
    match (ipv4(received), ipv6(received)) {
        (Some(header), _) => {
            inner.first().is_some_and(|first| first >> 4 == 4) && inner.get(12..20) == header.get(12..20)
        }
        (None, Some(header)) => {
            inner.first().is_some_and(|first| first >> 4 == 6) && inner.get(8..40) == header.get(8..40)
        }
        _ => false,
    }
}

fn label(header: &[u8]) -> [u8; 3] {
    [header[1] & 0x0f, header[2], header[3]]
}

fn ipv6(frame: &[u8]) -> Option<&[u8]> {
    let header = frame.get(ETHERNET..)?;
    (header.len() >= IPV6 && header[0] >> 4 == 6).then_some(header)
}

fn mask_label(frame: &mut [u8]) {
    if let Some([_, second, third, fourth, ..]) = frame.get_mut(ETHERNET..) {
        *second &= 0xf0;
        (*third, *fourth) = (0, 0);
    }
}

fn ipv4(frame: &[u8]) -> Option<&[u8]> {
    let header = frame.get(ETHERNET..)?;
    (header.len() >= IPV4 && header[0] >> 4 == 4).then_some(header)
}

fn mask_identification(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(ETHERNET..).filter(|header| header.len() >= IPV4) else { return };
    let length = (usize::from(header[0] & 15) * 4).clamp(IPV4, header.len());
    if checksum::header_valid(&header[..length]) {
        header[10..12].copy_from_slice(&RIGHT);
    }
    header[4..6].fill(0);
}

/// The times that the director wrote, which begin where the received packet's option pointed: in the frame's own header, in that of
/// the packet inside a tunnel, in that of a packet quoted by an ICMP error.
fn mask_times(frame: &mut [u8], received: Option<&[u8]>) {
    const ICMP: u8 = 1;
    let Some(from) = received.and_then(ipv4).and_then(timestamp).map(|option| option.pointer) else { return };
    let (inner, icmp) = match ipv4(frame) {
        Some(header) if header[9] == ICMP => {
            let message = ETHERNET + usize::from(header[0] & 15) * 4;
            (Some(message + 8), Some(message))
        }
        _ => (inside(frame).map(|(at, _)| at), None),
    };
    let right = icmp.and_then(|at| frame.get(at..)).is_some_and(|message| checksum::sum(message) == 0xffff);
    for at in std::iter::once(ETHERNET).chain(inner) {
        if let Some(header) = frame.get_mut(at..) {
            mask_times_of(header, from);
        }
    }
    if let Some(field) = icmp.and_then(|at| frame.get_mut(at + 2..at + 4)).filter(|_| right) {
        field.copy_from_slice(&RIGHT);
    }
}

/// A timestamp option of a header.
#[derive(Debug, Clone, Copy)]
struct Timestamp {
    at: usize,
    length: usize,
    /// Counts from 1.
    pointer: usize,
    kind: u8,
}

fn timestamp(packet: &[u8]) -> Option<Timestamp> {
    const TIMESTAMP: u8 = 0x44;
    let length = (usize::from(packet[0] & 15) * 4).min(packet.len());
    let mut at = IPV4;
    while at + 4 <= length {
        match packet[at] {
            TIMESTAMP => {
                let [length, pointer] = [1, 2].map(|place| usize::from(packet[at + place]));
                return Some(Timestamp { at, length, pointer, kind: packet[at + 3] & 15 });
            }
            0 => return None,
            1 => at += 1,
            _ => at += usize::from(packet[at + 1]).max(2),
        }
    }
    None
}

fn mask_times_of(header: &mut [u8], from: usize) {
    if header.len() < IPV4 || header[0] >> 4 != 4 {
        return;
    }
    let Some(Timestamp { at, length, pointer: to, kind }) = timestamp(header) else { return };
    let slot = if kind == 0 { 4 } else { 8 };
    let end = (usize::from(header[0] & 15) * 4).min(header.len());
    let right = header.get(..end).is_some_and(checksum::header_valid);
    for place in (from.max(5) - 1..to.max(5) - 1).step_by(slot).filter(|place| place + slot <= length) {
        if let Some(time) = header.get_mut(at + place + slot - 4..at + place + slot) {
            time.fill(0);
        }
    }
    if right && to > from {
        header[10..12].copy_from_slice(&RIGHT);
    }
}

/// Takes the source port out of a datagram and of its checksum (RFC 1624), which a piece does not have all data for.
fn mask_source_port(frame: &mut [u8]) {
    let Some((at, UDP)) = inside(frame) else { return };
    let Some(datagram) = frame.get_mut(at - GUE_HEADERS..).filter(|datagram| datagram.len() >= 8) else {
        return;
    };
    let [port, sum] = [0, 6].map(|at| u16::from_be_bytes([datagram[at], datagram[at + 1]]));
    if sum != 0 {
        // 0 and 0xffff are the same number.
        let rest = match checksum::add(!sum, !port) {
            0 => 0xffff,
            rest => rest,
        };
        datagram[6..8].copy_from_slice(&(!rest).to_be_bytes());
    }
    datagram[..2].fill(0);
}

#[cfg(test)]
mod tests {
    use super::equal;
    use dataplane::bench::Frame;
    use proptest::prelude::*;
    use std::net::IpAddr;

    const OWN: &str = "10.0.0.100";

    fn own(address: IpAddr) -> bool {
        ["10.0.0.100", "2001:db8::100"].iter().any(|own| own.parse() == Ok(address))
    }

    fn frame(source: &str, id: u16, dont_fragment: bool) -> Frame {
        let source = format!("{source}:0").parse().unwrap();
        let mut frame = Frame::new(source, "10.1.0.5:0".parse().unwrap());
        (frame.id, frame.dont_fragment) = (id, dont_fragment);
        frame
    }

    fn icmp(source: &str, id: u16, dont_fragment: bool) -> Vec<u8> {
        frame(source, id, dont_fragment).ip(1, &[3, 3, 0xfc, 0xfc, 0, 0, 0, 0])
    }

    #[test]
    fn an_identification_is_free_only_where_the_kernel_chose_it() {
        let received = frame("10.1.0.5", 7, true).ip(6, &[0; 20]);
        let cause = Some(&received[..]);
        assert!(equal(&icmp(OWN, 5, false), &icmp(OWN, 6, false), cause, &own));
        // With DF the kernel writes 0; another's packet is passed on as it is.
        assert!(!equal(&icmp(OWN, 0, true), &icmp(OWN, 6, true), cause, &own));
        assert!(!equal(&icmp("10.1.1.1", 5, false), &icmp("10.1.1.1", 6, false), cause, &own));
        let passed_on = icmp("10.1.0.5", 7, false);
        assert!(!equal(&icmp(OWN, 7, false), &icmp(OWN, 6, false), Some(&passed_on), &own));
        // Whether it has DF is not masked.
        assert!(!equal(&icmp(OWN, 5, false), &icmp(OWN, 6, true), cause, &own));
    }

    #[test]
    fn a_flow_label_is_free_in_packets_made_here() {
        let packet = |source: &str, label: u8| {
            let ends = (format!("[{source}]:0").parse().unwrap(), "[2001:db8:1::5]:0".parse().unwrap());
            let mut frame = Frame::new(ends.0, ends.1).ip(58, &[1, 4, 0, 0, 0, 0, 0, 0]);
            frame[17] = label;
            frame
        };
        let received = packet("2001:db8:1::5", 0);
        assert!(equal(&packet("2001:db8::100", 1), &packet("2001:db8::100", 2), Some(&received), &own));
        assert!(!equal(&packet("2001:db8::100", 0), &packet("2001:db8::100", 2), Some(&received), &own));
        assert!(!equal(&packet("fd00::1", 1), &packet("fd00::1", 2), Some(&received), &own));
    }

    #[test]
    fn a_time_is_free_only_where_it_was_written() {
        let packet = |option: [u8; 12]| {
            let mut bytes = frame("10.1.0.5", 7, true).ip(6, &[0; 32]);
            bytes[14] = 0x48;
            bytes[34..46].copy_from_slice(&option);
            dataplane::packet::checksum::fill_header(&mut bytes[14..46]);
            bytes
        };
        let received = packet([0x44, 8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let written = |time: u8| packet([0x44, 8, 9, 0, 0, 0, 0, time, 0, 0, 0, 0]);
        assert!(equal(&written(1), &written(2), Some(&received), &own));
        assert!(!equal(&written(1), &received, Some(&received), &own));
        let full = written(1);
        assert!(!equal(&written(1), &written(2), Some(&full), &own));
    }

    #[test]
    fn checksums_over_masked_fields_must_be_right() {
        let mut wrong = icmp(OWN, 6, false);
        wrong[24] ^= 1;
        assert!(!equal(&icmp(OWN, 5, false), &wrong, None, &own));
        let received = frame("10.1.0.5", 7, true).udp();
        let datagram = |port: u16| {
            let ends = (format!("{OWN}:{port}").parse().unwrap(), "172.16.5.2:6080".parse().unwrap());
            let mut frame = Frame::new(ends.0, ends.1);
            frame.payload = [&[0, 4, 0, 0][..], &received[14..]].concat();
            frame.udp()
        };
        let cause = Some(&received[..]);
        assert!(equal(&datagram(1), &datagram(2), cause, &own));
        assert!(!equal(&datagram(1), &datagram(2), None, &own), "not known to carry anything");
        let mut wrong = datagram(2);
        wrong[41] ^= 1;
        assert!(!equal(&datagram(1), &wrong, cause, &own));
        let mut none = datagram(2);
        none[40..42].fill(0);
        assert!(!equal(&datagram(1), &none, cause, &own));
        let first_piece = |port: u16| {
            let mut piece = datagram(port)[..60].to_vec();
            piece[20] |= 0x20;
            piece
        };
        assert!(!equal(&first_piece(1), &first_piece(2), cause, &own), "too short to tell");
        let answer = |port: u16| {
            let ends = (format!("{OWN}:{port}").parse().unwrap(), "10.1.0.5:9".parse().unwrap());
            Frame::new(ends.0, ends.1).udp()
        };
        assert!(!equal(&answer(1), &answer(2), cause, &own), "a masqueraded server's");
    }

    #[test]
    fn a_time_inside_a_tunnel_is_free() {
        let timed = |option: [u8; 12]| {
            let mut bytes = frame("10.1.0.5", 7, true).ip(6, &[0; 32]);
            bytes[14] = 0x48;
            bytes[34..46].copy_from_slice(&option);
            dataplane::packet::checksum::fill_header(&mut bytes[14..46]);
            bytes
        };
        let received = timed([0x44, 8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for (next, head) in [(4, &[][..]), (47, &[0, 0, 8, 0]), (47, &[0x80, 0, 8, 0, 1, 2, 0, 0])] {
            let outer = |time: u8| {
                let inner = timed([0x44, 8, 9, 0, 0, 0, 0, time, 0, 0, 0, 0]);
                frame("192.168.10.1", 0, true).ip(next, &[head, &inner[14..]].concat())
            };
            assert!(equal(&outer(1), &outer(2), Some(&received), &own), "{next}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_elsewhere_is_seen(place in 0_usize..42, bit in 0_u8..8) {
            let kernel = icmp(OWN, 5, false);
            let mut ours = icmp(OWN, 5, false);
            ours[place] ^= 1 << bit;
            // The header's checksum no longer fits, so that even an identification shows.
            prop_assert!(!equal(&kernel, &ours, None, &own));
        }

        #[test]
        fn any_bytes_are_compared(kernel in prop::collection::vec(any::<u8>(), 0..80), ours in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = equal(&kernel, &ours, Some(&ours), &own);
        }
    }
}
