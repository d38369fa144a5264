//! Husk's host runtime. Docs to come.

pub mod agent;
pub mod artefacts;
mod error;
mod log;
pub mod name;
mod process;
mod program;
mod qemu;
pub mod share;
pub mod size;
mod sys;
pub mod transport;
pub mod vm;
