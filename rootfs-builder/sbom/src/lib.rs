//! What an image is made of, said in the three formats that others read: [`spdx()`] (SPDX 2.3),
//! [`cyclonedx()`] (CycloneDX 1.6) and [`provenance()`] (SLSA 1 in an in-toto statement).
//!
//! Plain functions from values to bytes. A caller collects [`Component`]s ([`crates_of_agent`] and
//! [`crates_of_std`] read Rust's from cargo, [`debian_licence`] the licence of a Debian package), a
//! [`Document`] checks and sorts them, a writer writes. The same components give the same bytes, in whatever
//! order they came: identifiers are made from what they identify, and there is no clock. Nothing here names a
//! host: a component comes from an archive that has a name and a path below it.

mod component;
mod crates;
mod cyclonedx;
mod debian;
mod document;
mod error;
mod licence;
mod provenance;
mod purl;
mod sources;
mod spdx_json;
mod uuid;

pub use component::{Component, Digest, Id, Kind, Origin, Role, Sha256};
pub use crates::{crates_of_agent, crates_of_std};
pub use cyclonedx::cyclonedx;
pub use debian::debian_licence;
pub use document::Document;
pub use error::Error;
pub use licence::Licence;
pub use provenance::{Artefact, Build, Input, provenance};
pub use purl::Purl;
pub use spdx_json::spdx;

/// The one JSON form of all documents: indented, so that a difference has a line, and ended as a text file
/// is.
fn json(document: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec_pretty(document).expect("structs of strings, lists and maps of strings are JSON");
    bytes.push(b'\n');
    bytes
}
