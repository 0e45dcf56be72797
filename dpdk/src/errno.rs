//! Error numbers as DPDK returns them.

use std::fmt;
use std::io;

/// An error number: the system's, or one of DPDK's own above 1000.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// "Operation not permitted"; also what a driver means that just returns -1.
    pub const PERM: Self = Self(1);
    /// "Bad address".
    pub const FAULT: Self = Self(14);
    /// "Device or resource busy".
    pub const BUSY: Self = Self(16);
    /// "File exists".
    pub const EXIST: Self = Self(17);
    /// "No such device".
    pub const NODEV: Self = Self(19);
    /// "Operation not supported".
    pub const NOTSUP: Self = Self(95);

    /// From a return value (negative) or an `errno` (positive).
    #[must_use]
    pub const fn new(code: i32) -> Self {
        Self(code.saturating_abs())
    }

    /// The calling thread's `rte_errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer.
        Self::new(unsafe { dpdk_sys::uvs_rte_errno() })
    }

    /// `Ok` for zero and above, the error for a negative return value.
    pub(crate) fn check(result: i32) -> Result<i32, Self> {
        if result < 0 { Err(Self::new(result)) } else { Ok(result) }
    }

    /// The positive number.
    #[must_use]
    pub const fn code(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The same words as rte_strerror, which asks the C library for all but its own two numbers.
        match self.0 {
            0 => f.write_str("no reason given"),
            1001 => f.write_str("not allowed in a secondary process"),
            1002 => f.write_str("the EAL is not initialised"),
            code => {
                let text = io::Error::from_raw_os_error(code).to_string();
                f.write_str(text.split(" (os error").next().unwrap_or(&text))
            }
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_systems_without_the_number() {
        assert_eq!(Errno::new(-19).to_string(), "No such device");
        assert_eq!(Errno::new(12).to_string(), "Cannot allocate memory");
        assert_eq!(Errno::new(1001).to_string(), "not allowed in a secondary process");
        assert_eq!(Errno::new(0).to_string(), "no reason given");
    }

    #[test]
    fn only_negative_results_are_errors() {
        assert_eq!(Errno::check(3), Ok(3));
        assert_eq!(Errno::check(0), Ok(0));
        assert_eq!(Errno::check(-16), Err(Errno::BUSY));
    }
}
