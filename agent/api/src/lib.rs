//! The contract between host and guest, and nothing that behaves.
//!
//! Both sides depend on this crate and never on each other. It holds
//!
//! - the protocol: messages, clients and service traits generated from `proto/`, wire compatible with the agent of
//!   Kata Containers 4.1 ([`agent`], [`agent_ttrpc`], [`health`], [`health_ttrpc`], [`oci`], [`csi`], [`types`]);
//! - our own service beside it, `husk.agent.v1` ([`husk`], [`husk_ttrpc`], [`stdio`]);
//! - the [`ports`] the guest answers on and the handshake that asks for one ([`connect`]);
//! - the keys the guest reads from its kernel command line ([`cmdline`]);
//! - the guest [`paths`] and mount tags that appear in requests.

mod generated {
    #![allow(missing_docs, rust_2018_idioms, unreachable_pub, unsafe_code, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}
pub use generated::{agent, agent_ttrpc, csi, health, health_ttrpc, husk, husk_ttrpc, oci, types};
pub use protobuf::well_known_types::empty::Empty;

pub mod cmdline;
pub mod connect;
#[cfg(feature = "fields")]
pub mod fields;
pub mod paths;
pub mod ports;
pub mod stdio;

/// The version of the protocol, as `Health.Version` answers it in `grpc_version`.
pub const API_VERSION: &str = "0.0.1";

/// The largest ttrpc message either side sends or accepts, in bytes (ttrpc's own limit, 4 MiB).
pub const MAX_MESSAGE: usize = 4 << 20;

/// The most output one `ReadStdout` or `ReadStderr` returns, in bytes, however much was asked for.
///
/// Peers ask for 8 or 32 KiB. A larger read saves round trips; this cap keeps what one request makes the guest
/// allocate far below [`MAX_MESSAGE`].
pub const MAX_READ: u32 = 1 << 20;
