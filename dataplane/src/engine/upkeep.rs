//! Walks over connections that no packet asks for: those of removed destinations under `expire_nodest_conn`, and those that
//! `drop_entry` throws out. Both take a bounded number of lines in a millisecond.

use super::{Core, Engine};
use crate::address::Address;
use crate::connection::tcp::State;
use crate::connection::{ConnectionId, Line, Table};
use crate::counters::Counter;
use crate::flow::protocol;
use crate::id::{DestinationSlot, Ticks, WorkerId};
use crate::packet::Packet;
use crate::snapshot::Snapshot;

/// Lines looked at in one millisecond for connections without a destination.
const FLUSH_BUDGET: u32 = 4096;
/// How long a connection has seen no packet before `drop_entry` takes it for a dead one, in milliseconds.
const IDLE: u32 = 60_000;
/// How often automatic defences are decided anew.
const DECISION: u32 = Ticks::SECOND;

/// Parts of a walk: the tables by family, then worker 0's templates.
const V4: usize = 0;
const V6: usize = 1;
const TEMPLATES: usize = 2;

/// A walk over all connections, for those whose destination was removed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flush {
    part: usize,
    line: u32,
}

impl<P: Packet> Engine<P> {
    /// Sees what is new in a snapshot.
    #[cold]
    pub(super) fn adopt(&mut self, snapshot: &Snapshot, now: Ticks) {
        self.core.follow(snapshot, self.revision, now);
        self.revision = snapshot.revision;
        self.decide(snapshot);
        if snapshot.orphaned_in > self.flushed {
            self.flushed = snapshot.orphaned_in;
            self.flush = Some(Flush { part: V4, line: 0 });
        }
    }

    /// Decides on the defences.
    fn decide(&mut self, snapshot: &Snapshot) {
        let free = |capacity: usize, open: usize| capacity.saturating_sub(open);
        let v4 = free(self.v4.capacity(), self.v4.len());
        self.core.defence.update(&snapshot.settings, v4.min(free(self.v6.capacity(), self.v6.len())));
    }

    /// A millisecond's work, `elapsed` milliseconds after the last time.
    pub(super) fn upkeep(&mut self, snapshot: &Snapshot, now: Ticks, elapsed: u32) {
        self.undecided = self.undecided.saturating_add(elapsed);
        if self.undecided >= DECISION {
            self.undecided = 0;
            self.decide(snapshot);
        }
        if self.flush.is_some() {
            self.flush(snapshot, now);
        }
        let Self { core, v4, v6, .. } = self;
        core.thin_out(V4, v4, snapshot, now, elapsed);
        core.thin_out(V6, v6, snapshot, now, elapsed);
        core.thin_out_templates(elapsed);
    }

    fn flush(&mut self, snapshot: &Snapshot, now: Ticks) {
        let Some(Flush { part, line }) = self.flush else { return };
        let Self { core, v4, v6, .. } = self;
        let next = match part {
            V4 => core.flush_table(v4, line, snapshot, now),
            V6 => core.flush_table(v6, line, snapshot, now),
            TEMPLATES if core.id == WorkerId(0) => core.flush_templates(line, snapshot),
            _ => {
                self.flush = None;
                return;
            }
        };
        self.flush = Some(match next {
            Some(line) => Flush { part, line },
            None => Flush { part: part + 1, line: 0 },
        });
    }
}

impl<P: Packet> Core<P> {
    /// Closes connections whose destination was removed (`ip_vs_expire_nodest_conn_flush`); returns where to go on.
    fn flush_table<A: Address>(
        &mut self,
        table: &mut Table<A>,
        from: u32,
        snapshot: &Snapshot,
        now: Ticks,
    ) -> Option<u32> {
        let until = table.used().min(from.saturating_add(FLUSH_BUDGET));
        for id in (from..until).map(ConnectionId) {
            let line = table.line(id);
            if line.is_live() && is_orphaned(line.destination(), snapshot) {
                self.throw_out(table, id, false, snapshot, now);
            }
        }
        (until < table.used()).then_some(until)
    }

    fn flush_templates(&self, from: u32, snapshot: &Snapshot) -> Option<u32> {
        let templates = &self.shared.templates;
        let until = templates.capacity().min(from.saturating_add(FLUSH_BUDGET));
        for index in from..until {
            if templates.destination(index).is_some_and(|slot| is_orphaned(slot, snapshot)) {
                templates.drop_unused(index, false);
            }
        }
        (until < templates.capacity()).then_some(until)
    }

    /// Looks at some connections at random and closes those that look dead or half open (`ip_vs_random_dropentry`).
    fn thin_out<A: Address>(
        &mut self,
        part: usize,
        table: &mut Table<A>,
        snapshot: &Snapshot,
        now: Ticks,
        elapsed: u32,
    ) {
        for _ in 0..self.defence.visits(part, table.used(), elapsed) {
            let id = ConnectionId(self.anywhere(table.used()));
            let line = table.line(id);
            if line.is_live() && self.looks_dead(line, now) {
                self.throw_out(table, id, true, snapshot, now);
            }
        }
    }

    /// A number below `limit`, which is not 0.
    fn anywhere(&mut self, limit: u32) -> u32 {
        u32::try_from(self.random.up_to(u64::from(limit).saturating_sub(1))).unwrap_or(0)
    }

    fn looks_dead<A: Address>(&mut self, line: &Line<A>, now: Ticks) -> bool {
        let tracked = line.tuple().protocol != protocol::UDP;
        match line.state() {
            state if state.is_half_open() => true,
            state if tracked && !matches!(state, State::Established | State::SctpEstablished) => false,
            _ => now.since(line.last_seen()) >= IDLE && self.defence.drops_idle(line.packets_in()),
        }
    }

    fn thin_out_templates(&mut self, elapsed: u32) {
        if self.id != WorkerId(0) {
            return;
        }
        let capacity = self.shared.templates.capacity();
        for _ in 0..self.defence.visits(TEMPLATES, capacity, elapsed) {
            let index = self.anywhere(capacity);
            self.shared.templates.drop_unused(index, true);
        }
    }

    /// Closes a half-open connection, so that a newcomer has room in a full table (`evict_half_open`); whether there was one. Its template
    /// goes as under `drop_entry`: a flood's templates are not to outlive it.
    #[cold]
    pub(crate) fn make_room<A: Address>(
        &mut self,
        table: &mut Table<A>,
        snapshot: &Snapshot,
        now: Ticks,
    ) -> bool {
        let found = if snapshot.settings.evict_half_open { table.half_open() } else { None };
        let Some(id) = found else { return false };
        self.throw_out(table, id, true, snapshot, now);
        self.counters().add(Counter::EvictedHalfOpen, 1);
        true
    }

    /// Closes a connection before its time; a template that then controls none goes with it, under `drop_entry` only when no
    /// connection of it was ever established.
    fn throw_out<A: Address>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        spare_assured: bool,
        snapshot: &Snapshot,
        now: Ticks,
    ) {
        let line = table.line(id);
        let template = line.template();
        self.account_closed(line, snapshot, now);
        table.close(id);
        if template != Line::<A>::NONE {
            self.shared.templates.drop_unused(template, spare_assured);
        }
    }
}

/// Whether a connection's or template's destination was removed.
fn is_orphaned(slot: DestinationSlot, snapshot: &Snapshot) -> bool {
    slot != DestinationSlot::NONE && snapshot.destination(slot).is_none_or(|view| !view.available)
}
