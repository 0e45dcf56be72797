//! Frames of flows: a copy of a template and a few words each.

use super::{CLASSES, Client, DIRECTOR_MAC, FrameLength, GATEWAY_MAC, Protocol, Segment, Shape};
use dataplane::packet::checksum;
use std::net::{IpAddr, SocketAddr};

/// Who sends frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Clients, to the virtual services.
    Clients,
    /// Masqueraded servers, to the clients; by way of a port of this MAC address.
    Servers([u8; 6]),
}

/// A frame whose words are zero, and its sums, so that any flow's frame is a copy and a few stores. There is one for all services: what
/// makes frames must not take the more of the caches the more services there are.
#[derive(Debug, Clone)]
struct Template {
    frame: Vec<u8>,
    /// One's complement sum of the IPv4 header.
    network_sum: u64,
    /// The same of pseudo header and segment.
    transport_sum: u64,
}

/// Where the words of a flow are in a frame.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// Last two bytes of the client's address.
    client: usize,
    /// Its port.
    client_port: usize,
    /// The service's port.
    service_port: usize,
    /// Last two bytes of the server's address.
    server: usize,
    /// Transport checksum.
    checksum: usize,
}

/// Makes frames.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    /// By length.
    templates: Vec<Template>,
    classes: usize,
    shape: Shape,
    places: Places,
    replies: bool,
}

impl Frames {
    /// Of flows of this shape; `segment` matters for TCP only. On their way they may grow by `overhead` bytes.
    pub(crate) fn new(shape: &Shape, sender: Sender, segment: Segment, overhead: usize) -> Self {
        let lengths = shape.frame.classes(shape.headers(), overhead);
        let templates = lengths.iter().map(|length| template(shape, sender, segment, *length));
        let replies = sender != Sender::Clients;
        let addresses = if shape.ipv6 { [36, 52] } else { [28, 32] };
        let [source, destination] = addresses;
        let transport = shape.transport_at();
        Self {
            templates: templates.collect(),
            classes: lengths.len(),
            shape: *shape,
            places: Places {
                client: if replies { destination } else { source },
                client_port: if replies { transport + 2 } else { transport },
                service_port: if replies { transport } else { transport + 2 },
                server: source,
                checksum: transport + shape.protocol.checksum_offset(),
            },
            replies,
        }
    }

    /// The same to a director's port of another MAC address.
    pub(crate) fn addressed_to(mut self, mac: [u8; 6]) -> Self {
        for template in &mut self.templates {
            template.frame[..6].copy_from_slice(&mac);
        }
        self
    }

    /// Requests of 64 bytes or little more, as engines in memory are given them.
    pub(crate) fn short(shape: &Shape, sender: Sender, segment: Segment) -> Self {
        debug_assert!(matches!(shape.frame, FrameLength::Fixed(_)));
        Self::new(shape, sender, segment, 0)
    }

    /// Length of the longest frame in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.templates.iter().take(CLASSES).map(|template| template.frame.len()).max().unwrap_or(0)
    }

    /// Writes a flow's frame to the front of `out`, which has room for it; returns its length. `server` is the number of the server
    /// that sends it, or anything where clients do.
    #[inline(always)]
    pub(crate) fn write(&self, flow: u64, server: u16, out: &mut [u8]) -> usize {
        let class = if self.classes == 1 { 0 } else { self.shape.frame.class_of(flow) };
        let template = &self.templates[class];
        let service_port = Shape::service_port(self.shape.service_of(flow));
        let client = Client::of(flow);
        let places = self.places;
        let out = &mut out[..template.frame.len()];
        out.copy_from_slice(&template.frame);
        let mut words = u64::from(client.host);
        if self.replies {
            let server = Shape::server_word(server);
            words += u64::from(server);
            put(out, places.server, server);
        }
        if !self.shape.ipv6 {
            put(out, 24, !checksum::fold(template.network_sum + words));
        }
        put(out, places.client, client.host);
        put(out, places.client_port, client.port);
        put(out, places.service_port, service_port);
        let ports = u64::from(client.port) + u64::from(service_port);
        // A sum of 0xffff would be written as 0, which over UDP means "none".
        let sum = match !checksum::fold(template.transport_sum + words + ports) {
            0 => 0xffff,
            sum => sum,
        };
        put(out, places.checksum, sum);
        template.frame.len()
    }
}

#[inline(always)]
fn put(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// One's complement sum of 16-bit words, with room for carries.
fn sum(words: &[u8]) -> u64 {
    checksum::sum(words).into()
}

fn template(shape: &Shape, sender: Sender, segment: Segment, length: usize) -> Template {
    let client = Client { host: 0, port: 0 }.end(shape.ipv6);
    let service = (shape.virtual_address(), 0).into();
    let (macs, source, destination): (_, SocketAddr, SocketAddr) = match sender {
        Sender::Clients => ([DIRECTOR_MAC, GATEWAY_MAC], client, service),
        Sender::Servers(mac) => {
            let server = (shape.servers_network(), 0).into();
            ([mac, Shape::SERVERS_MAC], server, client)
        }
    };
    let ip_length = length - 14;
    let segment_length = ip_length - shape.network();
    let mut frame = Vec::with_capacity(length);
    frame.extend(macs.concat());
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(word(ip_length));
            frame.extend([0, 0, 0x40, 0, 64, shape.protocol.number(), 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(word(segment_length));
            frame.extend([shape.protocol.number(), 64]);
            frame.extend(octets_v6(source));
            frame.extend(octets_v6(destination));
        }
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    match shape.protocol {
        Protocol::Udp => {
            frame.extend(word(segment_length));
            frame.extend([0, 0]);
        }
        Protocol::Tcp => {
            frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, segment.flags(), 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    frame.resize(length, 0);
    let addresses = if shape.ipv6 { 22..54 } else { 26..34 };
    let pseudo = sum(&frame[addresses]) + u64::from(shape.protocol.number()) + segment_length as u64;
    Template {
        network_sum: if shape.ipv6 { 0 } else { sum(&frame[14..34]) },
        transport_sum: pseudo + sum(&frame[shape.transport_at()..]),
        frame,
    }
}

fn word(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    const LENGTHS: [FrameLength; 2] = [FrameLength::Fixed(100), FrameLength::Imix];

    /// Parses and checks a frame by other people's code; returns both ends.
    fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let payload = headers.payload.slice();
        let transport = headers.transport.unwrap();
        let (source, destination, sum) = match headers.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!(usize::from(ip.total_len), frame.len() - 14);
                let sum = match &transport {
                    TransportHeader::Udp(udp) => udp.calc_checksum_ipv4(&ip, payload).unwrap(),
                    TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv4(&ip, payload).unwrap(),
                    _ => panic!("neither UDP nor TCP"),
                };
                (IpAddr::from(ip.source), IpAddr::from(ip.destination), sum)
            }
            NetHeaders::Ipv6(ip, _) => {
                let sum = match &transport {
                    TransportHeader::Udp(udp) => udp.calc_checksum_ipv6(&ip, payload).unwrap(),
                    TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
                    _ => panic!("neither UDP nor TCP"),
                };
                (IpAddr::from(ip.source), IpAddr::from(ip.destination), sum)
            }
            other => panic!("{other:?}"),
        };
        let (from, to, found) = match transport {
            TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port, udp.checksum),
            TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port, tcp.checksum),
            _ => unreachable!(),
        };
        assert_eq!(sum, found);
        (SocketAddr::new(source, from), SocketAddr::new(destination, to))
    }

    #[test]
    fn frames_of_clients_and_servers_are_whole_and_correct() {
        for (protocol, ipv6) in
            [(Protocol::Udp, false), (Protocol::Tcp, false), (Protocol::Udp, true), (Protocol::Tcp, true)]
        {
            for frame in LENGTHS {
                let shape = Shape { protocol, ipv6, services: 3, destinations: 5, frame, flows: 1 << 20 };
                shape.check().unwrap();
                let requests = Frames::new(&shape, Sender::Clients, Segment::Ack, 0);
                let replies = Frames::new(&shape, Sender::Servers([6; 6]), Segment::Ack, 0);
                for flow in [0, 1, 2, 6, 255, 65_535, 65_536, 1_048_575] {
                    let service = shape.service(u32::try_from(flow % 3).unwrap());
                    let client = Client::of(flow).end(ipv6);
                    let mut out = vec![0xff; 1514];
                    let length = requests.write(flow, 9, &mut out);
                    assert_eq!(ends(&out[..length]), (client, service));
                    assert_eq!(out[..6], DIRECTOR_MAC);
                    assert_eq!(length, frame.classes(shape.headers(), 0)[frame.class_of(flow)]);
                    let length = replies.write(flow, 4, &mut out);
                    let server = SocketAddr::new(shape.server(4).0, service.port());
                    assert_eq!(ends(&out[..length]), (server, client));
                    assert_eq!(out[..6], [6; 6]);
                }
            }
        }
    }
}
