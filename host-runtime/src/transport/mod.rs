//! Byte streams to ports of the guest.
//!
//! However the bytes travel, a VM has one unix socket on which a client asks for a port by the hybrid handshake
//! ([`agent_api::connect`]): with vhost-device-vsock it is that daemon's own socket, over virtio-serial it is the
//! [`mux`]'s. So `husk exec`, which runs in another process than the VM, needs to know nothing but the socket's path.

pub(crate) mod mux;
pub(crate) mod vsock;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use agent_api::connect;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What carries the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A virtio-serial port with a multiplexer in this process: needs nothing but QEMU.
    #[default]
    Serial,
    /// AF_VSOCK in the guest, the vhost-device-vsock daemon on the host.
    Vsock,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        match text {
            "serial" => Ok(Kind::Serial),
            "vsock" => Ok(Kind::Vsock),
            _ => Err("expected serial or vsock".into()),
        }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket of the VM cannot be used.
    #[error("socket {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The guest has nobody on that port.
    #[error("port {0}: refused by the guest")]
    Refused(u32),
    /// The other side speaks something else.
    #[error("port {port}: not a handshake: {said:?}")]
    NotAHandshake {
        /// The port asked for.
        port: u32,
        /// What came instead.
        said: String,
    },
    /// Nothing came.
    #[error("port {port}: no answer within {} s", .limit.as_secs())]
    Late {
        /// The port asked for.
        port: u32,
        /// How long we waited.
        limit: Duration,
    },
}

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Opens a stream to `port` of the guest whose socket is `path`.
pub async fn connect(path: &Path, port: u32) -> Result<UnixStream, Error> {
    let socket = |source| Error::Socket { path: path.to_path_buf(), source };
    let mut stream = UnixStream::connect(path).await.map_err(socket)?;
    let shake = async {
        stream.write_all(connect::request(port).as_bytes()).await.map_err(socket)?;
        match read_line(&mut stream).await {
            Ok(Line::Text(line)) if connect::is_grant(&line) => Ok(()),
            Ok(Line::Text(said)) => Err(Error::NotAHandshake { port, said }),
            Ok(Line::Closed) => Err(Error::Refused(port)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(Error::Refused(port)),
            Err(e) => Err(socket(e)),
        }
    };
    match tokio::time::timeout(HANDSHAKE, shake).await {
        Ok(done) => done?,
        Err(_) => return Err(Error::Late { port, limit: HANDSHAKE }),
    }
    Ok(stream)
}

/// A line of a handshake.
#[derive(Debug, PartialEq)]
enum Line {
    /// Without its newline; cut off where it exceeds [`connect::MAX_LINE`].
    Text(String),
    /// The stream ended first.
    Closed,
}

/// Reads one line, and not one byte more: what follows belongs to somebody else.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Line> {
    let mut line = Vec::new();
    while line.len() < connect::MAX_LINE {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(Line::Closed);
        }
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
    }
    Ok(Line::Text(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn guest_says(answer: &'static [u8]) -> Result<UnixStream, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(read_line(&mut stream).await.unwrap(), Line::Text("CONNECT 7".into()));
            stream.write_all(answer).await.unwrap();
        });
        connect(&path, 7).await
    }

    #[tokio::test]
    async fn bytes_after_the_grant_are_not_swallowed() {
        let mut stream = guest_says(b"OK 1073741824\nhello").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn refusals_and_garbage_are_told_apart() {
        assert!(matches!(guest_says(b"").await, Err(Error::Refused(7))));
        assert!(matches!(guest_says(b"ERR go away\n").await, Err(Error::NotAHandshake { .. })));
        assert!(
            matches!(guest_says(&[b'O'; 5000]).await, Err(Error::NotAHandshake { said, .. }) if said.len() == 32)
        );
    }

    #[tokio::test]
    async fn no_socket_names_the_path() {
        let error = connect(Path::new("/nonexistent/agent.sock"), 7).await.unwrap_err();
        assert_eq!(error.to_string(), "socket /nonexistent/agent.sock");
    }
}
