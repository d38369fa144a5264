//! Resolves a kernel's configuration without building the kernel: a few seconds, and none from the cache.

use std::fs;

use guest_arch::Arch;
use guest_inputs::{Cache, Progress};

use crate::{
    Variant,
    error::{Error, at},
    make::{Base, Make},
    source::{self, Pinned},
};

/// Change it when this module makes something else of the same inputs.
const RECIPE: &str = "kernel-resolved/v1";

/// What the kernel's own tools make of the settings, as texts of `.config` files.
pub(crate) struct Resolved {
    /// What is built.
    pub(crate) config: String,
    /// What would be built if the kernel's authors filled in what no fragment names.
    pub(crate) defaults: String,
}

/// Both for one kernel.
pub(crate) fn resolve(
    cache: &Cache,
    pinned: &Pinned,
    arch: Arch,
    variant: Variant,
    settings: &str,
    progress: &Progress,
) -> Result<Resolved, Error> {
    let key = crate::key(RECIPE, pinned, arch, variant, settings)?;
    let entry = cache.build("kernel-resolved", &key, |into| -> Result<(), Error> {
        let tree = source::kconfig(cache, pinned, progress)?;
        progress.task("kernel").doing(&format!("resolving {arch} {variant}"));
        let out = into.join("out");
        fs::create_dir(&out).map_err(at("create", &out))?;
        let make = Make::new(&tree, arch, variant, &pinned.timestamp, into.join("resolve.log"))?.out(&out);
        let settings = crate::write_settings(settings, into)?;
        for (base, name) in [(Base::Nothing, "config"), (Base::Defaults, "defaults")] {
            let path = into.join(name);
            fs::write(&path, make.configure(&settings, base)?).map_err(at("write", path))?;
        }
        fs::remove_dir_all(&out).map_err(at("remove", out))
    })?;
    let text = |name| crate::read(&entry.join(name));
    Ok(Resolved { config: text("config")?, defaults: text("defaults")? })
}
