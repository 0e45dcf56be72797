//! Shortest expected delay (`ip_vs_sed`): the usable destination with the smallest (active connections + 1) / weight, the first
//! of equals in list order. With exponential service times of rate `weight` that quotient is the new connection's expected time
//! in the system (Nelson, Philips: "An approximation to the response time for shortest queue routing", SIGMETRICS 1989; Zhang,
//! "Linux Virtual Server for Scalable Network Services", OLS 2000).

use super::{Loads, Own, Request, Scheduler};
use crate::snapshot::{SchedulerKind, ServiceView};

/// sed.
#[derive(Debug, Clone, Copy)]
pub struct ShortestExpectedDelay;

impl Scheduler for ShortestExpectedDelay {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        own.standings.least(SchedulerKind::Sed, service, loads)
    }
}
