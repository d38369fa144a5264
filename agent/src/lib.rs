//! `husk-agent`: PID 1 of the VM, or a service in it.
//!
//! One thread runs everything ([`startup`]): it boots the guest ([`boot`]), collects children ([`reaper`]), and serves the ttrpc
//! API ([`service`]) on every transport the VM has ([`transport`]). A container is a task ([`container`]); the code
//! between its clone and its exec is the `jail` crate, for which this binary executes itself again.

mod arguments;
mod boot;
mod bundle;
mod cdi;
mod clock;
mod config;
mod console;
mod container;
mod copy_file;
mod details;
mod devices;
mod diagnostics;
mod dm;
mod dns;
mod extensions;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guest;
mod helper;
mod hooks;
mod launch;
mod log;
mod mem_agent;
mod metrics;
mod modules;
mod mountinfo;
mod network;
mod notify;
mod oom;
mod pods;
#[cfg_attr(not(feature = "policy"), path = "policy/off.rs")]
mod policy;
mod process;
mod random;
mod reaper;
mod refresh;
mod registry;
mod resources;
mod sandbox;
mod service;
mod shared_mounts;
mod shelter;
#[cfg(feature = "tracing-spans")]
mod spans;
mod spec;
mod stale_mounts;
mod startup;
mod stats;
mod stdio;
mod storage;
mod stream;
mod sys;
mod timeline;
mod transport;
mod volume;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::Command;
use config::{Resolved, Sources};

/// The program.
pub fn main() -> ExitCode {
    let command = arguments::parse(std::env::args_os().skip(1), std::process::id() == 1);
    let done = command.map_err(Into::into).and_then(|command| match command {
        Command::Jail => jail::enter(),
        Command::Hold => Ok(container::hold().map(|()| ExitCode::SUCCESS)?),
        Command::Version => {
            println!("husk-agent {} (protocol {})", env!("CARGO_PKG_VERSION"), agent_api::API_VERSION);
            Ok(ExitCode::SUCCESS)
        }
        Command::PrintConfig { config } => print_config(config),
        Command::Serve { config } => Ok(startup::run(config)),
    });
    done.unwrap_or_else(|error| {
        eprintln!("husk-agent: {error}");
        ExitCode::FAILURE
    })
}

fn print_config(file: Option<PathBuf>) -> Result<ExitCode, Box<dyn Error>> {
    print!("{}", Resolved::from(Sources::of_this_process(file)?)?);
    Ok(ExitCode::SUCCESS)
}
