//! Sets of artefacts for a test to spoil: the files of another set, and its manifest, until the test changes them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use guest_manifest::{Artefact, Extension, Image, Manifest};
use tempfile::TempDir;

/// A set of artefacts of a test's own. It must live as long as the VM that has it.
#[derive(Debug)]
pub struct Set {
    dir: TempDir,
    manifest: Manifest,
}

impl Set {
    /// What is in a directory.
    pub fn of(dir: &Path) -> Set {
        let manifest = Manifest::load(dir).unwrap_or_else(|error| panic!("{error}"));
        let copy = TempDir::with_prefix("husk-set-").expect("a temporary directory");
        for artefact in manifest.artefacts() {
            let link = symlink(dir.join(&artefact.file), copy.path().join(&artefact.file));
            // One file may be there under two titles.
            link.or_else(|e| if e.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
                .expect("a link in a new directory");
        }
        let set = Set { dir: copy, manifest };
        set.save();
        set
    }

    /// Where it is.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Its image in a format.
    pub fn image(&self, format: &str) -> &Image {
        self.manifest.image(format).unwrap_or_else(|| panic!("there is no {format} in the set"))
    }

    /// With other bytes in an image. The manifest is left as it is: it says what the image should have been.
    pub fn bytes(self, format: &str, change: impl FnOnce(&mut [u8])) -> Set {
        self.rewrite(&self.image(format).artefact, change);
        self
    }

    /// Its extension, of which there is one.
    pub fn extension(&self) -> &Extension {
        self.manifest.extensions.first().expect("a set with an extension")
    }

    /// With other bytes in its extension.
    pub fn extension_bytes(self, change: impl FnOnce(&mut [u8])) -> Set {
        self.rewrite(&self.extension().artefact, change);
        self
    }

    /// With another word of the command line for its extension.
    pub fn extension_cmdline(mut self, cmdline: &str) -> Set {
        self.manifest.extensions[0].cmdline = cmdline.into();
        self.save();
        self
    }

    fn rewrite(&self, artefact: &Artefact, change: impl FnOnce(&mut [u8])) {
        let path = self.dir.path().join(&artefact.file);
        let mut bytes = std::fs::read(&path).expect("the image can be read");
        change(&mut bytes);
        std::fs::remove_file(&path).expect("a link can be removed");
        std::fs::write(&path, bytes).expect("a file in a directory of ours");
    }

    /// With another command line for an image.
    pub fn cmdline(mut self, format: &str, change: impl FnOnce(&str) -> String) -> Set {
        let image = self.manifest.images.iter_mut().find(|image| image.format == format);
        let cmdline = image.and_then(|image| image.cmdline.as_mut()).expect("an image that boots");
        *cmdline = change(cmdline);
        self.save();
        self
    }

    /// For another architecture, if one believes the manifest.
    pub fn arch(mut self, arch: &str) -> Set {
        self.manifest.arch = arch.into();
        self.save();
        self
    }

    /// Without the image in a format.
    pub fn without(mut self, format: &str) -> Set {
        self.manifest.images.retain(|image| image.format != format);
        self.save();
        self
    }

    fn save(&self) {
        self.manifest.write(self.dir.path()).expect("a manifest in a directory of ours");
    }
}
