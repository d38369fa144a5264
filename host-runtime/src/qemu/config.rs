//! From what a VM shall be to QEMU's command line: a plain function from values to values.

use std::path::{Path, PathBuf};

use agent_api::{paths, ports};

use super::{Accel, boot::Boot};
use crate::artefacts::Extension;
use crate::size::Memory;
use crate::sys::FIRST_PASSED_FD;

/// Id of the device behind the agent's serial port, as `VSERPORT_CHANGE` names it.
pub(crate) const AGENT_PORT_ID: &str = "agent";

/// The descriptors QEMU is started with, in this order.
pub(crate) const PASSED: [&str; 3] = ["qmp", "console", "agent"];

/// What QEMU shall be.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Machine type with its options.
    pub(crate) machine: String,
    /// What virtio devices plug into: `pci` or `ccw`.
    pub(crate) bus: &'static str,
    /// The device that is the guest's console.
    pub(crate) console: &'static str,
    pub(crate) accel: Accel,
    /// The processor that is emulated where there is no accelerator.
    pub(crate) emulated_cpu: &'static str,
    pub(crate) memory: Memory,
    pub(crate) cpus: u32,
    pub(crate) boot: Boot,
    /// Disks behind the root's.
    pub(crate) extensions: Vec<Extension>,
    pub(crate) share: Option<Share>,
    /// Socket of vhost-device-vsock.
    pub(crate) vsock: Option<PathBuf>,
    /// Arguments of the caller's own, after all others.
    pub(crate) extra: Vec<String>,
}

/// The device behind the shared directory.
#[derive(Clone, Debug)]
pub(crate) enum Share {
    /// virtio-fs: the daemon's socket.
    Virtiofs(PathBuf),
    /// 9p: the directory, and whether we are root and may keep owners.
    NineP { dir: PathBuf, root: bool },
}

impl Config {
    /// The arguments after the program's name.
    pub(crate) fn argv(&self) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |key: &str, value: String| args.extend([key.to_string(), value]);
        let mib = self.memory.mib();

        let machine = self.machine.clone() + self.boot.machine();
        if self.memory_is_shared() {
            add("-object", format!("memory-backend-memfd,id=ram,size={mib}M,share=on"));
            add("-machine", format!("{machine},memory-backend=ram"));
        } else {
            add("-machine", machine);
        }
        let (accel, cpu) = match self.accel {
            Accel::Kvm => ("kvm", "host"),
            // One thread for all: with one each, a boot in 150 died of a translated block that another processor was
            // patching (QEMU 7.2), and emulated processors on threads of their own were slower besides.
            Accel::Tcg if self.cpus > 1 => ("tcg,thread=single", self.emulated_cpu),
            Accel::Tcg => ("tcg,thread=multi", self.emulated_cpu),
        };
        add("-accel", accel.into());
        add("-cpu", cpu.into());
        add("-smp", self.cpus.to_string());
        add("-m", format!("{mib}M{}", self.boot.memory(mib)));
        args.extend(self.boot.argv(self.bus));

        let mut add = |key: &str, value: String| args.extend([key.to_string(), value]);
        let bus = self.bus;
        for Extension { name, image, .. } in &self.extensions {
            let id = format!("extension-{name}");
            add("-drive", format!("if=none,id={id},format=raw,readonly=on,file={}", value(image)));
            add("-device", format!("virtio-blk-{bus},drive={id},serial={id}"));
        }
        for (at, name) in PASSED.iter().enumerate() {
            add("-chardev", format!("socket,id={name},fd={}", FIRST_PASSED_FD + at as i32));
        }
        add("-mon", "chardev=qmp,mode=control".into());
        add("-device", format!("virtio-serial-{bus},max_ports=4"));
        add("-device", format!("{},chardev=console", self.console));
        add(
            "-device",
            format!("virtserialport,chardev=agent,id={AGENT_PORT_ID},name={}", ports::SERIAL_NAME),
        );
        add("-device", format!("virtio-rng-{bus}"));

        let tag = paths::SHARE_TAG;
        match &self.share {
            Some(Share::Virtiofs(socket)) => {
                add("-chardev", format!("socket,id=share,path={}", value(socket)));
                add("-device", format!("vhost-user-fs-{bus},chardev=share,tag={tag}"));
            }
            Some(Share::NineP { dir, root }) => {
                let model = if *root { "passthrough" } else { "none" };
                add(
                    "-fsdev",
                    format!("local,id=share,path={},security_model={model},multidevs=remap", value(dir)),
                );
                add("-device", format!("virtio-9p-{bus},fsdev=share,mount_tag={tag}"));
            }
            None => {}
        }
        if let Some(socket) = &self.vsock {
            add("-chardev", format!("socket,id=vsock,path={}", value(socket)));
            add("-device", format!("vhost-user-vsock-{bus},chardev=vsock"));
        }
        args.extend(
            ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-msg", "timestamp=off"]
                .map(String::from),
        );
        args.extend_from_slice(&self.extra);
        args
    }

    /// vhost-user daemons map the guest's memory.
    fn memory_is_shared(&self) -> bool {
        self.vsock.is_some() || matches!(self.share, Some(Share::Virtiofs(_)))
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A path inside a comma-separated option.
pub(crate) fn value(path: &Path) -> String {
    text(path).replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::super::boot::Root;
    use super::*;

    fn config() -> Config {
        Config {
            machine: "q35".into(),
            bus: "pci",
            console: "virtconsole",
            accel: Accel::Tcg,
            emulated_cpu: "max",
            memory: Memory::from_mib(256).unwrap(),
            cpus: 2,
            boot: Boot::Kernel {
                kernel: "/k".into(),
                cmdline: "console=hvc0 quiet".into(),
                root: Root::Ramdisk("/i".into()),
                firmware: Some("/fw".into()),
            },
            extensions: Vec::new(),
            share: None,
            vsock: None,
            extra: Vec::new(),
        }
    }

    #[test]
    fn the_callers_arguments_come_last() {
        let extra = ["-device".to_string(), "virtio-net-pci".to_string()];
        let argv = Config { extra: extra.to_vec(), ..config() }.argv();
        assert!(argv.ends_with(&extra));
    }

    #[test]
    fn an_extension_is_found_by_its_serial_number() {
        let extension = Extension { name: "x".into(), image: "/a,b".into(), cmdline: String::new() };
        let argv = Config { extensions: vec![extension], ..config() }.argv();
        assert!(values(&argv, "-device").contains(&"virtio-blk-pci,drive=extension-x,serial=extension-x"));
        let drive = "if=none,id=extension-x,format=raw,readonly=on,file=/a,,b";
        assert_eq!(values(&argv, "-drive"), [drive]);
    }

    #[test]
    fn other_machines_keep_their_name() {
        let argv = Config { machine: "s390-ccw-virtio".into(), bus: "ccw", ..config() }.argv();
        assert_eq!(values(&argv, "-machine"), ["s390-ccw-virtio"]);
        assert!(values(&argv, "-device").contains(&"virtio-serial-ccw,max_ports=4"));
    }

    fn values<'a>(argv: &'a [String], key: &str) -> Vec<&'a str> {
        argv.windows(2).filter(|pair| pair[0] == key).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn a_plain_vm_has_private_memory_and_the_three_channels() {
        let argv = config().argv();
        assert_eq!(values(&argv, "-machine"), ["q35"]);
        assert_eq!(values(&argv, "-accel"), ["tcg,thread=single"]);
        assert_eq!(values(&argv, "-m"), ["256M"]);
        assert_eq!(values(&argv, "-append"), ["console=hvc0 quiet"]);
        assert_eq!((values(&argv, "-initrd"), values(&argv, "-bios")), (vec!["/i"], vec!["/fw"]));
        assert_eq!(
            values(&argv, "-chardev"),
            ["socket,id=qmp,fd=10", "socket,id=console,fd=11", "socket,id=agent,fd=12"]
        );
        assert!(values(&argv, "-device").contains(&"virtserialport,chardev=agent,id=agent,name=husk.agent"));
        assert!(values(&argv, "-object").is_empty());
        assert!(argv.contains(&"-nodefaults".to_string()));
    }

    #[test]
    fn virtiofs_shares_the_memory() {
        let argv = Config { share: Some(Share::Virtiofs("/s/fs.sock".into())), ..config() }.argv();
        assert_eq!(values(&argv, "-object"), ["memory-backend-memfd,id=ram,size=256M,share=on"]);
        assert_eq!(values(&argv, "-machine"), ["q35,memory-backend=ram"]);
        assert!(values(&argv, "-device").contains(&"vhost-user-fs-pci,chardev=share,tag=kataShared"));
    }

    #[test]
    fn ninep_quotes_commas_and_keeps_owners_only_as_root() {
        let share = |root| Some(Share::NineP { dir: "/a,b".into(), root });
        let as_root = Config { share: share(true), ..config() }.argv();
        let fsdev = "local,id=share,path=/a,,b,security_model=passthrough,multidevs=remap";
        assert_eq!(values(&as_root, "-fsdev"), [fsdev]);
        let as_user = Config { share: share(false), ..config() }.argv();
        assert!(values(&as_user, "-fsdev")[0].contains("security_model=none"));
        assert!(values(&as_user, "-object").is_empty());
    }

    #[test]
    fn vsock_adds_its_device_and_shares_the_memory() {
        let argv = Config { vsock: Some("/v".into()), accel: Accel::Kvm, ..config() }.argv();
        assert!(values(&argv, "-device").contains(&"vhost-user-vsock-pci,chardev=vsock"));
        assert_eq!(values(&argv, "-object").len(), 1);
        assert_eq!(values(&argv, "-cpu"), ["host"]);
    }
}
