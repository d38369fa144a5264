//! `grpc.AgentService`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_api::agent::*;
use agent_api::csi::VolumeStatsResponse;
use agent_api::{Empty, MAX_READ, agent_ttrpc, types};
use async_trait::async_trait;
use nix::libc;
use ttrpc::Result;
use ttrpc::r#async::TtrpcContext;

use super::status::{self, diagnostic, internal, invalid_argument, lookup, missing, policy, unavailable};
use crate::container::{self, Container};
use crate::guest::Guest;
use crate::network::filter;
use crate::process::Process;
use crate::stream::Output;
use crate::{clock, copy_file, details, mem_agent, oom, random, resources, spec, stats, storage, volume};

pub(super) struct AgentService {
    guest: Arc<Guest>,
}

impl AgentService {
    pub(super) fn new(guest: Arc<Guest>) -> Self {
        Self { guest }
    }

    fn container(&self, id: &str) -> std::result::Result<Arc<Container>, container::Error> {
        self.guest.containers.get(id).ok_or_else(|| container::Error::Unknown(id.to_string()))
    }

    fn process(&self, container: &str, id: &str) -> std::result::Result<Arc<Process>, container::Error> {
        self.container(container)?.process(id)
    }
}

#[async_trait]
impl agent_ttrpc::AgentService for AgentService {
    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> Result<Empty> {
        let has_containers = !self.guest.containers.all().is_empty();
        self.guest.sandbox.create(request, has_containers, &self.guest).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> Result<Empty> {
        self.guest.destroy_sandbox().await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> Result<GuestDetailsResponse> {
        Ok(details::describe(&request, self.guest.is_init))
    }

    async fn update_interface(
        &self,
        _: &TtrpcContext,
        request: UpdateInterfaceRequest,
    ) -> Result<types::Interface> {
        let wanted = request.interface.into_option().ok_or_else(|| missing("interface"))?;
        let Guest { network, devices, .. } = &*self.guest;
        network.update_interface(&wanted, devices).await.map_err(status::network)?;
        Ok(wanted)
    }

    async fn list_interfaces(&self, _: &TtrpcContext, _: ListInterfacesRequest) -> Result<Interfaces> {
        let all = self.guest.network.interfaces().await.map_err(status::network)?;
        Ok(Interfaces { Interfaces: all, ..Default::default() })
    }

    async fn update_routes(&self, _: &TtrpcContext, request: UpdateRoutesRequest) -> Result<Routes> {
        let wanted = request.routes.as_ref().ok_or_else(|| missing("routes"))?;
        let all = self.guest.network.update_routes(&wanted.Routes).await.map_err(status::network)?;
        Ok(Routes { Routes: all, ..Default::default() })
    }

    async fn mem_agent_memcg_set(&self, _: &TtrpcContext, _: MemAgentMemcgConfig) -> Result<Empty> {
        mem_agent::set().map_err(internal)?;
        Ok(Empty::new())
    }

    async fn mem_agent_compact_set(&self, _: &TtrpcContext, _: MemAgentCompactConfig) -> Result<Empty> {
        mem_agent::set().map_err(internal)?;
        Ok(Empty::new())
    }

    async fn list_routes(&self, _: &TtrpcContext, _: ListRoutesRequest) -> Result<Routes> {
        let all = self.guest.network.routes().await.map_err(status::network)?;
        Ok(Routes { Routes: all, ..Default::default() })
    }

    async fn add_arp_neighbors(&self, _: &TtrpcContext, request: AddARPNeighborsRequest) -> Result<Empty> {
        let wanted = request.neighbors.as_ref().ok_or_else(|| missing("neighbors"))?;
        self.guest.network.add_neighbours(&wanted.ARPNeighbors).await.map_err(status::network)?;
        Ok(Empty::new())
    }

    async fn online_cpu_mem(&self, _: &TtrpcContext, request: OnlineCPUMemRequest) -> Result<Empty> {
        let system = Path::new(resources::SYSTEM);
        resources::online(system, request.nb_cpus, request.cpu_only).await.map_err(internal)?;
        self.guest.containers.refresh_cpusets().await;
        Ok(Empty::new())
    }

    async fn mem_hotplug_by_probe(
        &self,
        _: &TtrpcContext,
        request: MemHotplugByProbeRequest,
    ) -> Result<Empty> {
        let system = Path::new(resources::SYSTEM);
        resources::probe(system, request.memHotplugProbeAddr).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn add_swap(&self, _: &TtrpcContext, request: AddSwapRequest) -> Result<Empty> {
        resources::swap_at(&self.guest.devices, &request.PCIPath).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn add_swap_path(&self, _: &TtrpcContext, request: AddSwapPathRequest) -> Result<Empty> {
        resources::swap_on(&request.path).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn reseed_random_dev(&self, _: &TtrpcContext, request: ReseedRandomDevRequest) -> Result<Empty> {
        random::reseed(&request.data).map_err(internal)?;
        Ok(Empty::new())
    }

    async fn set_guest_date_time(&self, _: &TtrpcContext, request: SetGuestDateTimeRequest) -> Result<Empty> {
        clock::set(request.Sec, request.Usec).map_err(internal)?;
        Ok(Empty::new())
    }

    async fn get_ip_tables(
        &self,
        _: &TtrpcContext,
        request: GetIPTablesRequest,
    ) -> Result<GetIPTablesResponse> {
        let data = filter::save(&self.guest.reaper, request.is_ipv6).await.map_err(internal)?;
        Ok(GetIPTablesResponse { data, ..Default::default() })
    }

    async fn set_ip_tables(
        &self,
        _: &TtrpcContext,
        request: SetIPTablesRequest,
    ) -> Result<SetIPTablesResponse> {
        let restored = filter::restore(&self.guest.reaper, request.is_ipv6, request.data);
        Ok(SetIPTablesResponse { data: restored.await.map_err(internal)?, ..Default::default() })
    }

    async fn create_container(&self, _: &TtrpcContext, request: CreateContainerRequest) -> Result<Empty> {
        let spec = request
            .OCI
            .as_ref()
            .ok_or_else(|| internal("OCI: the spec is missing (EINVAL: Invalid argument)"))?;
        let container = container::Request {
            spec: spec::container(spec).map_err(internal)?,
            id: request.container_id,
            devices: request.devices,
            storages: request.storages,
            shared_pids: request.sandbox_pidns,
            shared_mounts: request.shared_mounts,
        };
        container::create(container, &self.guest).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn start_container(&self, _: &TtrpcContext, request: StartContainerRequest) -> Result<Empty> {
        let container = self.container(&request.container_id).map_err(internal)?;
        container.start().await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn remove_container(&self, _: &TtrpcContext, request: RemoveContainerRequest) -> Result<Empty> {
        let container = self.container(&request.container_id).map_err(internal)?;
        let deadline = (request.timeout > 0).then(|| Duration::from_secs(request.timeout.into()));
        container.remove(deadline).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> Result<StatsContainerResponse> {
        let container = self.container(&request.container_id).map_err(lookup)?;
        Ok(stats::to_wire(container.stats().map_err(lookup)?, stats::interfaces()))
    }

    async fn update_container(&self, _: &TtrpcContext, request: UpdateContainerRequest) -> Result<Empty> {
        let container = self.container(&request.container_id).map_err(lookup)?;
        if let Some(resources) = request.resources.as_ref() {
            let resources = spec::resources::of_wire(resources).map_err(internal)?;
            container.update(resources).await.map_err(lookup)?;
        }
        Ok(Empty::new())
    }

    async fn pause_container(&self, _: &TtrpcContext, request: PauseContainerRequest) -> Result<Empty> {
        let container = self.container(&request.container_id).map_err(lookup)?;
        container.pause().await.map_err(lookup)?;
        Ok(Empty::new())
    }

    async fn resume_container(&self, _: &TtrpcContext, request: ResumeContainerRequest) -> Result<Empty> {
        let container = self.container(&request.container_id).map_err(lookup)?;
        container.resume().await.map_err(lookup)?;
        Ok(Empty::new())
    }

    async fn get_oom_event(&self, context: &TtrpcContext, _: GetOOMEventRequest) -> Result<OOMEvent> {
        let caller: oom::Caller = context.connection_data.clone();
        let container_id = self.guest.oom.next(&caller).await.map_err(internal)?;
        Ok(OOMEvent { container_id, ..Default::default() })
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        let container = self.container(&request.container_id).map_err(internal)?;
        let process = request.process.as_ref().ok_or_else(|| internal("process: it is missing"))?;
        let process = spec::process(process).map_err(internal)?;
        container.exec(request.exec_id, process).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> Result<Empty> {
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|signal| (0..=libc::SIGRTMAX()).contains(signal))
            .ok_or_else(|| invalid_argument(format!("signal: {} is not one", request.signal)))?;
        let kill_all = request.exec_id.is_empty() && signal == libc::SIGKILL;
        let container = self
            .container(&request.container_id)
            .map_err(|error| if kill_all { internal(error) } else { lookup(error) })?;
        container.signal(&request.exec_id, signal).await.map_err(lookup)?;
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> Result<WaitProcessResponse> {
        let container = self.container(&request.container_id).map_err(lookup)?;
        let status = container.wait(&request.exec_id).await.map_err(lookup)?;
        Ok(WaitProcessResponse { status, ..Default::default() })
    }

    async fn read_stdout(&self, _: &TtrpcContext, request: ReadStreamRequest) -> Result<ReadStreamResponse> {
        let process = self.process(&request.container_id, &request.exec_id).map_err(lookup)?;
        read(&process, &process.streams.stdout, request.len).await
    }

    async fn read_stderr(&self, _: &TtrpcContext, request: ReadStreamRequest) -> Result<ReadStreamResponse> {
        let process = self.process(&request.container_id, &request.exec_id).map_err(lookup)?;
        let stderr = process
            .streams
            .stderr
            .as_ref()
            .ok_or_else(|| internal("stderr: a process with a terminal has none"))?;
        read(&process, stderr, request.len).await
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> Result<WriteStreamResponse> {
        let process = self.process(&request.container_id, &request.exec_id).map_err(internal)?;
        let stdin = &process.streams.stdin;
        if request.data.is_empty() {
            // One of the known peers says so that there is no more input.
            stdin.close(&process.exit).await.map_err(internal)?;
        } else {
            stdin.write(&request.data, &process.exit).await.map_err(internal)?;
        }
        Ok(WriteStreamResponse { len: request.data.len() as u32, ..Default::default() })
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: CloseStdinRequest) -> Result<Empty> {
        let process = self.process(&request.container_id, &request.exec_id).map_err(lookup)?;
        process.streams.stdin.close(&process.exit).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn set_policy(&self, _: &TtrpcContext, request: SetPolicyRequest) -> Result<Empty> {
        self.guest.policy.set(request.policy).await.map_err(policy)?;
        Ok(Empty::new())
    }

    async fn get_metrics(&self, _: &TtrpcContext, _: GetMetricsRequest) -> Result<Metrics> {
        Ok(Metrics { metrics: self.guest.metrics.scrape().await, ..Default::default() })
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, request: TtyWinResizeRequest) -> Result<Empty> {
        let process = self.process(&request.container_id, &request.exec_id).map_err(lookup)?;
        let terminal =
            process.streams.terminal.as_ref().ok_or_else(|| unavailable("the process has no terminal"))?;
        let cells = |name: &str, count: u32| {
            u16::try_from(count).map_err(|_| invalid_argument(format!("{name}: {count} is too many")))
        };
        let (rows, columns) = (cells("row", request.row)?, cells("column", request.column)?);
        terminal.resize(rows, columns).map_err(internal)?;
        Ok(Empty::new())
    }

    async fn update_ephemeral_mounts(
        &self,
        _: &TtrpcContext,
        request: UpdateEphemeralMountsRequest,
    ) -> Result<Empty> {
        storage::update_ephemeral(request.storages).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: &TtrpcContext,
        _: RemoveStaleVirtiofsShareMountsRequest,
    ) -> Result<Empty> {
        self.guest.stale_mounts.look().await;
        Ok(Empty::new())
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> Result<Empty> {
        copy_file::copy(&self.guest.uploads, request).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn get_volume_stats(
        &self,
        _: &TtrpcContext,
        request: VolumeStatsRequest,
    ) -> Result<VolumeStatsResponse> {
        volume::stats(request.volume_guest_path).await.map_err(internal)
    }

    async fn resize_volume(&self, _: &TtrpcContext, request: ResizeVolumeRequest) -> Result<Empty> {
        let patience = self.guest.config.hotplug_timeout;
        volume::resize(request.volume_guest_path, request.size, patience).await.map_err(internal)?;
        Ok(Empty::new())
    }

    async fn get_diagnostic_data(
        &self,
        _: &TtrpcContext,
        request: GetDiagnosticDataRequest,
    ) -> Result<GetDiagnosticDataResponse> {
        let container = self.container(&request.container_id).map_err(lookup)?;
        let data = container.termination_log.read(&request.log_type).await.map_err(diagnostic)?;
        Ok(GetDiagnosticDataResponse { data, ..Default::default() })
    }
}

async fn read(process: &Process, output: &Output, len: u32) -> Result<ReadStreamResponse> {
    let data = output.read(len.min(MAX_READ) as usize, &process.exit).await.map_err(internal)?;
    Ok(ReadStreamResponse { data, ..Default::default() })
}
