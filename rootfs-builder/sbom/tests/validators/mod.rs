//! The validators: Python libraries, installed once into Husk's cache.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use guest_inputs::{Cache, Key};

/// Versions and hashes.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// The root of the repository.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Installed validators.
pub(crate) struct Validators {
    site: PathBuf,
}

impl Validators {
    /// Takes them from the cache, or puts them there.
    pub(crate) fn prepare() -> Self {
        let version = succeed(Command::new("python3").arg("--version")).expect("python3 runs").stdout;
        // One of them is compiled: for a machine, and for a Python.
        let key = Key::new("sbom-validators/v1")
            .field("requirements", REQUIREMENTS)
            .field("host", std::env::consts::ARCH)
            .field("python", version);
        let cache = Cache::open().expect("there is a place for a cache");
        let entry = cache.build("sbom-validators", &key, install).unwrap_or_else(|error| {
            panic!(
                "the validators of bills of materials are not in the cache, and cannot be installed from \
                 PyPI. This needs the network once:\n{error}"
            )
        });
        Validators { site: entry.join("site") }
    }

    /// "ok" for each document that is a valid one of its kind; else what is wrong.
    pub(crate) fn verdicts(&self, documents: &[(&str, Vec<u8>)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut python = Command::new("python3");
        // -s -B: nothing of this user's own, and nothing written into the cache.
        python.args(["-s", "-B"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate.py"));
        python.env("PYTHONPATH", &self.site);
        for (n, (kind, bytes)) in documents.iter().enumerate() {
            let path = dir.path().join(format!("{n}.json"));
            fs::write(&path, bytes).unwrap();
            python.arg(kind).arg(path);
        }
        let output = succeed(&mut python).unwrap_or_else(|error| panic!("{error}"));
        let verdicts: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(verdicts.len(), documents.len(), "{verdicts:?}");
        verdicts
    }
}

fn install(into: &Path) -> Result<(), Box<dyn Error>> {
    // pip comes with a virtual environment, which cannot be moved; what it installs with --target can.
    let venv = into.join("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let requirements = into.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let mut pip = Command::new(venv.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--require-hashes", "--requirement"]).arg(&requirements);
    pip.arg("--target").arg(into.join("site"));
    succeed(&mut pip)?;
    Ok(fs::remove_dir_all(&venv)?)
}

fn succeed(command: &mut Command) -> Result<Output, Box<dyn Error>> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(output);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    Err(format!("{program} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
