//! The connection table of one worker and one address family.
//!
//! An index of cache-line buckets leads from tuples to lines; a slab of fixed lines holds the connections; a timing wheel
//! knows when to look at each again. All three lie in one [`Region`] that the caller hands in. One worker owns the table and
//! is its only writer; other threads list connections through [`Table::slab`].
//!
//! A burst is looked up in stages, so that its cache misses overlap: [`Table::hash`] and [`Table::prefetch`] for all packets,
//! then [`Table::candidate`] for all, then [`Table::confirm`].

pub mod sctp;
pub mod tcp;

mod half_open;
mod hash;
mod index;
mod line;
mod size;
mod slab;
mod wheel;

pub use hash::{FlowHash, HashKey};
pub use line::{ConnectionView, Line, NewConnection, flags};
pub use size::{Footprint, RegionError, Size};
pub use slab::{OutOfMemory, Region, Slab};
pub use wheel::SLOT_MS;

use crate::address::Address;
use crate::flow::Tuple;
use crate::id::Ticks;
use half_open::Hand;
use hash::Schedule;
use index::{Bucket, Index, REVERSE};
use size::{LAYOUT, Plan};
use slab::{Carver, Header, LINE, Part};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wheel::{Batch, Chunk, Filed, Turn, Wheel};

/// Tells a table's region from other memory.
const MAGIC: u64 = u64::from_le_bytes(*b"uvsTable");

/// A connection's line. Names the connection only while its generation stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    /// The line's place in the slab.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A connection found by a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The connection.
    pub id: ConnectionId,
    /// The tuple is that of the server's replies.
    pub reverse: bool,
}

/// What the first bucket alone suggests for a hash. A hint: it may be wrong, and is checked by [`Table::confirm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    /// Nothing. No line has this number: there are fewer than 2^31, and a reply's has a bit more.
    const NONE: Self = Self(u32::MAX);

    /// Whether what [`Table::confirm`] says is what [`Table::find`] would say even when connections were opened or closed since. A tuple of
    /// clients' packets has one connection; replies that look alike go to the newest, which the hint may not know.
    #[inline(always)]
    #[must_use]
    pub const fn outlives_changes(self) -> bool {
        self.0 & REVERSE == 0
    }
}

impl Default for Candidate {
    fn default() -> Self {
        Self::NONE
    }
}

/// No line left, or (far below one in a million even then) no room in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection table is full")]
pub struct TableFull;

/// What one call of [`Table::expire`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiry {
    /// Entries of the wheel looked at.
    pub looked_at: u32,
    /// Connections closed.
    pub expired: u32,
    /// The budget ended before what is due.
    pub behind: bool,
}

/// Entries of the wheel that are due, and the hashes of those connections that have expired.
#[derive(Debug)]
struct Due {
    batch: Batch,
    hashes: [FlowHash; wheel::ENTRIES],
}

impl Due {
    const fn new() -> Self {
        Self { batch: Batch::new(), hashes: [FlowHash { bits: 0, home: 0 }; wheel::ENTRIES] }
    }
}

/// The connections of one worker and one address family.
#[derive(Debug)]
pub struct Table<A: Address> {
    schedule: Schedule,
    index: Index,
    lines: Part<Line<A>>,
    header: Part<Header>,
    wheel: Wheel,
    slab: Arc<Slab<A>>,
    hand: Hand,
    bytes: usize,
}

impl<A: Address> Table<A> {
    /// Longest timeout in milliseconds (12 days); a longer one is cut to it, so that [`Ticks`] stay comparable.
    pub const LONGEST_TIMEOUT: u32 = 1 << 30;

    /// Makes an empty table in a region.
    ///
    /// # Errors
    /// The region is too short for [`Size::footprint`].
    pub fn create(mut region: Region, size: Size, key: HashKey, now: Ticks) -> Result<Self, RegionError> {
        let length = region.length();
        if length < size.footprint::<A>().total() {
            return Err(RegionError::TooShort { length });
        }
        region.clear();
        let mut carver = Carver::new(region);
        let header = carver.take::<Header>(1).ok_or(RegionError::TooShort { length })?;
        let plan = size.plan();
        {
            let header = &header[0];
            let family = if A::LENGTH == 4 { 4 } else { 16 };
            header.layout.store(LAYOUT, Relaxed);
            header.family.store(family, Relaxed);
            header.key[0].store(key.0[0], Relaxed);
            header.key[1].store(key.0[1], Relaxed);
            header.capacity.store(plan.capacity, Relaxed);
            header.buckets.store(u32::try_from(plan.buckets).map_err(|_| RegionError::Damaged)?, Relaxed);
            header.chunks.store(u32::try_from(plan.chunks).map_err(|_| RegionError::Damaged)?, Relaxed);
            header.free.store(Line::<A>::NONE, Relaxed);
        }
        let mut table = Self::lay_out(carver, header, plan).ok_or(RegionError::TooShort { length })?;
        table.wheel.start(now);
        table.header().magic.store(MAGIC, Relaxed);
        Ok(table)
    }

    /// Takes over the table that a region holds, connections and all.
    ///
    /// # Errors
    /// The region holds none, or one that this program does not understand.
    pub fn attach(region: Region) -> Result<Self, RegionError> {
        let length = region.length();
        let mut carver = Carver::new(region);
        let header = carver.take::<Header>(1).ok_or(RegionError::TooShort { length })?;
        let fields = &header[0];
        if fields.magic.load(Relaxed) != MAGIC {
            return Err(RegionError::NotATable);
        }
        let found = fields.layout.load(Relaxed);
        if found != LAYOUT {
            return Err(RegionError::OtherLayout { found });
        }
        let found = fields.family.load(Relaxed);
        if found as usize != A::LENGTH {
            return Err(RegionError::OtherFamily { found });
        }
        let plan = Plan {
            capacity: fields.capacity.load(Relaxed),
            buckets: fields.buckets.load(Relaxed) as usize,
            chunks: fields.chunks.load(Relaxed) as usize,
        };
        let known = [false, true]
            .map(|both_directions| Size { capacity: plan.capacity, both_directions }.plan())
            .contains(&plan);
        if !known || fields.fresh.load(Relaxed) > plan.capacity {
            return Err(RegionError::Damaged);
        }
        Self::lay_out(carver, header, plan).ok_or(RegionError::TooShort { length })
    }

    fn lay_out(mut carver: Carver, header: Part<Header>, plan: Plan) -> Option<Self> {
        let slots = carver.take::<AtomicU32>(wheel::SLOTS)?;
        let chunks = carver.take::<Chunk>(plan.chunks)?;
        let buckets = carver.take::<Bucket>(plan.buckets)?;
        let lines = carver.take::<Line<A>>(plan.capacity as usize)?;
        let key = HashKey([header[0].key[0].load(Relaxed), header[0].key[1].load(Relaxed)]);
        Some(Self {
            schedule: Schedule::new(key),
            index: Index::new(buckets),
            lines: lines.clone(),
            header: header.clone(),
            wheel: Wheel::new(header.clone(), slots, chunks),
            slab: Arc::new(Slab { lines, header }),
            hand: Hand::default(),
            bytes: carver.taken(),
        })
    }

    /// Gives the region back, connections and all, for [`Table::attach`]; `None` while another thread holds the slab.
    #[must_use]
    pub fn release(self) -> Option<Region> {
        let Self { index, lines, header, wheel, slab, .. } = self;
        drop((index, header, wheel, slab));
        lines.release()
    }

    #[inline(always)]
    fn header(&self) -> &Header {
        &self.header[0]
    }

    /// The lines, to be read by other threads.
    #[must_use]
    pub fn slab(&self) -> Arc<Slab<A>> {
        Arc::clone(&self.slab)
    }

    /// Connections open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header().live.load(Relaxed) as usize
    }

    /// Lines from here on were never used.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.header().fresh.load(Relaxed)
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most connections.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lines.len()
    }

    /// Memory for each connection of a full table, all told.
    #[must_use]
    pub fn bytes_per_connection(&self) -> f64 {
        self.bytes as f64 / self.capacity() as f64
    }

    /// How often a shorter timeout was not filed for lack of room in the wheel, so that the connection expires late.
    #[must_use]
    pub fn wheel_full(&self) -> u64 {
        self.header().wheel_refused.load(Relaxed)
    }

    /// The hash of a tuple under this table's key.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, tuple: &Tuple<A>) -> FlowHash {
        self.index.locate(self.schedule.hash(tuple))
    }

    /// First stage: asks for the bucket.
    #[inline(always)]
    pub fn prefetch(&self, hash: FlowHash) {
        self.index.prefetch(hash);
    }

    /// Second stage: reads the bucket and asks for the line it suggests.
    #[inline(always)]
    #[must_use]
    pub fn candidate(&self, hash: FlowHash) -> Candidate {
        let Some(number) = self.index.glance(hash) else { return Candidate::NONE };
        let id = (number & !REVERSE) as usize;
        self.lines.prefetch(id);
        if size_of::<Line<A>>() > LINE && number & REVERSE != 0 {
            self.lines.prefetch_at(id, LINE);
        }
        Candidate(number)
    }

    /// Third stage: the candidate, if it is the connection of a tuple, expired or not. If not, [`Table::find`] may find another.
    #[inline(always)]
    #[must_use]
    pub fn confirm(&self, candidate: Candidate, tuple: &Tuple<A>) -> Option<Found> {
        self.is_match(candidate.0, tuple).then(|| Found::from_number(candidate.0))
    }

    /// The connection of a tuple, expired or not, without stages.
    #[inline(never)]
    #[must_use]
    pub fn find(&self, hash: FlowHash, tuple: &Tuple<A>) -> Option<Found> {
        self.index.search(hash, |number| self.is_match(number, tuple)).map(Found::from_number)
    }

    #[inline(always)]
    fn is_match(&self, number: u32, tuple: &Tuple<A>) -> bool {
        let Some(line) = self.lines.get((number & !REVERSE) as usize) else { return false };
        let named = if number & REVERSE == 0 { line.is_of(tuple) } else { line.reply_tuple() == *tuple };
        named && line.is_live()
    }

    /// A connection's line.
    ///
    /// # Panics
    /// When `id` is not from this table.
    #[inline(always)]
    #[must_use]
    pub fn line(&self, id: ConnectionId) -> &Line<A> {
        &self.lines[id.index()]
    }

    /// Opens a connection. The caller has looked for its tuple, and closed an expired connection of the same tuple.
    ///
    /// # Errors
    /// The table is full; it is unchanged.
    pub fn open(
        &mut self,
        hash: FlowHash,
        new: &NewConnection<A>,
        now: Ticks,
    ) -> Result<ConnectionId, TableFull> {
        let timeout = new.timeout.min(Self::LONGEST_TIMEOUT);
        let (free, fresh) = (self.header().free.load(Relaxed), self.header().fresh.load(Relaxed));
        let (number, fresh) = if free == Line::<A>::NONE { (fresh, fresh + 1) } else { (free, fresh) };
        if number as usize >= self.lines.len() {
            return Err(TableFull);
        }
        self.index.insert(hash, number).map_err(|_| TableFull)?;
        if new.both_directions {
            let reply = self.reply_hash(new);
            if self.index.insert(reply, number | REVERSE).is_err() {
                self.index.remove(hash, number);
                return Err(TableFull);
            }
        }
        let line = &self.lines[number as usize];
        if free != Line::<A>::NONE {
            let following = line.side();
            self.header().free.store(following, Relaxed);
            // The next connection opens there.
            self.lines.prefetch(following as usize);
        }
        self.header().fresh.store(fresh, Relaxed);
        self.header().live.store(self.header().live.load(Relaxed) + 1, Relaxed);
        line.fill(new, timeout, now);
        self.expect_half_open();
        self.file(number, now.after(timeout));
        if new.both_directions {
            self.answer_for(number);
        }
        Ok(ConnectionId(number))
    }

    /// Of connections whose replies look alike, those of one client's port to a server behind two services, the newest gets them, as
    /// in the kernel.
    fn answer_for(&mut self, number: u32) {
        let Self { schedule, index, lines, .. } = self;
        let tuple = lines[number as usize].reply_tuple();
        index.prefer(index.locate(schedule.hash(&tuple)), number | REVERSE, |other| {
            let line = lines.get((other & !REVERSE) as usize);
            other & REVERSE != 0 && line.is_some_and(|line| line.is_live() && line.reply_tuple() == tuple)
        });
    }

    fn reply_hash(&self, new: &NewConnection<A>) -> FlowHash {
        self.hash(&Tuple {
            source: new.server,
            destination: new.tuple.source,
            source_port: new.server_port,
            destination_port: new.tuple.source_port,
            protocol: new.tuple.protocol,
        })
    }

    /// Closes a connection; whether there was one. Its line's entry in the wheel stays for the next connection there.
    pub fn close(&mut self, id: ConnectionId) -> bool {
        let Some(line) = self.lines.get(id.index()) else { return false };
        if !line.is_live() {
            return false;
        }
        self.close_hashed(id, self.hash(&line.tuple()));
        true
    }

    /// Closes a live connection, whose tuple has this hash.
    fn close_hashed(&mut self, id: ConnectionId, hash: FlowHash) {
        let line = &self.lines[id.index()];
        let removed = self.index.remove(hash, id.0);
        debug_assert!(removed, "a connection that was not in the index");
        if line.both_directions() {
            let hash = self.hash(&line.reply_tuple());
            let removed = self.index.remove(hash, id.0 | REVERSE);
            debug_assert!(removed, "a reply that was not in the index");
        }
        line.empty();
        let header = &self.header[0];
        line.set_side(header.free.load(Relaxed));
        header.free.store(id.0, Relaxed);
        header.live.store(header.live.load(Relaxed) - 1, Relaxed);
    }

    /// A packet of the connection came: it lives `timeout` milliseconds from `now`. The wheel is touched only when that is
    /// shorter than before.
    #[inline(always)]
    pub fn touch(&mut self, id: ConnectionId, timeout: u32, now: Ticks) {
        if !self.line(id).touch(timeout, now) {
            self.change_timeout(id, timeout, now);
        }
    }

    /// Gives the connection another timeout, from `now` on.
    #[cold]
    pub fn change_timeout(&mut self, id: ConnectionId, timeout: u32, now: Ticks) {
        let timeout = timeout.min(Self::LONGEST_TIMEOUT);
        let line = &self.lines[id.index()];
        let shorter = timeout < line.timeout();
        line.set_timeout(timeout);
        if shorter && line.is_live() {
            self.file(id.0, now.after(timeout));
        }
    }

    /// Sees to it that the wheel looks at line `number` at `deadline` or before.
    fn file(&mut self, number: u32, deadline: Ticks) {
        let line = &self.lines[number as usize];
        let filed = Filed(line.filed());
        if filed.covers(deadline) {
            return;
        }
        let header = &self.header[0];
        if filed != Filed::NOT {
            // The entry that is overtaken goes on taking room until it fires. The other half of the wheel is for first entries.
            let stale = header.wheel_stale.load(Relaxed);
            if stale as usize >= self.lines.len() {
                header.wheel_refused.store(header.wheel_refused.load(Relaxed) + 1, Relaxed);
                return;
            }
            header.wheel_stale.store(stale + 1, Relaxed);
        }
        let filed = self.wheel.file(number, deadline).unwrap_or(Filed::NOT);
        debug_assert!(filed != Filed::NOT, "a wheel without room for a first entry");
        line.set_filed(filed.0);
    }

    /// Closes connections that have seen no packet for their timeout, looking at no more than about `budget` entries of the
    /// wheel. `expired` is called with each just before it is closed.
    pub fn expire(
        &mut self,
        now: Ticks,
        budget: u32,
        mut expired: impl FnMut(ConnectionId, &Line<A>),
    ) -> Expiry {
        let mut done = Expiry::default();
        if self.wheel.is_idle(now) {
            return done;
        }
        let mut spent = 0;
        // Three chunks are under way: the lines of one are asked for, the buckets of the one before, and the one before that is dealt
        // with, whose memory has come.
        let mut under_way = [const { Due::new() }; 3];
        for step in 0.. {
            let [first, second, third] = [step % 3, (step + 2) % 3, (step + 1) % 3];
            let batch = &mut under_way[first].batch;
            batch.clear();
            while spent < budget && batch.entries().is_empty() {
                match self.wheel.turn(now, batch) {
                    Turn::Idle => break,
                    Turn::Passed => spent += 1,
                    Turn::Due(count) => spent += count,
                }
            }
            let last = batch.entries().is_empty() && under_way[second].batch.entries().is_empty();
            for entry in under_way[first].batch.entries() {
                self.lines.prefetch(entry.id as usize);
            }
            let Due { batch, hashes } = &mut under_way[second];
            for (entry, hash) in batch.entries().iter().zip(hashes) {
                *hash = self.prefetch_expired(entry.id, now);
            }
            let Due { batch, hashes } = &under_way[third];
            for (entry, hash) in batch.entries().iter().zip(hashes) {
                done.looked_at += 1;
                done.expired += u32::from(self.fire(*entry, *hash, now, &mut expired));
            }
            if last {
                break;
            }
        }
        done.behind = !self.wheel.is_idle(now);
        done
    }

    /// Asks for the buckets of a connection that is about to be closed; its hash, or any where that is not so.
    #[inline(always)]
    fn prefetch_expired(&self, number: u32, now: Ticks) -> FlowHash {
        let Some(line) = self.lines.get(number as usize) else { return FlowHash::default() };
        if !line.is_live() || !line.is_expired(now) {
            return FlowHash::default();
        }
        let hash = self.hash(&line.tuple());
        self.index.prefetch(hash);
        if line.both_directions() {
            self.index.prefetch(self.hash(&line.reply_tuple()));
        }
        hash
    }

    /// Looks at one entry; whether its connection was closed.
    fn fire(
        &mut self,
        entry: wheel::Entry,
        hash: FlowHash,
        now: Ticks,
        expired: &mut impl FnMut(ConnectionId, &Line<A>),
    ) -> bool {
        let Some(line) = self.lines.get(entry.id as usize) else { return false };
        if line.filed() != entry.filed.0 {
            let header = &self.header[0];
            header.wheel_stale.store(header.wheel_stale.load(Relaxed).saturating_sub(1), Relaxed);
            return false;
        }
        line.set_filed(Filed::NOT.0);
        if !line.is_live() {
            return false;
        }
        if !line.is_expired(now) {
            self.file(entry.id, line.deadline());
            return false;
        }
        expired(ConnectionId(entry.id), line);
        self.close_hashed(ConnectionId(entry.id), hash);
        true
    }
}

impl Found {
    #[inline(always)]
    fn from_number(number: u32) -> Self {
        Self { id: ConnectionId(number & !REVERSE), reverse: number & REVERSE != 0 }
    }
}

#[cfg(test)]
mod tests;
