//! Which connection gives way when the table is full: one whose client has not completed its handshake.
//!
//! A hand goes round the slab as a clock's does, a few lines at a time, and stays where it found one. So it comes back to a connection
//! after a round over all, which is the time a client has to answer; what it finds are about the oldest.

use super::{ConnectionId, Table};
use crate::address::Address;

/// Lines looked at for one newcomer.
pub(super) const LOOKED_AT: u32 = 32;
/// Lines asked for before they are looked at.
const AHEAD: u32 = 4;

/// Where the hand stands.
#[derive(Debug, Default)]
pub(super) struct Hand {
    line: u32,
    /// Lines looked at since a half-open connection was found, or may have come.
    pub(super) in_vain: u32,
}

impl<A: Address> Table<A> {
    /// A connection was opened, or an older one begins another handshake: looking for half-open ones is worth its while again.
    #[inline(always)]
    pub(crate) fn expect_half_open(&mut self) {
        self.hand.in_vain = 0;
    }

    /// A connection that the caller may close in favour of a newcomer ([`super::tcp::State::is_half_open`]). `None` where the next few
    /// lines hold none, and at once when a whole round found none and none can have come since: a table that is full of established
    /// connections is not walked for every newcomer.
    #[cold]
    pub fn half_open(&mut self) -> Option<ConnectionId> {
        let used = self.used();
        if self.hand.in_vain >= used {
            return None;
        }
        for _ in 0..LOOKED_AT {
            let number = self.hand.line;
            self.hand.line = if number + 1 < used { number + 1 } else { 0 };
            self.lines.prefetch(number.saturating_add(AHEAD) as usize);
            if self.is_half_open(number) {
                self.hand.in_vain = 0;
                self.expect_next();
                return Some(ConnectionId(number));
            }
            self.hand.in_vain = self.hand.in_vain.saturating_add(1);
        }
        None
    }

    #[inline(always)]
    fn is_half_open(&self, number: u32) -> bool {
        self.lines.get(number as usize).is_some_and(|line| line.is_live() && line.state().is_half_open())
    }

    /// Asks for the bucket of the connection that most likely gives way next.
    #[inline(always)]
    fn expect_next(&self) {
        if let Some(line) = self.lines.get(self.hand.line as usize)
            && self.is_half_open(self.hand.line)
        {
            self.index.prefetch(self.hash(&line.tuple()));
        }
    }
}
