//! What `status`, `stats` and the listings of services say.

use super::compile::key_of;
use super::director::Director;
use super::network::describe;
use crate::address::Mac;
use crate::desired::{Service, ServiceKey};
use crate::protocol::{
    Configuration, Count, DestinationList, DestinationState, DestinationStats, Fault, MemoryUse, PAGE_MAX,
    PortStatus, ServicePage, ServicePageQuery, ServiceState, Stats, Status, Traffic, WorkerStatus,
};
use dataplane::counters::{Counter, DestinationTable, DestinationTotals, DropReason};
use dataplane::id::{DestinationSlot, PortId};
use dataplane::snapshot::editor::Destination;
use dataplane::steering::Steering;
use dataplane::worker::Runtime;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Counters of a slot that belonged to another destination before: what was there already is taken off.
#[derive(Debug, Default)]
pub(super) struct Baselines(HashMap<DestinationSlot, (u32, DestinationTotals)>);

impl Baselines {
    /// Notes a destination that was just given a slot.
    pub(super) fn note(&mut self, destination: &Destination, table: &DestinationTable) {
        let known = self.0.get(&destination.slot).map(|(incarnation, _)| *incarnation);
        if known != Some(destination.incarnation) {
            self.0.insert(destination.slot, (destination.incarnation, table.totals(destination.slot)));
        }
    }

    fn since(&self, slot: DestinationSlot, totals: DestinationTotals) -> DestinationTotals {
        let before = self.0.get(&slot).map(|(_, before)| *before).unwrap_or_default();
        DestinationTotals {
            connections: totals.connections.wrapping_sub(before.connections),
            in_packets: totals.in_packets.wrapping_sub(before.in_packets),
            in_bytes: totals.in_bytes.wrapping_sub(before.in_bytes),
            out_packets: totals.out_packets.wrapping_sub(before.out_packets),
            out_bytes: totals.out_bytes.wrapping_sub(before.out_bytes),
            ..totals
        }
    }
}

/// How busy workers were between the last two measurements.
#[derive(Debug, Default)]
pub(super) struct Loads {
    last: Option<(Instant, Vec<u64>)>,
    percent: Vec<f64>,
}

impl Loads {
    pub(super) fn measure(&mut self, runtime: &Runtime) {
        let now = Instant::now();
        let busy: Vec<u64> =
            runtime.shared().counters.iter().map(|counters| counters.get(Counter::BusyCycles)).collect();
        if let Some((then, before)) = &self.last {
            let cycles = now.duration_since(*then).as_secs_f64() * runtime.tsc_hz();
            self.percent = busy
                .iter()
                .zip(before)
                .map(|(now, before)| {
                    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
                    let share = now.wrapping_sub(*before) as f64 / cycles.max(1.0);
                    (share * 1000.0).round() / 10.0
                })
                .collect();
        }
        self.last = Some((now, busy));
    }
}

impl Director {
    pub(super) fn status(&self) -> Status {
        let (services, destinations) = self.desired.counts();
        let workers = self.workers();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            revision: self.desired.revision(),
            services: services as u64,
            destinations: destinations as u64,
            connections: workers.iter().map(|worker| worker.connections).sum(),
            steering: match self.runtime.steering() {
                Steering::Client => "client",
                Steering::Flow => "flow",
            }
            .to_owned(),
            workers,
            ports: self.ports(),
            housekeeping_cpus: self.placement.housekeeping.clone(),
            memory: self.memory(),
            warnings: self.present_warnings(),
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let connections = self.runtime.connections().iter().map(|tables| tables.v4.live() + tables.v6.live());
        let workers = self.runtime.workers().into_iter().zip(connections);
        workers
            .enumerate()
            .map(|(index, (facts, connections))| WorkerStatus {
                worker: facts.id.0,
                cpu: u16::try_from(facts.cpu).unwrap_or(u16::MAX),
                idle: self.idle.clone(),
                load_percent: self.loads.percent.get(index).copied().unwrap_or(0.0),
                connections: connections.into(),
                age_ms: facts.heartbeat_age_ms.into(),
            })
            .collect()
    }

    fn ports(&self) -> Vec<PortStatus> {
        let link = |port: PortId| {
            let status = self.runtime.port_status(port);
            match status.map(|status| (status.link_up, status.speed_mbps)) {
                Some((Some(true), Some(speed))) => format!("up {speed} Mbit/s"),
                Some((Some(true), None)) => "up".to_owned(),
                Some((Some(false), _)) => "down".to_owned(),
                _ => "unknown".to_owned(),
            }
        };
        (0_u8..)
            .zip(self.runtime.ports())
            .map(|(port, facts)| PortStatus {
                port,
                name: facts.name.clone(),
                device: facts.device.clone(),
                driver: facts.driver.clone(),
                mac: Mac(facts.mac),
                mtu: facts.mtu,
                link: link(PortId(port)),
            })
            .collect()
    }

    pub(super) fn memory(&self) -> Vec<MemoryUse> {
        let shared = self.runtime.shared();
        let live = |v6: bool| {
            let tables = self.runtime.connections().iter();
            tables.map(|tables| u64::from(if v6 { tables.v6.live() } else { tables.v4.live() })).sum()
        };
        let (buffers_used, _) = self.runtime.buffers();
        self.runtime
            .memory()
            .iter()
            .map(|part| MemoryUse {
                what: part.name.to_owned(),
                capacity: part.capacity,
                used: match part.name {
                    "connections_v4" => Some(live(false)),
                    "connections_v6" => Some(live(true)),
                    "templates" => Some(shared.templates.len().into()),
                    "packet_buffers" => Some(buffers_used as u64),
                    _ => None,
                },
                bytes: part.bytes,
            })
            .collect()
    }

    fn present_warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        let total =
            |counter| -> u64 { self.runtime.shared().counters.iter().map(|one| one.get(counter)).sum() };
        let (received, redirected) = (total(Counter::Received), total(Counter::RedirectedOut));
        if received > 10_000 && redirected * 4 > received {
            let percent = redirected * 100 / received;
            warnings.push(format!(
                "{percent} % of all packets arrive on another worker's queue and are redirected in software: the NIC does \
                 not spread flows as the director does"
            ));
        }
        if let Some(exception) = &self.exception
            && exception.stats().snapshot().carrier_down
        {
            warnings.push("a worker stands still: the twins' carrier is dropped".to_owned());
        }
        warnings
    }

    pub(super) fn stats(&self) -> Stats {
        let counters = &self.runtime.shared().counters;
        let count = |name: &str, value, meaning: &str| Count {
            name: name.to_owned(),
            value,
            meaning: meaning.to_owned(),
        };
        let sum = |counter: Counter| counters.iter().map(|one| one.get(counter)).sum();
        let dropped = |reason: DropReason| counters.iter().map(|one| one.dropped(reason)).sum();
        let mut counted: Vec<Count> = Counter::ALL
            .iter()
            .map(|counter| count(counter.label(), sum(*counter), counter.meaning()))
            .collect();
        let in_flight = counters.iter().map(|one| one.in_flight()).sum();
        counted.push(count("in_flight", in_flight, "Packets parked or held as early fragments now."));
        counted.extend(self.exception_counts());
        counted.extend(self.mirror_counts());
        counted.extend(self.port_counts());
        Stats {
            counters: counted,
            drops: DropReason::ALL
                .iter()
                .map(|reason| count(reason.label(), dropped(*reason), reason.meaning()))
                .collect(),
            imbalance: counters.iter().map(|one| one.imbalance()).sum(),
            totals: Traffic::default(),
            destinations: self
                .desired
                .services()
                .flat_map(|service| {
                    let states = self.destination_states(service);
                    states
                        .into_iter()
                        .map(|destination| DestinationStats { service: service.key, destination })
                })
                .collect(),
            apply: self.latencies.apply_summary(),
            grace_period: self.latencies.grace_summary(),
            burst: self.latencies.burst_summary(),
        }
    }

    fn exception_counts(&self) -> Vec<Count> {
        let Some(exception) = &self.exception else { return Vec::new() };
        let stats = exception.stats().snapshot();
        let figures = [
            ("kernel_control", stats.to_kernel.control, "Control frames the kernel took."),
            ("kernel_local", stats.to_kernel.local, "Other frames for this host the kernel took."),
            ("kernel_stray", stats.to_kernel.stray, "Stray frames the kernel took."),
            ("kernel_refused_control", stats.bucket_refused.control, "Control frames over their rate."),
            ("kernel_refused_local", stats.bucket_refused.local, "Local frames over their rate."),
            ("kernel_refused_stray", stats.bucket_refused.stray, "Stray frames over their rate."),
            ("tap_full", stats.tap_full, "Punted frames the kernel had no room for."),
            ("tap_down", stats.tap_down, "Punted frames while the twin was down."),
            ("tap_refused", stats.tap_refused, "Punted frames the kernel refused."),
            ("no_twin", stats.no_twin, "Punted frames of ports without a twin."),
            ("from_kernel", stats.from_kernel, "The kernel's frames that a worker took."),
            ("inject_full", stats.inject_full, "The kernel's frames lost at a full inject ring."),
            ("inject_too_long", stats.too_long, "The kernel's frames longer than the port takes."),
            (
                "carrier_drops",
                stats.carrier_drops,
                "Times the carrier was dropped because a worker stood still.",
            ),
        ];
        let count = |(name, value, meaning): (&str, u64, &str)| Count {
            name: name.to_owned(),
            value,
            meaning: meaning.to_owned(),
        };
        figures.into_iter().map(count).collect()
    }

    fn mirror_counts(&self) -> Vec<Count> {
        let Some(mirror) = &self.mirror else { return Vec::new() };
        let stats = mirror.stats();
        let figures = [
            ("mirror_views", stats.views, "Settled changes of the kernel's network."),
            (
                "mirror_overruns",
                stats.overruns,
                "Times the kernel dropped notifications; everything was read anew.",
            ),
            ("mirror_malformed", stats.malformed, "Netlink messages that contradicted themselves."),
            ("next_hops_wanted", stats.wanted, "Next hops kept resolved."),
            ("next_hops_usable", stats.usable, "Of these, usable."),
            ("next_hops_asked", stats.asked, "Requests to resolve a next hop."),
        ];
        let count = |(name, value, meaning): (&str, u64, &str)| Count {
            name: name.to_owned(),
            value,
            meaning: meaning.to_owned(),
        };
        figures.into_iter().map(count).collect()
    }

    /// What the drivers counted: frames lost before the workers saw them.
    fn port_counts(&self) -> Vec<Count> {
        let ports = (0_u8..).map(PortId).take(self.runtime.ports().len());
        let stats = ports.filter_map(|port| self.runtime.port_status(port)).map(|status| status.stats);
        let (mut missed, mut errors, mut no_buffer) = (0, 0, 0);
        for stats in stats {
            missed += stats.rx_missed;
            errors += stats.rx_errors;
            no_buffer += stats.rx_no_buffer;
        }
        let count = |name: &str, value, meaning: &str| Count {
            name: name.to_owned(),
            value,
            meaning: meaning.to_owned(),
        };
        vec![
            count("nic_missed", missed, "Frames the NIC lost because receive queues were full."),
            count("nic_errors", errors, "Erroneous frames the NIC received."),
            count("nic_no_buffer", no_buffer, "Receive attempts without a packet buffer."),
        ]
    }

    fn destination_states(&self, service: &Service) -> Vec<DestinationState> {
        service.destinations.iter().map(|destination| self.destination_state(service, destination)).collect()
    }

    fn destination_state(
        &self,
        service: &Service,
        destination: &crate::desired::Destination,
    ) -> DestinationState {
        let server = destination.server;
        let found = self.compiler.lookup().find_destination(&key_of(service.key), server.ip, server.port);
        let table = &self.runtime.shared().destinations;
        let totals =
            found.map(|found| self.baselines.since(found.slot, table.totals(found.slot))).unwrap_or_default();
        let way = found.and_then(|found| self.compiler.way(found.slot));
        DestinationState {
            address: server,
            method: destination.method,
            weight: destination.weight,
            upper_threshold: destination.upper_threshold,
            lower_threshold: destination.lower_threshold,
            active: totals.active,
            inactive: totals.inactive,
            persistent: totals.templates,
            overloaded: found.is_some_and(|found| table.shared(found.slot).overloaded.load(Relaxed)),
            traffic: Traffic {
                connections: totals.connections,
                in_packets: totals.in_packets,
                in_bytes: totals.in_bytes,
                out_packets: totals.out_packets,
                out_bytes: totals.out_bytes,
                ..Traffic::default()
            },
            next_hop: way.map_or_else(
                || "unknown".to_owned(),
                |way| describe(way.next_hop, self.network.port_name(way.port)),
            ),
        }
    }

    fn service_state(&self, service: &Service) -> ServiceState {
        let destinations = self.destination_states(service);
        ServiceState {
            key: service.key,
            scheduler: service.scheduler,
            scheduler_flags: service.scheduler_flags,
            one_packet: service.one_packet,
            persistent: service.persistence.map_or(0, |held| held.timeout_s),
            netmask: service.persistence.map(|held| held.mask),
            traffic: destinations.iter().fold(Traffic::default(), |sum, held| sum.plus(held.traffic)),
            destinations,
        }
    }

    pub(super) fn services(&self, query: ServicePageQuery) -> ServicePage {
        let limit = query.limit.unwrap_or(PAGE_MAX) as usize;
        let mut found = self.desired.services_after(query.after);
        let services: Vec<_> =
            found.by_ref().take(limit).map(|service| self.service_state(service)).collect();
        let next = found.next().and_then(|_| services.last().map(|service| service.key));
        ServicePage { revision: self.desired.revision(), services, next }
    }

    pub(super) fn destinations(&self, key: ServiceKey) -> Result<DestinationList, Fault> {
        let service = self.desired.service(key)?;
        Ok(DestinationList { service: key, destinations: self.destination_states(service) })
    }

    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            revision: self.desired.revision(),
            services: self.desired.to_specs(),
            timeouts: self.desired.timeouts(),
            settings: self.desired.settings(),
            marks: self.desired.marks().to_vec(),
        }
    }
}
