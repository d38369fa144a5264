//! Holding every process of a cgroup still, and killing every one of them.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cgroup, CgroupError, Result, stats};

/// How long a version 1 freezer may take before processes are killed without it.
const HOLD: Duration = Duration::from_millis(500);

/// How often processes are killed that others, not frozen in time, have forked meanwhile.
const ROUNDS: u32 = 50;

pub(super) fn freeze(cgroup: &Cgroup, deadline: Duration) -> Result<()> {
    let frozen = match cgroup.is_v2() {
        true => cgroup.write("cgroup.freeze", "1").and_then(|()| {
            let events = || Ok(stats::field(&cgroup.read("cgroup.events")?, "frozen") == Some(1));
            cgroup.wait("frozen", deadline, events)
        }),
        false => cgroup.wait("frozen", deadline, || {
            // Written again at each look: a process forked while the first was on its way is only stopped by the next.
            cgroup.write("freezer.state", "FROZEN")?;
            Ok(cgroup.read("freezer.state")?.trim() == "FROZEN")
        }),
    };
    frozen.inspect_err(|_| {
        // Half a container standing still is worse than none. The error to tell is the first one.
        let _ = let_go(cgroup);
    })
}

pub(super) fn thaw(cgroup: &Cgroup, deadline: Duration) -> Result<()> {
    let_go(cgroup)?;
    cgroup.wait("thawed", deadline, || match cgroup.is_v2() {
        true => Ok(stats::field(&cgroup.read("cgroup.events")?, "frozen") != Some(1)),
        false => Ok(cgroup.read("freezer.state")?.trim() == "THAWED"),
    })
}

fn let_go(cgroup: &Cgroup) -> Result<()> {
    if cgroup.is_v2() { cgroup.write("cgroup.freeze", "0") } else { cgroup.write("freezer.state", "THAWED") }
}

/// With version 2 one write does it, to the frozen as well. Otherwise: hold them still, so that none forks past us, kill
/// each, and let them go to die.
pub(super) fn kill_all(cgroup: &Cgroup) -> Result<()> {
    match cgroup.write("cgroup.kill", "1") {
        Err(CgroupError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        other => return other,
    }
    for _ in 0..ROUNDS {
        let held = freeze(cgroup, HOLD);
        let pids = cgroup.procs()?;
        for pid in &pids {
            // ESRCH: it was faster.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        match let_go(cgroup) {
            // Without the freezer, rounds have to do.
            Err(error) if error.is_missing() => {}
            other => other?,
        }
        if held.is_ok() || pids.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}
