//! The director's management plane: what the operator wants, and how it reaches the workers.
//!
//! ```text
//!  config file ─┐                          ┌─ publisher thread ──────────────────────────────┐
//!  uvsctl ──────┼─► Request ─► Backend ─► │ desired state ─► compile ─► Snapshot ─► workers │
//!  (control.sock)                          └─────────────────────────────────────────────────┘
//! ```
//!
//! One thread owns the desired state ([`desired`]); everybody else sends it a [`protocol::Request`] over a bounded
//! channel and gets one answer. The control socket ([`control`]) is one such sender and the IPVS socket ([`ipvs`]) another,
//! the configuration file ([`config`]) is applied by the same path at start.

pub mod address;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod desired;
pub mod instance;
pub mod ipvs;
pub mod management;
pub mod mirror;
pub mod protocol;
pub mod replay;
pub mod twin;
