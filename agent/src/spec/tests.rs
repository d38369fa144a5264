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
fn what_is_not_applied_is_named() {
    assert!(not_applied(&spec_with(Linux::default())).is_empty());
    let linux = Linux { Seccomp: Some(wire::LinuxSeccomp::new()).into(), ..Default::default() };
    let spec = wire::Spec { Hooks: Some(wire::Hooks::new()).into(), ..spec_with(linux) };
    assert_eq!(not_applied(&spec), ["hooks", "linux.seccomp"]);
}
