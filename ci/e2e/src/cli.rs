//! The `husk` binary, as a person or an engine would call it, with a state directory of the test's own.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::Settings;
use crate::machine::{self, LIMIT};

/// A place to run `husk` in.
pub struct Cli {
    settings: Settings,
    dir: TempDir,
}

/// A run of `husk` that is over.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; 128 and the signal if one killed it.
    pub status: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// A run of `husk` to be started.
#[must_use]
pub struct Husk {
    command: Command,
    stdin: Vec<u8>,
}

/// A run of `husk` that goes on. Killed when dropped.
pub struct Running {
    child: Child,
    begun: Instant,
}

impl Cli {
    /// Runs a test of the command line, which may run one VM at a time.
    pub fn test(body: impl AsyncFnOnce(&Cli)) {
        machine::block_on(async {
            let settings = Settings::get();
            let _slot = machine::slot().await;
            let dir = TempDir::with_prefix("husk-e2e-").expect("a temporary directory");
            let cli = Cli { settings, dir };
            let in_time = tokio::time::timeout(LIMIT, body(&cli)).await;
            assert!(in_time.is_ok(), "the test was not done within {} s", LIMIT.as_secs());
            cli.nothing_is_left().await;
        });
    }

    /// `husk` with these arguments.
    pub fn husk(&self, args: &[&str]) -> Husk {
        let mut command = Command::new(&self.settings.husk);
        command.arg("--root").arg(self.root()).args(args).env("HUSK_ARTEFACTS", &self.settings.artefacts);
        Husk { command, stdin: Vec::new() }
    }

    /// `husk run --rm` of the test image, with `flags`, a container called `c1`, and this program in it.
    pub fn run(&self, flags: &[&str], program: &[&str]) -> Husk {
        let image = self.image();
        let words: [&[&str]; 5] = [&["run", "--rm", "--image", &image], flags, &["c1"], &["--"], program];
        self.husk(&words.concat())
    }

    /// The test image, as `--image` takes it.
    pub fn image(&self) -> String {
        format!("oci:{}", self.settings.image.display())
    }

    /// What the run is about.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A directory that goes with the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where this test's containers are kept.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Starts a run, and waits until its container is listed as running.
    pub async fn start(&self, husk: Husk) -> Running {
        let mut running = husk.start();
        loop {
            let listed = self.husk(&["list", "--json"]).run().await;
            if listed.text().contains("\"status\": \"running\"") {
                return running;
            }
            if running.child.try_wait().expect("husk can be waited for").is_some() {
                panic!("it ended before it ran: {:?}", running.ended().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The number of the process of this test's VM whose command line has `word` in it.
    pub fn process_of(&self, word: &str) -> Option<i32> {
        let all = processes_with(&self.root().display().to_string());
        all.into_iter().find(|(_, line)| line.contains(word)).map(|(pid, _)| pid)
    }

    /// Panics unless every process of this test's VM is gone. They get a moment to go.
    pub async fn no_process_is_left(&self) {
        let path = self.root().display().to_string();
        let mut left = processes_with(&path);
        for _ in 0..100 {
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = processes_with(&path);
        }
        panic!("processes are left: {left:#?}");
    }

    /// Panics unless no process, mount or file of this test's containers is left.
    pub async fn nothing_is_left(&self) {
        self.no_process_is_left().await;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("our own mounts");
        assert!(!mounts.contains(&self.root().display().to_string()), "mounts are left: {mounts}");
        let files = files_below(&self.root());
        assert!(files.is_empty(), "files are left: {files:#?}");
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let states = std::fs::read_dir(self.root()).into_iter().flatten().flatten();
            states.for_each(|state| machine::print_logs(&state.path()));
        }
    }
}

impl Husk {
    /// With this in its environment.
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// With these bytes on its stdin.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ended {
        let stdin = self.stdin.clone();
        let mut running = self.start();
        running.write(&stdin).await;
        running.ended().await
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let piped = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.kill_on_drop(true).spawn().expect("husk can be started");
        Running { child, begun: Instant::now() }
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().expect("it was not waited for").cast_signed()
    }

    /// Writes to its stdin. One that does not read any more is no error.
    pub async fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        let _ = stdin.write_all(bytes).await;
    }

    /// Reads from its stdout until `text` has come.
    pub async fn read_until(&mut self, text: &str) -> String {
        let stdout = self.child.stdout.as_mut().expect("stdout is piped");
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&all).contains(text) {
            let read = stdout.read(&mut buffer).await.expect("stdout can be read");
            assert!(read > 0, "the output ended before {text:?}: {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Reads its stdout to the end, while other things are done with it.
    pub fn take_stdout(&mut self) -> impl Future<Output = Vec<u8>> + use<> {
        let stdout = self.child.stdout.take();
        async move {
            let mut all = Vec::new();
            stdout.expect("stdout is piped").read_to_end(&mut all).await.expect("stdout can be read");
            all
        }
    }

    /// Closes its stdin and stays until it has ended.
    pub async fn ended(self) -> Ended {
        let Running { child, begun } = self;
        let output = child.wait_with_output().await.expect("husk can be waited for");
        let status = output.status;
        Ended {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
        }
    }
}

impl Ended {
    /// Its stdout as text, without the white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().into()
    }

    /// Its stdout as text; panics if it failed.
    pub fn ok(&self) -> String {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self.text()
    }

    /// Checks that it failed as husk itself fails: at once, with this code, in one line that has all of `words`.
    pub fn complains(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "one line, not {:?}", self.stderr);
        assert!(self.stderr.starts_with("husk: "), "{:?}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {:?}", self.stderr);
        }
        assert!(self.took < SOON, "it took {:?}", self.took);
    }
}

/// Seconds, on a slow machine with other things to do.
const SOON: Duration = Duration::from_secs(20);

/// Number and command line.
fn processes_with(text: &str) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let all = entries.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        line.contains(text).then_some((pid, line))
    });
    all.collect()
}

/// Everything but directories: an empty directory may serve the next container.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let all = entries.flatten().flat_map(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir { files_below(&entry.path()) } else { vec![entry.path()] }
    });
    all.collect()
}
