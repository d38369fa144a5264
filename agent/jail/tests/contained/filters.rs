//! Filters of system calls, in force.

use serde_json::{Value, json};

use crate::bench::{Bench, process, script};
use crate::reach::unprivileged;
use crate::tests::{Test, lines, out, status};

pub(crate) const ALL: &[Test] = &[
    ("seccomp_refuses_with_the_number_of_the_rule", seccomp_refuses_with_the_number_of_the_rule),
    ("seccomp_allows_only_what_is_listed", seccomp_allows_only_what_is_listed),
    ("seccomp_looks_at_arguments", seccomp_looks_at_arguments),
    ("seccomp_kills", seccomp_kills),
    ("seccomp_holds_for_execs", seccomp_holds_for_execs),
    ("seccomp_in_a_user_namespace", seccomp_in_a_user_namespace),
    ("labels_need_their_module", labels_need_their_module),
];

fn with(bench: Bench, promise: bool, seccomp: Value) -> Bench {
    bench.set("/process/noNewPrivileges", json!(promise)).set("/linux/seccomp", seccomp)
}

fn denies(names: &[&str], errno: u32) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [
        { "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno } ] })
}

fn seccomp_refuses_with_the_number_of_the_rule() {
    for promise in [true, false] {
        let bench = script("mkdir /tmp/x; cat /proc/self/status");
        let got = with(bench, promise, denies(&["mkdir", "mkdirat", "no_such_call"], 38)).run().unwrap();
        assert!(got.err.contains("Function not implemented"), "{got:?}");
        assert_eq!(status(&got.out, "Seccomp"), "2");
        assert_eq!(status(&got.out, "NoNewPrivs"), if promise { "1" } else { "0" });
        // The right to install it did not stay.
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status(&got.out, set), "00000000000000eb", "{set}");
        }
    }
    // Also where the user is not root, and the rights it has are ambient.
    let net = json!(["CAP_NET_RAW"]);
    let sets =
        json!({ "bounding": net, "effective": net, "permitted": net, "inheritable": net, "ambient": net });
    let bench = Bench::new(&["cat", "/proc/self/status"])
        .set("/process/capabilities", sets)
        .set("/process/user/uid", json!(1000));
    let got = out(&with(bench, false, denies(&["mkdir"], 1)));
    for set in ["CapPrm", "CapEff", "CapAmb", "CapInh", "CapBnd"] {
        assert_eq!(status(&got, set), "0000000000002000", "{set}");
    }
    assert_eq!(status(&got, "Seccomp"), "2");
}

/// Nothing of what the jail itself does has to be allowed but the execute, and without the promise the call that gives
/// the right away.
fn seccomp_allows_only_what_is_listed() {
    let needed = [
        "write",
        "exit_group",
        "exit",
        "brk",
        "mmap",
        "munmap",
        "mprotect",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "getuid",
        "geteuid",
        "getgid",
        "getegid",
        "rt_sigaction",
        "rt_sigprocmask",
        "uname",
        "prctl",
        "ioctl",
        "newfstatat",
        "fstat",
    ];
    for (promise, own) in [(true, vec!["execve"]), (false, vec!["execve", "capset"])] {
        let names = [&needed[..], &own].concat();
        let strict = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" } ] });
        assert_eq!(out(&with(Bench::new(&["echo", "strict"]), promise, strict)), "strict\n");
    }
}

fn seccomp_looks_at_arguments() {
    // Signal 0 may be sent, 15 may not.
    let rule = json!({ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
        "args": [{ "index": 1, "value": 15, "op": "SCMP_CMP_EQ" }] });
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] });
    let bench = script("kill -0 $$ && echo may; kill -TERM $$ 2>/dev/null || echo may not");
    assert_eq!(lines(&with(bench, true, filter)), ["may", "may not"]);
}

fn seccomp_kills() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"] {
        let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": action } ] });
        let got = with(Bench::new(&["mkdir", "/tmp/x"]), true, filter).run().unwrap();
        assert_eq!(got.code, 128 + 31, "{action}");
    }
}

fn seccomp_holds_for_execs() {
    let bench = with(Bench::new(&["sleep", "100"]), false, denies(&["mkdir", "mkdirat"], 1));
    let init = bench.start().unwrap();
    for promise in [true, false] {
        let mut wanted =
            process(&["sh", "-c", "mkdir /tmp/x 2>/dev/null || echo refused; cat /proc/self/status"]);
        wanted["noNewPrivileges"] = json!(promise);
        let got = bench.exec(&init, wanted).unwrap().finish();
        assert!(got.out.starts_with("refused\n"), "{got:?}");
        assert_eq!(status(&got.out, "Seccomp"), "2");
        assert_eq!(status(&got.out, "CapEff"), "00000000000000eb");
    }
}

fn seccomp_in_a_user_namespace() {
    let mut bench = unprivileged(script("id -u; mkdir /tmp/x 2>/dev/null || echo refused"));
    for promise in [true, false] {
        bench = with(bench, promise, denies(&["mkdir", "mkdirat"], 1));
        assert_eq!(lines(&bench), ["0", "refused"]);
    }
}

/// This machine's kernel has neither, like the guest's; where one has, these lines are where to begin.
fn labels_need_their_module() {
    let has = |name: &str| std::fs::read_to_string("/proc/filesystems").unwrap().contains(name);
    let apparmor = std::path::Path::new("/sys/module/apparmor").exists();
    assert!(!apparmor && !has("selinuxfs"), "written for a kernel without security modules");
    let profile = script("true").set("/process/apparmorProfile", json!("web"));
    assert_eq!(profile.run().unwrap_err(), "profile \"web\": the guest's kernel has no AppArmor");
    let unconfined = script("true").set("/process/apparmorProfile", json!("unconfined"));
    assert_eq!(unconfined.run().unwrap().code, 0);
    let label = script("true").set("/process/selinuxLabel", json!("a:b:c:s0"));
    assert_eq!(label.run().unwrap_err(), "label \"a:b:c:s0\": the guest's kernel has no SELinux");
    let mount = script("true").set("/linux/mountLabel", json!("a:b:c:s0"));
    assert_eq!(mount.run().unwrap_err(), "mount label \"a:b:c:s0\": the guest's kernel has no SELinux");
}
