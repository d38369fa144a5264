//! The vhost-device-vsock daemon: AF_VSOCK for a guest whose host has no vhost-vsock.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::program::find_program;

/// The guest's address. Each daemon serves one VM, so all may have the same.
const GUEST_CID: u32 = 3;
const START: Duration = Duration::from_secs(5);

/// Why the daemon does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not installed.
    #[error("vhost-device-vsock: not found")]
    NotFound,
    /// It cannot be started.
    #[error("{}", .0.display())]
    Start(PathBuf, #[source] io::Error),
    /// It came and went, or never listened.
    #[error("{}: {said}", .program.display())]
    Died {
        /// The daemon.
        program: PathBuf,
        /// How it ended and its last line.
        said: String,
    },
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Vsock {
    process: Process,
    /// The vhost-user socket that QEMU connects to.
    pub(crate) device: PathBuf,
}

impl Vsock {
    /// Starts the daemon with its sockets below `dir`; clients connect to `hybrid`.
    pub(crate) async fn start(dir: &Path, hybrid: &Path) -> Result<Vsock, Error> {
        let program = find_program("vhost-device-vsock", &[]).ok_or(Error::NotFound)?;
        let device = dir.join("vsock.sock");
        let log = dir.join("vsock.log");
        let args = [
            "--guest-cid".to_string(),
            GUEST_CID.to_string(),
            "--uds-path".into(),
            hybrid.to_string_lossy().into_owned(),
            "--socket".into(),
            device.to_string_lossy().into_owned(),
        ];
        let process =
            Process::start(&program, &args, &log, vec![]).map_err(|e| Error::Start(program.clone(), e))?;
        let watch = process.watch().map_err(|e| Error::Start(program.clone(), e))?;
        let vsock = Vsock { process, device };
        // It makes its own socket and cannot take ours; it is a local process, so a short poll does no harm.
        let begun = Instant::now();
        while !vsock.device.exists() {
            let nap = tokio::time::timeout(Duration::from_millis(5), watch.exited()).await;
            let how = match nap {
                Ok(how) => how,
                Err(_) if begun.elapsed() > START => format!("no socket within {} s", START.as_secs()),
                Err(_) => continue,
            };
            let said = format!("{how}: {}", crate::log::last_line(&log));
            return Err(Error::Died { program, said });
        }
        Ok(vsock)
    }

    /// Waits until the daemon has ended and says how.
    pub(crate) fn obituary(&self) -> io::Result<impl Future<Output = String> + Send + 'static> {
        let watch = self.process.watch()?;
        Ok(async move { format!("vsock: vhost-device-vsock {}", watch.exited().await) })
    }
}
