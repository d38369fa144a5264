//! What this crate does on this kernel, in short words for whoever asks.

use std::path::Path;

use crate::labels;

/// Whether system calls can be filtered.
pub fn filters_system_calls() -> bool {
    Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

/// One line per subject: `namespaces=cgroup,ipc,...`.
pub fn features() -> Vec<String> {
    let mut out = vec![
        "hooks=prestart,createRuntime,createContainer,startContainer,poststart,poststop".to_string(),
        list("namespaces", entries("/proc/self/ns").iter().map(String::as_str)),
        "mounts=idmap,propagation,recursive-attributes,tmpcopyup".to_string(),
    ];
    if filters_system_calls() {
        let known = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        // Notifications would need somebody outside of the VM who answers.
        out.push(list("seccomp-actions", known.split_whitespace().filter(|action| *action != "user_notif")));
    }
    let modules = [("apparmor", labels::apparmor()), ("selinux", labels::selinux())];
    out.push(list("security-modules", modules.iter().filter(|(_, on)| *on).map(|(name, _)| *name)));
    // A subject with nothing in it says nothing.
    out.retain(|line| !line.ends_with('='));
    out
}

/// What `/proc` lists under two names for some kinds is one namespace.
fn entries(directory: &str) -> Vec<String> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = found
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.ends_with("_for_children"))
        .collect();
    names.sort();
    names
}

fn list<'a>(subject: &str, words: impl Iterator<Item = &'a str>) -> String {
    format!("{subject}={}", words.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_kernel_has_is_listed() {
        let got = features();
        assert!(filters_system_calls());
        let namespaces = got.iter().find(|line| line.starts_with("namespaces=")).unwrap();
        for kind in ["cgroup", "mnt", "time", "user"] {
            assert!(namespaces.split(['=', ',']).any(|word| word == kind), "{kind} in {namespaces}");
        }
        let actions = got.iter().find(|line| line.starts_with("seccomp-actions=")).unwrap();
        assert!(actions.contains("errno") && !actions.contains("notif"), "{actions}");
        assert!(got.iter().all(|line| !line.ends_with('=')));
    }
}
