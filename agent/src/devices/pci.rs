//! PCI: the path by which a host names a device of its guest, and the address the guest knows it by.
//!
//! The host cannot know bus numbers, which the guest's firmware and kernel give out. It knows slots: `02/01` is slot 1
//! behind the bridge in slot 2 of the root bus. [`PciPath::resolve`] walks that way through sysfs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::tree::names;

/// The deepest path that is taken. Hierarchies of bridges have two or three levels.
const MAX_DEPTH: usize = 32;

/// A text that is not a PCI path or not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:.64?}: {reason}")]
pub(crate) struct BadPci {
    what: &'static str,
    text: String,
    reason: &'static str,
}

/// Slots from the root bus down to a device, in hexadecimal: `02`, `02/01`, `02/01.1`.
///
/// Of three elements and more, a first one that is no slot's number (20 and above) is that of the root bus that an
/// expander bridge (pxb) brings: `20/00/01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PciPath {
    root_bus: u8,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    device: u8,
    function: u8,
}

impl FromStr for PciPath {
    type Err = BadPci;

    fn from_str(text: &str) -> Result<Self, BadPci> {
        let bad = |reason| BadPci { what: "PCI path", text: brief(text), reason };
        let mut elements: Vec<&str> = text.split('/').take(MAX_DEPTH + 1).collect();
        if elements.len() > MAX_DEPTH {
            return Err(bad("it is too deep"));
        }
        let mut root_bus = 0;
        if elements.len() >= 3
            && let Some(bus @ 0x20..) = hex(elements[0], 2)
        {
            root_bus = bus as u8;
            elements.remove(0);
        }
        let slots = elements.into_iter().map(|element| {
            let (device, function) = element.split_once('.').unwrap_or((element, "0"));
            match (hex(device, 2), hex(function, 1)) {
                (Some(device @ ..0x20), Some(function @ ..8)) => {
                    Ok(Slot { device: device as u8, function: function as u8 })
                }
                _ => Err(bad("each element is a slot, 00 to 1f, and may have a function, .0 to .7")),
            }
        });
        Ok(Self { root_bus, slots: slots.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.root_bus != 0 {
            write!(f, "{:02x}/", self.root_bus)?;
        }
        for (at, Slot { device, function }) in self.slots.iter().enumerate() {
            let slash = if at > 0 { "/" } else { "" };
            write!(f, "{slash}{device:02x}")?;
            if *function > 0 {
                write!(f, ".{function}")?;
            }
        }
        Ok(())
    }
}

impl PciPath {
    /// The device's directory in the sysfs that is mounted at `sysfs`, if the device is there.
    pub(crate) fn resolve(&self, sysfs: &Path) -> Option<PathBuf> {
        let mut dir = root_complex(sysfs, self.root_bus)?;
        let mut bus = Some(format!("0000:{:02x}", self.root_bus));
        for Slot { device, function } in &self.slots {
            let place = format!("{device:02x}.{function}");
            dir = match bus {
                Some(bus) => dir.join(format!("{bus}:{place}")),
                // A bridge that does not tell its bus is known by what is behind it.
                None => names(&dir)
                    .into_iter()
                    .find(|child| child.parse::<PciAddress>().is_ok() && child.ends_with(&place))
                    .map(|child| dir.join(child))?,
            };
            if !dir.is_dir() {
                return None;
            }
            bus = names(&dir.join("pci_bus")).into_iter().next();
        }
        Some(dir)
    }
}

/// The directory of a root bus. Where a device tree describes the machine, the host bridge is a device of the platform's:
/// `4010000000.pcie` on Arm, `30000000.pci` below `soc` on RISC-V.
fn root_complex(sysfs: &Path, bus: u8) -> Option<PathBuf> {
    let name = format!("pci0000:{bus:02x}");
    let devices = sysfs.join("devices");
    let by_acpi = devices.join(&name);
    if by_acpi.is_dir() {
        return Some(by_acpi);
    }
    let is_bridge = |child: &String| child.ends_with(".pcie") || child.ends_with(".pci");
    let platforms = [devices.join("platform"), devices.join("platform/soc")];
    let mut bridges = platforms
        .iter()
        .flat_map(|platform| names(platform).into_iter().filter(is_bridge).map(|child| platform.join(child)));
    bridges.find_map(|bridge| Some(bridge.join(&name)).filter(|dir| dir.is_dir()))
}

/// Domain, bus, device and function, as `lspci -D` prints them: `0000:01:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl FromStr for PciAddress {
    type Err = BadPci;

    fn from_str(text: &str) -> Result<Self, BadPci> {
        let read = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            Some(Self {
                // Four digits, but some hosts have domains beyond ffff.
                domain: hex(domain, 8)?,
                bus: hex(bus, 2)? as u8,
                device: hex(device, 2).filter(|device| *device < 0x20)? as u8,
                function: hex(function, 1).filter(|function| *function < 8)? as u8,
            })
        };
        let reason = "it is not of the form DDDD:BB:DD.F, in hexadecimal";
        read().ok_or_else(|| BadPci { what: "PCI address", text: brief(text), reason })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// A hexadecimal number of at most `digits` digits, and no sign.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let plain = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// What an error repeats of a text that may have megabytes.
fn brief(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PciPath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_read_and_written() {
        for text in ["02", "02/01", "1f.7", "02/01.1/1f", "20/00/01", "fe/02.1/03"] {
            assert_eq!(path(text).to_string(), text);
        }
        assert_eq!(path("2/1.0").to_string(), "02/01");
        assert_eq!(path("20/00/01").root_bus, 0x20);
        assert_eq!(path("02/00/01").root_bus, 0);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let bad = [
            "", "/", "02/", "/02", "20", "20/01", "02/20", "02/01/20", "x", "002", "+2", "-1", "02.8", "02.",
            ".1", "02//01", "../01", "02.1.1", "0x2", " 02", "02/01\0", "ü",
        ];
        for text in bad {
            let error = text.parse::<PciPath>().unwrap_err().to_string();
            assert!(error.starts_with("PCI path"), "{text:?}: {error}");
        }
        assert!("01/".repeat(100_000).parse::<PciPath>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["0000:01:00.0", "ffff:ff:1f.7", "10000:e1:00.0"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        for text in
            ["", "01:00.0", "0000:01:00", "0000:01:20.0", "0000:01:00.8", "0000:001:00.0", "eth0", "1,2"]
        {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }

    /// A sysfs with these directories.
    fn sysfs(dirs: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in dirs {
            std::fs::create_dir_all(root.path().join("devices").join(dir)).unwrap();
        }
        root
    }

    fn resolved(root: &tempfile::TempDir, text: &str) -> Option<String> {
        let dir = path(text).resolve(root.path())?;
        Some(dir.strip_prefix(root.path().join("devices")).unwrap().to_str().unwrap().into())
    }

    #[test]
    fn bridges_are_walked_by_the_bus_they_tell() {
        let root = sysfs(&[
            "pci0000:00/0000:00:02.0/pci_bus/0000:01",
            "pci0000:00/0000:00:02.0/0000:01:03.0/pci_bus/0000:05",
            "pci0000:00/0000:00:02.0/0000:01:03.0/0000:05:00.1",
            "pci0000:00/0000:00:04.0",
        ]);
        assert_eq!(resolved(&root, "04").unwrap(), "pci0000:00/0000:00:04.0");
        assert_eq!(resolved(&root, "02/03").unwrap(), "pci0000:00/0000:00:02.0/0000:01:03.0");
        assert_eq!(
            resolved(&root, "02/03/00.1").unwrap(),
            "pci0000:00/0000:00:02.0/0000:01:03.0/0000:05:00.1"
        );
        for absent in ["05", "04/01", "02/04", "02/03/00", "20/02/03"] {
            assert_eq!(resolved(&root, absent), None, "{absent}");
        }
    }

    #[test]
    fn a_bridge_that_does_not_tell_its_bus_is_known_by_its_children() {
        let root = sysfs(&[
            "pci0000:00/0000:00:02.0/0000:07:01.0",
            "pci0000:00/0000:00:02.0/power",
            "pci0000:00/0000:00:02.0/01.0",
        ]);
        assert_eq!(resolved(&root, "02/01").unwrap(), "pci0000:00/0000:00:02.0/0000:07:01.0");
        assert_eq!(resolved(&root, "02/02"), None);
    }

    #[test]
    fn expander_bridges_have_a_root_of_their_own() {
        let root = sysfs(&[
            "pci0000:00/0000:00:01.0",
            "pci0000:20/0000:20:00.0/pci_bus/0000:21",
            "pci0000:20/0000:20:00.0/0000:21:01.0",
        ]);
        assert_eq!(resolved(&root, "20/00/01").unwrap(), "pci0000:20/0000:20:00.0/0000:21:01.0");
        assert_eq!(resolved(&root, "01").unwrap(), "pci0000:00/0000:00:01.0");
    }

    #[test]
    fn the_host_bridge_may_be_a_platform_device() {
        let root = sysfs(&[
            "platform/3f000000.pcie/pci0000:00/0000:00:02.0",
            "platform/4010000000.pcie/pci0000:00/0000:00:03.0/pci_bus/0000:01",
            "platform/serial8250",
        ]);
        // Only one of them has the bus in a real machine; the first is taken here.
        assert_eq!(resolved(&root, "02").unwrap(), "platform/3f000000.pcie/pci0000:00/0000:00:02.0");
        let of_a_chip = sysfs(&["platform/soc/30000000.pci/pci0000:00/0000:00:01.0"]);
        assert_eq!(resolved(&of_a_chip, "01").unwrap(), "platform/soc/30000000.pci/pci0000:00/0000:00:01.0");
        assert_eq!(resolved(&sysfs(&["platform"]), "02"), None);
    }
}
