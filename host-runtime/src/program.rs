//! Finding programs. Engines call us with odd environments, so a few absolute places come after PATH.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The places helpers and emulators live in on common distributions, searched when PATH is not set at all.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program called `name`: in one of `places` first, then on PATH (or, without a PATH, in the usual directories).
pub(crate) fn find_program(name: &str, places: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL.into());
    places
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_before_path_and_must_be_executable() {
        assert_eq!(find_program("sh", &["/bin/bash"]), Some("/bin/bash".into()));
        assert!(
            find_program("sh", &["/etc/passwd", "/nowhere/sh"]).is_some_and(|found| found.ends_with("sh"))
        );
        assert_eq!(find_program("no-such-program-anywhere", &[]), None);
    }
}
