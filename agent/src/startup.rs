//! From the first instruction to a served port, and to the end.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Resolved, Sources};
use crate::console;
use crate::guest::{self, Guest};
use crate::log::Ring;
use crate::timeline::stamp;
use crate::{boot, extensions, log, mem_agent, notify, service, shelter, transport};

/// How long the reply that announces the end gets to reach the host, and what is logged with it.
const FAREWELL: Duration = Duration::from_millis(20);

/// How long containers may take to go when a service manager stops the agent.
const STOP: Duration = Duration::from_secs(20);

/// How many records that nobody came for are shown when the agent fails.
const LAST_WORDS: usize = 20;

/// Runs the agent to its end, which, where it is PID 1, is also the VM's: whatever happens here, a VM without an agent
/// is of no use to anybody.
pub(crate) fn run(config_file: Option<PathBuf>) -> ExitCode {
    let is_init = std::process::id() == 1;
    let ring = OnceLock::new();
    let failure = match catch_unwind(AssertUnwindSafe(|| start(config_file, is_init, &ring))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the agent panicked".to_string()),
    };
    if let Some(failure) = &failure {
        for line in ring.get().into_iter().flat_map(|ring: &Arc<Ring>| ring.unseen(LAST_WORDS)) {
            eprint!("{line}");
        }
        eprintln!("husk-agent: {failure}");
        notify::tell(&format!("STATUS={failure}"));
    }
    if is_init {
        guest::power_off()
    }
    boot::unprotect_binary();
    if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(
    config_file: Option<PathBuf>,
    is_init: bool,
    ring: &OnceLock<Arc<Ring>>,
) -> Result<(), Box<dyn Error>> {
    stamp("agent started");
    if is_init {
        boot::begin()?;
    }
    let sources = Sources::of_this_process(config_file)?;
    let extensions = extensions::named(&sources.cmdline)?;
    let Resolved { mut config, warnings, .. } = Resolved::from(sources)?;
    if is_init {
        boot::finish(&config)?;
    }
    for extension in extensions {
        extension.mount()?;
    }
    boot::step("protect the agent's binary", boot::protect_binary)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    stamp("guest set up");

    if !transport::has_ports() {
        // Records that nobody can fetch are better seen on the console.
        config.log_port = None;
    }
    if config.log_port.is_some() {
        let _ = ring.set(Arc::default());
    }
    log::install(config.log_level, ring.get().cloned());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    shelter::take(is_init);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, ring.get().cloned()));
    // Not waited for: a thread that hangs in a system call would keep the VM from ending.
    runtime.shutdown_background();
    served
}

/// Serves until somebody ends the sandbox or tells the agent to stop.
async fn serve(config: Config, ring: Option<Arc<Ring>>) -> Result<(), Box<dyn Error>> {
    let guest = Arc::new(Guest::new(config));
    let mut terminate = signal(SignalKind::terminate())?;
    let reaping = guest.clone();
    tokio::spawn(async move { reaping.reaper.run().await });
    let devices = guest.devices.clone();
    tokio::spawn(async move { devices.run().await });

    stamp("event loop running");
    let served = transport::serve(&guest.config)?;
    stamp("transports open");
    if let (Some(ring), Some(clients)) = (ring, served.logs) {
        tokio::spawn(serve_logs(ring, clients));
    }
    console::serve(&guest, served.console);
    mem_agent::announce(&guest.config);
    if guest.config.trace && !cfg!(feature = "tracing-spans") {
        tracing::warn!("tracing has no effect: this agent is built without `tracing-spans`");
    }
    if guest.config.passfd_port.is_some() {
        tracing::warn!("passfd_listener_port: streams are not handed over, only read and written by calls");
    }
    let _server = service::serve(guest.clone(), served.agent).await?;
    stamp("serving");
    tracing::info!(
        boot_us = crate::timeline::stamps().last().map_or(0, |last| last.nanoseconds / 1000),
        "ready"
    );
    notify::tell("READY=1\nSTATUS=serving");

    tokio::select! {
        () = guest.ended() => tracing::info!("the sandbox has ended"),
        _ = terminate.recv() => {
            tracing::info!("told to stop");
            notify::tell("STOPPING=1");
            // Fails when somebody has done so already.
            let _ = tokio::time::timeout(STOP, guest.destroy_sandbox()).await;
        }
    }
    tokio::time::sleep(FAREWELL).await;
    Ok(())
}

/// Each client of the log has a task: one that reads nothing keeps only itself waiting.
async fn serve_logs(ring: Arc<Ring>, mut clients: transport::Incoming) {
    while let Some(client) = clients.recv().await {
        let ring = ring.clone();
        tokio::spawn(async move {
            if let Err(error) = ring.serve(client).await {
                tracing::debug!(%error, "a client of the log left");
            }
        });
    }
}
