//! Driver `overlayfs`: directories of the guest, laid one over the other.

use std::path::{Path, PathBuf};

use agent_api::agent::Storage;
use agent_api::paths;

use super::Fault;
use super::done::Done;
use super::plan::{self, Refusal, refuse};
use super::point::{self, Mounting};

/// Asks for a layer to write to, below the container's own directory.
const WRITABLE: &str = "io.katacontainers.fs-opt.overlay-rw";
/// Names a directory to be made first.
const CREATE: &str = "io.katacontainers.volume.overlayfs.create_directory=";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overlay {
    directories: Vec<PathBuf>,
    /// Directories that go with the mount, whatever is in them by then.
    scratch: Vec<PathBuf>,
    mounting: Mounting,
}

impl Overlay {
    pub(super) fn plan(storage: &Storage, owner: &str) -> Result<Self, Refusal> {
        let mut directories = Vec::new();
        for directory in storage.driver_options.iter().filter_map(|option| option.strip_prefix(CREATE)) {
            directories.push(plan::absolute("driver_options", directory)?);
        }
        let mut scratch = Vec::new();
        let mut words = storage.options.clone();
        words.retain(|word| word != WRITABLE);
        if words.len() < storage.options.len() {
            let own = Path::new(paths::RUN).join(owner);
            for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
                if words.iter().any(|word| word.strip_prefix(key).is_some_and(|rest| rest.starts_with('='))) {
                    return refuse("options", format!("both {key:?} and {WRITABLE:?} are given"));
                }
                words.push(format!("{key}={}", own.join(name).display()));
                scratch.push(own.join(name));
            }
        }
        let (flags, data) = plan::mount_options(&words)?;
        if !data.split(',').any(|word| word.starts_with("lowerdir")) {
            return refuse("options", "there is no lowerdir");
        }
        let source = if storage.source.is_empty() { "overlay" } else { &storage.source };
        let mounting = Mounting { source: source.to_string(), fstype: "overlay".to_string(), flags, data };
        Ok(Self { directories, scratch, mounting })
    }

    pub(super) fn make(&self, target: &Path, done: &mut Done) -> Result<(), Fault> {
        for directory in &self.directories {
            point::directory(directory, done)?;
        }
        for directory in &self.scratch {
            point::scratch(directory, done)?;
        }
        self.mounting.mount(target, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(options: &[&str], driver_options: &[&str]) -> Storage {
        let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Storage {
            driver: "overlayfs".into(),
            source: "none".into(),
            fstype: "overlay".into(),
            options: strings(options),
            driver_options: strings(driver_options),
            ..Default::default()
        }
    }

    #[test]
    fn a_layer_to_write_to_lies_in_the_containers_own_directory() {
        let overlay = Overlay::plan(&storage(&["lowerdir=/a:/b", WRITABLE], &[]), "c1").unwrap();
        let own = "/run/kata-containers/c1";
        assert_eq!(overlay.mounting.data, format!("lowerdir=/a:/b,upperdir={own}/upper,workdir={own}/work"));
        assert_eq!(overlay.scratch, [Path::new(own).join("upper"), Path::new(own).join("work")]);
    }

    #[test]
    fn directories_are_made_on_request() {
        let options = [format!("{CREATE}/run/kata-containers/x"), format!("{CREATE}/run/kata-containers/y")];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let overlay = Overlay::plan(&storage(&["lowerdir=/a", "ro"], &options), "c1").unwrap();
        assert_eq!(overlay.directories.len(), 2);
        assert_eq!(overlay.mounting.data, "lowerdir=/a");
        let bad = Overlay::plan(&storage(&["lowerdir=/a"], &[&format!("{CREATE}../x")]), "c1");
        assert_eq!(bad.unwrap_err().field, "driver_options");
    }

    #[test]
    fn what_cannot_be_an_overlay_is_refused() {
        for options in
            [&["upperdir=/u"][..], &["lowerdir=/a", "upperdir=/u", WRITABLE], &["loop", "lowerdir=/a"]]
        {
            assert_eq!(Overlay::plan(&storage(options, &[]), "c1").unwrap_err().field, "options");
        }
    }
}
