//! From pinned inputs to the artefacts that a VM boots.
//!
//! [`Recipe`] says what somebody wants. [`Toolchain`] finds or makes a compiler for static binaries, [`agent`] builds the
//! agent with it. [`build_image`] lets every source of the recipe fill a tree, writes that in each [`Format`], and joins
//! it with the kernel to a directory with a manifest. [`demo_image`] makes the small container image that the demo and the
//! end-to-end tests run. None of it needs root, a container engine or a network that has more than a Debian mirror,
//! crates.io and PyPI.

pub mod agent;
mod command;
pub mod compare;
mod compose;
pub mod contents;
pub mod diff;
mod documents;
mod efi_stub;
mod elf;
mod error;
pub mod expected;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
mod libseccomp;
pub mod lock;
mod oci_layout;
pub mod packages;
mod parts;
pub mod recipe;
mod source;
mod std_source;
mod swap;
mod toolchain;
pub mod verify;
mod write;
mod zig;

pub use documents::Sources;
pub use efi_stub::efi_stub;
pub use error::Error;
pub use format::{Format, UnknownFormat};
pub use image::{Image, Ingredients, build_image};
pub use lock::Lock;
pub use oci_layout::demo_image;
pub use recipe::Recipe;
pub use toolchain::Toolchain;
