//! Starting the ports, and what is known of them afterwards.

use super::RuntimeError;
use super::config::{PortSpec, RuntimeConfig};
use super::numa::{NumaPlan, Topology};
use super::pools::Pools;
use crate::snapshot::PortView;
use crate::steering::{Owners, Steering, toeplitz};
use dpdk::{Device, Eal, LinkState, Port, PortConfig, PortStats, RssConfig, RssFields};
use std::sync::Arc;

/// Longest Toeplitz key that a NIC asks for.
const KEY_BYTES: usize = 52;

/// A port as `status` and the start-up report show it.
#[derive(Debug, Clone)]
pub struct PortFacts {
    /// Its name in the configuration.
    pub name: String,
    /// The device as configured.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// IP MTU in bytes.
    pub mtu: u16,
    /// Receive queues.
    pub queues: u16,
    /// NUMA node, where known.
    pub socket: Option<u32>,
    /// Whether the NIC spreads flows as the steering wants, so that nothing need be redirected.
    pub steered_by_nic: bool,
    /// What was asked and is not to be had, without harm.
    pub notes: Vec<String>,
}

impl PortFacts {
    /// As the engine sees it.
    #[must_use]
    pub fn view(&self) -> PortView {
        PortView { mac: self.mac, more_macs: Arc::default(), mtu: self.mtu }
    }
}

/// A port's state at one moment.
#[derive(Debug, Clone, Copy)]
pub struct PortStatus {
    /// Whether the link is up; `None` when the driver does not say.
    pub link_up: Option<bool>,
    /// Speed in Mbit/s, where known.
    pub speed_mbps: Option<u32>,
    /// The driver's counters.
    pub stats: PortStats,
}

impl PortStatus {
    pub(super) fn read(port: &Port) -> Self {
        let link: Option<LinkState> = port.link().ok();
        Self {
            link_up: link.map(|link| link.up),
            speed_mbps: link.and_then(|link| link.speed_mbps),
            stats: port.stats().unwrap_or_default(),
        }
    }
}

/// All ports, started.
pub(super) struct Started {
    pub(super) ports: Vec<Port>,
    pub(super) facts: Vec<PortFacts>,
    pub(super) steering: Steering,
    pub(super) trusted: Box<[bool]>,
    pub(super) pools: Pools,
    pub(super) plan: NumaPlan,
}

/// Attaches all devices, decides on the steering and where packet buffers lie, then starts them. A failure releases those before.
pub(super) fn start(eal: &Eal, config: &RuntimeConfig, workers: usize) -> Result<Started, RuntimeError> {
    let fail =
        |spec: &PortSpec, source| RuntimeError::Port { name: spec.name.clone(), source: Box::new(source) };
    let mut devices: Vec<Device> = Vec::with_capacity(config.ports.len());
    for spec in &config.ports {
        devices.push(eal.attach(&spec.device).map_err(|error| fail(spec, error))?);
    }
    let capable: Vec<bool> = devices
        .iter()
        .map(|device| device.capabilities().rss_fields)
        .filter(|fields| !fields.intersection(RssFields::IP_AND_PORTS).is_empty())
        .map(|fields| fields.contains(RssFields::SOURCE_ONLY))
        .collect();
    let steering = config.steering.decide(&capable).map_err(RuntimeError::Steering)?;
    let rss = rss(steering, workers);
    let nodes: Vec<Option<u32>> = devices.iter().map(|device| device.capabilities().socket).collect();
    let plan = NumaPlan::new(&Topology::system(), &config.eal.worker_cpus, &nodes);
    let pools = Pools::new(eal, &plan, config, workers)?;
    let queues = u16::try_from(workers).unwrap_or(u16::MAX);
    let mut ports = Vec::with_capacity(devices.len());
    let mut facts = Vec::with_capacity(devices.len());
    for (number, (spec, device)) in config.ports.iter().zip(devices).enumerate() {
        let asked = PortConfig {
            rx_queues: queues,
            tx_queues: queues,
            rx_descriptors: spec.rx_descriptors,
            tx_descriptors: spec.tx_descriptors,
            mtu: spec.mtu,
            promiscuous: false,
            all_multicast: true,
            rss: (workers > 1).then(|| rss.clone()),
        };
        let port = device.start(&asked, pools.of_port(number)).map_err(|error| fail(spec, error))?;
        facts.push(describe(spec, &port, queues).map_err(|error| fail(spec, error))?);
        ports.push(port);
    }
    let trusted = ports
        .iter()
        .map(|port| port.report().rss.as_ref().is_some_and(|rss| rss.exact && rss.hash_delivered));
    let trusted = trusted.collect();
    Ok(Started { ports, facts, steering, trusted, pools, plan })
}

/// The NIC's share of the steering: our key, our table, the client's end or the whole tuple.
fn rss(steering: Steering, workers: usize) -> RssConfig {
    let owners = Owners::new(steering, u8::try_from(workers).unwrap_or(u8::MAX));
    RssConfig {
        key: toeplitz::key::<KEY_BYTES>().to_vec(),
        fields: match steering {
            Steering::Client => RssFields::IP_AND_PORTS | RssFields::SOURCE_ONLY,
            Steering::Flow => RssFields::IP_AND_PORTS,
        },
        table: owners.indirection().slots().map(|worker| worker.0.into()),
    }
}

fn describe(spec: &PortSpec, port: &Port, queues: u16) -> Result<PortFacts, dpdk::PortError> {
    let report = port.report();
    let mut notes = report.notes.clone();
    let shortfalls = report.rss.iter().flat_map(|rss| &rss.shortfalls);
    notes.extend(shortfalls.map(|shortfall| format!("{shortfall}: flows are redirected in software")));
    Ok(PortFacts {
        name: spec.name.clone(),
        device: spec.device.clone(),
        driver: port.capabilities().driver.clone(),
        mac: port.mac()?,
        mtu: report.mtu,
        queues,
        socket: port.socket(),
        steered_by_nic: report.rss.as_ref().is_some_and(|rss| rss.exact),
        notes,
    })
}
