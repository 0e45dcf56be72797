//! Persistence templates: which destination a client stays with. One table for all workers.
//!
//! A template names (protocol, client's network, virtual address, virtual port) and the destination its next connections go
//! to. Look-ups are lock-free and wait for nobody; they happen only when a connection is opened. Writers lock one or two buckets
//! for some tens of nanoseconds and give up after a bounded number of tries.
//!
//! An index of one-line buckets (seven places of tag and entry number; a key may be in either of two) lies over a slab of
//! one-line entries. Entries never move, so that a handle is an entry's number and generation. The index has twice as many
//! places as there are entries: what runs out are entries, not places.
//!
//! Life, as in the kernel (`ip_vs_conn_expire`): a template expires its timeout after the last connection it gave a
//! destination to was opened. One that still controls connections then is given 60 s more, again and again, until it controls
//! none, and 60 s stays its timeout. Nothing fires: this is worked out from the stored times when somebody looks.

mod entry;
mod index;
#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// Atomics, exchanged for loom's when it checks the protocol.
mod sync {
    #[cfg(loom)]
    pub(super) use loom::{
        hint::spin_loop,
        sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    };
    #[cfg(not(loom))]
    pub(super) use std::{
        hint::spin_loop,
        sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    };
}

use crate::address::Address;
use crate::engine::{Place, place};
use crate::id::{DestinationSlot, Ticks};
use crate::snapshot::ClientMask;
use crossbeam_utils::CachePadded;
use entry::{Entry, Free, FreeList};
use index::{Index, Spot};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use sync::{AtomicU32, Ordering::Relaxed};

/// The lower 32 bits.
#[inline(always)]
const fn low_half(word: u64) -> u32 {
    (word & 0xFFFF_FFFF) as u32
}

/// The upper 32 bits.
#[inline(always)]
const fn high_half(word: u64) -> u32 {
    (word >> 32) as u32
}

/// What names a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    words: [u64; 5],
}

impl TemplateKey {
    /// The protocol of a mark's templates, which hold for every protocol.
    pub const ANY_PROTOCOL: u8 = 0;

    /// The template of the clients that are alike under `mask` with a virtual service. Ports in host order.
    #[inline]
    #[must_use]
    pub fn new<A: Address>(
        protocol: u8,
        client: A,
        mask: ClientMask,
        virtual_address: A,
        virtual_port: u16,
    ) -> Self {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let [a, b, c, d] = client.under(mask).words();
        let [e, f, g, h] = virtual_address.words();
        let family = u64::from(A::LENGTH != Ipv4Addr::LENGTH);
        let name = family << 24 | u64::from(protocol) << 16 | u64::from(virtual_port);
        Self { words: [pair(a, b), pair(c, d), pair(e, f), pair(g, h), name] }
    }

    /// IP protocol number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        ((self.words[4] >> 16) & 0xFF) as u8
    }

    /// First address of the client's network.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.address(0)
    }

    /// Virtual address.
    #[must_use]
    pub fn virtual_address(&self) -> IpAddr {
        self.address(2)
    }

    /// Virtual port.
    #[must_use]
    pub const fn virtual_port(&self) -> u16 {
        (self.words[4] & 0xFFFF) as u16
    }

    fn address(&self, first: usize) -> IpAddr {
        let (high, low) = (self.words[first], self.words[first + 1]);
        if self.words[4] >> 24 == 0 {
            IpAddr::V4(Ipv4Addr::from_bits(low_half(low)))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
        }
    }
}

/// Names one template; one that is gone is known by its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateHandle {
    index: u32,
    /// Never 0.
    generation: u32,
}

impl TemplateHandle {
    /// Its entry: names the template as long as a connection is attached to it.
    #[inline]
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The handle as a number, never 0.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// Back from [`Self::to_bits`]; `None` for 0.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let (index, generation) = (low_half(bits), high_half(bits));
        if generation == 0 { None } else { Some(Self { index, generation }) }
    }
}

/// Why a template was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// All entries, or all places for this key, are taken.
    #[error("the template table is full")]
    Full,
    /// Other workers were changing the same bucket for too long.
    #[error("the template's bucket is busy")]
    Busy,
}

/// A template as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateView {
    /// Its name.
    pub key: TemplateKey,
    /// The destination.
    pub destination: DestinationSlot,
    /// Its timeout in milliseconds.
    pub timeout: u32,
    /// Milliseconds until it expires or is looked at again.
    pub remaining: u32,
    /// Live connections it controls.
    pub controlled: u32,
    /// Whether one of its connections was established.
    pub assured: bool,
    /// Whether it is no longer used for new connections.
    pub invalid: bool,
}

impl TemplateView {
    /// The virtual port and the server's port as the kernel lists them, for a destination of port `server_port`: 65535 once the
    /// template is invalid, 0 where it holds for every port.
    #[must_use]
    pub const fn ports(&self, server_port: u16) -> (u16, u16) {
        match self.key.virtual_port() {
            _ if self.invalid => (u16::MAX, u16::MAX),
            0 => (0, 0),
            port => (port, server_port),
        }
    }
}

/// The table. Read and written by all workers.
#[derive(Debug)]
pub struct Templates {
    index: Index,
    entries: Box<[Entry]>,
    /// What changes with every template, away from what every look-up reads.
    books: CachePadded<Books>,
}

/// Which entries are free, how many are not.
#[derive(Debug)]
struct Books {
    free: FreeList,
    used: AtomicU32,
    /// Where the next sweep goes on; only the sweeper moves it.
    swept: AtomicU32,
}

impl Templates {
    /// Room for `capacity` templates; the hash is keyed by `key`, which clients must not know.
    #[must_use]
    pub fn new(capacity: u32, key: u128) -> Self {
        let entries: Box<[Entry]> = (0..capacity).map(|index| Entry::free(index, capacity)).collect();
        Self {
            index: Index::new(capacity, key),
            entries,
            books: CachePadded::new(Books {
                free: FreeList::all(),
                used: AtomicU32::new(0),
                swept: AtomicU32::new(0),
            }),
        }
    }

    /// Looks for a template that is neither expired nor invalid.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &TemplateKey, now: Ticks) -> Option<(TemplateHandle, DestinationSlot)> {
        self.index.candidates(key).find_map(|index| {
            let (generation, destination) = self.entries.get(index as usize)?.read(key, now)?;
            Some((TemplateHandle { index, generation }, destination))
        })
    }

    /// Makes a template, unless there is one: then that one's destination is to be used. The last field says which.
    ///
    /// # Errors
    /// [`TemplateError`]; nothing was changed.
    pub fn insert(
        &self,
        key: &TemplateKey,
        destination: DestinationSlot,
        timeout_ms: u32,
        now: Ticks,
    ) -> Result<(TemplateHandle, DestinationSlot, bool), TemplateError> {
        let locked = self.index.lock(key).ok_or(TemplateError::Busy)?;
        for spot in locked.spots() {
            let Some((index, entry)) = self.entry_at(&spot) else { continue };
            if !entry.is_named(key) {
                continue;
            }
            if let Some((generation, destination)) = entry.unlink_if_unusable(now) {
                return Ok((TemplateHandle { index, generation }, destination, false));
            }
            locked.clear(&spot);
        }
        let spot = match locked.empty_spot() {
            Some(spot) => spot,
            None => self.make_room(&locked, now)?,
        };
        let index = match self.books.free.take(&self.entries) {
            Free::Taken(index) => index,
            Free::Empty => return Err(TemplateError::Full),
            Free::Contended => return Err(TemplateError::Busy),
        };
        let generation = self.entries[index as usize].fill(key, destination, timeout_ms, now);
        locked.set(&spot, index);
        self.books.used.fetch_add(1, Relaxed);
        Ok((TemplateHandle { index, generation }, destination, true))
    }

    /// Restarts a template's timeout, as each connection opened through it does. `false` when it is gone.
    pub fn restart(&self, handle: TemplateHandle, now: Ticks) -> bool {
        self.entry(handle).is_some_and(|entry| entry.restart(handle.generation, now))
    }

    /// Counts a connection that the template controls; it does not expire while it controls any. `false` when it is gone:
    /// then the connection is not to keep the handle.
    pub fn attach(&self, handle: TemplateHandle) -> bool {
        self.entry(handle).is_some_and(|entry| entry.attach(handle.generation))
    }

    /// Takes back one [`Self::attach`]. `false` when the template is gone, which is impossible while it was attached.
    pub fn detach(&self, handle: TemplateHandle, now: Ticks) -> bool {
        self.entry(handle).is_some_and(|entry| entry.detach(handle.generation, now))
    }

    /// [`Self::detach`] for a connection that kept only [`TemplateHandle::index`].
    pub fn release(&self, index: u32, now: Ticks) -> bool {
        self.attached(index).is_some_and(|handle| self.detach(handle, now))
    }

    /// Notes that a connection attached to the template at `index` was established.
    pub fn set_assured(&self, index: u32) -> bool {
        let flag =
            |handle: TemplateHandle| Some(self.entry(handle)?.set_flag(handle.generation, entry::ASSURED));
        self.attached(index).and_then(flag).unwrap_or(false)
    }

    /// The template at `index`, which cannot change while a connection is attached to it.
    fn attached(&self, index: u32) -> Option<TemplateHandle> {
        let generation = self.entries.get(index as usize)?.generation();
        Some(TemplateHandle { index, generation })
    }

    /// Takes a template out of use: its destination was removed, or quiesced and `expire_quiescent_template` is set. It can no
    /// longer be found and lives on until it expires.
    pub fn invalidate(&self, handle: TemplateHandle) -> bool {
        self.entry(handle).is_some_and(|entry| entry.set_flag(handle.generation, entry::INVALID))
    }

    /// The destination of the template at `index`; `None` when there is none.
    #[must_use]
    pub fn destination(&self, index: u32) -> Option<DestinationSlot> {
        self.entries.get(index as usize)?.destination()
    }

    /// Ends the template at `index` before its time, unless it controls a connection, or one of its connections was established
    /// and such are to be spared. Whether it ends.
    pub fn drop_unused(&self, index: u32, spare_assured: bool) -> bool {
        self.entries.get(index as usize).is_some_and(|entry| entry.drop_unused(spare_assured))
    }

    /// Looks at the next `budget` entries and frees those that have expired; `expired` gets the destination of each, whose
    /// template count is to be lowered. Returns how many were freed. To be called by one thread.
    pub fn sweep(&self, now: Ticks, budget: u32, expired: &mut impl FnMut(DestinationSlot)) -> u32 {
        if self.is_empty() {
            return 0;
        }
        let capacity = self.capacity();
        let mut at = self.books.swept.load(Relaxed);
        let mut freed = 0;
        for _ in 0..budget.min(capacity) {
            if let Some(destination) = self.sweep_one(at, now) {
                expired(destination);
                freed += 1;
            }
            at = if at + 1 < capacity { at + 1 } else { 0 };
        }
        self.books.swept.store(at, Relaxed);
        freed
    }

    /// Up to `max` templates from entry `cursor` on, and where to go on; `None` at the end. Templates made or gone between two
    /// calls may be missed; none is shown half.
    #[must_use]
    pub fn list(&self, cursor: u32, max: usize, now: Ticks) -> (Vec<TemplateView>, Option<u32>) {
        let mut views = Vec::new();
        for (index, entry) in (cursor..).zip(self.entries.iter().skip(cursor as usize)) {
            if views.len() >= max {
                return (views, Some(index));
            }
            views.extend(entry.view(now));
        }
        (views, None)
    }

    /// Where everything lies, by name.
    pub(crate) fn places(&self) -> [Place; 3] {
        [
            self.index.place(),
            place("template entries", &self.entries),
            place("free templates", std::slice::from_ref(&self.books)),
        ]
    }

    /// Templates there are, expired ones that were not swept yet included.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.books.used.load(Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room in templates.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Bytes taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + self.index.bytes()
    }

    fn entry(&self, handle: TemplateHandle) -> Option<&Entry> {
        self.entries.get(handle.index as usize)
    }

    fn entry_at(&self, spot: &Spot) -> Option<(u32, &Entry)> {
        let index = spot.entry()?;
        Some((index, self.entries.get(index as usize)?))
    }

    /// Both buckets are full: takes the place of an entry that can no longer be found.
    #[cold]
    fn make_room(&self, locked: &index::Locked<'_>, now: Ticks) -> Result<Spot, TemplateError> {
        let unusable = |spot: &Spot| {
            self.entry_at(spot).is_some_and(|(_, entry)| entry.unlink_if_unusable(now).is_none())
        };
        let spot = locked.all_spots().find(unusable).ok_or(TemplateError::Full)?;
        locked.clear(&spot);
        Ok(spot)
    }

    fn sweep_one(&self, index: u32, now: Ticks) -> Option<DestinationSlot> {
        let entry = self.entries.get(index as usize)?;
        let state = entry.expired_state(now)?;
        let destination = if state.is_linked() {
            let locked = self.index.lock(&entry.key())?;
            let spot = locked.spots().find(|spot| spot.entry() == Some(index))?;
            let destination = entry.release(state)?;
            locked.clear(&spot);
            destination
        } else {
            entry.release(state)?
        };
        self.books.free.give(&self.entries, index);
        self.books.used.fetch_sub(1, Relaxed);
        Some(destination)
    }
}
