//! The agent as a service of another init system, the real program: this test plays the part of that system.
//!
//! It runs in namespaces of its own, with a `/run` of its own, as the second process of its pid namespace. That takes
//! root, as unsharing does.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_api::agent::{CreateSandboxRequest, GuestDetailsRequest, MemAgentMemcgConfig};
use agent_api::agent_ttrpc::AgentServiceClient;
use agent_api::health::CheckRequest;
use agent_api::health_ttrpc::HealthClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;
use ttrpc::context;

const SOON: Duration = Duration::from_secs(30);

/// A running agent, and what a service manager has of it.
struct Service {
    dir: PathBuf,
    notices: UnixDatagram,
    manager: Child,
}

impl Service {
    fn start(name: &str, settings: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("husk-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let notices = UnixDatagram::bind(dir.join("notify")).unwrap();
        notices.set_read_timeout(Some(SOON)).unwrap();
        let config = dir.join("agent.toml");
        let address = format!("server_addr = \"unix://{}\"\n", dir.join("agent.sock").display());
        fs::write(&config, address + settings).unwrap();
        // The shell is the first process of the pid namespace, as an init system is, and the agent its child.
        let script = "mount -t tmpfs run /run && \"$@\"; echo $? > \"$STATUS\"";
        let manager = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc", "--net"])
            .args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_husk-agent"), "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", dir.join("notify"))
            .env("STATUS", dir.join("status"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join("log")).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { dir, notices, manager }
    }

    fn notice(&self) -> String {
        let mut buffer = [0; 1024];
        let read = self.notices.recv(&mut buffer).expect("a notice in time");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    async fn connect(&self) -> Client {
        Client::new(Socket::new(UnixStream::connect(self.dir.join("agent.sock")).await.unwrap()))
    }

    /// The agent's number outside of its pid namespace.
    fn pid(&self) -> i32 {
        let agent = env!("CARGO_BIN_EXE_husk-agent").as_bytes();
        let config = self.dir.join("agent.toml");
        let config = config.as_os_str().as_encoded_bytes();
        let is_ours = |pid: &i32| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = cmdline.split(|byte| *byte == 0).collect();
            words.first() == Some(&agent) && words.contains(&config)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(is_ours).expect("the agent runs")
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Waits for the end; the agent's status and what it said on stderr.
    fn ended(&mut self) -> (String, String) {
        let begun = Instant::now();
        while self.manager.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < SOON, "it is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut stderr = String::new();
        self.manager.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (fs::read_to_string(self.dir.join("status")).unwrap().trim().to_string(), stderr)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // What unshare started dies with it.
        let _ = self.manager.kill();
        let _ = self.manager.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn deadline() -> context::Context {
    context::with_duration(SOON)
}

#[tokio::test]
async fn a_service_manager_hears_when_it_is_ready_and_can_stop_it() {
    let core_pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let cores = core_pattern();
    let mut service = Service::start("service", "log_level = \"debug\"\n");
    assert!(service.notice().starts_with("READY=1\n"));
    let client = service.connect().await;
    HealthClient::new(client.clone()).check(deadline(), &CheckRequest::new()).await.unwrap();
    let agent = AgentServiceClient::new(client);
    let details = agent.get_guest_details(deadline(), &GuestDetailsRequest::new()).await.unwrap();
    assert!(!details.agent_details.init_daemon, "it is not the first process");

    match agent.mem_agent_memcg_set(deadline(), &MemAgentMemcgConfig::new()).await {
        Err(ttrpc::Error::RpcStatus(status)) => {
            assert_eq!(status.code(), ttrpc::Code::INTERNAL);
            assert!(status.message().starts_with("memory agent: it is off"), "{status:?}");
        }
        other => panic!("{other:?}"),
    }

    let pid = service.pid();
    let mounts = || fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let binary = mounts().lines().find(|line| line.contains(" /run/husk/agent ")).map(String::from);
    let options = binary.as_deref().and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
    assert!(options.starts_with("ro,"), "{binary:?}");
    assert_eq!(
        mounts().matches(" cgroup2 ").count(),
        fs_count("cgroup2"),
        "mounts are the init system's job"
    );
    assert_eq!(core_pattern(), cores, "and so is the kernel");

    let request =
        CreateSandboxRequest { sandbox_id: "s1".into(), hostname: "h1".into(), ..Default::default() };
    agent.create_sandbox(deadline(), &request).await.unwrap();
    assert!(mounts().contains(" /run/sandbox-ns/"), "the sandbox has namespaces");

    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(service.notice(), "STOPPING=1");
    let (status, stderr) = service.ended();
    assert_eq!((status.as_str(), stderr.as_str()), ("0", ""), "{}", service.log());
    let log = service.log();
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
    assert!(log.contains("told to stop"), "{log}");
}

/// How many file systems of a kind the test itself sees.
fn fs_count(kind: &str) -> usize {
    fs::read_to_string("/proc/self/mounts").unwrap().matches(&format!(" {kind} ")).count()
}

#[tokio::test]
async fn an_agent_that_cannot_start_fails_and_says_why() {
    let mut service = Service::start("unsafe", "policy_file = \"/no/such.rego\"\n");
    let (status, stderr) = service.ended();
    assert_eq!(status, "1");
    assert!(stderr.starts_with("husk-agent: configuration: policy_file: "), "{stderr}");
    assert!(service.notice().starts_with("STATUS=configuration: policy_file: "));
}

#[tokio::test]
async fn connections_that_come_and_go_leave_no_descriptor() {
    use tokio::io::AsyncWriteExt as _;
    let service = Service::start("descriptors", "");
    service.notice();
    let check = async || {
        let health = HealthClient::new(service.connect().await);
        health.check(deadline(), &CheckRequest::new()).await.unwrap();
    };
    check().await;
    let before = service.descriptors();
    for round in 0..3000 {
        let mut stream = UnixStream::connect(service.dir.join("agent.sock")).await.unwrap();
        // Some say something first: nothing, half a header, half a message.
        let half = [0, 0, 0, 100, 0, 0, 0, 1, 1, 0, 7];
        stream.write_all(&half[..[0, 3, 11][round % 3]]).await.unwrap();
    }
    check().await;
    let begun = Instant::now();
    while service.descriptors() > before + 1 {
        assert!(begun.elapsed() < SOON, "{} descriptors, {before} before", service.descriptors());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
