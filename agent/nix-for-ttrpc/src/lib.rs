//! What ttrpc 0.10 needs of nix 0.26 without its blocking half: the type of an error. Of the real one it would have all
//! compiled, which fails for s390x with musl, and is a second nix in every binary anywhere else. The workspace's manifest
//! puts this in its place.

pub use today::Error;
