//! Requests as nobody should send them: every field of every method missing, empty, negative, huge, no text, a path with
//! `..`, or twice. Each gets an answer, the agent lives on, and nothing stays.
//!
//! The fields come from the table of the wire itself (`agent-api.json`), so that a new one is not forgotten. What each
//! method is given first is a request that makes sense; then one field at a time is spoilt. `HUSK_ALL_FIELDS=1` spoils
//! every field in every way; without it, large messages get one way a field.

mod bases;
mod naming;
mod spoiling;
mod table;

use std::time::Duration;

use agent_api::ports;
use e2e::{Boot, Guest};
use husk::agent::Target;
use ttrpc::Code;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;

use bases::{Base, FRESH, UPDATED, VICTIM};
use table::Table;

/// How long a call may take that waits for something. Others have [`PATIENCE`].
const WAITS: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(20);

/// Messages with more spoilt forms than this get one a field.
const MANY: usize = 80;

#[test]
fn any_field_may_be_anything_and_nothing_stays_of_it() {
    let nic = ["-device", "virtio-net-pci,mac=02:00:00:00:00:09"];
    Boot::new().qemu(&nic).limit(Duration::from_secs(600)).test(async |guest| {
        let watch = guest.watch().await;
        let victim = guest.container("victim").request(|request| request.container_id = VICTIM.into());
        let victim = victim.args(&["sleep", "100000"]).start().await;
        warm_up(guest).await;
        let before = watch.look().await;
        // A limit that is one, and too low, ends what it is for: none of the others' business.
        let updated = guest.container("updated").request(|request| request.container_id = UPDATED.into());
        let updated = updated.args(&["sleep", "100000"]).start().await;
        let mut calls = 0;
        for base in bases::with_containers() {
            calls += spoil(guest, &base).await;
        }
        updated.remove().await;
        watch.nothing_is_left(&before).await;
        assert_eq!(victim.sh("echo unharmed").await, "unharmed");
        nothing_panicked(guest);
        println!("{calls} calls");
    });
}

/// `CreateSandbox` has its effects without containers only.
#[test]
fn a_sandbox_may_be_asked_for_in_any_way_and_nothing_stays_of_it() {
    Boot::new().test(async |guest| {
        let watch = guest.watch().await;
        let before = watch.look().await;
        watch.end().await;
        spoil(guest, &bases::sandbox()).await;
        guest.create_sandbox().await.unwrap();
        let watch = guest.watch().await;
        watch.nothing_is_left(&before).await;
        nothing_panicked(guest);
    });
}

/// Makes what the first call of its kind makes for the sandbox: the pod's cgroup, the agent's netlink socket, the
/// directory of its volumes.
async fn warm_up(guest: &Guest) {
    let client = raw(guest).await;
    let create = bases::with_containers().swap_remove(0);
    ask(&client, create.method, create.bytes.clone(), PATIENCE).await.unwrap();
    undo(guest, &create).await;
    ask(&client, "ListInterfaces", Vec::new(), PATIENCE).await.unwrap();
}

/// Sends all spoilt forms of a request. Returns how many that were.
async fn spoil(guest: &Guest, base: &Base) -> usize {
    let table = Table::read();
    let request = table.request(base.method);
    let mut forms = spoiling::forms(&table, request, &base.bytes);
    // A storage that is shared stays until the sandbox ends, as it should.
    forms.retain(|form| base.method != "CreateContainer" || !form.what.starts_with("storages.shared: "));
    if forms.len() > MANY && std::env::var_os("HUSK_ALL_FIELDS").is_none() {
        forms = spoiling::one_a_field(forms);
    }
    let client = raw(guest).await;
    for form in &forms {
        let limit = if base.waits { WAITS } else { PATIENCE };
        let answer = ask(&client, base.method, form.bytes.clone(), limit).await;
        check(base, &form.what, &answer);
        if answer.is_ok() {
            undo(guest, base).await;
        }
    }
    // As it should be, at last: it still works, or is refused for what it is.
    let answer = ask(&client, base.method, base.last(), PATIENCE.min(Duration::from_secs(5))).await;
    check(base, "nothing", &answer);
    if answer.is_ok() {
        undo(guest, base).await;
    }
    let alive = guest.agent().check().await;
    assert!(alive.is_ok(), "after {} {alive:?}", base.method);
    forms.len()
}

/// An answer, with a code that callers know and words that say what it is about.
fn check(base: &Base, what: &str, answer: &ttrpc::Result<Vec<u8>>) {
    let Err(error) = answer else { return };
    let ttrpc::Error::RpcStatus(status) = error else {
        if base.waits && error.to_string().contains("deadline") {
            return;
        }
        panic!("{} with {what}: the connection: {error}", base.method);
    };
    let usual = [
        Code::INTERNAL,
        Code::INVALID_ARGUMENT,
        Code::NOT_FOUND,
        Code::UNAVAILABLE,
        Code::UNIMPLEMENTED,
        Code::PERMISSION_DENIED,
    ];
    // What is no message is refused by ttrpc, before any handler: it has this code and these words for that.
    let no_message = status.code() == Code::UNKNOWN && status.message().contains("Unpack request");
    let late = base.waits && status.code() == Code::DEADLINE_EXCEEDED;
    assert!(late || no_message || usual.contains(&status.code()), "{} with {what}: {status:?}", base.method);
    assert!(!status.message().is_empty(), "{} with {what}: {status:?}", base.method);
    assert!(!status.message().contains("panic"), "{} with {what}: {}", base.method, status.message());
}

/// Takes back what a request did that was accepted.
async fn undo(guest: &Guest, base: &Base) {
    match base.method {
        "CreateContainer" => {
            let removed = guest.agent().remove_container(FRESH).await;
            assert!(removed.is_ok(), "{removed:?}");
        }
        "CopyFile" => {
            for entry in std::fs::read_dir(guest.share()).expect("the share").flatten() {
                if entry.file_name().to_string_lossy().starts_with("bad-") {
                    let path = entry.path();
                    let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
                }
            }
        }
        "ExecProcess" => {
            let target = Target { container: VICTIM.into(), exec_id: bases::EXEC.into() };
            // Under another id it stays a record of its container's, and goes with it.
            let _ = tokio::time::timeout(Duration::from_secs(5), guest.agent().wait(&target)).await;
        }
        _ => {}
    }
}

fn nothing_panicked(guest: &Guest) {
    let log = std::fs::read_to_string(guest.vm().agent_log()).unwrap_or_default();
    let panics: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}

async fn raw(guest: &Guest) -> Client {
    Client::new(Socket::new(guest.vm().connect(ports::AGENT).await.unwrap()))
}

async fn ask(client: &Client, method: &str, payload: Vec<u8>, limit: Duration) -> ttrpc::Result<Vec<u8>> {
    let request = ttrpc::proto::Request {
        service: "grpc.AgentService".into(),
        method: method.into(),
        timeout_nano: limit.as_nanos() as i64,
        payload,
        ..Default::default()
    };
    // The agent's own deadline is the one that is looked at.
    let answer = tokio::time::timeout(limit + Duration::from_secs(10), client.request(request)).await;
    answer.unwrap_or_else(|_| panic!("{method}: no answer at all")).map(|answer| answer.payload)
}
