//! Pinned inputs: where every byte of an artefact comes from, and where it is kept between builds.
//!
//! - a [`Pin`] says which file of a Debian archive is wanted: its path, size and sha256;
//! - [`fetch`] gets it from the machine's own mirror and checks it;
//! - [`unpack_deb`] and [`unpack_tar`] lay its files below one directory and nowhere else;
//! - a [`Cache`] holds whatever is worth keeping, by the [`Key`] of all it was made from;
//! - [`Progress`] tells a person (a bar) or a log (lines) how far a long step has come.
//!
//! Nothing here knows what a kernel or an agent is, and no address of a mirror is written down anywhere: it is read
//! from the machine's apt configuration.

mod cache;
mod deb;
mod error;
mod fetch;
mod key;
mod mirror;
mod pin;
mod progress;
mod untar;

pub use cache::Cache;
pub use deb::{DebMember, open_deb, unpack_deb};
pub use error::Error;
pub use fetch::{fetch, fetch_current};
pub use key::{Key, file_sha256, sha256};
pub use pin::{Archive, Pin};
pub use progress::{Progress, Task};
pub use untar::{confined, open_compressed, unpack_tar};
