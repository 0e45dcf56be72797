//! The commands of the IPVS family: which there are, in which forms, and who may use them.

use super::number::command::{
    DEL_DAEMON, DEL_DEST, DEL_SERVICE, FLUSH, GET_CONFIG, GET_DAEMON, GET_DEST, GET_INFO, GET_SERVICE,
    NEW_DAEMON, NEW_DEST, NEW_SERVICE, SET_CONFIG, SET_DEST, SET_SERVICE, ZERO,
};

/// A command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// `genlmsghdr.cmd`.
    pub(super) command: u8,
    /// Can be asked for one thing.
    pub(super) single: bool,
    /// Can be asked for everything.
    pub(super) dump: bool,
    /// Takes an operator. In the kernel every command takes `CAP_NET_ADMIN`; here anybody the socket lets in may look.
    pub(super) changes: bool,
}

const fn change(command: u8) -> Operation {
    Operation { command, single: true, dump: false, changes: true }
}

const fn look(command: u8, single: bool, dump: bool) -> Operation {
    Operation { command, single, dump, changes: false }
}

/// All of them, as the kernel lists them.
pub(super) const OPERATIONS: [Operation; 16] = [
    change(NEW_SERVICE),
    change(SET_SERVICE),
    change(DEL_SERVICE),
    look(GET_SERVICE, true, true),
    change(NEW_DEST),
    change(SET_DEST),
    change(DEL_DEST),
    look(GET_DEST, false, true),
    change(NEW_DAEMON),
    change(DEL_DAEMON),
    look(GET_DAEMON, false, true),
    change(SET_CONFIG),
    look(GET_CONFIG, true, false),
    look(GET_INFO, true, false),
    change(ZERO),
    change(FLUSH),
];

/// A command by its number.
pub(super) fn find(command: u8) -> Option<Operation> {
    OPERATIONS.into_iter().find(|operation| operation.command == command)
}
