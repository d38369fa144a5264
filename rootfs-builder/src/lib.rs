//! From pinned inputs to the artefacts that a VM boots.
//!
//! [`Toolchain`] finds or makes a compiler for static binaries, [`agent`] builds the agent with it, [`build_image`] joins
//! agent, ramdisk and kernel to a directory with a manifest, and [`demo_image`] makes the small container image that the
//! demo and the end-to-end tests run. None of it needs root, a container engine or a network that has more than a Debian
//! mirror, crates.io and PyPI.

pub mod agent;
mod command;
mod elf;
mod error;
mod image;
mod libseccomp;
mod oci_layout;
mod std_source;
mod swap;
mod toolchain;
mod zig;

pub use error::Error;
pub use image::{Image, build_image};
pub use oci_layout::demo_image;
pub use toolchain::Toolchain;
