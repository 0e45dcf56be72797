//! The time-stamp counter.

/// Cycles of the time-stamp counter. Differences are wrap-safe for centuries; some 20–40 cycles a call.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction, and Linux lets user space execute it.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: reads a counter register.
        unsafe { dpdk_sys::rte_rdtsc() }
    }
}

/// Cycles a second, measured by the EAL at start; 0 before [`crate::Eal::init`] (and in stub builds).
#[must_use]
pub fn tsc_hz() -> u64 {
    if dpdk_sys::STUB {
        return 0;
    }
    // SAFETY: reads one integer.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
