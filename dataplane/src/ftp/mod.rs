//! FTP (RFC 959, RFC 2428) through VS/NAT: what control connections say of data connections, as the kernel's `ip_vs_ftp` reads it,
//! and the sequence numbers of a text that was made shorter or longer.

mod commands;
mod sequence;

pub(crate) use commands::{Announced, Asked, announced, asked};
pub(crate) use sequence::{Shift, is_after, shift_acknowledgement, shift_sequence};

use crate::connection::ConnectionId;

/// Control connections that a worker helps at once; further ones are masqueraded like any other connection.
const CONTROLS: usize = 4096;

/// Which answer of the server is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// None.
    #[default]
    Active,
    /// 227, for PASV.
    Passive,
    /// 229, for EPSV.
    ExtendedPassive,
}

/// Names a connection of either family while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) id: ConnectionId,
    pub(crate) generation: u32,
    pub(crate) v6: bool,
}

/// What is known of a control connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control {
    owner: Owner,
    pub(crate) mode: Mode,
    /// How far the server's sequence numbers are shifted.
    pub(crate) shift: Shift,
    /// The segment that answered last, and what it answered: when it comes again it is changed again.
    pub(crate) answered: Option<(u32, Mode)>,
    /// Behind the last byte that the server sent, in its own numbers.
    pub(crate) server_end: u32,
    /// Behind the last byte that the client sent.
    pub(crate) client_end: u32,
}

/// The control connections of one worker. An entry is its connection's as long as that lives; those of others are used again.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    entries: Vec<Control>,
    /// Where the search for one to use again goes on.
    next: usize,
}

impl Controls {
    /// The entry with this handle, if it is this connection's.
    pub(crate) fn get(&mut self, handle: u32, owner: Owner) -> Option<&mut Control> {
        self.entries.get_mut(handle as usize).filter(|control| control.owner == owner)
    }

    /// Whose entry this handle is.
    pub(crate) fn owner(&self, handle: u32) -> Option<Owner> {
        self.entries.get(handle as usize).map(|control| control.owner)
    }

    /// An entry for a connection; `None` when there is no place. `lives` says whether a connection is still there.
    pub(crate) fn insert(
        &mut self,
        owner: Owner,
        (server_end, client_end): (u32, u32),
        lives: impl Fn(&Owner) -> bool,
    ) -> Option<u32> {
        /// Entries looked at for one that nobody needs.
        const LOOKS: usize = 64;
        let control = Control {
            owner,
            mode: Mode::Active,
            shift: Shift::default(),
            answered: None,
            server_end,
            client_end,
        };
        if self.entries.len() < CONTROLS {
            self.entries.push(control);
            return u32::try_from(self.entries.len() - 1).ok();
        }
        for _ in 0..LOOKS {
            let place = self.next;
            self.next = (place + 1) % CONTROLS;
            if !lives(&self.entries[place].owner) {
                self.entries[place] = control;
                return u32::try_from(place).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: u32) -> Owner {
        Owner { id: ConnectionId(id), generation: 1, v6: false }
    }

    #[test]
    fn places_are_bounded_and_used_again() {
        let mut controls = Controls::default();
        for id in 0..4096 {
            assert_eq!(controls.insert(owner(id), (0, 0), |_| true), Some(id));
        }
        assert_eq!(controls.insert(owner(9999), (0, 0), |_| true), None);
        let handle = controls.insert(owner(9999), (7, 0), |owner| owner.id.0 != 100).unwrap();
        assert_eq!((handle, controls.get(handle, owner(9999)).unwrap().server_end), (100, 7));
        assert!(controls.get(handle, owner(100)).is_none(), "the one before has lost it");
    }
}
