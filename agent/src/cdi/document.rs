//! A CDI file, read into values. Each complaint names the field: `devices[0].containerEdits.mounts[1].hostPath`.
//!
//! By hand rather than through serde's derive, which would cost the agent more than this module.

use jail::oci;
use serde_json::Value;

use super::Name;

/// A file.
#[derive(Debug)]
pub(super) struct Document {
    /// `vendor.com/class`
    kind: String,
    devices: Vec<(String, Edits)>,
    /// What any of its devices brings along.
    pub(super) edits: Edits,
}

/// What is to change in a container's spec.
#[derive(Debug, Default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) mounts: Vec<oci::Mount>,
    /// By the hook's moment.
    pub(super) hooks: Vec<(Moment, oci::Hook)>,
    pub(super) gids: Vec<u32>,
}

/// A device node. What is not said is taken from the node in the guest.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) guest_path: String,
    pub(super) numbers: Option<(oci::LinuxDeviceType, i64, i64)>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) access: String,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Document {
    pub(super) fn of(value: &Value) -> Result<Self, String> {
        let document = At { value, path: String::new() };
        let version = document.required("cdiVersion")?.text()?;
        if !version.starts_with("0.") && !version.starts_with("1.") {
            return Err(format!("cdiVersion: {version:.32?} is not known"));
        }
        let kind = document.required("kind")?.text()?;
        if kind.split('/').filter(|part| !part.is_empty()).count() != 2 {
            return Err(format!("kind: {kind:.128?} is not of the form vendor/class"));
        }
        let mut devices: Vec<(String, Edits)> = Vec::new();
        for device in document.list("devices")? {
            let name = device.required("name")?;
            let text = name.text()?;
            if devices.iter().any(|(other, _)| *other == text) {
                return Err(format!("{}: {text:.128?} is there twice", name.path));
            }
            devices.push((text, edits(&device)?));
        }
        Ok(Self { kind, devices, edits: edits(&document)? })
    }

    /// What a device of this name brings, if it is in this file.
    pub(super) fn device(&self, name: &Name) -> Option<&Edits> {
        let mut devices = self.devices.iter().filter(|_| self.kind == name.kind);
        devices.find(|(device, _)| *device == name.device).map(|(_, edits)| edits)
    }
}

fn edits(owner: &At<'_>) -> Result<Edits, String> {
    let Some(edits) = owner.get("containerEdits") else { return Ok(Edits::default()) };
    for unsupported in ["intelRdt", "netDevices"] {
        if let Some(field) = edits.get(unsupported) {
            return Err(format!("{}: not supported", field.path));
        }
    }
    let env = edits.texts("env")?;
    if let Some(at) = env.iter().position(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        return Err(format!("{}.env[{at}]: not of the form NAME=value", edits.path));
    }
    Ok(Edits {
        env,
        nodes: edits.list("deviceNodes")?.iter().map(node).collect::<Result<_, _>>()?,
        mounts: edits.list("mounts")?.iter().map(mount).collect::<Result<_, _>>()?,
        hooks: edits.list("hooks")?.iter().map(hook).collect::<Result<_, _>>()?,
        gids: edits.list("additionalGids")?.iter().map(At::number).collect::<Result<_, _>>()?,
    })
}

fn node(at: &At<'_>) -> Result<Node, String> {
    let path = at.required("path")?.absolute()?;
    let guest_path = at.get("hostPath").map(|field| field.absolute()).transpose()?;
    let major = at.optional::<u32>("major")?.unwrap_or(0);
    let minor = at.optional::<u32>("minor")?.unwrap_or(0);
    let typ = match at.get("type").map(|field| field.text().map(|text| (field, text))).transpose()? {
        None => None,
        Some((field, text)) => Some(match text.as_str() {
            "b" => oci::LinuxDeviceType::B,
            "c" | "u" => oci::LinuxDeviceType::C,
            "p" => oci::LinuxDeviceType::P,
            _ => return Err(format!("{}: {text:.32?} is not b, c, u or p", field.path)),
        }),
    };
    // Without a major number, which no device has as 0, the guest's node is asked.
    let known = typ.filter(|typ| *typ == oci::LinuxDeviceType::P || major != 0);
    let access = at.get("permissions").map(|field| field.text().map(|text| (field, text))).transpose()?;
    if let Some((field, text)) = &access
        && (text.is_empty() || !text.chars().all(|char| "rwm".contains(char)))
    {
        return Err(format!("{}: {text:.32?} is not of r, w and m", field.path));
    }
    Ok(Node {
        guest_path: guest_path.unwrap_or_else(|| path.clone()),
        path,
        numbers: known.map(|typ| (typ, major.into(), minor.into())),
        mode: at.optional("fileMode")?,
        uid: at.optional("uid")?,
        gid: at.optional("gid")?,
        access: access.map_or_else(|| "rwm".to_string(), |(_, text)| text),
    })
}

fn mount(at: &At<'_>) -> Result<oci::Mount, String> {
    let mut out = oci::Mount::default();
    let typ = at.get("type").map(|field| field.text()).transpose()?;
    let mut options = at.texts("options")?;
    let source = at.required("hostPath")?.text()?;
    // A source on the guest and nothing else said is to be seen in the container.
    if typ.is_none() && !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.push("bind".to_string());
    }
    out.set_source(Some(source.into())).set_destination(at.required("containerPath")?.absolute()?.into());
    out.set_typ(typ).set_options(Some(options));
    Ok(out)
}

fn hook(at: &At<'_>) -> Result<(Moment, oci::Hook), String> {
    let name = at.required("hookName")?;
    let moment = match name.text()?.as_str() {
        "prestart" => Moment::Prestart,
        "createRuntime" => Moment::CreateRuntime,
        "createContainer" => Moment::CreateContainer,
        "startContainer" => Moment::StartContainer,
        "poststart" => Moment::Poststart,
        "poststop" => Moment::Poststop,
        other => return Err(format!("{}: {other:.64?} is not a hook", name.path)),
    };
    let mut hook = oci::Hook::default();
    let given = |list: Vec<String>| (!list.is_empty()).then_some(list);
    hook.set_path(at.required("path")?.absolute()?.into());
    hook.set_args(given(at.texts("args")?)).set_env(given(at.texts("env")?));
    hook.set_timeout(at.optional("timeout")?);
    Ok((moment, hook))
}

/// A value, and where in the file it is.
struct At<'v> {
    value: &'v Value,
    path: String,
}

impl<'v> At<'v> {
    /// A field. One that is null counts as absent.
    fn get(&self, key: &str) -> Option<At<'v>> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(At { value, path: format!("{}{dot}{key}", self.path) })
    }

    fn required(&self, key: &str) -> Result<At<'v>, String> {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.get(key).ok_or_else(|| format!("{}{dot}{key}: it is missing", self.path))
    }

    fn optional<N: TryFrom<i64>>(&self, key: &str) -> Result<Option<N>, String> {
        self.get(key).map(|field| field.number()).transpose()
    }

    fn list(&self, key: &str) -> Result<Vec<At<'v>>, String> {
        let Some(At { value, path }) = self.get(key) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| format!("{path}: not a list"))?;
        let item = |(at, value)| At { value, path: format!("{path}[{at}]") };
        Ok(items.iter().enumerate().map(item).collect())
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, String> {
        self.list(key)?.iter().map(At::text).collect()
    }

    /// A text without null bytes. YAML takes a name that is a number for a number.
    fn text(&self) -> Result<String, String> {
        match self.value {
            Value::String(text) if !text.contains('\0') => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(format!("{}: not a text", self.path)),
        }
    }

    fn number<N: TryFrom<i64>>(&self) -> Result<N, String> {
        let number = self.value.as_i64().and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| format!("{}: not a number in range", self.path))
    }

    fn absolute(&self) -> Result<String, String> {
        let text = self.text()?;
        let plain = text.starts_with('/') && text.split('/').all(|part| part != "..");
        plain.then_some(text).ok_or_else(|| format!("{}: not an absolute path without '..'", self.path))
    }
}
