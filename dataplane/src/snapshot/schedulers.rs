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
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted fail-over.
    Fo,
    /// Weighted overflow.
    Ovf,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
    ];

    /// Name as ipvsadm knows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
        }
    }

    /// Whether it reads connection counts, which then must be shared between workers.
    #[must_use]
    pub const fn reads_counts(self) -> bool {
        matches!(self, Self::Lc | Self::Wlc | Self::Sed | Self::Nq | Self::Ovf)
    }
}

/// Flags of schedulers, as sh and mh read them.
pub mod scheduler_flags {
    /// flag-1 (`sh-fallback`, `mh-fallback`): a client whose destination is not usable gets another one.
    pub const FALLBACK: u8 = 1;
    /// flag-2 (`sh-port`, `mh-port`): the client's port counts too.
    pub const PORT: u8 = 2;
}
