//! `cargo xtask kernel`: the guest's kernel, from the cache or built now.

use ::kernel_config::Variant;
use anyhow::Result;
use guest_arch::Arch;
use guest_inputs::{Cache, Progress};

use crate::deps;

pub(crate) fn run(arch: Arch, variant: Variant, install_deps: bool) -> Result<()> {
    deps::ensure(&[&deps::kernel(&[arch], &[variant])], install_deps)?;
    let kernel = ::kernel_config::build(&Cache::open()?, arch, variant, &Progress::new())?;
    println!("linux      {}", kernel.version);
    for (what, path) in
        [("image", kernel.image), ("compressed", kernel.compressed), ("config", kernel.config)]
    {
        println!("{what:<10} {} ({} bytes)", path.display(), path.metadata()?.len());
    }
    Ok(())
}
