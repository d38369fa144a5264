//! End-to-end tests: boot, do, assert.
//!
//! This library is the harness; it hides QEMU, sockets, specs and deadlines. A test is a few lines:
//!
//! ```no_run
//! e2e::test(async |guest| {
//!     let done = guest.container("c1").sh("echo hello; exit 3").run().await;
//!     assert_eq!((done.status, done.text()), (3, "hello"));
//! });
//! ```
//!
//! [`test`] hands out one VM, which all tests that run at that time share; the names of containers are made unique. A
//! test that changes the VM itself, or wants it different, boots its own: `Boot::new().memory(512).test(…)`. Tests of
//! the command line take a [`Cli`]. At most two VMs run at once; every test has a deadline, [`LIMIT`]. When a test
//! fails, what the console, the agent and QEMU said is printed with it.
//!
//! The tests are one program, `tests/e2e/`, a file per subject; its `main.rs` is their index. They need artefacts, an
//! image and the `husk` binary, which `cargo xtask test` builds and names in the environment.

mod cli;
mod container;
mod disk;
mod figure;
mod guest;
mod layer;
mod machine;
mod process;
mod set;
mod settings;
mod storage;
mod traces;

pub use cli::{Cli, Ended, Husk, Running};
pub use container::{Container, ContainerBuilder};
pub use disk::Disk;
pub use figure::Figure;
pub use guest::Guest;
pub use layer::{Layer, exchange_partitions, partitioned, rehashed};
pub use machine::{Boot, End, LIMIT, disk_address, test};
pub use process::{Output, Process, ProcessBuilder};
pub use set::Set;
pub use settings::Settings;
pub use storage::storage;
pub use traces::{Traces, Watch};

/// How a call that the agent refused ended.
pub fn code<T: std::fmt::Debug>(result: &Result<T, husk::agent::Error>) -> ttrpc::Code {
    match result {
        Err(husk::agent::Error::Refused { code, .. }) => *code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
