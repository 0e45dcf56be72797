//! Failures of the director as error numbers.

use rustix::io::Errno;

use crate::protocol::{Fault, FaultKind};

/// The numbers that a refusal names, as [`Fault::errno`] writes them.
const NAMES: [(&str, Errno); 12] = [
    ("EAFNOSUPPORT", Errno::AFNOSUPPORT),
    ("EBUSY", Errno::BUSY),
    ("EEXIST", Errno::EXIST),
    ("EINVAL", Errno::INVAL),
    ("ENODEV", Errno::NODEV),
    ("ENOENT", Errno::NOENT),
    ("ENOMEM", Errno::NOMEM),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("EPERM", Errno::PERM),
    ("EPROTONOSUPPORT", Errno::PROTONOSUPPORT),
    ("ERANGE", Errno::RANGE),
    ("ESRCH", Errno::SRCH),
];

/// The number that the kernel's IPVS would answer, or the nearest there is.
pub(super) fn of(fault: &Fault) -> Errno {
    let named = fault.errno.and_then(|name| NAMES.into_iter().find(|(known, _)| *known == name));
    if let Some((_, errno)) = named {
        return errno;
    }
    match fault.kind {
        FaultKind::Forbidden => Errno::PERM,
        FaultKind::Busy | FaultKind::TooManyClients | FaultKind::Idle | FaultKind::Stopping => Errno::BUSY,
        FaultKind::Internal => Errno::IO,
        _ => Errno::INVAL,
    }
}
