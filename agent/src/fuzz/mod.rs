//! What fuzz targets call: bytes from a stranger go in, and a broken promise comes out as a panic.
//!
//! Each function of [`TARGETS`] reads one kind of text or message with the code that the agent itself reads it with, and
//! then checks what the rest of the agent relies on. `agent/fuzz` has a program for each; its `seeds/` are also run by
//! the unit tests here, with any toolchain.

mod files;
mod frames;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

use std::path::{Component, Path, PathBuf};

use agent_api::agent::{CreateContainerRequest, ExecProcessRequest};
use jail::plan::MountOptions;
use jail::{Context, PidNamespace, Plan};
use protobuf::Message as _;

use crate::config::{Resolved, Sources};
use crate::devices::{self, Address};
use crate::{extensions, spec};

pub use files::copy_file;
pub use frames::{frames, messages};

/// A target: what `agent/fuzz` calls its program and its seeds, and what that runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("command_line", command_line),
    ("config_file", config_file),
    ("copy_file", copy_file),
    ("frames", frames),
    ("messages", messages),
    ("mount_options", mount_options),
    ("oci_spec", oci_spec),
    ("pci_paths", pci_paths),
    ("systemd", systemd),
    ("uevents", uevents),
];

/// The kernel command line. What it says of the agent can be printed as a file that says the same, and each warning is one line.
pub fn command_line(bytes: &[u8]) {
    let cmdline = String::from_utf8_lossy(bytes).into_owned();
    if cmdline.contains("agent.config_file") {
        return; // That file would be one of the machine that fuzzes.
    }
    if let Err(error) = extensions::named(&cmdline) {
        assert!(error.to_string().starts_with("extension "), "{error}");
    }
    let Ok(resolved) = Resolved::from(Sources { cmdline, ..Sources::default() }) else { return };
    for warning in &resolved.warnings {
        let said = warning.to_string();
        assert!(!said.contains('\n'), "a line of the log holds another: {said:?}");
    }
    is_printable(&resolved);
}

/// A configuration file, with the same promise.
pub fn config_file(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match Resolved::from_text(text) {
        Ok(resolved) => is_printable(&resolved),
        Err(error) => assert!(error.to_string().starts_with("configuration: "), "{error}"),
    }
}

fn is_printable(resolved: &Resolved) {
    let printed = resolved.to_string();
    let again = Resolved::from_text(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    assert_eq!(again.config, resolved.config, "{printed}");
    assert!(again.warnings.is_empty(), "{:?}: {printed}", again.warnings);
}

/// A mount's option list, comma by comma. Words are flags or data, and none of them is both or lost.
pub fn mount_options(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<_> = text.split(',').map(str::to_string).collect();
    let Ok(options) = MountOptions::read(&words) else { return };
    assert!(options.data.iter().all(|data| words.contains(data)), "data nobody gave: {options:?}");
    // The kernel refuses an attribute that is to be set and cleared at once, but for the field of access times.
    const ATIME: u64 = 0x70;
    assert_eq!(options.set & options.clear & !ATIME, 0, "{options:?}");
    assert_eq!(options.set_below & options.clear_below & !ATIME, 0, "{options:?}");
    assert!(options.bind || !options.recursive, "{options:?}");
    let (_, data) = options.for_mount();
    assert!(!data.contains('\0'), "mount(2) would cut {data:?}");
}

/// The addresses of devices, "driver source" a line: PCI paths and the other forms. One that is read is written as one
/// that means the same.
pub fn pci_paths(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        let (driver, source) = line.split_once(' ').unwrap_or(("blk", line));
        match Address::of(driver, source) {
            Ok(Address::Pci(path)) => {
                let written = path.to_string();
                assert_eq!(Address::of("blk", &written), Ok(Address::Pci(path)), "{written}");
            }
            Ok(Address::Node(path) | Address::Pmem(path)) => {
                assert!(is_plain(&path) && path.starts_with("/dev") && path != Path::new("/dev"), "{path:?}");
            }
            Ok(Address::Ccw(device)) => assert!(device.is_ascii() && device.len() == 8, "{device:?}"),
            Ok(Address::Scsi { id, lun }) => {
                assert_eq!(Address::of("scsi", &format!("{id}:{lun}")), Ok(Address::Scsi { id, lun }));
            }
            Err(error) => assert!(error.to_string().len() < 1024, "an error as long as its cause: {error}"),
        }
    }
}

/// A message of the kernel's about a device. Its path goes below `/sys`, and to no other place.
pub fn uevents(bytes: &[u8]) {
    let Ok(event) = devices::parse_uevent(bytes) else { return };
    assert!(!event.action.is_empty(), "{event:?}");
    let parts = [event.action, event.devpath, event.subsystem, event.devname];
    assert!(parts.iter().all(|part| !part.contains('\0')), "{event:?}");
    assert!(is_plain(Path::new(event.devpath)), "{event:?}");
}

/// A message of systemd's. What is taken out of it is in it, and no longer.
pub fn systemd(bytes: &[u8]) {
    jail::cgroup::systemd::fuzz(bytes);
}

/// A container from its request's bytes: wire, OCI spec, plan, and the plan as its child reads it. Then a further process
/// of that container, from the same bytes.
pub fn oci_spec(bytes: &[u8]) {
    let Ok(request) = CreateContainerRequest::parse_from_bytes(bytes) else { return };
    let Some(wire) = request.OCI.as_ref() else { return };
    let Ok(spec) = spec::container(wire) else { return };
    let Ok(plan) = jail::plan::container(&spec, &context()) else { return };
    is_sound(&plan);
    let exec = ExecProcessRequest::parse_from_bytes(bytes).ok();
    let processes = exec.iter().filter_map(|exec| exec.process.as_ref()).chain(wire.Process.as_ref());
    for process in processes {
        let Ok(process) = spec::process(process) else { continue };
        if let Ok(exec) = jail::plan::exec(&process, &plan) {
            is_sound(&exec);
            assert!(exec.is_exec() && exec.cgroup == plan.cgroup);
        }
    }
}

/// What the steps of the jail take for granted.
fn is_sound(plan: &Plan) {
    let sent = serde_json::to_vec(plan).expect("a plan can be sent");
    assert_eq!(&serde_json::from_slice::<Plan>(&sent).expect("and received"), plan);
    assert!(!plan.process.args.is_empty(), "nothing to execute");
    let texts = plan.process.args.iter().chain(&plan.process.env);
    assert!(texts.clone().all(|text| !text.contains('\0')), "execve(2) would cut one of {plan:?}");
    let Some(container) = &plan.container else { return };
    let mounts = container.mounts.iter().map(|mount| &mount.destination);
    let covered = container.masked_paths.iter().chain(&container.readonly_paths);
    for path in mounts.chain(covered).chain(container.devices.iter().map(|device| &device.path)) {
        assert!(is_plain(path), "{path:?} may lead anywhere");
    }
}

/// Absolute, without `..`, and in one piece for the kernel.
fn is_plain(path: &Path) -> bool {
    let one_piece = !path.as_os_str().as_encoded_bytes().contains(&0);
    path.is_absolute() && one_piece && !path.components().any(|part| part == Component::ParentDir)
}

/// Where containers of a VM go.
fn context() -> Context {
    Context {
        id: "fuzz".to_string(),
        bundle: PathBuf::from("/run/kata-containers/fuzz"),
        ipc: Some(PathBuf::from("/run/sandbox-ns/ipc")),
        uts: Some(PathBuf::from("/run/sandbox-ns/uts")),
        pid: PidNamespace::New,
        root_is_ramfs: true,
        cgroup: Some(PathBuf::from("/sys/fs/cgroup/fuzz")),
        ..Context::default()
    }
}
