//! `build-image` as its users meet it: without a network, killed in the middle, twice at once; `bad_inputs` with mirrors and
//! disks that fail. `cargo xtask test` runs these when the artefacts are built, so that kernel and agent come from the cache.
//!
//! That another user in another place gets the same bytes is `cargo xtask check-reproducible`'s to show.

mod bad_inputs;
mod mirror;
mod place;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest_manifest::Manifest;

/// The artefacts that are built already.
fn artefacts() -> PathBuf {
    std::env::var_os("HUSK_ARTEFACTS").expect("HUSK_ARTEFACTS says where the artefacts are").into()
}

fn build(out: &Path, before: &[&str]) -> Command {
    let words: Vec<_> = before.iter().copied().chain([env!("CARGO_BIN_EXE_xtask"), "build-image"]).collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["--offline", "--recipe", "minimal", "--out"])
        .arg(out)
        .stdin(Stdio::null());
    command
}

/// Where a build for this machine goes.
fn set_in(out: &Path) -> PathBuf {
    out.join(guest_arch::Arch::host().name()).join("minimal")
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Manifest and digests are what `verify-image` believes.
fn is_whole(set: &Path) {
    succeeded(&Command::new(env!("CARGO_BIN_EXE_xtask")).arg("verify-image").arg(set).output().unwrap());
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn a_build_without_a_network_gives_the_same_bytes() {
    let out = tempfile::tempdir().unwrap();
    let output = build(out.path(), &["unshare", "--map-root-user", "--net"]).output().unwrap();
    succeeded(&output);
    let [built, known] = [set_in(out.path()), artefacts()].map(|dir| Manifest::load(&dir).unwrap());
    assert_eq!(built.kernel, known.kernel);
    assert_eq!(built.agent, known.agent, "is HUSK_ARTEFACTS a quick build?");
    assert_eq!(built.images, known.images);
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn a_killed_build_leaves_what_was_there() {
    let out = tempfile::tempdir().unwrap();
    succeeded(&build(out.path(), &[]).output().unwrap());
    let sums = || fs::read(set_in(out.path()).join("SHA256SUMS")).unwrap();
    let before = sums();
    for (milliseconds, signal) in
        [(200, "KILL"), (1200, "INT"), (2200, "KILL"), (3200, "INT"), (4200, "KILL")]
    {
        let child = Group::start(build(out.path(), &[]).stderr(Stdio::null()).stdout(Stdio::null()));
        thread::sleep(Duration::from_millis(milliseconds));
        let _it_may_have_been_quicker = child.end(signal);
        assert_eq!(sums(), before, "SIG{signal} after {milliseconds} ms");
        is_whole(&set_in(out.path()));
    }
    succeeded(&build(out.path(), &[]).output().unwrap());
    let left = fs::read_dir(set_in(out.path()).parent().unwrap()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains(".new-")), "{left:?}");
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn two_builds_at_once_both_succeed() {
    let out = tempfile::tempdir().unwrap();
    let start = || build(out.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let [one, other] = [start(), start()];
    for child in [one, other] {
        succeeded(&child.wait_with_output().unwrap());
    }
    is_whole(&set_in(out.path()));
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn a_recipe_of_ones_own_can_have_files_directories_and_extensions() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("tree/bin")).unwrap();
    fs::write(dir.path().join("tree/bin/tool"), "#!/bin/sh\n").unwrap();
    let recipe = dir.path().join("mine.toml");
    fs::write(
        &recipe,
        "extends = 'minimal'\nformats = ['erofs']\n[[file]]\npath = '/etc/motd'\ntext = 'hello'\n\
         [[directory]]\npath = '/opt'\nfrom = 'tree'\n[[extension]]\nname = 'tools'\nfrom = 'tree'\n",
    )
    .unwrap();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask
        .args(["build-image", "--offline", "--recipe"])
        .arg(&recipe)
        .arg("--out")
        .arg(dir.path().join("out"));
    succeeded(&xtask.stdin(Stdio::null()).output().unwrap());
    let set = dir.path().join("out").join(guest_arch::Arch::host().name()).join("mine");
    is_whole(&set);
    let manifest = Manifest::load(&set).unwrap();
    assert_eq!(manifest.extensions[0].name, "tools");
    let mut why = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let said = why.args(["image", "why", "/opt/bin/tool", "--image"]).arg(&set).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("root: /opt/bin/tool: the directory tree\n"));

    fs::write(&recipe, "extends = 'minimal'\n[[file]]\npath = '/etc/motd'\nfrom = 'gone'\n").unwrap();
    let output = xtask.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("mine.toml, line 4, file.from: there is no file"), "{said}");
    assert!(Manifest::load(&set).is_ok_and(|there| there == manifest), "the old set stays");
}

/// A build and all that it started, which a terminal's Ctrl-C would reach too. Nothing of it outlives the test.
pub(crate) struct Group(Child);

impl Group {
    pub(crate) fn start(command: &mut Command) -> Group {
        Group(command.process_group(0).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.0.id());
        let _gone_already = Command::new("kill").args(["-s", name, "--", &group]).status();
    }

    pub(crate) fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "SIG{signal} does not end it");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A child that was waited for has left a number that may be another's by now.
        if let Ok(None) = self.0.try_wait() {
            self.signal("KILL");
            let _status = self.0.wait();
        }
    }
}
