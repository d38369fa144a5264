//! A helper process (QEMU, virtiofsd, vhost-device-vsock) that never outlives us.
//!
//! The kernel kills it when the *thread* that forked it dies, so one thread, kept for the life of the process, starts
//! them all. Dropping a [`Process`] kills and reaps it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// A running child. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
}

/// Sees a [`Process`] exit without owning it.
#[derive(Debug)]
pub(crate) struct Watch(AsyncFd<OwnedFd>);

impl Process {
    /// Starts `program`, stdin and stdout on /dev/null, stderr in the file `log`, `fds` at 10 and up.
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        log: &Path,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Process> {
        assert!(fds.len() <= sys::MAX_PASSED);
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
        sys::bind_child(&mut command, fds);
        let mut child = on_launcher(command)?;
        let pidfd = sys::pidfd_open(child.id()).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Process { child, pidfd })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Something to await its end with.
    pub(crate) fn watch(&self) -> io::Result<Watch> {
        Ok(Watch(sys::readable(self.pidfd.try_clone()?)?))
    }

    /// Kills and reaps it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    /// Waits for the exit and tells it in words: `exited with status 1`, `was killed by signal 9`.
    pub(crate) async fn exited(&self) -> String {
        if let Err(e) = self.0.readable().await {
            return format!("cannot be watched: {e}");
        }
        // WNOWAIT leaves the child to its owner, who reaps it.
        match waitid(Id::PIDFd(self.0.get_ref().as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(_, code)) => format!("exited with status {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {}", signal.as_str()),
            Ok(_) | Err(_) => "is gone".into(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Forks on the thread that lives as long as we do.
fn on_launcher(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static LAUNCHER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                if let Err(unsent) = reply.send(command.spawn())
                    && let Ok(mut child) = unsent.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    launcher.send((command, reply)).map_err(|_| io::Error::other("the launcher thread is gone"))?;
    answer.recv().map_err(|_| io::Error::other("the launcher thread is gone"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[tokio::test]
    async fn a_child_finds_its_descriptors_and_its_exit_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut second, second_theirs) = UnixStream::pair().unwrap();
        let script = "echo one >&10; echo two >&11; echo oops >&2; exit 3".to_string();
        let process = Process::start(
            Path::new("/bin/bash"),
            &["-c".into(), script],
            &dir.path().join("log"),
            vec![theirs.into(), second_theirs.into()],
        )
        .unwrap();
        let watch = process.watch().unwrap();
        let how = tokio::time::timeout(Duration::from_secs(10), watch.exited()).await.unwrap();
        assert_eq!(how, "exited with status 3");
        let mut text = String::new();
        (&ours).read_to_string(&mut text).unwrap();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "oops\n");
        let _ = second.flush();
    }

    #[tokio::test]
    async fn dropping_kills() {
        let dir = tempfile::tempdir().unwrap();
        let process =
            Process::start(Path::new("/bin/sleep"), &["1000".into()], &dir.path().join("log"), vec![])
                .unwrap();
        let proc_dir = format!("/proc/{}", process.pid());
        assert!(Path::new(&proc_dir).exists());
        drop(process);
        assert!(!Path::new(&proc_dir).exists());
    }
}
