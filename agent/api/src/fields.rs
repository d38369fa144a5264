//! The names of all fields: what is missing from messages of the lite runtime, for those who must show a message to
//! somebody. Generated from `proto/`.

/// A message of the protocol.
#[derive(Debug)]
pub struct Message {
    /// Its name, without its package.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name, as the generated code has it.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it holds any number of them.
    pub repeated: bool,
    /// Whether its absence differs from its default.
    pub optional: bool,
}

/// What a field holds. Messages are given by their place in [`MESSAGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    /// An enum's value too.
    Int32,
    Int64,
    Uint32,
    Uint64,
    Double,
    String,
    Bytes,
    Message(usize),
    /// A map, whose entries are messages with a key (1) and a value (2).
    Map(usize),
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// The service, with its package.
    pub service: &'static str,
    /// The method's name.
    pub name: &'static str,
    /// Its request, by its place in [`MESSAGES`].
    pub request: usize,
}

/// The request of a method.
pub fn request_of(service: &str, method: &str) -> Option<&'static Message> {
    let method = METHODS.iter().find(|entry| entry.service == service && entry.name == method)?;
    MESSAGES.get(method.request)
}

mod generated {
    #![allow(missing_docs, clippy::all)]
    use super::{Field, Kind, Message, Method};
    include!(concat!(env!("OUT_DIR"), "/fields.rs"));
}
pub use generated::{MESSAGES, METHODS};
