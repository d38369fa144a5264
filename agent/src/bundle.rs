//! A container's bundle: the directory in which hooks find themselves, with the configuration they may look into.
//!
//! Nothing else reads it, so containers without hooks have none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jail::{Plan, oci};

/// A bundle could not be made.
#[derive(Debug, thiserror::Error)]
#[error("bundle {}: {source}", directory.display())]
pub(crate) struct Error {
    directory: PathBuf,
    source: io::Error,
}

/// A bundle that is there. Gone when dropped.
pub(crate) struct Bundle(PathBuf);

impl Bundle {
    /// That of a container with hooks.
    pub(crate) fn of(plan: &Plan, directory: &Path, spec: &oci::Spec) -> Result<Option<Self>, Error> {
        if plan.hooks().is_none() {
            return Ok(None);
        }
        let written = Self::write(directory, spec);
        written.map(Some).map_err(|source| Error { directory: directory.to_path_buf(), source })
    }

    /// Makes the directory and writes the configuration, whose root is a path of the guest.
    fn write(directory: &Path, spec: &oci::Spec) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let bundle = Self(directory.to_path_buf());
        let text = serde_json::to_vec(spec).map_err(io::Error::other)?;
        fs::write(bundle.0.join("config.json"), text)?;
        Ok(bundle)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let removed = fs::remove_file(self.0.join("config.json")).and_then(|()| fs::remove_dir(&self.0));
        if let Err(error) = removed {
            tracing::debug!(bundle = %self.0.display(), %error, "a bundle was left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_configuration_while_it_lasts() {
        let directory = std::env::temp_dir().join(format!("husk-bundle-{}", std::process::id()));
        let mut spec = oci::Spec::default();
        spec.set_hostname(Some("here".into()));
        let bundle = Bundle::write(&directory, &spec).unwrap();
        let text = fs::read_to_string(directory.join("config.json")).unwrap();
        assert!(text.contains("\"hostname\":\"here\"") && text.contains("\"ociVersion\""), "{text}");
        drop(bundle);
        assert!(!directory.exists());
    }
}
