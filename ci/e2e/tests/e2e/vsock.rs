//! The same agent over the other transport.
//!
//! The host has no vsock of its own here; the vhost-device-vsock daemon provides one, and must be on PATH.

use e2e::Boot;
use sha2::{Digest, Sha256};

use super::noise;

#[test]
fn a_container_runs_over_vsock() {
    needs_the_daemon();
    Boot::new().vsock().test(async |guest| {
        guest.agent().check().await.unwrap();
        let done = guest.container("c1").sh("echo out; echo err >&2; exit 3").run().await;
        assert_eq!((done.status, done.text(), done.error_text()), (3, "out", "err"));
        let second = guest.connect().await;
        second.check().await.unwrap();
    });
}

#[test]
fn eight_mib_go_through_vsock_unchanged() {
    needs_the_daemon();
    const SIZE: usize = 8 << 20;
    Boot::new().vsock().test(async |guest| {
        let container = guest.container("cat").args(&["cat"]).start().await;
        let feed = async {
            let (mut digest, mut noise) = (Sha256::new(), noise(SIZE));
            while let Some(chunk) = noise.next_chunk(256 << 10) {
                digest.update(&chunk);
                container.init().write(&chunk).await;
            }
            container.init().close_stdin().await;
            digest.finalize()
        };
        let (sent, done) = tokio::join!(feed, container.init().output());
        assert_eq!((done.status, done.stdout.len(), Sha256::digest(&done.stdout)), (0, SIZE, sent));
    });
}

fn needs_the_daemon() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join("vhost-device-vsock").is_file());
    assert!(found, "vhost-device-vsock is not on PATH: run the tests with `cargo xtask test`");
}
