//! `StatsContainer`: figures beyond limits, which are in `limits`.

use agent_api::agent::StatsContainerRequest;
use agent_api::oci::LinuxDevice;
use e2e::{Boot, Disk, test};
use ttrpc::{Code, context};

use crate::refusal;

#[test]
fn memory_comes_with_all_its_kinds() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(64 << 20).start().await;
        container.sh("head -c 3000000 /dev/zero > /tmp/some").await;
        let memory = container.stats().await.cgroup_stats.memory_stats.clone().unwrap();
        assert!(
            memory.usage.usage >= 3_000_000 && memory.usage.max_usage >= memory.usage.usage,
            "{memory:?}"
        );
        assert_eq!((memory.usage.limit, memory.usage.failcnt), (64 << 20, 0));
        assert!(memory.kernel_usage.usage > 0, "{memory:?}");
        // By these names shims read version 2.
        for name in ["anon", "file", "inactive_file", "active_anon", "pgfault", "kernel_stack", "slab"] {
            assert!(memory.stats.contains_key(name), "{name}: {:?}", memory.stats);
        }
        assert!(memory.stats["shmem"] >= 3_000_000 && memory.cache >= 3_000_000, "{memory:?}");
    });
}

#[test]
fn processor_time_is_in_nanoseconds() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let usage = async || container.stats().await.cgroup_stats.cpu_stats.cpu_usage.clone().unwrap();
        let before = usage().await.total_usage;
        container.sh("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done").await;
        let after = usage().await;
        assert!(after.total_usage > before + 1_000_000, "{before}, then {after:?}");
        let parts = after.usage_in_kernelmode + after.usage_in_usermode;
        assert!(parts <= after.total_usage + 1_000 && parts > 0, "{after:?}");
    });
}

#[test]
fn huge_pages_are_told_by_their_size() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let huge = container.stats().await.cgroup_stats.hugetlb_stats.clone();
        assert!(huge.contains_key("2MB"), "{huge:?}");
        assert!(huge.keys().all(|size| size.ends_with("MB") || size.ends_with("GB")), "{huge:?}");
    });
}

#[test]
fn block_devices_are_counted_by_what_was_done() {
    let disk = Disk::new(8);
    Boot::new().disk(&disk).test(async |guest| {
        let look = guest.container("look").args(&["sleep", "1000"]).start().await;
        let number = look.sh("cat /sys/block/vda/dev").await;
        let (major, minor) = number.split_once(':').expect("two numbers");
        let (major, minor): (u64, u64) = (major.parse().unwrap(), minor.parse().unwrap());
        let node = LinuxDevice {
            Path: "/dev/disk".into(),
            Type: "b".into(),
            Major: major as i64,
            Minor: minor as i64,
            FileMode: 0o600,
            ..Default::default()
        };
        let container =
            guest.container("c1").args(&["sleep", "1000"]).linux(|linux| linux.Devices.push(node));
        let container = container.start().await;
        container.sh("head -c 1048576 /dev/disk | wc -c").await;
        let block = container.stats().await.cgroup_stats.blkio_stats.clone().unwrap();
        let of_disk = |op: &str| {
            let entries = block.io_service_bytes_recursive.iter();
            entries
                .filter(|entry| (entry.major, entry.minor) == (major, minor) && entry.op == op)
                .map(|entry| entry.value)
                .sum::<u64>()
        };
        assert!(of_disk("read") >= 1 << 20, "{block:?}");
        assert!(of_disk("rios") > 0 && of_disk("write") == 0, "{block:?}");
        for op in ["read", "write", "rios", "wios", "dbytes", "dios"] {
            assert!(block.io_service_bytes_recursive.iter().any(|entry| entry.op == op), "{op}");
        }
    });
}

#[test]
fn the_pods_interfaces_are_told_of() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").privileged().args(&["sleep", "1000"]).start().await;
        assert!(container.stats().await.network_stats.iter().all(|interface| interface.name != "lo"));
        container
            .sh("ip link add husk0 type dummy && ip link set husk0 up && ip addr add 10.9.8.7/24 dev husk0")
            .await;
        container.exec(&["sh", "-c", "ping -c 3 -W 1 10.9.8.1 > /dev/null"]).run().await;
        let stats = container.stats().await;
        let husk0 = stats.network_stats.iter().find(|interface| interface.name == "husk0");
        let husk0 = husk0.unwrap_or_else(|| panic!("{:?}", stats.network_stats));
        assert!(husk0.tx_packets > 0 && husk0.tx_bytes > 0, "{husk0:?}");
    });
}

#[test]
fn a_container_that_is_not_there() {
    test(async |guest| {
        let request = StatsContainerRequest { container_id: "nobody".into(), ..Default::default() };
        let ctx = context::with_timeout(20_000_000_000);
        let answer = guest.agent().service().stats_container(ctx, &request).await;
        assert_eq!(refusal(answer).0, Code::INVALID_ARGUMENT);
    });
}
