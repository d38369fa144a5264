//! dpkg's database (`/var/lib/dpkg/status`): nothing here reads it, but who scans an image for known holes does.

use std::collections::BTreeMap;

use guest_tree::{Node, Origin, Tree};

use crate::error::Error;
use crate::stanza::Stanza;
use crate::unpacked::Unpacked;

const STATUS: &str = "var/lib/dpkg/status";

/// A package's stanza: its control file, with a word on its state (deb-control(5), dpkg-query(1)). Conffiles are not
/// listed: their digests serve upgrades, and there are none.
pub(crate) fn stanza(unpacked: &Unpacked) -> Result<String, String> {
    let control = Stanza::only(&unpacked.control).map_err(|error| format!("its control file: {error}"))?;
    let name = control.get("Package").ok_or("its control file has no Package")?;
    let rest: String = control
        .text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    match control.text.starts_with("Package:") {
        true => Ok(format!("Package: {name}\nStatus: install ok installed\n{rest}")),
        false => Err("its control file does not begin with Package".to_owned()),
    }
}

/// Writes the database.
pub(crate) fn write(
    tree: &mut Tree,
    stanzas: &BTreeMap<String, String>,
    origin: &Origin,
) -> Result<(), Error> {
    let whole: String = stanzas.values().map(|stanza| format!("{stanza}\n")).collect();
    tree.put(STATUS, Node::file(0o644, whole.as_str(), origin))?;
    Ok(())
}
