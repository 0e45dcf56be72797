//! The director's management plane.
