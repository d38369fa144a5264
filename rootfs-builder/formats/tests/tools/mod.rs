//! The machine's own tools, which say whether our images are what they should be.

use std::process::{Command, Output};

/// Runs a tool to its end. One that is not installed is an error that says which Debian package has it.
pub(crate) fn run(tool: &str, package: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(tool);
    // Debian keeps some of them out of an ordinary user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command.args(arguments.iter().map(AsRef::as_ref));
    command.output().unwrap_or_else(|error| panic!("cannot run {tool} (Debian package {package}): {error}"))
}

/// The same for one that has to succeed: what it printed.
pub(crate) fn text(tool: &str, package: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let output = run(tool, package, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool}: {}\n{out}{err}", output.status);
    out.into_owned()
}
