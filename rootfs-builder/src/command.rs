//! Runs a build tool: its chatter goes to the progress display, its last lines into the error if it fails.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use guest_inputs::Task;

use crate::Error;

/// How much of a failed tool's output is worth showing.
const LINES_KEPT: usize = 60;

/// Runs `command`, which belongs to `stage`. Standard output is dropped: none of our tools says anything there.
pub(crate) fn run(stage: &'static str, command: &mut Command, task: &Task) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| Error::Start { stage, program: program.clone(), source };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let mut kept = VecDeque::new();
    let stderr = child.stderr.take().expect("it was piped above");
    // Bytes, not text: a compiler may quote anything. An unreadable pipe ends like a closed one.
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(crate_name) = line.trim_start().strip_prefix("Compiling ") {
            task.at("compiling", crate_name.split(" (").next().unwrap_or(crate_name));
        }
        if kept.len() == LINES_KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let output = kept.into_iter().collect::<Vec<_>>().join("\n");
    Err(Error::Failed { stage, program, status, output })
}

/// Cargo for a build that must not depend on who runs it: the caller's flags and directories are left out.
pub(crate) fn cargo(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    for name in
        ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "CARGO_INCREMENTAL"]
    {
        command.env_remove(name);
    }
    // What `cargo run` tells the program it runs is not meant for another build.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name.starts_with("CARGO_PROFILE_")
        {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// Flags in the form that takes blanks in paths.
pub(crate) fn encoded_flags(flags: &[String]) -> String {
    flags.join("\x1f")
}

#[cfg(test)]
mod tests {
    use guest_inputs::Progress;

    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 200 >&2; exit 3"]);
        let error = run("stage", &mut command, &Progress::silent().task("t")).unwrap_err().to_string();
        assert!(error.starts_with("stage: sh failed (exit status: 3):\n141\n142\n"), "{error}");
        assert!(error.ends_with("\n200"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error =
            run("stage", &mut Command::new("/nonexistent"), &Progress::silent().task("t")).unwrap_err();
        assert_eq!(error.to_string(), "stage: cannot run /nonexistent");
    }
}
