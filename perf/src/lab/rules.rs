//! What an engine in memory is told: services, destinations, next hops.

use super::{MTU, PORT};
use crate::results::Parameters;
use crate::traffic::{DIRECTOR_MAC, Forwarding, Shape};
use anyhow::Result;
use dataplane::snapshot::editor::{DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{
    Maglev, NextHop, PortView, Route, RouteView, Routes, SchedulerKind, ServiceKey, Settings, Snapshot,
    scheduler_flags,
};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;

/// How flows of a shape are forwarded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The flows.
    pub(crate) shape: Shape,
    /// The method.
    pub(crate) forwarding: Forwarding,
    /// Every service's scheduler.
    pub(crate) scheduler: SchedulerKind,
    /// Its flags.
    pub(crate) flags: u8,
    /// How mh fills its table.
    pub(crate) maglev: Maglev,
    /// Behaviour.
    pub(crate) settings: Settings,
}

/// Most destinations of one service for which the kernel's table of mh will do.
const FEW: u16 = 40;

impl Rules {
    /// Round robin and the kernel's settings.
    pub(crate) fn new(shape: &Shape, forwarding: Forwarding) -> Self {
        let scheduler = SchedulerKind::Rr;
        let (maglev, settings) = (Maglev::KERNEL, Settings::default());
        Self { shape: *shape, forwarding, scheduler, flags: 0, maglev, settings }
    }

    /// mh by address and port of the client: every director, whatever its workers, gives a flow the same server.
    pub(crate) fn hashed(shape: &Shape, forwarding: Forwarding) -> Self {
        let size = if shape.destinations > FEW { Maglev::GREATEST } else { Maglev::KERNEL.size };
        Self {
            scheduler: SchedulerKind::Mh,
            flags: scheduler_flags::PORT,
            maglev: Maglev { size, canonical: true },
            ..Self::new(shape, forwarding)
        }
    }

    /// Whether a flow's server depends on the flow alone.
    pub(crate) fn is_hashed(&self) -> bool {
        self.scheduler == SchedulerKind::Mh
    }

    /// Destinations of all services.
    pub(crate) fn destinations(&self) -> u32 {
        self.shape.services * u32::from(self.shape.destinations)
    }

    /// What results say of it.
    pub(crate) fn parameters(&self) -> Parameters {
        let Self { shape, forwarding, scheduler, .. } = self;
        let mut parameters = forwarding.parameters();
        parameters.extend(shape.parameters());
        parameters.insert("scheduler".to_owned(), json!(scheduler.name()));
        parameters
    }

    /// What workers read, every next hop resolved.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.editor()?.publish())
    }

    /// What makes it, and what follows it.
    pub(crate) fn editor(&self) -> Result<Editor> {
        let shape = &self.shape;
        let limits = Limits { services: shape.services, destinations: self.destinations() };
        let ports = [PortView { mac: DIRECTOR_MAC, more_macs: [].into(), mtu: MTU }];
        let mut editor = Editor::new(limits, ports.into());
        editor.set_settings(self.settings);
        editor.set_routes(Arc::new(Routes::new(self.routes())));
        for index in 0..shape.services {
            let service = shape.service(index);
            let key = ServiceKey::Address {
                protocol: shape.protocol.number(),
                address: service.ip(),
                port: service.port(),
            };
            let spec = ServiceSpec::new(key, self.scheduler);
            editor.add_service(ServiceSpec { flags: self.flags, maglev: self.maglev, ..spec })?;
            for destination in 0..shape.destinations {
                let (address, mac) = shape.server(destination);
                let method = self.forwarding.method();
                let spec = DestinationSpec { method, ..DestinationSpec::new(address, service.port(), 1) };
                let slot = editor.add_destination(&key, spec)?;
                let hop = NextHop::Resolved { destination_mac: mac, source_mac: DIRECTOR_MAC };
                editor.set_next_hop(slot, hop, PORT, MTU);
                editor.set_source(slot, Some(shape.director().0));
            }
        }
        Ok(editor)
    }

    /// Clients and servers are on the link, as with a real director on one.
    fn routes(&self) -> [Route; 2] {
        let (director, prefix) = self.shape.director();
        let on_link = |(network, prefix): (IpAddr, u8)| Route {
            network,
            prefix,
            view: RouteView {
                next_hop: NextHop::Unresolved,
                via: None,
                source: Some(director),
                port: PORT,
                mtu: MTU,
            },
        };
        [(director, prefix), self.shape.clients_network()].map(on_link)
    }
}
