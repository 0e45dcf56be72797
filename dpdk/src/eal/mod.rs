//! The environment abstraction layer: DPDK's start-up, once per process.

mod config;
mod memory;

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use config::{EalConfig, Hugepages, allowed_cpus};
pub use memory::{HugepageState, MemoryMode};

use crate::errno::Errno;
use crate::log::{self, LogTail};

/// Why the EAL did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// This build has no libdpdk.
    #[error("built without DPDK (feature `stub`)")]
    Stub,
    /// DPDK can be initialised once per process, even after a shutdown.
    #[error("the EAL was already initialised in this process; DPDK allows it once")]
    AlreadyInitialised,
    /// A configuration value that the EAL would misread.
    #[error("EAL configuration: {0}")]
    Invalid(String),
    /// Hugepages are required and there are too few.
    #[error(
        "hugepages are required: {asked_mib} MiB asked, {free_mib} MiB free; reserve them with \
         `echo {pages} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`"
    )]
    NoHugepages {
        /// What the configuration asks for.
        asked_mib: u32,
        /// What is free, all page sizes together.
        free_mib: u64,
        /// 2 MiB pages that would do, counting those already reserved.
        pages: u64,
    },
    /// `rte_eal_init` failed.
    #[error("the EAL did not start: {errno}{log}; arguments: {arguments}")]
    Init {
        /// The reason as a number.
        errno: Errno,
        /// What DPDK logged meanwhile.
        log: LogTail,
        /// What it was given.
        arguments: String,
    },
    /// Something still uses the EAL.
    #[error("the EAL is still in use: {0} handles (ports, queues, mempools, workers) are alive")]
    InUse(usize),
    /// `rte_eal_cleanup` failed.
    #[error("the EAL did not clean up: {0}")]
    Cleanup(Errno),
}

static STARTED: AtomicBool = AtomicBool::new(false);

/// Cleans up when the last handle goes.
#[derive(Debug)]
pub(crate) struct EalGuard {
    control: Mutex<Control>,
    pub(crate) memory_mib: u32,
    runtime_directory: Option<PathBuf>,
    cleaned: bool,
}

/// Taken by calls that DPDK wants one at a time: launching jobs, attaching and removing devices.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Ports that a `Device` or `Port` stands for.
    pub(crate) attached: BTreeSet<u16>,
}

impl EalGuard {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the directory that DPDK makes and leaves, if it is empty: another instance's files, or the
    /// telemetry socket, keep it.
    fn remove_directory(&self) {
        if let Some(directory) = &self.runtime_directory {
            let _ = std::fs::remove_dir(directory);
        }
    }

    fn clean_up(&mut self) -> Result<(), Errno> {
        if std::mem::replace(&mut self.cleaned, true) {
            return Ok(());
        }
        // SAFETY: the EAL is initialised, this runs once, and the only callers have the last handle: no
        // port, mempool or worker is left.
        let result = unsafe { dpdk_sys::rte_eal_cleanup() };
        self.remove_directory();
        Errno::check(result).map(drop)
    }
}

impl Drop for EalGuard {
    fn drop(&mut self) {
        let _ = self.clean_up();
    }
}

/// The running EAL. Everything made from it keeps it alive; see the crate's documentation.
#[derive(Debug)]
pub struct Eal {
    guard: Arc<EalGuard>,
    memory: MemoryMode,
    arguments: Vec<String>,
}

impl Eal {
    /// Starts the EAL. The calling thread becomes the main lcore: it is bound to the housekeeping CPUs, and
    /// so is every thread that it starts later.
    ///
    /// # Errors
    /// Refused on a second call, in a stub build, without the hugepages that were required, or for DPDK's
    /// own reasons, which the error quotes.
    pub fn init(config: &EalConfig) -> Result<Self, EalError> {
        if dpdk_sys::STUB {
            return Err(EalError::Stub);
        }
        config.validate()?;
        let memory = memory::choose(config.hugepages, config.memory_mib, &HugepageState::read())?;
        let arguments = config.arguments(&memory);
        let strings = c_strings(&arguments)?;
        let count =
            i32::try_from(strings.len()).map_err(|_| EalError::Invalid("too many arguments".into()))?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyInitialised);
        }
        let refused = |(errno, log)| EalError::Init { errno, log, arguments: arguments.join(" ") };
        log::record(|| log::redirect(config.log_sink)).map_err(refused)?;
        // DPDK keeps pointers into the arguments and may permute them: they live as long as the process.
        let mut pointers: Vec<*mut c_char> = strings.into_iter().map(CString::into_raw).collect();
        pointers.push(std::ptr::null_mut());
        let argv = pointers.leak().as_mut_ptr();
        log::record(|| {
            // SAFETY: `argv` holds `count` NUL-terminated strings and a null pointer, leaked above; this is
            // the only call in the life of the process.
            let result = unsafe { dpdk_sys::rte_eal_init(count, argv) };
            if result < 0 { Err(Errno::last()) } else { Ok(()) }
        })
        .map_err(refused)?;
        let guard = EalGuard {
            control: Mutex::default(),
            memory_mib: config.memory_mib,
            runtime_directory: runtime_directory(),
            cleaned: false,
        };
        // Without telemetry nothing will ever be in there, and a killed process cannot remove it.
        guard.remove_directory();
        Ok(Self { guard: Arc::new(guard), memory, arguments })
    }

    /// The memory that was chosen.
    #[must_use]
    pub fn memory(&self) -> &MemoryMode {
        &self.memory
    }

    /// The arguments that the EAL was started with.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// DPDK's version, such as "DPDK 22.11.11".
    #[must_use]
    pub fn version(&self) -> &'static str {
        // SAFETY: returns a pointer to a constant string.
        let version = unsafe { dpdk_sys::rte_version() };
        static_text(version).unwrap_or("DPDK")
    }

    /// Stops the EAL and removes its files. (Dropping everything does the same without an answer.)
    ///
    /// # Errors
    /// Refused while ports, queues, mempools or workers are alive; the EAL is then cleaned up when the last
    /// of them is dropped.
    pub fn shutdown(self) -> Result<(), EalError> {
        let others = Arc::strong_count(&self.guard) - 1;
        let Some(mut guard) = Arc::into_inner(self.guard) else { return Err(EalError::InUse(others)) };
        guard.clean_up().map_err(EalError::Cleanup)
    }

    pub(crate) fn guard(&self) -> &Arc<EalGuard> {
        &self.guard
    }
}

/// `/var/run/dpdk/PREFIX`, or the user's counterpart.
fn runtime_directory() -> Option<PathBuf> {
    // SAFETY: returns a pointer to a static buffer.
    let path = unsafe { dpdk_sys::rte_eal_get_runtime_dir() };
    static_text(path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A C string in static memory that does not change any more.
fn static_text(text: *const c_char) -> Option<&'static str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: both callers pass NUL-terminated static strings that are final once the EAL runs.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok()
}

fn c_strings(arguments: &[String]) -> Result<Vec<CString>, EalError> {
    arguments
        .iter()
        .map(|argument| {
            CString::new(argument.as_str())
                .map_err(|_| EalError::Invalid(format!("{argument:?} contains a NUL byte")))
        })
        .collect()
}
