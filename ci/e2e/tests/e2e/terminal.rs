//! Terminals: input, output, their ends and the window size.

use std::time::Duration;

use e2e::{code, test};
use husk::agent::Stream;
use ttrpc::Code;

use super::noise;

#[test]
fn a_terminal_is_one() {
    test(async |guest| {
        let ask = "test -t 0 && test -t 1 && test -t 2 && tty && ls -l /proc/self/fd/1 && readlink /dev/ptmx";
        let container = guest.container("c1").sh(&format!("{ask}; sleep 1000")).terminal().start().await;
        let said = container.init().read_until("pts/ptmx").await;
        assert!(said.contains("/dev/pts/0"), "{said}");
        let further = container.exec(&["sh", "-c", "tty; test -t 2"]).terminal().run().await;
        assert_eq!((further.status, further.text()), (0, "/dev/pts/1"));
        let plain = container.exec(&["sh", "-c", "test -t 0 || test -t 1 || test -t 2"]).run().await;
        assert_eq!(plain.status, 1, "an exec without a terminal has none");
    });
}

#[test]
fn one_mib_goes_through_a_raw_terminal_unchanged() {
    const SIZE: usize = 1 << 20;
    test(async |guest| {
        let script = format!("stty raw -echo; printf ready; head -c {SIZE}");
        let container = guest.container("c1").sh(&script).terminal().start().await;
        let head = container.init();
        assert_eq!(head.read_until("ready").await, "ready");
        let sent = noise(SIZE).next_chunk(SIZE).unwrap();
        let feed = async {
            for chunk in sent.chunks(64 << 10) {
                head.write(chunk).await;
            }
        };
        let ((), received) = tokio::join!(feed, head.read_all(Stream::Stdout));
        assert_eq!(received.len(), sent.len());
        assert!(received == sent, "the bytes differ");
        assert_eq!(head.wait().await, 0);
    });
}

#[test]
fn a_new_size_reaches_the_program() {
    test(async |guest| {
        let script = "trap 'stty size' WINCH; stty size; echo up; while :; do sleep 0.05; done";
        let container = guest.container("c1").sh(script).terminal().start().await;
        let shell = container.init();
        shell.read_until("up").await;
        for (rows, columns) in [(40, 100), (7, 250)] {
            shell.try_resize(rows, columns).await.unwrap();
            shell.read_until(&format!("{rows} {columns}")).await;
        }
    });
}

#[test]
fn a_size_set_before_the_start_is_there_from_the_start() {
    test(async |guest| {
        let container = guest.container("c1").args(&["stty", "size"]).terminal().create().await;
        container.init().try_resize(33, 133).await.unwrap();
        container.start().await;
        assert_eq!(container.init().output().await.ok(), "33 133");
    });
}

#[test]
fn what_has_no_terminal_cannot_be_resized() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        assert_eq!(code(&container.init().try_resize(24, 80).await), Code::UNAVAILABLE);
    });
}

#[test]
fn a_terminal_has_no_stderr() {
    test(async |guest| {
        let container = guest.container("c1").sh("echo err >&2; sleep 1000").terminal().start().await;
        container.init().read_until("err").await;
        match container.init().try_read(Stream::Stderr, 100).await {
            Err(ttrpc::Error::RpcStatus(status)) => assert_eq!(status.code(), Code::INTERNAL),
            other => panic!("expected a refusal, got {other:?}"),
        }
    });
}

#[test]
fn output_right_before_the_exit_is_not_lost() {
    test(async |guest| {
        let expected: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
        for round in 0..5 {
            let done = guest.container(&format!("c{round}")).args(&["seq", "20000"]).terminal().run().await;
            assert_eq!((done.status, done.stdout.len()), (0, expected.len()));
            assert!(done.stdout == expected.as_bytes(), "the bytes differ");
        }
    });
}

#[test]
fn output_ends_with_the_process_though_a_child_keeps_the_terminal() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let script = "(trap '' HUP; setsid sleep 1000 & sleep 0.2); echo done";
        let process = container.exec(&["sh", "-c", script]).terminal().start().await;
        let reading = tokio::time::timeout(Duration::from_secs(20), process.read_all(Stream::Stdout));
        let all = reading.await.expect("the end comes without the child's");
        assert_eq!(String::from_utf8_lossy(&all), "done\r\n");
        assert_eq!(process.read(100).await, b"");
        assert_eq!(process.wait().await, 0);
    });
}

#[test]
fn the_end_of_input_is_an_end_of_file_and_not_a_hang_up() {
    test(async |guest| {
        let script = "cat; echo after";
        let container = guest.container("c1").sh(script).terminal().start().await;
        container.init().write(b"line\n").await;
        container.init().read_until("line\r\nline").await;
        container.init().close_stdin().await;
        let done = container.init().output().await;
        assert_eq!((done.status, done.text()), (0, "after"));
    });
}
