//! Sockets of the guest's own: unix, by path or by name, and TCP. For an agent that no hypervisor stands before.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net;
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use super::{Connection, Port};
use crate::config::ServerAddress;

/// Serves a port at an address that is not the VM's.
pub(super) fn serve(address: &ServerAddress, port: Port) -> io::Result<()> {
    match address {
        ServerAddress::Unix(path) => serve_unix(bind(path)?, port),
        ServerAddress::Abstract(name) => {
            serve_unix(net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?)?, port)
        }
        ServerAddress::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(async move { while pass(listener.accept().await, &port).await {} });
            Ok(())
        }
        ServerAddress::Vm { .. } => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

/// Binds a path, for the agent's own user alone: whoever connects rules the guest.
///
/// A socket that an earlier agent left is in the way and of no use. One that is served is left alone.
fn bind(path: &Path) -> io::Result<net::UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let listener = net::UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn serve_unix(listener: net::UnixListener, port: Port) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move { while pass(listener.accept().await, &port).await {} });
    Ok(())
}

/// Passes a connection on; `false` when nobody takes them any more.
async fn pass<C: Connection + 'static, A>(accepted: io::Result<(C, A)>, port: &Port) -> bool {
    match accepted {
        Ok((stream, _)) => port.connections.send(Box::new(stream)).await.is_ok(),
        Err(error) => {
            super::accept_failed(port.number, &error).await;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn greets(
        address: ServerAddress,
        mut client: impl Connection,
        mut incoming: super::super::Incoming,
    ) {
        client.write_all(b"hello").await.unwrap();
        let mut greeting = [0; 5];
        incoming.recv().await.unwrap().read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello", "{address}");
    }

    #[tokio::test]
    async fn each_kind_of_socket_takes_connections() {
        let name = format!("husk-test-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let (port, incoming) = Port::open(1);
        serve(&ServerAddress::Unix(path.clone()), port).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = tokio::net::UnixStream::connect(&path).await.unwrap();
        greets(ServerAddress::Unix(path.clone()), client, incoming).await;

        let (port, incoming) = Port::open(1);
        serve(&ServerAddress::Abstract(name.clone()), port).unwrap();
        let client = net::UnixStream::connect_addr(&net::SocketAddr::from_abstract_name(&name).unwrap());
        let client = client.unwrap();
        client.set_nonblocking(true).unwrap();
        let client = tokio::net::UnixStream::from_std(client).unwrap();
        greets(ServerAddress::Abstract(name), client, incoming).await;

        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (port, incoming) = Port::open(1);
        serve(&ServerAddress::Tcp(free), port).unwrap();
        greets(ServerAddress::Tcp(free), tokio::net::TcpStream::connect(free).await.unwrap(), incoming).await;
        fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let path = std::env::temp_dir().join(format!("husk-stale-{}", std::process::id()));
        drop(net::UnixListener::bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not a socket").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a socket");
        fs::remove_file(&path).unwrap();
    }
}
