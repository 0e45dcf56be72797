//! From a destination's address to the frame that reaches it: the mirror's view where a port has a twin, the configuration's
//! neighbours and routes where it has none.

use crate::config;
use crate::mirror::{Hop, NetworkView};
use dataplane::id::PortId;
use dataplane::snapshot::{NextHop, PortView};
use dataplane::worker::PortFacts;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How a destination is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) next_hop: NextHop,
    pub(super) port: PortId,
    pub(super) mtu: u16,
    /// Whose MAC address the kernel is to keep resolved.
    pub(super) hop: Option<Hop>,
}

impl Way {
    const NONE: Self = Self { next_hop: NextHop::NoRoute, port: PortId(0), mtu: 0, hop: None };
}

/// A port without a twin: what the configuration says is all there is to know.
#[derive(Debug)]
struct StaticPort {
    port: PortId,
    neighbours: BTreeMap<IpAddr, [u8; 6]>,
    routes: Vec<config::Route>,
}

/// What is known of the network.
#[derive(Debug)]
pub(super) struct Network {
    ports: Vec<PortFacts>,
    fixed: Vec<StaticPort>,
    view: Arc<NetworkView>,
}

impl Network {
    pub(super) fn new(config: &[config::Port], ports: Vec<PortFacts>) -> Self {
        let numbered = (0_u8..).map(PortId).zip(config);
        let fixed = numbered.filter(|(_, port)| !port.twin).map(|(id, port)| StaticPort {
            port: id,
            neighbours: port
                .neighbours
                .iter()
                .map(|neighbour| (neighbour.address, neighbour.mac.0))
                .collect(),
            routes: port.routes.clone(),
        });
        let fixed = fixed.collect();
        Self { ports, fixed, view: Arc::default() }
    }

    /// Twins that were down and are up in `view`: the kernel has forgotten their routes meanwhile.
    pub(super) fn came_up(&self, view: &NetworkView) -> Vec<PortId> {
        let was_down = |port: &PortId| self.view.links.get(port).is_some_and(|link| !link.up);
        view.links.iter().filter(|(port, link)| link.up && was_down(port)).map(|(port, _)| *port).collect()
    }

    pub(super) fn set_view(&mut self, view: Arc<NetworkView>) {
        self.view = view;
    }

    /// Which of the mirror's views this is.
    pub(super) fn view_revision(&self) -> u64 {
        self.view.revision
    }

    /// A port's own address as the NIC has it.
    pub(super) fn set_port_mac(&mut self, port: PortId, mac: [u8; 6]) {
        if let Some(facts) = self.ports.get_mut(port.index()) {
            facts.mac = mac;
        }
    }

    pub(super) fn port_name(&self, port: PortId) -> &str {
        self.ports.get(port.index()).map_or("?", |facts| &facts.name)
    }

    /// The ports as the engine is to see them: the twin's address is ours, and so is the NIC's where it could not follow.
    pub(super) fn port_views(&self) -> Arc<[PortView]> {
        let view = |(id, facts): (u8, &PortFacts)| {
            let Some(link) = self.view.links.get(&PortId(id)) else { return facts.view() };
            let more = link.extra_macs.iter().copied().chain((facts.mac != link.mac).then_some(facts.mac));
            PortView { mac: link.mac, more_macs: more.collect(), mtu: self.mtu(PortId(id), None) }
        };
        (0_u8..).zip(&self.ports).map(view).collect()
    }

    /// How packets to `destination` are sent.
    pub(super) fn way(&self, destination: IpAddr) -> Way {
        if let Some(way) = self.fixed.iter().find_map(|port| self.static_way(port, destination)) {
            return way;
        }
        if self.view.is_local(destination) {
            return Way { next_hop: NextHop::Local, ..Way::NONE };
        }
        let Some(choice) = self.view.next_hop(destination) else { return Way::NONE };
        let hop = (choice.port, choice.via);
        let next_hop = self.frame(choice.port, self.view.mac_of(choice.port, choice.via));
        Way { next_hop, port: choice.port, mtu: self.mtu(choice.port, choice.mtu), hop: Some(hop) }
    }

    fn static_way(&self, port: &StaticPort, destination: IpAddr) -> Option<Way> {
        let route = port
            .routes
            .iter()
            .filter(|route| route.to.contains(destination))
            .max_by_key(|route| route.to.length);
        let via = route.and_then(|route| route.via).unwrap_or(destination);
        let mac = port.neighbours.get(&via)?;
        let next_hop = self.frame(port.port, Some(*mac));
        Some(Way { next_hop, port: port.port, mtu: self.mtu(port.port, None), hop: None })
    }

    fn frame(&self, port: PortId, mac: Option<[u8; 6]>) -> NextHop {
        let own = self.view.links.get(&port).map(|link| link.mac);
        let own = own.or_else(|| self.ports.get(port.index()).map(|facts| facts.mac));
        match (mac, own) {
            (Some(destination_mac), Some(source_mac)) => NextHop::Resolved { destination_mac, source_mac },
            _ => NextHop::Unresolved,
        }
    }

    /// The least of the port's, the twin's and the route's.
    fn mtu(&self, port: PortId, route: Option<u32>) -> u16 {
        let nic = self.ports.get(port.index()).map(|facts| u32::from(facts.mtu));
        let twin = self.view.links.get(&port).map(|link| link.mtu);
        let least = [nic, twin, route].into_iter().flatten().min().unwrap_or(0);
        u16::try_from(least).unwrap_or(u16::MAX)
    }
}

/// `02:00:00:00:84:64 via eth0` and the like.
pub(super) fn describe(next_hop: NextHop, port: &str) -> String {
    match next_hop {
        NextHop::Resolved { destination_mac, .. } => {
            format!("{} via {port}", crate::address::Mac(destination_mac))
        }
        NextHop::Unresolved => "unresolved".to_owned(),
        NextHop::NoRoute => "no route".to_owned(),
        NextHop::Local => "local".to_owned(),
    }
}
