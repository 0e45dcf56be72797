//! Start-up: each step in its order, each failure with its sentence, nothing left behind.

use super::backend::{Message, Requests};
use super::director::{Director, Ended};
use super::events::Events;
use super::latency::Latencies;
use super::listing::Listing;
use super::report::Loads;
use super::twins;
use crate::config::{self, Config};
use crate::control::{Backend, ClaimError, ControlDirectory, Operators, Options, Server};
use crate::desired::Apply;
use crate::instance::{
    Housekeeping, MemoryError, Placement, PlacementError, PrefixError, PrefixLock, Signals, check_memory,
    place,
};
use crate::ipvs;
use crate::management::{self, Management, Network};
use crate::mirror::apply::ApplyError;
use crate::mirror::{Mirror, MirrorError, MirrorOptions, MirrorPort};
use crate::protocol::Fault;
use crate::twin::{ExceptionOptions, ExceptionThread, Silence, SilenceError, Twin, TwinConfig, TwinError};
use dataplane::connection::HashKey;
use dataplane::id::PortId;
use dataplane::worker::{
    EalConfig, Hugepages, Limits, PortFacts, PortSpec, Runtime, RuntimeConfig, RuntimeError, Started,
};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

/// How long virtual addresses wait for next hops at start.
const RESOLVE: Duration = Duration::from_secs(2);
/// After the virtual addresses went, so that packets under way are still forwarded.
const DRAIN: Duration = Duration::from_millis(200);

/// Why the director did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Signals cannot be heard.
    #[error("signals cannot be heard: {0}")]
    Signals(std::io::Error),
    /// Another instance, or a directory that cannot be had.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Another instance with the same EAL prefix.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// CPUs.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A poller that would starve everything else.
    #[error("{0}")]
    Impossible(String),
    /// The NIC's own kernel interface.
    #[error(transparent)]
    Silence(#[from] SilenceError),
    /// The data path.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A twin.
    #[error(transparent)]
    Twin(#[from] TwinError),
    /// An address, route or neighbour.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The exception thread.
    #[error("the exception thread did not start: {0}")]
    Exception(std::io::Error),
    /// The configuration's services.
    #[error("the services of the configuration were refused: {0}")]
    Services(Fault),
    /// No randomness for the tables' secrets.
    #[error("no random numbers for the tables' secrets: {0}")]
    Secrets(rustix::io::Errno),
}

/// A running director, with what must outlive it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) director: Director,
    /// What it was asked for while it started.
    pub(super) asked: Option<Ended>,
    server: Server,
    ipvs: ipvs::Server,
    silences: Vec<Silence>,
    virtual_addresses: Vec<config::Port>,
    _prefix: PrefixLock,
}

/// What a configuration asks for, in one line.
pub(super) fn summary(config: &Config) -> String {
    let destinations: usize = config.service.iter().map(|service| service.destination.len()).sum();
    format!(
        "{} ports, {} workers, {} services with {destinations} destinations",
        config.port.len(),
        config.workers.count,
        config.service.len()
    )
}

/// Starts everything. `signals` are listened to as soon as there is a CPU for it, so that an end asked for while next hops
/// resolve does not wait for them.
pub(super) fn start(
    config: &Config,
    signals: Signals,
    queue: &SyncSender<Message>,
    messages: &Receiver<Message>,
) -> Result<Running, StartError> {
    let started = Instant::now();
    let prefix = PrefixLock::take(&config.dpdk.file_prefix)?;
    let directory = Arc::new(ControlDirectory::claim(&config.control.directory, &config.control.group)?);
    let placement = place(&config.workers, &Housekeeping::available())?;
    check_pollers(config, &placement)?;
    let runtime_config = runtime_config(config, &placement)?;
    let tables = runtime_config.limits.table_bytes(placement.workers.len()).iter().sum();
    check_memory(config.dpdk.hugepages, config.dpdk.memory_mib, tables)?;
    let silences = silence(config)?;
    let Started { runtime, publisher, exception } = Runtime::start(&runtime_config)?;
    // A thread starts on the CPU of the one that starts it: this thread moves on before each.
    let housekeeping = Arc::new(Housekeeping::new(placement.housekeeping.clone()));
    housekeeping.pin();
    super::listen_for_signals(signals, queue.clone())?;

    let twins = make_twins(config, &runtime)?;
    let exception = ExceptionThread::spawn(Box::new(exception), twins, ExceptionOptions::default())
        .map_err(StartError::Exception)?;
    config.port.iter().filter(|port| port.twin).try_for_each(twins::set_up)?;
    housekeeping.pin();
    let mirror = mirror(config, queue.clone())?;
    let mut network = Network::new(ports(config, &runtime));
    if let Some(mirror) = &mirror {
        network.set_view(mirror.view());
    }
    let limits =
        management::Limits { services: config.limits.services, destinations: config.limits.destinations };
    let management = Management::new(limits, network);
    let revision = Arc::new(AtomicU64::new(0));
    let listing = Listing {
        connections: runtime.connections().to_vec(),
        shared: Arc::clone(runtime.shared()),
        servers: management.servers().clone(),
        clock: runtime.clock(),
    };
    let mut warnings = placement.warnings.clone();
    warnings.extend(runtime.numa_warnings());
    let mut director = Director {
        management,
        clock: runtime.clock(),
        publisher,
        runtime,
        mirror,
        exception: Some(exception),
        revision: Arc::clone(&revision),
        events: Events::default(),
        latencies: Latencies::default(),
        twins: config.port.clone(),
        warnings,
        placement,
        sockets: Vec::new(),
        idle: format!("{:?}", config.workers.idle).to_lowercase(),
        started,
        loads: Loads::default(),
        housekept: started,
    };
    director.apply(wanted(config)).map_err(StartError::Services)?;
    director.want_hops();
    let mut options = Options::new(Operators::group(directory.gid()), config.limits.clients as usize);
    options.on_thread = Some(Arc::new(move || {
        housekeeping.pin();
    }));
    let mut ipvs_options = ipvs::Options::new(options.operators, options.clients);
    ipvs_options.on_thread.clone_from(&options.on_thread);
    let requests = Arc::new(Requests { queue: queue.clone(), revision, listing });
    let server = Server::start(Arc::clone(&directory), options, Arc::clone(&requests) as Arc<dyn Backend>)?;
    let ipvs = ipvs::Server::start(directory, ipvs_options, requests)?;
    director.sockets = vec![server.occupancy(), ipvs.occupancy()];
    director.announce(config);
    let asked = wait_for_next_hops(&mut director, messages);
    let virtual_addresses = if asked == Some(Ended::Stop) { Vec::new() } else { virtual_addresses(config)? };
    if asked != Some(Ended::Stop) {
        director.event("instance", format!("ready after {} ms", started.elapsed().as_millis()));
    }
    Ok(Running { director, asked, server, ipvs, silences, virtual_addresses, _prefix: prefix })
}

/// A worker that never rests needs a CPU of its own: what shares it would starve.
fn check_pollers(config: &Config, placement: &Placement) -> Result<(), StartError> {
    let shared = placement.workers.iter().find(|cpu| placement.housekeeping.contains(cpu));
    match (config.workers.idle, shared) {
        (config::Idle::Poll, Some(cpu)) => Err(StartError::Impossible(format!(
            "workers.idle = \"poll\" never gives CPU {cpu} away, but management has to run there too; use fewer workers, \
             name other workers.housekeeping_cpus, or set workers.idle = \"sleep\""
        ))),
        _ => Ok(()),
    }
}

fn silence(config: &Config) -> Result<Vec<Silence>, StartError> {
    let interfaces = config.port.iter().filter_map(|port| port.kernel_interface.as_deref());
    interfaces.map(|interface| Silence::install(interface).map_err(StartError::from)).collect()
}

fn runtime_config(config: &Config, placement: &Placement) -> Result<RuntimeConfig, StartError> {
    let wide = |cpus: &[u16]| cpus.iter().map(|cpu| u32::from(*cpu)).collect();
    let limits = &config.limits;
    Ok(RuntimeConfig {
        eal: EalConfig {
            file_prefix: config.dpdk.file_prefix.clone(),
            memory_mib: config.dpdk.memory_mib,
            hugepages: match config.dpdk.hugepages {
                config::Hugepages::Auto => Hugepages::Auto,
                config::Hugepages::Required => Hugepages::Required,
                config::Hugepages::Never => Hugepages::Never,
            },
            housekeeping_cpus: wide(&placement.housekeeping),
            worker_cpus: wide(&placement.workers),
            devices: config.port.iter().map(|port| port.device.clone()).collect(),
            extra_args: config.dpdk.extra_args.clone(),
            ..EalConfig::default()
        },
        ports: config
            .port
            .iter()
            .map(|port| PortSpec {
                name: port.name.clone(),
                device: port.device.clone(),
                rx_descriptors: port.rx_descriptors,
                tx_descriptors: port.tx_descriptors,
                mtu: port.mtu,
            })
            .collect(),
        idle: config.workers.idle,
        steering: config.workers.steering,
        limits: Limits {
            connections_v4: limits.connections,
            connections_v6: limits.connections_ipv6.max(1),
            templates: limits.templates.max(1),
            services: limits.services as usize,
            destinations: limits.destinations as usize,
            fragments: limits.fragments,
            parked: limits.parked as usize,
            localities: limits.localities,
        },
        hash_key: HashKey([secret()?, secret()?]),
        template_key: u128::from(secret()?) << 64 | u128::from(secret()?),
        seed: secret()?,
    })
}

/// Secrets of the tables: whoever knows them can aim at one bucket.
fn secret() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => Ok(u64::from_ne_bytes(bytes)),
        Err(error) => Err(StartError::Secrets(error)),
    }
}

/// What a configuration makes the desired state.
pub(super) fn wanted(config: &Config) -> Apply {
    Apply {
        services: config.service.clone(),
        timeouts: Some(config.timeouts),
        settings: Some(config.settings),
        marks: Some(config.mark.clone()),
        ..Apply::default()
    }
}

fn ports(config: &Config, runtime: &Runtime) -> Vec<management::Port> {
    let port = |(port, facts): (&config::Port, &PortFacts)| management::Port {
        name: facts.name.clone(),
        mac: facts.mac,
        mtu: facts.mtu,
        tables: management::Tables::of(port),
    };
    config.port.iter().zip(runtime.ports()).map(port).collect()
}

fn make_twins(config: &Config, runtime: &Runtime) -> Result<Vec<Twin>, StartError> {
    let ports = (0_u8..).map(PortId).zip(config.port.iter().zip(runtime.ports()));
    ports
        .filter(|(_, (port, _))| port.twin)
        .map(|(port, (_, facts))| {
            let (name, mtu) = (facts.name.clone(), facts.mtu.into());
            Ok(Twin::create(TwinConfig { port, name, mac: facts.mac, mtu })?)
        })
        .collect()
}

fn mirror(config: &Config, queue: SyncSender<Message>) -> Result<Option<Mirror>, StartError> {
    let ports: Vec<MirrorPort> = (0_u8..)
        .map(PortId)
        .zip(&config.port)
        .filter(|(_, port)| port.twin)
        .map(|(port, twin)| MirrorPort { port, name: twin.name.clone() })
        .collect();
    if ports.is_empty() {
        return Ok(None);
    }
    // A view that finds the queue full is not lost: whatever comes next brings the latest one.
    let notify = move |event| drop(queue.try_send(Message::Network(event)));
    Ok(Some(Mirror::spawn(&MirrorOptions::new(ports), Box::new(notify))?))
}

/// Virtual addresses wait a moment for next hops, so that the first packet to them need not. Clients are served meanwhile;
/// a request to end or to reload cuts the wait short.
fn wait_for_next_hops(director: &mut Director, messages: &Receiver<Message>) -> Option<Ended> {
    let deadline = Instant::now() + RESOLVE;
    while !director.management.resolved() && Instant::now() < deadline {
        if let Ok(message) = messages.recv_timeout(Duration::from_millis(20))
            && let Some(asked) = director.heed(message)
        {
            return Some(asked);
        }
        director.tick();
    }
    None
}

fn virtual_addresses(config: &Config) -> Result<Vec<config::Port>, StartError> {
    let ports: Vec<_> =
        config.port.iter().filter(|port| port.twin && !port.virtual_addresses.is_empty()).cloned().collect();
    ports.iter().try_for_each(twins::add_virtual_addresses)?;
    Ok(ports)
}

impl Running {
    /// The way back: virtual addresses, clients, mirror, twins, workers, ports.
    pub(super) fn end(self) {
        let Self { mut director, mut server, mut ipvs, silences, virtual_addresses, .. } = self;
        director.event("instance", "stopping".to_owned());
        for port in &virtual_addresses {
            if let Err(error) = twins::remove_virtual_addresses(port) {
                tracing::warn!(%error, "a virtual address was not removed; it goes with the twin");
            }
        }
        if !virtual_addresses.is_empty() {
            std::thread::sleep(DRAIN);
        }
        server.stop();
        ipvs.stop();
        let Director { mirror, exception, runtime, publisher, .. } = director;
        if let Some(mirror) = mirror {
            mirror.stop();
        }
        // The path holds packet buffers, the twins their interfaces.
        drop(exception.and_then(crate::twin::ExceptionHandle::stop));
        runtime.stop();
        drop(publisher);
        drop(silences);
        tracing::info!("stopped");
    }
}

impl Director {
    /// The start-up report: sizes, memory, cores, steering.
    fn announce(&mut self, config: &Config) {
        let (memory, version) = self.runtime.environment();
        tracing::info!("uvsd {} on {version}, packet memory: {memory}", env!("CARGO_PKG_VERSION"));
        let workers: Vec<_> = self.placement.workers.iter().map(ToString::to_string).collect();
        let status = self.status();
        tracing::info!(
            "workers on CPUs {}, everything else on {:?}, idle {}, steering by {}",
            workers.join(" "),
            self.placement.housekeeping,
            self.idle,
            status.steering
        );
        for port in &status.ports {
            tracing::info!(
                "port {}: {} ({}), {}, MTU {}",
                port.name,
                port.driver,
                port.device,
                port.mac,
                port.mtu
            );
        }
        self.announce_nodes();
        for facts in self.runtime.ports() {
            for note in &facts.notes {
                tracing::info!("port {}: {note}", facts.name);
            }
        }
        for part in self.memory() {
            tracing::info!(
                "{:>10} {:<16} {:>9.1} MiB",
                part.capacity,
                part.what,
                part.bytes as f64 / f64::from(1 << 20)
            );
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!("configuration: {}", summary(config));
    }

    /// Which NUMA node each worker, each port and its packet buffers are on, and what the connection tables lie on.
    fn announce_nodes(&self) {
        let node = |node: &Option<u32>| node.map_or_else(|| "?".to_owned(), |node| node.to_string());
        let plan = self.runtime.numa();
        let workers: Vec<String> = plan.workers.iter().map(node).collect();
        tracing::info!("NUMA nodes of the workers: {}", workers.join(" "));
        for ((facts, on), pool) in self.runtime.ports().iter().zip(&plan.ports).zip(&plan.pool_of_port) {
            let buffers = plan.pools.get(*pool).copied().flatten();
            let buffers = buffers.map_or_else(|| "any node".to_owned(), |node| format!("node {node}"));
            tracing::info!("port {}: NUMA node {}, packet buffers on {buffers}", facts.name, node(on));
        }
        tracing::info!("connection tables: {}", self.runtime.tables_backing());
    }
}
