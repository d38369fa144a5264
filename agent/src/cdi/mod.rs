//! Container Device Interface: devices that a container asks for by name, and that files in the guest describe
//! (<https://github.com/cncf-tags/container-device-interface>).
//!
//! A name, `vendor.com/class=device`, comes in an annotation `cdi.k8s.io/*`, or in the container's environment where
//! the configuration allows that. A file says what is to change in the spec of a container that has the device. Drivers
//! in the guest write those files when they have found their hardware, so they are waited for.

mod document;
mod edit;
mod yaml;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jail::oci;
use tokio::time::Instant;

use crate::config::Config;
use document::Document;

/// Where the files are.
const DIRECTORY: &str = "/var/run/cdi";

/// How often they are read while something is missing.
const INTERVAL: Duration = Duration::from_millis(250);

/// More than any vendor's description of a machine's devices.
const MAX_SIZE: u64 = 4 << 20;

const ANNOTATION: &str = "cdi.k8s.io/";
const VARIABLE: &str = "VISIBLE_CDI_DEVICES";

/// Annotation of the kind of a container, and the kind that holds a pod together and runs nothing.
const CONTAINER_TYPE: (&str, &str) = ("io.katacontainers.pkg.oci.container_type", "pod_sandbox");

/// A device that a container asked for is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("CDI: {origin}: {name:.128?} is not of the form vendor/class=device")]
    Name { origin: String, name: String },
    #[error("CDI: {problem} (waited {} s for {DIRECTORY})", .waited.as_secs())]
    Late { problem: String, waited: Duration },
}

/// The name of a device, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    /// `vendor.com/class`
    kind: String,
    device: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (kind, device) = text.split_once('=')?;
        let (vendor, class) = kind.split_once('/')?;
        let word = |text: &str, more: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.chars().all(|char| char.is_ascii_alphanumeric() || more.contains(char))
        };
        let well_formed = word(vendor, "_-.") && word(class, "_-.") && word(device, "_-.:");
        well_formed.then(|| Self { kind: kind.to_string(), device: device.to_string() })
    }
}

/// Changes a container's spec as the devices it asks for demand; waits until all of them are described.
pub(crate) async fn inject(spec: &mut oci::Spec, config: &Config) -> Result<(), Error> {
    inject_from(Path::new(DIRECTORY), spec, config).await
}

async fn inject_from(directory: &Path, spec: &mut oci::Spec, config: &Config) -> Result<(), Error> {
    let names = asked_for(spec, config.visible_cdi_devices)?;
    if names.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        match changed(directory, &names, spec) {
            Ok(changed) => {
                *spec = changed;
                return Ok(());
            }
            Err(problem) if begun.elapsed() >= config.cdi_timeout => {
                return Err(Error::Late { problem, waited: config.cdi_timeout });
            }
            Err(problem) => tracing::debug!(problem, "waiting for a CDI device"),
        }
        tokio::time::sleep(INTERVAL.min(config.cdi_timeout)).await;
    }
}

/// The devices that a spec names, in order, each once.
fn asked_for(spec: &oci::Spec, from_environment: bool) -> Result<Vec<Name>, Error> {
    let annotations = spec.annotations().as_ref();
    let annotation = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
    if annotation(CONTAINER_TYPE.0) == Some(CONTAINER_TYPE.1) {
        return Ok(Vec::new());
    }
    let mut lists: Vec<(String, &str)> = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .map(|(key, value)| (format!("annotation {key:.128}"), value.as_str()))
        .collect();
    lists.sort_unstable();
    let env = spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
    if from_environment {
        let values = env.iter().filter_map(|variable| variable.split_once('='));
        let values = values.filter(|(name, _)| *name == VARIABLE);
        lists.extend(values.map(|(_, value)| (format!("variable {VARIABLE}"), value)));
    }
    let mut names: Vec<Name> = Vec::new();
    for (origin, list) in lists {
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let name = Name::parse(text)
                .ok_or_else(|| Error::Name { origin: origin.clone(), name: text.to_string() })?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// The spec as it is with these devices, or what keeps it from that.
fn changed(directory: &Path, names: &[Name], spec: &oci::Spec) -> Result<oci::Spec, String> {
    let (documents, unreadable) = read_all(directory);
    let mut spec = spec.clone();
    let mut begun = BTreeSet::new();
    for name in names {
        let has_it = |document: &&(String, Document)| document.1.device(name).is_some();
        let mut found = documents.iter().filter(has_it);
        let Some((file, document)) = found.next() else {
            let also =
                if unreadable.is_empty() { String::new() } else { format!("; {}", unreadable.join("; ")) };
            return Err(format!("{name}: no file describes it{also}"));
        };
        if let Some((other, _)) = found.next() {
            return Err(format!("{name}: both {file} and {other} describe it"));
        }
        let in_file = |error: String| format!("{name}: {file}: {error}");
        // What is common to all devices of a file counts once.
        if begun.insert(file) {
            document.edits.apply(&mut spec).map_err(in_file)?;
        }
        if let Some(edits) = document.device(name) {
            edits.apply(&mut spec).map_err(in_file)?;
        }
    }
    Ok(spec)
}

/// Every description in a directory with its file's name, and what is wrong with the others.
fn read_all(directory: &Path) -> (Vec<(String, Document)>, Vec<String>) {
    let mut files: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().collect();
    files.sort_unstable_by_key(std::fs::DirEntry::file_name);
    let (mut documents, mut unreadable) = (Vec::new(), Vec::new());
    for file in files {
        let (name, path) = (file.file_name().to_string_lossy().into_owned(), file.path());
        let read: fn(&str) -> Result<serde_json::Value, String> =
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => |text| serde_json::from_str(text).map_err(|error| error.to_string()),
                Some("yaml" | "yml") => yaml::read,
                _ => continue,
            };
        let document = match std::fs::metadata(&path) {
            Ok(file) if !file.is_file() => Err("not a file".to_string()),
            Ok(file) if file.len() > MAX_SIZE => Err(format!("larger than {MAX_SIZE} bytes")),
            Ok(_) => std::fs::read_to_string(&path).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match document.and_then(|text| Document::of(&read(&text)?)) {
            Ok(document) => documents.push((name, document)),
            Err(error) => unreadable.push(format!("{name}: {error}")),
        }
    }
    (documents, unreadable)
}

#[cfg(test)]
mod tests;
