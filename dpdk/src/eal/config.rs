//! What the EAL is asked for, as its command line.

use std::fs;

use super::{EalError, MemoryMode};
use crate::log::{LogLevel, LogSink, to_stderr};
use crate::port::pci_address;

/// Whether packet memory must be in hugepages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// Hugepages when enough are free, else ordinary memory.
    #[default]
    Auto,
    /// Hugepages or an error.
    Required,
    /// Ordinary memory.
    Never,
}

/// How to start the EAL.
#[derive(Debug, Clone)]
pub struct EalConfig {
    /// Name of this instance among DPDK processes; its runtime directory is `/var/run/dpdk/PREFIX`.
    pub file_prefix: String,
    /// Memory for mempools and rings, MiB.
    pub memory_mib: u32,
    /// Whether that memory must be in hugepages.
    pub hugepages: Hugepages,
    /// CPUs of the main lcore and of every thread that is not a worker; empty: all that the process may use.
    pub housekeeping_cpus: Vec<u32>,
    /// One worker lcore (1, 2, …) for each, bound to that CPU; a CPU may appear twice.
    pub worker_cpus: Vec<u32>,
    /// The devices that will be attached. Virtual ones are not probed here but by [`crate::Eal::attach`],
    /// which can say what is wrong with each; PCI ones become the allow-list. Without a PCI device the PCI
    /// bus is not even scanned.
    pub devices: Vec<String>,
    /// Least severe level that reaches the sink.
    pub log_level: LogLevel,
    /// Where DPDK's log goes.
    pub log_sink: LogSink,
    /// Whether to serve DPDK's telemetry socket below the runtime directory.
    pub telemetry: bool,
    /// Appended to the composed arguments.
    pub extra_args: Vec<String>,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            file_prefix: "uvs".to_owned(),
            memory_mib: 512,
            hugepages: Hugepages::Auto,
            housekeeping_cpus: Vec::new(),
            worker_cpus: Vec::new(),
            devices: Vec::new(),
            log_level: LogLevel::Warning,
            log_sink: to_stderr,
            telemetry: false,
            extra_args: Vec::new(),
        }
    }
}

impl EalConfig {
    pub(super) fn validate(&self) -> Result<(), EalError> {
        let invalid = |text: String| Err(EalError::Invalid(text));
        let prefix = &self.file_prefix;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if prefix.is_empty() || prefix.starts_with('.') || !prefix.chars().all(plain) {
            return invalid(format!("file prefix {prefix:?} is not a plain name (letters, digits, - _ .)"));
        }
        if self.memory_mib == 0 {
            return invalid("0 MiB of memory".to_owned());
        }
        let most = usize::try_from(dpdk_sys::RTE_MAX_LCORE).unwrap_or(usize::MAX);
        if self.worker_cpus.len() >= most {
            return invalid(format!("{} workers, DPDK is built for {most} lcores", self.worker_cpus.len()));
        }
        Ok(())
    }

    /// The EAL's command line, program name first.
    #[must_use]
    pub fn arguments(&self, memory: &MemoryMode) -> Vec<String> {
        let mut arguments = vec![
            "uvs".to_owned(),
            format!("--file-prefix={}", self.file_prefix),
            format!("--lcores={}", self.lcores()),
            format!("--log-level={}", self.log_level.number()),
            "-m".to_owned(),
            self.memory_mib.to_string(),
        ];
        let memory_arguments: &[&str] = match memory {
            // --in-memory and --no-huge exclude each other in 22.11; both run without shared files.
            MemoryMode::Hugepages { .. } => &["--in-memory", "--iova-mode=va"],
            MemoryMode::Ordinary { .. } => &["--no-huge", "--no-shconf"],
        };
        arguments.extend(memory_arguments.iter().map(ToString::to_string));
        if !self.telemetry {
            arguments.push("--no-telemetry".to_owned());
        }
        let pci: Vec<String> = self.devices.iter().filter_map(|device| pci_allow(device)).collect();
        if pci.is_empty() {
            arguments.push("--no-pci".to_owned());
        }
        for address in pci {
            arguments.extend(["-a".to_owned(), address]);
        }
        arguments.extend(self.extra_args.iter().cloned());
        arguments
    }

    fn lcores(&self) -> String {
        let housekeeping =
            if self.housekeeping_cpus.is_empty() { allowed_cpus() } else { self.housekeeping_cpus.clone() };
        let list: Vec<String> = housekeeping.iter().map(u32::to_string).collect();
        let mut text = format!("0@({})", list.join(","));
        for (index, cpu) in self.worker_cpus.iter().enumerate() {
            text.push_str(&format!(",{}@{cpu}", index + 1));
        }
        text
    }
}

/// A PCI device with its arguments, address in full form.
fn pci_allow(device: &str) -> Option<String> {
    let address = pci_address(device)?;
    let arguments = device.split_once(',').map_or(String::new(), |(_, rest)| format!(",{rest}"));
    Some(format!("{address}{arguments}"))
}

/// The CPUs that the calling thread may run on, from `/proc`; CPU 0 if that cannot be read.
#[must_use]
pub fn allowed_cpus() -> Vec<u32> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let cpus = parse_cpu_list(list.trim());
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Parses the kernel's list format, such as `0-3,8`.
fn parse_cpu_list(list: &str) -> Vec<u32> {
    list.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EalConfig {
        EalConfig { housekeeping_cpus: vec![0, 2], worker_cpus: vec![1, 3], ..EalConfig::default() }
    }

    #[test]
    fn arguments_for_hugepages() {
        let arguments = config().arguments(&MemoryMode::Hugepages { free_mib: 512 }).join(" ");
        assert_eq!(
            arguments,
            "uvs --file-prefix=uvs --lcores=0@(0,2),1@1,2@3 --log-level=5 -m 512 --in-memory --iova-mode=va \
             --no-telemetry --no-pci"
        );
    }

    #[test]
    fn arguments_for_ordinary_memory() {
        let arguments = config().arguments(&MemoryMode::Ordinary { reason: String::new() }).join(" ");
        assert!(arguments.contains("--no-huge --no-shconf"), "{arguments}");
        assert!(!arguments.contains("--in-memory"), "they exclude each other: {arguments}");
    }

    #[test]
    fn pci_devices_are_the_allow_list_and_vdevs_are_left_to_attach() {
        let config = EalConfig {
            devices: vec!["net_null0".into(), "3b:00.0,arg=1".into(), "0000:3b:00.1".into()],
            telemetry: true,
            extra_args: vec!["--single-file-segments".into()],
            ..config()
        };
        let arguments = config.arguments(&MemoryMode::Ordinary { reason: String::new() }).join(" ");
        assert!(
            arguments.ends_with("-a 0000:3b:00.0,arg=1 -a 0000:3b:00.1 --single-file-segments"),
            "{arguments}"
        );
        assert!(!arguments.contains("--no-pci"), "{arguments}");
        assert!(!arguments.contains("net_null"), "{arguments}");
        assert!(!arguments.contains("--no-telemetry"), "{arguments}");
    }

    #[test]
    fn bad_configurations_are_refused() {
        for prefix in ["", "a/b", ".hidden", "a b"] {
            let config = EalConfig { file_prefix: prefix.to_owned(), ..config() };
            assert!(config.validate().is_err(), "{prefix:?}");
        }
        assert!(EalConfig { memory_mib: 0, ..config() }.validate().is_err());
        assert!(EalConfig { worker_cpus: vec![0; 200], ..config() }.validate().is_err());
        assert!(config().validate().is_ok());
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3,8"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpu_list(""), Vec::<u32>::new());
        assert!(!allowed_cpus().is_empty());
    }
}
