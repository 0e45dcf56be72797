//! Schedulers by name.

use serde::{Deserialize, Serialize};

/// The schedulers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Maglev hashing.
    Mh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted fail-over.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Power of two choices.
    Twos,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Mh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
    ];

    /// Name as ipvsadm knows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Mh => "mh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Twos => "twos",
        }
    }

    /// Whether it may choose a destination that has reached its threshold.
    #[must_use]
    pub const fn exceeds_thresholds(self) -> bool {
        matches!(self, Self::Lblc)
    }

    /// Whether it reads connection counts, which then must be shared between workers.
    #[must_use]
    pub const fn reads_counts(self) -> bool {
        matches!(
            self,
            Self::Lc | Self::Wlc | Self::Lblc | Self::Lblcr | Self::Sed | Self::Nq | Self::Ovf | Self::Twos
        )
    }
}

/// Flags of schedulers, as sh and mh read them.
pub mod scheduler_flags {
    /// flag-1 (`sh-fallback`, `mh-fallback`): a client whose destination is not usable gets another one.
    pub const FALLBACK: u8 = 1;
    /// flag-2 (`sh-port`, `mh-port`): the client's port counts too.
    pub const PORT: u8 = 2;
}

/// How mh fills its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Maglev {
    /// Slots: a prime number from [`Maglev::SMALLEST`] to [`Maglev::GREATEST`]. About a hundred for each destination keep their
    /// shares within some percent of their weights.
    pub size: u32,
    /// Destinations take their turns sorted by address and port, so that directors which learnt of them in another order fill the
    /// same table; otherwise in list order, as the kernel.
    pub canonical: bool,
}

impl Maglev {
    /// The smallest table.
    pub const SMALLEST: u32 = 251;
    /// The greatest one.
    pub const GREATEST: u32 = 65_537;
    /// What Linux has by default (`CONFIG_IP_VS_MH_TAB_INDEX` 12).
    pub const KERNEL: Self = Self { size: 4093, canonical: false };

    /// Whether a table can be filled like this.
    #[must_use]
    pub fn is_possible(self) -> bool {
        let divides = |divisor| self.size.is_multiple_of(divisor);
        (Self::SMALLEST..=Self::GREATEST).contains(&self.size)
            && !(2..257).any(|divisor| divides(divisor) && divisor != self.size)
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self::KERNEL
    }
}
