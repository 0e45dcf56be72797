//! On which NUMA node workers and ports are, and where their memory belongs.
//!
//! A worker's tables belong on its own node: it allocates them itself, and the kernel takes pages from the node of the CPU that first
//! touches them. Packet buffers belong on the port's node, since the NIC writes every packet and the worker a line of it. A worker on
//! another node than its port works, but every packet crosses the link between the sockets.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Nodes as the kernel tells of them.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    cpus: PathBuf,
}

impl Topology {
    /// This machine's.
    pub(super) fn system() -> Self {
        Self::below(Path::new("/sys"))
    }

    /// That of a directory laid out as `/sys`.
    fn below(root: &Path) -> Self {
        Self { cpus: root.join("devices/system/cpu") }
    }

    /// A CPU's node; `None` when the kernel knows none.
    fn node_of(&self, cpu: u32) -> Option<u32> {
        let entries = fs::read_dir(self.cpus.join(format!("cpu{cpu}"))).ok()?;
        entries.flatten().find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
    }
}

/// Where everything is, and is to be. By worker and by port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaPlan {
    /// The workers' nodes, where known.
    pub workers: Vec<Option<u32>>,
    /// The ports' nodes, where known: a virtual device has none.
    pub ports: Vec<Option<u32>>,
    /// The node of each pool of packet buffers; `None` where it does not matter.
    pub pools: Vec<Option<u32>>,
    /// The pool of each port.
    pub pool_of_port: Vec<usize>,
    /// The pool that each worker takes buffers from for packets that it makes.
    pub pool_of_worker: Vec<usize>,
}

impl NumaPlan {
    /// For workers on `cpus` and ports on the nodes that their drivers tell. A port without a node gets buffers on the first worker's.
    pub(super) fn new(topology: &Topology, cpus: &[u32], ports: &[Option<u32>]) -> Self {
        let workers: Vec<Option<u32>> = cpus.iter().map(|cpu| topology.node_of(*cpu)).collect();
        let home = workers.iter().flatten().next().copied();
        let wanted: Vec<Option<u32>> = ports.iter().map(|port| port.or(home)).collect();
        let distinct: BTreeSet<u32> = wanted.iter().chain(&workers).flatten().copied().collect();
        let mut pools: Vec<Option<u32>> = Vec::new();
        if distinct.len() > 1 {
            for node in &wanted {
                if !pools.contains(node) {
                    pools.push(*node);
                }
            }
        }
        // One node: wherever DPDK finds memory is right.
        if pools.is_empty() {
            pools.push(None);
        }
        let place = |node: &Option<u32>| pools.iter().position(|pool| pool == node).unwrap_or(0);
        let (pool_of_port, pool_of_worker) =
            (wanted.iter().map(place).collect(), workers.iter().map(place).collect());
        Self { workers, ports: ports.to_vec(), pools, pool_of_port, pool_of_worker }
    }

    /// Workers on another node than a port, in words. `cpus` and `ports` name them.
    #[must_use]
    pub fn warnings(&self, cpus: &[u32], ports: &[&str]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (port, on) in ports.iter().zip(&self.ports) {
            let Some(on) = on else { continue };
            let elsewhere: Vec<String> = (self.workers.iter().zip(cpus))
                .filter(|(worker, _)| worker.is_some_and(|node| node != *on))
                .map(|(_, cpu)| cpu.to_string())
                .collect();
            if !elsewhere.is_empty() {
                warnings.push(format!(
                    "port {port} is on NUMA node {on}, workers on CPUs {} are not: every packet of theirs crosses between nodes; \
                     give [workers] CPUs of node {on}",
                    elsewhere.join(" ")
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as `/sys` with CPUs on these nodes, `None` as on a kernel without NUMA.
    fn machine(name: &str, nodes: &[Option<u32>]) -> Topology {
        let root = std::env::temp_dir().join(format!("uvs-numa-{name}-{}", std::process::id()));
        for (cpu, node) in nodes.iter().enumerate() {
            let directory = root.join(format!("devices/system/cpu/cpu{cpu}"));
            let link = node.map_or_else(|| "topology".to_owned(), |node| format!("node{node}"));
            fs::create_dir_all(directory.join(link)).unwrap();
        }
        Topology::below(&root)
    }

    fn plan(name: &str, nodes: &[Option<u32>], cpus: &[u32], ports: &[Option<u32>]) -> NumaPlan {
        let topology = machine(name, nodes);
        let plan = NumaPlan::new(&topology, cpus, ports);
        fs::remove_dir_all(topology.cpus.ancestors().nth(3).unwrap()).unwrap();
        plan
    }

    const TWO: [Option<u32>; 4] = [Some(0), Some(0), Some(1), Some(1)];

    #[test]
    fn one_node_is_one_pool_anywhere() {
        for nodes in [[Some(0); 4], [None; 4]] {
            let plan = plan("one", &nodes, &[1, 2], &[nodes[0], None]);
            assert_eq!((plan.pools.as_slice(), plan.pool_of_port.as_slice()), (&[None][..], &[0, 0][..]));
            assert_eq!(plan.pool_of_worker, [0, 0]);
            assert_eq!(plan.warnings(&[1, 2], &["wan", "lan"]), Vec::<String>::new());
        }
    }

    #[test]
    fn buffers_are_on_the_ports_node_and_workers_elsewhere_are_named() {
        let plan = plan("far", &TWO, &[1, 2, 3], &[Some(0)]);
        assert_eq!(
            (plan.workers.as_slice(), &plan.pools),
            (&[Some(0), Some(1), Some(1)][..], &vec![Some(0)])
        );
        let warnings = plan.warnings(&[1, 2, 3], &["wan"]);
        assert!(
            warnings.len() == 1 && warnings[0].contains("port wan is on NUMA node 0, workers on CPUs 2 3")
        );
    }

    #[test]
    fn ports_on_two_nodes_have_a_pool_each() {
        let plan = plan("two", &TWO, &[0, 2], &[Some(1), Some(0), Some(1)]);
        assert_eq!(
            (plan.pools.as_slice(), plan.pool_of_port.as_slice()),
            (&[Some(1), Some(0)][..], &[0, 1, 0][..])
        );
        assert_eq!(plan.pool_of_worker, [1, 0]);
        assert_eq!(plan.warnings(&[0, 2], &["a", "b", "c"]).len(), 3);
    }

    #[test]
    fn a_port_without_a_node_gets_buffers_where_the_first_worker_is() {
        let plan = plan("virtual", &TWO, &[3, 0], &[None, Some(0)]);
        assert_eq!(
            (plan.pools.as_slice(), plan.pool_of_port.as_slice()),
            (&[Some(1), Some(0)][..], &[0, 1][..])
        );
        assert_eq!(plan.ports, [None, Some(0)]);
        assert_eq!(plan.warnings(&[3, 0], &["virtual", "wan"]).len(), 1);
    }

    #[test]
    fn a_cpu_that_is_not_there_has_no_node() {
        let plan = plan("gone", &TWO, &[9], &[Some(1)]);
        assert_eq!((plan.workers.as_slice(), plan.pools.as_slice()), (&[None][..], &[None][..]));
    }

    #[test]
    fn this_machine_is_read() {
        let topology = Topology::system();
        assert!(topology.node_of(0).is_none_or(|node| node < 1024));
    }
}
