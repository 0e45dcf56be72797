//! What the recorded kernel chose freely, taken out of two frames before they are compared.
//!
//! | masked | where |
//! | --- | --- |
//! | IPv4 identification | in frames from one of the director's own addresses, without DF and with another identification than the packet that caused them: ICMP errors, echo replies, outer headers of tunnels |
//! | IPv6 flow label | in packets from one of the director's own addresses, with another label than the packet that caused them: the kernel derives it from a secret |
//! | time in an IPv4 timestamp option (RFC 781), also in a packet that an ICMP error quotes | where the packet that caused the frame had no time yet |
//! | UDP source port | in datagrams from one of the director's own addresses that are no answer to one to that port: GUE, whose port the kernel derives from a secret |
//!
//! A checksum over a masked field only has to be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::packet::checksum;

/// Bytes before the IP header.
const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
const UDP: u8 = 17;
const IPIP: u8 = 4;
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
        let answer = protocol(received.unwrap_or_default()) == Some(UDP);
        if let Some(header) = ipv4(kernel) {
            if !own(Ipv4Addr::new(header[12], header[13], header[14], header[15]).into()) {
                return Self::default();
            }
            // A tunnel's outer header may be cut into pieces, the inner one keeps what it had.
            let passed_on = received
                .and_then(ipv4)
                .is_some_and(|cause| cause[4..6] == header[4..6] && cause[9] == header[9]);
            let whole = header[6] & 0x1f == 0 && header[7] == 0;
            let identification = header[6] & DONT_FRAGMENT == 0 && !passed_on;
            return Self {
                identification,
                port: header[9] == UDP && whole && !passed_on && !answer,
                label: false,
            };
        }
        let Some(header) = ipv6(kernel) else { return Self::default() };
        let source: [u8; 16] = header[8..24].try_into().unwrap_or_default();
        if !own(Ipv6Addr::from(source).into()) {
            return Self::default();
        }
        let label = received.and_then(ipv6).is_none_or(|cause| label(cause) != label(header));
        Self { identification: false, port: header[6] == UDP && !answer, label }
    }
}

/// The transport protocol of a frame.
fn protocol(frame: &[u8]) -> Option<u8> {
    ipv4(frame).map(|header| header[9]).or_else(|| ipv6(frame).map(|header| header[6]))
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
        Some(header) if header[9] == IPIP => (Some(ETHERNET + IPV4), None),
        Some(header) if header[9] == ICMP => {
            let message = ETHERNET + usize::from(header[0] & 15) * 4;
            (Some(message + 8), Some(message))
        }
        _ => (None, None),
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

fn mask_source_port(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(ETHERNET..).filter(|header| header.len() >= IPV4) else { return };
    let (datagram, pseudo) = match header[0] >> 4 {
        4 => {
            let length = (usize::from(header[0] & 15) * 4).clamp(IPV4, header.len());
            let address =
                |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
            let bytes = u16::try_from(header.len() - length).unwrap_or(u16::MAX);
            (length, checksum::pseudo_v4(address(12), address(16), UDP, bytes))
        }
        _ if header.len() >= IPV6 => {
            let address = |at: usize| {
                let octets: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
                Ipv6Addr::from(octets)
            };
            let bytes = u32::try_from(header.len() - IPV6).unwrap_or(u32::MAX);
            (IPV6, checksum::pseudo_v6(address(8), address(24), UDP, bytes))
        }
        _ => return,
    };
    let datagram = &mut header[datagram..];
    if datagram.len() < 8 {
        return;
    }
    if datagram[6..8] != [0, 0] && checksum::add(pseudo, checksum::sum(datagram)) == 0xffff {
        datagram[6..8].copy_from_slice(&RIGHT);
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
        let datagram = |port: u16| {
            let ends = (format!("{OWN}:{port}").parse().unwrap(), "172.16.5.2:6080".parse().unwrap());
            let mut frame = Frame::new(ends.0, ends.1);
            frame.payload = vec![1, 2, 3];
            frame.udp()
        };
        assert!(equal(&datagram(1), &datagram(2), None, &own));
        let mut wrong = datagram(2);
        wrong[41] ^= 1;
        assert!(!equal(&datagram(1), &wrong, None, &own));
        let mut none = datagram(2);
        none[40..42].fill(0);
        assert!(!equal(&datagram(1), &none, None, &own));
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
