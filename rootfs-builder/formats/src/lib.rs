//! Root file systems as images. A [`guest_tree::Tree`] goes in; what comes out is the same bytes wherever and
//! whenever it is written.
//!
//! No format here is written by an outside tool, and none needs root, a mount or a loop device. What a format
//! demands but a tree does not have is chosen by us: all times are the one that the caller passes, a UUID is
//! the digest of the content, the order is that of the tree's paths. A size is exact: what the content needs,
//! in whole blocks.
//!
//! A tree that a format cannot hold (an attribute it has no name for, a file too long) is an [`Error`] that
//! names the path; nothing is left out in silence.

pub mod disk;
pub mod erofs;
pub mod ext4;
pub mod kata;
pub mod oci;
pub mod squashfs;
pub mod uki;
pub mod verity;

mod contents;
mod error;
mod inodes;
mod uuid;

pub use error::Error;
pub use uuid::Uuid;
