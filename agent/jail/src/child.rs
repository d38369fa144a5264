//! The child's side: from a fresh `husk-agent jail` to the plan's program.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use capctl::caps::CapState;
use nix::errno::Errno;
use nix::unistd::execve;

use crate::control::{Failure, Report, Reporter};
use crate::identity::Identity;
use crate::plan::Plan;
use crate::{hooks, identity, labels, steps, sys};

/// How the child leaves when it could not become the program. The agent knows why from the report; the number only
/// has to be one that no shell gives a meaning.
const FAILED: i32 = 125;

/// What the steps work on, and what they leave for each other.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) plan: Plan,
    /// For an exec: the pidfd of the container's first process.
    pub(crate) container: Option<OwnedFd>,
    /// The mounts that the agent has prepared, in the order of the plan.
    pub(crate) mapped: VecDeque<OwnedFd>,
    /// The way to the agent.
    pub(crate) reporter: Rc<Reporter>,
    /// Where the labels of the program are written.
    pub(crate) labels: labels::Writers,
    /// The container's root directory.
    pub(crate) root: Option<OwnedFd>,
    /// Who the process will be.
    pub(crate) identity: Option<Identity>,
    /// The terminal's master.
    pub(crate) pty: Option<OwnedFd>,
    /// Where the program was found.
    pub(crate) program: Option<PathBuf>,
    /// What this process holds until its filter is in place, and not longer.
    pub(crate) last_capabilities: Option<CapState>,
}

/// Why a step failed: what it was doing to which object, and the kernel's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    what: String,
    errno: Option<Errno>,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>, errno: Errno) -> Fault {
        Fault { what: what.into(), errno: Some(errno) }
    }

    /// A refusal of our own.
    pub(crate) fn refused(what: impl Into<String>) -> Fault {
        Fault { what: what.into(), errno: None }
    }

    /// Whether the kernel's answer was one of these.
    pub(crate) fn is(&self, errnos: &[Errno]) -> bool {
        self.errno.is_some_and(|errno| errnos.contains(&errno))
    }

    fn message(&self) -> String {
        match self.errno {
            Some(errno) => format!("{}: {}", self.what, cause(errno)),
            None => self.what.clone(),
        }
    }
}

/// Gives an errno its object.
pub(crate) trait At<T> {
    /// `what` is evaluated only on failure.
    fn at<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fault> {
        self.map_err(|errno| Fault::new(what(), errno))
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(what(), Errno::from_raw(error.raw_os_error().unwrap_or(0))))
    }
}

/// Becomes the process of the plan on descriptor 3. Never returns.
///
/// For the main of the binary that was given to [`crate::spawn`], when its first argument is `jail`; before it
/// touches a descriptor or starts a thread.
pub fn enter() -> ! {
    let Ok(socket) = sys::inherited(4) else { std::process::exit(FAILED) };
    let reporter = Rc::new(Reporter::new(socket));
    let mut step = "plan";
    let Err(fault) = become_program(&reporter, &mut step);
    if let Some(fault) = fault {
        let errno = fault.errno.map(|errno| errno as i32);
        reporter.fail(Failure { step: step.to_owned(), message: fault.message(), errno });
    }
    std::process::exit(FAILED)
}

/// `Err(None)`: the agent did not want the process any more.
fn become_program(
    reporter: &Rc<Reporter>,
    step: &mut &'static str,
) -> Result<std::convert::Infallible, Option<Fault>> {
    // Blocked since the clone. A signal sent to a container that is still being made must not be lost.
    nix::sys::signal::SigSet::empty().thread_set_mask().at(|| "signal mask")?;
    let mut child = Child::load(reporter.clone())?;
    for (name, run) in steps::of(&child.plan) {
        *step = name;
        run(&mut child)?;
    }
    *step = "start";
    reporter.send(&Report::Ready, child.pty.as_ref()).at(|| "report")?;
    // From here on the master is the agent's alone: a terminal whose agent went away hangs up.
    child.pty = None;
    if !child.plan.is_exec() && !reporter.await_go().at(|| "wait for the start")? {
        return Err(None);
    }
    *step = "hooks";
    hooks::before_program(&child)?;
    *step = "exec";
    Err(Some(child.execute(reporter)))
}

impl Child {
    fn load(reporter: Rc<Reporter>) -> Result<Child, Fault> {
        let plan = sys::inherited(3).at(|| "plan")?;
        let plan: Plan = serde_json::from_reader(std::io::BufReader::new(File::from(plan)))
            .map_err(|error| Fault::refused(format!("plan: {error}")))?;
        let container = if plan.is_exec() { Some(sys::inherited(5).at(|| "container")?) } else { None };
        let mounts = plan.container.iter().flat_map(|container| &container.mounts);
        let mapped = mounts.filter(|mount| mount.owners.is_some()).zip(5..);
        let mapped = mapped
            .map(|(mount, fd)| sys::inherited(fd).at(|| format!("mount at {:?}", mount.destination)))
            .collect::<Result<_, _>>()?;
        Ok(Child {
            plan,
            container,
            mapped,
            reporter,
            labels: labels::Writers::default(),
            root: None,
            identity: None,
            pty: None,
            program: None,
            last_capabilities: None,
        })
    }

    /// Executes the program; returns only if that fails.
    fn execute(self, reporter: &Reporter) -> Fault {
        let process = &self.plan.process;
        let name = &process.args[0];
        let (Some(program), Some(identity)) = (&self.program, &self.identity) else {
            return Fault::refused(format!("exec: {name:?}: not looked up"));
        };
        let c_string = |text: &str| CString::new(text).unwrap_or_default();
        let argv: Vec<CString> = process.args.iter().map(|arg| c_string(arg)).collect();
        let mut env: Vec<CString> = process.env.iter().map(|entry| c_string(entry)).collect();
        if !process.env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(c_string(&format!("HOME={}", identity.home)));
        }
        let path = c_string(&program.to_string_lossy());
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(process.user.umask));
        let prepared =
            sys::cloexec_from(3).and_then(|()| sys::default_signals()).at(|| format!("exec: {name:?}"));
        let prepared = prepared
            .and_then(|()| self.labels.write())
            .and_then(|()| reporter.send(&Report::Executing, None).at(|| "report"))
            .and_then(|()| self.filter());
        if let Err(fault) = prepared {
            return fault;
        }
        let Err(errno) = execve(&path, &argv, &env);
        Fault::new(format!("exec: {name:?}"), errno)
    }

    /// Puts the filter of system calls in place: the last thing but one, so that it has to allow nothing of ours but
    /// the execute itself, and, where a privilege was needed to install it, the call that gives that privilege away.
    fn filter(&self) -> Result<(), Fault> {
        let Some(filter) = &self.plan.process.seccomp else { return Ok(()) };
        identity::raise_for_filter(self)?;
        sys::set_seccomp(filter.flags, &filter.program).at(|| "seccomp filter")?;
        identity::lower_after_filter(self)
    }
}

/// The kernel's answer in words: `no such file or directory`.
pub(crate) fn cause(errno: Errno) -> String {
    let text = errno.desc();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        // "I/O error" and its like keep their capitals.
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), &text[1..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_well_alone() {
        let fault = Fault::new("mount \"proc\" at \"/proc\"", Errno::EPERM);
        assert_eq!(fault.message(), "mount \"proc\" at \"/proc\": operation not permitted");
        let fault = Fault::new("exec: \"nosuch\"", Errno::ENOENT);
        assert_eq!(fault.message(), "exec: \"nosuch\": no such file or directory");
        assert_eq!(cause(Errno::EACCES), "permission denied");
        assert_eq!(cause(Errno::EIO), "I/O error");
    }
}
