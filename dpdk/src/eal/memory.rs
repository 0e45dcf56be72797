//! Hugepages or ordinary memory.

use std::fmt;
use std::fs;
use std::path::Path;

use super::{EalError, Hugepages};

const KERNEL_HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// Reserved pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PageSize {
    kib: u64,
    total: u64,
    free: u64,
}

/// What the kernel has reserved, by page size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugepageState {
    sizes: Vec<PageSize>,
}

impl HugepageState {
    /// Reads `/sys/kernel/mm/hugepages`; nothing there means no hugepages.
    #[must_use]
    pub fn read() -> Self {
        Self::read_from(Path::new(KERNEL_HUGEPAGES))
    }

    fn read_from(directory: &Path) -> Self {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut sizes: Vec<PageSize> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
                let total = number(&entry.path().join("nr_hugepages"))?;
                let free = number(&entry.path().join("free_hugepages"))?;
                Some(PageSize { kib, total, free })
            })
            .collect();
        sizes.sort_by_key(|size| size.kib);
        Self { sizes }
    }

    /// Free memory in hugepages of all sizes.
    #[must_use]
    pub fn free_mib(&self) -> u64 {
        self.sizes.iter().map(|size| size.kib * size.free).sum::<u64>() / 1024
    }

    /// The count of 2 MiB pages that would leave `mib` free, with what is in use today.
    fn pages_for(&self, mib: u32) -> u64 {
        let used = self.sizes.iter().find(|size| size.kib == 2048).map_or(0, |size| size.total - size.free);
        used + u64::from(mib).div_ceil(2)
    }
}

/// The memory that the EAL runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryMode {
    /// Hugepages, anonymous: nothing is left behind, and no other process can attach.
    Hugepages {
        /// What was free at start.
        free_mib: u64,
    },
    /// Ordinary 4 KiB pages: works everywhere, some nanoseconds a packet slower (TLB misses).
    Ordinary {
        /// Why not hugepages, and what to do about it.
        reason: String,
    },
}

impl fmt::Display for MemoryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hugepages { free_mib } => write!(f, "hugepages ({free_mib} MiB were free)"),
            Self::Ordinary { reason } => write!(f, "ordinary pages, slower than hugepages ({reason})"),
        }
    }
}

pub(super) fn choose(wish: Hugepages, asked_mib: u32, state: &HugepageState) -> Result<MemoryMode, EalError> {
    let free_mib = state.free_mib();
    let pages = state.pages_for(asked_mib);
    match wish {
        Hugepages::Never => Ok(MemoryMode::Ordinary { reason: "hugepages = never".to_owned() }),
        _ if free_mib >= u64::from(asked_mib) => Ok(MemoryMode::Hugepages { free_mib }),
        Hugepages::Required => Err(EalError::NoHugepages { asked_mib, free_mib, pages }),
        Hugepages::Auto => Ok(MemoryMode::Ordinary {
            reason: format!(
                "{free_mib} MiB of hugepages are free, {asked_mib} MiB asked; to reserve them: \
                 echo {pages} > {KERNEL_HUGEPAGES}/hugepages-2048kB/nr_hugepages"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(total: u64, free: u64) -> HugepageState {
        HugepageState { sizes: vec![PageSize { kib: 2048, total, free }] }
    }

    #[test]
    fn auto_takes_hugepages_only_when_all_fits() {
        assert_eq!(
            choose(Hugepages::Auto, 512, &state(256, 256)).unwrap(),
            MemoryMode::Hugepages { free_mib: 512 }
        );
        let MemoryMode::Ordinary { reason } = choose(Hugepages::Auto, 512, &state(300, 255)).unwrap() else {
            panic!("255 pages are 510 MiB")
        };
        assert!(reason.contains("510 MiB of hugepages are free, 512 MiB asked"), "{reason}");
        assert!(reason.contains("echo 301 >"), "45 are in use, 256 are wanted: {reason}");
    }

    #[test]
    fn required_refuses_with_the_remedy() {
        let error = choose(Hugepages::Required, 64, &HugepageState::default()).unwrap_err().to_string();
        assert!(error.contains("64 MiB asked, 0 MiB free"), "{error}");
        assert!(error.contains("echo 32 >"), "{error}");
    }

    #[test]
    fn never_means_never() {
        assert!(matches!(
            choose(Hugepages::Never, 1, &state(100, 100)).unwrap(),
            MemoryMode::Ordinary { .. }
        ));
    }

    #[test]
    fn page_sizes_add_up() {
        let base = std::env::temp_dir().join(format!("uvs-hugepages-{}", std::process::id()));
        for (name, total, free) in [("hugepages-2048kB", "8\n", "4\n"), ("hugepages-1048576kB", "1\n", "1\n")]
        {
            let directory = base.join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("nr_hugepages"), total).unwrap();
            fs::write(directory.join("free_hugepages"), free).unwrap();
        }
        assert_eq!(HugepageState::read_from(&base).free_mib(), 1024 + 8);
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(HugepageState::read_from(&base).free_mib(), 0);
    }
}
