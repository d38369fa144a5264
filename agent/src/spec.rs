//! From the wire's OCI spec to the OCI spec.
//!
//! proto3 scalars have no presence: zero and the empty string mean "not given", and an empty list means none, never
//! the defaults of an OCI library. So the wire's message becomes exactly the JSON that a `config.json` would hold,
//! leaving out what was not given, and the OCI types are read from that.

use agent_api::oci as wire;
use jail::oci;
use serde_json::{Map, Value, json};

/// The wire's message is not an OCI spec.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("spec: {0}")]
    Spec(#[source] serde_json::Error),
    #[error("spec: process: {0}")]
    Process(#[source] serde_json::Error),
}

/// A container's spec.
pub(crate) fn container(spec: &wire::Spec) -> Result<oci::Spec, Error> {
    let mut object = Object::default();
    object.text("ociVersion", if spec.Version.is_empty() { "1.1.0" } else { &spec.Version });
    object.text("hostname", &spec.Hostname);
    object.list("mounts", spec.Mounts.iter().map(mount));
    if !spec.Annotations.is_empty() {
        object.set("annotations", json!(spec.Annotations));
    }
    if let Some(process) = spec.Process.as_ref() {
        object.set("process", process_value(process));
    }
    if let Some(root) = spec.Root.as_ref() {
        object.set("root", json!({ "path": root.Path, "readonly": root.Readonly }));
    }
    if let Some(linux) = spec.Linux.as_ref() {
        object.set("linux", linux_value(linux));
    }
    serde_json::from_value(object.value()).map_err(Error::Spec)
}

/// The spec of a process that joins a container.
pub(crate) fn process(process: &wire::Process) -> Result<oci::Process, Error> {
    serde_json::from_value(process_value(process)).map_err(Error::Process)
}

/// Collects the members of a JSON object, leaving out what was not given.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_string(), value);
    }

    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.set(key, json!(text));
        }
    }

    fn number<N: Into<Value> + Default + PartialEq>(&mut self, key: &str, number: N) {
        if number != N::default() {
            self.set(key, number.into());
        }
    }

    fn list(&mut self, key: &str, items: impl ExactSizeIterator<Item = Value>) {
        if items.len() > 0 {
            self.set(key, items.collect());
        }
    }

    fn list_of_strings(&mut self, key: &str, items: &[String]) {
        self.list(key, items.iter().map(|item| json!(item)));
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

fn process_value(process: &wire::Process) -> Value {
    let mut object = Object::default();
    object.set("terminal", json!(process.Terminal));
    if let Some(size) = process.ConsoleSize.as_ref() {
        object.set("consoleSize", json!({ "height": size.Height, "width": size.Width }));
    }
    let user = process.User.as_ref().map_or_else(|| json!({ "uid": 0, "gid": 0 }), user_value);
    object.set("user", user);
    object.list_of_strings("args", &process.Args);
    object.list_of_strings("env", &process.Env);
    object.set("cwd", json!(if process.Cwd.is_empty() { "/" } else { &process.Cwd }));
    if let Some(capabilities) = process.Capabilities.as_ref() {
        object.set("capabilities", capabilities_value(capabilities));
    }
    object.list(
        "rlimits",
        process
            .Rlimits
            .iter()
            .map(|limit| json!({ "type": limit.Type, "hard": limit.Hard, "soft": limit.Soft })),
    );
    object.set("noNewPrivileges", json!(process.NoNewPrivileges));
    object.text("apparmorProfile", &process.ApparmorProfile);
    object.text("selinuxLabel", &process.SelinuxLabel);
    object.number("oomScoreAdj", process.OOMScoreAdj);
    object.value()
}

fn user_value(user: &wire::User) -> Value {
    let mut object = Object::default();
    object.set("uid", json!(user.UID));
    object.set("gid", json!(user.GID));
    object.list("additionalGids", user.AdditionalGids.iter().map(|gid| json!(gid)));
    object.text("username", &user.Username);
    object.value()
}

/// Peers spell a capability `CAP_X`, `X`, or as a JSON string with its quotes. A name this guest does not know is
/// left out, since a capability nobody can have is none that could be granted.
fn capabilities_value(capabilities: &wire::LinuxCapabilities) -> Value {
    let known = |names: &[String]| -> Value {
        let canonical = names.iter().map(|name| {
            let name = name.trim_matches('"').to_ascii_uppercase();
            json!(if name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
        });
        canonical.filter(|name| serde_json::from_value::<oci::Capability>(name.clone()).is_ok()).collect()
    };
    json!({
        "bounding": known(&capabilities.Bounding),
        "effective": known(&capabilities.Effective),
        "inheritable": known(&capabilities.Inheritable),
        "permitted": known(&capabilities.Permitted),
        "ambient": known(&capabilities.Ambient),
    })
}

fn mount(mount: &wire::Mount) -> Value {
    let mut object = Object::default();
    object.set("destination", json!(mount.destination));
    object.text("source", &mount.source);
    object.text("type", &mount.type_);
    object.list_of_strings("options", &mount.options);
    object.value()
}

fn linux_value(linux: &wire::Linux) -> Value {
    let mut object = Object::default();
    object.list("uidMappings", linux.UIDMappings.iter().map(id_mapping));
    object.list("gidMappings", linux.GIDMappings.iter().map(id_mapping));
    if !linux.Sysctl.is_empty() {
        object.set("sysctl", json!(linux.Sysctl));
    }
    if let Some(resources) = linux.Resources.as_ref() {
        object.set("resources", resources_value(resources));
    }
    object.text("cgroupsPath", &linux.CgroupsPath);
    object.list("namespaces", linux.Namespaces.iter().map(namespace));
    object.list("devices", linux.Devices.iter().map(device));
    object.text("rootfsPropagation", &linux.RootfsPropagation);
    object.list_of_strings("maskedPaths", &linux.MaskedPaths);
    object.list_of_strings("readonlyPaths", &linux.ReadonlyPaths);
    object.text("mountLabel", &linux.MountLabel);
    object.value()
}

fn id_mapping(mapping: &wire::LinuxIDMapping) -> Value {
    json!({ "containerID": mapping.ContainerID, "hostID": mapping.HostID, "size": mapping.Size })
}

/// Peers write the kernel's short names as well as the specification's.
fn namespace(namespace: &wire::LinuxNamespace) -> Value {
    let mut object = Object::default();
    object.set(
        "type",
        json!(match namespace.Type.as_str() {
            "mnt" => "mount",
            "net" => "network",
            other => other,
        }),
    );
    object.text("path", &namespace.Path);
    object.value()
}

fn device(device: &wire::LinuxDevice) -> Value {
    let mut object = Object::default();
    object.set("path", json!(device.Path));
    object.set("type", json!(device.Type));
    object.set("major", json!(device.Major));
    object.set("minor", json!(device.Minor));
    object.number("fileMode", device.FileMode);
    object.set("uid", json!(device.UID));
    object.set("gid", json!(device.GID));
    object.value()
}

fn resources_value(resources: &wire::LinuxResources) -> Value {
    let mut object = Object::default();
    if let Some(memory) = resources.Memory.as_ref() {
        object.set("memory", memory_value(memory));
    }
    if let Some(cpu) = resources.CPU.as_ref() {
        object.set("cpu", cpu_value(cpu));
    }
    // A limit of 0 tasks would be a container that cannot run: not given.
    if let Some(pids) = resources.Pids.as_ref().filter(|pids| pids.Limit != 0) {
        object.set("pids", json!({ "limit": pids.Limit }));
    }
    object.value()
}

fn memory_value(memory: &wire::LinuxMemory) -> Value {
    let mut object = Object::default();
    object.number("limit", memory.Limit);
    object.number("reservation", memory.Reservation);
    object.number("swap", memory.Swap);
    object.value()
}

fn cpu_value(cpu: &wire::LinuxCPU) -> Value {
    let mut object = Object::default();
    object.number("shares", cpu.Shares);
    object.number("quota", cpu.Quota);
    object.number("period", cpu.Period);
    object.text("cpus", &cpu.Cpus);
    object.text("mems", &cpu.Mems);
    object.value()
}

#[cfg(test)]
mod tests;
