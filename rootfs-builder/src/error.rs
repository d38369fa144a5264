//! What can go wrong while artefacts are made. Each variant is a step; each message names the object.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why an artefact could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pinned input could not be had.
    #[error(transparent)]
    Input(#[from] guest_inputs::Error),
    /// The ramdisk could not be written.
    #[error(transparent)]
    Initrd(#[from] initrd::Error),
    /// Something does not go into the root file system.
    #[error(transparent)]
    Tree(#[from] guest_tree::Error),
    /// The kernel could not be built.
    #[error(transparent)]
    Kernel(#[from] kernel_config::Error),
    /// The manifest could not be written.
    #[error(transparent)]
    Manifest(#[from] guest_manifest::Error),
    /// A lock file is none, or not of this version.
    #[error("lock {}: {what}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A lock file does not fit, and must be taken as it is.
    #[error("lock {}: {what}; `cargo xtask lock` brings it up to date", path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// What has changed.
        what: String,
    },
    /// A bill of material could not be written.
    #[error(transparent)]
    Sbom(#[from] guest_sbom::Error),
    /// An image could not be written.
    #[error(transparent)]
    Format(#[from] guest_formats::Error),
    /// Packages could not be resolved, fetched or unpacked.
    #[error(transparent)]
    Debian(#[from] guest_debian::Error),
    /// The recipe is wrong, or asks for what is not there.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::Error),
    /// Something in a directory is no part of any image.
    #[error("{} is {what}, which no image is made of", path.display())]
    Unwanted {
        /// What.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Something of an image cannot be listed.
    #[error("cannot list /{}", path.display())]
    Content {
        /// In the image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of the documents beside a manifest is not what it should be.
    #[error("{}: {source}", path.display())]
    Document {
        /// Which.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// A step on a file or directory failed.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried, as a verb.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("{stage}: cannot run {program}")]
    Start {
        /// What it was for.
        stage: &'static str,
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{stage}: {program} failed ({status}):\n{output}")]
    Failed {
        /// What it was for.
        stage: &'static str,
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote to standard error.
        output: String,
    },
    /// A pin file of this crate is wrong.
    #[error("{file}: {source}")]
    PinFile {
        /// Its path in the repository.
        file: &'static str,
        /// Where it stops making sense.
        source: Box<toml::de::Error>,
    },
    /// rustc's description of itself lacks something.
    #[error("toolchain: rustc -vV says nothing about {0}")]
    Rustc(&'static str),
    /// The standard library's source is not pinned for this rustc.
    #[error(
        "toolchain: rustc {rustc} has no {triple} target, and rootfs-builder/toolchain.toml pins the standard \
         library's source for {pinned} only: add a pin for {rustc}, or run `rustup target add {triple}`"
    )]
    NoStdSource {
        /// This machine's rustc.
        rustc: String,
        /// The target that is wanted.
        triple: &'static str,
        /// The versions there are pins for.
        pinned: String,
    },
    /// The standard library was built, but not all of it is there.
    #[error("std: the build for {triple} gave no {library}")]
    NoStd {
        /// The target.
        triple: &'static str,
        /// What is missing.
        library: &'static str,
    },
    /// The agent came out as something else than a static binary for the guest.
    #[error("agent: {} {what}", path.display())]
    NotStatic {
        /// The binary.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The image of busybox is not what it should be.
    #[error("busybox: {0}")]
    Busybox(String),
    /// There is no EFI for this architecture.
    #[error("uki: there is no EFI stub for {0}: its firmware starts a kernel as it is")]
    NoStub(guest_arch::Arch),
    /// There is no pin for this architecture.
    #[error("demo image: rootfs-builder/demo.toml has no busybox for {0}")]
    NoBusybox(guest_arch::Arch),
}

/// Shorthand for `map_err`: a failed step on a path.
pub(crate) fn at(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { step, path, source }
}
