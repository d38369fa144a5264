//! What the program will be to the kernel's security modules: named now, in force from the execute on.
//!
//! The kernel takes the name through a file of this very process in the agent's `/proc`, which is opened while that is in
//! sight and written to at the end.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::child::{At, Child, Fault};

/// What is to be written where.
#[derive(Debug, Default)]
pub(crate) struct Writers(Vec<(File, String)>);

/// AppArmor's own word for "no profile".
const UNCONFINED: &str = "unconfined";

pub(crate) fn open(child: &mut Child) -> Result<(), Fault> {
    let labels = &child.plan.process.labels;
    let mut out = Writers::default();
    if let Some(profile) = &labels.apparmor {
        if apparmor() {
            // Where other modules share the older file, AppArmor has one for itself.
            let own = "/proc/self/attr/apparmor/exec";
            let path = if Path::new(own).exists() { own } else { "/proc/self/attr/exec" };
            out.open(path, format!("exec {profile}"))?;
        } else if profile != UNCONFINED {
            return Err(lacking("AppArmor", "profile", profile));
        }
    }
    if let Some(context) = &labels.selinux {
        if !selinux() {
            return Err(lacking("SELinux", "label", context));
        }
        out.open("/proc/self/attr/exec", context.clone())?;
    }
    if let Some(context) = child.plan.container.as_ref().and_then(|container| container.mount_label.as_ref())
        && !selinux()
    {
        return Err(lacking("SELinux", "mount label", context));
    }
    child.labels = out;
    Ok(())
}

impl Writers {
    pub(crate) fn write(&self) -> Result<(), Fault> {
        self.0.iter().try_for_each(|(file, text)| {
            let mut file: &File = file;
            file.write_all(text.as_bytes()).at(|| format!("label {text:?}"))
        })
    }

    fn open(&mut self, path: &str, text: String) -> Result<(), Fault> {
        let file = File::options().write(true).open(path).at(|| format!("label {text:?}: open {path:?}"))?;
        self.0.push((file, text));
        Ok(())
    }
}

/// Whether the kernel has the module, and it is on.
pub(crate) fn apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// The same of the other one, whose file system is known to a kernel that has it on.
pub(crate) fn selinux() -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.ends_with("\tselinuxfs"))
}

fn lacking(module: &str, what: &str, label: &str) -> Fault {
    Fault::refused(format!("{what} {label:?}: the guest's kernel has no {module}"))
}
