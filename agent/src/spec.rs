//! From the wire's OCI spec to the OCI spec.
//!
//! proto3 scalars have no presence: zero and the empty string mean "not given", and an empty list means none. The OCI
//! types' own defaults are those of an example container, so each field of a type that has such a default is set here,
//! given or not.
//!
//! Field by field rather than through JSON: reading the OCI types with serde would link a regular expression engine
//! into the agent, half a megabyte that validates a field the wire does not have.

pub(crate) mod resources;

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

use agent_api::oci as wire;
use jail::oci;

/// A word of the wire's spec that the OCI specification does not know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec: unknown {what} {value:?}")]
pub(crate) struct Error {
    what: &'static str,
    value: String,
}

/// A container's spec.
pub(crate) fn container(spec: &wire::Spec) -> Result<oci::Spec, Error> {
    let mut out = oci::Spec::default();
    out.set_version(given(&spec.Version).unwrap_or_else(|| "1.1.0".to_string()));
    out.set_process(spec.Process.as_ref().map(process).transpose()?);
    out.set_root(spec.Root.as_ref().map(root));
    out.set_hostname(given(&spec.Hostname));
    out.set_mounts(list(&spec.Mounts, mount));
    out.set_annotations((!spec.Annotations.is_empty()).then(|| spec.Annotations.clone()));
    out.set_linux(spec.Linux.as_ref().map(linux).transpose()?);
    out.set_hooks(spec.Hooks.as_ref().map(hooks));
    Ok(out)
}

/// A process of a container: its first, or one that joins it.
pub(crate) fn process(process: &wire::Process) -> Result<oci::Process, Error> {
    let mut out = oci::Process::default();
    out.set_terminal(Some(process.Terminal));
    out.set_console_size(process.ConsoleSize.as_ref().map(|size| {
        let size = oci::BoxBuilder::default().height(u64::from(size.Height)).width(u64::from(size.Width));
        size.build().expect(COMPLETE)
    }));
    out.set_user(process.User.as_ref().map(user).unwrap_or_default());
    out.set_args(list(&process.Args, String::clone));
    out.set_env(list(&process.Env, String::clone));
    out.set_cwd(PathBuf::from(if process.Cwd.is_empty() { "/" } else { &process.Cwd }));
    out.set_capabilities(process.Capabilities.as_ref().map(capabilities));
    out.set_rlimits(try_list(&process.Rlimits, rlimit)?);
    out.set_no_new_privileges(Some(process.NoNewPrivileges));
    out.set_apparmor_profile(given(&process.ApparmorProfile));
    out.set_selinux_label(given(&process.SelinuxLabel));
    let score = process.OOMScoreAdj;
    let score = i32::try_from(score).map_err(|_| unknown("oomScoreAdj", &score.to_string()))?;
    out.set_oom_score_adj((score != 0).then_some(score));
    Ok(out)
}

/// Why a builder of an OCI type cannot fail.
const COMPLETE: &str = "every field is set";

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn nonzero<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}

fn list<W, T>(items: &[W], convert: impl Fn(&W) -> T) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.iter().map(convert).collect())
}

fn try_list<W, T>(items: &[W], convert: impl Fn(&W) -> Result<T, Error>) -> Result<Option<Vec<T>>, Error> {
    let items = items.iter().map(convert).collect::<Result<Vec<_>, _>>()?;
    Ok((!items.is_empty()).then_some(items))
}

fn unknown(what: &'static str, value: &str) -> Error {
    Error { what, value: value.to_string() }
}

fn root(root: &wire::Root) -> oci::Root {
    let mut out = oci::Root::default();
    out.set_path(PathBuf::from(&root.Path));
    out.set_readonly(Some(root.Readonly));
    out
}

fn user(user: &wire::User) -> oci::User {
    let mut out = oci::User::default();
    out.set_uid(user.UID);
    out.set_gid(user.GID);
    out.set_additional_gids(list(&user.AdditionalGids, |gid| *gid));
    out.set_username(given(&user.Username));
    out
}

fn rlimit(limit: &wire::POSIXRlimit) -> Result<oci::PosixRlimit, Error> {
    let kind =
        oci::PosixRlimitType::from_str(&limit.Type).map_err(|_| unknown("resource limit", &limit.Type))?;
    let limit = oci::PosixRlimitBuilder::default().typ(kind).hard(limit.Hard).soft(limit.Soft);
    Ok(limit.build().expect(COMPLETE))
}

/// Peers spell a capability `CAP_X`, `X`, or as a JSON string with its quotes. A name this guest does not know is
/// left out, since a capability nobody can have is none that could be granted.
fn capabilities(capabilities: &wire::LinuxCapabilities) -> oci::LinuxCapabilities {
    let known = |names: &[String]| -> Option<HashSet<oci::Capability>> {
        let known = names.iter().filter_map(|name| {
            let name = name.trim_matches('"').to_ascii_uppercase();
            oci::Capability::from_str(name.strip_prefix("CAP_").unwrap_or(&name)).ok()
        });
        Some(known.collect())
    };
    let mut out = oci::LinuxCapabilities::default();
    out.set_bounding(known(&capabilities.Bounding));
    out.set_effective(known(&capabilities.Effective));
    out.set_inheritable(known(&capabilities.Inheritable));
    out.set_permitted(known(&capabilities.Permitted));
    out.set_ambient(known(&capabilities.Ambient));
    out
}

fn mount(mount: &wire::Mount) -> oci::Mount {
    let mut out = oci::Mount::default();
    out.set_destination(PathBuf::from(&mount.destination));
    out.set_source(given(&mount.source).map(PathBuf::from));
    out.set_typ(given(&mount.type_));
    out.set_options(list(&mount.options, String::clone));
    out
}

fn linux(linux: &wire::Linux) -> Result<oci::Linux, Error> {
    let mut out = oci::Linux::default();
    out.set_uid_mappings(list(&linux.UIDMappings, id_mapping));
    out.set_gid_mappings(list(&linux.GIDMappings, id_mapping));
    out.set_sysctl((!linux.Sysctl.is_empty()).then(|| linux.Sysctl.clone()));
    out.set_resources(linux.Resources.as_ref().map(resources::of_wire).transpose()?);
    out.set_cgroups_path(given(&linux.CgroupsPath).map(PathBuf::from));
    out.set_namespaces(try_list(&linux.Namespaces, namespace)?);
    out.set_devices(try_list(&linux.Devices, device)?);
    out.set_rootfs_propagation(given(&linux.RootfsPropagation));
    out.set_masked_paths(list(&linux.MaskedPaths, String::clone));
    out.set_readonly_paths(list(&linux.ReadonlyPaths, String::clone));
    out.set_mount_label(given(&linux.MountLabel));
    out.set_seccomp(linux.Seccomp.as_ref().map(seccomp).transpose()?);
    let rdt = linux.IntelRdt.as_ref().filter(|rdt| !rdt.L3CacheSchema.is_empty());
    out.set_intel_rdt(rdt.map(|rdt| {
        let mut out = oci::LinuxIntelRdt::default();
        out.set_l3_cache_schema(Some(rdt.L3CacheSchema.clone()));
        out
    }));
    Ok(out)
}

/// No timeout is the jail's own; one that cannot be is refused there.
fn hooks(hooks: &wire::Hooks) -> oci::Hooks {
    let list = |hooks: &[wire::Hook]| list(hooks, hook);
    let mut out = oci::Hooks::default();
    #[allow(deprecated)] // peers send it all the same
    out.set_prestart(list(&hooks.Prestart));
    out.set_create_runtime(list(&hooks.CreateRuntime));
    out.set_create_container(list(&hooks.CreateContainer));
    out.set_start_container(list(&hooks.StartContainer));
    out.set_poststart(list(&hooks.Poststart)).set_poststop(list(&hooks.Poststop));
    out
}

fn hook(hook: &wire::Hook) -> oci::Hook {
    let mut out = oci::Hook::default();
    out.set_path(PathBuf::from(&hook.Path)).set_args(list(&hook.Args, String::clone));
    out.set_env(list(&hook.Env, String::clone)).set_timeout(nonzero(hook.Timeout));
    out
}

/// Words that nobody knows are errors: a filter that is not what was meant is worse than none.
fn seccomp(seccomp: &wire::LinuxSeccomp) -> Result<oci::LinuxSeccomp, Error> {
    let mut out = oci::LinuxSeccomp::default();
    out.set_default_action(word("seccomp action", &seccomp.DefaultAction)?);
    out.set_architectures(try_list(&seccomp.Architectures, |arch| word("seccomp architecture", arch))?);
    out.set_flags(try_list(&seccomp.Flags, |flag| word("seccomp flag", flag))?);
    out.set_syscalls(try_list(&seccomp.Syscalls, syscall)?);
    Ok(out)
}

fn syscall(syscall: &wire::LinuxSyscall) -> Result<oci::LinuxSyscall, Error> {
    let mut out = oci::LinuxSyscall::default();
    out.set_names(syscall.Names.clone()).set_action(word("seccomp action", &syscall.Action)?);
    out.set_errno_ret(match &syscall.ErrnoRet {
        Some(wire::linux_syscall::ErrnoRet::Errnoret(number)) => Some(*number),
        _ => None,
    });
    out.set_args(try_list(&syscall.Args, |arg| {
        let index = usize::try_from(arg.Index).unwrap_or(usize::MAX);
        let operator: oci::LinuxSeccompOperator = word("seccomp operator", &arg.Op)?;
        let out = oci::LinuxSeccompArgBuilder::default().index(index).op(operator);
        Ok(out.value(arg.Value).value_two(arg.ValueTwo).build().expect(COMPLETE))
    })?);
    Ok(out)
}

fn word<T: FromStr>(what: &'static str, text: &str) -> Result<T, Error> {
    T::from_str(text).map_err(|_| unknown(what, text))
}

fn id_mapping(mapping: &wire::LinuxIDMapping) -> oci::LinuxIdMapping {
    let out = oci::LinuxIdMappingBuilder::default().container_id(mapping.ContainerID).host_id(mapping.HostID);
    out.size(mapping.Size).build().expect(COMPLETE)
}

/// Peers write the kernel's short names as well as the specification's.
fn namespace(namespace: &wire::LinuxNamespace) -> Result<oci::LinuxNamespace, Error> {
    use oci::LinuxNamespaceType as Type;
    let kind = match namespace.Type.as_str() {
        "mount" | "mnt" => Type::Mount,
        "network" | "net" => Type::Network,
        "pid" => Type::Pid,
        "ipc" => Type::Ipc,
        "uts" => Type::Uts,
        "user" => Type::User,
        "cgroup" => Type::Cgroup,
        "time" => Type::Time,
        other => return Err(unknown("namespace", other)),
    };
    let mut out = oci::LinuxNamespace::default();
    out.set_typ(kind);
    out.set_path(given(&namespace.Path).map(PathBuf::from));
    Ok(out)
}

fn device(device: &wire::LinuxDevice) -> Result<oci::LinuxDevice, Error> {
    let kind =
        oci::LinuxDeviceType::from_str(&device.Type).map_err(|_| unknown("device type", &device.Type))?;
    let mut out = oci::LinuxDevice::default();
    out.set_path(PathBuf::from(&device.Path)).set_typ(kind).set_major(device.Major).set_minor(device.Minor);
    out.set_file_mode(nonzero(device.FileMode)).set_uid(Some(device.UID)).set_gid(Some(device.GID));
    Ok(out)
}

#[cfg(test)]
mod tests;
