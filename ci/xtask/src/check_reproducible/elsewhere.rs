//! Another place with another user's things, in which the second build has nothing of the first but its inputs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use guest_inputs::Cache;

use super::Shared;
use crate::build_image::Choice;
use crate::workspace;

/// Who builds the second time: nobody.
const OTHER_USER: u32 = 65534;

/// What of the cache is as it was downloaded.
const DOWNLOADS: [&str; 4] = ["downloads", "zig", "packages", "efi-stub"];

/// What others build images with, and what others write these formats with.
const HIDDEN: &str = "podman docker buildah skopeo runc crun containerd debootstrap mmdebstrap fakeroot apt-get dpkg \
    dpkg-deb mkfs.erofs mke2fs mkfs.ext4 mksquashfs veritysetup sfdisk sgdisk losetup sudo";

/// Becomes somebody on a machine without a network and without those programs. Nothing that is mounted here is seen outside.
const MOVE_AWAY: &str = "hostname elsewhere
for program in $1; do
    path=$(command -v $program) && mount --bind /dev/null \"$(readlink -f $path)\"
done
shift
exec setpriv --no-new-privs --clear-groups \"$@\"";

/// The place.
pub(super) struct Elsewhere {
    root: PathBuf,
    /// As root: somebody else.
    user: Option<u32>,
    /// What differs there.
    pub(super) varied: Vec<&'static str>,
    /// What of the cache is the same.
    pub(super) shared: Vec<&'static str>,
}

impl Elsewhere {
    /// Makes it; `root` is not there yet.
    pub(super) fn prepare(root: &Path, share_too: Shared) -> Result<Elsewhere> {
        let user = nix::unistd::Uid::effective().is_root().then_some(OTHER_USER);
        let mut shared = DOWNLOADS.to_vec();
        shared.extend(share_too.kernel.then_some("kernel"));
        shared.extend(share_too.std.then_some("std"));
        let mut varied =
            vec!["path", "HOME", "cache", "TMPDIR", "environment", "umask", "time", "TZ", "locale"];
        varied.extend(["order of files", "jobs"]);
        let as_root =
            ["user", "groups", "hostname", "no network", "no tools for containers, images and packages"];
        varied.extend(user.map(|_| as_root).into_iter().flatten());
        for directory in ["home/.cache/husk", "cargo", "tmp", "out"] {
            fs::create_dir_all(root.join(directory)).with_context(|| format!("cannot make {directory}"))?;
        }
        // A temporary directory is its maker's alone.
        for above in root.ancestors().skip(1).take(2) {
            fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
        }
        for entry in ["", "home", "home/.cache", "home/.cache/husk", "cargo", "tmp", "out"] {
            if let Some(user) = user {
                chown(root.join(entry), Some(user), Some(user))?;
            }
        }
        let elsewhere = Elsewhere { root: root.to_owned(), user, varied, shared };
        elsewhere.copy_checkout()?;
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        share(Path::new(sysroot.trim()), &root.join("rust"), user)?;
        Ok(elsewhere)
    }

    /// What is downloaded there and here only once, and what takes minutes: as of now, since the first build may just
    /// have got it.
    fn share_inputs(&self) -> Result<()> {
        let cache = Cache::open()?;
        for kind in &self.shared {
            let from = cache.root().join(kind);
            if from.is_dir() {
                share(&from, &self.root.join("home/.cache/husk").join(kind), self.user)?;
            }
        }
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let home = home.context("neither CARGO_HOME nor HOME is set")?;
        for part in ["registry", "config.toml"] {
            if home.join(part).exists() {
                share(&home.join(part), &self.root.join("cargo").join(part), self.user)?;
            }
        }
        Ok(())
    }

    /// The files that git knows or would add, in the reverse of their order.
    fn copy_checkout(&self) -> Result<()> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace::root());
        let listed = output(&mut git)?;
        let mut names: Vec<_> = listed.split('\0').filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        for name in names.into_iter().rev() {
            let (from, to) = (workspace::root().join(name), self.root.join("checkout").join(name));
            if !from.exists() {
                continue; // deleted, and not committed yet
            }
            let parent = to.parent().expect("a file in the checkout");
            fs::create_dir_all(parent)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
        }
        self.user.map_or(Ok(()), |user| give_away(&self.root.join("checkout"), user))
    }

    /// Builds there, and says where the set is.
    pub(super) fn build(&self, choice: &Choice, arch: &str, recipe: &str) -> Result<PathBuf> {
        self.share_inputs()?;
        let in_other = |name: &str| self.root.join(name);
        let mut words =
            vec!["cd \"$1\"; shift; umask 0077; ulimit -c 0; exec \"$@\"".to_owned(), "sh".to_owned()];
        words.push(in_other("checkout").display().to_string());
        let mut command;
        if let Some(user) = self.user {
            command = Command::new("unshare");
            command.args(["--uts", "--net", "--mount", "sh", "-c", MOVE_AWAY, "sh", HIDDEN]);
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            command.args(["sh", "-c"]).args(words);
        } else {
            command = Command::new("sh");
            command.arg("-c").args(words);
        }
        command.arg(in_other("rust/bin/cargo"));
        command.args(["run", "--quiet", "--locked", "--offline", "--package", "xtask", "--", "build-image"]);
        command.args(["--offline", "--jobs", "1", "--arch", arch, "--recipe", &choice.recipe]);
        choice.formats.iter().for_each(|format| _ = command.args(["--format", format.name()]));
        command.arg("--out").arg(in_other("out"));
        command.env_clear().stdin(Stdio::null());
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", in_other("rust/bin").display());
        command.env("PATH", path).env("HOME", in_other("home")).env("CARGO_HOME", in_other("cargo"));
        command.env("TMPDIR", in_other("tmp")).env("TZ", "Asia/Kathmandu").env("LC_ALL", "C.UTF-8");
        command.env("LANG", "tr_TR.UTF-8").env("USER", "other").env("LOGNAME", "other");
        let status = command.status().context("cannot start the second build")?;
        if !status.success() {
            bail!("the second build failed ({status})");
        }
        Ok(in_other("out").join(arch).join(recipe))
    }
}

/// The same files under another name, in directories of their own: links where that is possible. What is there already
/// stays.
pub(super) fn share(from: &Path, to: &Path, user: Option<u32>) -> Result<()> {
    let metadata =
        fs::symlink_metadata(from).with_context(|| format!("cannot examine {}", from.display()))?;
    if !metadata.is_dir() && to.symlink_metadata().is_ok() {
        return Ok(());
    }
    if metadata.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if metadata.is_dir() {
        fs::create_dir_all(to)?;
        if let Some(user) = user {
            chown(to, Some(user), Some(user))?;
        }
        for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            // What somebody is at work on, and the locks of that.
            if !(text.starts_with('.') && (text.contains(".half-") || text.ends_with(".lock"))) {
                share(&from.join(&name), &to.join(&name), user)?;
            }
        }
    } else {
        // Some crates come with files that are their owner's alone.
        let readable = user.is_none() || metadata.permissions().mode() & 0o004 != 0;
        if !readable || fs::hard_link(from, to).is_err() {
            fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
            chown(to, user, user)?;
        }
    }
    Ok(())
}

fn give_away(path: &Path, user: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(user))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path(), user)?;
        }
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_is_shared_too_and_nothing_half_done() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("entry")).unwrap();
        fs::write(from.join("entry/file"), "first").unwrap();
        share(&from, &to, None).unwrap();
        fs::create_dir_all(from.join("later")).unwrap();
        fs::create_dir_all(from.join(".later.half-x")).unwrap();
        for file in ["later/file", ".later.half-x/file", ".later.lock"] {
            fs::write(from.join(file), "second").unwrap();
        }
        share(&from, &to, None).unwrap();
        assert_eq!(fs::read_to_string(to.join("entry/file")).unwrap(), "first");
        assert_eq!(fs::read_to_string(to.join("later/file")).unwrap(), "second");
        assert!(![".later.half-x", ".later.lock"].iter().any(|name| to.join(name).exists()));
    }
}
