//! The process's terminal, out of the container's own devpts, so that its name means something in there.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs::{FsType, fstatfs};

use crate::child::{At, Child, Fault};
use crate::rootfs::root;
use crate::{inside, sys};

const DEVPTS: FsType = FsType(0x1cd1);

pub(crate) fn open(child: &mut Child) -> Result<(), Fault> {
    if !child.plan.process.terminal {
        return Ok(());
    }
    let path = Path::new("/dev/pts/ptmx");
    let what = || format!("terminal {path:?}");
    let master = inside::open(root(child)?, path, OFlag::O_RDWR | OFlag::O_NOCTTY).at(what)?;
    // What the image or a volume put there could be anything.
    if fstatfs(&master).at(what)?.filesystem_type() != DEVPTS {
        return Err(Fault::refused(format!("terminal {path:?}: not a devpts")));
    }
    sys::unlock_terminal(&master).at(what)?;
    let slave = sys::terminal_slave(&master).at(what)?;
    if let Some((rows, columns)) = child.plan.process.console_size {
        sys::set_terminal_size(&slave, rows, columns).at(|| format!("terminal size {rows}x{columns}"))?;
    }
    if let Some(container) = &child.plan.container {
        console(root(child)?, &slave, container.device_links).at(|| "terminal at \"/dev/console\"")?;
    }
    for number in 0..3 {
        sys::set_stdio(&slave, number).at(|| "terminal as standard streams")?;
    }
    sys::take_terminal(&slave).at(|| "controlling terminal")?;
    child.pty = Some(master);
    Ok(())
}

/// Shows the terminal as the container's console. Where `/dev` is someone else's, only if there is a place for it.
fn console(root: &OwnedFd, slave: &OwnedFd, ours: bool) -> Result<(), Errno> {
    let path = Path::new("/dev/console");
    let target = match inside::open(root, path, OFlag::O_PATH) {
        Err(Errno::ENOENT) if ours => inside::make_file(root, path)?,
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let tree = sys::clone_mount(slave, Path::new(""), false)?;
    sys::attach_mount(&tree, &target)
}
