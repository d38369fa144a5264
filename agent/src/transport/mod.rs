//! How bytes reach the agent: kernel vsock, a multiplexed virtio-serial port, or a unix socket for tests.
//!
//! Every transport delivers the same thing, a [`Connection`] for a port, and each that the VM has is served. The
//! guest announces that it is ready by listening: vsock's listener accepts, the serial port is opened.

mod serial;
mod vsock;

use std::io;

use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
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

/// Serves the configured ports on every transport there is.
pub(crate) fn serve(config: &Config) -> Result<Served, Error> {
    let (ports, served) = ports_of(config);
    match &config.server {
        ServerAddress::Unix(path) => {
            let agent = ports.into_iter().next().ok_or(Error::None)?;
            serve_unix(path, agent)?;
        }
        ServerAddress::Vm { .. } => {
            let vsock = vsock::serve(&ports)
                .map_err(|source| Error::Listen { address: "vsock".to_string(), source })?;
            let serial = serial::serve(ports).map_err(|source| Error::Listen {
                address: agent_api::ports::SERIAL_NAME.to_string(),
                source,
            })?;
            if !vsock && !serial {
                return Err(Error::None);
            }
            tracing::info!(vsock, serial, "serving");
        }
    }
    Ok(served)
}

fn ports_of(config: &Config) -> (Vec<Port>, Served) {
    let number = match config.server {
        ServerAddress::Vm { port } => port,
        ServerAddress::Unix(_) => agent_api::ports::AGENT,
    };
    let (agent, agent_incoming) = Port::open(number);
    let (mut ports, mut served) = (vec![agent], Served { agent: agent_incoming, logs: None });
    if let Some(number) = config.log_port {
        let (logs, incoming) = Port::open(number);
        ports.push(logs);
        served.logs = Some(incoming);
    }
    (ports, served)
}

fn serve_unix(path: &str, port: Port) -> Result<(), Error> {
    let listener = UnixListener::bind(path)
        .map_err(|source| Error::Listen { address: format!("unix://{path}"), source })?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if port.connections.send(Box::new(stream)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// The connections of a port in the form ttrpc's server takes.
pub(crate) fn listener(incoming: Incoming) -> ttrpc::r#async::transport::Listener {
    ttrpc::r#async::transport::Listener::new(stream::unfold(incoming, |mut incoming| async {
        let connection = incoming.recv().await?;
        Some((Ok(connection), incoming))
    }))
}
