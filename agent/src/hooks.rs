//! Hooks that run beside the agent: before a container's root is entered, once its program runs, and when it is gone.
//! Those inside are the jail's.
//!
//! The sandbox's guest may bring hooks of its own, files in a directory that the host names. They run after those of a
//! container's spec, for every container.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use jail::plan::{Hook, Hooks, Status};
use jail::{Plan, oci};

use crate::helper::{self, Command};
use crate::reaper::Reaper;

/// A hook failed where that ends the container.
#[derive(Debug, thiserror::Error)]
#[error("{turn} hook {source}")]
pub(crate) struct Error {
    turn: &'static str,
    source: helper::Error,
}

/// Those that come before the root; the first that fails is the last.
pub(crate) async fn before_root(hooks: &Hooks, pid: i32, reaper: &Reaper) -> Result<(), Error> {
    let state = hooks.state.json(Status::Creating, Some(pid));
    for (turn, list) in [("prestart", &hooks.prestart), ("createRuntime", &hooks.create_runtime)] {
        for hook in list {
            let done = run(hook, hooks.state.bundle(), &state, reaper).await;
            done.map_err(|source| Error { turn, source })?;
        }
    }
    Ok(())
}

/// Those that come when the program runs. Nothing depends on them.
pub(crate) async fn poststart(plan: &Plan, pid: i32, reaper: &Reaper) {
    let Some(hooks) = plan.hooks() else { return };
    let state = hooks.state.json(Status::Running, Some(pid));
    all("poststart", &hooks.poststart, hooks, &state, reaper).await;
}

/// Those that come when the container is gone. Nothing depends on them either.
pub(crate) async fn poststop(plan: &Plan, reaper: &Reaper) {
    let Some(hooks) = plan.hooks() else { return };
    let state = hooks.state.json(Status::Stopped, None);
    all("poststop", &hooks.poststop, hooks, &state, reaper).await;
}

async fn all(turn: &'static str, list: &[Hook], hooks: &Hooks, state: &[u8], reaper: &Reaper) {
    for hook in list {
        if let Err(source) = run(hook, hooks.state.bundle(), state, reaper).await {
            tracing::warn!(error = %Error { turn, source }, "a hook failed, and the container goes on");
        }
    }
}

/// In the container's bundle if there is one, with the container's state on its standard input.
async fn run(hook: &Hook, bundle: &Path, state: &[u8], reaper: &Reaper) -> Result<(), helper::Error> {
    let directory = if bundle.is_dir() { bundle } else { Path::new("/") };
    let command = Command::new(&hook.path).args(hook.args.iter().skip(1)).started(|command| {
        if let Some(name) = hook.args.first() {
            command.arg0(name);
        }
        let environment = hook.env.iter().filter_map(|entry| entry.split_once('='));
        command.env_clear().envs(environment).current_dir(directory);
    });
    helper::run(reaper, command.input(state.to_vec()).deadline(hook.timeout)).await.map(drop)
}

/// The hooks a guest brings along.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GuestHooks {
    prestart: Vec<oci::Hook>,
    poststart: Vec<oci::Hook>,
    poststop: Vec<oci::Hook>,
}

impl GuestHooks {
    /// Finds the executable files below `directory`, in the order of their names. Where there are none, or no directory,
    /// there are no hooks.
    pub(crate) fn scan(directory: &Path) -> Self {
        let find = |turn| programs(&directory.join(turn)).iter().map(|path| guest_hook(path, turn)).collect();
        Self { prestart: find("prestart"), poststart: find("poststart"), poststop: find("poststop") }
    }

    /// Adds them to those that a container has already.
    pub(crate) fn add_to(&self, spec: &mut oci::Spec) {
        if *self == Self::default() {
            return;
        }
        let mut hooks = spec.hooks().clone().unwrap_or_default();
        #[allow(deprecated)] // its successor means the same, and guests have files for this one
        let prestart = hooks.prestart_mut();
        prestart.get_or_insert_default().extend(self.prestart.iter().cloned());
        hooks.poststart_mut().get_or_insert_default().extend(self.poststart.iter().cloned());
        hooks.poststop_mut().get_or_insert_default().extend(self.poststop.iter().cloned());
        spec.set_hooks(Some(hooks));
    }
}

/// Regular files only: a link could lead anywhere by the time it is run.
fn programs(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_program = |path: &PathBuf| {
        let found = path.symlink_metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_program).collect();
    paths.sort();
    paths
}

fn guest_hook(path: &Path, turn: &str) -> oci::Hook {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut hook = oci::Hook::default();
    hook.set_path(path.to_path_buf()).set_args(Some(vec![name, turn.to_string()]));
    hook
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("husk-hooks-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn script(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn hook(path: PathBuf) -> Hook {
        let args = vec!["named".to_string(), "argument".to_string()];
        Hook { path, args, env: vec!["A=b".into()], timeout: Duration::from_secs(5) }
    }

    async fn with_reaper<T>(work: impl AsyncFnOnce(&Reaper) -> T) -> T {
        let reaper = Reaper::default();
        tokio::select! {
            done = work(&reaper) => done,
            () = reaper.run_for_tests() => unreachable!("it runs for as long as it is asked to"),
        }
    }

    #[tokio::test]
    async fn they_run_in_order_with_the_state_until_one_fails() {
        let scratch = Scratch::new("order");
        let log = scratch.0.join("log");
        let note = |what: &str| format!("echo {what} $1 $A $(cat) >> {}", log.display());
        let hooks = Hooks {
            prestart: vec![hook(scratch.script("one", &note("one")))],
            create_runtime: vec![
                hook(scratch.script("two", &(note("two") + "; echo why >&2; exit 4"))),
                hook(scratch.script("three", &note("three"))),
            ],
            ..Hooks::default()
        };
        let failed = with_reaper(async |reaper| before_root(&hooks, 7, reaper).await).await.unwrap_err();
        let two = scratch.0.join("two");
        assert_eq!(failed.to_string(), format!("createRuntime hook {}: it ended with 4: why", two.display()));
        let log = fs::read_to_string(log).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(
            lines[0].starts_with("one argument b {")
                && lines[0].contains("\"status\":\"creating\",\"pid\":7")
        );
    }

    #[tokio::test]
    async fn what_comes_after_goes_on_whatever_happens_but_not_for_ever() {
        let scratch = Scratch::new("after");
        let log = scratch.0.join("log");
        let mut slow = hook(scratch.script("slow", "sleep 100"));
        slow.timeout = Duration::from_secs(1);
        let last = hook(scratch.script("last", &format!("cat > {}", log.display())));
        let missing = hook("/no/such/hook".into());
        let hooks = Hooks { poststop: vec![missing, slow, last], ..Hooks::default() };
        let begun = Instant::now();
        let state = hooks.state.json(Status::Stopped, None);
        with_reaper(async |reaper| all("poststop", &hooks.poststop, &hooks, &state, reaper).await).await;
        assert!(begun.elapsed() < Duration::from_secs(8));
        let state = fs::read_to_string(log).unwrap();
        assert!(state.contains("\"status\":\"stopped\"") && !state.contains("pid"), "{state}");
    }

    #[test]
    fn the_guests_are_executable_files_and_come_after_the_specs() {
        let scratch = Scratch::new("guest");
        for name in ["prestart/b", "prestart/a", "poststop/z"] {
            scratch.script(name, "true");
        }
        fs::write(scratch.0.join("prestart/readme"), "").unwrap();
        symlink("a", scratch.0.join("prestart/link")).unwrap();
        fs::create_dir(scratch.0.join("prestart/directory")).unwrap();
        let hooks = GuestHooks::scan(&scratch.0);
        let names: Vec<_> = hooks.prestart.iter().map(|hook| hook.args().clone().unwrap()).collect();
        assert_eq!(names, [["a", "prestart"], ["b", "prestart"]]);
        assert_eq!((hooks.poststart.len(), hooks.poststop.len()), (0, 1));

        let mut spec = oci::Spec::default();
        let mut own = oci::Hooks::default();
        let mut first = oci::Hook::default();
        first.set_path("/own".into());
        own.set_poststop(Some(vec![first.clone()])).set_start_container(Some(vec![first]));
        spec.set_hooks(Some(own));
        hooks.add_to(&mut spec);
        let all = spec.hooks().clone().unwrap();
        let paths = |hooks: &Option<Vec<oci::Hook>>| -> Vec<_> {
            hooks.iter().flatten().map(|hook| hook.path().clone()).collect()
        };
        assert_eq!(paths(all.poststop()), [PathBuf::from("/own"), scratch.0.join("poststop/z")]);
        assert_eq!(paths(all.start_container()), [PathBuf::from("/own")]);

        assert_eq!(GuestHooks::scan(Path::new("/no/such/directory")), GuestHooks::default());
        let mut plain = oci::Spec::default();
        let before = plain.clone();
        GuestHooks::default().add_to(&mut plain);
        assert_eq!(plain, before);
    }
}
