//! From an OCI spec to a contained process, in three acts.
//!
//! 1. **Decide.** [`plan::container`] and [`plan::exec`] are pure functions from an OCI spec to a [`Plan`]: every
//!    namespace, mount, device, limit and identity resolved, refusals made, nothing touched. A plan is a plain
//!    value that can be printed, compared and sent through a file.
//! 2. **Act.** [`spawn`] clones one child into the namespaces and the cgroup of the plan and makes it execute the
//!    agent's own binary again as `husk-agent jail`. There is no other process in between: what the plan's program
//!    becomes is a direct child of the agent.
//! 3. **Become.** In that child [`enter`] reads the plan, walks through a list of named steps (see `steps.rs`),
//!    reports `Ready`, waits for the start byte and executes the program. A step that fails is reported by name;
//!    [`Control`] is the agent's end of that conversation.
//!
//! [`cgroup`] makes, limits, measures and empties the cgroup a container lives in.
//!
//! The crate is synchronous, starts no thread, keeps no state and logs nothing. `unsafe` is in `sys.rs` only.

pub mod caps;
pub mod cgroup;
mod child;
mod control;
mod copy_up;
mod covers;
mod features;
mod hooks;
mod identity;
pub mod inside;
mod labels;
mod mounting;
mod nodes;
pub mod plan;
mod program;
mod rootfs;
mod share;
mod spawn;
mod steps;
mod sys;
mod terminal;
mod users;

/// The OCI runtime specification's types, as this crate takes them.
pub use oci_spec::runtime as oci;

pub use child::enter;
pub use control::{Control, ControlError, Failure, Message};
pub use features::{features, filters_system_calls};
pub use plan::{Context, PidNamespace, Plan, PlanError};
pub use share::{attach_mount_in, clone_mount_of};
pub use spawn::{ChildIo, SpawnError, Spawned, mapped_mounts, spawn};
