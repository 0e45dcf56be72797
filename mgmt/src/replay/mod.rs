//! Replays: recorded scenarios of a real Linux director played to the engine, and compared.

pub mod decode;
pub mod host;
pub mod mask;
pub mod network_commands;
pub mod tables;
pub mod trace;
