//! A director between a client network and a server network, as VS/NAT and VS/TUN want it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "every scenario file uses its part"
)]

use dataplane::bench::{Director, DirectorConfig, Frame, Outcome};
use dataplane::id::{DestinationSlot, PortId, WorkerId};
use dataplane::packet::{HeapPacket, checksum};
use dataplane::snapshot::editor::{DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{
    Method, NextHop, PortView, Route, RouteView, Routes, SchedulerKind, ServiceKey, Settings,
};
use dataplane::steering::Steering;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub const CLIENTS: PortId = PortId(0);
pub const SERVERS: PortId = PortId(1);
pub const CLIENT_SIDE: [u8; 6] = [2, 0, 0, 0, 0x0c, 1];
pub const SERVER_SIDE: [u8; 6] = [2, 0, 0, 0, 0x05, 1];
/// The router to the clients.
pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub const VIP: &str = "10.0.0.100";
pub const VIP6: &str = "2001:db8::100";
pub const DIRECTOR: &str = "192.168.10.1";
pub const DIRECTOR6: &str = "fd00:10::1";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The server at .N of its network.
pub fn server(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 10, last])
}

pub fn server_mac(address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    [2, 0, 0, 0, 0x0a, last]
}

pub fn key(protocol: u8, address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address { protocol, address: ip(address), port }
}

pub struct Gateway {
    pub director: Director,
    pub editor: Editor,
    pub mtu: [u16; 2],
}

impl Gateway {
    pub fn new(config: DirectorConfig) -> Self {
        let limits = Limits { services: 256, destinations: 1024 };
        let mut editor = Editor::new(limits, ports([1500; 2]));
        let director = Director::new(config, editor.publish()).unwrap();
        let mut gateway = Self { director, editor, mtu: [1500; 2] };
        gateway.set_mtu([1500; 2]);
        gateway
    }

    /// `workers` of a director.
    pub fn of(workers: u8, steering: Steering) -> Self {
        Self::new(DirectorConfig { workers, steering, ..DirectorConfig::default() })
    }

    pub fn alone() -> Self {
        Self::new(DirectorConfig::default())
    }

    /// Links, and the routes over them: clients behind a router, servers on the link, tunnels' ends behind another router.
    pub fn set_mtu(&mut self, mtu: [u16; 2]) {
        self.mtu = mtu;
        self.editor.set_ports(ports(mtu));
        let resolved = |destination_mac, source_mac| NextHop::Resolved { destination_mac, source_mac };
        let to_clients = |via: &str, source: &str| RouteView {
            next_hop: resolved(ROUTER, CLIENT_SIDE),
            via: Some(ip(via)),
            source: Some(ip(source)),
            port: CLIENTS,
            mtu: mtu[0],
        };
        let to_servers = |next_hop, via: Option<&str>, source: &str| RouteView {
            next_hop,
            via: via.map(ip),
            source: Some(ip(source)),
            port: SERVERS,
            mtu: mtu[1],
        };
        let local = RouteView { next_hop: NextHop::Local, via: None, source: None, port: CLIENTS, mtu: 0 };
        let far = resolved(server_mac(server(254)), SERVER_SIDE);
        let route = |network: &str, prefix, view| Route { network: ip(network), prefix, view };
        let mut routes = vec![
            route("0.0.0.0", 0, to_clients("10.0.0.254", "10.0.0.1")),
            route("::", 0, to_clients("fe80::fe", "2001:db8::1")),
            route(
                "10.0.0.0",
                24,
                RouteView {
                    next_hop: NextHop::Unresolved,
                    via: None,
                    ..to_clients("10.0.0.254", "10.0.0.1")
                },
            ),
            route("192.168.10.0", 24, to_servers(NextHop::Unresolved, None, DIRECTOR)),
            route("172.16.0.0", 16, to_servers(far, Some("192.168.10.254"), DIRECTOR)),
            route(DIRECTOR, 32, local),
            route(VIP, 32, local),
        ];
        for last in 2..=9 {
            for (address, prefix, source) in
                [(server(last), 32, DIRECTOR), (ip(&format!("fd00:10::{last}")), 128, DIRECTOR6)]
            {
                let next_hop = resolved(server_mac(address), SERVER_SIDE);
                routes.push(Route { network: address, prefix, view: to_servers(next_hop, None, source) });
            }
        }
        self.editor.set_routes(Arc::new(Routes::new(routes)));
        let all: Vec<_> = self.editor.destinations().collect();
        for destination in all {
            self.lead(destination.slot, destination.spec.address);
        }
        self.publish();
    }

    pub fn settings(&mut self, settings: Settings) {
        self.editor.set_settings(settings);
        self.publish();
    }

    pub fn publish(&mut self) {
        self.director.snapshot = self.editor.publish();
        for change in self.editor.take_threshold_changes() {
            change.apply(&self.director.shared.destinations);
        }
    }

    fn lead(&mut self, slot: DestinationSlot, address: IpAddr) {
        self.publish();
        if let Some(route) = self.director.snapshot.routes.find(address).copied() {
            self.editor.set_next_hop(slot, route.next_hop, route.port, route.mtu);
            self.editor.set_source(slot, route.source);
        }
    }

    pub fn service(&mut self, key: ServiceKey) {
        self.editor.add_service(ServiceSpec::new(key, SchedulerKind::Rr)).unwrap();
    }

    pub fn destination(
        &mut self,
        service: ServiceKey,
        address: IpAddr,
        port: u16,
        method: Method,
    ) -> DestinationSlot {
        let spec = DestinationSpec { method, ..DestinationSpec::new(address, port, 1) };
        let slot = self.editor.add_destination(&service, spec).unwrap();
        self.lead(slot, address);
        self.publish();
        slot
    }

    /// Receives a frame on `port`, on the worker that its number asks for.
    pub fn receive_on(&mut self, worker: usize, port: PortId, frame: &[u8]) -> Vec<Outcome> {
        let worker = worker % self.director.engines.len();
        let worker = WorkerId(u8::try_from(worker).unwrap());
        self.director.receive(worker, port, [HeapPacket::new(frame)]);
        self.check();
        self.director.take_outcomes()
    }

    pub fn receive(&mut self, port: PortId, frame: &[u8]) -> Vec<Outcome> {
        self.receive_on(0, port, frame)
    }

    /// The one frame that comes out, and where.
    pub fn sent(&mut self, port: PortId, frame: &[u8]) -> (PortId, Vec<u8>) {
        match self.receive(port, frame).as_slice() {
            [Outcome::Transmitted(port, frame)] => (*port, frame.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// No packet is lost uncounted.
    pub fn check(&self) {
        let imbalance = self.director.imbalance();
        assert!(imbalance.iter().all(|imbalance| *imbalance == 0), "{imbalance:?}");
    }
}

fn ports(mtu: [u16; 2]) -> Arc<[PortView]> {
    let macs = [CLIENT_SIDE, SERVER_SIDE];
    macs.into_iter().zip(mtu).map(|(mac, mtu)| PortView { mac, more_macs: [].into(), mtu }).collect()
}

/// A frame from a client, through its router.
pub fn request(client: &str, virtual_end: &str) -> Frame {
    Frame { destination_mac: CLIENT_SIDE, source_mac: ROUTER, ..Frame::new(end(client), end(virtual_end)) }
}

/// A frame from a server.
pub fn answer(server: &str, client: &str) -> Frame {
    let source = end(server);
    Frame {
        destination_mac: SERVER_SIDE,
        source_mac: server_mac(source.ip()),
        ..Frame::new(source, end(client))
    }
}

/// What the director sends towards a server: what `frame` builds, one hop on.
pub fn towards_server(frame: Frame, server: IpAddr) -> Frame {
    Frame { destination_mac: server_mac(server), source_mac: SERVER_SIDE, ttl: frame.ttl - 1, ..frame }
}

/// What the director sends towards clients.
pub fn towards_client(frame: Frame) -> Frame {
    Frame { destination_mac: ROUTER, source_mac: CLIENT_SIDE, ttl: frame.ttl - 1, ..frame }
}

/// The pieces of a datagram, in the order they are sent.
pub fn pieces(frame: &Frame, most: usize) -> Vec<Vec<u8>> {
    let whole = frame.clone().udp();
    let v6 = frame.source.is_ipv6();
    let data = &whole[if v6 { 54 } else { 34 }..];
    let chunks = data.chunks(most).enumerate();
    chunks
        .map(|(index, chunk)| {
            let offset = u16::try_from(index * most).unwrap();
            let more = (index + 1) * most < data.len();
            if v6 {
                let [high, low] = (offset | u16::from(more)).to_be_bytes();
                return frame.ip(44, &[&[17, 0, high, low, 0, 0, 0, 7], chunk].concat());
            }
            let mut piece = frame.ip(17, chunk);
            let bits = (offset / 8) | if more { 0x2000 } else { 0 };
            piece[20..22].copy_from_slice(&bits.to_be_bytes());
            checksum::fill_header(&mut piece[14..34]);
            piece
        })
        .collect()
}
