//! The debug console: a shell in the guest, outside of every container, for whoever reaches its port.
//!
//! It is served only when the settings say so. A client gets a terminal of its own; when it leaves, its shell is
//! killed, and what the shell had in the foreground hangs up. Without a port the VM's own console is the terminal.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use crate::guest::Guest;
use crate::helper;
use crate::reaper::{Exit, Reaper};
use crate::stream::{Channel, Input, Output, WriteError};
use crate::transport::{Connection, Incoming};

/// The first of these that there is.
const SHELLS: [&str; 3] = ["/run/kata-extensions/devkit/bin/devkit-sh", "/bin/bash", "/bin/sh"];

/// Clients at a time.
const CLIENTS: usize = 8;

/// Between the end of a shell on the VM's console and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// A session did not come about, or broke off.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("debug console: {0}")]
    NoShell(#[from] helper::Error),
    #[error("debug console: {step}: {source}")]
    Step { step: &'static str, source: io::Error },
}

fn at(step: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Step { step, source }
}

/// Serves the console if the settings ask for one: on its port, or without one on the VM's console.
pub(crate) fn serve(guest: &Arc<Guest>, port: Option<Incoming>) {
    if !guest.config.debug_console {
        return;
    }
    tracing::warn!(
        port = guest.config.debug_console_port,
        "whoever reaches the debug console rules this guest"
    );
    let guest = guest.clone();
    match port {
        Some(clients) => tokio::spawn(serve_port(guest, clients)),
        None => tokio::spawn(async move {
            if let Err(error) = serve_vm_console(&guest.reaper, Path::new("/dev/console")).await {
                tracing::error!(%error, "no shell on the VM's console");
            }
        }),
    };
}

async fn serve_port(guest: Arc<Guest>, mut clients: Incoming) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    while let Some(client) = clients.recv().await {
        // Beyond the most, a client finds the connection closed.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let guest = guest.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(&guest.reaper, client, &SHELLS).await {
                tracing::warn!(%error, "a session ended");
            }
            drop(place);
        });
    }
}

/// One session: a terminal, a shell on it, and its client, until one of them goes.
async fn converse(reaper: &Reaper, client: impl Connection, shells: &[&str]) -> Result<(), Error> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let shell = match helper::find(shells) {
        Ok(shell) => shell,
        Err(error) => {
            let message = format!("husk-agent: debug console: {error}\r\n");
            let told = async {
                to_client.write_all(message.as_bytes()).await?;
                to_client.shutdown().await
            };
            told.await.map_err(at("tell the client"))?;
            return Err(error.into());
        }
    };
    let (master, slave) = open_terminal().map_err(at("open a terminal"))?;
    let shell = Shell::start(&shell, slave, reaper).map_err(at("start the shell"))?;
    let terminal = Channel::new(master).map_err(at("open a terminal"))?;
    let (output, input) = (Output::new(terminal.clone()), Input::terminal(terminal));

    let show = async {
        loop {
            let bytes = output.read(8 << 10, &shell.exit).await?;
            if bytes.is_empty() {
                return to_client.shutdown().await;
            }
            to_client.write_all(&bytes).await?;
            to_client.flush().await?;
        }
    };
    let listen = async {
        let mut buffer = vec![0; 4 << 10];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            match input.write(&buffer[..read], &shell.exit).await {
                Ok(()) => {}
                // What the shell said last is still on its way to the client.
                Err(WriteError::Ended | WriteError::Closed) => std::future::pending().await,
                Err(WriteError::Write(error)) => return Err(error),
            }
        }
    };
    tokio::select! {
        shown = show => shown.map_err(at("show output")),
        heard = listen => heard.map_err(at("pass input on")),
    }
}

/// A shell on the VM's console, and another one when it ends.
async fn serve_vm_console(reaper: &Reaper, console: &Path) -> Result<(), Error> {
    loop {
        let open = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(console);
        let mut terminal = open().map_err(at("open the console"))?;
        let shell = match helper::find(&SHELLS) {
            Ok(shell) => shell,
            Err(error) => {
                let _ = write!(terminal, "husk-agent: debug console: {error}\r\n");
                return Err(error.into());
            }
        };
        let shell = Shell::start(&shell, terminal.into(), reaper).map_err(at("start the shell"))?;
        shell.exit.wait().await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Both sides of a new terminal.
fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    let slave = OpenOptions::new().read(true).write(true).custom_flags(flags).open(ptsname_r(&master)?)?;
    Ok((master.into(), slave.into()))
}

/// A shell in a session of its own. It is killed when this is dropped.
struct Shell {
    pid: i32,
    exit: Exit,
}

impl Shell {
    fn start(program: &Path, terminal: OwnedFd, reaper: &Reaper) -> io::Result<Self> {
        let home = if Path::new("/root").is_dir() { "/root" } else { "/" };
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", home), ("TERM", "linux")])
            .current_dir(home)
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal);
        crate::sys::own_terminal(&mut command);
        // Nothing is awaited between these two, so that the end cannot be collected before it is watched for.
        let pid = command.spawn()?.id() as i32;
        let exit = reaper.watch(pid);
        // The agent's own score is not for what a person starts by hand.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
        Ok(Self { pid, exit })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // As long as nobody has collected it, its number is its own.
        if self.exit.status().is_none() {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn read_until(client: &mut DuplexStream, wanted: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0; 1024];
        while !text.contains(wanted) {
            let read = tokio::time::timeout(SOON, client.read(&mut buffer)).await.expect("an answer in time");
            match read.unwrap() {
                0 => panic!("it ended with {text:?}"),
                read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
        }
        text
    }

    /// Runs a session beside `body`, and waits until both are over.
    async fn session(shells: &[&str], body: impl AsyncFnOnce(DuplexStream)) -> Result<(), Error> {
        let reaper = Reaper::default();
        let (near, far) = tokio::io::duplex(4096);
        let both = async { tokio::join!(converse(&reaper, near, shells), body(far)).0 };
        tokio::select! {
            ended = tokio::time::timeout(SOON, both) => ended.expect("over in time"),
            () = reaper.run_for_tests() => unreachable!("it runs for as long as it is asked to"),
        }
    }

    #[tokio::test]
    async fn a_client_gets_a_shell_on_a_terminal() {
        let ended = session(&["/no/such/shell", "/bin/sh"], async |mut client| {
            client.write_all(b"tty; stty -echo; echo sum-$((40+2))\n").await.unwrap();
            let text = read_until(&mut client, "sum-42").await;
            assert!(text.contains("/dev/pts/"), "{text}");
            // A controlling terminal, too: only such a one turns a key into a signal.
            client.write_all(b"sleep 1000\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            client.write_all(b"\x03").await.unwrap();
            client.write_all(b"echo go-$((1+1))n\n").await.unwrap();
            read_until(&mut client, "go-2n").await;
            client.write_all(b"exit\n").await.unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
        });
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn its_shell_goes_with_the_client() {
        let mut pid = 0;
        let ended = session(&["/bin/sh"], async |mut client| {
            client.write_all(b"echo pi\"\"d-$$-e\"\"nd\n").await.unwrap();
            let text = read_until(&mut client, "-end").await;
            let digits = text.rsplit("pid-").next().unwrap().split('-').next().unwrap();
            pid = digits.parse::<i32>().unwrap_or_else(|_| panic!("{text:?}"));
            client.write_all(b"trap '' HUP TERM; sleep 1000\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
        ended.await.unwrap();
        for _ in 0..200 {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if state.is_empty() || state.rsplit(')').next().unwrap().trim().starts_with('Z') {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} lives on");
    }

    #[tokio::test]
    async fn a_guest_without_a_shell_says_so() {
        let ended = session(&["/no/bash", "/no/sh"], async |mut client| {
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(
                text,
                "husk-agent: debug console: /no/bash or /no/sh: no such program in the guest\r\n"
            );
        });
        assert!(matches!(ended.await, Err(Error::NoShell(_))));
    }
}
