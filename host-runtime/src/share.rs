//! One directory of the host, shared with the guest: virtio-fs where a daemon is installed, QEMU's own 9p elsewhere.
//! Either way nothing is mounted on the host.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use agent_api::agent::Storage;
use agent_api::paths;
use guest_arch::Arch;

use crate::process::{Process, Watch};
use crate::program::find_program;
use crate::qemu::config;
use crate::sys::FIRST_PASSED_FD;

/// Which file system carries the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// virtio-fs if a virtiofsd is found and the guest is of this machine's architecture, else 9p.
    #[default]
    Auto,
    /// virtio-fs or nothing.
    Virtiofs,
    /// 9p.
    NineP,
}

impl Kind {
    /// What it comes to between a host and a guest. virtio-fs hands the guest's requests on as they are, in its byte order
    /// and with its numbers for open(2), which differ between architectures; 9p has numbers and an order of its own.
    fn between(self, host: Arch, guest: Arch) -> Result<Kind, Error> {
        match self {
            _ if host == guest => Ok(self),
            Kind::Virtiofs => Err(Error::Foreign(guest)),
            Kind::Auto | Kind::NineP => Ok(Kind::NineP),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        match text {
            "auto" => Ok(Kind::Auto),
            "virtiofs" => Ok(Kind::Virtiofs),
            "9p" => Ok(Kind::NineP),
            _ => Err("expected auto, virtiofs or 9p".into()),
        }
    }
}

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a directory we can open.
    #[error("{}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// virtio-fs was asked for and there is no daemon.
    #[error("virtiofsd: not found in /usr/lib/qemu, /usr/libexec or PATH")]
    NotFound,
    /// virtio-fs was asked for, and the two sides would not understand each other.
    #[error("virtio-fs is for guests of this machine's architecture, which {0} is not; use 9p")]
    Foreign(Arch),
    /// The daemon's socket or the daemon itself cannot be started.
    #[error("{}", .0.display())]
    Start(PathBuf, #[source] io::Error),
    /// The daemon ended while it was needed.
    #[error("{}: {how}: {said}", .program.display())]
    Died {
        /// The daemon.
        program: PathBuf,
        /// How it ended.
        how: String,
        /// Its last line.
        said: String,
    },
}

/// A shared directory, and the daemon behind it if there is one.
#[derive(Debug)]
pub(crate) struct Share {
    device: config::Share,
    daemon: Option<Daemon>,
}

#[derive(Debug)]
struct Daemon {
    process: Process,
    watch: Watch,
    program: PathBuf,
    log: PathBuf,
}

impl Share {
    /// Prepares to share `dir` with a guest; sockets and logs go to `state`.
    pub(crate) fn start(dir: &Path, kind: Kind, guest: Arch, state: &Path) -> Result<Share, Error> {
        let kind = kind.between(Arch::host(), guest)?;
        let dir = dir.canonicalize().map_err(|e| Error::Directory(dir.to_path_buf(), e))?;
        std::fs::read_dir(&dir).map_err(|e| Error::Directory(dir.clone(), e))?;
        let daemon = match kind {
            Kind::NineP => None,
            Kind::Auto => find_daemon(),
            Kind::Virtiofs => Some(find_daemon().ok_or(Error::NotFound)?),
        };
        let Some(program) = daemon else {
            let root = nix::unistd::geteuid().is_root();
            return Ok(Share { device: config::Share::NineP { dir, root }, daemon: None });
        };
        // The socket is ours and listens before the daemon runs: QEMU may connect at any moment.
        let socket = state.join("share.sock");
        let listener = UnixListener::bind(&socket).map_err(|e| Error::Start(socket.clone(), e))?;
        let log = state.join("virtiofsd.log");
        let args = arguments(&program, &dir);
        let start = |e| Error::Start(program.clone(), e);
        let process = Process::start(&program, &args, &log, vec![listener.into()]).map_err(start)?;
        let watch = process.watch().map_err(start)?;
        let daemon = Daemon { process, watch, program, log };
        Ok(Share { device: config::Share::Virtiofs(socket), daemon: Some(daemon) })
    }

    /// The device QEMU gets.
    pub(crate) fn device(&self) -> config::Share {
        self.device.clone()
    }

    /// What the agent mounts, at `mount_point`.
    pub(crate) fn storage(&self, mount_point: &str) -> Storage {
        let (driver, fstype, options): (_, _, &[&str]) = match self.device {
            config::Share::Virtiofs(_) => ("virtio-fs", "virtiofs", &["nodev"]),
            config::Share::NineP { .. } => {
                ("9p", "9p", &["trans=virtio", "version=9p2000.L", "cache=mmap", "msize=512000", "nodev"])
            }
        };
        Storage {
            driver: driver.into(),
            source: paths::SHARE_TAG.into(),
            fstype: fstype.into(),
            options: options.iter().map(ToString::to_string).collect(),
            mount_point: mount_point.into(),
            ..Default::default()
        }
    }

    /// Waits until the daemon has ended, which it should not before QEMU does; for ever without one.
    pub(crate) async fn died(&self) -> Error {
        let Some(daemon) = &self.daemon else { return std::future::pending().await };
        let how = daemon.watch.exited().await;
        Error::Died { program: daemon.program.clone(), how, said: crate::log::last_line(&daemon.log) }
    }

    /// The same for a task of its own, in words; `None` without a daemon.
    pub(crate) fn obituary(&self) -> io::Result<Option<impl Future<Output = String> + Send + 'static>> {
        let Some(daemon) = &self.daemon else { return Ok(None) };
        let (watch, program) = (daemon.process.watch()?, daemon.program.clone());
        Ok(Some(async move { format!("share: {} {}", program.display(), watch.exited().await) }))
    }
}

impl Error {
    /// Whether the daemon ended as it does when QEMU has let go of it.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self, Error::Died { how, .. } if how == "exited with status 0")
    }
}

fn find_daemon() -> Option<PathBuf> {
    find_program("virtiofsd", &["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"])
}

/// The daemon's arguments. The one in C that came with QEMU until 7.2 lives in QEMU's directory and names its options
/// differently from the one in Rust that replaced it.
fn arguments(program: &Path, dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let fd = format!("--fd={FIRST_PASSED_FD}");
    let root = nix::unistd::geteuid().is_root();
    if program.parent().is_some_and(|parent| parent.ends_with("qemu")) {
        vec![
            fd,
            "-f".into(),
            "-o".into(),
            format!("source={dir},cache=auto,xattr,sandbox=namespace,log_level=err"),
        ]
    } else {
        let sandbox = if root { "namespace" } else { "none" };
        vec![
            fd,
            format!("--shared-dir={dir}"),
            "--cache=auto".into(),
            format!("--sandbox={sandbox}"),
            "--xattr".into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_daemons_get_their_own_words() {
        let c = arguments(Path::new("/usr/lib/qemu/virtiofsd"), Path::new("/r"));
        assert_eq!(c[0], "--fd=10");
        assert!(c[3].starts_with("source=/r,"));
        let rust = arguments(Path::new("/usr/libexec/virtiofsd"), Path::new("/r"));
        assert!(rust.contains(&"--shared-dir=/r".to_string()));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let state = tempfile::tempdir().unwrap();
        let error =
            Share::start(Path::new("/no/such/dir"), Kind::Auto, Arch::host(), state.path()).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/dir");
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_guest_of_another_architecture_gets_9p() {
        let between = |kind: Kind, guest| kind.between(Arch::X86_64, guest).map_err(|e| e.to_string());
        assert_eq!(between(Kind::Auto, Arch::X86_64), Ok(Kind::Auto));
        assert_eq!(between(Kind::Auto, Arch::Aarch64), Ok(Kind::NineP));
        assert_eq!(between(Kind::Virtiofs, Arch::X86_64), Ok(Kind::Virtiofs));
        assert!(between(Kind::Virtiofs, Arch::S390x).unwrap_err().contains("s390x is not; use 9p"));
    }

    #[test]
    fn ninep_needs_no_daemon() {
        let state = tempfile::tempdir().unwrap();
        let share = Share::start(state.path(), Kind::NineP, Arch::host(), state.path()).unwrap();
        let storage = share.storage("/run/x");
        assert_eq!((storage.driver.as_str(), storage.fstype.as_str()), ("9p", "9p"));
        assert_eq!(storage.mount_point, "/run/x");
    }
}
