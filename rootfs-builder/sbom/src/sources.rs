//! The digest of a crate of this workspace. No registry has an archive of it, so the digest is of its files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Sha256};

/// Directories at the top of a crate that do not end up in what is built from it.
const NOT_BUILT: &[&str] = &["benches", "examples", "fuzz", "target", "tests"];

/// in-toto's `dirHash` of the crate in `dir`: the digest of the lines that `sha256sum` prints for its files,
/// sorted by path. What is hidden, what only tests use and what is a crate of its own is left out.
pub(crate) fn tree_digest(dir: &Path) -> Result<Sha256, Error> {
    let mut files = Vec::new();
    walk(dir, "", &mut files)?;
    files.sort_unstable();
    let mut lines = String::new();
    for (name, path) in files {
        let bytes = fs::read(&path).map_err(reading(&path))?;
        lines += &format!("{}  {name}\n", Sha256::of(&bytes));
    }
    Ok(Sha256::of(lines.as_bytes()))
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(reading(dir))? {
        let entry = entry.map_err(reading(dir))?;
        let path = entry.path();
        let name = entry.file_name().into_string().ok().filter(|name| !name.contains(char::is_control));
        let Some(name) = name else { return Err(Error::FileName { path }) };
        let kind = entry.file_type().map_err(reading(&path))?;
        if name.starts_with('.') {
            continue;
        }
        if kind.is_file() {
            files.push((format!("{prefix}{name}"), path));
        } else if kind.is_dir() {
            let other =
                path.join("Cargo.toml").exists() || prefix.is_empty() && NOT_BUILT.contains(&name.as_str());
            if !other {
                walk(&path, &format!("{prefix}{name}/"), files)?;
            }
        }
    }
    Ok(())
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn it_is_the_digest_that_the_specification_computes() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("Cargo.toml", "x"), ("src/lib.rs", "y"), ("src/a/b.rs", "z"), ("src/a.rs", "")]
        {
            write(dir.path(), name, text);
        }
        // The command line that in-toto's DigestSet gives for dirHash.
        let line =
            "find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum | cut -f1 -d' '";
        let output = Command::new("sh").args(["-c", line]).current_dir(dir.path()).output().unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(tree_digest(dir.path()).unwrap().as_str(), expected.trim());
    }

    #[test]
    fn only_what_is_built_counts() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "src/lib.rs", "y");
        let before = tree_digest(dir.path()).unwrap();
        for name in
            ["tests/t.rs", "target/debug/x", ".git/x", "src/.lib.rs.swp", "api/Cargo.toml", "api/src/lib.rs"]
        {
            write(dir.path(), name, "other");
        }
        assert_eq!(tree_digest(dir.path()).unwrap(), before);
        write(dir.path(), "src/tests/t.rs", "other");
        assert_ne!(tree_digest(dir.path()).unwrap(), before);
    }

    #[test]
    fn a_name_that_would_forge_a_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a\nb", "");
        let error = tree_digest(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("a\\nb\": a name that is not plain UTF-8 text on one line"), "{error}");
    }
}
