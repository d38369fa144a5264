//! What a recipe puts into an image, each entry checked as far as it can be without the image.

use std::path::{Component, Path, PathBuf};

use toml::Spanned;

use super::form::{DirectoryForm, ExtensionForm, FileForm};
use super::place::Source;
use super::{Error, Place, Said};

/// An OCI image layout whose files are the first in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The layout's directory.
    pub layout: PathBuf,
    /// Which of its images, where there are several.
    pub reference: Option<String>,
    /// As the recipe has it, and where.
    pub said: Said<String>,
}

/// A directory of this machine and where in the image its content goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// In the image.
    pub path: String,
    /// On this machine.
    pub from: PathBuf,
    /// As the recipe has it, and where.
    pub said: Said<String>,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// In the image.
    pub path: String,
    /// What it is.
    pub what: What,
    /// Permissions.
    pub mode: u32,
    /// The owner's number and the group's.
    pub owner: (u32, u32),
    /// Where the recipe says so.
    pub place: Place,
}

/// What a single file can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// This text.
    Text(String),
    /// What is in a file of this machine, as the recipe has it and as it is found.
    From(String, PathBuf),
    /// A symbolic link.
    Link(String),
    /// A character device.
    Device {
        /// Its driver's number.
        major: u32,
        /// The device's among its driver's.
        minor: u32,
    },
    /// A directory.
    Directory,
}

/// A read-only image of a directory, to be attached beside the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The first part of its file's name.
    pub name: String,
    /// The directory on this machine.
    pub from: PathBuf,
    /// As the recipe has it, and where.
    pub said: Said<String>,
}

impl Base {
    pub(super) fn new(source: &Source, said: &Spanned<String>) -> Result<Base, Error> {
        let place = source.place("base", said.span());
        let text = said.get_ref();
        let (layout, reference) = match text.rsplit_once(':') {
            Some((layout, reference)) if !reference.contains('/') => (layout, Some(reference.to_owned())),
            _ => (text.as_str(), None),
        };
        let layout = source.directory.join(layout);
        if !layout.join("oci-layout").is_file() {
            return Err(place.wrong(format!("{} is not an OCI image layout", layout.display())));
        }
        Ok(Base { layout, reference, said: Said { value: text.clone(), place } })
    }
}

impl Directory {
    pub(super) fn new(source: &Source, form: &DirectoryForm) -> Result<Directory, Error> {
        let path = plain_path(form.path.get_ref(), &source.place("directory.path", form.path.span()))?;
        let (from, said) = directory(source, "directory.from", &form.from)?;
        Ok(Directory { path, from, said })
    }
}

/// A virtio disk has a serial number of 20 bytes, and `extension-` takes half of it.
const LONGEST_NAME: usize = 10;

impl Extension {
    pub(super) fn new(source: &Source, form: &ExtensionForm) -> Result<Extension, Error> {
        let name = form.name.get_ref();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
            let place = source.place("extension.name", form.name.span());
            let rule = format!("a name is up to {LONGEST_NAME} lower-case letters, digits and dashes");
            return Err(place.wrong(format!("{name:?}: {rule}")));
        }
        let (from, said) = directory(source, "extension.from", &form.from)?;
        Ok(Extension { name: name.clone(), from, said })
    }
}

impl FileEntry {
    pub(super) fn new(source: &Source, form: &FileForm) -> Result<FileEntry, Error> {
        let place = source.place("file", form.path.span());
        let path = plain_path(form.path.get_ref(), &place)?;
        let mut kinds = Vec::new();
        if let Some(text) = &form.text {
            kinds.push((What::Text(text.clone()), 0o644));
        }
        if let Some(from) = &form.from {
            let found = source.directory.join(from.get_ref());
            if !found.is_file() {
                let place = source.place("file.from", from.span());
                return Err(place.wrong(format!("there is no file {}", found.display())));
            }
            kinds.push((What::From(from.get_ref().clone(), found), 0o644));
        }
        if let Some(target) = &form.link {
            if target.get_ref().is_empty() || target.get_ref().contains('\0') {
                return Err(source.place("file.link", target.span()).wrong("a link needs a target"));
            }
            kinds.push((What::Link(target.get_ref().clone()), 0o777));
        }
        if let Some(device) = &form.device {
            let (major, minor) = pair(device.get_ref()).ok_or_else(|| {
                source.place("file.device", device.span()).wrong("a device is two numbers: \"5:1\"")
            })?;
            kinds.push((What::Device { major, minor }, 0o600));
        }
        let (what, usual) = match kinds.len() {
            0 => (What::Directory, 0o755),
            1 => kinds.remove(0),
            _ => return Err(place.wrong("it can have only one of text, from, link and device")),
        };
        let mode = match &form.mode {
            None => usual,
            Some(mode) if *mode.get_ref() > 0o7777 => {
                let place = source.place("file.mode", mode.span());
                return Err(place.wrong(format!("{:o} is no mode: they end at 7777", mode.get_ref())));
            }
            Some(mode) if matches!(what, What::Link(_)) => {
                return Err(source.place("file.mode", mode.span()).wrong("a link has no mode of its own"));
            }
            Some(mode) => *mode.get_ref(),
        };
        let owner = match &form.owner {
            None => (0, 0),
            Some(owner) => pair(owner.get_ref()).ok_or_else(|| {
                source.place("file.owner", owner.span()).wrong("an owner is two numbers: \"1000:1000\"")
            })?,
        };
        Ok(FileEntry { path, what, mode, owner, place })
    }
}

/// A path in the image, from its root, in its one plain form.
pub(super) fn plain_path(text: &str, place: &Place) -> Result<String, Error> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let spelled = Path::new(text).components().collect::<PathBuf>();
    if !text.starts_with('/')
        || text.contains('\0')
        || spelled.as_os_str() != text
        || !spelled.components().all(plain)
    {
        return Err(place.wrong(format!("{text:?} is not a plain absolute path")));
    }
    Ok(text.to_owned())
}

/// A word of the kernel's command line, which has no way to write a blank outside of quotes.
pub(super) fn kernel_word(text: &str, place: &Place) -> Result<String, Error> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '"' || !c.is_ascii();
    if text.is_empty() || text.contains(odd) {
        return Err(place.wrong(format!("{text:?} is not one word of a kernel command line")));
    }
    Ok(text.to_owned())
}

fn directory(source: &Source, key: &str, from: &Spanned<String>) -> Result<(PathBuf, Said<String>), Error> {
    let place = source.place(key, from.span());
    let found = source.directory.join(from.get_ref());
    if !found.is_dir() {
        return Err(place.wrong(format!("there is no directory {}", found.display())));
    }
    Ok((found, Said { value: from.get_ref().clone(), place }))
}

/// "5:1".
fn pair(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, second) = text.split_once(':')?;
    Some((number(first)?, number(second)?))
}
