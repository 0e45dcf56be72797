//! Replays: recorded scenarios of a real Linux director played to the engine, and compared.

pub mod compare;
pub mod decode;
pub mod host;
pub mod late;
pub mod mark_commands;
pub mod mask;
pub mod network_commands;
pub mod rules;
pub mod sandbox;
pub mod stand_in;
pub mod tables;
pub mod text;
pub mod trace;
