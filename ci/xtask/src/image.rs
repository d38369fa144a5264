//! `cargo xtask image`: what is in finished artefacts, without unpacking any.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use guest_arch::Arch;
use guest_manifest::Manifest;
use rootfs_builder::contents::Contents;
use rootfs_builder::{diff, recipe};

use crate::workspace;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Which input put a file into an image
    Why {
        /// Its path in the image
        path: String,
        /// Directory of the artefacts; the minimal ones for this machine if it is not said
        #[arg(long, value_name = "DIR")]
        image: Option<PathBuf>,
    },
    /// What differs between two sets of artefacts: sizes, packages, kernel options, files
    Diff {
        /// Directory of the one
        before: PathBuf,
        /// Directory of the other
        after: PathBuf,
    },
    /// Every set of artefacts below a directory
    List {
        /// The directory; out/ if it is not said
        #[arg(value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Why { path, image } => why(path, image.as_deref()),
        Command::Diff { before, after } => {
            let lines = diff::diff(before, after)?;
            lines.iter().for_each(|line| println!("{line}"));
            if lines.is_empty() {
                println!("no difference");
            }
            Ok(())
        }
        Command::List { out } => list(&out.clone().unwrap_or_else(workspace::out)),
    }
}

fn why(path: &str, image: Option<&Path>) -> Result<()> {
    let usual = workspace::out().join(Arch::host().name()).join(recipe::DEFAULT);
    let dir = image.unwrap_or(&usual);
    let contents = Contents::load(dir)?;
    let found = contents.why(path);
    if found.is_empty() {
        bail!("there is no {path} in {}", dir.display());
    }
    for (image, entry) in found {
        let target = entry.target.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
        println!("{image}: {}{target}: {}", entry.path, entry.origin);
        let (uid, gid) = entry.owner;
        print!("    {} {} {uid}:{gid}", entry.kind, entry.mode);
        if let (Some(size), Some(digest)) = (entry.size, &entry.sha256) {
            print!(", {size} bytes, sha256 {digest}");
        }
        println!();
    }
    Ok(())
}

fn list(out: &Path) -> Result<()> {
    let children = |dir: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let mut paths: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        paths.sort();
        Ok(paths)
    };
    for arch in children(out)? {
        for dir in children(&arch)?.iter().filter(|dir| dir.join(guest_manifest::FILE).is_file()) {
            match Manifest::load(dir) {
                Ok(manifest) => println!("{}", line(&manifest, dir)),
                Err(error) => println!("{}: {error}", dir.display()),
            }
        }
    }
    Ok(())
}

fn line(manifest: &Manifest, dir: &Path) -> String {
    let images = manifest
        .images
        .iter()
        .map(|image| format!("{} ({:.1} MB)", image.format, image.artefact.size as f64 / 1e6));
    let images = images.collect::<Vec<_>>().join(", ");
    let Manifest { arch, recipe, variant, kernel_version, .. } = manifest;
    format!("{arch} {recipe}: linux {kernel_version} {variant}; {images}; {}", dir.display())
}
