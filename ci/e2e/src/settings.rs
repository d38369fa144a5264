//! What the tests run on, by environment variable. Nothing is guessed: tests of yesterday's kernel prove nothing.

use std::path::PathBuf;

use guest_arch::Arch;
use husk::artefacts::Artefacts;

/// Where the things under test are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the guest artefacts, with `manifest.json`.
    pub artefacts: PathBuf,
    /// The format of the image that guests boot, where it is not the usual one.
    pub boot: Option<String>,
    /// The memory of a guest that asks for no other amount, in MiB.
    pub memory_mib: u64,
    /// OCI image layout of the test image.
    pub image: PathBuf,
    /// The `husk` binary.
    pub husk: PathBuf,
}

impl Settings {
    /// The settings of this run. Panics, which fails the test, where one is missing.
    pub fn get() -> Settings {
        Settings {
            artefacts: path("HUSK_ARTEFACTS"),
            boot: word("HUSK_TEST_BOOT"),
            memory_mib: word("HUSK_TEST_MEMORY").map_or(256, |mib| mib.parse().expect("a number of MiB")),
            image: path("HUSK_TEST_IMAGE"),
            husk: path("HUSK_BIN"),
        }
    }

    /// The architecture of the guests, which is that of the artefacts.
    pub fn arch(&self) -> Arch {
        Artefacts::load(&self.artefacts, None).unwrap_or_else(|error| panic!("{error}")).arch
    }

    /// Directory of artefacts of another kind: the guest's PID 1 is systemd, the agent its service, and it boots into
    /// `husk.target`. The root file system has `systemctl`, `systemd-run` and a shell.
    pub fn systemd() -> PathBuf {
        path("HUSK_SYSTEMD_ARTEFACTS")
    }

    /// Directory of artefacts of the recipe `debug`.
    pub fn debug() -> PathBuf {
        path("HUSK_DEBUG_ARTEFACTS")
    }

    /// Directory of artefacts of the recipe `confidential`, with a policy by which nobody may exec or set another policy.
    pub fn confidential() -> PathBuf {
        path("HUSK_CONFIDENTIAL_ARTEFACTS")
    }

    /// Directory of artefacts with an extension, `tools`: a file `numbers` of several blocks, from 1 to 3000.
    pub fn extension() -> PathBuf {
        path("HUSK_EXTENSION_ARTEFACTS")
    }

    /// Directory of artefacts with the root in every format there is.
    pub fn formats() -> PathBuf {
        path("HUSK_FORMATS_ARTEFACTS")
    }
}

fn word(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn path(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => {
            std::path::absolute(PathBuf::from(value)).expect("a path that is not empty can be made absolute")
        }
        _ => panic!("{name} is not set: run the end-to-end tests with `cargo xtask test`"),
    }
}
