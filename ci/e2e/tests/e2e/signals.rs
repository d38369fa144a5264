//! Signals.

use std::time::Duration;

use e2e::{Boot, Container, Process, code, test};
use husk::agent::Error;
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1, SIGWINCH};
use ttrpc::Code;

#[test]
fn each_number_arrives_as_itself() {
    test(async |guest| {
        let script = "for s in HUP INT USR1 TERM; do trap \"echo got $s\" $s; done
            echo ready; while :; do sleep 0.05; done";
        let container = guest.container("c1").sh(script).start().await;
        container.init().read_until("ready").await;
        for signal in [SIGHUP, SIGINT, SIGUSR1, SIGTERM] {
            container.init().signal(signal as i32).await;
            let name = signal.as_str().trim_start_matches("SIG");
            container.init().read_until(&format!("got {name}\n")).await;
        }
    });
}

#[test]
fn sigterm_ends_a_first_process_without_a_handler() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        container.init().signal(SIGTERM as i32).await;
        assert_eq!(soon(container.init()).await, 137);
    });
}

#[test]
fn sigterm_is_left_to_a_first_process_with_a_handler() {
    test(async |guest| {
        let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
        let container = guest.container("c1").sh(script).start().await;
        container.init().read_until("ready").await;
        container.init().signal(SIGTERM as i32).await;
        container.init().read_until("bye").await;
        assert_eq!(soon(container.init()).await, 5);
    });
}

#[test]
fn other_signals_do_nothing_to_a_first_process_that_has_no_handler() {
    test(async |guest| {
        let container = guest.container("c1").args(&["cat"]).start().await;
        for signal in [SIGUSR1, SIGHUP, SIGWINCH] {
            container.init().signal(signal as i32).await;
        }
        container.init().write(b"alive").await;
        assert_eq!(container.init().read(10).await, b"alive");
    });
}

#[test]
fn a_further_process_gets_the_plain_signal() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        for (signal, status) in [(SIGTERM, 143), (SIGKILL, 137), (SIGUSR1, 138)] {
            let process = container.exec(&["sleep", "1000"]).start().await;
            process.signal(signal as i32).await;
            assert_eq!(soon(&process).await, status, "{signal}");
        }
        assert_eq!(container.sh("echo up").await, "up", "the container does not mind");
    });
}

#[test]
fn a_process_that_has_ended_takes_any_signal_in_silence() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let process = container.exec(&["true"]).start().await;
        process.read_all(husk::agent::Stream::Stdout).await;
        for signal in [SIGTERM, SIGKILL] {
            ended(&process, signal).await;
        }
        assert_eq!(process.wait().await, 0);
        ended(&process, SIGTERM).await;

        container.init().signal(SIGKILL as i32).await;
        assert_eq!(container.init().wait().await, 137);
        ended(container.init(), SIGTERM).await;
        container.init().try_signal(SIGKILL as i32).await.unwrap();
        ended(&container.init().by_id(container.id()), SIGKILL).await;
    });
}

#[test]
fn what_is_no_signal_is_refused() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        for signal in [-1, 65, 999] {
            assert_eq!(code(&container.init().try_signal(signal).await), Code::INVALID_ARGUMENT, "{signal}");
        }
    });
}

#[test]
fn sigkill_without_an_id_ends_all_even_after_the_first() {
    // In a pid namespace that others made, the first process's end is not everybody's.
    Boot::new().test(async |guest| {
        // Its own first process is a shell, which reaps those that are left to it.
        let _owner = guest.container("owner").sh("while :; do sleep 0.1; done").start().await;
        let script = "setsid sleep 1000 & setsid sleep 1000 & exit 3";
        let container = guest.container("c2").sh(script).request(|request| request.sandbox_pidns = true);
        let container = container.start().await;
        assert_eq!(container.init().wait().await, 3);
        assert_eq!(tasks(&container).await, 2, "they outlive it");
        container.init().signal(SIGKILL as i32).await;
        while tasks(&container).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// A signal to a process that is gone: success, or not found.
async fn ended(process: &Process, signal: Signal) {
    let sent = process.try_signal(signal as i32).await;
    assert!(sent.as_ref().is_ok() || sent.as_ref().is_err_and(Error::is_not_found), "{sent:?}");
}

async fn soon(process: &Process) -> i32 {
    tokio::time::timeout(Duration::from_secs(20), process.wait()).await.expect("it ends soon")
}

async fn tasks(container: &Container<'_>) -> u64 {
    container.stats().await.cgroup_stats.pids_stats.current
}
