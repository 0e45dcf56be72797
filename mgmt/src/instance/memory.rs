//! Whether there is the memory that the configuration asks for. The kernel would hand it out all the same, and kill the
//! director when packets come.

use std::fs;

use crate::config::Hugepages;

/// There is too little memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{available_mib} MiB of memory are available, but the connection tables take {tables_mib} MiB and packet memory \
     {packets_mib} MiB; lower limits.connections, limits.connections_ipv6 or dpdk.memory_mib"
)]
pub struct MemoryError {
    /// `MemAvailable` in MiB.
    pub available_mib: u64,
    /// The connection tables in MiB.
    pub tables_mib: u64,
    /// `dpdk.memory_mib`, 0 where it is on hugepages.
    pub packets_mib: u64,
}

fn field(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Whether connection tables of `tables_bytes` and packet memory fit what `/proc/meminfo` says is available.
///
/// # Errors
///
/// They do not.
pub fn check_memory(policy: Hugepages, memory_mib: u32, tables_bytes: u64) -> Result<(), MemoryError> {
    check(policy, memory_mib.into(), tables_bytes, &fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn check(policy: Hugepages, memory_mib: u64, tables_bytes: u64, meminfo: &str) -> Result<(), MemoryError> {
    let free_huge_mib = field(meminfo, "HugePages_Free") * field(meminfo, "Hugepagesize") / 1_024;
    let on_hugepages =
        policy == Hugepages::Required || policy == Hugepages::Auto && free_huge_mib >= memory_mib;
    let packets_mib = if on_hugepages { 0 } else { memory_mib };
    let tables_mib = tables_bytes.div_ceil(1 << 20);
    let available_mib = field(meminfo, "MemAvailable") / 1_024;
    // Without /proc/meminfo nothing is known.
    if available_mib > 0 && tables_mib + packets_mib > available_mib {
        return Err(MemoryError { available_mib, tables_mib, packets_mib });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 8000000 kB\nMemAvailable:    2048000 kB\nHugePages_Free:       32\nHugepagesize:       2048 kB\n";

    #[test]
    fn tables_and_packets_must_fit() {
        let mib = |count: u64| count << 20;
        assert_eq!(check(Hugepages::Auto, 512, mib(1_000), MEMINFO), Ok(()));
        let refused = check(Hugepages::Auto, 512, mib(1_500), MEMINFO).unwrap_err();
        assert_eq!(refused, MemoryError { available_mib: 2_000, tables_mib: 1_500, packets_mib: 512 });
        assert!(refused.to_string().contains("lower limits.connections"), "{refused}");
        // On hugepages packets take nothing of the rest.
        assert_eq!(check(Hugepages::Auto, 64, mib(1_950), MEMINFO), Ok(()));
        assert_eq!(check(Hugepages::Required, 512, mib(1_950), MEMINFO), Ok(()));
        assert!(check(Hugepages::Never, 64, mib(1_950), MEMINFO).is_err());
        assert_eq!(check(Hugepages::Auto, 4_096, mib(1 << 20), ""), Ok(()));
    }
}
