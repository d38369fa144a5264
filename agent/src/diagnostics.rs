//! `GetDiagnosticData`: what a container left behind for whoever asks why it ended.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jail::{inside, oci};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// The one kind of data there is.
const TERMINATION_LOG: &str = "termination_log";

/// The annotation with which Kubernetes tells where in a container its last words are, and where they are without it.
const ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
const DEFAULT_PATH: &str = "/dev/termination-log";

/// The most that is read: what Kubernetes takes of it, from the end.
const MOST: u64 = 4096;

/// The file may be one of the host's.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("log_type: {0:?} is not {TERMINATION_LOG:?}")]
    LogType(String),
    #[error("termination log {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// Where a container's last words are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TerminationLog {
    /// Its root file system, as the agent sees it.
    root: PathBuf,
    /// The path inside.
    path: PathBuf,
    /// What the spec mounts there.
    mounted: Option<PathBuf>,
}

impl TerminationLog {
    pub(crate) fn of(spec: &oci::Spec) -> Self {
        let annotations = spec.annotations().as_ref();
        let path = annotations.and_then(|all| all.get(ANNOTATION)).map_or(DEFAULT_PATH, String::as_str);
        let path = PathBuf::from(if path.is_empty() { DEFAULT_PATH } else { path });
        let mut mounts = spec.mounts().iter().flatten();
        let mounted = mounts.rfind(|mount| *mount.destination() == path);
        Self {
            root: spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default(),
            mounted: mounted.and_then(|mount| mount.source().clone()),
            path,
        }
    }

    /// Its end as text. Without a file there are no words.
    pub(crate) async fn read(&self, log_type: &str) -> Result<String, Error> {
        if log_type != TERMINATION_LOG {
            return Err(Error::LogType(log_type.chars().take(64).collect()));
        }
        let log = self.clone();
        let reading = tokio::task::spawn_blocking(move || log.read_end());
        let read = match tokio::time::timeout(PATIENCE, reading).await {
            Ok(read) => read.unwrap_or_else(|panic| Err(io::Error::other(panic))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let bytes = read.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn read_end(&self) -> io::Result<Vec<u8>> {
        let mut file = match self.open() {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            opened => opened?,
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.seek(SeekFrom::Start(found.len().saturating_sub(MOST)))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The container can put anything at that place: so no link leads out, and nothing that is opened can block.
    fn open(&self) -> nix::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let directory = |path: &Path| {
            nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        };
        let opened = match &self.mounted {
            Some(source) => inside::open_plain(directory(Path::new("/"))?, source, flags)?,
            None => inside::open(directory(&self.root)?, &self.path, flags)?,
        };
        Ok(opened.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn log(name: &str) -> (PathBuf, TerminationLog) {
        let dir = std::env::temp_dir().join(format!("husk-last-words-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("root")).unwrap();
        let log = TerminationLog { root: dir.join("root"), path: "/words".into(), mounted: None };
        (dir, log)
    }

    #[tokio::test]
    async fn the_end_is_read_and_what_is_no_text_is_marked() {
        let (dir, log) = log("end");
        assert_eq!(log.read("termination_log").await.unwrap(), "", "no file, no words");
        let mut words = vec![b'a'; 5000];
        words.extend(b"\xffend");
        fs::write(dir.join("root/words"), words).unwrap();
        let read = log.read("termination_log").await.unwrap();
        assert!(read.ends_with("a\u{fffd}end"));
        assert_eq!(read.chars().count(), 4096);
        assert!(matches!(log.read("dmesg").await, Err(Error::LogType(_))));
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn what_is_mounted_there_is_what_is_read() {
        let (dir, log) = log("mounted");
        fs::write(dir.join("root/words"), "hidden").unwrap();
        fs::write(dir.join("file"), "seen").unwrap();
        let log = TerminationLog { mounted: Some(dir.join("file")), ..log };
        assert_eq!(log.read("termination_log").await.unwrap(), "seen");
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn nothing_a_container_plants_leads_outside_or_blocks() {
        let (dir, log) = log("planted");
        fs::write(dir.join("secret"), "secret").unwrap();
        for target in [dir.join("secret"), "../secret".into(), "/proc/self/environ".into()] {
            symlink(target, dir.join("root/words")).unwrap();
            assert_eq!(log.read("termination_log").await.unwrap(), "");
            fs::remove_file(dir.join("root/words")).unwrap();
        }
        nix::unistd::mkfifo(&dir.join("root/words"), Mode::S_IRWXU).unwrap();
        assert!(log.read("termination_log").await.is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
