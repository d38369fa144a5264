//! Driver `bind`: something of the guest, seen in a second place.

use std::path::{Path, PathBuf};

use agent_api::agent::Storage;
use jail::plan::MountOptions;
use nix::mount::MsFlags;

use super::done::Done;
use super::plan::{self, Refusal, refuse};
use super::{Fault, point};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    source: PathBuf,
    recursive: bool,
    flags: MsFlags,
}

impl Bind {
    pub(super) fn plan(storage: &Storage) -> Result<Self, Refusal> {
        let source = plan::absolute("source", &storage.source)?;
        let (flags, data) = plan::mount_options(&storage.options)?;
        if !data.is_empty() {
            return refuse("options", format!("{data:?} means nothing to a bind mount"));
        }
        let recursive = MountOptions::read(&storage.options).is_ok_and(|options| options.recursive);
        Ok(Self { source, recursive, flags })
    }

    pub(super) fn make(&self, target: &Path, done: &mut Done) -> Result<(), Fault> {
        point::bind(&self.source, target, self.recursive, self.flags, done)
    }
}
