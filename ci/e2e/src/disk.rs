//! Scratch disks: image files for a VM's block devices, gone with the test.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::NamedTempFile;

/// A disk's image. It must live as long as the VM that has it.
#[derive(Debug)]
pub struct Disk(NamedTempFile);

impl Disk {
    /// An empty disk of this many MiB. It takes no room until it is written to.
    pub fn new(mib: u64) -> Disk {
        let file = NamedTempFile::with_prefix("husk-disk-").expect("a temporary file");
        file.as_file().set_len(mib << 20).expect("a file may have holes");
        Disk(file)
    }

    /// A disk of whole sectors that begins with `content`.
    pub fn with(content: &[u8]) -> Disk {
        let disk = Disk::new((content.len() as u64 >> 20) + 1);
        std::os::unix::fs::FileExt::write_all_at(disk.0.as_file(), content, 0).expect("it can be written");
        disk
    }

    /// A disk with an ext4 file system.
    pub fn ext4(mib: u64) -> Disk {
        Disk::new(mib).formatted(&["mke2fs", "-q", "-F", "-t", "ext4"])
    }

    /// The same with blocks of a page, which alone can be mapped where they are. mke2fs makes a small disk's smaller.
    pub fn ext4_in_pages(mib: u64) -> Disk {
        Disk::new(mib).formatted(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096"])
    }

    /// A disk with an XFS file system, of which mkfs.xfs makes none below 300 MiB.
    pub fn xfs(mib: u64) -> Disk {
        Disk::new(mib).formatted(&["mkfs.xfs", "-q", "-f"])
    }

    /// The image file.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is on it now.
    pub fn file(&self) -> File {
        self.0.reopen().expect("it can be opened again")
    }

    /// The value of a `-drive` under this id, to be put behind a device of the test's own.
    pub fn drive(&self, id: &str) -> String {
        format!("if=none,id={id},format=raw,file={}", self.path().display())
    }

    /// Runs a command of the host's with the image's path behind it.
    fn formatted(self, command: &[&str]) -> Disk {
        // Where Debian keeps such tools, which is not on everybody's path.
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut mkfs = Command::new(command[0]);
        mkfs.args(&command[1..]).arg(self.path()).env("PATH", path).stdin(Stdio::null());
        let output = mkfs.output().unwrap_or_else(|error| panic!("{}: {error}", command[0]));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        self
    }
}
