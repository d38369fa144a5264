//! The name servers of the sandbox: the host's resolv.conf, which comes line by line.

use std::path::Path;
use std::{fs, io};

use agent_api::paths;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Writes the lines where containers and the guest's own programs look for them. No lines: the guest keeps what it has.
pub(crate) fn write(lines: &[String]) -> io::Result<()> {
    write_to(lines, &Path::new(paths::SANDBOX).join("resolv.conf"), Path::new(RESOLV_CONF))
}

fn write_to(lines: &[String], file: &Path, target: &Path) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write(file, text)?;
    if !target.try_exists()? {
        return Ok(());
    }
    if target.is_dir() {
        return Err(io::Error::other(format!("{} is a directory", target.display())));
    }
    // An earlier sandbox's lines would stay below these ones.
    if crate::mountinfo::at(target)?.is_some() {
        umount2(target, MntFlags::MNT_DETACH)?;
    }
    Ok(mount(Some(file), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    /// On a thread of its own, whose mounts end with it.
    fn in_own_namespace(test: impl FnOnce(&Path) + Send + 'static) {
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let dir = std::env::temp_dir().join(format!("husk-dns-{:?}", std::thread::current().id()));
            fs::create_dir_all(&dir).unwrap();
            test(&dir);
            fs::remove_dir_all(&dir).unwrap();
        });
        thread.join().unwrap();
    }

    #[test]
    fn lines_are_kept_as_they_are_and_seen_at_the_target() {
        in_own_namespace(|dir| {
            let (file, target) = (dir.join("file"), dir.join("target"));
            fs::write(&target, "nameserver 192.0.2.1\n").unwrap();
            let lines = ["search example.org", "", "nameserver 192.0.2.2"].map(String::from);
            for _ in 0..2 {
                write_to(&lines, &file, &target).unwrap();
            }
            let text = fs::read_to_string(&target).unwrap();
            assert_eq!(text, "search example.org\n\nnameserver 192.0.2.2\n");
            umount2(&target, MntFlags::empty()).unwrap();
            assert!(
                umount2(&target, MntFlags::empty()).is_err(),
                "a second sandbox replaces the first one's"
            );
        });
    }

    #[test]
    fn no_lines_and_no_target_are_fine_and_a_directory_is_not() {
        in_own_namespace(|dir| {
            let (file, target) = (dir.join("file"), dir.join("target"));
            write_to(&[], &file, &target).unwrap();
            assert!(!file.exists());
            write_to(&["nameserver 192.0.2.1".into()], &file, &target).unwrap();
            assert!(file.exists() && !target.exists());
            fs::create_dir(&target).unwrap();
            let error = write_to(&["nameserver 192.0.2.1".into()], &file, &target).unwrap_err();
            assert!(error.to_string().ends_with("is a directory"));
        });
    }
}
