//! Settings of the kernel that a guest for containers is better off with.
//!
//! Values that are the kernel's defaults in every configuration are not repeated here, nor is what a container may want
//! for good reason: user namespaces, ptrace, io_uring and userfaultfd are left to whoever makes the container.

use std::io::Write as _;
use std::path::Path;
use std::{fs, io};

/// Where processes would leave their memory when they crash.
const CORE_PATTERN: &str = "kernel/core_pattern";

/// A file below /proc/sys, its value, and why.
const SETTINGS: &[(&str, &str, &str)] = &[
    // The pattern is the guest's, not the container's: a dump would land wherever the workload has its directory, and
    // what is after the bar runs outside of every container. This program says no, or is not there, which is the same.
    (CORE_PATTERN, "|/bin/false", "a crash leaves no memory on any disk"),
    ("kernel/kptr_restrict", "2", "addresses of the kernel are nobody's business"),
    ("kernel/dmesg_restrict", "1", "the kernel's messages tell of other containers"),
    ("kernel/sysrq", "0", "a byte on the console is no command to the kernel"),
    (
        "kernel/unprivileged_bpf_disabled",
        "1",
        "no programs in the kernel from those who have no right to load any",
    ),
    ("kernel/kexec_load_disabled", "1", "this kernel is the only one that runs here"),
    ("kernel/perf_event_paranoid", "3", "performance counters see across containers"),
    ("dev/tty/ldisc_autoload", "0", "line disciplines are old code that no container needs"),
    ("fs/protected_symlinks", "1", "links in shared directories are followed only by those who made them"),
    ("fs/protected_hardlinks", "1", "nobody links to what they cannot read and write"),
    ("fs/protected_fifos", "1", "a fifo in a shared directory is no trap for a write"),
    ("fs/protected_regular", "2", "nor is a file"),
];

/// Applies them. A kernel built without one of them does not have what it is about.
pub(super) fn apply(root: &Path, cores: bool) -> io::Result<()> {
    for (name, value, _) in SETTINGS {
        if cores && *name == CORE_PATTERN {
            continue;
        }
        let file = fs::OpenOptions::new().write(true).open(root.join(name));
        match file.and_then(|mut file| file.write_all(value.as_bytes())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::other(format!("{name} = {value}: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_is_set_and_the_rest_left_out() {
        let root = std::env::temp_dir().join(format!("husk-hardening-{}", std::process::id()));
        fs::create_dir_all(root.join("kernel")).unwrap();
        for name in ["kernel/sysrq", CORE_PATTERN] {
            fs::write(root.join(name), if name == CORE_PATTERN { "core" } else { "1" }).unwrap();
        }
        apply(&root, true).unwrap();
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!((read("kernel/sysrq"), read(CORE_PATTERN)), ("0".into(), "core".into()));
        apply(&root, false).unwrap();
        assert_eq!(read(CORE_PATTERN), "|/bin/false");
        assert!(!root.join("fs").exists());
        fs::create_dir(root.join("kernel/kptr_restrict")).unwrap();
        let error = apply(&root, false).unwrap_err().to_string();
        assert!(error.starts_with("kernel/kptr_restrict = 2: "), "{error}");
        fs::remove_dir_all(root).unwrap();
    }
}
