//! Flows of many clients to a few virtual services, and their frames: the same for the pcap files and for the engine.
//!
//! Addresses are those reserved for benchmarks: 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180).

mod frames;
mod length;
mod method;

use crate::results::Parameters;
use anyhow::{Result, bail};
use clap::ValueEnum;
pub(crate) use frames::{Frames, Sender};
use length::CLASSES;
pub(crate) use length::FrameLength;
pub(crate) use method::{Direction, Forwarding, Mode, TunnelKind};
use serde_json::json;
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
/// Most destinations of one service.
const MOST_DESTINATIONS: u16 = 16_384;
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
    /// Accepts one: the server's first.
    SynAck,
    /// Of an established connection.
    Ack,
    /// Says that no more data comes.
    Fin,
}

impl Segment {
    const fn flags(self) -> u8 {
        match self {
            Self::Syn => 0x02,
            Self::SynAck => 0x12,
            Self::Ack => 0x10,
            Self::Fin => 0x11,
        }
    }
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
    /// Destinations of each service; all services have the same servers.
    pub(crate) destinations: u16,
    /// Length of frames.
    pub(crate) frame: FrameLength,
    /// Number of flows.
    pub(crate) flows: u64,
}

impl Shape {
    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<()> {
        let least = self.headers();
        if let FrameLength::Fixed(length) = self.frame
            && length < least
        {
            let (protocol, family) = (self.protocol.name(), if self.ipv6 { "IPv6" } else { "IPv4" });
            bail!(
                "a frame of {length} bytes has no room for {protocol} over {family}: give --frame {least} or more"
            );
        }
        if self.flows == 0 || self.flows > MOST_FLOWS {
            bail!("{} flows are not in the range 1 to {MOST_FLOWS}", self.flows);
        }
        if self.services == 0 || self.services > u32::from(u16::MAX - FIRST_SERVICE_PORT) {
            bail!("{} services are not in the range 1 to {}", self.services, u16::MAX - FIRST_SERVICE_PORT);
        }
        if self.destinations == 0 || self.destinations > MOST_DESTINATIONS {
            bail!("{} destinations are not in the range 1 to {MOST_DESTINATIONS}", self.destinations);
        }
        Ok(())
    }

    /// What results say of it.
    pub(crate) fn parameters(&self) -> Parameters {
        let frame = match self.frame {
            FrameLength::Fixed(length) => json!(length),
            FrameLength::Imix => json!("imix"),
        };
        let pairs = [
            ("protocol", json!(self.protocol.name())),
            ("ipv6", json!(self.ipv6)),
            ("flows", json!(self.flows)),
            ("services", json!(self.services)),
            ("destinations", json!(self.destinations)),
            ("frame", frame),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    const fn network(&self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    const fn transport_at(&self) -> usize {
        14 + self.network()
    }

    pub(crate) const fn headers(&self) -> usize {
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
        SocketAddr::new(self.virtual_address(), Self::service_port(index))
    }

    /// Its port; also its servers'.
    #[inline(always)]
    pub(crate) fn service_port(index: u32) -> u16 {
        u16::try_from(index).map_or(u16::MAX, |index| FIRST_SERVICE_PORT.saturating_add(index))
    }

    /// Which service a flow goes to.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "less than the 32-bit number of services")]
    pub(crate) const fn service_of(&self, flow: u64) -> u32 {
        if self.services == 1 { 0 } else { (flow % self.services as u64) as u32 }
    }

    /// Whoever sends masqueraded servers' packets: nobody looks at it.
    pub(crate) const SERVERS_MAC: [u8; 6] = [0x02, 0, 0, 0x01, 0, 0];

    /// A real server in the director's network; its last word is [`Self::server_word`].
    pub(crate) fn server(&self, index: u16) -> (IpAddr, [u8; 6]) {
        let [high, low] = Self::server_word(index).to_be_bytes();
        let address = match self.servers_network() {
            IpAddr::V4(network) => IpAddr::V4(Ipv4Addr::from_bits(network.to_bits() + u32::from(index) + 1)),
            IpAddr::V6(network) => IpAddr::V6(Ipv6Addr::from_bits(network.to_bits() + u128::from(index) + 1)),
        };
        (address, [0x02, 0, 0, 0x01, high, low])
    }

    /// Last 16 bits of a server's address.
    #[inline(always)]
    pub(crate) const fn server_word(index: u16) -> u16 {
        index + 1
    }

    /// The servers' network.
    pub(crate) const fn servers_network(&self) -> IpAddr {
        if self.ipv6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 1, 0))
        } else {
            IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0))
        }
    }

    /// The clients' network, with its prefix length.
    pub(crate) const fn clients_network(&self) -> (IpAddr, u8) {
        if self.ipv6 {
            (IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 0)), 64)
        } else {
            (IpAddr::V4(Ipv4Addr::new(198, 19, 0, 0)), 16)
        }
    }

    /// The server that rr gives a flow, when flows open their connections in order: lists begin with the destination that was added
    /// last.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "less than the number of destinations")]
    pub(crate) const fn server_of(&self, flow: u64) -> u16 {
        let turn = if self.services == 1 { flow } else { flow / self.services as u64 };
        self.destinations - 1 - (turn % self.destinations as u64) as u16
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

/// A whole number from `low` to `high`, from a command line.
pub(crate) fn within(text: &str, low: usize, high: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("give a whole number from {low} to {high}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn shape(protocol: Protocol, ipv6: bool, frame: usize) -> Shape {
        let frame = FrameLength::Fixed(frame);
        Shape { protocol, ipv6, services: 3, destinations: 2, frame, flows: 1 << 20 }
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
        assert!(Shape { destinations: 0, ..shape(Protocol::Udp, false, 64) }.check().is_err());
        assert!(Shape { destinations: 16_385, ..shape(Protocol::Udp, false, 64) }.check().is_err());
    }

    #[test]
    fn servers_have_addresses_and_turns() {
        for ipv6 in [false, true] {
            let shape = Shape { destinations: 3, ..shape(Protocol::Udp, ipv6, 64) };
            let servers: HashSet<IpAddr> = (0..1000).map(|index| shape.server(index).0).collect();
            assert_eq!(servers.len(), 1000);
            let turns: Vec<u16> = [0, 1, 2, 3, 6, 9].map(|flow| shape.server_of(flow)).to_vec();
            assert_eq!(turns, [2, 2, 2, 1, 0, 2]);
        }
    }
}
