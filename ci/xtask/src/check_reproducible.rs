//! `cargo xtask check-reproducible`: builds twice, the second time as somebody else, somewhere else, and compares every
//! byte.
//!
//! | differs | how |
//! |---|---|
//! | the checkout's path, and with it cargo's target directory | the files that git knows are copied |
//! | `HOME`, the cache's directory, `TMPDIR`, the whole environment | `env -i` |
//! | user, groups | `setpriv`, as root |
//! | hostname | `unshare --uts`, as root |
//! | umask, time zone, locale, `SOURCE_DATE_EPOCH` | set to something odd |
//! | processors at once | `--jobs 1` |
//! | order of files in directories | what is copied is made in the reverse order |
//! | time | the second build comes later: nothing is built twice in the same second |
//!
//! Downloads are shared, since their digests are pinned; so is the kernel without `--with-kernel` and the standard library
//! without `--with-std`, which take minutes. What was shared is said.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use guest_inputs::Cache;
use rootfs_builder::agent::Profile;
use rootfs_builder::compare;

use crate::build_image::{self, Choice};
use crate::scratch::Scratch;
use crate::stage::Stages;
use crate::workspace;

/// Who builds the second time: nobody.
const OTHER_USER: u32 = 65534;

/// What of the cache is as it was downloaded.
const DOWNLOADS: [&str; 4] = ["downloads", "zig", "packages", "efi-stub"];

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: Choice,
    /// Build the kernel a second time too
    #[arg(long)]
    with_kernel: bool,
    /// Build Rust's standard library a second time too
    #[arg(long)]
    with_std: bool,
    /// Keep both builds, in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Install the Debian packages that are missing
    #[arg(long)]
    install_deps: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    options.choice.ensure_deps(options.install_deps)?;
    let temporary = Scratch::new()?;
    let place = options.keep.clone().unwrap_or_else(|| temporary.path());
    let first = place.join("first");
    let other = Other::prepare(&temporary.path().join("a b"), options)?;
    let mut found = Vec::new();
    for arch in &options.choice.archs {
        let mut stages = Stages::default();
        let image = build_image::build(&options.choice, *arch, Profile::Guest, &first, &mut stages)?;
        let second = stages
            .run("second build", || other.build(&options.choice, arch.name(), &image.manifest.recipe))?;
        if let Some(keep) = &options.keep {
            let kept = keep.join("second").join(arch.name());
            share(&second, &kept, None)?;
        }
        let differences = compare(&image.dir, &second)?;
        let recipe = &image.manifest.recipe;
        println!(
            "{arch} {recipe}: {} files, {} differ",
            image.manifest.artefacts().len() + 2,
            differences.len()
        );
        found.extend(differences.into_iter().map(|line| format!("{arch} {recipe}: {line}")));
        eprint!("{}", stages.table());
    }
    println!("varied: {}", other.varied.join(", "));
    println!("shared: {}", other.shared.join(", "));
    if found.is_empty() {
        return Ok(());
    }
    found.iter().for_each(|line| println!("{line}"));
    bail!("the two builds are not the same")
}

/// Compares two sets; where there is a difference, diffoscope has its say too, if it is installed.
pub(crate) fn compare(one: &Path, other: &Path) -> Result<Vec<String>> {
    let differences = compare::sets(one, other)?;
    if !differences.is_empty() {
        let mut diffoscope = Command::new("diffoscope");
        diffoscope.args(["--max-report-size", "20000"]).arg(one).arg(other).stdin(Stdio::null());
        let _where_it_is_installed = diffoscope.status();
    }
    Ok(differences)
}

/// Another place with another user's things.
struct Other {
    root: PathBuf,
    /// As root: somebody else.
    user: Option<u32>,
    varied: Vec<&'static str>,
    shared: Vec<&'static str>,
}

impl Other {
    fn prepare(root: &Path, options: &Options) -> Result<Other> {
        let user = nix::unistd::Uid::effective().is_root().then_some(OTHER_USER);
        let mut shared = DOWNLOADS.to_vec();
        shared.extend((!options.with_kernel).then_some("kernel"));
        shared.extend((!options.with_std).then_some("std"));
        let mut varied =
            vec!["path", "HOME", "cache", "TMPDIR", "environment", "umask", "time", "TZ", "locale"];
        varied.extend(["order of files", "jobs"]);
        varied.extend(user.map(|_| ["user", "groups", "hostname"]).into_iter().flatten());
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
        let other = Other { root: root.to_owned(), user, varied, shared };
        other.copy_checkout()?;
        let cache = Cache::open()?;
        for kind in &other.shared {
            let from = cache.root().join(kind);
            if from.is_dir() {
                share(&from, &root.join("home/.cache/husk").join(kind), user)?;
            }
        }
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        share(Path::new(sysroot.trim()), &root.join("rust"), user)?;
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let home = home.context("neither CARGO_HOME nor HOME is set")?;
        for part in ["registry", "config.toml"] {
            if home.join(part).exists() {
                share(&home.join(part), &root.join("cargo").join(part), user)?;
            }
        }
        Ok(other)
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

    fn build(&self, choice: &Choice, arch: &str, recipe: &str) -> Result<PathBuf> {
        let in_other = |name: &str| self.root.join(name);
        let mut words =
            vec!["cd \"$1\"; shift; umask 0077; ulimit -c 0; exec \"$@\"".to_owned(), "sh".to_owned()];
        words.push(in_other("checkout").display().to_string());
        let mut command;
        if let Some(user) = self.user {
            command = Command::new("unshare");
            command.args(["--uts", "sh", "-c", "hostname elsewhere; exec \"$@\"", "sh", "setpriv"]);
            command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
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

/// The same files under another name, in directories of their own: links where that is possible.
fn share(from: &Path, to: &Path, user: Option<u32>) -> Result<()> {
    let metadata =
        fs::symlink_metadata(from).with_context(|| format!("cannot examine {}", from.display()))?;
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
