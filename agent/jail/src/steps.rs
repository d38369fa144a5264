//! The way from a clone to a program: two lists of named steps, each a line here and a function in the file that is
//! about its noun. A step that fails is reported under its name.
//!
//! Everything up to `pivot` works on the container's root from outside, through descriptors that cannot leave it:
//! nothing the image holds is trusted to be what it seems.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use crate::child::{At, Child, Fault};
use crate::plan::{NamespaceKind, Plan};
use crate::{covers, hooks, identity, labels, nodes, program, rootfs, sys, terminal};

pub(crate) type Step = (&'static str, fn(&mut Child) -> Result<(), Fault>);

const CONTAINER: &[Step] = &[
    ("time namespace", time_namespace),
    ("undumpable", undumpable),
    ("cgroup namespace", cgroup_namespace),
    ("hostname", hostname),
    ("labels", labels::open),
    ("propagation", rootfs::stop_propagation),
    ("stack", rootfs::stack_root),
    ("root", rootfs::bind_root),
    ("mounts", rootfs::mount_all),
    ("devices", nodes::make_devices),
    ("device links", nodes::make_links),
    ("sysctls", sysctls),
    ("masked paths", covers::mask),
    ("read-only paths", covers::protect),
    ("hooks", hooks::before_root),
    ("pivot", rootfs::pivot),
    ("session", session),
    ("terminal", terminal::open),
    ("cwd", rootfs::make_and_enter_cwd),
    ("seal", rootfs::seal),
    ("user", identity::resolve),
    ("rlimits", rlimits),
    ("scheduling", scheduling),
    ("standard streams", identity::own_streams),
    ("credentials", identity::assume),
    ("program", program::find),
];

const EXEC: &[Step] = &[
    ("undumpable", undumpable),
    ("labels", labels::open),
    ("namespaces", join_container),
    ("session", session),
    ("terminal", terminal::open),
    ("cwd", rootfs::enter_cwd),
    ("user", identity::resolve),
    ("rlimits", rlimits),
    ("scheduling", scheduling),
    ("standard streams", identity::own_streams),
    ("credentials", identity::assume),
    ("program", program::find),
];

/// The steps of a plan.
pub(crate) fn of(plan: &Plan) -> &'static [Step] {
    if plan.is_exec() { EXEC } else { CONTAINER }
}

fn undumpable(_: &mut Child) -> Result<(), Fault> {
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    sys::set_undumpable().at(|| "undumpable")
}

/// First of all: the clocks are set through a file of our own in `/proc`, which is out of reach once we are undumpable. A
/// process is in the time namespace it has made from its next execute on.
fn time_namespace(child: &mut Child) -> Result<(), Fault> {
    let namespaces = &child.plan.namespaces;
    let flag = CloneFlags::from_bits_retain(NamespaceKind::Time.flag() as i32);
    if let Some(path) = namespaces.joins(NamespaceKind::Time) {
        let what = || format!("enter time namespace {path:?}");
        let namespace = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).at(what)?;
        return setns(&namespace, flag).at(what);
    }
    if !namespaces.creates(NamespaceKind::Time) {
        return Ok(());
    }
    unshare(flag).at(|| "unshare time namespace")?;
    for offset in &namespaces.clocks {
        let line = format!("{} {} {}\n", offset.clock, offset.seconds, offset.nanoseconds);
        std::fs::write("/proc/self/timens_offsets", &line).at(|| format!("time offset {:?}", line.trim()))?;
    }
    Ok(())
}

/// After the clone has put us into the cgroup: the new namespace's root is where we are.
fn cgroup_namespace(child: &mut Child) -> Result<(), Fault> {
    if child.plan.namespaces.own_cgroup {
        unshare(CloneFlags::CLONE_NEWCGROUP).at(|| "unshare cgroup namespace")?;
    }
    Ok(())
}

fn hostname(child: &mut Child) -> Result<(), Fault> {
    let Some(container) = &child.plan.container else { return Ok(()) };
    if let Some(name) = &container.hostname {
        nix::unistd::sethostname(name).at(|| format!("hostname {name:?}"))?;
    }
    if let Some(name) = &container.domainname {
        sys::set_domainname(name).at(|| format!("domainname {name:?}"))?;
    }
    Ok(())
}

/// Through the agent's `/proc`: these settings follow the namespaces of the process that writes, not of the mount.
fn sysctls(child: &mut Child) -> Result<(), Fault> {
    for sysctl in child.plan.container.iter().flat_map(|container| &container.sysctls) {
        let path = std::path::Path::new("/proc/sys").join(&sysctl.path);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, sysctl.value.as_bytes()));
        match written {
            // A kernel built without it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at(|| format!("sysctl {path:?} = {:?}", sysctl.value))?,
        }
    }
    Ok(())
}

fn session(_: &mut Child) -> Result<(), Fault> {
    nix::unistd::setsid().map(drop).at(|| "new session")
}

/// In a new user namespace the agent has set them already: they may only be lowered there.
fn rlimits(child: &mut Child) -> Result<(), Fault> {
    if child.plan.namespaces.contains(NamespaceKind::User) {
        return Ok(());
    }
    for limit in &child.plan.process.rlimits {
        sys::set_rlimit_of(0, limit.resource, limit.soft, limit.hard)
            .at(|| format!("resource limit {} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    Ok(())
}

fn scheduling(child: &mut Child) -> Result<(), Fault> {
    let wanted = &child.plan.process.scheduling;
    if let Some(personality) = wanted.personality {
        sys::set_personality(personality).at(|| "personality")?;
    }
    if let Some(memory) = &wanted.memory {
        sys::set_memory_policy(memory).at(|| "memory policy")?;
    }
    if let Some(processors) = &wanted.processors {
        sys::set_processors(processors).at(|| "CPU affinity")?;
    }
    if let Some(priority) = wanted.io_priority {
        sys::set_io_priority(priority).at(|| "I/O priority")?;
    }
    // Last: under some policies the steps above are not allowed any more.
    if let Some(scheduler) = &wanted.scheduler {
        sys::set_scheduler(scheduler).at(|| "scheduler")?;
    }
    Ok(())
}

/// All at once through the pidfd, so that they are those of one and the same living process.
fn join_container(child: &mut Child) -> Result<(), Fault> {
    let Some(container) = child.container.take() else { return Err(Fault::refused("exec: no container")) };
    let kinds = child.plan.namespaces.of_container.iter().filter(|kind| **kind != NamespaceKind::Pid);
    let flags = kinds.fold(0, |flags, kind| flags | kind.flag());
    let flags = CloneFlags::from_bits_retain(flags as i32);
    match setns(&container, flags) {
        Err(Errno::ESRCH) => Err(Fault::refused("exec: the container's first process is gone")),
        other => other.at(|| "join the container's namespaces"),
    }?;
    if child.plan.namespaces.of_container.contains(&NamespaceKind::User) {
        let root = nix::unistd::Uid::from_raw(0);
        let group = nix::unistd::Gid::from_raw(0);
        nix::unistd::setresgid(group, group, group).at(|| "become root of the user namespace")?;
        nix::unistd::setresuid(root, root, root).at(|| "become root of the user namespace")?;
    }
    child.root = Some(rootfs::current()?);
    Ok(())
}
