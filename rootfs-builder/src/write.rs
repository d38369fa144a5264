//! A tree in one format: the file, and what the manifest says of it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use guest_manifest::{Artefact, Image};
use guest_tree::Tree;

use crate::error::{Error, at};
use crate::format::Format;

/// The time of every file in every image, in seconds since 1970. None is as true as any other; this one is what most
/// people know for "no time".
pub(crate) const TIME: u32 = 0;

/// Writes `tree` in a format into a directory. `cmdline` is what any guest of this recipe has on its command line.
pub(crate) fn image(format: Format, tree: &Tree, cmdline: &[String], into: &Path) -> Result<Image, Error> {
    let path = into.join(format.file());
    let mut out = BufWriter::new(File::create(&path).map_err(at("create", &path))?);
    let words = cmdline.to_vec();
    match format {
        Format::Initrd(compression) => initrd::write(tree, TIME, compression, &mut out)?,
    }
    out.flush().map_err(at("write", &path))?;
    Ok(Image {
        format: format.name().to_owned(),
        artefact: Artefact::measure(into, format.file())?,
        cmdline: Some(words.join(" ")),
        verity: None,
    })
}
