//! How much memory a table takes, and what can be wrong with it.

use super::index::{self, Bucket, REVERSE};
use super::line::Line;
use super::slab::{Header, LINE};
use super::wheel::{self, Chunk};
use crate::address::Address;
use std::sync::atomic::AtomicU32;

/// Grows with every change of what lies where in a region.
pub(super) const LAYOUT: u32 = 3;

/// How large a table is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Connections, at most [`Size::MAXIMUM`].
    pub capacity: u32,
    /// Whether there is room in the index for every connection's replies.
    pub both_directions: bool,
}

/// Bytes that a table takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Header, in bytes.
    pub header: usize,
    /// Timing wheel.
    pub wheel: usize,
    /// Index.
    pub index: usize,
    /// Connection lines.
    pub lines: usize,
}

impl Footprint {
    /// Everything: the least length of a region.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.header + self.wheel + self.index + self.lines
    }
}

/// Numbers of things in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) capacity: u32,
    pub(super) buckets: usize,
    pub(super) chunks: usize,
}

impl Size {
    /// Most connections of one table.
    pub const MAXIMUM: u32 = REVERSE - 1;

    pub(super) fn plan(self) -> Plan {
        let capacity = self.capacity.clamp(1, Self::MAXIMUM);
        let entries = capacity as usize * if self.both_directions { 2 } else { 1 };
        // Each line has one entry in the wheel that counts, and as many again may be overtaken by shorter timeouts.
        Plan {
            capacity,
            buckets: index::buckets_for(entries),
            chunks: wheel::chunks_for(capacity as usize * 2),
        }
    }

    /// What a table of this size takes.
    #[must_use]
    pub fn footprint<A: Address>(self) -> Footprint {
        let plan = self.plan();
        Footprint {
            header: size_of::<Header>(),
            wheel: (wheel::SLOTS * size_of::<AtomicU32>()).next_multiple_of(LINE)
                + plan.chunks * size_of::<Chunk>(),
            index: plan.buckets * size_of::<Bucket>(),
            lines: plan.capacity as usize * size_of::<Line<A>>(),
        }
    }
}

/// Why a region cannot be made or taken over as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Shorter than the table, or not aligned to 64 bytes.
    #[error("a region of {length} bytes is too short or not aligned to 64 bytes")]
    TooShort {
        /// The region's length in bytes.
        length: usize,
    },
    /// Never was a table.
    #[error("the region holds no connection table")]
    NotATable,
    /// A table of another version of this program.
    #[error("the region's layout is version {found}, this program's is {LAYOUT}")]
    OtherLayout {
        /// The region's version.
        found: u32,
    },
    /// A table of the other address family.
    #[error("the region's addresses have {found} bytes")]
    OtherFamily {
        /// Length of its addresses in bytes.
        found: u32,
    },
    /// Numbers in the header contradict each other.
    #[error("the region's header is damaged")]
    Damaged,
}
