//! Kernel vsock: one listener a port, any context id.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use super::Port;

/// Serves `ports` on vsock, of one context id or of any; `false` when the VM has no such device.
pub(super) fn serve(ports: &[Port], cid: Option<u32>) -> io::Result<bool> {
    // The kernel offers the socket family without any device too, and a listener there would wait for nobody.
    if cid.is_none() && !has_device() {
        return Ok(false);
    }
    for port in ports {
        let listener = VsockListener::bind(VsockAddr::new(cid.unwrap_or(VMADDR_CID_ANY), port.number))?;
        tokio::spawn(accept(listener, port.clone()));
    }
    Ok(true)
}

/// The driver's directory holds a link `virtioN` for each device it is bound to.
pub(super) fn has_device() -> bool {
    std::fs::read_dir("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("virtio"))
    })
}

async fn accept(listener: VsockListener, port: Port) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if port.connections.send(Box::new(ShortWrites(stream))).await.is_err() {
                    return;
                }
            }
            Err(error) => super::accept_failed(port.number, &error).await,
        }
    }
}

/// The most one write hands to the kernel, in bytes.
///
/// Since 6.12.4x Linux sends a larger packet as several data descriptors, of which vhost-device-vsock 0.3 reads the
/// first: everything after it waits for ever. A kernel vhost does not mind the shorter packets.
const MAX_PACKET: usize = 16 << 10;

/// A stream whose writes are packets a userspace vsock device can take.
struct ShortWrites<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for ShortWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

/// Vectored writes are left to the default, which writes one slice at a time.
impl<S: AsyncWrite + Unpin> AsyncWrite for ShortWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(MAX_PACKET)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn no_write_is_longer_than_a_packet_and_none_is_lost() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = ShortWrites(near);
        let bytes = vec![7; 50_000];
        assert_eq!(near.write(&bytes).await.unwrap(), MAX_PACKET);
        near.write_all(&bytes[MAX_PACKET..]).await.unwrap();
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes);
    }
}
