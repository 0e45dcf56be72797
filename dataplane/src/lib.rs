//! The director's engine.
