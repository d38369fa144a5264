//! Husk's host runtime. Docs to come.

pub mod agent;
pub mod artefacts;
pub mod command;
pub mod container;
mod error;
pub mod image;
mod log;
pub mod name;
mod process;
mod program;
mod qemu;
mod session;
pub mod share;
pub mod signals;
pub mod size;
pub mod state;
mod sys;
mod terminal;
pub mod transport;
pub mod vm;
