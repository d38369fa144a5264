//! Many containers one after the other leave nothing behind.

use std::fmt;

use e2e::{Boot, Container};

/// What the agent holds.
struct Holdings {
    descriptors: usize,
    mounts: usize,
    cgroups: usize,
    /// The kernel's own left out, which come and go.
    processes: usize,
    resident_kib: usize,
}

#[test]
fn fifty_containers_leave_nothing_in_the_guest() {
    Boot::new().test(async |guest| {
        let watch = guest.container("watch").sees_guest().args(&["sleep", "1000"]).start().await;
        let cycle = async |terminal: bool| {
            let mut builder = guest.container("c1").sh("echo hello").memory(32 << 20).pids(10);
            if terminal {
                builder = builder.terminal();
            }
            let container = builder.start().await;
            let done = container.init().output().await;
            assert_eq!(done.ok(), "hello");
            container.remove().await;
        };
        // The first ones fill caches that stay.
        for round in 0..10 {
            cycle(round % 2 == 0).await;
        }
        let before = holdings(&watch).await;
        for round in 0..50 {
            cycle(round % 2 == 0).await;
        }
        let after = holdings(&watch).await;
        assert!(after.is_no_more_than(&before), "{before:?}, then {after:?}");
        // Memory is not given back page by page: 50 leaks of a kilobyte would already show.
        assert!(after.resident_kib <= before.resident_kib + 128, "{before:?}, then {after:?}");
    });
}

#[test]
fn failed_containers_and_execs_leave_nothing_either() {
    Boot::new().test(async |guest| {
        let watch = guest.container("watch").sees_guest().args(&["sleep", "1000"]).start().await;
        let fail = async || {
            assert!(guest.container("c1").args(&["nosuch"]).try_start().await.is_err());
            assert!(guest.container("c2").mount("/x", "bind", "/no/source", &[]).try_start().await.is_err());
            assert!(guest.container("c3").mount("/x", "nosuchfs", "x", &[]).try_start().await.is_err());
            assert!(watch.exec(&["nosuch"]).try_start().await.is_err());
            assert_eq!(watch.exec(&["true"]).terminal().run().await.status, 0);
        };
        fail().await;
        let before = holdings(&watch).await;
        for _ in 0..10 {
            fail().await;
        }
        let after = holdings(&watch).await;
        assert!(after.is_no_more_than(&before), "{before:?}, then {after:?}");
    });
}

async fn holdings(watch: &Container<'_>) -> Holdings {
    let script = "ls /guest/proc/1/fd | wc -l
        wc -l < /guest/proc/1/mounts
        find /guest/cgroup -type d | wc -l
        cat /guest/proc/[0-9]*/status 2>/dev/null | awk '/^PPid/ && $2 != 2' | wc -l
        awk '/^VmRSS/ {print $2}' /guest/proc/1/status";
    // What was removed goes a moment after the answer: wait until two looks agree.
    let mut last: Vec<usize> = Vec::new();
    for _ in 0..40 {
        let said = watch.sh(script).await;
        let now: Vec<usize> = said.lines().map(|line| line.trim().parse().expect("a number")).collect();
        if now == last {
            break;
        }
        last = now;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let [descriptors, mounts, cgroups, processes, resident_kib] = last[..] else {
        panic!("five numbers, not {last:?}")
    };
    Holdings { descriptors, mounts, cgroups, processes, resident_kib }
}

impl Holdings {
    /// Resident memory aside, which is judged with some leeway.
    fn is_no_more_than(&self, other: &Holdings) -> bool {
        self.descriptors <= other.descriptors
            && self.mounts <= other.mounts
            && self.cgroups <= other.cgroups
            && self.processes <= other.processes
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holdings { descriptors, mounts, cgroups, processes, resident_kib } = self;
        write!(
            f,
            "{descriptors} descriptors, {mounts} mounts, {cgroups} cgroups, {processes} processes, \
             {resident_kib} KiB resident"
        )
    }
}
