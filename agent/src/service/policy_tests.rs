//! The gate in front of handlers of the test's own, behind a real server on a unix socket.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use agent_api::agent::*;
use agent_api::health::CheckRequest;
use agent_api::health_ttrpc::HealthClient;
use agent_api::husk_ttrpc::{self, AgentClient};
use agent_api::{Empty, agent_ttrpc, health_ttrpc};
use agent_ttrpc::AgentServiceClient;
use nix::libc;
use tokio::net::UnixStream;
use ttrpc::r#async::transport::Socket;
use ttrpc::r#async::{Client, Server};
use ttrpc::context;

use super::*;

/// Notes what gets to it. Setting a policy is the real thing.
struct Handlers {
    policy: Policy,
    reached: Mutex<Vec<String>>,
}

impl Handlers {
    fn note(&self, what: &str) -> ttrpc::Result<Empty> {
        self.reached.lock().unwrap().push(what.to_string());
        Ok(Empty::new())
    }
}

#[async_trait]
impl agent_ttrpc::AgentService for Handlers {
    async fn set_policy(&self, _: &TtrpcContext, request: SetPolicyRequest) -> ttrpc::Result<Empty> {
        self.policy.set(request.policy).await.map_err(status::policy)?;
        self.note("SetPolicy")
    }

    async fn update_routes(&self, _: &TtrpcContext, _: UpdateRoutesRequest) -> ttrpc::Result<Routes> {
        self.note("UpdateRoutes")?;
        Ok(Routes::new())
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.note(&format!("ExecProcess {}", request.exec_id))
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        self.note(&format!("CopyFile {}", request.path))
    }

    async fn read_stdout(&self, _: &TtrpcContext, _: ReadStreamRequest) -> ttrpc::Result<ReadStreamResponse> {
        self.note("ReadStdout")?;
        let reads = self.reached.lock().unwrap().iter().filter(|what| *what == "ReadStdout").count();
        let data = if reads < 4 { b"secret".to_vec() } else { Vec::new() };
        Ok(ReadStreamResponse { data, ..Default::default() })
    }
}

struct Agent {
    service: AgentServiceClient,
    husk: AgentClient,
    health: HealthClient,
    handlers: Arc<Handlers>,
    _server: Server,
}

async fn agent(name: &str, policy: Policy) -> Agent {
    let handlers = Arc::new(Handlers { policy: policy.clone(), reached: Mutex::default() });
    let mut services = agent_ttrpc::create_agent_service(handlers.clone());
    let guest = Arc::new(crate::guest::Guest::new(crate::config::Config::default()));
    services.extend(husk_ttrpc::create_agent(Arc::new(super::super::husk::HuskService::new(guest))));
    let mut services = gate(services, &policy);
    services.extend(health_ttrpc::create_health(Arc::new(super::super::health::Health)));
    let socket = std::env::temp_dir().join(format!("husk-policy-{name}-{}", std::process::id()));
    let incoming = crate::transport::on_unix_socket(&socket).unwrap();
    let server = super::super::start(services, incoming).await.unwrap();
    let client = Client::new(Socket::new(UnixStream::connect(&socket).await.unwrap()));
    std::fs::remove_file(&socket).unwrap();
    Agent {
        service: AgentServiceClient::new(client.clone()),
        husk: AgentClient::new(client.clone()),
        health: HealthClient::new(client),
        handlers,
        _server: server,
    }
}

/// The policy of a file with this text.
fn policy(name: &str, text: &str) -> Policy {
    let file = TextFile::new(name, text);
    Policy::load(Some(&file.0))
}

struct TextFile(PathBuf);

impl TextFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("husk-policy-{name}-{}.rego", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ctx() -> context::Context {
    context::with_duration(Duration::from_secs(20))
}

fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
    match result {
        Ok(_) => Code::OK,
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        Err(other) => panic!("{other}"),
    }
}

async fn set(agent: &Agent, text: &str) -> Code {
    let request = SetPolicyRequest { policy: text.into(), ..Default::default() };
    code(agent.service.set_policy(ctx(), &request).await)
}

async fn exec(agent: &Agent, id: &str, args: &[&str]) -> Code {
    let process = agent_api::oci::Process {
        Args: args.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let request =
        ExecProcessRequest { exec_id: id.into(), process: Some(process).into(), ..Default::default() };
    code(agent.service.exec_process(ctx(), &request).await)
}

const OPEN: &str = "package agent_policy\n\
    default AllowRequestsFailingPolicy := true\n\
    default SetPolicyRequest := true\n";

#[tokio::test]
async fn policy_is_set_before_there_is_a_sandbox_and_replaces_the_old_one() {
    let agent = agent("set", policy("set", OPEN)).await;
    assert_eq!(code(agent.service.update_routes(ctx(), &UpdateRoutesRequest::new()).await), Code::OK);
    let strict = "package agent_policy\ndefault SetPolicyRequest := false\ndefault ExecProcessRequest := false\n\
        ExecProcessRequest if input.process.Args[0] == \"ls\"\n";
    for bad in ["", "package other\nx := 1", "package agent_policy\nthis is not rego"] {
        assert_eq!(set(&agent, bad).await, Code::INVALID_ARGUMENT, "{bad:?}");
        assert_eq!(exec(&agent, "still", &["sh"]).await, Code::OK, "the old policy holds on");
    }
    let v1 =
        format!("package agent_policy\nimport future.keywords.if\n{}", strict.split_once('\n').unwrap().1);
    assert_eq!(set(&agent, &v1).await, Code::OK);
    assert_eq!(exec(&agent, "e1", &["ls"]).await, Code::OK);
    assert_eq!(exec(&agent, "e2", &["sh"]).await, Code::PERMISSION_DENIED);
    // Without a rule there is no permission.
    assert_eq!(
        code(agent.service.update_routes(ctx(), &UpdateRoutesRequest::new()).await),
        Code::PERMISSION_DENIED
    );
    assert_eq!(set(&agent, OPEN).await, Code::PERMISSION_DENIED);
    assert_eq!(exec(&agent, "e3", &["sh"]).await, Code::PERMISSION_DENIED, "the strict policy holds on");
    let reached = agent.handlers.reached.lock().unwrap().clone();
    assert!(!reached.iter().any(|what| what.contains("e2") || what.contains("e3")), "{reached:?}");
    assert_eq!(code(agent.health.check(ctx(), &CheckRequest::new()).await), Code::OK);
}

#[tokio::test]
async fn policy_that_is_missing_or_broken_allows_nothing() {
    let broken = policy("broken", "package agent_policy\n{");
    let nowhere = Policy::load(Some(std::path::Path::new("/nonexistent/policy.rego")));
    for (name, policy) in [("broken", broken), ("nowhere", nowhere)] {
        let agent = agent(name, policy).await;
        assert_eq!(exec(&agent, "e1", &["ls"]).await, Code::PERMISSION_DENIED, "{name}");
        assert_eq!(set(&agent, OPEN).await, Code::PERMISSION_DENIED, "{name}");
        assert!(agent.handlers.reached.lock().unwrap().is_empty());
        assert_eq!(code(agent.health.check(ctx(), &CheckRequest::new()).await), Code::OK);
    }
}

#[tokio::test]
async fn policy_answers_that_are_not_yes_are_no() {
    let answers = [
        "1",
        "\"true\"",
        "[true]",
        "{\"ok\": true}",
        "{\"allowed\": \"yes\"}",
        "null",
        "1 / 0",
        "input.nosuch",
    ];
    for answer in answers {
        let text = format!("package agent_policy\nExecProcessRequest := {answer}\n");
        let agent = agent("answers", policy("answers", &text)).await;
        assert_eq!(exec(&agent, "e1", &["ls"]).await, Code::PERMISSION_DENIED, "{answer}");
    }
    let agent =
        agent("yes", policy("yes", "package agent_policy\nExecProcessRequest := {\"allowed\": true}\n"))
            .await;
    assert_eq!(exec(&agent, "e1", &["ls"]).await, Code::OK);
}

#[tokio::test]
async fn policy_state_changes_with_the_requests_it_allows() {
    // Each id may be used once: what was used is in the state.
    let text = "package agent_policy\n\
        default ExecProcessRequest := {\"allowed\": false}\n\
        ExecProcessRequest := {\"allowed\": true, \"ops\": ops} {\n\
            not data.pstate[input.exec_id]\n\
            ops := [{\"op\": \"add\", \"path\": concat(\"/\", [\"\", \"pstate\", input.exec_id]), \"value\": true}]\n\
        }\n\
        default UpdateRoutesRequest := {\"allowed\": true, \"ops\": [\n\
            {\"op\": \"add\", \"path\": \"/pstate/half\", \"value\": 1},\n\
            {\"op\": \"remove\", \"path\": \"/pstate/nosuch\"}]}\n\
        default ReadStreamRequest := false\n\
        CopyFileRequest := true { data.pstate.half }\n";
    let agent = agent("state", policy("state", text)).await;
    for (id, expected) in
        [("a", Code::OK), ("a", Code::PERMISSION_DENIED), ("b", Code::OK), ("b", Code::PERMISSION_DENIED)]
    {
        assert_eq!(exec(&agent, id, &["ls"]).await, expected, "{id}");
    }
    // A patch that fails half way changes nothing, and denies.
    assert_eq!(
        code(agent.service.update_routes(ctx(), &UpdateRoutesRequest::new()).await),
        Code::PERMISSION_DENIED
    );
    assert_eq!(code(agent.service.copy_file(ctx(), &CopyFileRequest::new()).await), Code::PERMISSION_DENIED);
    assert_eq!(exec(&agent, "a", &["ls"]).await, Code::PERMISSION_DENIED, "the state is still there");
}

#[tokio::test]
async fn policy_silences_output_to_its_end() {
    let agent =
        agent("silence", policy("silence", "package agent_policy\ndefault ReadStreamRequest := false\n"))
            .await;
    let answer = agent.service.read_stdout(ctx(), &ReadStreamRequest::new()).await.unwrap();
    assert!(answer.data.is_empty());
    let reads = agent.handlers.reached.lock().unwrap().len();
    assert_eq!(reads, 4, "all of it was read, so that the workload does not wait for a reader");
}

#[tokio::test]
async fn policy_sees_a_copied_file_without_its_content_and_a_link_with_its_target() {
    let text = "package agent_policy\n\
        default CopyFileRequest := false\n\
        CopyFileRequest { input.symlink_src == \"../ok\"; not input.data }\n\
        CopyFileRequest { input.symlink_src == \"\"; startswith(input.path, \"/run/\"); not input.data }\n";
    let agent = agent("copy", policy("copy", text)).await;
    let copy = async |path: &str, mode: u32, data: &[u8]| {
        let request =
            CopyFileRequest { path: path.into(), file_mode: mode, data: data.to_vec(), ..Default::default() };
        code(agent.service.copy_file(ctx(), &request).await)
    };
    assert_eq!(copy("/run/a", libc::S_IFREG | 0o644, b"content").await, Code::OK);
    assert_eq!(copy("/etc/a", libc::S_IFREG | 0o644, b"content").await, Code::PERMISSION_DENIED);
    assert_eq!(copy("/run/l", libc::S_IFLNK | 0o777, b"../ok").await, Code::OK);
    assert_eq!(copy("/run/l", libc::S_IFLNK | 0o777, b"/etc/shadow").await, Code::PERMISSION_DENIED);
}

#[tokio::test]
async fn policy_gates_our_own_service_and_leaves_no_stream_open() {
    let text = "package agent_policy\ndefault GetTimelineRequest := true\ndefault RefreshRequest := false\n";
    let agent = agent("own", policy("own", text)).await;
    assert_eq!(
        code(agent.husk.get_timeline(ctx(), &agent_api::husk::GetTimelineRequest::new()).await),
        Code::OK
    );
    let refresh = agent_api::husk::RefreshRequest::new();
    assert_eq!(code(agent.husk.refresh(ctx(), &refresh).await), Code::PERMISSION_DENIED);
    let mut stream = agent.husk.output(context::Context::default()).await.unwrap();
    assert_eq!(code(stream.recv().await), Code::UNIMPLEMENTED);
    let version = agent.health.version(ctx(), &CheckRequest::new()).await.unwrap().agent_version;
    assert!(!agent_api::stdio::is_announced(&version), "{version}");
}
