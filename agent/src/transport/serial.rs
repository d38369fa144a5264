//! The virtio-serial port, multiplexed by yamux: the transport that needs nothing but a hypervisor with a serial bus.
//!
//! The host opens a yamux stream and asks for a port at its head (`agent_api::connect`). The port device is one
//! character device whose other end may come and go, so this module serves sessions one after the other.

use std::fs::{self, File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use agent_api::connect;
use nix::libc;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

use super::{Connection, Port};

/// How long a new stream may take to say which port it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often an absent host is looked for. The device reports a hang-up for as long as the host end is closed, so
/// there is no readiness to wait for.
const ABSENT_HOST: Duration = Duration::from_millis(20);

/// Streams a host may have open at once.
const MAX_STREAMS: usize = 64;

/// What all streams together may have on its way to us, in bytes: yamux's 256 KiB for each stream, and as much again for
/// busy ones to grow into.
const MAX_WINDOW: usize = 2 * MAX_STREAMS * (256 << 10);

/// Serves `ports` on the serial port; `false` when the VM has none of our name.
pub(super) fn serve(ports: Vec<Port>) -> io::Result<bool> {
    let Some(path) = find_port(Path::new(PORTS))? else { return Ok(false) };
    let device = SerialPort::open(&path)?;
    tokio::spawn(serve_sessions(path, device, ports));
    Ok(true)
}

/// The kernel's virtio-serial ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// Whether the VM has a port of our name.
pub(super) fn has_port() -> bool {
    find_port(Path::new(PORTS)).is_ok_and(|port| port.is_some())
}

/// The device node of the port with our name.
fn find_port(class: &Path) -> io::Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(class) else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == agent_api::ports::SERIAL_NAME {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Serves one session after the other; between two, the port is opened anew to forget the hang-up.
async fn serve_sessions(path: PathBuf, first: SerialPort, ports: Vec<Port>) {
    let mut device = Ok(first);
    loop {
        match device {
            Ok(device) => {
                if let Err(error) = serve_session(device, &ports).await {
                    tracing::debug!(%error, "a session of the serial port ended");
                }
            }
            Err(error) => tracing::error!(path = %path.display(), %error, "opening the serial port failed"),
        }
        tokio::time::sleep(ABSENT_HOST).await;
        device = SerialPort::open(&path);
    }
}

/// Serves the streams of one session until the host's end is closed.
pub(super) async fn serve_session(
    device: impl AsyncRead + AsyncWrite + Unpin,
    ports: &[Port],
) -> Result<(), yamux::ConnectionError> {
    let mut config = yamux::Config::default();
    // In this order: the window must suffice for the streams at every moment.
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_WINDOW));
    let mut session = yamux::Connection::new(device.compat(), config, yamux::Mode::Server);
    while let Some(stream) = poll_fn(|cx| session.poll_next_inbound(cx)).await {
        let (stream, ports) = (stream?.compat(), ports.to_vec());
        tokio::spawn(async move {
            if let Err(error) = hand_over(stream, &ports).await {
                tracing::debug!(%error, "a stream was refused");
            }
        });
    }
    Ok(())
}

/// Reads which port the stream is for and passes it on. A refusal closes the stream.
async fn hand_over(mut stream: impl Connection + 'static, ports: &[Port]) -> io::Result<()> {
    let line = tokio::time::timeout(HANDSHAKE, read_line(&mut stream)).await??;
    let number = connect::parse_request(&line)
        .ok_or_else(|| io::Error::other(format!("not a request for a port: {line:?}")))?;
    let port = ports
        .iter()
        .find(|port| port.number == number)
        .ok_or_else(|| io::Error::other(format!("port {number} is not served")))?;
    stream.write_all(connect::grant(number).as_bytes()).await?;
    stream.flush().await?;
    port.connections
        .send(Box::new(stream))
        .await
        .map_err(|_| io::Error::other("the port's service has ended"))
}

/// Reads up to a newline, byte by byte: what follows belongs to the service.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::with_capacity(connect::MAX_LINE);
    loop {
        match stream.read_u8().await? {
            b'\n' => return String::from_utf8(line).map_err(io::Error::other),
            _ if line.len() == connect::MAX_LINE => {
                return Err(io::Error::other("the handshake's line is too long"));
            }
            byte => line.push(byte),
        }
    }
}

/// The guest's end of a virtio-serial port.
struct SerialPort(AsyncFd<File>);

impl SerialPort {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self(crate::sys::watch(file)?))
    }
}

impl AsyncRead for SerialPort {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.try_io(|device| device.get_ref().read(buf.initialize_unfilled())) {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for SerialPort {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|device| device.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let class = std::env::temp_dir().join(format!("husk-ports-{}", std::process::id()));
        for (device, name) in [("vport0p1", "org.qemu.guest_agent.0"), ("vport0p2", "husk.agent")] {
            fs::create_dir_all(class.join(device)).unwrap();
            fs::write(class.join(device).join("name"), format!("{name}\n")).unwrap();
        }
        let found = find_port(&class).unwrap();
        fs::remove_dir_all(&class).unwrap();
        assert_eq!(found, Some(PathBuf::from("/dev/vport0p2")));
        assert_eq!(find_port(&class).unwrap(), None);
    }

    #[tokio::test]
    async fn a_stream_goes_to_the_port_it_asks_for() {
        let (port, mut incoming) = Port::open(1024);
        let (mut host, guest) = tokio::io::duplex(64);
        host.write_all(b"CONNECT 1024\nhello").await.unwrap();
        hand_over(guest, &[port]).await.unwrap();
        let mut answer = [0; 8];
        host.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"OK 1024\n");
        let mut greeting = [0; 5];
        incoming.recv().await.unwrap().read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello");
    }

    #[tokio::test]
    async fn a_stream_that_asks_for_nothing_we_serve_is_closed() {
        for request in ["CONNECT 99\n", "GET / HTTP/1.1\n", &"x".repeat(4096)] {
            let (port, _incoming) = Port::open(1024);
            let (mut host, guest) = tokio::io::duplex(8192);
            host.write_all(request.as_bytes()).await.unwrap();
            hand_over(guest, &[port]).await.unwrap_err();
            let mut rest = Vec::new();
            host.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty());
        }
    }
}
