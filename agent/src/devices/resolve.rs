//! `CreateContainer.devices`: what the host calls its devices becomes what the guest calls them, in the spec.
//!
//! First every field is checked, then all devices are waited for at once, and only then is the spec changed, so that a
//! request that fails has changed nothing. All host numbers are replaced in one go: one device's new numbers may be
//! another's old ones.

use std::path::{Path, PathBuf};

use agent_api::agent::Device;
use futures::future::try_join_all;
use jail::oci;

use super::addresses::GuestAddresses;
use super::ap::Queue;
use super::pci::{PciAddress, PciPath};
use super::tree::Node;
use super::{Address, Devices, Error};

/// A device of a request, checked.
#[derive(Debug)]
struct Wanted {
    /// Its entry in the spec.
    container_path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Block(Address),
    /// Functions of one group, for a driver in the container.
    Vfio(Vec<Passed>),
    /// The same, for the guest's own drivers.
    Guest(Vec<Passed>),
    /// Queues of a crypto card.
    Ap(Vec<Queue>),
}

/// A PCI function of the host's that was passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) host: PciAddress,
    pub(super) guest: PciPath,
}

/// What became of it in the guest.
#[derive(Default)]
pub(super) struct Found {
    /// What stands behind its entry in the spec.
    pub(super) node: Option<Node>,
    /// Whether the entry takes the node's name too: a program finds a group by its number.
    pub(super) renamed: bool,
    /// Nodes that no entry stands for.
    pub(super) more: Vec<Node>,
    pub(super) addresses: GuestAddresses,
}

impl Devices {
    /// Waits for the devices of a container, and has its spec mean them. The PCI addresses that changed with the move
    /// into the guest are changed in its environment too, and returned for that of processes to come.
    pub(crate) async fn resolve(
        &self,
        devices: &[Device],
        spec: &mut oci::Spec,
    ) -> Result<GuestAddresses, Error> {
        if devices.is_empty() {
            return Ok(GuestAddresses::default());
        }
        let wanted = check(devices, spec)?;
        let found = try_join_all(wanted.iter().map(|device| self.find(device))).await?;
        let mut addresses = GuestAddresses::default();
        if let Some(linux) = spec.linux_mut() {
            let found = wanted.iter().map(|device| device.container_path.as_path()).zip(&found);
            patch(linux, &found.collect::<Vec<_>>());
        }
        found.into_iter().for_each(|found| addresses.extend(found.addresses));
        if let Some(env) = spec.process_mut().as_mut().and_then(|process| process.env_mut().as_mut()) {
            addresses.rewrite(env);
        }
        Ok(addresses)
    }

    async fn find(&self, device: &Wanted) -> Result<Found, Error> {
        match &device.kind {
            Kind::Block(address) => {
                Ok(Found { node: Some(self.block(address).await?), ..Default::default() })
            }
            Kind::Vfio(functions) => self.vfio_group(functions).await,
            Kind::Guest(functions) => self.guest_functions(functions).await,
            Kind::Ap(queues) => self.crypto_node(queues).await,
        }
    }
}

/// Everything that can be said about a request before any device is looked for.
fn check(devices: &[Device], spec: &oci::Spec) -> Result<Vec<Wanted>, Error> {
    let known = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (at, device) in devices.iter().enumerate() {
        let refused = |field, reason: String| Error::Refused { at, field, reason };
        let kind = kind(device).map_err(|(field, reason)| refused(field, reason))?;
        let container_path = PathBuf::from(&device.container_path);
        let quoted = brief(&device.container_path);
        if device.container_path.is_empty() {
            return Err(refused("container_path", "it is empty".into()));
        }
        // The guest's drivers make of it what they do; no node of the host's stood for it.
        if !matches!(kind, Kind::Guest(_)) && !known.iter().any(|known| *known.path() == container_path) {
            return Err(refused("container_path", format!("{quoted} is not in linux.devices of the spec")));
        }
        let is_same = |other: &Wanted| {
            other.container_path == container_path && !matches!((&other.kind, &kind), (Kind::Guest(_), _))
        };
        if wanted.iter().any(is_same) {
            return Err(refused("container_path", format!("{quoted} is another device's too")));
        }
        wanted.push(Wanted { container_path, kind });
    }
    Ok(wanted)
}

type Field = (&'static str, String);

/// The types of devices there are.
pub(crate) const TYPES: &[&str] =
    &["blk", "blk-ccw", "mmioblk", "nvdimm", "scsi", "vfio-ap", "vfio-ap-cold", "vfio-pci", "vfio-pci-gk"];

fn kind(device: &Device) -> Result<Kind, Field> {
    let block = |field, source: &str| {
        if source.is_empty() {
            return Err((field, "it is empty".to_string()));
        }
        Address::of(&device.type_, source).map(Kind::Block).map_err(|error| (field, error.to_string()))
    };
    let id_or_path = || if device.id.is_empty() { ("vm_path", &device.vm_path) } else { ("id", &device.id) };
    match device.type_.as_str() {
        "" => Err(("type", "it is empty".to_string())),
        _ if device.id.is_empty() && device.vm_path.is_empty() => {
            Err(("id", "it is empty, and so is vm_path".to_string()))
        }
        "blk" | "blk-ccw" | "scsi" => block(id_or_path().0, id_or_path().1),
        "mmioblk" | "nvdimm" => block("vm_path", &device.vm_path),
        "vfio-pci" => Ok(Kind::Vfio(options(&device.options, passed)?)),
        "vfio-pci-gk" => Ok(Kind::Guest(options(&device.options, passed)?)),
        "vfio-ap" | "vfio-ap-cold" => Ok(Kind::Ap(options(&device.options, |text| text.parse())?)),
        other => Err(("type", format!("{} is not one this agent knows", brief(other)))),
    }
}

/// What VFIO devices are made of stands in their options; there is at least one.
fn options<T, E: std::fmt::Display>(
    options: &[String],
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Field> {
    if options.is_empty() {
        return Err(("options", "there is none".to_string()));
    }
    options.iter().map(|text| read(text).map_err(|error| ("options", error.to_string()))).collect()
}

/// `DDDD:BB:DD.F=<guest PCI path>`
fn passed(text: &str) -> Result<Passed, String> {
    let (host, guest) = text
        .split_once('=')
        .ok_or_else(|| format!("{} is not of the form DDDD:BB:DD.F=<PCI path>", brief(text)))?;
    let host = host.parse().map_err(|error: super::BadPci| error.to_string())?;
    Ok(Passed { host, guest: guest.parse().map_err(|error: super::BadPci| error.to_string())? })
}

/// What an error repeats of a text that may have megabytes.
fn brief(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

fn patch(linux: &mut oci::Linux, found: &[(&Path, &Found)]) {
    // The host's numbers, as they stand in entries and rules, and the guest's.
    let mut moved: Vec<((oci::LinuxDeviceType, i64, i64), &Node)> = Vec::new();
    for entry in linux.devices_mut().iter_mut().flatten() {
        let behind = found.iter().filter(|(path, _)| entry.path() == path);
        let mut behind = behind.filter_map(|(_, found)| Some((found.node.as_ref()?, found.renamed)));
        let Some((node, renamed)) = behind.next() else { continue };
        moved.push(((entry.typ(), entry.major(), entry.minor()), node));
        entry.set_typ(type_of(node)).set_major(node.major.into()).set_minor(node.minor.into());
        if renamed {
            entry.set_path(node.path.clone());
        }
    }
    let rules = linux.resources_mut().get_or_insert_default().devices_mut().get_or_insert_default();
    for rule in rules.iter_mut() {
        let numbers = (rule.typ(), rule.major(), rule.minor());
        let guest =
            moved.iter().find(|((typ, major, minor), _)| numbers == (Some(*typ), Some(*major), Some(*minor)));
        if let Some((_, node)) = guest {
            rule.set_typ(Some(type_of(node)))
                .set_major(Some(node.major.into()))
                .set_minor(Some(node.minor.into()));
        }
    }
    for (_, node) in moved {
        allow(linux, type_of(node), node.major, node.minor, "rwm");
    }
    for node in found.iter().flat_map(|(_, found)| &found.more) {
        let mut entry = oci::LinuxDevice::default();
        entry.set_path(node.path.clone()).set_typ(type_of(node)).set_file_mode(Some(0o666));
        entry.set_major(node.major.into()).set_minor(node.minor.into());
        expose(linux, entry, "rwm");
    }
}

/// Puts a node into a container, instead of what the spec has at its path, and lets the container use it.
pub(crate) fn expose(linux: &mut oci::Linux, entry: oci::LinuxDevice, access: &str) {
    let (typ, major, minor) = (entry.typ(), entry.major() as u32, entry.minor() as u32);
    let entries = linux.devices_mut().get_or_insert_default();
    entries.retain(|known| known.path() != entry.path());
    entries.push(entry);
    if typ != oci::LinuxDeviceType::P {
        allow(linux, typ, major, minor, access);
    }
}

fn allow(linux: &mut oci::Linux, typ: oci::LinuxDeviceType, major: u32, minor: u32, access: &str) {
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(typ)).set_access(Some(access.to_string()));
    rule.set_major(Some(major.into())).set_minor(Some(minor.into()));
    let rules = linux.resources_mut().get_or_insert_default().devices_mut().get_or_insert_default();
    // Rules are applied in order: this one counts last, whatever stands before it.
    rules.retain(|known| *known != rule);
    rules.push(rule);
}

fn type_of(node: &Node) -> oci::LinuxDeviceType {
    if node.is_block { oci::LinuxDeviceType::B } else { oci::LinuxDeviceType::C }
}

#[cfg(test)]
mod tests;
