//! The list of the agent's crates, against what `cargo tree` shows.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use guest_sbom::{Component, Document, Error, Kind, Role, Sha256, crates_of_agent};

/// The root of the repository.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn crates(target: &str, features: &[&str]) -> Vec<Component> {
    crates_of_agent(&workspace(), target, features, false).unwrap()
}

/// "name vVERSION" of every package that cargo shows.
fn tree(target: &str, edges: &str, features: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--package", "husk-agent", "--prefix", "none", "--format", "{p}"]);
    cargo.args(["--edges", edges, "--target", target, "--features", features]).current_dir(workspace());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}

fn names<'a>(components: impl IntoIterator<Item = &'a Component>) -> BTreeSet<String> {
    components.into_iter().map(|c| format!("{} v{}", c.id.name, c.id.version)).collect()
}

#[test]
fn every_crate_that_cargo_shows_is_listed() {
    for arch in guest_arch::Arch::ALL {
        compare_with_cargo(arch.row().rust_triple, &[]);
    }
}

#[test]
fn every_crate_of_a_feature_is_listed() {
    let target = guest_arch::Arch::X86_64.row().rust_triple;
    let plain = crates(target, &[]).len();
    let policy = compare_with_cargo(target, &["policy", "tracing-spans"]);
    assert!(policy > plain, "{policy} with, {plain} without");
}

/// How many crates there are, once they are known to be those that cargo shows.
fn compare_with_cargo(target: &str, features: &[&str]) -> usize {
    let listed = crates(target, features);
    let features = features.join(",");
    let shipped = names(listed.iter().filter(|c| c.role == Role::Ships));
    assert_eq!(shipped, tree(target, "normal,no-proc-macro", &features), "{target} {features}");
    let all = names(&listed);
    for edges in ["normal", "normal,build"] {
        let shown = tree(target, edges, &features);
        let missing: Vec<_> = shown.difference(&all).collect();
        assert!(missing.is_empty(), "{target} {features} {edges}: {missing:?}");
    }
    listed.len()
}

#[test]
fn every_crate_has_version_licence_digest_and_name() {
    let listed = crates("x86_64-unknown-linux-musl", &[]);
    assert!(listed.len() > 50);
    for component in &listed {
        let id = &component.id;
        assert_eq!(id.kind, Kind::Crate);
        assert!(!id.version.is_empty() && component.digest.is_some(), "{id}");
        let licence = component.licence.as_ref().map(|licence| licence.expression());
        assert!(licence.is_some_and(|text| !text.contains("LicenseRef")), "{id}: {licence:?}");
        // The last stands in for the nix that ttrpc names.
        let ours = [("husk-agent", ""), ("agent-api", ""), ("jail", ""), ("nix", "0.26.")];
        let ours = ours.iter().any(|(name, version)| id.name == *name && id.version.starts_with(version));
        let prefix = if ours { "pkg:generic/husk/" } else { "pkg:cargo/" };
        assert!(component.purl.as_ref().unwrap().as_str().starts_with(prefix), "{id}");
    }
    // Whatever is needed is there too, and the agent is what needs the rest.
    let document = Document::new("agent", Sha256::of(b""), listed.iter().cloned()).unwrap();
    let needed: BTreeSet<_> = document.components().flat_map(|c| &c.depends_on).collect();
    let roots: Vec<_> =
        listed.iter().filter(|c| !needed.contains(&c.id)).map(|c| c.id.name.as_str()).collect();
    assert_eq!(roots, ["husk-agent"]);
}

#[test]
fn what_runs_at_build_time_is_told_apart() {
    let listed = crates("x86_64-unknown-linux-musl", &[]);
    let role = |name: &str| listed.iter().find(|c| c.id.name == name).map(|c| c.role);
    assert_eq!(role("tokio"), Some(Role::Ships));
    assert_eq!(role("tokio-macros"), Some(Role::Builds));
    assert_eq!(role("ttrpc-codegen"), Some(Role::Builds));
    assert_eq!(role("clap"), None, "the host's, not the agent's");
}

#[test]
fn the_digest_of_a_crate_is_the_one_of_its_archive() {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let listed = crates("x86_64-unknown-linux-musl", &[]);
    let serde_json = listed.iter().find(|c| c.id.name == "serde_json").unwrap();
    let entry = lock.split("[[package]]").find(|entry| entry.contains("name = \"serde_json\"")).unwrap();
    let sha256 = serde_json.digest.as_ref().unwrap().sha256();
    assert!(entry.contains(&format!("checksum = \"{sha256}\"")), "{entry}");
}

#[test]
fn offline_is_enough_once_all_is_there() {
    let online = crates("x86_64-unknown-linux-musl", &[]);
    let offline = crates_of_agent(&workspace(), "x86_64-unknown-linux-musl", &[], true).unwrap();
    assert_eq!(online, offline);
}

#[test]
fn what_cargo_refuses_is_told_in_its_words() {
    let error = crates_of_agent(&workspace(), "x86_64-unknown-linux-musl", &["no-such"], true).unwrap_err();
    assert!(matches!(error, Error::Cargo { .. }), "{error}");
    assert!(error.to_string().contains("no-such"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let error = crates_of_agent(dir.path(), "x86_64-unknown-linux-musl", &[], true).unwrap_err().to_string();
    assert!(
        error.starts_with("crates: cargo tree --locked --offline") && error.contains("Cargo.toml"),
        "{error}"
    );
}
