//! The kernel's side of a verified image: the table of the device-mapper target, and the argument that makes
//! the kernel set it up before it mounts its root, with no ramdisk (kernel:
//! `admin-guide/device-mapper/dm-init.rst`, `CONFIG_DM_INIT`).

use std::fmt::Write as _;

use crate::error::Error;

use super::{BLOCK, FORMAT, Verity};

const SECTOR: u64 = 512;

/// How a guest gets to a verified image.
#[derive(Debug, Clone)]
pub struct Mapping<'a> {
    /// What the device is called below `/dev/mapper`.
    pub name: &'a str,
    /// The number of `/dev/dm-N`: that is what `root=` has to say.
    pub minor: u32,
    /// The guest's device with the data: "/dev/vda".
    pub data_device: &'a str,
    /// Where the hash tree is.
    pub hash: HashPlace<'a>,
    /// What the guest does when a block is not what it should be.
    pub on_corruption: OnCorruption,
}

/// Where the superblock and the tree are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashPlace<'a> {
    /// On the data's device, right behind the data.
    Appended,
    /// On a device of its own, from its start: "/dev/vdb".
    Device(&'a str),
    /// The same without a superblock, which the kernel does without: the tree alone.
    Bare(&'a str),
}

/// What a guest does when a block is not what it should be. It never gets to see the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorruption {
    /// Who reads it gets EIO: the rest of the guest goes on.
    #[default]
    Fail,
    /// The kernel reboots, and so does QEMU unless it was told not to.
    Restart,
    /// The kernel panics, and the host sees why in the console.
    Panic,
}

impl Mapping<'_> {
    /// The parameters of the target, as `dmsetup` takes them too: "0 800 verity 1 /dev/vda ...".
    #[must_use]
    pub fn table(&self, verity: &Verity) -> String {
        let blocks = verity.superblock.data_blocks;
        let sectors = blocks * (BLOCK as u64 / SECTOR);
        // The tree itself, behind the superblock.
        let (hash_device, start) = match self.hash {
            HashPlace::Appended => (self.data_device, blocks + 1),
            HashPlace::Device(device) => (device, 1),
            HashPlace::Bare(device) => (device, 0),
        };
        let salt = match &verity.superblock.salt[..] {
            [] => "-".to_owned(),
            salt => salt.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
        };
        let options = match self.on_corruption {
            OnCorruption::Fail => "",
            OnCorruption::Restart => " 1 restart_on_corruption",
            OnCorruption::Panic => " 1 panic_on_corruption",
        };
        format!(
            "0 {sectors} verity 1 {} {hash_device} {BLOCK} {BLOCK} {blocks} {start} sha256 {} {salt}{options}",
            self.data_device, verity.root,
        )
    }

    /// The kernel argument, quoted as a command line needs it. Names that would break out of it are refused.
    pub fn kernel_argument(&self, verity: &Verity) -> Result<String, Error> {
        let hash_device = match self.hash {
            HashPlace::Appended => self.data_device,
            HashPlace::Device(device) | HashPlace::Bare(device) => device,
        };
        for name in [self.data_device, hash_device, self.name] {
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=".contains(&byte)) {
                let what = format!("{name:?} cannot stand in dm-mod.create");
                return Err(Error::Limit { format: FORMAT, what });
            }
        }
        // dm-init sets the mapping up under this name; udev and systemd know it by the UUID's form.
        let uuid =
            format!("CRYPT-VERITY-{}-{}", verity.superblock.uuid.to_string().replace('-', ""), self.name);
        let Mapping { name, minor, .. } = self;
        Ok(format!("dm-mod.create=\"{name},{uuid},{minor},ro,{}\"", self.table(verity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Uuid;
    use crate::verity::{RootHash, Superblock};

    fn verity() -> Verity {
        let superblock = Superblock { uuid: Uuid([0xab; 16]), salt: vec![0x01, 0xff], data_blocks: 100 };
        Verity { root: RootHash([0xcd; 32]), superblock }
    }

    fn mapping() -> Mapping<'static> {
        Mapping {
            name: "root",
            minor: 0,
            data_device: "/dev/vda",
            hash: HashPlace::Appended,
            on_corruption: OnCorruption::Panic,
        }
    }

    #[test]
    fn the_tree_follows_the_data_and_its_superblock() {
        let root = "cd".repeat(32);
        assert_eq!(
            mapping().kernel_argument(&verity()).unwrap(),
            format!(
                "dm-mod.create=\"root,CRYPT-VERITY-{}-root,0,ro,0 800 verity 1 /dev/vda /dev/vda 4096 4096 100 101 \
                 sha256 {root} 01ff 1 panic_on_corruption\"",
                "ab".repeat(16)
            )
        );
    }

    #[test]
    fn a_device_of_its_own_starts_with_the_superblock() {
        let hash = HashPlace::Device("/dev/vdb");
        let mapping = Mapping { hash, on_corruption: OnCorruption::Fail, ..mapping() };
        let mut verity = verity();
        verity.superblock.salt.clear();
        let table = mapping.table(&verity);
        assert!(table.starts_with("0 800 verity 1 /dev/vda /dev/vdb 4096 4096 100 1 sha256 cd"), "{table}");
        assert!(table.ends_with("cd -"), "{table}");
        let table = Mapping { hash: HashPlace::Bare("/dev/vdb"), ..mapping }.table(&verity);
        assert!(table.contains(" /dev/vda /dev/vdb 4096 4096 100 0 sha256 cd"), "{table}");
    }

    #[test]
    fn a_name_cannot_end_the_argument() {
        for name in ["a\" init=/bin/sh", "a,b", "a;b", "a b"] {
            let mapping = Mapping { name, ..mapping() };
            let error = mapping.kernel_argument(&verity()).unwrap_err().to_string();
            assert!(error.contains("cannot stand in dm-mod.create"), "{error}");
        }
    }
}
