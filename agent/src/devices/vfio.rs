//! PCI functions that the host passed through, for a driver in a container or for one of the guest's.

use std::io;
use std::path::{Path, PathBuf};

use super::pci::PciAddress;
use super::resolve::{Found, Passed};
use super::tree::{Node, names};
use super::{Devices, Error};

/// The driver that hands a function to a program.
const DRIVER: &str = "vfio-pci";

impl Devices {
    /// Gives functions to `vfio-pci`, and finds the node of the group that they are in.
    pub(super) async fn vfio_group(&self, functions: &[Passed]) -> Result<Found, Error> {
        let mut found = Found { renamed: true, ..Default::default() };
        let mut group: Option<(PathBuf, Node)> = None;
        for function in functions {
            let dir = self.function(function, &mut found).await?;
            let device = format!("device at PCI path {}", function.guest);
            let failed =
                |source| Error::Failed { device: device.clone(), step: "give it to vfio-pci", source };
            let (bound, sysfs) = (dir.clone(), self.tree.sysfs().to_path_buf());
            // Taking it from another driver lasts as long as that driver likes.
            let binding = tokio::task::spawn_blocking(move || bind(&bound, &sysfs));
            match tokio::time::timeout(self.limit, binding).await {
                Ok(Ok(result)) => result.map_err(failed)?,
                Ok(Err(panic)) => return Err(failed(io::Error::other(panic))),
                Err(_) => return Err(Error::Late { device, limit: self.limit }),
            }
            let node = self
                .wait_for(format!("group of the {device}"), || {
                    let number = std::fs::read_link(dir.join("iommu_group")).ok();
                    let number = number.and_then(|link| Some(link.file_name()?.to_str()?.to_string()));
                    Ok(number.and_then(|number| {
                        // Without an IOMMU the kernel gives the node another name, as a warning.
                        let paths = [number.clone(), format!("noiommu-{number}")];
                        let node = |name| self.tree.node(&Path::new("/dev/vfio").join(name));
                        Some((PathBuf::from(number), paths.iter().find_map(node)?))
                    }))
                })
                .await?;
            match &group {
                Some(other) if *other != node => {
                    return Err(Error::Failed {
                        device,
                        step: "find its group",
                        source: io::Error::other(format!(
                            "it is in group {}, and the one before in {}",
                            node.0.display(),
                            other.0.display()
                        )),
                    });
                }
                _ => group = Some(node),
            }
        }
        found.node = group.map(|(_, node)| node);
        Ok(found)
    }

    /// Waits for functions that the guest's own drivers use. An InfiniBand card is used through nodes of its own.
    pub(super) async fn guest_functions(&self, functions: &[Passed]) -> Result<Found, Error> {
        let mut found = Found::default();
        for function in functions {
            let dir = self.function(function, &mut found).await?;
            found.more.extend(self.tree.infiniband_nodes(&dir));
        }
        Ok(found)
    }

    async fn function(&self, function: &Passed, found: &mut Found) -> Result<PathBuf, Error> {
        let dir = self.pci_device(&function.guest).await?;
        // The kernel names the directory by the address.
        let guest = dir.file_name().and_then(|name| name.to_str()?.parse::<PciAddress>().ok());
        if let Some(guest) = guest {
            found.addresses.insert(function.host, guest);
        }
        Ok(dir)
    }
}

/// Documentation/ABI/testing/sysfs-bus-pci: `driver_override` lets one driver alone have the device, whatever it is.
fn bind(device: &Path, sysfs: &Path) -> io::Result<()> {
    std::fs::write(device.join("driver_override"), DRIVER)?;
    let current = std::fs::read_link(device.join("driver")).ok();
    if current.as_ref().and_then(|driver| driver.file_name()).is_some_and(|driver| driver == DRIVER) {
        return Ok(());
    }
    let address = device.file_name().unwrap_or_default().to_string_lossy();
    if current.is_some() {
        std::fs::write(device.join("driver/unbind"), address.as_bytes())?;
    }
    std::fs::write(sysfs.join("bus/pci/drivers_probe"), address.as_bytes())
}

impl super::tree::Tree {
    /// The nodes below `/dev/infiniband` that belong to the card with this directory, and those that belong to no card.
    fn infiniband_nodes(&self, card: &Path) -> Vec<Node> {
        if !card.join("infiniband").is_dir() {
            return Vec::new();
        }
        let card = card.canonicalize().unwrap_or_else(|_| card.to_path_buf());
        let nodes = names(&self.dev().join("infiniband"));
        let nodes = nodes.iter().filter_map(|name| self.node(&Path::new("/dev/infiniband").join(name)));
        let is_ours = |node: &Node| {
            let number = format!("{}:{}", node.major, node.minor);
            let owner = self.sysfs().join("dev/char").join(number).join("device").canonicalize();
            owner.map_or(true, |owner| owner == card)
        };
        nodes.filter(is_ours).collect()
    }
}
