//! What `status` and `stats` say.

use super::director::Director;
use crate::address::Mac;
use crate::control::Occupancy;
use crate::management::count;
use crate::protocol::{Count, MemoryUse, PortStatus, Stats, Status, WorkerStatus};
use dataplane::counters::{Counter, DropReason};
use dataplane::id::PortId;
use dataplane::steering::Steering;
use dataplane::worker::Runtime;
use std::time::Instant;

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
        let (services, destinations) = self.management.desired().counts();
        let workers = self.workers();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            revision: self.management.desired().revision(),
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
            sockets: self.sockets.iter().map(Occupancy::status).collect(),
            memory: self.memory(),
            warnings: self.present_warnings(),
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let connections = self.runtime.connections().iter().map(|tables| tables.v4.live() + tables.v6.live());
        let workers = self.runtime.workers().into_iter().zip(connections);
        let counted = |worker: usize, counter| {
            self.runtime.shared().counters.get(worker).map_or(0, |counters| counters.get(counter))
        };
        let refused = |worker: usize| {
            let counters = self.runtime.shared().counters.get(worker);
            counters.map_or(0, |counters| counters.dropped(DropReason::RedirectFull))
        };
        workers
            .enumerate()
            .map(|(index, (facts, connections))| WorkerStatus {
                worker: facts.id.0,
                cpu: u16::try_from(facts.cpu).unwrap_or(u16::MAX),
                idle: self.idle.clone(),
                load_percent: self.loads.percent.get(index).copied().unwrap_or(0.0),
                connections: connections.into(),
                received: counted(index, Counter::Received),
                redirected: counted(index, Counter::RedirectedOut) + refused(index),
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

    pub(super) fn stats(&mut self) -> Stats {
        // Up to now, not to the last round of housekeeping.
        self.latencies.collect_bursts(&self.runtime);
        let mut stats = self.management.stats(self.runtime.shared());
        stats.counters.extend(self.exception_counts());
        stats.counters.extend(self.mirror_counts());
        stats.counters.extend(self.port_counts());
        Stats {
            apply: self.latencies.apply_summary(),
            grace_period: self.latencies.grace_summary(),
            burst: self.latencies.burst_summary(),
            ..stats
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
        figures.into_iter().map(|(name, value, meaning)| count(name, value, meaning)).collect()
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
        figures.into_iter().map(|(name, value, meaning)| count(name, value, meaning)).collect()
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
        vec![
            count("nic_missed", missed, "Frames the NIC lost because receive queues were full."),
            count("nic_errors", errors, "Erroneous frames the NIC received."),
            count("nic_no_buffer", no_buffer, "Receive attempts without a packet buffer."),
        ]
    }
}
