//! A place to build in where something is missing or too small: a cache that has all of the user's but downloads, apt
//! sources that name our own mirror, a recipe that needs one file from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::mirror::Mirror;

/// Which directories of a cache are empty here. Without downloads there is no kernel's source: none is built by mistake.
const EMPTY: [&str; 2] = ["downloads", "demo-image"];

/// The pin that the recipe needs, as messages have it.
pub(crate) const INPUT: &str = "busybox-static";

pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir };
        fs::create_dir_all(place.cache()).unwrap();
        for entry in fs::read_dir(user_cache()).unwrap() {
            let (name, from) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
            if !EMPTY.iter().any(|empty| name == *empty) {
                std::os::unix::fs::symlink(from, place.cache().join(name)).unwrap();
            }
        }
        for empty in EMPTY {
            fs::create_dir(place.cache().join(empty)).unwrap();
        }
        let recipe = "extends = 'minimal'\nformats = ['initrd']\nbusybox = true\n";
        fs::write(place.path().join("box.toml"), recipe).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path().join("cache/husk")
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
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-ec"]);
        command.arg(format!("mount --bind {} /etc/apt\n{script}", apt.display()));
        command.args(["sh", env!("CARGO_BIN_EXE_xtask"), "build-image", "--locked", "--recipe"]);
        command.arg(self.path().join("box.toml")).arg("--out").arg(self.out());
        command.env("XDG_CACHE_HOME", self.path().join("cache")).env("HUSK_DOWNLOAD_TIMEOUT", "2");
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// All that is in the cache's directories of this place, but the locks.
    pub(crate) fn cached(&self) -> Vec<String> {
        EMPTY.iter().flat_map(|empty| names(&self.cache().join(empty))).collect()
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

fn user_cache() -> PathBuf {
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
