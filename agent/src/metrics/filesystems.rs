//! How full the writable file systems are, without ever waiting for one that does not answer.
//!
//! statfs(2) on a file system whose server or disk is stuck does not return, and cannot be interrupted. So each call
//! has a thread of the blocking pool and a deadline, and a mount point whose last call is still out is not asked again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

/// How long one file system may take to answer. The kernel has the figures in memory.
const ANSWER: Duration = Duration::from_millis(500);

/// The types whose figures mean something to somebody who looks after the guest.
const TYPES: [&str; 5] = ["ext4", "xfs", "btrfs", "vfat", "overlay"];

/// A mounted file system that is worth asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) mount: String,
    pub(super) device: String,
}

/// A file system's answer.
pub(super) struct Usage {
    pub(super) mounted: Mounted,
    /// Bytes, then inodes: each in total, in use, and available to processes without privileges.
    pub(super) bytes: [u64; 3],
    pub(super) inodes: [u64; 3],
}

/// The mount points that owe us an answer.
#[derive(Clone, Default)]
pub(super) struct Debtors(Arc<Mutex<HashSet<String>>>);

impl Debtors {
    /// Asks every writable file system of `mountinfo`, one after the other.
    pub(super) async fn ask(&self, mountinfo: &str) -> Vec<Usage> {
        let mut answers = Vec::new();
        for mounted in writable(mountinfo) {
            if let Some(stat) = self.ask_one(&mounted.mount, statvfs_of).await
                && !stat.flags().contains(FsFlags::ST_RDONLY)
            {
                answers.push(usage(mounted, &stat));
            }
        }
        answers
    }

    async fn ask_one(&self, mount: &str, ask: fn(&str) -> Option<Statvfs>) -> Option<Statvfs> {
        if !self.names().insert(mount.to_string()) {
            tracing::debug!(mount, "a file system still owes an answer");
            return None;
        }
        let (debtors, name) = (self.clone(), mount.to_string());
        let asking = tokio::task::spawn_blocking(move || {
            let answer = ask(&name);
            debtors.names().remove(&name);
            answer
        });
        match tokio::time::timeout(ANSWER, asking).await {
            Ok(answer) => answer.ok().flatten(),
            Err(_) => {
                tracing::warn!(mount, "a file system does not answer");
                None
            }
        }
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn statvfs_of(mount: &str) -> Option<Statvfs> {
    statvfs(mount).ok()
}

// The fields' widths differ from one architecture to the next.
#[allow(clippy::unnecessary_cast)]
fn usage(mounted: Mounted, stat: &Statvfs) -> Usage {
    let unit = stat.fragment_size() as u64;
    let count = |total: u64, free: u64, available: u64| [total, total.saturating_sub(free), available];
    let blocks = count(stat.blocks() as u64, stat.blocks_free() as u64, stat.blocks_available() as u64);
    Usage {
        mounted,
        bytes: blocks.map(|blocks| blocks.saturating_mul(unit)),
        inodes: count(stat.files() as u64, stat.files_free() as u64, stat.files_available() as u64),
    }
}

/// The writable mounts of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)). Of several on one mount point only the last
/// is seen by anybody.
fn writable(mountinfo: &str) -> Vec<Mounted> {
    let mut all: Vec<Mounted> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut before = before.split(' ').skip(4);
        let mut after = after.split(' ');
        let (Some(mount), Some(options)) = (before.next(), before.next()) else { continue };
        let (Some(kind), Some(device)) = (after.next(), after.next()) else { continue };
        let mount = unescape(mount);
        all.retain(|mounted| mounted.mount != mount);
        if TYPES.contains(&kind) && options.split(',').any(|option| option == "rw") {
            all.push(Mounted { mount, device: unescape(device) });
        }
    }
    all
}

/// The kernel writes blanks, tabs, newlines and backslashes of a path as three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn writable_mounts_of_known_types_are_taken_the_topmost_of_a_place() {
        let mountinfo = "\
            20 1 254:0 / / ro,relatime - ext4 /dev/vda ro\n\
            21 20 0:19 / /proc rw,nosuid - proc proc rw\n\
            30 20 254:16 / /run/a rw,relatime shared:1 - ext4 /dev/vdb rw\n\
            31 20 254:32 / /run/my\\040disk rw - xfs /dev/vd\\134c rw\n\
            32 20 0:40 / /run/o rw - overlay overlay rw,lowerdir=/x\n\
            33 30 254:48 / /run/a rw - btrfs /dev/vdd rw\n\
            34 20 254:48 / /run/h rw - ext4 /dev/vde rw\n\
            35 34 0:50 / /run/h rw - tmpfs tmpfs rw\n\
            broken line\n";
        let found = writable(mountinfo);
        let found: Vec<_> =
            found.iter().map(|mounted| (mounted.mount.as_str(), mounted.device.as_str())).collect();
        assert_eq!(found, [("/run/my disk", "/dev/vd\\c"), ("/run/o", "overlay"), ("/run/a", "/dev/vdd")]);
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_costs_one_deadline_once() {
        let debtors = Debtors::default();
        let hang = |_: &str| {
            std::thread::sleep(ANSWER * 3);
            None
        };
        let begun = Instant::now();
        assert!(debtors.ask_one("/stuck", hang).await.is_none());
        assert!(begun.elapsed() >= ANSWER);
        let begun = Instant::now();
        assert!(debtors.ask_one("/stuck", statvfs_of).await.is_none(), "it still owes the first answer");
        assert!(begun.elapsed() < ANSWER);
        assert!(debtors.ask_one("/", statvfs_of).await.is_some(), "others are asked all the same");
        tokio::time::sleep(ANSWER * 3).await;
        assert!(debtors.names().is_empty(), "one that came back is asked again");
    }

    #[test]
    fn usage_adds_up() {
        let mounted = Mounted { mount: "/".to_string(), device: "x".to_string() };
        let usage = usage(mounted, &statvfs("/").unwrap());
        let [total, used, available] = usage.bytes;
        assert!(total > 0 && used <= total && available <= total - used);
    }
}
