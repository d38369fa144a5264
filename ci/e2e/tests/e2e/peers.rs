//! The two runtimes that the agent must serve without their noticing, as recorded orders of calls: the shim in Go
//! (`go`) and the one in Rust (`rs`). Each script is read from the top: a pod from the first connection to its end,
//! with that peer's ids, buffer sizes and peculiarities.

mod go;
mod rs;
mod specs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::agent::*;
use agent_api::agent_ttrpc::AgentServiceClient;
use agent_api::types::{ARPNeighbor, IPAddress, Interface, Route};
use husk::agent::Client;
use protobuf::MessageField;
use tokio::sync::mpsc::UnboundedSender;
use ttrpc::Code;
use ttrpc::context::{self, Context};

/// The card the pod's address goes to, as the scripts' VMs have it.
const NIC: [&str; 2] = ["-device", "virtio-net-pci,mac=02:00:00:00:00:0a"];
const MAC: &str = "02:00:00:00:00:0A";

/// What a peer gives most calls.
const LIMIT: Duration = Duration::from_secs(60);

/// A peer's connection: the calls, with what the peer always passes.
#[derive(Clone)]
struct Peer {
    client: Client,
    /// The size of its reads.
    read: u32,
}

/// Which process, as this peer names it.
#[derive(Clone, Copy)]
struct Id<'i> {
    container: &'i str,
    exec: &'i str,
}

impl Peer {
    fn agent(&self) -> &AgentServiceClient {
        self.client.service()
    }

    fn ctx(&self) -> Context {
        context::with_duration(LIMIT)
    }

    /// The pod's network, before there is a sandbox.
    async fn interface(&self) {
        let interface = pod_interface();
        let request =
            UpdateInterfaceRequest { interface: MessageField::some(interface.clone()), ..Default::default() };
        // Both peers try again while the card is not there.
        for _ in 0..20 {
            match self.agent().update_interface(self.ctx(), &request).await {
                Ok(answer) => return assert_eq!(answer, interface, "the reply echoes the request"),
                Err(error) => {
                    assert!(error.to_string().contains("Link not found"), "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        panic!("the card never came");
    }

    async fn routes(&self) {
        // The one through the gateway first: the agent must do them in an order that works.
        let through = Route { gateway: "10.88.0.1".into(), device: "eth0".into(), ..Default::default() };
        let direct = Route {
            dest: "10.88.0.0/16".into(),
            device: "eth0".into(),
            source: "10.88.0.2".into(),
            scope: 253,
            ..Default::default()
        };
        let routes = Routes { Routes: vec![through, direct], ..Default::default() };
        let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
        let all = self.agent().update_routes(self.ctx(), &request).await.unwrap();
        assert!(all.Routes.iter().any(|route| route.gateway == "10.88.0.1"), "{all:?}");
    }

    async fn neighbour(&self) {
        let address = IPAddress { address: "10.88.0.1".into(), ..Default::default() };
        let neighbour = ARPNeighbor {
            toIPAddress: MessageField::some(address),
            device: "eth0".into(),
            lladdr: "02:00:00:00:00:01".into(),
            state: 0x80,
            ..Default::default()
        };
        let neighbours = ARPNeighbors { ARPNeighbors: vec![neighbour], ..Default::default() };
        let request =
            AddARPNeighborsRequest { neighbors: MessageField::some(neighbours), ..Default::default() };
        self.agent().add_arp_neighbors(self.ctx(), &request).await.unwrap();
    }

    async fn details(&self) {
        let request =
            GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
        let details = self.agent().get_guest_details(self.ctx(), &request).await.unwrap();
        let agent = details.agent_details;
        // One of them creates no container in a guest that filters no system calls, if filters are wanted.
        assert!(!agent.version.is_empty() && agent.init_daemon && agent.supports_seccomp);
    }

    async fn online(&self, nb_cpus: u32, cpu_only: bool) {
        let request = OnlineCPUMemRequest { wait: false, nb_cpus, cpu_only, ..Default::default() };
        self.agent().online_cpu_mem(self.ctx(), &request).await.unwrap();
    }

    async fn create(&self, request: &CreateContainerRequest) {
        self.agent().create_container(self.ctx(), request).await.unwrap();
    }

    async fn start(&self, container: &str) {
        let request = StartContainerRequest { container_id: container.into(), ..Default::default() };
        self.agent().start_container(self.ctx(), &request).await.unwrap();
    }

    async fn signal(&self, id: Id<'_>, signal: u32) {
        let request = SignalProcessRequest {
            container_id: id.container.into(),
            exec_id: id.exec.into(),
            signal,
            ..Default::default()
        };
        self.agent().signal_process(self.ctx(), &request).await.unwrap();
    }

    async fn try_wait(&self, id: Id<'_>) -> ttrpc::Result<i32> {
        let (container_id, exec_id) = (id.container.into(), id.exec.into());
        let request = WaitProcessRequest { container_id, exec_id, ..Default::default() };
        Ok(self.agent().wait_process(Context::default(), &request).await?.status)
    }

    /// Both streams to their ends, and only then the status: a peer waits for nothing before.
    async fn attend(&self, id: Id<'_>, terminal: bool) -> (i32, String, String) {
        let stderr = async { if terminal { String::new() } else { self.drain(id, true).await } };
        let (stdout, stderr) = tokio::join!(self.drain(id, false), stderr);
        (self.try_wait(id).await.unwrap(), stdout, stderr)
    }

    async fn drain(&self, id: Id<'_>, stderr: bool) -> String {
        let (container_id, exec_id) = (id.container.into(), id.exec.into());
        let request = ReadStreamRequest { container_id, exec_id, len: self.read, ..Default::default() };
        let mut all = Vec::new();
        loop {
            let answer = if stderr {
                self.agent().read_stderr(Context::default(), &request).await
            } else {
                self.agent().read_stdout(Context::default(), &request).await
            };
            let data = answer.expect("the end of a stream is an empty answer and no error").data;
            // One of the peers panics when it gets more than it has room for.
            assert!(data.len() <= self.read as usize, "{} bytes for {}", data.len(), self.read);
            if data.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(data);
        }
    }

    async fn write(&self, id: Id<'_>, data: &[u8]) {
        let request = WriteStreamRequest {
            container_id: id.container.into(),
            exec_id: id.exec.into(),
            data: data.to_vec(),
            ..Default::default()
        };
        let answer = self.agent().write_stdin(Context::default(), &request).await.unwrap();
        assert_eq!(answer.len as usize, data.len());
    }

    async fn resize(&self, id: Id<'_>, row: u32, column: u32) {
        let (container_id, exec_id) = (id.container.into(), id.exec.into());
        let request = TtyWinResizeRequest { container_id, exec_id, row, column, ..Default::default() };
        self.agent().tty_win_resize(self.ctx(), &request).await.unwrap();
    }

    async fn stats(&self, container: &str) {
        let request = StatsContainerRequest { container_id: container.into(), ..Default::default() };
        let stats = self.agent().stats_container(self.ctx(), &request).await.unwrap();
        assert!(stats.cgroup_stats.pids_stats.current > 0, "{stats:?}");
    }

    /// The log of why it ended, which neither peer needs to be there.
    async fn termination_log(&self, container: &str) {
        let (log_type, container_id) = ("termination_log".into(), container.into());
        let request = GetDiagnosticDataRequest { log_type, container_id, ..Default::default() };
        let answer = self.agent().get_diagnostic_data(self.ctx(), &request).await.unwrap();
        assert_eq!(answer.data, "", "a missing file is an empty log");
    }

    /// `RemoveContainer` without a limit.
    async fn remove(&self, container: &str) {
        let request = RemoveContainerRequest { container_id: container.into(), ..Default::default() };
        self.agent().remove_container(self.ctx(), &request).await.unwrap();
    }

    /// Asks who ran out of memory until the agent has no more to say, as both peers do all the time.
    async fn oom_events(&self, told: UnboundedSender<String>) -> ttrpc::Error {
        loop {
            match self.agent().get_oom_event(Context::default(), &GetOOMEventRequest::new()).await {
                Ok(event) => told.send(event.container_id).expect("somebody listens"),
                Err(error) => return error,
            }
        }
    }
}

/// Asks whether the agent is well until told to stop. A peer tears the pod down at the first failure.
async fn health(client: Client, every: Duration, stop: Arc<AtomicBool>) -> u32 {
    let mut checks = 0;
    while !stop.load(Ordering::Relaxed) {
        client.check().await.expect("the health check is answered");
        checks += 1;
        tokio::time::sleep(every).await;
    }
    checks
}

fn pod_interface() -> Interface {
    let address = IPAddress { address: "10.88.0.2".into(), mask: "16".into(), ..Default::default() };
    Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        IPAddresses: vec![address],
        mtu: 1450,
        hwAddr: MAC.into(),
        ..Default::default()
    }
}

fn code<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> Code {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
