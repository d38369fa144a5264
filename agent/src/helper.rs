//! Programs of the guest that the agent runs for one job: iptables, mkfs, modprobe, hooks.
//!
//! A helper is a child like any other, whose end the [`Reaper`] tells. It gets its input on stdin, a fixed environment
//! and a deadline; what it prints is kept up to a bound, and read on and thrown away from there, so that neither a
//! helper that never stops talking nor one that never ends holds anything up. Whoever stops waiting takes the helper
//! and its own children along.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::reaper::{Exit, Reaper};
use crate::stream::{Channel, Input, Output as Stream, WriteError};

/// How long a helper may take unless told otherwise. Callers with a limit of their own wait 30 s or longer.
const DEADLINE: Duration = Duration::from_secs(25);

/// How much of its output is kept unless told otherwise.
const KEPT: usize = 64 << 10;

/// How much of what it complained about goes into an error.
const COMPLAINT: usize = 1024;

/// A program to be run.
#[must_use]
pub(crate) struct Command {
    command: std::process::Command,
    program: PathBuf,
    input: Vec<u8>,
    deadline: Duration,
    kept: usize,
}

/// What a program printed that ended well.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The beginning of it, as much as was to be kept.
    pub(crate) stdout: Vec<u8>,
    /// The beginning of what it wrote to stderr.
    pub(crate) stderr: Vec<u8>,
    /// Whether there was more on stdout.
    pub(crate) truncated: bool,
}

/// A program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: no such program in the guest", names(.0))]
    Missing(Vec<PathBuf>),
    #[error("{}: start: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("{}: {stream}: {source}", program.display())]
    Stream { program: PathBuf, stream: &'static str, source: io::Error },
    #[error("{}: not done after {} ms, so it was killed", program.display(), deadline.as_millis())]
    Deadline { program: PathBuf, deadline: Duration },
    #[error("{}: it ended with {status}: {complaint}", program.display())]
    Failed { program: PathBuf, status: i32, complaint: String },
}

/// The first of these paths at which there is a program.
pub(crate) fn find(places: &[&str]) -> Result<PathBuf, Error> {
    let found = places.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_path_buf).ok_or_else(|| Error::Missing(places.iter().map(PathBuf::from).collect()))
}

impl Command {
    /// A program by its full path, with nothing but a search path in its environment, in `/`.
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let mut command = std::process::Command::new(&program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        // A group of its own: what it has started is killed with it.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, program, input: Vec::new(), deadline: DEADLINE, kept: KEPT }
    }

    /// With these arguments after its name.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// With this on its stdin. Without, that is empty.
    pub(crate) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    /// With this long to be done.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// With this much of its stdout kept.
    pub(crate) fn keep(mut self, bytes: usize) -> Self {
        self.kept = bytes;
        self
    }

    /// With anything changed about how it is started, but for its streams.
    #[allow(dead_code, reason = "hooks have a name, an environment and a directory of their own")]
    pub(crate) fn started(mut self, change: impl FnOnce(&mut std::process::Command)) -> Self {
        change(&mut self.command);
        self
    }
}

/// Runs a program to its end, which is an error unless its status is 0.
pub(crate) async fn run(reaper: &Reaper, command: Command) -> Result<Output, Error> {
    let Command { mut command, program, input, deadline, kept } = command;
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.spawn().map_err(|source| Error::Start { program: program.clone(), source })?;
    // Nothing is awaited between these two, so that the end cannot be collected before it is watched for.
    let running = Running { pid: child.id() as i32, exit: reaper.watch(child.id() as i32) };

    let work = converse(&mut child, &program, &input, kept, &running.exit);
    let output = match tokio::time::timeout(deadline, work).await {
        Ok(output) => output?,
        Err(_) => return Err(Error::Deadline { program, deadline }),
    };
    match running.exit.status() {
        Some(0) => Ok(output),
        status => {
            let status = status.unwrap_or_default();
            let words = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            let words = &words[..words.len().min(COMPLAINT)];
            Err(Error::Failed { program, status, complaint: String::from_utf8_lossy(words).trim().into() })
        }
    }
}

/// Feeds a child, listens to it, and stays until it has ended.
async fn converse(
    child: &mut Child,
    program: &Path,
    input: &[u8],
    kept: usize,
    exit: &Exit,
) -> Result<Output, Error> {
    let failed = |stream| move |source| Error::Stream { program: program.to_path_buf(), stream, source };
    let channel = |fd: OwnedFd, stream| Channel::new(fd).map_err(failed(stream));
    let stdin = child.stdin.take().map(|pipe| channel(pipe.into(), "stdin")).transpose()?.map(Input::pipe);
    let stdout = child.stdout.take().map(|pipe| channel(pipe.into(), "stdout")).transpose()?.map(Stream::new);
    let stderr = child.stderr.take().map(|pipe| channel(pipe.into(), "stderr")).transpose()?.map(Stream::new);

    let fed = async {
        let Some(stdin) = stdin else { return Ok(()) };
        match stdin.write(input, exit).await {
            // It need not read what it does not want. Whether it did its job is told by its status.
            Ok(()) | Err(WriteError::Closed | WriteError::Ended) => {}
            Err(WriteError::Write(source)) => return Err(failed("stdin")(source)),
        }
        stdin.close(exit).await.map_err(failed("stdin"))
    };
    let heard = async { listen(stdout, kept, exit).await.map_err(failed("stdout")) };
    let complained = async { listen(stderr, KEPT, exit).await.map_err(failed("stderr")) };
    let ((), (stdout, truncated), (stderr, _)) = tokio::try_join!(fed, heard, complained)?;
    exit.wait().await;
    Ok(Output { stdout, stderr, truncated })
}

/// Reads a stream to its end, and keeps the beginning of it.
async fn listen(stream: Option<Stream>, kept: usize, exit: &Exit) -> io::Result<(Vec<u8>, bool)> {
    let (mut all, mut truncated) = (Vec::new(), false);
    let Some(stream) = stream else { return Ok((all, truncated)) };
    loop {
        let read = stream.read(8 << 10, exit).await?;
        if read.is_empty() {
            return Ok((all, truncated));
        }
        let room = read.len().min(kept - all.len());
        all.extend_from_slice(&read[..room]);
        truncated |= room < read.len();
    }
}

/// A helper that was started. Dropped before its end, it is killed, and what it has started with it.
struct Running {
    pid: i32,
    exit: Exit,
}

impl Drop for Running {
    fn drop(&mut self) {
        // As long as nobody has collected it, its number is its own.
        if self.exit.status().is_none() {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Runs lines of shell with a reaper at work.
    async fn sh(script: &str, change: impl FnOnce(Command) -> Command) -> Result<Output, Error> {
        let reaper = Reaper::default();
        let command = change(Command::new("/bin/sh").args(["-c", script]));
        tokio::select! {
            output = run(&reaper, command) => output,
            () = reaper.run_for_tests() => unreachable!("it runs for as long as it is asked to"),
        }
    }

    #[tokio::test]
    async fn what_it_prints_comes_back() {
        let output = sh("echo out; echo err >&2", |command| command).await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert!(!output.truncated);
    }

    #[tokio::test]
    async fn it_reads_its_input_while_it_prints() {
        let input = vec![b'x'; 1 << 20];
        let output = sh("cat", |command| command.input(input.clone()).keep(2 << 20)).await.unwrap();
        assert_eq!(output.stdout.len(), input.len());
        assert_eq!(sh("cat", |command| command).await.unwrap().stdout, b"", "no input is an empty one");
    }

    #[tokio::test]
    async fn input_that_nobody_reads_is_no_error() {
        sh("exec <&-; sleep 0.1; true", |command| command.input(vec![0; 1 << 20])).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_tells_program_status_and_complaint() {
        let error = sh("echo no such table >&2; exit 3", |command| command).await.unwrap_err().to_string();
        assert_eq!(error, "/bin/sh: it ended with 3: no such table");
        let killed = sh("kill -SEGV $$", |command| command).await.unwrap_err();
        assert!(matches!(killed, Error::Failed { status: 139, .. }), "{killed}");
    }

    #[tokio::test]
    async fn output_without_end_is_cut_off_and_so_is_time() {
        let script = "head -c 1000000 /dev/zero";
        let output = sh(script, |command| command.keep(10)).await.unwrap();
        assert_eq!((output.stdout.len(), output.truncated), (10, true));
        let begun = Instant::now();
        let slow =
            sh("while :; do echo y; done", |command| command.keep(10).deadline(Duration::from_millis(200)));
        assert!(matches!(slow.await.unwrap_err(), Error::Deadline { .. }));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn at_the_deadline_its_children_die_too() {
        let file = tempfile();
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        sh(&script, |command| command.deadline(Duration::from_secs(2))).await.unwrap_err();
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        std::fs::remove_file(file).unwrap();
        let begun = Instant::now();
        // Whoever collects orphans here may take a moment.
        while is_alive(child) {
            assert!(begun.elapsed() < Duration::from_secs(5), "{child} lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_child_that_stays_behind_keeps_nobody_waiting() {
        let begun = Instant::now();
        let output = sh("sleep 10 & echo done", |command| command).await.unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert!(begun.elapsed() < Duration::from_secs(8));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let missing = run(&Reaper::default(), Command::new("/no/such/program")).await.unwrap_err();
        assert!(missing.to_string().starts_with("/no/such/program: start: "), "{missing}");
        let missing = find(&["/no/a", "/no/b"]).unwrap_err().to_string();
        assert_eq!(missing, "/no/a or /no/b: no such program in the guest");
        assert_eq!(find(&["/no/a", "/bin/sh"]).unwrap(), Path::new("/bin/sh"));
    }

    #[tokio::test]
    async fn its_environment_is_ours_to_choose() {
        let output = sh("env; pwd", |command| command).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("PATH=/usr/sbin:/usr/bin:/sbin:/bin") && text.ends_with("/\n"), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
        let output = sh("echo $A; pwd", |command| {
            command.started(|command| {
                command.env_clear().env("A", "b").current_dir("/tmp");
            })
        });
        assert_eq!(output.await.unwrap().stdout, b"b\n/tmp\n");
    }

    fn tempfile() -> PathBuf {
        std::env::temp_dir().join(format!("husk-helper-{}", std::process::id()))
    }

    fn is_alive(pid: i32) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    }
}
