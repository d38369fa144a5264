//! Tests of finished artefacts: `cargo xtask test` builds them, says where they are, and runs these.

use std::{env, path::PathBuf, process::Command};

use guest_manifest::{Artefact, Manifest};

fn artefacts() -> PathBuf {
    env::var_os("HUSK_ARTEFACTS").expect("HUSK_ARTEFACTS says where the artefacts are").into()
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn the_agent_is_a_static_binary() {
    let agent = artefacts().join(Manifest::load(&artefacts()).unwrap().agent.file);
    let output = Command::new("file").arg("--brief").arg(&agent).output().unwrap();
    let kind = String::from_utf8(output.stdout).unwrap();
    let is_static = ["statically linked", "static-pie linked"].iter().any(|s| kind.contains(s));
    assert!(kind.starts_with("ELF 64-bit") && is_static, "{kind}");
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn no_path_of_this_machine_is_in_the_agent() {
    let agent = std::fs::read(artefacts().join(Manifest::load(&artefacts()).unwrap().agent.file)).unwrap();
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/").replace("rootfs-builder/", "");
    let home = env::var("HOME").unwrap() + "/.c"; // .cargo, .cache
    for path in [workspace, home] {
        assert!(!agent.windows(path.len()).any(|window| window == path.as_bytes()), "{path} is in the agent");
    }
}

#[test]
#[ignore = "needs HUSK_ARTEFACTS"]
fn every_file_has_the_digest_in_the_manifest() {
    let manifest = Manifest::load(&artefacts()).unwrap();
    for artefact in manifest.artefacts() {
        assert_eq!(&Artefact::measure(&artefacts(), &artefact.file).unwrap(), artefact);
    }
}
