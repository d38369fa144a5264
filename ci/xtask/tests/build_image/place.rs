//! A place to build in where something is missing or too small: in mounts of its own, in which the user's cache has no
//! downloads, and apt's sources name our own mirror; and a recipe that needs one file from it.
//!
//! The cache stays where it is, since the agent is built with its path in the flags: at another it would be built anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::mirror::Mirror;

/// Which directories of the cache are others here. Without downloads there is no kernel's source: none is built by mistake.
const SHELVES: [&str; 2] = ["downloads", "demo-image"];

/// The pin that the recipe needs, as messages have it.
pub(crate) const INPUT: &str = "busybox-static";

pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        SHELVES.iter().for_each(|shelf| fs::create_dir(place.shelf(shelf)).unwrap());
        let recipe = "extends = 'minimal'\nformats = ['initrd']\nbusybox = true\n";
        fs::write(place.path().join("box.toml"), recipe).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What stands in the place of a directory of the cache.
    pub(crate) fn shelf(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    /// Where the set is, or would be.
    pub(crate) fn set(&self) -> PathBuf {
        self.out().join(guest_arch::Arch::host().name()).join("box")
    }

    /// A build of the recipe, in mounts of its own. `script` is a shell's: the build is `"$@"`.
    pub(crate) fn build(&self, mirror: &Mirror, script: &str) -> Command {
        let apt = mirror.sources(self.path());
        let mut mounts = format!("mount --bind {} /etc/apt\n", apt.display());
        for shelf in SHELVES {
            let (ours, theirs) = (self.shelf(shelf), user_cache().join(shelf));
            mounts += &format!("mount --bind {} {}\n", ours.display(), theirs.display());
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-ec"]).arg(mounts + script);
        command.args(["sh", env!("CARGO_BIN_EXE_xtask"), "build-image", "--locked", "--recipe"]);
        command.arg(self.path().join("box.toml")).arg("--out").arg(self.out());
        command.env("HUSK_DOWNLOAD_TIMEOUT", "2");
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// All that is in the cache's directories of this place, but the locks.
    pub(crate) fn cached(&self) -> Vec<String> {
        SHELVES.iter().flat_map(|shelf| names(&self.shelf(shelf))).collect()
    }

    /// All that is beside the set, but the locks.
    pub(crate) fn beside(&self) -> Vec<String> {
        names(self.set().parent().unwrap())
    }
}

/// Nothing, if there is no such directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

pub(crate) fn user_cache() -> PathBuf {
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    of("XDG_CACHE_HOME").unwrap_or_else(|| of("HOME").unwrap().join(".cache")).join("husk")
}

/// The file that the recipe needs, from the user's own cache: made once, by the tests' own image.
pub(crate) fn input() -> Vec<u8> {
    let downloads = fs::read_dir(user_cache().join("downloads")).unwrap();
    let files = downloads.flatten().flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten());
    let architecture = format!("_{}.deb", guest_arch::Arch::host().row().debian);
    let file = files.flatten().find(|file| {
        let name = file.file_name().into_string().unwrap();
        name.starts_with(INPUT) && name.ends_with(&architecture)
    });
    fs::read(file.expect("busybox is in the cache").path()).unwrap()
}
