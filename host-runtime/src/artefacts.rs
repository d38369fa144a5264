//! Where the guest's kernel and initrd are when nobody says. What they are is [`guest_manifest`]'s business.

use std::path::{Path, PathBuf};

use guest_arch::Arch;

/// `out/<arch>/minimal` in a checkout that has built one, else where packages put it.
pub fn default_dir() -> PathBuf {
    let arch = Arch::host();
    let checkout = Path::new("out").join(arch.name()).join("minimal");
    if checkout.join(guest_manifest::FILE).exists() {
        return checkout;
    }
    Path::new("/usr/lib/husk").join(arch.name()).join("minimal")
}
