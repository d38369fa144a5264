//! The shim in Rust: a container's first process has no id, reads are of 8 KiB, an empty write ends the input, and the
//! VM is just stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::agent::*;
use agent_api::oci::Process;
use agent_api::{paths, ports};
use e2e::{Boot, Guest};
use protobuf::MessageField;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::specs::{self, Dialect};
use super::{Id, NIC, Peer, health};

const RS: Dialect = Dialect {
    namespaces: &["mnt", "ipc", "uts", "cgroup"],
    capability: |name| format!("\"{name}\""),
    exec_id: |_| String::new(),
    below: "passthrough",
    annotations: |id, kind| {
        let kind = if kind == "sandbox" { "pod_sandbox" } else { "pod_container" };
        let ours = |key: &str, value: String| (format!("io.katacontainers.pkg.oci.{key}"), value);
        vec![ours("container_type", kind.into()), ours("bundle_path", format!("/run/bundles/{id}"))]
    },
    keeps_start_hook: true,
};

const POD: &str = "pod-fedcba9876543210";
const WORK: &str = "work-fedcba9876543210";

#[test]
fn a_pod_as_the_shim_in_rust_runs_it() {
    Boot::new().bare().qemu(&NIC).test(async |guest| {
        // Both ports at once, and no health check before use.
        let peer = Peer { client: guest.connect().await, read: 8 << 10 };
        let mut log = guest.vm().connect(ports::LOGS).await.unwrap();
        start_sandbox(guest, &peer).await;
        let stop = Arc::new(AtomicBool::new(false));
        let beside = tokio::spawn(health(guest.connect().await, Duration::from_millis(500), stop.clone()));
        let (told, mut events) = unbounded_channel();
        let listening = tokio::spawn({
            let peer = peer.clone();
            async move { peer.oom_events(told).await }
        });
        container(guest, &peer, POD, "sandbox", &["sleep", "100000"], false).await;
        // shareProcessNamespace: it sees the pod's own process as the first.
        container(guest, &peer, WORK, "container", &["sh", "-c", WORKLOAD], true).await;
        let init = Id { container: WORK, exec: "" };
        let attend = peer.attend(init, false);
        let input = async {
            peer.stats(WORK).await;
            peer.write(init, b"one ").await;
            exec(&peer).await;
            peer.write(init, b"two").await;
            // Its only way to say that there is no more.
            peer.write(init, b"").await;
        };
        let (done, ()) = tokio::join!(attend, input);
        assert_eq!(done, (3, "sleep\nhook\none two".into(), String::new()));
        runs_out_of_memory(guest, &peer, &mut events).await;
        for id in [WORK, POD] {
            peer.termination_log(id).await;
            peer.signal(Id { container: id, exec: "" }, 9).await;
            peer.remove(id).await;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(beside.await.unwrap() > 0);
        // A line of the log is worth something to it only as a record.
        let mut bytes = vec![0; 4096];
        let read = log.read(&mut bytes).await.unwrap();
        assert!(bytes[..read].starts_with(b"{"), "{:?}", String::from_utf8_lossy(&bytes[..read]));
        // The VM is stopped under its feet: nobody says goodbye.
        assert!(!listening.is_finished() && events.try_recv().is_err(), "nothing else happened");
        listening.abort();
    });
}

const WORKLOAD: &str = "tr '\\0' '\\n' < /proc/1/cmdline | head -n 1; ls /tmp; cat; exit 3";

async fn start_sandbox(guest: &Guest, peer: &Peer) {
    peer.interface().await;
    peer.neighbour().await;
    peer.routes().await;
    let request = CreateSandboxRequest {
        hostname: "pod".into(),
        storages: guest.vm().share_storage(paths::SHARE_ROOT).into_iter().chain([specs::shm()]).collect(),
        sandbox_id: POD.into(),
        ..Default::default()
    };
    peer.agent().create_sandbox(peer.ctx(), &request).await.unwrap();
    peer.details().await;
}

/// Resized, created, started.
async fn container(guest: &Guest, peer: &Peer, id: &str, kind: &str, args: &[&str], shared_pids: bool) {
    specs::share(&RS, &guest.share(), id);
    peer.online(1, false).await;
    let mut request = specs::create(&RS, id, kind, args);
    request.sandbox_pidns = shared_pids;
    // The hook leaves its mark where the container sees it.
    let tmp = request.OCI.mut_or_insert_default().Mounts[1].clone();
    request
        .OCI
        .mut_or_insert_default()
        .Mounts
        .push(agent_api::oci::Mount { destination: "/tmp".into(), ..tmp });
    peer.create(&request).await;
    peer.start(id).await;
}

/// The whole process of the engine, its capabilities and profile dropped.
async fn exec(peer: &Peer) {
    let process = Process {
        Args: specs::texts(&["sh", "-c", "grep CapBnd /proc/self/status; cat"]),
        Env: specs::texts(&["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]),
        Cwd: "/".into(),
        NoNewPrivileges: true,
        ..Default::default()
    };
    let id = Id { container: WORK, exec: "exec-1" };
    let request = ExecProcessRequest {
        container_id: id.container.into(),
        exec_id: id.exec.into(),
        process: MessageField::some(process),
        ..Default::default()
    };
    peer.agent().exec_process(peer.ctx(), &request).await.unwrap();
    let input = async {
        peer.write(id, b"typed").await;
        peer.write(id, b"").await;
    };
    let ((status, output, _), ()) = tokio::join!(peer.attend(id, false), input);
    // CHOWN, KILL and NET_RAW: the container's own, since the request has none.
    assert_eq!((status, output.as_str()), (0, "CapBnd:\t0000000000002021\ntyped"));
}

/// One more container, which the kernel ends; the pod hears of it once.
async fn runs_out_of_memory(guest: &Guest, peer: &Peer, events: &mut UnboundedReceiver<String>) {
    const HUNGRY: &str = "hungry-fedcba9876543210";
    specs::share(&RS, &guest.share(), HUNGRY);
    peer.online(1, false).await;
    let mut request = specs::create(&RS, HUNGRY, "container", &["sh", "-c", "tail /dev/zero"]);
    let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
    linux.Resources.mut_or_insert_default().Memory.mut_or_insert_default().Limit = 16 << 20;
    request.OCI.mut_or_insert_default().Hooks = MessageField::none();
    peer.create(&request).await;
    peer.start(HUNGRY).await;
    let id = Id { container: HUNGRY, exec: "" };
    let (status, ..) = peer.attend(id, false).await;
    assert_eq!(status, 137);
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    assert_eq!(event.expect("it is told of").as_deref(), Some(HUNGRY));
    peer.signal(id, 9).await;
    peer.remove(HUNGRY).await;
}
