//! How bytes reach the agent: kernel vsock, a multiplexed virtio-serial port, or a socket of the guest's own.
//!
//! Every transport delivers the same thing, a [`Connection`] for a port, and each that the VM has is served. The
//! guest announces that it is ready by listening: vsock's listener accepts, the serial port is opened.

mod serial;
mod socket;
mod vsock;

use std::io;
use std::time::Duration;

use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::config::{Config, ServerAddress};

/// A byte stream from the host.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Connection for T {}

/// Connections of one port.
pub(crate) type Incoming = mpsc::Receiver<Box<dyn Connection>>;

/// A port that is served, and where its connections go.
#[derive(Clone)]
struct Port {
    number: u32,
    connections: mpsc::Sender<Box<dyn Connection>>,
}

impl Port {
    fn open(number: u32) -> (Self, Incoming) {
        // Connections beyond the queue wait in the transport, which has limits of its own.
        let (connections, incoming) = mpsc::channel(16);
        (Self { number, connections }, incoming)
    }
}

/// What the host can connect to.
pub(crate) struct Served {
    /// Connections for the ttrpc services.
    pub(crate) agent: Incoming,
    /// Connections for the log, if a port is configured for it.
    pub(crate) logs: Option<Incoming>,
    /// Connections for the debug console, if somebody asked for one on a port.
    pub(crate) console: Option<Incoming>,
}

/// No transport could be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("transport: {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error(
        "transport: the VM has neither a vsock device nor a virtio-serial port named {:?}",
        agent_api::ports::SERIAL_NAME
    )]
    None,
}

/// Serves the configured ports: the agent's where the settings say, the others on every transport of the VM.
pub(crate) fn serve(config: &Config) -> Result<Served, Error> {
    let (mut ports, served) = ports_of(config);
    let cid = match &config.server {
        ServerAddress::Vm { cid, .. } => *cid,
        address => {
            let agent = ports.remove(0);
            socket::serve(address, agent)
                .map_err(|source| Error::Listen { address: address.to_string(), source })?;
            if ports.is_empty() {
                tracing::info!(%address, "serving");
                return Ok(served);
            }
            None
        }
    };
    let vsock =
        vsock::serve(&ports, cid).map_err(|source| Error::Listen { address: "vsock".to_string(), source })?;
    let serial = cid.is_none()
        && serial::serve(ports)
            .map_err(|source| Error::Listen { address: agent_api::ports::SERIAL_NAME.to_string(), source })?;
    if !vsock && !serial {
        return Err(Error::None);
    }
    tracing::info!(address = %config.server, vsock, serial, "serving");
    Ok(served)
}

/// Connections of a unix socket, for tests of what comes after.
#[cfg(test)]
pub(crate) fn on_unix_socket(path: &std::path::Path) -> io::Result<Incoming> {
    let (port, incoming) = Port::open(0);
    socket::serve(&ServerAddress::Unix(path.into()), port)?;
    Ok(incoming)
}

/// Whether somebody outside the VM can connect to a port at all.
pub(crate) fn has_ports() -> bool {
    vsock::has_device() || serial::has_port()
}

fn ports_of(config: &Config) -> (Vec<Port>, Served) {
    let number = match config.server {
        ServerAddress::Vm { port, .. } => port,
        _ => agent_api::ports::AGENT,
    };
    let (agent, incoming) = Port::open(number);
    let mut ports = vec![agent];
    let mut open = |number: Option<u32>| {
        number.map(|number| {
            let (port, incoming) = Port::open(number);
            ports.push(port);
            incoming
        })
    };
    let logs = open(config.log_port);
    let console = open(config.debug_console_port.filter(|_| config.debug_console));
    (ports, Served { agent: incoming, logs, console })
}

/// A connection that did not come about. Most are over at once, as when a host connects and leaves while the VM boots;
/// a few, such as having no descriptor left, stay until somebody closes one, and the loop must not spin meanwhile.
async fn accept_failed(port: u32, error: &io::Error) {
    const RESPITE: Duration = Duration::from_millis(20);
    tracing::debug!(port, %error, "accept failed");
    tokio::time::sleep(RESPITE).await;
}

/// Serves the agent's port in a session of the serial port, over any stream in its place.
#[cfg(any(test, fuzzing))]
pub(crate) async fn serve_session(
    device: impl Connection,
    agent: mpsc::Sender<Box<dyn Connection>>,
) -> Result<(), yamux::ConnectionError> {
    serial::serve_session(device, &[Port { number: agent_api::ports::AGENT, connections: agent }]).await
}

/// The connections of a port in the form ttrpc's server takes.
pub(crate) fn listener(incoming: Incoming) -> ttrpc::r#async::transport::Listener {
    ttrpc::r#async::transport::Listener::new(stream::unfold(incoming, |mut incoming| async {
        let connection = incoming.recv().await?;
        Some((Ok(connection), incoming))
    }))
}
