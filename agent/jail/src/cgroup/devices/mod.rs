//! Which devices the processes of a cgroup may use.
//!
//! A list of rules is read from the front, and for each kind of access the last rule that fits decides; where none
//! fits, the answer is no. Version 2 gets the list as a program that the kernel runs at each access ([`program`]),
//! version 1 as lines for its controller ([`lines`]).

mod lines;
mod program;
mod rules;

pub(crate) use program::Instruction;
pub use rules::DeviceRules;

use super::{Cgroup, CgroupError, Result};
use crate::sys::bpf;

/// Holds the processes of a cgroup to these rules.
pub(super) fn set(cgroup: &Cgroup, rules: &DeviceRules) -> Result<()> {
    if !cgroup.is_v2() {
        let now = cgroup.read("devices.list")?;
        return lines::of(rules, &now)?.iter().try_for_each(|(file, line)| cgroup.write(file, line));
    }
    let fail = |step: &'static str| {
        let path = cgroup.path().to_owned();
        move |source| CgroupError::Devices { path, step, source }
    };
    let directory = std::fs::File::open(cgroup.path()).map_err(|source| CgroupError::File {
        action: "open".to_owned(),
        path: cgroup.path().to_owned(),
        source,
    })?;
    let before = bpf::device_program_of(&directory).map_err(fail("look for a program"))?;
    if rules.allow_everything() && before.is_none() {
        return Ok(());
    }
    let program = bpf::load_device_program(&program::of(rules)).map_err(fail("load the program"))?;
    bpf::attach_device_program(&directory, &program, before.as_ref()).map_err(fail("attach the program"))
}
