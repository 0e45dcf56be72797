//! The pools of packet buffers: one for each NUMA node that ports are on.

use super::config::RuntimeConfig;
use super::numa::NumaPlan;
use super::rings;
use dpdk::{Eal, Mempool, MempoolConfig, MempoolError};

/// All pools.
#[derive(Debug)]
pub(super) struct Pools {
    pools: Vec<Mempool>,
    of_port: Vec<usize>,
    of_worker: Vec<usize>,
    /// What was asked and is not to be had.
    pub(super) notes: Vec<String>,
}

impl Pools {
    /// Makes the pools of a plan. A node without memory for its pool has it elsewhere, and that is said.
    ///
    /// # Errors
    /// There is too little memory on all nodes together.
    pub(super) fn new(
        eal: &Eal,
        plan: &NumaPlan,
        config: &RuntimeConfig,
        workers: usize,
    ) -> Result<Self, MempoolError> {
        let mut pools = Vec::with_capacity(plan.pools.len());
        let mut notes = Vec::new();
        for (number, node) in plan.pools.iter().enumerate() {
            let ports = plan.pool_of_port.iter().map(|pool| *pool == number);
            let name = if number == 0 { "uvs_packets".to_owned() } else { format!("uvs_packets_{number}") };
            let wanted = MempoolConfig { name, socket: *node, ..configuration(config, ports, workers) };
            let pool = match (Mempool::new(eal, &wanted), node) {
                (Err(error), Some(node)) => {
                    notes.push(format!("packet buffers of NUMA node {node} are elsewhere: {error}"));
                    Mempool::new(eal, &MempoolConfig { socket: None, ..wanted })?
                }
                (made, _) => made?,
            };
            pools.push(pool);
        }
        Ok(Self { pools, of_port: plan.pool_of_port.clone(), of_worker: plan.pool_of_worker.clone(), notes })
    }

    fn get(&self, places: &[usize], number: usize) -> &Mempool {
        &self.pools[places.get(number).copied().unwrap_or(0)]
    }

    /// The pool that a port's queues are filled from.
    pub(super) fn of_port(&self, port: usize) -> &Mempool {
        self.get(&self.of_port, port)
    }

    /// The pool for what a worker makes itself.
    pub(super) fn of_worker(&self, worker: usize) -> &Mempool {
        self.get(&self.of_worker, worker)
    }

    /// The pool for the kernel's frames.
    pub(super) fn of_kernel(&self) -> &Mempool {
        &self.pools[0]
    }

    /// Buffers in use, buffers in all, bytes.
    pub(super) fn usage(&self) -> (usize, usize, u64) {
        self.pools.iter().fold((0, 0, 0), |(used, all, bytes), pool| {
            (used + pool.in_use(), all + pool.capacity(), bytes + pool.memory_bytes())
        })
    }
}

/// Every buffer that may be somewhere at once: descriptors, rings, caches, transmit buffers, what is parked or held. `ports` says which
/// of the ports take buffers from this pool.
fn configuration(config: &RuntimeConfig, ports: impl Iterator<Item = bool>, workers: usize) -> MempoolConfig {
    const CACHE: u32 = 512;
    let own = config.ports.iter().zip(ports).filter(|(_, own)| *own).map(|(port, _)| port.rx_descriptors);
    let received: usize = own.map(|descriptors| usize::from(descriptors) + dpdk::BURST).sum();
    // What came in by any port may wait in any other's transmit queue.
    let sent: usize = config.ports.iter().map(|port| usize::from(port.tx_descriptors) + dpdk::BURST).sum();
    let held = config.limits.parked + config.limits.fragments as usize + 2 * CACHE as usize;
    let buffers = workers * (received + sent + held) + rings::capacity(workers) + 1024;
    let mtu = config.ports.iter().filter_map(|port| port.mtu).max().unwrap_or(1500);
    MempoolConfig {
        buffers: u32::try_from(buffers).unwrap_or(u32::MAX).next_power_of_two().saturating_sub(1),
        cache: CACHE,
        data_room: dpdk::mempool::data_room_for_mtu(mtu),
        ..MempoolConfig::default()
    }
}
