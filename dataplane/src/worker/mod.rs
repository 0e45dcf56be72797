//! The poll-mode workers on DPDK: what starts them, what they share with the management plane, what stops them.

mod clock;
mod config;
mod exception;
mod histogram;
mod idle;
mod numa;
mod packet;
mod pages;
mod pools;
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
pub use numa::NumaPlan;
pub use pages::Backing;
pub use ports::{PortFacts, PortStatus};

use crate::connection::Slab;
use crate::engine::{Engine, EngineConfig, EngineError, Event, Share, Shared};
use crate::id::{PortId, WorkerId};
use crate::rcu::{self, Publisher};
use crate::scheduler::{Localities, Random, Standings};
use crate::snapshot::{PortView, Snapshot};
use crate::steering::Steering;
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use dpdk::{Eal, EalError, LaunchError, LcoreHandle, MempoolError, Port, PortError};
use histogram::Exchange;
use packet::DpdkPacket;
use pools::Pools;
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
    pools: Pools,
    plan: NumaPlan,
    workers: Vec<LcoreHandle<()>>,
    stop: Arc<CachePadded<AtomicBool>>,
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
        let count = u8::try_from(workers).ok().filter(|workers| *workers > 0);
        let Some(count) = count else {
            return Err(RuntimeError::Configuration("from 1 to 255 workers are possible"));
        };
        let eal = Eal::init(&config.eal)?;
        let ports::Started { mut ports, facts, steering, trusted, pools, plan } =
            ports::start(&eal, config, workers)?;

        let clock = Clock::start();
        let limits = config.limits.shared(workers);
        let shares = on_workers(&eal, (0..workers).map(|_| move || Share::new(limits)))?;
        let shared = Arc::new(Shared::of(limits, config.template_key, shares));
        let views: Arc<[PortView]> = facts.iter().map(PortFacts::view).collect();
        let (publisher, readers) = rcu::channel(Snapshot::empty(views), workers);
        let (worker_ends, exception_ends) = rings::make(count);
        let heartbeats = Arc::new(Heartbeats::new(workers, clock.now()));
        let events = Arc::new(ArrayQueue::new(EVENTS));
        let stop = Arc::new(CachePadded::new(AtomicBool::new(false)));
        let exception = DpdkExceptionPath {
            workers: exception_ends,
            pool: pools.of_kernel().clone(),
            heartbeats: Arc::clone(&heartbeats),
            clock,
            scratch: vec![0; LONGEST_PUNT].into_boxed_slice(),
            limit: pools.of_kernel().config().data_room.into(),
            first: 0,
        };

        let mut connections = Vec::with_capacity(workers);
        let mut exchanges = Vec::with_capacity(workers);
        let mut ready = Vec::with_capacity(workers);
        let engines = engines(&eal, config, count, (steering, &trusted), &shared, clock)?;
        let ends = worker_ends.into_iter().zip(readers).zip(engines);
        for (number, ((rings, reader), engine)) in (0_u8..).zip(ends) {
            let id = WorkerId(number);
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
                    pool: pools.of_worker(number.into()).clone(),
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
        let memory = memory(config, workers, &shared, &pools);
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
            pools,
            plan,
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
        let (used, all, _) = self.pools.usage();
        (used, all)
    }

    /// The NUMA nodes of workers, ports and packet buffers.
    #[must_use]
    pub fn numa(&self) -> &NumaPlan {
        &self.plan
    }

    /// What of memory is not where it should be, and who works far from its port.
    #[must_use]
    pub fn numa_warnings(&self) -> Vec<String> {
        let ports: Vec<&str> = self.facts.iter().map(|facts| facts.name.as_str()).collect();
        let mut warnings = self.plan.warnings(&self.cpus, &ports);
        warnings.extend(self.pools.notes.iter().cloned());
        warnings
    }

    /// What the connection tables lie on. The kernel walks its page tables for the answer: for start-up, not for every day.
    #[must_use]
    pub fn tables_backing(&self) -> Backing {
        let tables = self.connections.iter();
        let addresses: Vec<_> =
            tables.flat_map(|tables| [tables.v4.addresses(), tables.v6.addresses()]).collect();
        Backing::of(&addresses)
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

/// Has every worker's thread make something, all at the same time: what it allocates comes from its own heap, and its pages from its
/// own CPU's NUMA node.
fn on_workers<T: Send + 'static, M: FnOnce() -> T + Send + 'static>(
    eal: &Eal,
    makers: impl Iterator<Item = M>,
) -> Result<Vec<T>, RuntimeError> {
    let mut handles = Vec::new();
    for (lcore, make) in eal.workers().zip(makers) {
        handles.push(eal.launch(lcore, make)?);
    }
    let ended = |_| RuntimeError::Configuration("a worker's thread ended while it made its tables");
    handles.into_iter().map(|handle| handle.join().map_err(ended)).collect()
}

/// The workers' engines.
fn engines(
    eal: &Eal,
    config: &RuntimeConfig,
    workers: u8,
    (steering, trusted): (Steering, &[bool]),
    shared: &Arc<Shared>,
    clock: Clock,
) -> Result<Vec<Engine<DpdkPacket>>, RuntimeError> {
    let mut seeds = Random::seeded(config.seed);
    let make = |number| {
        let configuration = EngineConfig {
            id: WorkerId(number),
            workers,
            steering,
            trusted_rss: trusted.into(),
            seed: seeds.bits(),
            ..config.limits.engine(workers.into(), config.hash_key)
        };
        let shared = Arc::clone(shared);
        move || Engine::new(&configuration, shared, clock.now())
    };
    let engines = on_workers(eal, (0..workers).map(make))?;
    let numbered = (0..workers).zip(engines);
    numbered.map(|(id, engine)| engine.map_err(|error| RuntimeError::Engine(WorkerId(id), error))).collect()
}

fn memory(config: &RuntimeConfig, workers: usize, shared: &Shared, pools: &Pools) -> Vec<MemoryPart> {
    let limits = &config.limits;
    let (_, buffers, buffer_bytes) = pools.usage();
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
        MemoryPart { name: "packet_buffers", capacity: buffers as u64, bytes: buffer_bytes },
    ]
}
