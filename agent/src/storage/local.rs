//! Driver `local`: a directory of the guest, and no mount.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use agent_api::agent::Storage;

use super::done::Done;
use super::ephemeral::{give_to, take_group};
use super::plan::{Refusal, refuse};
use super::{At as _, Fault, point};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    mode: u32,
    group: Option<u32>,
}

impl Local {
    pub(super) fn plan(storage: &Storage) -> Result<Self, Refusal> {
        let (group, words) = take_group(&storage.options)?;
        let mut mode = 0o755;
        for word in words.iter().filter_map(|word| word.strip_prefix("mode=")) {
            mode = match u32::from_str_radix(word, 8) {
                Ok(mode) if mode <= 0o7777 => mode,
                _ => return refuse("options", format!("bad option \"mode={word}\"")),
            };
        }
        if words.iter().any(|word| word == "loop") {
            return refuse("options", "\"loop\" is not supported");
        }
        Ok(Self { mode, group })
    }

    /// A directory that is there already keeps its mode: another container of the pod may have chosen it.
    pub(super) fn make(&self, target: &Path, done: &mut Done) -> Result<(), Fault> {
        let made = point::open(target).is_err();
        let directory = point::directory(target, done)?;
        if made {
            fs::set_permissions(point::path_of(&directory), fs::Permissions::from_mode(self.mode))
                .at(|| format!("set the mode of {target:?}"))?;
        }
        give_to(target, self.group)
    }
}
