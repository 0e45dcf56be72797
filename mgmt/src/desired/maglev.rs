//! Options of `mh`.

use super::{Refusal, Scheduler};
use dataplane::snapshot::Maglev;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The order in which destinations take their turns in mh's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaglevOrder {
    /// The newest first, as Linux has it: what `ipvsadm` made.
    Kernel,
    /// By address and port, the same on every director whatever its history: what a configuration file says, unless it says
    /// otherwise.
    Canonical,
}

impl MaglevOrder {
    /// The order of a table.
    #[must_use]
    pub const fn of(maglev: Maglev) -> Self {
        if maglev.canonical { Self::Canonical } else { Self::Kernel }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Canonical => "canonical",
        }
    }
}

impl fmt::Display for MaglevOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MaglevOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Kernel, Self::Canonical].into_iter().find(|order| order.name() == text);
        found.ok_or_else(|| format!("`{text}` is not an order of mh; write kernel or canonical"))
    }
}

/// mh's options of a service under `scheduler`: what is written over what there was.
///
/// # Errors
///
/// Options of mh under another scheduler; a size that is not a prime in range.
pub(super) fn maglev(
    scheduler: Scheduler,
    before: Maglev,
    size: Option<u32>,
    order: Option<MaglevOrder>,
) -> Result<Maglev, Refusal> {
    if scheduler != Scheduler::Mh {
        let written = size.is_some() || order.is_some();
        return if written { Err(Refusal::MaglevAlone(scheduler)) } else { Ok(Maglev::KERNEL) };
    }
    let maglev = Maglev {
        size: size.unwrap_or(before.size),
        canonical: order.map_or(before.canonical, |order| order == MaglevOrder::Canonical),
    };
    if maglev.is_possible() { Ok(maglev) } else { Err(Refusal::MaglevSize(maglev.size)) }
}

#[cfg(test)]
mod tests {
    use super::super::{Service, ServiceKey, ServiceSpec};
    use super::*;
    use crate::address::Protocol;

    #[test]
    fn options_belong_to_mh_and_are_kept_while_it_is() {
        let canonical = Some(MaglevOrder::Canonical);
        let held = maglev(Scheduler::Mh, Maglev::KERNEL, Some(65_537), canonical).unwrap();
        assert_eq!(held, Maglev { size: 65_537, canonical: true });
        assert_eq!(maglev(Scheduler::Mh, held, None, None), Ok(held));
        assert_eq!(maglev(Scheduler::Sh, held, None, None), Ok(Maglev::KERNEL));
        let refused = maglev(Scheduler::Sh, held, None, canonical).unwrap_err();
        assert!(refused.to_string().contains("scheduler mh"), "{refused}");
        for size in [0, 241, 250, 4092, 4095, 65_521 + 6, 65_539] {
            let refused = maglev(Scheduler::Mh, held, Some(size), None).unwrap_err();
            assert!(refused.to_string().contains("4093"), "{refused}");
        }
        for size in [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 65_537] {
            assert_eq!(maglev(Scheduler::Mh, held, Some(size), None).unwrap().size, size);
        }
    }

    #[test]
    fn orders_have_names() {
        for order in [MaglevOrder::Kernel, MaglevOrder::Canonical] {
            assert_eq!(order.to_string().parse(), Ok(order));
            assert_eq!(serde_json::to_string(&order).unwrap(), format!("\"{order}\""));
        }
        assert!("sorted".parse::<MaglevOrder>().unwrap_err().contains("canonical"));
    }

    #[test]
    fn a_service_keeps_its_options_through_edits_and_is_written_as_it_is() {
        let address = "192.0.2.1:80".parse().unwrap();
        let key = ServiceKey::Address { protocol: Protocol::Tcp, address };
        let spec = ServiceSpec {
            mh_size: Some(509),
            mh_order: Some(MaglevOrder::Canonical),
            ..ServiceSpec::new(key, Scheduler::Mh)
        };
        let held = Service::without_destinations(&spec).unwrap();
        assert_eq!(held.to_spec(), spec);
        let plain = Service::without_destinations(&ServiceSpec::new(key, Scheduler::Mh)).unwrap();
        assert_eq!(plain.to_spec().mh_order, Some(MaglevOrder::Kernel), "a file would mean the other one");
        assert_eq!(Service::without_destinations(&plain.to_spec()).unwrap(), plain);
    }
}
