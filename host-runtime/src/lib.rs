//! Husk's host runtime: one container, one virtual machine, nothing of the host inside.
//!
//! # The way of one container, from command to process
//!
//! `husk run --rm --image oci:DIR web -- httpd` goes through these files, in this order:
//!
//! 1. `main.rs`, `cli.rs`: words become [`command::RunOptions`]; every value is checked where it is parsed
//!    ([`name`], [`size`], [`signals`]).
//! 2. [`command::run`] takes the name: a directory of [`state`], which appears whole and locked.
//! 3. [`image`] finds the manifest in the layout and unpacks its layers, each digest checked, each path resolved with
//!    the new root file system as its root.
//! 4. [`vm`] boots: [`share`] starts virtiofsd for that one directory (or leaves it to QEMU's 9p), `qemu/config.rs`
//!    turns a value into an argument list, `process.rs` starts QEMU so that it cannot outlive us, `qemu/qmp.rs`
//!    follows its events. The guest opens the agent's serial port when it is ready to serve: that event, and no
//!    polling, is the signal to go on.
//! 5. [`transport`] puts a multiplexer on that port and serves `agent.sock`; [`agent`] connects to it, as any
//!    other process may.
//! 6. The agent is asked for a sandbox with the shared directory mounted, then for the container that [`container`]
//!    describes (an OCI spec), then to start it.
//! 7. `session.rs` carries stdin, stdout, stderr, the terminal and signals until both outputs have ended, and asks for
//!    the exit code, which becomes husk's.
//! 8. The container and the sandbox are removed, the guest powers off, QEMU leaves. What remains is killed, and every
//!    guard (state directory, files, sockets, processes) removes what it guards.
//!
//! `husk exec`, in another process, begins at 5: the socket is all it needs to know.
//!
//! # What holds throughout
//!
//! - The host parses nothing the guest wrote except RPC replies, the log stream and one quoted console line, each with
//!   a limit on its size. It never reads files of a running container.
//! - Every wait has a deadline or ends with the VM: [`vm::fate::Fate`] is set once, by whatever ends it (a panic, QEMU's
//!   death, a broken channel, the share's daemon), and every call to the agent watches it.
//! - Nothing is mounted on the host, and no process outlives `husk run`, not even when it is killed by SIGKILL.
//! - An error is one line: stage, object, cause.

pub mod agent;
pub mod artefacts;
pub mod command;
pub mod container;
mod error;
pub mod image;
mod log;
pub mod name;
mod process;
mod program;
mod qemu;
mod session;
pub mod share;
pub mod signals;
pub mod size;
pub mod state;
pub mod stdio;
mod sys;
mod terminal;
pub mod transport;
pub mod vm;

pub use error::Chained;
