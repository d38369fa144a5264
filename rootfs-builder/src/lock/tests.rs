//! Locks that are written, read and compared.

use super::*;

fn input(name: &str, version: &str, sha256: &str) -> Input {
    Input {
        kind: "source".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        from: "debian: pool/x".to_owned(),
        size: Some(3),
        sha256: Some(sha256.to_owned()),
        signed_by: None,
    }
}

fn package(name: &str, version: &str) -> Package {
    let text = format!(
        "name = '{name}'\nversion = '{version}'\narchitecture = 'amd64'\nsource = '{name}'\n\
         source-version = '{version}'\nsuite = 'sid'\npath = 'pool/{name}_{version}.deb'\nsize = 1\n\
         sha256 = '{version}'\nsigned-by = 'F'\n"
    );
    toml::from_str(&text).unwrap()
}

fn lock(inputs: Vec<Input>, packages: Vec<Package>) -> Lock {
    let resolved = Resolved { name: "r".into(), arch: "x86_64".into(), request: "q".into(), packages };
    Lock { inputs, recipes: vec![resolved], ..Lock::new() }
}

fn said(before: &Lock, after: &Lock) -> Vec<String> {
    before.changes(after).iter().map(Change::to_string).collect()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locks/x.lock");
    let mut written = lock(vec![input("b", "1", "x"), input("a", "2", "y")], vec![package("p", "1")]);
    written.write(&path).unwrap();
    let read = Lock::load(&path).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.inputs[0].name, "a", "sorted");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Every input") && text.contains("\n[[recipe.package]]\n"), "{text}");
    assert_eq!(Lock::load(&dir.path().join("none")).unwrap(), Lock::new());
}

#[test]
fn another_file_is_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    for (text, expected) in [("version = 2\n", "is of version 2"), ("version = 1\nodd = 1\n", "odd")] {
        fs::write(&path, text).unwrap();
        let error = Lock::load(&path).unwrap_err().to_string();
        assert!(error.starts_with("lock ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_change_says_what_came_went_and_moved() {
    let before = lock(vec![input("a", "1", "x"), input("b", "1", "x")], vec![package("p", "1")]);
    let after =
        lock(vec![input("a", "2", "y"), input("b", "1", "z"), input("c", "1", "x")], vec![package("q", "7")]);
    assert_eq!(
        said(&before, &after),
        [
            "- r x86_64: package p 1",
            "+ r x86_64: package q 7",
            "~ source a 1 -> 2",
            "~ source b 1 (x debian: pool/x) -> 1 (z debian: pool/x)",
            "+ source c 1",
        ]
    );
    assert!(before.changes(&before).is_empty());
}

#[test]
fn two_versions_of_a_name_are_two_inputs() {
    let before = lock(vec![input("std", "1", "x"), input("std", "2", "y")], vec![]);
    let after = lock(vec![input("std", "2", "y"), input("std", "3", "z")], vec![]);
    assert_eq!(said(&before, &after), ["~ source std 1 -> 3"]);
}

#[test]
fn a_program_that_is_not_here_keeps_its_line() {
    let program = |name: &str, version: &str| Input {
        kind: pinned::PROGRAM.to_owned(),
        sha256: None,
        ..input(name, version, "")
    };
    let mut lock = lock(vec![program("gcc", "1"), program("other gcc", "1"), input("a", "1", "x")], vec![]);
    lock.set_inputs(vec![program("gcc", "2")]);
    assert_eq!(lock.inputs, [program("gcc", "2"), program("other gcc", "1")]);
}

#[test]
fn packages_count_only_for_the_request_they_were_resolved_for() {
    let text = "extends = 'minimal'\n[packages]\nsuites = ['sid']\ninstall = ['bash']\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    fs::write(&path, text).unwrap();
    let recipe = Recipe::load(path.to_str().unwrap()).unwrap();
    assert_eq!(Lock::path_for(&recipe).file_name().unwrap(), "mine.lock");
    let mut lock = Lock::new();
    assert_eq!(lock.packages(&recipe, Arch::X86_64), None);
    lock.set_packages(&recipe, Arch::X86_64, vec![package("bash", "5")]);
    assert_eq!(lock.packages(&recipe, Arch::X86_64).unwrap().len(), 1);
    assert_eq!(lock.packages(&recipe, Arch::S390x), None);
    fs::write(&path, text.replace("'bash'", "'bash', 'dash'")).unwrap();
    assert_eq!(lock.packages(&Recipe::load(path.to_str().unwrap()).unwrap(), Arch::X86_64), None);
}

#[test]
fn everything_that_is_pinned_here_is_found() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let inputs = pinned(workspace).unwrap();
    for name in
        ["linux-source-6.12", "libseccomp", "rust-src", "ziglang", "cargo-zigbuild", "rustc", "all crates"]
    {
        assert!(inputs.iter().any(|input| input.name == name), "{name}");
    }
    let fetched = inputs.iter().filter(|input| input.size.is_some());
    assert!(fetched.clone().count() >= 3);
    assert!(fetched.into_iter().all(|input| input.sha256.as_ref().is_some_and(|digest| digest.len() == 64)));
}
