//! The poll-mode workers on DPDK: what starts them, what they share with the management plane, what stops them.

mod clock;
mod config;
mod exception;
mod histogram;
mod idle;
mod packet;
mod ports;
mod rings;
mod run;
mod sink;

pub use clock::Clock;
pub use config::{Limits, PortSpec, RuntimeConfig, SteeringChoice};
pub use dpdk::{EalConfig, Hugepages, LogLevel, PortStats};
pub use exception::DpdkExceptionPath;
pub use histogram::{BurstTimes, burst_times};
pub use idle::IdleMode;
pub use ports::{PortFacts, PortStatus};

use crate::connection::Slab;
use crate::engine::{Engine, EngineConfig, EngineError, Event, Shared};
use crate::id::{PortId, WorkerId};
use crate::rcu::{self, Publisher};
use crate::scheduler::{Localities, Random, Standings};
use crate::snapshot::{PortView, Snapshot};
use crate::steering::Steering;
use crossbeam_queue::ArrayQueue;
use dpdk::{Eal, EalError, LaunchError, LcoreHandle, Mempool, MempoolConfig, MempoolError, Port, PortError};
use histogram::Exchange;
use packet::DpdkPacket;
use run::{Heartbeats, Worker};
use sink::{DpdkSink, Outlet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Events the management thread may fall behind by.
const EVENTS: usize = 1024;

/// Longest frame that is copied to the kernel when it came in several buffers.
const LONGEST_PUNT: usize = 65_535 + 18;

/// Why the data path did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The EAL refused.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// The packet buffers were not to be had.
    #[error(transparent)]
    Pool(#[from] MempoolError),
    /// A port cannot do what it is asked.
    #[error("port {name}: {source}")]
    Port {
        /// Its name in the configuration.
        name: String,
        /// The reason.
        source: Box<PortError>,
    },
    /// A port's queue is gone.
    #[error("port {0} has no queue {1}")]
    Queue(String, u16),
    /// The steering that was asked for does not work on these ports.
    #[error("{0}")]
    Steering(String),
    /// The tables' memory was not to be had.
    #[error("worker {0}: {1}")]
    Engine(WorkerId, EngineError),
    /// A worker did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// No port, or no worker.
    #[error("{0}")]
    Configuration(&'static str),
}

/// The lines of one worker's connections, for listings.
#[derive(Debug, Clone)]
pub struct Connections {
    /// IPv4.
    pub v4: Arc<Slab<Ipv4Addr>>,
    /// IPv6.
    pub v6: Arc<Slab<Ipv6Addr>>,
}

/// A worker as `status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its number.
    pub id: WorkerId,
    /// The CPU it is pinned to.
    pub cpu: u32,
    /// Milliseconds since its last turn.
    pub heartbeat_age_ms: u32,
}

/// Bytes that a part of the data path takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPart {
    /// What it is.
    pub name: &'static str,
    /// How many of it there is place for.
    pub capacity: u64,
    /// Bytes over all workers.
    pub bytes: u64,
}

/// The running data path. The management thread owns it.
#[derive(Debug)]
pub struct Runtime {
    ports: Vec<Port>,
    facts: Vec<PortFacts>,
    steering: Steering,
    clock: Clock,
    shared: Arc<Shared>,
    events: Arc<ArrayQueue<Event>>,
    connections: Vec<Connections>,
    heartbeats: Arc<Heartbeats>,
    exchanges: Vec<Arc<Exchange>>,
    cpus: Vec<u32>,
    memory: Vec<MemoryPart>,
    pool: Mempool,
    workers: Vec<LcoreHandle<()>>,
    stop: Arc<AtomicBool>,
    eal: Eal,
}

/// What [`Runtime::start`] hands out beside the runtime.
#[derive(Debug)]
pub struct Started {
    /// The data path.
    pub runtime: Runtime,
    /// Where snapshots are published; a snapshot without services is already.
    pub publisher: Publisher<Snapshot>,
    /// For the thread that owns the TAPs.
    pub exception: DpdkExceptionPath,
}

impl Runtime {
    /// Starts the EAL, the ports and the workers.
    ///
    /// # Errors
    /// [`RuntimeError`]; whatever was started is stopped again.
    pub fn start(config: &RuntimeConfig) -> Result<Started, RuntimeError> {
        let workers = config.eal.worker_cpus.len();
        if config.ports.is_empty() {
            return Err(RuntimeError::Configuration(
                "no port is configured: there is nothing to receive from",
            ));
        }
        if workers == 0 || workers > usize::from(u8::MAX) {
            return Err(RuntimeError::Configuration("from 1 to 255 workers are possible"));
        }
        let eal = Eal::init(&config.eal)?;
        let pool = Mempool::new(&eal, &pool_config(config, workers))?;
        let ports::Started { mut ports, facts, steering, trusted } =
            ports::start(&eal, &pool, config, workers)?;

        let clock = Clock::start();
        let shared = Arc::new(Shared::new(config.limits.shared(workers), config.template_key));
        let views: Arc<[PortView]> = facts.iter().map(PortFacts::view).collect();
        let (publisher, readers) = rcu::channel(Snapshot::empty(views), workers);
        let (worker_ends, exception_ends) = rings::make(workers);
        let heartbeats = Arc::new(Heartbeats::new(workers, clock.now()));
        let events = Arc::new(ArrayQueue::new(EVENTS));
        let stop = Arc::new(AtomicBool::new(false));
        let exception = DpdkExceptionPath {
            workers: exception_ends,
            pool: pool.clone(),
            heartbeats: Arc::clone(&heartbeats),
            clock,
            scratch: vec![0; LONGEST_PUNT].into_boxed_slice(),
            limit: pool.config().data_room.into(),
            first: 0,
        };

        let mut connections = Vec::with_capacity(workers);
        let mut exchanges = Vec::with_capacity(workers);
        let mut ready = Vec::with_capacity(workers);
        let mut seeds = Random::seeded(config.seed);
        for (number, (rings, reader)) in (0_u8..).zip(worker_ends.into_iter().zip(readers)) {
            let id = WorkerId(number);
            let engine_config = EngineConfig {
                id,
                workers: u8::try_from(workers).unwrap_or(u8::MAX),
                steering,
                trusted_rss: trusted.clone(),
                seed: seeds.bits(),
                ..config.limits.engine(workers, config.hash_key)
            };
            let engine: Engine<DpdkPacket> = Engine::new(&engine_config, Arc::clone(&shared), clock.now())
                .map_err(|error| RuntimeError::Engine(id, error))?;
            connections.push(Connections { v4: engine.connections_v4(), v6: engine.connections_v6() });
            let exchange = Arc::new(Exchange::new(dpdk::tsc_hz()));
            exchanges.push(Arc::clone(&exchange));
            let (inlets, outlets) = queues(&mut ports, &facts, u16::from(number))?;
            ready.push(Worker {
                engine,
                inlets,
                sink: DpdkSink {
                    outlets,
                    rings,
                    pool: pool.clone(),
                    events: Arc::clone(&events),
                    shared: Arc::clone(&shared),
                    redirected: Vec::with_capacity(dpdk::BURST),
                    id,
                },
                reader,
                heartbeats: Arc::clone(&heartbeats),
                histogram: exchange,
                clock,
                idle: config.idle,
                stop: Arc::clone(&stop),
            });
        }
        let memory = memory(config, workers, &shared, &pool);
        let mut runtime = Self {
            ports,
            facts,
            steering,
            clock,
            shared,
            events,
            connections,
            heartbeats,
            exchanges,
            cpus: config.eal.worker_cpus.clone(),
            memory,
            pool,
            workers: Vec::with_capacity(workers),
            stop,
            eal,
        };
        let lcores: Vec<_> = runtime.eal.workers().collect();
        for (lcore, worker) in lcores.into_iter().zip(ready) {
            match runtime.eal.launch(lcore, move || worker.run()) {
                Ok(handle) => runtime.workers.push(handle),
                Err(error) => {
                    runtime.stop();
                    return Err(error.into());
                }
            }
        }
        Ok(Started { runtime, publisher, exception })
    }

    /// The ports, by [`PortId`].
    #[must_use]
    pub fn ports(&self) -> &[PortFacts] {
        &self.facts
    }

    /// A port's link and the driver's counters.
    #[must_use]
    pub fn port_status(&self, port: PortId) -> Option<PortStatus> {
        Some(PortStatus::read(self.ports.get(port.index())?))
    }

    /// Gives a port another MAC address.
    ///
    /// # Errors
    /// The driver's reason.
    pub fn set_mac(&mut self, port: PortId, mac: [u8; 6]) -> Result<(), PortError> {
        if let (Some(device), Some(facts)) =
            (self.ports.get_mut(port.index()), self.facts.get_mut(port.index()))
        {
            device.set_mac(mac)?;
            facts.mac = mac;
        }
        Ok(())
    }

    /// How flows are spread over workers.
    #[must_use]
    pub fn steering(&self) -> Steering {
        self.steering
    }

    /// The clock of connection times.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Counters, templates and cursors.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What workers have to say.
    #[must_use]
    pub fn events(&self) -> &Arc<ArrayQueue<Event>> {
        &self.events
    }

    /// By worker.
    #[must_use]
    pub fn connections(&self) -> &[Connections] {
        &self.connections
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFacts> {
        let ages = self.heartbeats.ages(self.clock.now());
        (0_u8..)
            .zip(self.cpus.iter().zip(ages))
            .map(|(id, (cpu, heartbeat_age_ms))| WorkerFacts {
                id: WorkerId(id),
                cpu: *cpu,
                heartbeat_age_ms,
            })
            .collect()
    }

    /// Burst service times since the last call, by worker; `None` for one that did not answer within `patience`.
    #[must_use]
    pub fn burst_times(&self, patience: Duration) -> Vec<Option<Box<BurstTimes>>> {
        self.exchanges.iter().map(|exchange| exchange.collect(patience)).collect()
    }

    /// What takes how much memory.
    #[must_use]
    pub fn memory(&self) -> &[MemoryPart] {
        &self.memory
    }

    /// In words: where packet memory is, and DPDK's version.
    #[must_use]
    pub fn environment(&self) -> (String, &'static str) {
        (self.eal.memory().to_string(), self.eal.version())
    }

    /// Time stamp counter cycles a second.
    #[must_use]
    pub fn tsc_hz(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a frequency")]
        let hz = dpdk::tsc_hz() as f64;
        hz
    }

    /// Packet buffers in use and in all.
    #[must_use]
    pub fn buffers(&self) -> (usize, usize) {
        (self.pool.in_use(), self.pool.capacity())
    }

    /// Stops the workers and returns the ports. The exception path must be gone before.
    pub fn stop(mut self) {
        self.stop.store(true, Relaxed);
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing left to hand over.
            let _ = worker.join();
        }
    }
}

/// The queues of one worker on all ports.
#[expect(clippy::type_complexity, reason = "two lists")]
fn queues(
    ports: &mut [Port],
    facts: &[PortFacts],
    number: u16,
) -> Result<(Vec<(PortId, dpdk::RxQueue)>, Vec<Outlet>), RuntimeError> {
    let mut inlets = Vec::with_capacity(ports.len());
    let mut outlets = Vec::with_capacity(ports.len());
    for ((id, port), facts) in (0_u8..).zip(ports).zip(facts) {
        let missing = || RuntimeError::Queue(facts.name.clone(), number);
        let chains = port.capabilities().multi_segment_tx;
        inlets.push((PortId(id), port.rx_queue(number).ok_or_else(missing)?));
        outlets.push(Outlet::new(port.tx_queue(number).ok_or_else(missing)?, chains));
    }
    Ok((inlets, outlets))
}

/// Every buffer that may be somewhere at once: descriptors, rings, caches, transmit buffers, what is parked or held.
fn pool_config(config: &RuntimeConfig, workers: usize) -> MempoolConfig {
    const CACHE: u32 = 512;
    let descriptors: usize = config
        .ports
        .iter()
        .map(|port| usize::from(port.rx_descriptors) + usize::from(port.tx_descriptors) + 2 * dpdk::BURST)
        .sum();
    let held = config.limits.parked + config.limits.fragments as usize + 2 * CACHE as usize;
    let buffers = workers * (descriptors + held) + rings::capacity(workers) + 1024;
    let mtu = config.ports.iter().filter_map(|port| port.mtu).max().unwrap_or(1500);
    MempoolConfig {
        name: "uvs_packets".to_owned(),
        buffers: u32::try_from(buffers).unwrap_or(u32::MAX).next_power_of_two().saturating_sub(1),
        cache: CACHE,
        data_room: dpdk::mempool::data_room_for_mtu(mtu),
        ..MempoolConfig::default()
    }
}

fn memory(config: &RuntimeConfig, workers: usize, shared: &Shared, pool: &Mempool) -> Vec<MemoryPart> {
    let limits = &config.limits;
    let [v4, v6] = limits.table_bytes(workers);
    vec![
        MemoryPart { name: "connections_v4", capacity: limits.connections_v4.into(), bytes: v4 },
        MemoryPart { name: "connections_v6", capacity: limits.connections_v6.into(), bytes: v6 },
        MemoryPart {
            name: "templates",
            capacity: limits.templates.into(),
            bytes: shared.templates.bytes() as u64,
        },
        MemoryPart {
            name: "destinations",
            capacity: limits.destinations as u64,
            bytes: shared.destinations.bytes() as u64,
        },
        MemoryPart {
            name: "services",
            capacity: limits.services as u64,
            bytes: (shared.bytes() - shared.destinations.bytes() - shared.templates.bytes()) as u64,
        },
        MemoryPart {
            name: "standings",
            capacity: limits.destinations as u64 * workers as u64,
            bytes: (Standings::bytes(limits.services, limits.destinations) * workers) as u64,
        },
        MemoryPart {
            name: "localities",
            capacity: u64::from(limits.localities) * workers as u64,
            bytes: (Localities::bytes(limits.localities, limits.services) * workers) as u64,
        },
        MemoryPart { name: "packet_buffers", capacity: pool.capacity() as u64, bytes: pool.memory_bytes() },
    ]
}
