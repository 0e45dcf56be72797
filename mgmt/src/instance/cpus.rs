//! Which CPU each thread runs on: a worker has one of its own, everything else shares what is left.

use std::sync::atomic::{AtomicUsize, Ordering};

use core_affinity::CoreId;

use crate::config::Workers;

/// CPUs of workers and of all other threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// By worker.
    pub workers: Vec<u16>,
    /// For everything that is not a worker, at least one.
    pub housekeeping: Vec<u16>,
    /// What an operator should know, in sentences.
    pub warnings: Vec<String>,
}

/// Why threads cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A named CPU is not there, or this process may not use it.
    #[error("{key} names CPU {cpu}, but this process may use CPUs {available:?}")]
    NotAvailable {
        /// The key in the configuration.
        key: &'static str,
        /// The CPU.
        cpu: u16,
        /// What there is.
        available: Vec<u16>,
    },
    /// More workers than CPUs.
    #[error(
        "{workers} workers need as many CPUs, but this process may use {available}; set workers.count = {available} or fewer"
    )]
    TooFew {
        /// `workers.count`.
        workers: u16,
        /// How many there are.
        available: usize,
    },
}

/// Places workers on the last CPUs and the rest on those before, unless the configuration says otherwise.
///
/// # Errors
///
/// The configuration asks for CPUs that are not there.
pub fn place(workers: &Workers, available: &[u16]) -> Result<Placement, PlacementError> {
    for (key, cpus) in
        [("workers.cpus", &workers.cpus), ("workers.housekeeping_cpus", &workers.housekeeping_cpus)]
    {
        if let Some(cpu) = cpus.0.iter().find(|cpu| !available.contains(cpu)) {
            return Err(PlacementError::NotAvailable { key, cpu: *cpu, available: available.to_vec() });
        }
    }
    let count = usize::from(workers.count);
    let too_few = PlacementError::TooFew { workers: workers.count, available: available.len() };
    let first = available.len().checked_sub(count).ok_or(too_few)?;
    let own = if workers.cpus.0.is_empty() { available[first..].to_vec() } else { workers.cpus.0.clone() };
    let mut warnings = Vec::new();
    let housekeeping = if workers.housekeeping_cpus.0.is_empty() {
        let free: Vec<u16> = available.iter().copied().filter(|cpu| !own.contains(cpu)).collect();
        if free.is_empty() { available.to_vec() } else { free }
    } else {
        workers.housekeeping_cpus.0.clone()
    };
    let shared: Vec<u16> = housekeeping.iter().copied().filter(|cpu| own.contains(cpu)).collect();
    if !shared.is_empty() {
        warnings.push(format!(
            "CPUs {shared:?} run a worker and everything else: expect stalls of milliseconds; use fewer workers or more CPUs"
        ));
    }
    Ok(Placement { workers: own, housekeeping, warnings })
}

/// Gives threads their CPU, the housekeeping CPUs in turn.
#[derive(Debug)]
pub struct Housekeeping {
    cpus: Vec<u16>,
    next: AtomicUsize,
}

impl Housekeeping {
    /// For threads on these CPUs.
    #[must_use]
    pub fn new(cpus: Vec<u16>) -> Self {
        Self { cpus, next: AtomicUsize::new(0) }
    }

    /// CPUs this process may use.
    #[must_use]
    pub fn available() -> Vec<u16> {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        ids.into_iter().filter_map(|core| u16::try_from(core.id).ok()).collect()
    }

    /// Puts the calling thread on the next housekeeping CPU; `false` when the system refuses. The EAL leaves its caller,
    /// and so every thread started afterwards, on the main lcore's CPU.
    pub fn pin(&self) -> bool {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let chosen = self.cpus.get(turn.checked_rem(self.cpus.len()).unwrap_or(0));
        chosen.is_some_and(|cpu| core_affinity::set_for_current(CoreId { id: usize::from(*cpu) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CpuList;

    fn workers(count: u16, cpus: &[u16], housekeeping: &[u16]) -> Workers {
        Workers {
            count,
            cpus: CpuList(cpus.to_vec()),
            housekeeping_cpus: CpuList(housekeeping.to_vec()),
            ..Workers::default()
        }
    }

    #[test]
    fn workers_get_the_last_cpus() {
        let placed = place(&workers(2, &[], &[]), &[0, 1, 2, 3]).unwrap();
        assert_eq!((placed.workers, placed.housekeeping), (vec![2, 3], vec![0, 1]));
        assert_eq!(placed.warnings, Vec::<String>::new());
    }

    #[test]
    fn sharing_a_cpu_is_allowed_and_said() {
        let placed = place(&workers(2, &[], &[]), &[0, 1]).unwrap();
        assert_eq!((placed.workers, placed.housekeeping), (vec![0, 1], vec![0, 1]));
        assert!(placed.warnings[0].contains("expect stalls"), "{:?}", placed.warnings);
    }

    #[test]
    fn what_is_named_is_used_or_refused() {
        let placed = place(&workers(1, &[0], &[1]), &[0, 1]).unwrap();
        assert_eq!((placed.workers, placed.housekeeping), (vec![0], vec![1]));
        assert!(matches!(place(&workers(3, &[], &[]), &[0, 1]), Err(PlacementError::TooFew { .. })));
        let error = place(&workers(1, &[9], &[]), &[0, 1]).unwrap_err();
        assert!(error.to_string().contains("workers.cpus names CPU 9"), "{error}");
    }

    #[test]
    fn a_pinned_thread_is_where_it_was_put() {
        let Some(first) = Housekeeping::available().first().copied() else { return };
        let housekeeping = Housekeeping::new(vec![first]);
        let masks = std::thread::spawn(move || {
            assert!(housekeeping.pin());
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let masks = masks.join().unwrap();
        let list = masks.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        assert_eq!(list.trim(), first.to_string());
        assert!(!Housekeeping::new(Vec::new()).pin());
    }
}
