//! What the machine is like, and where on it threads run.

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The machine, in so many words as a reader of the figures needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Processor's name.
    pub(crate) processor: String,
    /// CPUs online.
    pub(crate) cpus: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Rate of the time stamp counter in GHz.
    pub(crate) tsc_ghz: f64,
    /// Whether a hypervisor runs it.
    pub(crate) virtual_machine: bool,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::from_cpuinfo(&cpuinfo, kernel.trim())
    }

    fn from_cpuinfo(cpuinfo: &str, kernel: &str) -> Result<Self> {
        // On x86 the kernel takes its loops per jiffy from the time stamp counter: BogoMIPS are twice its MHz.
        let bogomips: f64 = field(cpuinfo, "bogomips")
            .and_then(|value| value.parse().ok())
            .context("/proc/cpuinfo has no bogomips: is this an x86-64 Linux?")?;
        Ok(Self {
            processor: field(cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: kernel.to_owned(),
            tsc_ghz: bogomips / 2000.0,
            virtual_machine: field(cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        })
    }

    /// The CPU for the only poller: the last, since the first does the kernel's housekeeping.
    pub(crate) fn last_cpu(&self) -> usize {
        self.cpus.saturating_sub(1)
    }
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Pins the calling thread to one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        bail!("there is no CPU {cpu}");
    }
    set.set(cpu);
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot run on CPU {cpu}: this machine or this cgroup has no such CPU"))
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time that a thread of a process has had, from the scheduler's own count in nanoseconds.
pub(crate) fn cpu_of(process: u32, thread: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/task/{thread}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds.map(Duration::from_nanos).with_context(|| format!("{path} holds `{}`", text.trim()))
}

/// DPDK's names for the threads of worker lcores: since 23.11, 22.11, and before.
const WORKER_NAMES: [&str; 3] = ["dpdk-worker", "rte-worker", "lcore-worker"];

/// The worker lcores of a process, in order of their names.
pub(crate) fn worker_threads(process: u32) -> Result<Vec<u32>> {
    let directory = format!("/proc/{process}/task");
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let thread = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(thread) = thread
            && let Some(number) = worker_number(name.trim())
        {
            found.push((number, thread));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, thread)| thread).collect())
}

fn worker_number(name: &str) -> Option<u32> {
    let rest = WORKER_NAMES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    rest.trim_start_matches('-').parse().ok()
}

/// Free hugepages of 2 MiB or 1 GiB, in MiB.
pub(crate) fn free_hugepages_mib() -> u64 {
    let sizes = [("2048kB", 2), ("1048576kB", 1024)];
    let free = |(size, mib): (&str, u64)| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-{size}/free_hugepages");
        let pages =
            fs::read_to_string(Path::new(&path)).ok().and_then(|text| text.trim().parse::<u64>().ok());
        pages.unwrap_or(0) * mib
    };
    sizes.into_iter().map(free).sum()
}

/// Memory that can be had without swapping, in bytes.
pub(crate) fn available_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = field(&meminfo, "MemAvailable").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The C library's setting that puts large allocations on huge pages, as the director's own tables are.
const HEAP: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Starts this program once more with its heap on huge pages, unless it is or the user has settings of his own.
pub(crate) fn with_huge_heap() -> Result<()> {
    if std::env::var_os(HEAP.0).is_some() {
        return Ok(());
    }
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let error = Command::new(own).args(std::env::args_os().skip(1)).env(HEAP.0, HEAP.1).exec();
    Err(error).context("cannot start this program again with its heap on huge pages")
}

/// Whether this process may do what EAL needs.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_processor() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu hypervisor sse\nbogomips\t: 5000.00\n\n\
                    processor\t: 1\nmodel name\t: A CPU\nbogomips\t: 5000.00\n";
        let machine = Machine::from_cpuinfo(text, "6.1.0").unwrap();
        assert_eq!((machine.processor.as_str(), machine.cpus, machine.last_cpu()), ("A CPU", 2, 1));
        assert!((machine.tsc_ghz - 2.5).abs() < 1e-9 && machine.virtual_machine);
        assert!(Machine::from_cpuinfo("processor: 0\n", "6.1.0").is_err());
    }

    #[test]
    fn knows_worker_threads_by_either_name() {
        assert_eq!(worker_number("dpdk-worker12"), Some(12));
        assert_eq!(worker_number("rte-worker-1"), Some(1));
        assert_eq!(worker_number("lcore-worker-3"), Some(3));
        assert_eq!(worker_number("eal-intr-thread"), None);
        assert_eq!(worker_number("lcore-worker-x"), None);
    }

    #[test]
    fn this_threads_time_is_counted_alike_from_inside_and_outside() {
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let inside = thread_cpu();
        let outside = cpu_of(std::process::id(), thread).unwrap();
        assert!(outside.abs_diff(inside) < Duration::from_millis(50), "{inside:?} {outside:?}");
    }
}
