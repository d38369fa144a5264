//! Where the files of an image come from. Each source takes what it is told by a recipe, trusts none of it, and puts it into
//! a [`guest_tree::Tree`].

pub(crate) mod directory;
pub(crate) mod oci;
