//! The daemons that synchronise connections: the director has none, and refuses them after the kernel's own checks.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use super::attribute::{Rule, Table};
use super::number::{carried, daemon as kind};

/// What the attributes inside a daemon must look like; a multicast group has an address's bytes.
const RULES: [Rule; 9] = [
    Rule::Any,
    Rule::Number(4),
    Rule::Text(15),
    Rule::Number(4),
    Rule::Number(2),
    Rule::Number(4),
    Rule::Number(16),
    Rule::Number(2),
    Rule::Number(1),
];

fn state(table: &Table<'_, 9>) -> Result<u32, Errno> {
    table.u32(kind::STATE).ok_or(Errno::INVAL)
}

/// `IPVS_CMD_NEW_DAEMON`.
///
/// # Errors
///
/// Always: as the kernel for what is wrong, `EPROTONOSUPPORT` where nothing is.
pub(super) fn start<const N: usize>(carries: &Table<'_, N>) -> Result<(), Errno> {
    let table = carries.nest(carried::DAEMON, &RULES)?;
    let state = state(&table)?;
    let interface = table.text(kind::INTERFACE).ok_or(Errno::INVAL)?;
    table.u32(kind::SYNC_ID).ok_or(Errno::INVAL)?;
    if state != kind::MASTER && state != kind::BACKUP {
        return Err(Errno::INVAL);
    }
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let name = std::str::from_utf8(interface).map_err(|_| Errno::NODEV)?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| Errno::NODEV)?;
    Err(Errno::PROTONOSUPPORT)
}

/// `IPVS_CMD_DEL_DAEMON`.
///
/// # Errors
///
/// Always: `ESRCH`, none is running.
pub(super) fn stop<const N: usize>(carries: &Table<'_, N>) -> Result<(), Errno> {
    match state(&carries.nest(carried::DAEMON, &RULES)?)? {
        kind::MASTER | kind::BACKUP => Err(Errno::SRCH),
        _ => Err(Errno::INVAL),
    }
}
