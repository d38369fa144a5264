//! Finding the program: where it is, and whether this process may execute it.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, access};

use crate::child::{Child, Fault};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The last step: as the user, in the working directory, so that the answer is the one `execve` will give.
pub(crate) fn find(child: &mut Child) -> Result<(), Fault> {
    let process = &child.plan.process;
    let name = &process.args[0];
    let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let found =
        look_up(name, path, executable).map_err(|errno| Fault::new(format!("exec: {name:?}"), errno))?;
    child.program = Some(found);
    Ok(())
}

/// A name with a slash is a path. Any other is looked for in `path`, where one that cannot be executed is only the
/// answer if no later one can.
fn look_up(name: &str, path: &str, try_one: impl Fn(&Path) -> Result<(), Errno>) -> Result<PathBuf, Errno> {
    if name.contains('/') {
        return try_one(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let mut answer = Errno::ENOENT;
    for directory in path.split(':') {
        // An empty entry is the current directory.
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match try_one(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => answer = errno,
        }
    }
    Err(answer)
}

fn executable(path: &Path) -> Result<(), Errno> {
    let kind = SFlag::from_bits_truncate(stat(path)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG {
        return Err(Errno::EACCES);
    }
    access(path, AccessFlags::X_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(path: &Path) -> Result<(), Errno> {
        match path.to_str().unwrap() {
            "/bin/tool" | "./here" | "dir/tool" => Ok(()),
            "/sbin/tool" | "/sbin/locked" => Err(Errno::EACCES),
            _ => Err(Errno::ENOENT),
        }
    }

    #[test]
    fn path_is_searched_in_order_past_what_cannot_be_executed() {
        assert_eq!(look_up("tool", "/sbin:/bin", files), Ok("/bin/tool".into()));
        assert_eq!(look_up("locked", "/sbin:/bin", files), Err(Errno::EACCES));
        assert_eq!(look_up("nosuch", "/sbin:/bin", files), Err(Errno::ENOENT));
        assert_eq!(look_up("here", "/bin::", files), Ok("./here".into()));
    }

    #[test]
    fn a_slash_means_a_path() {
        assert_eq!(look_up("dir/tool", "/sbin", files), Ok("dir/tool".into()));
        assert_eq!(look_up("/sbin/tool", "/bin", files), Err(Errno::EACCES));
    }

    #[test]
    fn a_directory_is_not_a_program() {
        assert_eq!(executable(Path::new("/etc")), Err(Errno::EACCES));
        assert_eq!(executable(Path::new("/etc/passwd")), Err(Errno::EACCES));
        assert_eq!(executable(Path::new("/bin/sh")), Ok(()));
    }
}
