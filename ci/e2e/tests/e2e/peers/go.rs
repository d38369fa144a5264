//! The shim in Go: a container's first process goes by the container's id, reads are of 32 KiB, everything is stopped
//! and removed before `DestroySandbox` ends the VM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::agent::*;
use agent_api::oci::{Process, User};
use agent_api::paths;
use e2e::{Boot, Guest};
use protobuf::MessageField;
use tokio::sync::mpsc::unbounded_channel;
use ttrpc::Code;

use super::specs::{self, Dialect};
use super::{Id, NIC, Peer, code, health};

const GO: Dialect = Dialect {
    namespaces: &["mount", "ipc", "uts"],
    capability: |name| format!("CAP_{name}"),
    exec_id: str::to_string,
    below: "",
    annotations: |_, _| Vec::new(),
    keeps_start_hook: false,
};

const POD: &str = "pod-0123456789abcdef";
const WORK: &str = "work-0123456789abcdef";

#[test]
fn a_pod_as_the_shim_in_go_runs_it() {
    Boot::new().bare().qemu(&NIC).test(async |guest| {
        let peer = Peer { client: guest.agent(), read: 32 << 10 };
        let stop = Arc::new(AtomicBool::new(false));
        let (told, mut events) = unbounded_channel();
        start_sandbox(guest, &peer).await;
        let beside = async {
            let health = health(guest.agent(), Duration::from_millis(500), stop.clone());
            tokio::join!(peer.oom_events(told), health)
        };
        let pod = async {
            container(guest, &peer, POD, "sandbox", &["sleep", "100000"]).await;
            container(guest, &peer, WORK, "container", &["sh", "-c", WORKLOAD]).await;
            let init = Id { container: WORK, exec: WORK };
            let workload = async {
                let done = peer.attend(init, false).await;
                assert_eq!(done, (137, "up\n".into(), "errors\n".into()));
            };
            let execs = async {
                exec(&peer, guest).await;
                peer.stats(WORK).await;
                stop_container(&peer, WORK).await;
            };
            tokio::join!(workload, execs);
            stop_container(&peer, POD).await;
            stop.store(true, Ordering::Relaxed);
            let ctx = peer.ctx();
            peer.agent().destroy_sandbox(ctx, &DestroySandboxRequest::new()).await.unwrap();
        };
        let ((last, checks), ()) = tokio::join!(beside, pod);
        assert!(events.try_recv().is_err() && checks > 0, "{checks} checks");
        // Whoever waits for events learns of the end, one way or the other.
        println!("the last word on events: {last}");
        guest.vm().fate().gone().await;
    });
}

/// Says so, and stays whatever it is told.
const WORKLOAD: &str = "echo up; echo errors >&2; trap '' TERM; while :; do sleep 1000; done";

async fn start_sandbox(guest: &Guest, peer: &Peer) {
    guest.agent().check().await.unwrap();
    // No policy is configured, so SetPolicy is not sent.
    peer.interface().await;
    peer.routes().await;
    peer.neighbour().await;
    let request = CreateSandboxRequest {
        hostname: "pod".into(),
        dns: vec!["search example.org".into(), "nameserver 10.88.0.1".into(), String::new()],
        storages: guest.vm().share_storage(paths::SHARE_ROOT).into_iter().chain([specs::shm()]).collect(),
        sandbox_id: POD.into(),
        ..Default::default()
    };
    peer.agent().create_sandbox(peer.ctx(), &request).await.unwrap();
    peer.details().await;
}

/// Created, resized, started.
async fn container(guest: &Guest, peer: &Peer, id: &str, kind: &str, args: &[&str]) {
    specs::share(&GO, &guest.share(), id);
    peer.create(&specs::create(&GO, id, kind, args)).await;
    peer.online(1, true).await;
    peer.online(0, false).await;
    let no_mounts = UpdateEphemeralMountsRequest::new();
    peer.agent().update_ephemeral_mounts(peer.ctx(), &no_mounts).await.unwrap();
    peer.start(id).await;
}

/// `kubectl exec -t`: little is sent, the rest is the container's.
async fn exec(peer: &Peer, guest: &Guest) {
    let id = Id { container: WORK, exec: "0e0f3a3c-7b1c-4d4e-9a51-4c0d6b5f8a11" };
    let process = Process {
        Terminal: true,
        User: MessageField::some(User { AdditionalGids: vec![10], ..Default::default() }),
        Args: specs::texts(&[
            "sh",
            "-c",
            "stty size; read line; echo \"got $line\"; cat /etc/hosts; hostname; exit 5",
        ]),
        Env: specs::texts(&["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
        Cwd: "/".into(),
        ..Default::default()
    };
    let request = ExecProcessRequest {
        container_id: id.container.into(),
        exec_id: id.exec.into(),
        process: MessageField::some(process),
        ..Default::default()
    };
    // Stopped until its terminal has its size: the shim resizes right after the start, and the program may be quicker.
    let mut waiting = request.clone();
    waiting.process.mut_or_insert_default().Args[2].insert_str(0, "read go; ");
    peer.agent().exec_process(peer.ctx(), &waiting).await.unwrap();
    peer.resize(id, 40, 120).await;
    let attend = peer.attend(id, true);
    let write = async {
        peer.write(id, b"go\n").await;
        peer.write(id, b"line\n").await;
    };
    let ((status, output, _), ()) = tokio::join!(attend, write);
    assert_eq!(status, 5, "{output}");
    for text in ["40 120", "got line", "10.88.0.2 pod"] {
        assert!(output.contains(text), "{text:?} is not in {output:?}");
    }
    assert_eq!(code(peer.try_wait(id).await), Code::NOT_FOUND, "its status was told");
    // The id is free again, and a pipe's end is announced by CloseStdin.
    let mut cat = request;
    cat.process.mut_or_insert_default().Terminal = false;
    cat.process.mut_or_insert_default().Args = specs::texts(&["cat"]);
    peer.agent().exec_process(peer.ctx(), &cat).await.unwrap();
    let close = async {
        peer.write(id, b"all of it").await;
        let (container_id, exec_id) = (id.container.into(), id.exec.into());
        let request = CloseStdinRequest { container_id, exec_id, ..Default::default() };
        peer.agent().close_stdin(peer.ctx(), &request).await.unwrap();
    };
    let (done, ()) = tokio::join!(peer.attend(id, false), close);
    assert_eq!(done, (0, "all of it".into(), String::new()));
    guest.agent().check().await.unwrap();
}

async fn stop_container(peer: &Peer, id: &str) {
    let all = Id { container: id, exec: "" };
    peer.signal(all, 15).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    peer.signal(all, 9).await;
    // The stream's reader may have had the status already; then this must fail at once and not hang.
    match peer.try_wait(Id { container: id, exec: id }).await {
        Ok(status) => assert_eq!(status, 137),
        error => assert_eq!(code(error), Code::NOT_FOUND),
    }
    peer.termination_log(id).await;
    peer.remove(id).await;
    let request = RemoveStaleVirtiofsShareMountsRequest::new();
    peer.agent().remove_stale_virtiofs_share_mounts(peer.ctx(), &request).await.unwrap();
}
