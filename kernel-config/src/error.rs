//! What can go wrong with a kernel. Each variant is a step; each message names the object.

use std::{io, path::PathBuf};

use crate::fragment::Mismatch;

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source could not be had.
    #[error(transparent)]
    Inputs(#[from] guest_inputs::Error),
    /// `kernels.toml` is not what this crate expects.
    #[error("kernels.toml")]
    Pin(#[source] toml::de::Error),
    /// The pinned package holds another kernel than `kernels.toml` says.
    #[error("kernel source {package}: holds Linux {found}, kernels.toml says {expected}")]
    Version {
        /// The package's name and version.
        package: String,
        /// What its makefile says.
        found: String,
        /// What the pin says.
        expected: String,
    },
    /// A step on a file or directory failed.
    #[error("kernel: cannot {step} {}", path.display())]
    File {
        /// What was tried, as a verb.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A line of a fragment is neither a setting nor a comment.
    #[error("kernel fragment {file}:{line}: {text:?} is {what}")]
    Line {
        /// The fragment, as "common/core.conf".
        file: String,
        /// Counted from one.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Symbols that are set more than once.
    #[error("kernel fragments set a symbol twice: {}", .0.join("; "))]
    Twice(
        /// One text per symbol: its name and both places.
        Vec<String>,
    ),
    /// The kernel's own tools made something else of the fragments.
    #[error("kernel configuration: {}", join(.0))]
    Mismatch(
        /// Each symbol that differs.
        Vec<Mismatch>,
    ),
    /// A list of `checks/` is not in the form of one.
    #[error("kernel checks: checks/{list}")]
    List {
        /// Its name below `checks/`.
        list: String,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A group of a list says too much or too little.
    #[error("kernel checks: checks/{list} [{group}] {what}")]
    Group {
        /// The list's name below `checks/`.
        list: String,
        /// The group's.
        group: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The version of a kernel is none.
    #[error("kernels.toml: version: {0}")]
    Release(String),
    /// No kernel can be built in a directory of this name.
    #[error(
        "kernel: its makefile takes no path with a space or a colon, as in {} (XDG_CACHE_HOME can name another)",
        .0.display()
    )]
    Place(
        /// Where the source is.
        PathBuf,
    ),
    /// A program could not be started.
    #[error("kernel: cannot run {program}")]
    Run {
        /// Its name.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error("kernel: {step} failed ({status}); the end of its output:\n{tail}")]
    Make {
        /// Which step of the build.
        step: &'static str,
        /// How the program ended.
        status: std::process::ExitStatus,
        /// The last lines it wrote.
        tail: String,
    },
    /// The linked kernel is not an ELF file as we know them.
    #[error("kernel image {}: {what}", path.display())]
    Elf {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Shorthand for `map_err`: a failed step on a path.
pub(crate) fn at(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { step, path, source }
}

fn join(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(Mismatch::to_string).collect::<Vec<_>>().join("; ")
}
