//! Debian packages to a root file system: from names in a recipe to a [`guest_tree::Tree`], as anybody, for
//! any architecture, without dpkg, without an emulator, and without running a single script that a package
//! brings.
//!
//! - a [`Mirror`] gives the suites' lists of packages, believed because a key of `trusted.toml` signed them;
//! - [`resolve`] takes the packages that are wanted and all that they need: [`Package`]s, which a lock file
//!   holds;
//! - [`lay`] takes the packages apart and lays their files into a tree, [`prune`] takes out what an image
//!   does not want;
//! - [`finish`] does what is left, deterministically: accounts, units, the machine's identity, dpkg's
//!   database.
//!
//! What is not here: recipes and the lock file itself, and any image format.

mod copyright;
mod date;
mod error;
mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod keyring;
mod laid;
mod mirror;
mod package;
mod prune;
mod relation;
mod release;
mod resolve;
mod stanza;
mod status;
mod unpacked;
mod version;

pub use error::Error;
pub use finish::{Finish, finish};
pub use index::Packages;
pub use laid::{Laid, SetId, lay};
pub use mirror::Mirror;
pub use package::Package;
pub use prune::{Idle, Prune, prune};
pub use release::{Age, Release};
pub use resolve::{Request, Resolution, Waived, resolve};
pub use version::Version;
