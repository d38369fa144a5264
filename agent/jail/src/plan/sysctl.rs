//! Which kernel settings a container may have: only those of a namespace that is its own, or the sandbox's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::namespaces::{Kind, Namespaces};
use super::{PlanError, no_nul};
use crate::oci::Linux;

/// One kernel setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Below `/proc/sys`.
    pub path: PathBuf,
    /// What to write.
    pub value: String,
}

/// The settings of the spec, by name, so that equal specs give equal plans.
pub(super) fn of_spec(linux: Option<&Linux>, namespaces: &Namespaces) -> Result<Vec<Sysctl>, PlanError> {
    let mut out = Vec::new();
    for (name, value) in linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten() {
        no_nul("sysctl", value)?;
        let path = path_of(name);
        if !allowed(&path, namespaces) {
            return Err(PlanError::Sysctl(name.clone()));
        }
        out.push(Sysctl { path: PathBuf::from(path), value: value.clone() });
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

/// `net.ipv4.ip_forward` and `net/ipv4/ip_forward` are the same; whichever separator comes first is the separator, and
/// the other one then belongs to a name (`net/ipv4/conf/eth0.1/forwarding`, `net.ipv4.conf.eth0/1.forwarding`).
fn path_of(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some(".") => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn allowed(path: &str, namespaces: &Namespaces) -> bool {
    let sound = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let ipc = path.starts_with("fs/mqueue/")
        || path.starts_with("kernel/msg")
        || path.starts_with("kernel/shm")
        || path == "kernel/sem";
    sound
        && (path.starts_with("net/")
            || (ipc && namespaces.contains(Kind::Ipc))
            || (path == "kernel/domainname" && namespaces.contains(Kind::Uts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Join;

    fn sandbox() -> Namespaces {
        let join = |kind| Join { kind, path: "/run/ns".into() };
        Namespaces { join: vec![join(Kind::Ipc), join(Kind::Uts)], ..Namespaces::default() }
    }

    #[test]
    fn the_first_separator_counts() {
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn a_namespace_must_be_there() {
        for path in ["kernel/shmmax", "fs/mqueue/msg_max", "kernel/domainname"] {
            assert!(allowed(path, &sandbox()), "{path}");
            assert!(!allowed(path, &Namespaces::default()), "{path}");
        }
        assert!(allowed("net/ipv4/ip_forward", &Namespaces::default()));
    }

    #[test]
    fn the_rest_is_refused() {
        for path in
            ["kernel/hostname", "vm/swappiness", "net/../vm/swappiness", "net//x", "kernel/shm/../x", ""]
        {
            assert!(!allowed(path, &sandbox()), "{path}");
        }
    }
}
