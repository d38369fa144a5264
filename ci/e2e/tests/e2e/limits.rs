//! Cgroup limits and figures.

use std::time::Duration;

use e2e::test;

const MIB: i64 = 1 << 20;

#[test]
fn limits_are_in_the_containers_cgroup_and_in_its_figures() {
    test(async |guest| {
        let container =
            guest.container("c1").args(&["sleep", "1000"]).memory(32 * MIB).cpu(50_000, 100_000).pids(20);
        let container = container.start().await;
        let read = async |file: &str| container.sh(&format!("cat /sys/fs/cgroup/{file}")).await;
        assert_eq!(read("memory.max").await, (32 * MIB).to_string());
        assert_eq!(read("cpu.max").await, "50000 100000");
        assert_eq!(read("pids.max").await, "20");

        let stats = container.stats().await.cgroup_stats.unwrap();
        assert_eq!(stats.memory_stats.usage.limit, 32 << 20);
        assert!(stats.memory_stats.usage.usage > 0);
        assert!(stats.memory_stats.stats.contains_key("anon"), "{:?}", stats.memory_stats.stats);
        assert_eq!((stats.pids_stats.limit, stats.pids_stats.current), (20, 1));
    });
}

#[test]
fn no_limits_mean_none() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let all = container.sh("cd /sys/fs/cgroup; cat memory.max cpu.max pids.max").await;
        assert_eq!(all, "max\nmax 100000\nmax");
        let stats = container.stats().await.cgroup_stats.unwrap();
        assert_eq!((stats.pids_stats.limit, stats.pids_stats.current), (0, 1), "0 stands for no limit");
    });
}

#[test]
fn a_container_cannot_change_its_limits() {
    test(async |guest| {
        let container = guest.container("c1").sh("echo max > /sys/fs/cgroup/memory.max").memory(32 * MIB);
        assert_ne!(container.run().await.status, 0);
    });
}

#[test]
fn no_more_tasks_than_allowed() {
    test(async |guest| {
        let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
        let container = guest.container("c1").args(&["sleep", "1000"]).pids(6).start().await;
        let done = container.exec(&["sh", "-c", script]).run().await;
        assert_ne!(done.status, 0, "{done:?}");
        assert!(done.error_text().contains("can't fork"), "{done:?}");
        assert!(container.stats().await.cgroup_stats.pids_stats.current <= 6);
    });
}

#[test]
fn no_more_memory_than_allowed() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).memory(16 * MIB).start().await;
        let done = container.exec(&["tail", "-n", "1", "/dev/zero"]).run().await;
        assert_eq!(done.status, 137);
        let stats = container.stats().await.cgroup_stats.unwrap();
        assert!(stats.memory_stats.usage.failcnt > 0, "{:?}", stats.memory_stats.usage);
        assert_eq!(container.sh("echo up").await, "up");
    });
}

#[test]
fn processor_time_is_counted_and_held_back() {
    test(async |guest| {
        let container = guest.container("c1").sh("while :; do :; done").cpu(20_000, 100_000).start().await;
        let cpu = async || container.stats().await.cgroup_stats.cpu_stats.clone().unwrap();
        while cpu().await.throttling_data.throttled_periods < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let now = cpu().await;
        assert!(now.cpu_usage.total_usage > 10_000_000, "nanoseconds: {now:?}");
        assert!(now.throttling_data.throttled_time > 10_000_000, "nanoseconds: {now:?}");
        assert!(now.throttling_data.periods >= 3);
    });
}

#[test]
fn figures_are_there_after_the_end() {
    test(async |guest| {
        let container = guest.container("c1").args(&["true"]).start().await;
        assert_eq!(container.init().wait().await, 0);
        assert_eq!(container.stats().await.cgroup_stats.pids_stats.current, 0);
    });
}
