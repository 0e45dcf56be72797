//! Worker threads: EAL lcores, each bound to its CPU.

use std::ffi::{c_int, c_uint, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::eal::{Eal, EalGuard};
use crate::errno::Errno;

/// A logical core of the EAL: 0 is the main one, workers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LcoreId(u32);

impl LcoreId {
    /// The lcore that the calling thread is, or `None` on any other thread.
    #[must_use]
    pub fn current() -> Option<Self> {
        if dpdk_sys::STUB {
            return None;
        }
        // SAFETY: reads a thread-local integer.
        let id = unsafe { dpdk_sys::rte_lcore_id() };
        (id != dpdk_sys::LCORE_ID_ANY).then_some(Self(id))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LcoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lcore {}", self.0)
    }
}

/// Why a closure was not launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The lcore is still running its last closure.
    #[error("{0} is busy")]
    Busy(LcoreId),
    /// The main lcore, or one that this EAL does not have.
    #[error("{0} is not a worker")]
    NotAWorker(LcoreId),
    /// DPDK's own reason.
    #[error("{0} did not start: {1}")]
    Refused(LcoreId, Errno),
}

impl Eal {
    /// The worker lcores, in order of their numbers.
    pub fn workers(&self) -> impl Iterator<Item = LcoreId> + use<> {
        let next = |after: u32| {
            // SAFETY: reads the EAL's table of lcores, which is fixed after start.
            let id = unsafe { dpdk_sys::rte_get_next_lcore(after, 1, 0) };
            (id < dpdk_sys::RTE_MAX_LCORE).then_some(id)
        };
        std::iter::successors(next(u32::MAX), move |id| next(*id)).map(LcoreId)
    }

    /// The CPUs that `lcore` may run on: one for a worker, the housekeeping CPUs for the main lcore.
    #[must_use]
    pub fn cpus(&self, lcore: LcoreId) -> Vec<u32> {
        if lcore.0 >= dpdk_sys::RTE_MAX_LCORE {
            return Vec::new();
        }
        // SAFETY: copies an element of a table; the index was checked above.
        let set = unsafe { dpdk_sys::rte_lcore_cpuset(lcore.0) };
        let words = set.__bits.iter().zip((0..).step_by(u64::BITS as usize));
        words
            .flat_map(|(word, first)| {
                (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
            })
            .collect()
    }

    /// The NUMA node of `lcore`'s first CPU, as the kernel tells; 0 where it does not.
    ///
    /// Not DPDK's `rte_lcore_to_socket_id`: that, like `rte_lcore_to_cpu_id`, describes the CPU whose number
    /// is the lcore's, which with `--lcores` is another one.
    #[must_use]
    pub fn socket(&self, lcore: LcoreId) -> u32 {
        self.cpus(lcore).first().and_then(|cpu| node_of(*cpu)).unwrap_or(0)
    }

    /// Runs `work` on a worker lcore.
    ///
    /// # Errors
    /// Refused when the lcore is no worker or still busy; `work` is then dropped.
    pub fn launch<F, T>(&self, lcore: LcoreId, work: F) -> Result<LcoreHandle<T>, LaunchError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if !self.workers().any(|worker| worker == lcore) {
            return Err(LaunchError::NotAWorker(lcore));
        }
        let outcome = Arc::new(Outcome { result: Mutex::new(None), done: Condvar::new() });
        let job = Box::new(Job { work, outcome: Arc::clone(&outcome) });
        let argument = Box::into_raw(job);
        let result = {
            let _one_at_a_time = self.guard().lock();
            // SAFETY: `trampoline::<F, T>` takes the pointer to the `Job<F, T>` made above and runs once.
            unsafe {
                dpdk_sys::rte_eal_remote_launch(Some(trampoline::<F, T>), argument.cast::<c_void>(), lcore.0)
            }
        };
        if let Err(errno) = Errno::check(result) {
            // SAFETY: the launch was refused, so nobody else has the box.
            drop(unsafe { Box::from_raw(argument) });
            return Err(if errno == Errno::BUSY {
                LaunchError::Busy(lcore)
            } else {
                LaunchError::Refused(lcore, errno)
            });
        }
        Ok(LcoreHandle { lcore, outcome, guard: Some(Arc::clone(self.guard())) })
    }
}

fn node_of(cpu: u32) -> Option<u32> {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    entries.flatten().find_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
}

struct Job<F, T> {
    work: F,
    outcome: Arc<Outcome<T>>,
}

struct Outcome<T> {
    result: Mutex<Option<thread::Result<T>>>,
    done: Condvar,
}

impl<T> Outcome<T> {
    fn lock(&self) -> MutexGuard<'_, Option<thread::Result<T>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

extern "C" fn trampoline<F, T>(argument: *mut c_void) -> c_int
where
    F: FnOnce() -> T,
{
    // SAFETY: `launch` handed over a leaked `Box<Job<F, T>>`, to this call alone.
    let job = unsafe { Box::from_raw(argument.cast::<Job<F, T>>()) };
    let Job { work, outcome } = *job;
    let result = catch_unwind(AssertUnwindSafe(work));
    *outcome.lock() = Some(result);
    outcome.done.notify_all();
    0
}

/// A closure running on a worker lcore.
///
/// Dropping the handle lets it run on unobserved; the EAL is then never cleaned up, because nobody can know
/// when it would be safe.
pub struct LcoreHandle<T> {
    lcore: LcoreId,
    outcome: Arc<Outcome<T>>,
    guard: Option<Arc<EalGuard>>,
}

impl<T> LcoreHandle<T> {
    /// Where it runs.
    #[must_use]
    pub fn lcore(&self) -> LcoreId {
        self.lcore
    }

    /// Whether the closure has returned (or panicked).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.outcome.lock().is_some()
    }

    /// Waits, asleep, until the closure has returned; the lcore is free afterwards.
    ///
    /// # Errors
    /// The closure's panic, as [`std::thread::JoinHandle::join`] gives it.
    pub fn join(mut self) -> thread::Result<T> {
        let mut slot = self.outcome.lock();
        let result = loop {
            match slot.take() {
                Some(result) => break result,
                None => slot = self.outcome.done.wait(slot).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(slot);
        // The EAL's own wait spins, so it only covers the last steps after the closure.
        // SAFETY: the lcore is a worker of this EAL, which the guard keeps alive.
        unsafe { dpdk_sys::rte_eal_wait_lcore(self.lcore.0 as c_uint) };
        drop(self.guard.take());
        result
    }
}

impl<T> Drop for LcoreHandle<T> {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            std::mem::forget(guard);
        }
    }
}

impl<T> fmt::Debug for LcoreHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LcoreHandle").field("lcore", &self.lcore).finish_non_exhaustive()
    }
}
