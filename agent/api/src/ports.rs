//! Ports the guest answers on, whatever the transport.

/// The ttrpc services `grpc.AgentService` and `grpc.Health`.
pub const AGENT: u32 = 1024;
/// The agent's log, one JSON object a line, guest to host. Served when [`crate::cmdline::LOG_VPORT`] names it.
pub const LOGS: u32 = 1025;
/// A shell on a terminal of its own, only when asked for on the command line.
pub const DEBUG_CONSOLE: u32 = 1026;

/// Name of the virtio-serial port that carries all of the above, multiplexed by yamux.
///
/// The guest finds it in `/sys/class/virtio-ports/*/name`. The host is the yamux client (it opens streams), the guest
/// the server. A guest opens the port when it is ready to serve, and not earlier.
pub const SERIAL_NAME: &str = "husk.agent";
