//! The edits of a CDI device, made in a container's spec.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use jail::oci;
use nix::sys::stat::{major, minor};

use super::document::{Edits, Moment, Node};
use crate::devices;

impl Edits {
    /// Makes them. An error leaves the spec half changed: the caller works on a copy.
    pub(super) fn apply(&self, spec: &mut oci::Spec) -> Result<(), String> {
        let (mut uid, mut gid) = (0, 0);
        if let Some(process) = spec.process_mut() {
            let env = process.env_mut().get_or_insert_default();
            self.env.iter().for_each(|variable| set_variable(env, variable));
            (uid, gid) = (process.user().uid(), process.user().gid());
            let groups = process.user_mut().additional_gids_mut().get_or_insert_default();
            for gid in self.gids.iter().filter(|gid| **gid != 0) {
                if !groups.contains(gid) {
                    groups.push(*gid);
                }
            }
        }
        if !self.nodes.is_empty() {
            let linux = spec.linux_mut().as_mut().ok_or("deviceNodes: the spec has no part for Linux")?;
            for node in &self.nodes {
                let mut entry = entry(node)?;
                // A user that is not root shall be able to use what it asked for.
                entry.set_uid(node.uid.or(Some(uid))).set_gid(node.gid.or(Some(gid)));
                devices::expose(linux, entry, &node.access);
            }
        }
        if !self.mounts.is_empty() {
            let mounts = spec.mounts_mut().get_or_insert_default();
            for mount in &self.mounts {
                mounts.retain(|known| known.destination() != mount.destination());
                mounts.push(mount.clone());
            }
            // What is mounted above comes before what is mounted below.
            mounts.sort_by_key(|mount| mount.destination().components().count());
        }
        for (moment, hook) in &self.hooks {
            let hooks = spec.hooks_mut().get_or_insert_default();
            hooks_of(hooks, *moment).get_or_insert_default().push(hook.clone());
        }
        Ok(())
    }
}

/// Sets a variable, instead of one of that name.
fn set_variable(env: &mut Vec<String>, variable: &str) {
    let name = |variable: &str| variable.split('=').next().map(str::to_string);
    env.retain(|known| name(known) != name(variable));
    env.push(variable.to_string());
}

fn entry(node: &Node) -> Result<oci::LinuxDevice, String> {
    let mut entry = oci::LinuxDevice::default();
    entry.set_path(node.path.clone().into()).set_file_mode(node.mode);
    let (typ, major, minor) = match node.numbers {
        Some(numbers) => numbers,
        None => {
            let found = std::fs::metadata(&node.guest_path)
                .map_err(|error| format!("device node {}: {error}", node.guest_path))?;
            let typ = match found.file_type() {
                kind if kind.is_block_device() => oci::LinuxDeviceType::B,
                kind if kind.is_char_device() => oci::LinuxDeviceType::C,
                kind if kind.is_fifo() => oci::LinuxDeviceType::P,
                _ => return Err(format!("device node {}: it is none", node.guest_path)),
            };
            if node.mode.is_none() {
                entry.set_file_mode(Some(found.mode() & 0o777));
            }
            (typ, major(found.rdev()) as i64, minor(found.rdev()) as i64)
        }
    };
    entry.set_typ(typ).set_major(major).set_minor(minor);
    Ok(entry)
}

#[allow(deprecated)] // `prestart` is, and is still what some vendors write
fn hooks_of(hooks: &mut oci::Hooks, moment: Moment) -> &mut Option<Vec<oci::Hook>> {
    match moment {
        Moment::Prestart => hooks.prestart_mut(),
        Moment::CreateRuntime => hooks.create_runtime_mut(),
        Moment::CreateContainer => hooks.create_container_mut(),
        Moment::StartContainer => hooks.start_container_mut(),
        Moment::Poststart => hooks.poststart_mut(),
        Moment::Poststop => hooks.poststop_mut(),
    }
}
