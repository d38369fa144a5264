//! Telling a service manager how it goes: sd_notify(3), one datagram to the socket that the environment names.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager, if there is one. What it does not get to know it finds out by itself.
pub(crate) fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = socket.to_str().ok_or_else(invalid).and_then(|socket| send(socket, state)) {
        tracing::warn!(?socket, %error, "the service manager cannot be told");
    }
}

fn send(socket: &str, state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if socket.starts_with('/') => SocketAddr::from_pathname(socket)?,
        None => return Err(invalid()),
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_hear_it() {
        let name = format!("husk-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        send(&format!("@{name}"), "STOPPING=1").unwrap();
        let mut buffer = [0; 64];
        let heard = |socket: &UnixDatagram, buffer: &mut [u8]| {
            let read = socket.recv(buffer).unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        };
        assert_eq!(heard(&by_path, &mut buffer), "READY=1");
        assert_eq!(heard(&by_name, &mut buffer), "STOPPING=1");
        std::fs::remove_file(path).unwrap();
        assert!(send("vsock:2:1", "READY=1").is_err());
        assert!(send("/nonexistent", "READY=1").is_err());
    }
}
