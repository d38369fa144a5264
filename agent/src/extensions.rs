//! Extensions: read-only images beside the guest's root, each on a disk of its own and mounted below
//! [`EXTENSIONS`](agent_api::paths::EXTENSIONS).
//!
//! The kernel's command line, which is measured where anything is, says which there are and what each is checked against,
//! in the form of Kata's runtimes: `kata.extension.NAME.verity_params=root_hash=...,salt=...,data_blocks=...` is about the
//! disk with the serial number `extension-NAME`, with an erofs in its first partition and the tree of its hashes in the
//! second. Word and disk have to agree:
//!
//! | hashes | parameters | the extension is |
//! |---|---|---|
//! | there | given | mounted, and checked whenever it is read |
//! | there | empty | refused: somebody took the parameters away |
//! | not there | given | refused: there is nothing to check it by |
//! | not there | empty | mounted as it is |
//!
//! A guest that lacks one of its extensions is not the one that was asked for: it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_api::{cmdline, paths};
use nix::mount::{MsFlags, mount};

use crate::config::words;
use crate::devices::Tree;
use crate::dm::{self, Verity};
use crate::mountinfo;

const HASHES_WITHOUT_PARAMETERS: &str =
    "its disk has hashes, and the command line no verity_params to check them by";
const PARAMETERS_WITHOUT_HASHES: &str =
    "its disk has no second partition with the hashes of its verity_params";

/// A word of the command line that is about an extension.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    name: String,
    /// What it is checked against.
    verity: Option<Verity>,
}

/// An extension that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("extension {0:?}: its name has to be of letters, digits, - and _")]
    Name(String),
    #[error("extension {name}: verity_params: {word:?}: {wrong}")]
    Parameter { name: String, word: String, wrong: &'static str },
    #[error("extension {name}: {why}")]
    Refused { name: String, why: &'static str },
    #[error("extension {name}: {step}: {source}")]
    Failed { name: String, step: String, source: io::Error },
}

/// The extensions that a command line names. Of two words about one the last counts, as with all others.
pub(crate) fn named(cmdline: &str) -> Result<Vec<Extension>, Error> {
    let mut extensions = BTreeMap::new();
    for (key, value) in words(cmdline) {
        let name =
            key.strip_prefix(cmdline::EXTENSION).and_then(|key| key.strip_suffix(cmdline::VERITY_PARAMS));
        let Some(name) = name else { continue };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(Error::Name(name.to_owned()));
        }
        let verity = if value.is_empty() { None } else { Some(parameters(name, value)?) };
        extensions.insert(name, Extension { name: name.to_owned(), verity });
    }
    Ok(extensions.into_values().collect())
}

/// `root_hash=HEX,salt=HEX,data_blocks=N,data_block_size=N,hash_block_size=N`, in any order.
fn parameters(name: &str, text: &str) -> Result<Verity, Error> {
    let mut verity = Verity {
        hash_type: 1,
        data_block_size: 4096,
        hash_block_size: 4096,
        data_blocks: 0,
        hash_start: 0,
        algorithm: "sha256".to_owned(),
        root_hash: String::new(),
        salt: "-".to_owned(),
    };
    let bad = |word: &str, wrong| Error::Parameter { name: name.to_owned(), word: word.to_owned(), wrong };
    for word in text.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let digits = || dm::hexadecimal(value).ok_or_else(|| bad(word, "not hexadecimal"));
        let size =
            || value.parse().ok().and_then(dm::block_size).ok_or_else(|| bad(word, "no size of blocks"));
        match key {
            "root_hash" => verity.root_hash = digits()?,
            "salt" if matches!(value, "" | "-") => {}
            "salt" => verity.salt = digits()?,
            "data_blocks" => verity.data_blocks = value.parse().map_err(|_| bad(word, "not a number"))?,
            "data_block_size" => verity.data_block_size = size()?,
            "hash_block_size" => verity.hash_block_size = size()?,
            _ => return Err(bad(word, "no such parameter")),
        }
    }
    if verity.root_hash.is_empty() || verity.data_blocks == 0 {
        return Err(bad(text, "root_hash and data_blocks have to be there"));
    }
    Ok(verity)
}

impl Extension {
    /// Mounts it, unless the guest's own init system has done so.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        let failed = |step: String| move |source| Error::Failed { name: self.name.clone(), step, source };
        let target = Path::new(paths::EXTENSIONS).join(&self.name);
        if mountinfo::at(&target).map_err(failed("read the mounts".to_owned()))?.is_some() {
            return Ok(());
        }
        let (data, hashes) = self.disk(&Tree::default())?;
        let checked = match (&self.verity, hashes) {
            (Some(verity), Some(hashes)) => {
                let checked = dm::verify(&data, &hashes, verity);
                Some(checked.map_err(failed(format!("check {} by dm-verity", data.display())))?)
            }
            _ => None,
        };
        let node = checked.as_ref().map_or(data, dm::Device::node);
        let mounted = mount_read_only(&node, &target);
        if let (Err(_), Some(device)) = (&mounted, checked) {
            let _ = device.remove();
        }
        let what = if self.verity.is_some() { "its verified device" } else { "its disk" };
        mounted.map_err(failed(format!("mount {what} {}", node.display())))
    }

    /// The node of its data, and that of its hashes if it is to be checked.
    fn disk(&self, tree: &Tree) -> Result<(PathBuf, Option<PathBuf>), Error> {
        let refused = |why| Error::Refused { name: self.name.clone(), why };
        let serial = format!("extension-{}", self.name);
        let Some(disk) = tree.disk_with_serial(&serial) else {
            let source = io::ErrorKind::NotFound.into();
            return Err(Error::Failed { name: self.name.clone(), step: format!("disk {serial}"), source });
        };
        let hashes = tree.partition(&disk, 2);
        match (&self.verity, &hashes) {
            (None, Some(_)) => return Err(refused(HASHES_WITHOUT_PARAMETERS)),
            (Some(_), None) => return Err(refused(PARAMETERS_WITHOUT_HASHES)),
            (Some(_), Some(_)) | (None, None) => {}
        }
        Ok((tree.partition(&disk, 1).unwrap_or(disk), hashes))
    }
}

fn mount_read_only(node: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some(node), target, Some("erofs"), flags, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        "ab".repeat(32)
    }

    /// The one extension of a command line, or what is wrong with it.
    fn one(word: &str) -> Result<Extension, String> {
        named(&format!("quiet {word} ro")).map(|mut all| all.pop().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn words_of_the_command_line_are_extensions() {
        assert_eq!(named("quiet kata.extension=x kata.extension.x.other=1").unwrap(), []);
        let word = format!(
            "kata.extension.gpu_1.verity_params=root_hash={},salt=00FF,data_blocks=7,data_block_size=1024,hash_block_size=512",
            hash()
        );
        let verity = one(&word).unwrap().verity.unwrap();
        assert_eq!(
            (verity.root_hash.as_str(), verity.salt.as_str(), verity.data_blocks),
            (&*hash(), "00ff", 7)
        );
        assert_eq!((verity.data_block_size, verity.hash_block_size, verity.hash_start), (1024, 512, 0));
        let bare = Extension { name: "bare".to_owned(), verity: None };
        assert_eq!(one("kata.extension.bare.verity_params").unwrap(), bare);
        assert_eq!(
            one("kata.extension.bare.verity_params=x kata.extension.bare.verity_params=")
                .unwrap_err()
                .split(": ")
                .last(),
            Some("no such parameter")
        );
    }

    #[test]
    fn no_parameter_can_add_words_to_the_table() {
        let good = format!("root_hash={},data_blocks=7", hash());
        for (bad, told) in [
            ("salt=\"00 1 panic\"", "not hexadecimal"),
            ("salt=abc", "not hexadecimal"),
            ("root_hash=-", "not hexadecimal"),
            ("data_blocks=-1", "not a number"),
            ("data_block_size=3000", "no size of blocks"),
            ("hash_block_size=", "no size of blocks"),
            ("uuid=1", "no such parameter"),
            ("data_blocks=0", "root_hash and data_blocks have to be there"),
        ] {
            let said = one(&format!("\"kata.extension.x.verity_params={good},{bad}\"")).unwrap_err();
            assert!(
                said.starts_with("extension x: verity_params: ") && said.ends_with(told),
                "{bad}: {said}"
            );
        }
        let said = one("kata.extension.a/../b.verity_params").unwrap_err();
        assert_eq!(said, "extension \"a/../b\": its name has to be of letters, digits, - and _");
    }

    #[test]
    fn word_and_disk_have_to_agree() {
        let root = tempfile::tempdir().unwrap();
        let block = root.path().join("sys/block/vdb");
        let partition = |number: u32| {
            let dir = block.join(format!("vdb{number}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("partition"), format!("{number}\n")).unwrap();
        };
        fs::create_dir_all(&block).unwrap();
        fs::write(block.join("serial"), "extension-x").unwrap();
        let tree = Tree::at(root.path());
        let checked =
            one(&format!("kata.extension.x.verity_params=root_hash={},data_blocks=7", hash())).unwrap();
        let plain = one("kata.extension.x.verity_params").unwrap();
        let other = one("kata.extension.y.verity_params").unwrap();
        let found = |extension: &Extension| extension.disk(&tree).map_err(|e| e.to_string());

        assert_eq!(found(&other).unwrap_err(), "extension y: disk extension-y: entity not found");
        assert_eq!(found(&plain), Ok(("/dev/vdb".into(), None)));
        partition(1);
        assert_eq!(found(&plain), Ok(("/dev/vdb1".into(), None)));
        assert_eq!(found(&checked).unwrap_err(), format!("extension x: {PARAMETERS_WITHOUT_HASHES}"));
        partition(2);
        assert_eq!(found(&plain).unwrap_err(), format!("extension x: {HASHES_WITHOUT_PARAMETERS}"));
        assert_eq!(found(&checked), Ok(("/dev/vdb1".into(), Some("/dev/vdb2".into()))));
    }
}
