//! The desired state: which virtual services, mark rules, timeouts and settings there shall be, and every change to them.
//!
//! A change is first *prepared*: checked against the state and turned into a [`Plan`], which names each service it
//! touches before and after. Nothing has happened yet, so that a snapshot can be compiled from the plan and the plan
//! forgotten if that fails. *Committing* the plan cannot fail. Untouched services are shared, never copied.

mod change;
mod diff;
mod flags;
mod key;
mod maglev;
mod marks;
mod mask;
mod method;
mod mss;
mod refusal;
mod settings;
mod spec;
mod state;

pub use change::{
    Apply, Change, DestinationAdd, DestinationDelete, DestinationEdit, ServiceAdd, ServiceDelete,
    ServiceEdit, ServiceFlush,
};
pub use flags::{SchedulerFlags, UnknownFlag};
pub use key::{Family, ServiceKey};
pub use maglev::MaglevOrder;
pub use marks::{MARK_RULES_MAX, MarkRule, PortRange};
pub use mask::ClientMask;
pub use method::{Method, Tunnel, TunnelChecksum, TunnelKind};
pub use refusal::Refusal;
pub use settings::{OutOfRange, Settings, SettingsEdit, Timeouts, TimeoutsSet, out_of_range};
pub use spec::{
    Destination, DestinationSpec, Persistence, Scheduler, Service, ServiceSpec, TIMEOUT_MAX_S, WEIGHT_MAX,
    scheduler,
};
pub use state::{Bounds, Desired, Plan, Update};

#[cfg(test)]
mod tests;
