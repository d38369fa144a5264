//! Hooks that run inside: in the container's namespaces before its root is entered, and in the container itself.
//!
//! A hook gets the container's state on its standard input, as a file, so that one that does not read it blocks nobody.
//! What it says goes into the error if it fails; one that takes too long is killed.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child as Started, Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::child::{At, Child, Fault};
use crate::control::Report;
use crate::plan::{Hook, Status};
use crate::rootfs::container;
use crate::sys;

/// How much of the end of what a hook says is kept.
const KEPT: usize = 1024;

/// How many pieces of a pipe's content are read after the end of who wrote it: a pipe holds no more.
const MOST_AFTER: usize = 64;

/// Those beside the agent, which runs them while we wait; then ours.
pub(crate) fn before_root(child: &mut Child) -> Result<(), Fault> {
    let hooks = &container(child)?.hooks;
    if hooks.before_root() {
        child.reporter.send(&Report::Mounted, None).at(|| "report")?;
        if !child.reporter.await_go().at(|| "wait for the agent's hooks")? {
            return Err(Fault::refused("the agent does not want the container any more"));
        }
    }
    let state = hooks.state.json(Status::Creating, Some(own_number()));
    // As beside the agent, hooks find themselves in the bundle.
    let bundle = Some(hooks.state.bundle()).filter(|bundle| bundle.is_dir());
    hooks.create_container.iter().try_for_each(|hook| run("createContainer", hook, &state, bundle))
}

/// Right before the program, as the user it will be.
pub(crate) fn before_program(child: &Child) -> Result<(), Fault> {
    let Some(container) = &child.plan.container else { return Ok(()) };
    let hooks = &container.hooks;
    let state = hooks.state.json(Status::Created, Some(own_number()));
    hooks.start_container.iter().try_for_each(|hook| run("startContainer", hook, &state, None))
}

/// As the container sees it.
fn own_number() -> i32 {
    std::process::id() as i32
}

fn run(turn: &str, hook: &Hook, state: &[u8], directory: Option<&Path>) -> Result<(), Fault> {
    let what = || format!("{turn} hook {:?}", hook.path);
    let mut input = File::from(memfd_create(c"husk-hook-state", MFdFlags::MFD_CLOEXEC).at(what)?);
    input.write_all(state).and_then(|()| input.rewind()).at(what)?;
    let (output, speech) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at(what)?;
    let mut command = Command::new(&hook.path);
    command.args(hook.args.iter().skip(1));
    if let Some(name) = hook.args.first() {
        command.arg0(name);
    }
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let environment = hook.env.iter().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(environment).stdin(input);
    command.stdout(speech.try_clone().at(what)?).stderr(Stdio::from(speech)).process_group(0);
    let started = command.spawn().at(what)?;
    // The command holds our copies of the pipe's other end, which would keep it open.
    drop(command);
    let said = finish(started, &output, hook, &what)?;
    match said {
        None => Ok(()),
        Some((status, said)) => Err(Fault::refused(format!("{}: {status}: {}", what(), said.trim()))),
    }
}

/// Waits for a hook. `None` if it did well, else how it ended and what it said last.
fn finish(
    mut started: Started,
    output: &OwnedFd,
    hook: &Hook,
    what: &dyn Fn() -> String,
) -> Result<Option<(String, String)>, Fault> {
    let deadline = Instant::now() + hook.timeout;
    let mut said = Vec::new();
    let pidfd = sys::pidfd_open(started.id() as i32).at(what)?;
    let (mut talks, mut after) = (true, 0);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Its own children too: it is their group's first.
            let group = nix::unistd::Pid::from_raw(started.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = started.wait();
            return Err(Fault::refused(format!("{}: not done after {} s", what(), hook.timeout.as_secs())));
        }
        let timeout =
            PollTimeout::try_from(left.min(std::time::Duration::from_secs(60))).unwrap_or(PollTimeout::MAX);
        let mut fds =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds[..if talks { 2 } else { 1 }], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Fault::new(what(), errno)),
        }
        let (ended, spoke) = (fds[0].any().unwrap_or(false), talks && fds[1].any().unwrap_or(false));
        if spoke {
            talks = listen(output, &mut said).at(what)?;
        }
        // What it leaves behind may go on talking; what it said itself is in the pipe by now.
        if ended && (!spoke || after > MOST_AFTER) {
            let status = started.wait().at(what)?;
            let said = String::from_utf8_lossy(&said).into_owned();
            return Ok((!status.success()).then(|| (status.to_string(), said)));
        }
        after += usize::from(ended);
    }
}

/// Takes in what there is, and keeps the end of it. False when nothing more will come.
fn listen(output: &OwnedFd, said: &mut Vec<u8>) -> Result<bool, Errno> {
    let mut chunk = [0_u8; KEPT];
    let length = nix::unistd::read(output, &mut chunk)?;
    said.extend_from_slice(&chunk[..length]);
    let surplus = said.len().saturating_sub(KEPT);
    said.drain(..surplus);
    Ok(length > 0)
}
