//! A director of one port, two real servers and a virtual address, as the scenarios know it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every scenario file uses its part")]

use dataplane::bench::{Director, DirectorConfig, Frame, Outcome};
use dataplane::counters::DestinationTotals;
use dataplane::id::{PortId, WorkerId};
use dataplane::packet::{HeapPacket, tcp};
use dataplane::snapshot::editor::{DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{ClientMask, NextHop, Persistence, PortView, SchedulerKind, ServiceKey, Settings};
use std::net::{IpAddr, SocketAddr};

pub const VIP: &str = "192.168.132.254";
pub const VIP6: &str = "fd00::fe";
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0x84, 0x1e];
pub const PORT: PortId = PortId(0);
pub const MTU: u16 = 1500;

/// The MAC of the server at `address`: its last byte tells.
pub fn server_mac(address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    [2, 0, 0, 0, 0x84, last]
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn server(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 132, last])
}

/// A director and the editor of its snapshot.
pub struct Lab {
    pub director: Director,
    pub editor: Editor,
}

impl Lab {
    pub fn new(config: DirectorConfig) -> Self {
        let ports = [PortView { mac: MAC, more_macs: [].into(), mtu: MTU }];
        let limits = Limits {
            services: u32::try_from(config.services).unwrap(),
            destinations: u32::try_from(config.destinations).unwrap(),
        };
        let mut editor = Editor::new(limits, ports.into());
        let director = Director::new(config, editor.publish()).unwrap();
        Self { director, editor }
    }

    pub fn service(&mut self, key: ServiceKey, scheduler: SchedulerKind, persistent: Option<u32>) {
        let mask = if key.is_v6() { ClientMask::HOST_V6 } else { ClientMask::HOST_V4 };
        let persistence = persistent.map(|seconds| Persistence { timeout: seconds * 1000, mask });
        self.editor.add_service(ServiceSpec { persistence, ..ServiceSpec::new(key, scheduler) }).unwrap();
        self.publish();
    }

    pub fn destination(&mut self, key: ServiceKey, address: IpAddr, weight: u32) {
        self.destination_with(key, DestinationSpec::new(address, key.port(), weight));
    }

    pub fn destination_with(&mut self, key: ServiceKey, spec: DestinationSpec) {
        let slot = self.editor.add_destination(&key, spec).unwrap();
        let hop = NextHop::Resolved { destination_mac: server_mac(spec.address), source_mac: MAC };
        self.editor.set_next_hop(slot, hop, PORT, MTU);
        self.publish();
    }

    /// Publishes what was edited, as the management thread does.
    pub fn publish(&mut self) {
        self.director.snapshot = self.editor.publish();
        for change in self.editor.take_threshold_changes() {
            change.apply(&self.director.shared.destinations);
        }
        self.director.pass(1);
    }

    /// A TCP service on the virtual address with servers .64 and .68, the newest first in the list.
    pub fn web(scheduler: SchedulerKind, persistent: Option<u32>, config: DirectorConfig) -> Self {
        let mut lab = Self::new(config);
        lab.service(tcp_key(80), scheduler, persistent);
        lab.destination(tcp_key(80), server(64), 1);
        lab.destination(tcp_key(80), server(68), 1);
        lab
    }

    /// Receives one frame on worker 0 and returns what came of it.
    pub fn receive(&mut self, frame: &[u8]) -> Vec<Outcome> {
        self.director.receive(WorkerId(0), PORT, [HeapPacket::new(frame)]);
        self.check();
        self.director.take_outcomes()
    }

    /// The last byte of the MAC that a frame was forwarded to.
    pub fn forwarded(&mut self, frame: &[u8]) -> Option<u8> {
        match self.receive(frame).as_slice() {
            [Outcome::Transmitted(_, sent)] => Some(sent[5]),
            _ => None,
        }
    }

    /// No packet is lost uncounted.
    pub fn check(&self) {
        assert!(
            self.director.imbalance().iter().all(|imbalance| *imbalance == 0),
            "{:?}",
            self.director.imbalance()
        );
    }
}

pub fn tcp_key(port: u16) -> ServiceKey {
    ServiceKey::Address { protocol: 6, address: address(VIP), port }
}

pub fn udp_key(port: u16) -> ServiceKey {
    ServiceKey::Address { protocol: 17, address: address(VIP), port }
}

/// A frame from client number `client` to the virtual address.
pub fn from_client(client: u16, port: u16) -> Frame {
    let [high, low] = client.to_be_bytes();
    let source = SocketAddr::from(([10, 1, high, low], 1024 + client % 50_000));
    Frame::new(source, SocketAddr::new(address(VIP), port))
}

pub fn syn(client: u16) -> Vec<u8> {
    from_client(client, 80).tcp(tcp::SYN)
}

pub fn ack(client: u16) -> Vec<u8> {
    from_client(client, 80).tcp(tcp::ACK)
}

pub fn fin(client: u16) -> Vec<u8> {
    from_client(client, 80).tcp(tcp::FIN | tcp::ACK)
}

impl Lab {
    /// Changes the settings.
    pub fn set(&mut self, settings: Settings) {
        self.editor.set_settings(settings);
        self.publish();
    }

    /// Changes the weight of a destination of the web service.
    pub fn weigh(&mut self, address: IpAddr, weight: u32) {
        let found = self.editor.find_destination(&tcp_key(80), address, 80).unwrap();
        self.editor.edit_destination(&tcp_key(80), DestinationSpec { weight, ..found.spec }).unwrap();
        self.publish();
    }

    /// A destination that takes at most `upper` connections.
    pub fn limited(&mut self, key: ServiceKey, address: IpAddr, upper: u32) {
        self.destination_with(key, DestinationSpec { upper, ..DestinationSpec::new(address, key.port(), 1) });
    }

    /// What was counted for a destination.
    pub fn totals(&self, key: &ServiceKey, address: IpAddr) -> DestinationTotals {
        let found = self.editor.find_destination(key, address, key.port()).unwrap();
        self.director.shared.destinations.totals(found.slot)
    }

    pub fn leap_checked(&mut self, milliseconds: u32) {
        self.director.leap(milliseconds);
        self.director.pass(200);
        self.check();
    }

    pub fn open_connections(&self) -> u32 {
        self.director
            .engines
            .iter()
            .map(|engine| engine.connections_v4().live() + engine.connections_v6().live())
            .sum()
    }
}
