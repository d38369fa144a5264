//! Kernel modules a runtime wants loaded before the sandbox is made.

use std::path::Path;

use agent_api::agent::KernelModule;

use crate::helper;
use crate::reaper::Reaper;

/// Where modprobe is.
const MODPROBE: &[&str] = &["/sbin/modprobe", "/usr/sbin/modprobe"];

/// A module that is not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("kernel_modules: {0:?} is not the name of a module")]
    Name(String),
    #[error("kernel_modules: {module}: {source}")]
    Load { module: String, source: helper::Error },
}

/// Loads modules in their order. What the kernel has already, built in or loaded, needs no program to load it.
pub(crate) async fn load(reaper: &Reaper, modules: &[KernelModule]) -> Result<(), Error> {
    if let Some(bad) = modules.iter().find(|module| !is_name(&module.name)) {
        return Err(Error::Name(bad.name.clone()));
    }
    for module in modules {
        // The kernel lists a module with underscores, whichever way it is asked for.
        let known = Path::new("/sys/module").join(module.name.replace('-', "_"));
        if module.parameters.is_empty() && known.exists() {
            continue;
        }
        let failed = |source| Error::Load { module: module.name.clone(), source };
        let modprobe = helper::find(MODPROBE).map_err(failed)?;
        // The dashes keep a parameter from being taken for an option.
        let args = ["-v", "--", &module.name].into_iter().chain(module.parameters.iter().map(String::as_str));
        let loaded = helper::run(reaper, helper::Command::new(modprobe).args(args)).await.map_err(failed)?;
        tracing::info!(module = module.name, said = %String::from_utf8_lossy(&loaded.stdout).trim(), "loaded");
    }
    Ok(())
}

/// A name, not an option and not a path: modprobe inserts files too.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && name.len() < 64
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, parameters: &[&str]) -> KernelModule {
        let parameters = parameters.iter().map(ToString::to_string).collect();
        KernelModule { name: name.into(), parameters, ..Default::default() }
    }

    #[tokio::test]
    async fn what_is_no_name_is_refused_before_anything_is_loaded() {
        for name in ["", "-r", "../x", "a b", "a/b", "x.ko", "a\0", &"m".repeat(64)] {
            let error = load(&Reaper::default(), &[module("no_such", &[]), module(name, &[])]).await;
            assert!(matches!(error, Err(Error::Name(_))), "{name:?}: {error:?}");
        }
    }

    #[tokio::test]
    async fn what_the_kernel_has_is_loaded() {
        // Every kernel with a command line has this one.
        load(&Reaper::default(), &[module("kernel", &[])]).await.unwrap();
    }

    #[tokio::test]
    async fn a_module_that_cannot_be_loaded_is_named() {
        let reaper = Reaper::default();
        let modules = [module("husk_no_such", &["-C", "a=1"])];
        let error = tokio::select! {
            error = load(&reaper, &modules) => error.unwrap_err().to_string(),
            () = reaper.run_for_tests() => unreachable!("it runs for as long as it is asked to"),
        };
        assert!(error.starts_with("kernel_modules: husk_no_such: "), "{error}");
        assert!(error.contains("modprobe"), "{error}");
    }
}
