//! Stage 5, track: the connection's state follows the packet.

use super::Turn;
use crate::address::Address;
use crate::connection::tcp::{self, Sender, State};
use crate::connection::{ConnectionId, Line, Table, flags, sctp};
use crate::counters::Activity;
use crate::engine::{Core, Sink};
use crate::flow::protocol;
use crate::id::DestinationSlot;
use crate::packet::sctp::Event;
use crate::packet::{Headers, Packet};

impl<P: Packet> Core<P> {
    /// Moves the connection's state for a packet of `sender`'s and marks it seen. The wheel is touched only when the timeout shrinks.
    #[inline(always)]
    pub(super) fn track<A: Address, S: Sink<P>>(
        &self,
        table: &mut Table<A>,
        id: ConnectionId,
        headers: &Headers,
        sender: Sender,
        turn: &Turn<'_, S>,
    ) {
        let line = table.line(id);
        let before = line.state();
        let mut state = before;
        if headers.protocol == protocol::TCP && !headers.later_fragment() {
            let (new, flags) =
                tcp::next(state, line.flags(), sender, headers.tcp_flags, self.defence.secure_tcp);
            if sender == Sender::Server {
                line.set_flags(flags);
            }
            if new != state {
                self.change_state(line, state, new);
                state = new;
            }
        } else if headers.protocol == protocol::SCTP {
            state = self.follow_chunks(line, headers, sender);
        } else if headers.protocol == protocol::UDP
            && sender == Sender::Server
            && line.template() != Line::<A>::NONE
        {
            self.shared.templates.set_assured(line.template());
        }
        if sender == Sender::Client {
            line.count_packet();
        }
        if state != before && state.is_half_open() {
            table.expect_half_open();
        }
        table.touch(id, tcp::timeout(state, &turn.snapshot.timeouts), turn.now);
    }

    /// Moves the state of an SCTP connection; the new one. A packet without a chunk says nothing.
    #[cold]
    pub(super) fn follow_chunks<A: Address>(
        &self,
        line: &Line<A>,
        headers: &Headers,
        sender: Sender,
    ) -> State {
        let state = line.state();
        let Some(event) = Event::from_number(headers.icmp_type) else { return state };
        let (new, flags) = sctp::next(state, line.flags(), sender, event);
        line.set_flags(flags);
        if new != state {
            self.change_state(line, state, new);
        }
        new
    }

    #[inline(never)]
    pub(super) fn change_state<A: Address>(&self, line: &Line<A>, old: State, new: State) {
        line.set_state(new);
        let activity = tcp::activity(new);
        if activity != tcp::activity(old) {
            if line.destination() != DestinationSlot::NONE {
                self.shared.destinations.changed(self.id, line.destination(), activity);
            }
            let inactive = if activity == Activity::Inactive { flags::INACTIVE } else { 0 };
            line.set_flags(line.flags() & !flags::INACTIVE | inactive);
        }
        if matches!(new, State::Established | State::SctpEstablished) && line.template() != Line::<A>::NONE {
            self.shared.templates.set_assured(line.template());
        }
    }
}
