//! Kernel vsock: one listener a port, any context id.

use std::io;
use std::path::Path;

use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use super::Port;

/// Serves `ports` on vsock; `false` when the VM has no such device.
pub(super) fn serve(ports: &[Port]) -> io::Result<bool> {
    // The kernel offers the socket family without any device too, and a listener there would wait for nobody.
    if !Path::new("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport").is_dir() || !has_device() {
        return Ok(false);
    }
    for port in ports {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port.number))?;
        tokio::spawn(accept(listener, port.clone()));
    }
    Ok(true)
}

/// The driver's directory holds a link `virtioN` for each device it is bound to.
fn has_device() -> bool {
    std::fs::read_dir("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("virtio"))
    })
}

async fn accept(listener: VsockListener, port: Port) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if port.connections.send(Box::new(stream)).await.is_err() {
                    return;
                }
            }
            // A host that connects and leaves at once is common while a VM boots.
            Err(error) => tracing::debug!(port = port.number, %error, "accept failed"),
        }
    }
}
