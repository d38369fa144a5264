use super::*;
use agent_api::oci::{
    Linux, LinuxCPU, LinuxCapabilities, LinuxMemory, LinuxNamespace, LinuxPids, LinuxResources,
};

fn spec_with(linux: wire::Linux) -> wire::Spec {
    wire::Spec { Linux: Some(linux).into(), ..Default::default() }
}

#[test]
fn what_was_not_given_is_absent_and_not_a_default() {
    let spec = container(&spec_with(Linux::default())).unwrap();
    assert!(spec.process().is_none() && spec.mounts().is_none() && spec.hostname().is_none());
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.namespaces().is_none() && linux.masked_paths().is_none() && linux.resources().is_none());
    let process = super::process(&wire::Process::new()).unwrap();
    assert!(process.args().is_none() && process.capabilities().is_none() && process.rlimits().is_none());
}

#[test]
fn both_spellings_of_a_namespace_are_read() {
    for (spelling, wanted) in [
        ("mnt", oci::LinuxNamespaceType::Mount),
        ("mount", oci::LinuxNamespaceType::Mount),
        ("net", oci::LinuxNamespaceType::Network),
        ("network", oci::LinuxNamespaceType::Network),
        ("ipc", oci::LinuxNamespaceType::Ipc),
    ] {
        let namespace = LinuxNamespace { Type: spelling.into(), ..Default::default() };
        let spec =
            container(&spec_with(Linux { Namespaces: vec![namespace], ..Default::default() })).unwrap();
        let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        assert_eq!(namespaces[0].typ(), wanted, "{spelling}");
        assert_eq!(namespaces[0].path(), &None, "an empty path means a new namespace");
    }
}

#[test]
fn capability_names_come_in_three_spellings_and_unknown_ones_are_left_out() {
    let names = ["CAP_CHOWN", "kill", "\"CAP_SETUID\"", "CAP_FLYING", ""].map(String::from).to_vec();
    let capabilities = LinuxCapabilities { Bounding: names, ..Default::default() };
    let wire = wire::Process { Capabilities: Some(capabilities).into(), ..Default::default() };
    let bounding = process(&wire).unwrap().capabilities().clone().unwrap().bounding().clone().unwrap();
    let wanted = [oci::Capability::Chown, oci::Capability::Kill, oci::Capability::Setuid];
    assert_eq!(bounding, wanted.into_iter().collect());
}

#[test]
fn limits_keep_unlimited_and_drop_what_was_not_given() {
    let resources = LinuxResources {
        Memory: Some(LinuxMemory { Limit: -1, ..Default::default() }).into(),
        CPU: Some(LinuxCPU { Quota: -1, Period: 100_000, ..Default::default() }).into(),
        Pids: Some(LinuxPids { Limit: 0, ..Default::default() }).into(),
        ..Default::default()
    };
    let linux = Linux { Resources: Some(resources).into(), ..Default::default() };
    let spec = container(&spec_with(linux)).unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    let memory = resources.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(-1), None));
    let cpu = resources.cpu().clone().unwrap();
    assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(-1), Some(100_000), None));
    assert!(resources.pids().is_none());
    assert!(resources.devices().is_none());
}

#[test]
fn a_bad_value_is_an_error_that_says_what_it_is() {
    let namespace = LinuxNamespace { Type: "galaxy".into(), ..Default::default() };
    let error =
        container(&spec_with(Linux { Namespaces: vec![namespace], ..Default::default() })).unwrap_err();
    assert!(error.to_string().contains("galaxy"), "{error}");
}

#[test]
fn hooks_keep_their_turns() {
    let hook = |path: &str, timeout| wire::Hook {
        Path: path.into(),
        Args: vec!["name".into()],
        Env: vec!["A=b".into()],
        Timeout: timeout,
        ..Default::default()
    };
    let hooks = wire::Hooks {
        Prestart: vec![hook("/1", 0)],
        CreateRuntime: vec![hook("/2", 7)],
        CreateContainer: vec![hook("/3", -1)],
        StartContainer: vec![hook("/4", 0)],
        Poststart: vec![hook("/5", 0)],
        Poststop: vec![hook("/6", 0)],
        ..Default::default()
    };
    let spec = container(&wire::Spec { Hooks: Some(hooks).into(), ..Default::default() }).unwrap();
    let hooks = spec.hooks().clone().unwrap();
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    let lists = [prestart, hooks.create_runtime(), hooks.create_container(), hooks.start_container()];
    let all = lists.into_iter().chain([hooks.poststart(), hooks.poststop()]).flatten().flatten();
    let got: Vec<_> = all.map(|hook| (hook.path().to_str().unwrap(), hook.timeout())).collect();
    let expected =
        [("/1", None), ("/2", Some(7)), ("/3", Some(-1)), ("/4", None), ("/5", None), ("/6", None)];
    assert_eq!(got, expected, "no timeout is 0 on the wire; one that cannot be is for the jail to refuse");
}

#[test]
fn a_filter_is_read_word_by_word() {
    let arg =
        wire::LinuxSeccompArg { Index: 1, Value: 2, Op: "SCMP_CMP_MASKED_EQ".into(), ..Default::default() };
    let rule = wire::LinuxSyscall {
        Names: vec!["mkdir".into()],
        Action: "SCMP_ACT_ERRNO".into(),
        ErrnoRet: Some(wire::linux_syscall::ErrnoRet::Errnoret(0)),
        Args: vec![arg],
        ..Default::default()
    };
    let filter = |change: &dyn Fn(&mut wire::LinuxSeccomp)| {
        let mut seccomp = wire::LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ALLOW".into(),
            Architectures: vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_RISCV64".into()],
            Flags: vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()],
            Syscalls: vec![rule.clone()],
            ..Default::default()
        };
        change(&mut seccomp);
        let spec = spec_with(Linux { Seccomp: Some(seccomp).into(), ..Default::default() });
        container(&spec).map(|spec| spec.linux().clone().unwrap().seccomp().clone().unwrap())
    };
    let got = filter(&|_| ()).unwrap();
    assert_eq!(got.architectures().clone().unwrap().len(), 2);
    let rule = &got.syscalls().clone().unwrap()[0];
    // Given, and 0: the one number of the wire that knows the difference.
    assert_eq!((rule.errno_ret(), rule.args().clone().unwrap()[0].value_two()), (Some(0), Some(0)));
    type Change = fn(&mut wire::LinuxSeccomp);
    let bad: [(Change, &str); 5] = [
        (|all| all.DefaultAction = "".into(), "seccomp action"),
        (|all| all.Architectures.push("SCMP_ARCH_PDP11".into()), "seccomp architecture"),
        (|all| all.Flags.push("SECCOMP_FILTER_FLAG_NEW_LISTENER".into()), "seccomp flag"),
        (|all| all.Syscalls[0].Action = "SCMP_ACT_MAYBE".into(), "seccomp action"),
        (|all| all.Syscalls[0].Args[0].Op = "SCMP_CMP_LIKE".into(), "seccomp operator"),
    ];
    for (change, word) in bad {
        let error = filter(&change).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
