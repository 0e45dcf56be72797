//! Flows of many clients to a few virtual services, and their frames: the same for the pcap files and for the engine.
//!
//! Addresses are those reserved for benchmarks: 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180).

use anyhow::{Result, bail};
use clap::ValueEnum;
use dataplane::packet::checksum;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A director's port on the pcap vdev has this MAC address, always.
pub(crate) const DIRECTOR_MAC: [u8; 6] = [0x02, 0x70, 0x63, 0x61, 0x70, 0x00];
/// Whoever sends the clients' packets.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x12, 0x01];

/// Bits of a flow's number that name the client; the others choose its port.
const CLIENT_BITS: u32 = 16;
/// First port of a client.
const FIRST_CLIENT_PORT: u16 = 1024;
/// First port of the virtual services.
const FIRST_SERVICE_PORT: u16 = 1024;
/// Most flows: every client with every port.
const MOST_FLOWS: u64 = (1 << CLIENT_BITS) * (u16::MAX - FIRST_CLIENT_PORT) as u64;

/// Transport protocol of the flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// UDP datagrams.
    Udp,
    /// TCP segments.
    Tcp,
}

impl Protocol {
    /// As configurations and results write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// IP protocol number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Udp => dataplane::flow::protocol::UDP,
            Self::Tcp => dataplane::flow::protocol::TCP,
        }
    }

    const fn header(self) -> usize {
        match self {
            Self::Udp => 8,
            Self::Tcp => 20,
        }
    }

    const fn checksum_offset(self) -> usize {
        match self {
            Self::Udp => 6,
            Self::Tcp => 16,
        }
    }
}

/// TCP flags that a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Opens a connection.
    Syn,
    /// Of an established connection.
    Ack,
}

/// What all flows have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Transport.
    pub(crate) protocol: Protocol,
    /// IPv6 instead of IPv4.
    pub(crate) ipv6: bool,
    /// Virtual services that the flows go to in turn.
    pub(crate) services: u32,
    /// Length of a frame in bytes, without the frame check sequence.
    pub(crate) frame: usize,
    /// Number of flows.
    pub(crate) flows: u64,
}

impl Shape {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<()> {
        let least = self.headers();
        if self.frame < least {
            let (protocol, family) = (self.protocol.name(), if self.ipv6 { "IPv6" } else { "IPv4" });
            bail!(
                "a frame of {} bytes has no room for {protocol} over {family}: give --frame {least} or more",
                self.frame
            );
        }
        if self.flows == 0 || self.flows > MOST_FLOWS {
            bail!("{} flows are not in the range 1 to {MOST_FLOWS}", self.flows);
        }
        if self.services == 0 || self.services > u32::from(u16::MAX - FIRST_SERVICE_PORT) {
            bail!("{} services are not in the range 1 to {}", self.services, u16::MAX - FIRST_SERVICE_PORT);
        }
        Ok(())
    }

    const fn network(&self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    const fn transport_at(&self) -> usize {
        14 + self.network()
    }

    const fn headers(&self) -> usize {
        self.transport_at() + self.protocol.header()
    }

    /// The virtual address of all services.
    pub(crate) const fn virtual_address(&self) -> IpAddr {
        if self.ipv6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0xfffe))
        } else {
            IpAddr::V4(Ipv4Addr::new(198, 18, 255, 254))
        }
    }

    /// The director's own address, with the prefix length of its network.
    pub(crate) const fn director(&self) -> (IpAddr, u8) {
        if self.ipv6 {
            (IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0xfffd)), 64)
        } else {
            (IpAddr::V4(Ipv4Addr::new(198, 18, 255, 253)), 16)
        }
    }

    /// A virtual service.
    pub(crate) fn service(&self, index: u32) -> SocketAddr {
        let port = u16::try_from(index).map_or(u16::MAX, |index| FIRST_SERVICE_PORT.saturating_add(index));
        SocketAddr::new(self.virtual_address(), port)
    }

    /// Which service a flow goes to.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "less than the 32-bit number of services")]
    pub(crate) const fn service_of(&self, flow: u64) -> u32 {
        if self.services == 1 { 0 } else { (flow % self.services as u64) as u32 }
    }

    /// A real server in the director's network; at most 65,000.
    pub(crate) fn server(&self, index: u16) -> (IpAddr, [u8; 6]) {
        let [high, low] = (index + 1).to_be_bytes();
        let address = if self.ipv6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 1, index + 1))
        } else {
            IpAddr::V4(Ipv4Addr::new(198, 18, high, low))
        };
        (address, [0x02, 0, 0, 0x01, high, low])
    }
}

/// Words that a flow's number stands for: the client's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// Last 16 bits of the address.
    pub(crate) host: u16,
    /// Port.
    pub(crate) port: u16,
}

impl Client {
    /// Of a flow. Different numbers below the most flows there can be have different clients.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits are taken apart")]
    pub(crate) const fn of(flow: u64) -> Self {
        Self { host: flow as u16, port: FIRST_CLIENT_PORT + (flow >> CLIENT_BITS) as u16 }
    }

    /// Its address and port as the director will see them.
    pub(crate) const fn end(self, ipv6: bool) -> SocketAddr {
        let [high, low] = self.host.to_be_bytes();
        let address = if ipv6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, self.host))
        } else {
            IpAddr::V4(Ipv4Addr::new(198, 19, high, low))
        };
        SocketAddr::new(address, self.port)
    }
}

/// A service's frame for a client whose words are zero, and its sums, so that any client's frame is a copy and four stores.
#[derive(Debug, Clone)]
struct Template {
    frame: Vec<u8>,
    /// One's complement sum of the IPv4 header.
    network_sum: u64,
    /// The same of pseudo header and segment.
    transport_sum: u64,
}

/// Makes frames.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    templates: Vec<Template>,
    shape: Shape,
    /// Where the client's last two bytes of address are.
    host_at: usize,
    transport_at: usize,
    checksum_at: usize,
}

impl Frames {
    /// Of flows of this shape; `segment` matters for TCP only.
    pub(crate) fn new(shape: &Shape, segment: Segment) -> Self {
        let transport_at = shape.transport_at();
        Self {
            templates: (0..shape.services).map(|service| template(shape, service, segment)).collect(),
            shape: *shape,
            host_at: if shape.ipv6 { 14 + 8 + 14 } else { 14 + 12 + 2 },
            transport_at,
            checksum_at: transport_at + shape.protocol.checksum_offset(),
        }
    }

    /// Length of every frame in bytes.
    pub(crate) fn length(&self) -> usize {
        self.templates.first().map_or(0, |template| template.frame.len())
    }

    /// Writes a flow's frame to the front of `out`, which has room for it.
    #[inline(always)]
    pub(crate) fn write(&self, flow: u64, out: &mut [u8]) {
        let template = &self.templates[self.shape.service_of(flow) as usize];
        let client = Client::of(flow);
        let out = &mut out[..template.frame.len()];
        out.copy_from_slice(&template.frame);
        let words = u64::from(client.host);
        if !self.shape.ipv6 {
            put(out, 24, !checksum::fold(template.network_sum + words));
        }
        put(out, self.host_at, client.host);
        put(out, self.transport_at, client.port);
        // A sum of 0xffff would be written as 0, which over UDP means "none".
        let sum = match !checksum::fold(template.transport_sum + words + u64::from(client.port)) {
            0 => 0xffff,
            sum => sum,
        };
        put(out, self.checksum_at, sum);
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

fn template(shape: &Shape, service: u32, segment: Segment) -> Template {
    let client = Client { host: 0, port: 0 }.end(shape.ipv6);
    let service = shape.service(service);
    let ip_length = shape.frame - 14;
    let segment_length = ip_length - shape.network();
    let mut frame = Vec::with_capacity(shape.frame);
    frame.extend(DIRECTOR_MAC);
    frame.extend(GATEWAY_MAC);
    match (client.ip(), service.ip()) {
        (IpAddr::V4(client), IpAddr::V4(service)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(word(ip_length));
            frame.extend([0, 0, 0x40, 0, 64, shape.protocol.number(), 0, 0]);
            frame.extend(client.octets());
            frame.extend(service.octets());
        }
        (client, service) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(word(segment_length));
            frame.extend([shape.protocol.number(), 64]);
            frame.extend(octets_v6(client));
            frame.extend(octets_v6(service));
        }
    }
    frame.extend([0, 0]);
    frame.extend(service.port().to_be_bytes());
    match shape.protocol {
        Protocol::Udp => {
            frame.extend(word(segment_length));
            frame.extend([0, 0]);
        }
        Protocol::Tcp => {
            let flags = match segment {
                Segment::Syn => 0x02,
                Segment::Ack => 0x10,
            };
            frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    frame.resize(shape.frame, 0);
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
    use std::collections::HashSet;

    fn shape(protocol: Protocol, ipv6: bool, frame: usize) -> Shape {
        Shape { protocol, ipv6, services: 3, frame, flows: 1 << 20 }
    }

    /// Parses and checks a frame by other people's code; returns both ends.
    fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let payload = headers.payload.slice();
        let transport = headers.transport.unwrap();
        let (source, destination) = match headers.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!(usize::from(ip.total_len), frame.len() - 14);
                let sum = match &transport {
                    TransportHeader::Udp(udp) => udp.calc_checksum_ipv4(&ip, payload).unwrap(),
                    TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv4(&ip, payload).unwrap(),
                    _ => panic!("neither UDP nor TCP"),
                };
                assert_eq!(sum, checksum_of(&transport));
                (IpAddr::from(ip.source), IpAddr::from(ip.destination))
            }
            NetHeaders::Ipv6(ip, _) => {
                let sum = match &transport {
                    TransportHeader::Udp(udp) => udp.calc_checksum_ipv6(&ip, payload).unwrap(),
                    TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
                    _ => panic!("neither UDP nor TCP"),
                };
                assert_eq!(sum, checksum_of(&transport));
                (IpAddr::from(ip.source), IpAddr::from(ip.destination))
            }
            other => panic!("{other:?}"),
        };
        let (from, to) = match transport {
            TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port),
            TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
            _ => unreachable!(),
        };
        (SocketAddr::new(source, from), SocketAddr::new(destination, to))
    }

    fn checksum_of(transport: &TransportHeader) -> u16 {
        match transport {
            TransportHeader::Udp(udp) => udp.checksum,
            TransportHeader::Tcp(tcp) => tcp.checksum,
            _ => 0,
        }
    }

    #[test]
    fn frames_are_whole_and_correct() {
        for (protocol, ipv6, length) in [
            (Protocol::Udp, false, 64),
            (Protocol::Udp, false, 1500),
            (Protocol::Tcp, false, 61),
            (Protocol::Udp, true, 64),
            (Protocol::Tcp, true, 80),
        ] {
            let shape = shape(protocol, ipv6, length);
            shape.check().unwrap();
            let frames = Frames::new(&shape, Segment::Ack);
            for flow in [0, 1, 2, 255, 65_535, 65_536, 1_048_575] {
                let mut out = vec![0xff; 1514];
                frames.write(flow, &mut out);
                out.truncate(frames.length());
                assert_eq!(out.len(), length);
                let service = u32::try_from(flow % 3).unwrap();
                assert_eq!(ends(&out), (Client::of(flow).end(ipv6), shape.service(service)));
            }
        }
    }

    #[test]
    fn every_flow_has_a_client_of_its_own() {
        let clients: HashSet<SocketAddr> = (0..300_000).map(|flow| Client::of(flow).end(false)).collect();
        assert_eq!(clients.len(), 300_000);
        let last = Client::of(MOST_FLOWS - 1);
        assert_eq!((last.host, last.port), (65_535, 65_534));
    }

    #[test]
    fn impossible_shapes_are_refused_with_the_mend() {
        let refusal = shape(Protocol::Tcp, true, 64).check().unwrap_err().to_string();
        assert!(refusal.contains("--frame 74"), "{refusal}");
        assert!(Shape { flows: 0, ..shape(Protocol::Udp, false, 64) }.check().is_err());
        assert!(Shape { services: 70_000, ..shape(Protocol::Udp, false, 64) }.check().is_err());
    }
}
