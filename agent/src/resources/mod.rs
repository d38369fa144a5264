//! What the host may give to a guest that runs: processors, memory and swap.
//!
//! The host plugs a thing in, and then asks for it to be used. Directories are parameters, so that tests need no machine
//! whose processors they may take away.

mod memory;
mod processors;
mod swap;

use std::io;
use std::path::Path;

pub(crate) use memory::{block_size, can_probe};
pub(crate) use swap::{swap_at, swap_on};

use crate::devices::{self, BadPci};

/// Where the kernel shows processors and memory.
pub(crate) const SYSTEM: &str = "/sys/devices/system";

/// Something is not in use that should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("nb_cpus: {wanted} processors are wanted, and this guest can have {possible} at most")]
    TooManyProcessors { wanted: u32, possible: u32 },
    #[error("nb_cpus: {wanted} processors are wanted, and {online} are online after {} ms{}", .waited.as_millis(), because(.refused))]
    Processors { wanted: u32, online: u32, waited: std::time::Duration, refused: Option<String> },
    #[error("{object}: {step}: {source}")]
    Step { object: String, step: &'static str, source: io::Error },
    #[error(
        "memHotplugProbeAddr: this kernel finds plugged memory by itself, and has no file to be told of it"
    )]
    NoProbe,
    #[error("PCIPath: {0}")]
    SwapAddress(#[from] SwapAddress),
    #[error("path: {0:?} is not an absolute path")]
    SwapPath(String),
    #[error(transparent)]
    Device(#[from] devices::Error),
}

/// Slots that are no way to a disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwapAddress {
    #[error("it is missing")]
    Missing,
    #[error("{0} is not a slot")]
    Slot(u32),
    #[error(transparent)]
    Path(#[from] BadPci),
}

fn because(refused: &Option<String>) -> String {
    refused.as_ref().map(|refused| format!("; {refused}")).unwrap_or_default()
}

/// Brings processors online until there are so many of them, if it says how many, and then, unless only processors are
/// meant, every block of memory.
pub(crate) async fn online(system: &Path, processors: u32, only_processors: bool) -> Result<(), Error> {
    if processors > 0 {
        processors::online(system, processors).await?;
    }
    if !only_processors {
        let system = system.to_path_buf();
        blocking(move || memory::online(&system)).await?;
    }
    Ok(())
}

/// Tells the kernel of memory at these addresses, where it does not find it by itself.
pub(crate) async fn probe(system: &Path, addresses: Vec<u64>) -> Result<(), Error> {
    let system = system.to_path_buf();
    blocking(move || memory::probe(&system, &addresses)).await
}

/// Runs what may take the kernel its time on a thread where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(Error::Step {
            object: "guest resources".into(),
            step: "run a blocking step",
            source: io::Error::other(panic),
        })
    })
}
