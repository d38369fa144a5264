//! A guest with a hierarchy of cgroups for each controller, as older workloads want it.

use std::time::Duration;

use agent_api::agent::{GetOOMEventRequest, PauseContainerRequest};
use agent_api::oci::{LinuxCPU, LinuxMemory, LinuxPids, LinuxResources};
use e2e::Boot;
use nix::sys::signal::Signal::SIGKILL;
use protobuf::MessageField;
use ttrpc::context;

use crate::update::update;

const MIB: i64 = 1 << 20;

fn boot() -> Boot {
    Boot::new().cmdline("systemd.unified_cgroup_hierarchy=0")
}

#[test]
fn limits_bind_and_are_lifted() {
    boot().test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(32 * MIB).pids(20);
        let container = container.start().await;
        let files = "memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max";
        let now = async || container.sh(&format!("cd /sys/fs/cgroup; cat {files}")).await.replace('\n', " ");
        assert_eq!(now().await, format!("{} -1 20", 32 * MIB));
        let mut limits = LinuxResources::new();
        let memory = |limit: i64| LinuxMemory { Limit: limit, Swap: limit, ..Default::default() };
        for (limit, quota, pids, wanted) in [
            (64 * MIB, 20_000, 30, format!("{} 20000 30", 64 * MIB)),
            (24 * MIB, 10_000, 9, format!("{} 10000 9", 24 * MIB)),
            (-1, -1, -1, "9223372036854771712 -1 max".to_string()),
        ] {
            limits.Memory = MessageField::some(memory(limit));
            limits.CPU = MessageField::some(LinuxCPU { Quota: quota, ..Default::default() });
            limits.Pids = MessageField::some(LinuxPids { Limit: pids, ..Default::default() });
            update(guest, &container, Some(limits.clone())).await.unwrap();
            assert_eq!(now().await, wanted);
        }
        let stats = container.stats().await.cgroup_stats.unwrap();
        assert!(!stats.cpu_stats.cpu_usage.percpu_usage.is_empty(), "{stats:?}");
        assert!(stats.memory_stats.stats.contains_key("total_rss"), "{:?}", stats.memory_stats.stats);
        assert!(
            container.exec(&["sh", "-c", "echo 1 > /sys/fs/cgroup/pids/pids.max"]).run().await.status != 0
        );
    });
}

#[test]
fn kills_for_lack_of_memory_are_told() {
    boot().test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(16 * MIB).start().await;
        for _ in 0..2 {
            assert_eq!(container.exec(&["tail", "-n", "1", "/dev/zero"]).run().await.status, 137);
            let ctx = context::with_duration(Duration::from_secs(30));
            let event = guest.agent().service().get_oom_event(ctx, &GetOOMEventRequest::new()).await.unwrap();
            assert_eq!(event.container_id, container.id());
        }
    });
}

#[test]
fn a_paused_container_can_be_killed_and_removed() {
    boot().test(async |guest| {
        let killed = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let removed = guest.container("c2").args(&["sleep", "1000"]).start().await;
        for container in [&killed, &removed] {
            let ctx = context::with_duration(Duration::from_secs(30));
            let request = PauseContainerRequest { container_id: container.id().into(), ..Default::default() };
            guest.agent().service().pause_container(ctx, &request).await.unwrap();
        }
        killed.init().by_id(killed.id()).signal(SIGKILL as i32).await;
        let ended = tokio::time::timeout(Duration::from_secs(20), killed.init().wait());
        assert_eq!(ended.await.expect("it dies"), 137);
        let removal = async { removed.remove().await };
        tokio::time::timeout(Duration::from_secs(20), removal).await.expect("it goes");
    });
}

#[test]
fn devices_are_held_to_their_rules() {
    boot().test(async |guest| {
        let container = guest.container("c1").privileged().args(&["sleep", "1000"]).start().await;
        let script = "mknod /dev/it c 10 237 && echo made; (: < /dev/it) 2> /dev/null || echo held; \
                      echo x > /dev/null && echo null";
        assert_eq!(container.sh(script).await, "made\nheld\nnull");
    });
}
