//! Swap: disks and files that the host has prepared for it.

use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{Error, SwapAddress, blocking};
use crate::devices::{Address, Devices};
use crate::sys;

/// Swaps to the disk behind these slots, once it is there.
pub(crate) async fn swap_at(devices: &Devices, slots: &[u32]) -> Result<(), Error> {
    let address = Address::Pci(path_of(slots)?.parse().map_err(SwapAddress::from)?);
    let node = devices.block_node(&address).await?;
    blocking(move || activate(&node)).await
}

/// Swaps to the disk or file at a path.
pub(crate) async fn swap_on(path: &str) -> Result<(), Error> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(Error::SwapPath(path.to_string_lossy().chars().take(64).collect()));
    }
    let path = path.to_path_buf();
    blocking(move || activate(&path)).await
}

/// Slots as a PCI path. It begins on the guest's first root bus, whatever its first slot.
fn path_of(slots: &[u32]) -> Result<String, SwapAddress> {
    if slots.is_empty() {
        return Err(SwapAddress::Missing);
    }
    if let Some(slot) = slots.iter().find(|slot| **slot > 0x1f) {
        return Err(SwapAddress::Slot(*slot));
    }
    Ok(slots.iter().map(|slot| format!("{slot:02x}")).collect::<Vec<_>>().join("/"))
}

fn activate(path: &Path) -> Result<(), Error> {
    let failed = |step| {
        move |source: nix::Error| Error::Step {
            object: path.display().to_string(),
            step,
            source: source.into(),
        }
    };
    // A link could lead anywhere, and may be a container's.
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let fd = openat2(nix::fcntl::AT_FDCWD, path, how).map_err(failed("open"))?;
    sys::swap::swap_on(&fd).map_err(failed("swap on"))?;
    tracing::info!(path = %path.display(), "swap is on");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slots_are_a_path() {
        assert_eq!(path_of(&[2, 0x1f]).unwrap(), "02/1f");
        assert!(matches!(path_of(&[]), Err(SwapAddress::Missing)));
        assert!(matches!(path_of(&[0x20, 0, 1]), Err(SwapAddress::Slot(0x20))));
        assert!(matches!(path_of(&[2, u32::MAX]), Err(SwapAddress::Slot(u32::MAX))));
    }

    #[tokio::test]
    async fn what_cannot_be_swapped_to_is_named() {
        for path in ["", "swap", "../dev/vda"] {
            let error = swap_on(path).await.unwrap_err().to_string();
            assert!(error.starts_with("path: "), "{path:?}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, [0; 8192]).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let error = swap_on(link.to_str().unwrap()).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: open: Too many levels of symbolic links", link.display())),
            "{error}"
        );
        let error = swap_on(file.to_str().unwrap()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: swap on: ", file.display())), "{error}");
        let error = swap_at(&Devices::new(Duration::from_millis(20)), &[0x1f, 0x1f]).await.unwrap_err();
        assert!(error.to_string().contains("1f/1f"), "{error}");
        assert!(swap_at(&Devices::new(Duration::ZERO), &[1; 1000]).await.is_err());
    }
}
