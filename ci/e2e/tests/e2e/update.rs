//! `UpdateContainer`: limits of a running container, up, down and away.

use agent_api::agent::UpdateContainerRequest;
use agent_api::oci::{LinuxCPU, LinuxDeviceCgroup, LinuxPids, LinuxResources};
use e2e::{Container, Guest, test};
use protobuf::MessageField;
use ttrpc::{Code, context};

use crate::refusal;

const MIB: i64 = 1 << 20;

#[test]
fn every_limit_goes_up_down_and_away() {
    test(async |guest| {
        let container =
            guest.container("c1").args(&["sleep", "1000"]).memory(32 * MIB).pids(20).start().await;
        let files = "memory.max memory.swap.max memory.low cpu.weight cpu.max pids.max cpuset.cpus";
        let now = async || container.sh(&format!("cd /sys/fs/cgroup; cat {files}")).await.replace('\n', " ");
        for (limit, total, low) in [(64, 96, 8), (24, 24, 4), (128, 256, 16)] {
            let all =
                resources(Some((limit * MIB, total * MIB, low * MIB)), Some((30_000, 100_000)), Some(30));
            update(guest, &container, all).await.unwrap();
            let swap = (total - limit) * MIB;
            let wanted = format!("{} {swap} {} 20 30000 100000 30 0", limit * MIB, low * MIB);
            assert_eq!(now().await, wanted);
        }
        let stats = container.stats().await.cgroup_stats.unwrap();
        assert_eq!((stats.memory_stats.usage.limit, stats.pids_stats.limit), (128 << 20, 30));
        // "Unlimited" is a limit to set like any other.
        update(guest, &container, resources(Some((-1, -1, -1)), Some((-1, 0)), Some(-1))).await.unwrap();
        assert_eq!(now().await, "max max max 20 max 100000 max 0");
    });
}

#[test]
fn what_is_not_given_stays() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(32 * MIB).cpu(20_000, 50_000);
        let container = container.pids(9).start().await;
        let now = async || container.sh("cd /sys/fs/cgroup; cat memory.max cpu.max pids.max").await;
        let before = "33554432\n20000 50000\n9";
        update(guest, &container, None).await.unwrap();
        assert_eq!(now().await, before);
        update(guest, &container, Some(LinuxResources::new())).await.unwrap();
        update(guest, &container, resources(Some((0, 0, 0)), Some((0, 0)), Some(0))).await.unwrap();
        assert_eq!(now().await, before, "no limit of 0 is meant");
        // A quota without a period keeps the period, and the other way round.
        update(guest, &container, resources(None, Some((10_000, 0)), None)).await.unwrap();
        assert_eq!(now().await, "33554432\n10000 50000\n9");
        let mut period = LinuxResources::new();
        period.CPU = MessageField::some(LinuxCPU { Period: 40_000, ..Default::default() });
        update(guest, &container, Some(period)).await.unwrap();
        assert_eq!(now().await, "33554432\n10000 40000\n9");
    });
}

#[test]
fn new_limits_bind() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let fork = "for i in 1 2 3 4 5 6 7 8; do sleep 0.1 & done; wait; echo all";
        assert_eq!(container.sh(fork).await, "all");
        update(guest, &container, resources(None, None, Some(5))).await.unwrap();
        let held = container.exec(&["sh", "-c", fork]).run().await;
        assert!(held.error_text().contains("can't fork"), "{held:?}");
        update(guest, &container, resources(None, None, Some(-1))).await.unwrap();
        assert_eq!(container.sh(fork).await, "all");
    });
}

#[test]
fn an_update_that_fails_changes_nothing() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(32 * MIB).pids(9).start().await;
        let now = async || container.sh("cd /sys/fs/cgroup; cat memory.max pids.max cpu.max").await;
        let before = now().await;
        // Processor 99 is none that could be: what was set before it is set back.
        let mut bad = resources(Some((64 * MIB, 64 * MIB, 0)), Some((5_000, 10_000)), Some(50)).unwrap();
        bad.CPU.as_mut().unwrap().Cpus = "99999".into();
        let (code, text) = refusal(update(guest, &container, Some(bad)).await);
        assert!(code == Code::INTERNAL && text.contains("cpuset.cpus"), "{text}");
        let less = resources(Some((64 * MIB, 32 * MIB, 0)), None, Some(50));
        let (code, text) = refusal(update(guest, &container, less).await);
        assert!(code == Code::INTERNAL && text.contains("memory and swap"), "{text}");
        let mut rule = LinuxResources::new();
        rule.Devices = vec![LinuxDeviceCgroup { Type: "z".into(), ..Default::default() }];
        let (_, text) = refusal(update(guest, &container, Some(rule)).await);
        assert!(text.contains("devices") && text.contains('z'), "{text}");
        assert_eq!(now().await, before);
    });
}

#[test]
fn a_container_that_is_not_there() {
    test(async |guest| {
        let ctx = context::with_timeout(20_000_000_000);
        let request = UpdateContainerRequest { container_id: "nobody".into(), ..Default::default() };
        let answer = guest.agent().service().update_container(ctx, &request).await;
        assert_eq!(refusal(answer).0, Code::INVALID_ARGUMENT);
    });
}

#[test]
fn one_that_has_ended_is_updated_all_the_same() {
    test(async |guest| {
        let container = guest.container("c1").args(&["true"]).start().await;
        assert_eq!(container.init().wait().await, 0);
        update(guest, &container, resources(None, None, Some(7))).await.unwrap();
        assert_eq!(container.stats().await.cgroup_stats.pids_stats.limit, 7);
    });
}

fn resources(
    memory: Option<(i64, i64, i64)>,
    cpu: Option<(i64, u64)>,
    pids: Option<i64>,
) -> Option<LinuxResources> {
    let mut out = LinuxResources::new();
    if let Some((limit, total, low)) = memory {
        let memory = out.Memory.mut_or_insert_default();
        (memory.Limit, memory.Swap, memory.Reservation) = (limit, total, low);
    }
    if let Some((quota, period)) = cpu {
        let cpu = out.CPU.mut_or_insert_default();
        (cpu.Quota, cpu.Period) = (quota, period);
        if quota > 0 {
            (cpu.Shares, cpu.Cpus) = (512, "0".into());
        }
    }
    out.Pids = pids.map(|limit| LinuxPids { Limit: limit, ..Default::default() }).into();
    Some(out)
}

pub(crate) async fn update(
    guest: &Guest,
    container: &Container<'_>,
    resources: Option<LinuxResources>,
) -> ttrpc::Result<()> {
    let request = UpdateContainerRequest {
        container_id: container.id().into(),
        resources: resources.into(),
        ..Default::default()
    };
    let ctx = context::with_timeout(60_000_000_000);
    guest.agent().service().update_container(ctx, &request).await.map(drop)
}
