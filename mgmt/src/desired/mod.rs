//! The desired state: which virtual services there shall be, and every change to them.
//!
//! A change is first *prepared*: checked against the state and turned into a [`Plan`], which names each service it
//! touches before and after. Nothing has happened yet, so that a snapshot can be compiled from the plan and the plan
//! forgotten if that fails. *Committing* the plan cannot fail. Untouched services are shared, never copied.

mod change;
mod diff;
mod refusal;
mod spec;
mod state;

pub use change::{
    Apply, Change, DestinationAdd, DestinationDelete, DestinationEdit, ServiceAdd, ServiceDelete, ServiceEdit,
};
pub use refusal::Refusal;
pub use spec::{
    Destination, DestinationSpec, Method, Persistence, Scheduler, Service, ServiceKey, ServiceSpec,
    TIMEOUT_MAX_S, WEIGHT_MAX, scheduler,
};
pub use state::{Bounds, Desired, Plan, Update};

#[cfg(test)]
mod tests;
