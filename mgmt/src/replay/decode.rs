//! Frames as named fields, for people.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::trace::to_hex;

/// Bytes of a payload that are shown.
const PAYLOAD_SHOWN: usize = 16;
/// Headers inside headers that are followed.
const DEPTH: usize = 4;

/// A field of a frame: where it is, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Field {
    /// Such as `ip.ttl`, or `icmp.ip.ttl` in a quoted packet.
    pub name: String,
    /// As people write it.
    pub value: String,
}

/// The fields of an Ethernet frame.
#[must_use]
pub fn frame(bytes: &[u8]) -> Vec<Field> {
    let mut fields = Fields { prefix: String::new(), list: Vec::new() };
    let Some((header, rest)) = bytes.split_at_checked(14) else {
        fields.payload(bytes);
        return fields.list;
    };
    fields.add("eth.dst", mac(&header[..6]));
    fields.add("eth.src", mac(&header[6..12]));
    fields.ip(rest, 0);
    fields.list
}

/// One line about a frame.
#[must_use]
pub fn summary(bytes: &[u8]) -> String {
    let fields = frame(bytes);
    let kept = |field: &&Field| {
        !field.name.ends_with("checksum") && !field.name.starts_with("eth.src") && field.name != "payload"
    };
    let shown: Vec<String> =
        fields.iter().filter(kept).map(|field| format!("{} {}", field.name, field.value)).collect();
    shown.join(", ")
}

struct Fields {
    prefix: String,
    list: Vec<Field>,
}

impl Fields {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts made on the spot")]
    fn add(&mut self, name: &str, value: impl ToString) {
        self.list.push(Field { name: format!("{}{name}", self.prefix), value: value.to_string() });
    }

    fn payload(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let shown = &bytes[..bytes.len().min(PAYLOAD_SHOWN)];
        let more = if bytes.len() > PAYLOAD_SHOWN { "…" } else { "" };
        // The sum tells payloads apart that begin alike.
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
        self.add("payload", format!("{} bytes {}{more} ({sum:08x})", bytes.len(), to_hex(shown)));
    }

    /// What comes behind the header `name`.
    fn inside(&mut self, name: &str, bytes: &[u8], depth: usize) {
        if depth >= DEPTH {
            return self.payload(bytes);
        }
        let before = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        self.ip(bytes, depth + 1);
        self.prefix.truncate(before);
    }

    fn ip(&mut self, bytes: &[u8], depth: usize) {
        match bytes.first().map(|first| first >> 4) {
            Some(4) if bytes.len() >= 20 => self.v4(bytes, depth),
            Some(6) if bytes.len() >= 40 => self.v6(bytes, depth),
            _ => self.payload(bytes),
        }
    }

    fn v4(&mut self, bytes: &[u8], depth: usize) {
        let header = (usize::from(bytes[0] & 15) * 4).clamp(20, bytes.len());
        let fragment = word(bytes, 6);
        self.add("ip.src", Ipv4Addr::from([bytes[12], bytes[13], bytes[14], bytes[15]]));
        self.add("ip.dst", Ipv4Addr::from([bytes[16], bytes[17], bytes[18], bytes[19]]));
        self.add("ip.protocol", bytes[9]);
        self.add("ip.ttl", bytes[8]);
        self.add("ip.tos", bytes[1]);
        self.add("ip.length", word(bytes, 2));
        self.add("ip.id", word(bytes, 4));
        let flags = [(0x8000, "evil"), (0x4000, "DF"), (0x2000, "MF")];
        let set: Vec<_> =
            flags.iter().filter(|(bit, _)| fragment & bit != 0).map(|(_, name)| *name).collect();
        self.add("ip.flags", set.join(" "));
        self.add("ip.offset", (fragment & 0x1fff) * 8);
        if header > 20 {
            self.add("ip.options", to_hex(&bytes[20..header]));
        }
        self.add("ip.checksum", format!("{:04x}", word(bytes, 10)));
        if fragment & 0x1fff != 0 {
            return self.payload(&bytes[header..]);
        }
        self.transport(bytes[9], &bytes[header..], depth);
    }

    fn v6(&mut self, bytes: &[u8], depth: usize) {
        let address = |at: usize| {
            let octets: [u8; 16] = bytes[at..at + 16].try_into().unwrap_or_default();
            Ipv6Addr::from(octets)
        };
        self.add("ip.src", address(8));
        self.add("ip.dst", address(24));
        self.add("ip.next", bytes[6]);
        self.add("ip.hops", bytes[7]);
        self.add("ip.class", u16::from(bytes[0] & 15) << 4 | u16::from(bytes[1] >> 4));
        self.add("ip.label", u32::from(bytes[1] & 15) << 16 | u32::from(word(bytes, 2)));
        self.add("ip.length", word(bytes, 4));
        self.transport(bytes[6], &bytes[40..], depth);
    }

    fn transport(&mut self, protocol: u8, bytes: &[u8], depth: usize) {
        match protocol {
            6 if bytes.len() >= 8 => self.tcp(bytes),
            17 if bytes.len() >= 8 => self.udp(bytes, depth),
            132 if bytes.len() >= 12 => self.sctp(bytes),
            1 | 58 if bytes.len() >= 8 => self.icmp(protocol, bytes, depth),
            4 | 41 => self.inside("tunnel", bytes, depth),
            47 if bytes.len() >= 4 => {
                let header = if bytes[0] & 0x80 == 0 { 4 } else { 8 }.min(bytes.len());
                self.add("gre.header", to_hex(&bytes[..header]));
                self.inside("gre", &bytes[header..], depth);
            }
            _ => self.payload(bytes),
        }
    }

    fn tcp(&mut self, bytes: &[u8]) {
        self.add("tcp.src", word(bytes, 0));
        self.add("tcp.dst", word(bytes, 2));
        self.add("tcp.seq", u32::from(word(bytes, 4)) << 16 | u32::from(word(bytes, 6)));
        // A quoted header may end anywhere from here on.
        if bytes.len() < 20 {
            return self.payload(&bytes[8..]);
        }
        let header = (usize::from(bytes[12] >> 4) * 4).clamp(20, bytes.len());
        self.add("tcp.ack", u32::from(word(bytes, 8)) << 16 | u32::from(word(bytes, 10)));
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set: Vec<_> = (0..8).filter(|bit| bytes[13] >> bit & 1 != 0).map(|bit| names[bit]).collect();
        self.add("tcp.flags", set.join(" "));
        self.add("tcp.window", word(bytes, 14));
        self.add("tcp.checksum", format!("{:04x}", word(bytes, 16)));
        self.add("tcp.urgent", word(bytes, 18));
        if header > 20 {
            self.add("tcp.options", to_hex(&bytes[20..header]));
        }
        self.payload(&bytes[header..]);
    }

    fn udp(&mut self, bytes: &[u8], depth: usize) {
        self.add("udp.src", word(bytes, 0));
        self.add("udp.dst", word(bytes, 2));
        self.add("udp.length", word(bytes, 4));
        self.add("udp.checksum", format!("{:04x}", word(bytes, 6)));
        let rest = &bytes[8..];
        match generic_encapsulation(rest) {
            Some(header) => {
                self.add("gue.header", to_hex(&rest[..header]));
                self.inside("gue", &rest[header..], depth);
            }
            None => self.payload(rest),
        }
    }

    fn sctp(&mut self, bytes: &[u8]) {
        self.add("sctp.src", word(bytes, 0));
        self.add("sctp.dst", word(bytes, 2));
        self.add("sctp.tag", to_hex(&bytes[4..8]));
        self.add("sctp.checksum", to_hex(&bytes[8..12]));
        if let Some(chunk) = bytes.get(12) {
            self.add("sctp.chunk", chunk);
        }
        self.payload(&bytes[12..]);
    }

    fn icmp(&mut self, protocol: u8, bytes: &[u8], depth: usize) {
        self.add("icmp.type", bytes[0]);
        self.add("icmp.code", bytes[1]);
        self.add("icmp.checksum", format!("{:04x}", word(bytes, 2)));
        self.add("icmp.rest", format!("{:04x} {:04x}", word(bytes, 4), word(bytes, 6)));
        let error = if protocol == 1 { matches!(bytes[0], 3 | 4 | 5 | 11 | 12) } else { bytes[0] < 128 };
        if error { self.inside("quoted", &bytes[8..], depth) } else { self.payload(&bytes[8..]) }
    }
}

/// The length of a GUE header (draft-ietf-intarea-gue) with an IP packet behind it.
fn generic_encapsulation(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let header = 4 + usize::from(first & 31) * 4;
    let inner = bytes.get(header)? >> 4;
    (first & 0xe0 == 0 && matches!((bytes[1], inner), (4, 4) | (41, 6))).then_some(header)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Two frames side by side: every field's name with both values.
#[must_use]
pub fn side_by_side(kernel: &[u8], ours: &[u8]) -> Vec<(String, Option<String>, Option<String>)> {
    let (kernel, mut ours) = (frame(kernel), frame(ours));
    let mut rows = Vec::new();
    for field in kernel {
        let place = ours.iter().position(|own| own.name == field.name);
        let own = place.map(|place| ours.remove(place).value);
        rows.push((field.name, Some(field.value), own));
    }
    rows.extend(ours.into_iter().map(|field| (field.name, None, Some(field.value))));
    rows
}

#[cfg(test)]
mod tests {
    use super::{frame, side_by_side, summary};
    use proptest::prelude::*;

    fn value(fields: &[super::Field], name: &str) -> String {
        fields.iter().find(|field| field.name == name).map(|field| field.value.clone()).unwrap_or_default()
    }

    /// Ethernet, IPv4 and what follows, as short as they may be.
    fn packet(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0x0c, 1, 8, 0];
        bytes.extend([0x45, 0, 0, 40, 0, 7, 0x40, 0, 63, protocol, 0, 0, 10, 1, 0, 5, 10, 0, 0, 100]);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn layers_are_followed() {
        let tcp = [4, 0, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0];
        let plain = packet(6, &tcp);
        let fields = frame(&plain);
        assert_eq!(value(&fields, "ip.ttl"), "63");
        assert_eq!(value(&fields, "tcp.flags"), "SYN");
        let tunnelled = packet(4, &plain[14..]);
        assert_eq!(value(&frame(&tunnelled), "tunnel.tcp.seq"), "1000");
        let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
        error.extend(&plain[14..42]);
        let quoting = frame(&packet(1, &error));
        assert_eq!(value(&quoting, "icmp.rest"), "0000 0578");
        assert_eq!(value(&quoting, "quoted.tcp.dst"), "80");
        assert!(summary(&plain).contains("tcp.dst 80"));
        let init = frame(&packet(132, &[4, 0, 0, 80, 0, 0, 0, 9, 1, 2, 3, 4, 1, 0, 0, 4]));
        assert_eq!((value(&init, "sctp.dst"), value(&init, "sctp.chunk")), ("80".to_owned(), "1".to_owned()));
    }

    #[test]
    fn differing_fields_face_each_other() {
        let one = packet(17, &[0, 1, 0, 2, 0, 8, 0, 0]);
        let mut other = one.clone();
        other[22] = 62;
        let rows = side_by_side(&one, &other);
        let differing: Vec<_> = rows.iter().filter(|(_, kernel, ours)| kernel != ours).collect();
        assert_eq!(differing, [&("ip.ttl".to_owned(), Some("63".to_owned()), Some("62".to_owned()))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded(bytes in prop::collection::vec(any::<u8>(), 0..200), first in 0u8..=255) {
            let _ = frame(&bytes);
            let mut packet = packet(first, &bytes);
            packet[20] = 0;
            let _ = frame(&packet);
        }
    }
}
