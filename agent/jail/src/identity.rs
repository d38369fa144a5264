//! Who the process becomes: ids, groups, home, capabilities.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid};

use crate::child::{At, Child, Fault};
use crate::inside;
use crate::plan::Capabilities;
use crate::rootfs::root;
use crate::users::{self, Group, Passwd};

/// Resolved against the container's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A file of users is read up to here; what comes after is not looked at.
const MAX_FILE: u64 = 4 * 1024 * 1024;

pub(crate) fn resolve(child: &mut Child) -> Result<(), Fault> {
    let user = &child.plan.process.user;
    let passwd: Vec<Passwd> = read(root(child)?, "/etc/passwd", users::passwd)?;
    let groups: Vec<Group> = match user.name {
        Some(_) => read(root(child)?, "/etc/group", users::group)?,
        None => Vec::new(),
    };
    child.identity = Some(users::resolve(user, &passwd, &groups).map_err(Fault::refused)?);
    Ok(())
}

/// The standard streams belong to the user, so that `/dev/stdout` can be opened again. `/dev/null` stays everybody's.
pub(crate) fn own_streams(child: &mut Child) -> Result<(), Fault> {
    let uid = identity(child)?.uid;
    for stream in [&std::io::stdin() as &dyn std::os::fd::AsFd, &std::io::stdout(), &std::io::stderr()] {
        let stat = fstat(stream.as_fd()).at(|| "standard streams")?;
        let null = nix::sys::stat::makedev(1, 3);
        let device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
        if stat.st_uid == uid || (device && stat.st_rdev == null) {
            continue;
        }
        match fchown(stream.as_fd(), Some(Uid::from_raw(uid)), None) {
            // A stream that cannot be given away still works as it is.
            Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => {}
            other => other.at(|| "standard streams")?,
        }
    }
    Ok(())
}

/// Groups, ids, capabilities, and the promise never to gain more, in the only order that works: the bounding set
/// needs a capability to shrink, groups need one to change, and a change of the user id takes them all away unless
/// they are held on to until the sets are in place.
pub(crate) fn assume(child: &mut Child) -> Result<(), Fault> {
    let identity = identity(child)?;
    let process = &child.plan.process;
    let wanted = &process.capabilities;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let held = CapState::get_current().map_err(errno).at(|| "read capabilities")?.permitted;
    let known = Cap::probe_supported();
    for cap in known.iter().filter(|&cap| wanted.bounding >> cap as u8 & 1 == 0) {
        bounding::drop(cap).map_err(errno).at(|| format!("drop {cap} from the bounding set"))?;
    }
    capctl::prctl::set_keepcaps(true).map_err(errno).at(|| "keep capabilities")?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).at(|| format!("groups {:?}", identity.groups))?;
    setresgid(gid, gid, gid).at(|| format!("gid {gid}"))?;
    setresuid(uid, uid, uid).at(|| format!("uid {uid}"))?;
    capctl::prctl::set_keepcaps(false).map_err(errno).at(|| "keep capabilities")?;
    // A filter takes either the promise or this right, which then goes last of all.
    let filter = process.seccomp.is_some() && !process.no_new_privileges;
    let last = set_capabilities(wanted, held, filter)?;
    if process.no_new_privileges {
        capctl::prctl::set_no_new_privs().map_err(errno).at(|| "no new privileges")?;
    }
    child.last_capabilities = filter.then_some(last);
    Ok(())
}

/// Puts in force what installing a filter takes, if that was kept for it.
pub(crate) fn raise_for_filter(child: &Child) -> Result<(), Fault> {
    if child.last_capabilities.is_none() {
        return Ok(());
    }
    let mut state = CapState::get_current().map_err(errno).at(|| "read capabilities")?;
    state.effective.add(Cap::SYS_ADMIN);
    state.set_current().map_err(errno).at(|| "capability to filter system calls")
}

/// And gives it away.
pub(crate) fn lower_after_filter(child: &Child) -> Result<(), Fault> {
    let Some(last) = child.last_capabilities else { return Ok(()) };
    last.set_current().map_err(errno).at(|| "set capabilities")
}

/// Sets what is wanted, and returns it; with more in store, but not in force, for who still has a filter to install.
fn set_capabilities(wanted: &Capabilities, held: CapSet, filter: bool) -> Result<CapState, Fault> {
    // What this process never had cannot be granted, and is no reason to refuse the rest.
    let granted = |bits: u64| held.iter().filter(|&cap| bits >> cap as u8 & 1 == 1).collect::<CapSet>();
    let mut state = CapState::empty();
    state.permitted = granted(wanted.permitted);
    state.effective = granted(wanted.effective & wanted.permitted);
    state.inheritable = granted(wanted.inheritable);
    let mut now = state;
    if filter {
        now.permitted |= granted(1 << Cap::SYS_ADMIN as u8);
    }
    now.set_current().map_err(errno).at(|| "set capabilities")?;
    ambient::clear().map_err(errno).at(|| "clear ambient capabilities")?;
    for cap in granted(wanted.ambient & wanted.permitted & wanted.inheritable).iter() {
        ambient::raise(cap).map_err(errno).at(|| format!("raise ambient {cap}"))?;
    }
    Ok(state)
}

fn read<T>(root: &OwnedFd, path: &str, parse: fn(&str) -> Option<T>) -> Result<Vec<T>, Fault> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = match inside::open(root, Path::new(path), flags) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
        other => other.at(|| format!("read {path:?}"))?,
    };
    let kind = SFlag::from_bits_truncate(fstat(&fd).at(|| format!("read {path:?}"))?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG {
        return Err(Fault::refused(format!("read {path:?}: not a regular file")));
    }
    let mut text = Vec::new();
    let mut file = std::fs::File::from(fd).take(MAX_FILE);
    file.read_to_end(&mut text).at(|| format!("read {path:?}"))?;
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    Ok(lines.filter_map(parse).collect())
}

fn identity(child: &Child) -> Result<&Identity, Fault> {
    child.identity.as_ref().ok_or_else(|| Fault::refused("the user is not resolved"))
}

fn errno(error: capctl::Error) -> Errno {
    Errno::from_raw(error.code())
}
