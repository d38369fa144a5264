//! The file systems of a guest, as peers have them.

use std::{fs, io};

use nix::mount::{MsFlags, mount};

/// One line of the mount table.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const NOSUID: MsFlags = MsFlags::MS_NOSUID;
const NODEV: MsFlags = MsFlags::MS_NODEV;
const NOEXEC: MsFlags = MsFlags::MS_NOEXEC;
const RELATIME: MsFlags = MsFlags::MS_RELATIME;

/// In the order they are mounted.
const MOUNTS: &[Mount] = &[
    Mount { kind: "proc", target: "/proc", flags: NOSUID.union(NODEV).union(NOEXEC), data: "" },
    Mount { kind: "sysfs", target: "/sys", flags: NOSUID.union(NODEV).union(NOEXEC), data: "" },
    Mount { kind: "devtmpfs", target: "/dev", flags: NOSUID, data: "" },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: NOSUID.union(NODEV), data: "" },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: NOSUID.union(NOEXEC),
        data: "gid=5,mode=620,ptmxmode=666",
    },
    Mount { kind: "tmpfs", target: "/run", flags: NOSUID.union(NODEV), data: "mode=755" },
    Mount { kind: "tmpfs", target: "/tmp", flags: NOSUID.union(NODEV), data: "mode=1777" },
];

const CGROUPS: &str = "/sys/fs/cgroup";
const CGROUP_FLAGS: MsFlags = NOSUID.union(NODEV).union(NOEXEC).union(RELATIME);

pub(super) fn kernel_file_systems() -> io::Result<()> {
    for entry in MOUNTS {
        fs::create_dir_all(entry.target)?;
        attach(entry.kind, entry.target, entry.flags, entry.data)?;
    }
    Ok(())
}

/// Mounts one hierarchy for all controllers, or, where somebody asked for version 1, one for each.
///
/// A kernel without the device controller of version 1 cannot contain anything that way, and gets version 2.
pub(super) fn cgroups(version_1: bool) -> io::Result<()> {
    let controllers = if version_1 { controllers(&fs::read_to_string("/proc/cgroups")?) } else { Vec::new() };
    if !controllers.iter().any(|name| name == "devices") {
        return attach("cgroup2", CGROUPS, CGROUP_FLAGS, "nsdelegate");
    }
    let none = None::<&str>;
    let tmpfs = NOSUID.union(NODEV).union(NOEXEC);
    attach("tmpfs", CGROUPS, tmpfs, "mode=755")?;
    for name in controllers {
        let target = format!("{CGROUPS}/{name}");
        fs::create_dir(&target)?;
        match mount(Some("cgroup"), target.as_str(), Some("cgroup"), CGROUP_FLAGS, Some(name.as_str())) {
            Ok(()) => {}
            // It is listed, and its version 1 was left out of the kernel.
            Err(nix::Error::EINVAL) => fs::remove_dir(&target)?,
            Err(error) => return Err(io::Error::other(format!("{target}: {error}"))),
        }
    }
    // The only way there is on kernels that do not have this file any more.
    let _ = fs::write(format!("{CGROUPS}/memory/memory.use_hierarchy"), "1");
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | tmpfs;
    Ok(mount(none, CGROUPS, none, flags, Some("mode=755"))?)
}

/// The controllers that are not switched off, of /proc/cgroups (cgroups(7)).
fn controllers(list: &str) -> Vec<String> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let enabled = lines.filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        (fields.nth(2) == Some("1")).then(|| name.to_string())
    });
    enabled.collect()
}

fn attach(kind: &str, target: &str, flags: MsFlags, data: &str) -> io::Result<()> {
    match mount(Some(kind), target, Some(kind), flags, (!data.is_empty()).then_some(data)) {
        // The kernel mounts devtmpfs itself when it boots from a block device.
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(error) => Err(io::Error::other(format!("{target}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_mount_never_hides_an_earlier_one() {
        for (index, later) in MOUNTS.iter().enumerate() {
            for earlier in &MOUNTS[..index] {
                assert!(
                    !Path::new(earlier.target).starts_with(later.target),
                    "{} hides {}",
                    later.target,
                    earlier.target
                );
            }
        }
    }

    #[test]
    fn only_controllers_that_are_on_are_mounted() {
        let list = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nmemory\t0\t70\t0\n\
                    devices\t1\t70\t1\nodd\n";
        assert_eq!(controllers(list), ["cpuset", "devices"]);
    }
}
