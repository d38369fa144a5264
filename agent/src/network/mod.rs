//! The guest's network, as the runtime wants it: `UpdateInterface` and its kin, and the packet filter.

pub(crate) mod filter;
