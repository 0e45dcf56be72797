//! Whether there is the memory that was asked for, on hugepages or not.

use std::fs;

use crate::config::Hugepages;

/// What DPDK's memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Reserved hugepages of this many KiB.
    Huge {
        /// 2048 or 1048576.
        kib: u64,
    },
    /// The system's own 4 KiB.
    Small,
}

/// Why there is no memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// `hugepages = "required"`, and too few are free.
    #[error(
        "{free_mib} MiB of hugepages are free, dpdk.memory_mib needs {needed_mib}; \
         reserve them with `sysctl vm.nr_hugepages={pages}` or set dpdk.hugepages = \"auto\""
    )]
    TooFewHugepages {
        /// Free hugepages in MiB.
        free_mib: u64,
        /// `dpdk.memory_mib`.
        needed_mib: u64,
        /// How many of the default size would do, with those that are in use.
        pages: u64,
    },
    /// Not even ordinary memory.
    #[error(
        "{available_mib} MiB of memory are available, dpdk.memory_mib needs {needed_mib}; lower it and [limits]"
    )]
    TooLittle {
        /// `MemAvailable` in MiB.
        available_mib: u64,
        /// `dpdk.memory_mib`.
        needed_mib: u64,
    },
}

fn field(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Chooses pages by policy and by what `/proc/meminfo` says is free.
///
/// # Errors
///
/// Too little memory of the kind that was asked for.
pub fn choose_pages(policy: Hugepages, memory_mib: u32) -> Result<Pages, MemoryError> {
    choose(policy, u64::from(memory_mib), &fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn choose(policy: Hugepages, needed_mib: u64, meminfo: &str) -> Result<Pages, MemoryError> {
    let kib = field(meminfo, "Hugepagesize");
    let free_mib = field(meminfo, "HugePages_Free") * kib / 1_024;
    if policy != Hugepages::Never && free_mib >= needed_mib && kib > 0 {
        return Ok(Pages::Huge { kib });
    }
    if policy == Hugepages::Required {
        let in_use = field(meminfo, "HugePages_Total").saturating_sub(field(meminfo, "HugePages_Free"));
        let pages = in_use + (needed_mib * 1_024).div_ceil(kib.max(1));
        return Err(MemoryError::TooFewHugepages { free_mib, needed_mib, pages });
    }
    let available_mib = field(meminfo, "MemAvailable") / 1_024;
    // Without /proc/meminfo nothing is known; the EAL will say.
    if available_mib > 0 && available_mib < needed_mib {
        return Err(MemoryError::TooLittle { available_mib, needed_mib });
    }
    Ok(Pages::Small)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 8000000 kB\nMemAvailable:    2048000 kB\nHugePages_Total:      64\nHugePages_Free:       32\nHugepagesize:       2048 kB\n";

    #[test]
    fn hugepages_are_used_where_enough_are_free() {
        assert_eq!(choose(Hugepages::Auto, 64, MEMINFO), Ok(Pages::Huge { kib: 2_048 }));
        assert_eq!(choose(Hugepages::Auto, 65, MEMINFO), Ok(Pages::Small));
        assert_eq!(choose(Hugepages::Never, 64, MEMINFO), Ok(Pages::Small));
        assert_eq!(choose(Hugepages::Required, 64, MEMINFO), Ok(Pages::Huge { kib: 2_048 }));
    }

    #[test]
    fn too_little_is_refused_with_the_command_that_helps() {
        let refused = choose(Hugepages::Required, 512, MEMINFO).unwrap_err();
        assert!(refused.to_string().contains("sysctl vm.nr_hugepages=288"), "{refused}");
        let refused = choose(Hugepages::Auto, 4_096, MEMINFO).unwrap_err();
        assert!(refused.to_string().contains("2000 MiB of memory are available"), "{refused}");
        assert_eq!(choose(Hugepages::Auto, 4_096, ""), Ok(Pages::Small));
    }
}
