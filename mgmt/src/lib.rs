//! The director's management plane.

pub mod mirror;
pub mod twin;
