//! Keys of the kernel command line that the host sets too. The agent's `config` module has all keys and says what each
//! one means.

/// Log level: `trace`, `debug`, `info`, `warn`, `error` or `critical`.
pub const LOG: &str = "agent.log";
/// Port of the log stream; 0 or absent: logs go to the console.
pub const LOG_VPORT: &str = "agent.log_vport";
/// Size of a workload's stdout and stderr pipes, in bytes; 0: the kernel's default.
pub const CONTAINER_PIPE_SIZE: &str = "agent.container_pipe_size";
/// Where the agent listens: `vsock://-1:1024` for a VM, `unix://PATH` for a test or a remote peer.
pub const SERVER_ADDR: &str = "agent.server_addr";
/// A debug console, please; a flag.
pub const DEBUG_CONSOLE: &str = "agent.debug_console";
/// Port of the debug console; 0 or absent: the VM's own console.
pub const DEBUG_CONSOLE_VPORT: &str = "agent.debug_console_vport";
/// How the key begins and ends that names an extension of the guest, with what that is checked against as its value.
pub const EXTENSION: &str = "kata.extension.";
/// See [`EXTENSION`].
pub const VERITY_PARAMS: &str = ".verity_params";
