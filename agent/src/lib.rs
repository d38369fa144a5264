//! `husk-agent`: PID 1 of the VM, or a service in it.
//!
//! One thread runs everything: it boots the guest ([`boot`]), collects children ([`reaper`]), and serves the ttrpc
//! API ([`service`]) on every transport the VM has ([`transport`]). A container is a task ([`container`]); the code
//! between its clone and its exec is the `jail` crate, for which this binary executes itself again.

mod arguments;
mod boot;
mod cdi;
mod clock;
mod config;
mod container;
mod copy_file;
mod details;
mod devices;
mod diagnostics;
mod dm;
mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guest;
mod helper;
mod launch;
mod log;
mod metrics;
mod modules;
mod mountinfo;
mod network;
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
mod shelter;
mod spec;
mod stale_mounts;
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
use std::sync::Arc;
use std::time::Duration;

use arguments::Command;
use config::{Config, Resolved, Sources};
use guest::Guest;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};

/// The program.
pub fn main() -> ExitCode {
    let command = arguments::parse(std::env::args_os().skip(1), std::process::id() == 1);
    let done = command.map_err(Into::into).and_then(|command| match command {
        Command::Jail => jail::enter(),
        Command::Version => {
            println!("husk-agent {} (protocol {})", env!("CARGO_PKG_VERSION"), agent_api::API_VERSION);
            Ok(())
        }
        Command::PrintConfig { config } => print_config(config),
        Command::Serve { config } => run(config),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("husk-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_config(file: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    print!("{}", Resolved::from(Sources::of_this_process(file)?)?);
    Ok(())
}

fn run(config_file: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let started = since_boot()?;
    timeline::stamp("agent started");
    let is_init = std::process::id() == 1;
    if is_init {
        boot::run()?;
    }
    nix::sys::prctl::set_child_subreaper(true)?;
    timeline::stamp("guest set up");
    let Resolved { mut config, warnings, .. } = Resolved::from(Sources::of_this_process(config_file)?)?;
    if !transport::has_ports() {
        // Records that nobody can fetch are better seen on the console.
        config.log_port = None;
    }
    let ring = config.log_port.map(|_| Arc::<log::Ring>::default());
    log::install(config.log_level, ring.clone());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    shelter::take(is_init);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(config, ring, started))?;
    if is_init { guest::power_off() } else { Ok(()) }
}

/// Serves until somebody ends the sandbox or tells the agent to stop.
async fn serve(
    config: Config,
    ring: Option<Arc<log::Ring>>,
    started: Duration,
) -> Result<(), Box<dyn Error>> {
    let guest = Arc::new(Guest::new(config));
    let mut terminate = signal(SignalKind::terminate())?;
    let reaping = guest.clone();
    tokio::spawn(async move { reaping.reaper.run().await });
    let devices = guest.devices.clone();
    tokio::spawn(async move { devices.run().await });

    timeline::stamp("event loop running");
    let served = transport::serve(&guest.config)?;
    timeline::stamp("transports open");
    if let (Some(ring), Some(mut clients)) = (ring, served.logs) {
        tokio::spawn(async move {
            while let Some(client) = clients.recv().await {
                if let Err(error) = ring.serve(client).await {
                    tracing::debug!(%error, "a client of the log left");
                }
            }
        });
    }
    let mut server = service::serve(guest, served.agent).await?;
    timeline::stamp("serving");
    tracing::info!(
        started_us = started.as_micros() as u64,
        ready_us = since_boot()?.as_micros() as u64,
        "ready"
    );
    terminate.recv().await;
    server.shutdown().await?;
    Ok(())
}

/// Time since the kernel's clock began: what the boot has taken so far.
fn since_boot() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from)
}
