//! Pipes: stdin, stdout, stderr and their ends.

use std::time::{Duration, Instant};

use agent_api::MAX_READ;
use e2e::{code, test};
use husk::agent::Stream;
use sha2::{Digest, Sha256};
use ttrpc::Code;

use super::noise;

#[test]
fn sixty_four_mib_go_in_and_come_out_the_same() {
    const SIZE: usize = 64 << 20;
    test(async |guest| {
        let container = guest.container("cat").args(&["cat"]).start().await;
        let cat = container.init();
        let feed = async {
            let (mut digest, mut noise) = (Sha256::new(), noise(SIZE));
            while let Some(chunk) = noise.next_chunk(1 << 20) {
                digest.update(&chunk);
                cat.write(&chunk).await;
            }
            cat.close_stdin().await;
            digest.finalize()
        };
        let drain = async {
            let (mut digest, mut size) = (Sha256::new(), 0);
            loop {
                let data = cat.read(MAX_READ).await;
                if data.is_empty() {
                    return (digest.finalize(), size);
                }
                size += data.len();
                digest.update(&data);
            }
        };
        let (sent, (received, size)) = tokio::join!(feed, drain);
        assert_eq!((size, received), (SIZE, sent));
        assert_eq!(cat.wait().await, 0);
    });
}

#[test]
fn stderr_is_apart_from_stdout() {
    test(async |guest| {
        let done = guest.container("c1").sh("echo out; echo err >&2; echo out2").run().await;
        assert_eq!((done.text(), done.error_text()), ("out\nout2", "err"));
    });
}

#[test]
fn a_read_returns_no_more_than_was_asked_for() {
    test(async |guest| {
        let container = guest.container("c1").sh("head -c 300000 /dev/zero").start().await;
        let mut left = 300_000;
        for len in [1, 7, 4096, 8192, 32 << 10].into_iter().cycle() {
            let data = container.init().read(len).await;
            assert!(data.len() <= len as usize, "{} for {len}", data.len());
            left -= data.len();
            if data.is_empty() {
                break;
            }
        }
        assert_eq!(left, 0);
        assert_eq!(container.init().wait().await, 0);
    });
}

#[test]
fn a_huge_read_gets_what_fits_a_message() {
    test(async |guest| {
        let container = guest.container("c1").sh("head -c 9000000 /dev/zero").start().await;
        let mut size = 0;
        loop {
            let data = container.init().read(u32::MAX).await;
            if data.is_empty() {
                break;
            }
            size += data.len();
        }
        assert_eq!(size, 9_000_000);
    });
}

#[test]
fn output_right_before_the_exit_is_not_lost() {
    test(async |guest| {
        for round in 0..5 {
            let name = format!("c{round}");
            let done = guest.container(&name).sh("head -c 1048576 /dev/zero; echo end >&2").run().await;
            assert_eq!((done.status, done.stdout.len(), done.error_text()), (0, 1 << 20, "end"));
        }
    });
}

#[test]
fn output_stays_readable_until_the_status_was_told() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let process =
            container.exec(&["sh", "-c", "echo all of it; echo and this >&2; exit 4"]).start().await;
        // It is over when the only other process is the first.
        while container.sh("ls -d /proc/[0-9]* | wc -l").await.parse::<u32>().unwrap() > 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let done = process.output().await;
        assert_eq!((done.status, done.text(), done.error_text()), (4, "all of it", "and this"));
    });
}

#[test]
fn output_ends_with_the_process_though_a_child_keeps_the_pipe() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let begun = Instant::now();
        let process = container.exec(&["sh", "-c", "sleep 1000 & echo done"]).start().await;
        // Reads that are under way when it ends, and reads that come later.
        let (stdout, stderr) =
            tokio::join!(process.read_all(Stream::Stdout), process.read_all(Stream::Stderr));
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"done\n"[..], &b""[..]));
        for stream in [Stream::Stdout, Stream::Stderr, Stream::Stdout] {
            assert_eq!(process.try_read(stream, 100).await.unwrap(), b"", "the end is final");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(process.wait().await, 0);
        assert_eq!(container.sh("ps | grep -c '[s]leep 1000'").await, "2", "the child lives on");
    });
}

#[test]
fn a_process_whose_output_nobody_reads_holds_up_nobody() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let chatty = container.exec(&["sh", "-c", "yes >&2 & yes"]).start().await;
        let other = container.exec(&["sh", "-c", "exit 3"]).start().await;
        assert_eq!(other.wait().await, 3, "its own output was not read either");
        guest.agent().check().await.unwrap();
        chatty.signal(9).await;
        assert_eq!(chatty.wait().await, 137);
    });
}

#[test]
fn an_empty_write_ends_the_input() {
    test(async |guest| {
        let container = guest.container("cat").args(&["cat"]).start().await;
        container.init().write(b"abc").await;
        container.init().write(b"").await;
        let done = container.init().output().await;
        assert_eq!((done.status, done.text()), (0, "abc"));
    });
}

#[test]
fn writing_to_a_closed_stdin_is_refused_and_closing_twice_is_not() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        container.init().close_stdin().await;
        container.init().close_stdin().await;
        assert_eq!(code(&container.init().try_write(b"more").await), Code::INTERNAL);
    });
}

#[test]
fn a_write_waits_for_its_reader_and_for_nobody_else() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let write = container.init().try_write(&[0; 1 << 20]);
        let others = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(container.sh("echo here").await, "here");
            container.init().signal(9).await;
        };
        let (written, ()) = tokio::join!(write, others);
        assert_eq!(code(&written), Code::INTERNAL, "the reader died");
    });
}
