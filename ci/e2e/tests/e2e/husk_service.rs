//! `husk.agent.v1`: streaming stdio, the boot's timeline, and the refresh after a clone.

use std::time::Duration;

use agent_api::husk::{GetTimelineRequest, Link, OutputRequest, RefreshRequest, RefreshResponse, Time};
use agent_api::stdio::OUTPUT_CREDIT;
use e2e::{Boot, Guest, test};
use husk::agent::Stream;
use husk::stdio::Reader;
use sha2::{Digest, Sha256};
use ttrpc::{Code, context};

use super::noise;

#[test]
fn what_goes_in_by_a_stream_comes_out_by_a_stream() {
    const SIZE: usize = 16 << 20;
    test(async |guest| {
        assert!(guest.agent().is_husk().await.unwrap());
        let container = guest.container("cat").args(&["cat"]).start().await;
        let (agent, target) = (guest.agent(), container.init().target());
        let feed = async {
            let mut writer = agent.writer(target).await.unwrap();
            let (mut digest, mut noise) = (Sha256::new(), noise(SIZE));
            while let Some(chunk) = noise.next_chunk(300_000) {
                digest.update(&chunk);
                writer.write(chunk).await.unwrap();
            }
            writer.close().await.unwrap();
            digest.finalize()
        };
        let drain = async {
            let mut reader = agent.reader(target, Stream::Stdout).await.unwrap();
            let (mut digest, mut size) = (Sha256::new(), 0);
            while let data = reader.next().await.unwrap()
                && !data.is_empty()
            {
                size += data.len();
                digest.update(&data);
            }
            (digest.finalize(), size)
        };
        let (sent, (received, size)) = tokio::join!(feed, drain);
        assert_eq!((size, received), (SIZE, sent));
        assert_eq!(container.init().wait().await, 0);
    });
}

#[test]
fn a_reader_that_never_reads_stalls_no_other_on_the_same_connection() {
    const SIZE: usize = 64 << 20;
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let agent = guest.agent();
        let chatty = container.exec(&["yes"]).start().await;
        let never_read = agent.reader(chatty.target(), Stream::Stdout).await.unwrap();
        let busy = container.exec(&["head", "-c", &SIZE.to_string(), "/dev/zero"]).start().await;
        let mut reader = agent.reader(busy.target(), Stream::Stdout).await.unwrap();
        assert_eq!(rest(&mut reader).await, SIZE);
        assert_eq!(busy.wait().await, 0);
        agent.check().await.unwrap();
        // It got what it had granted and no more: its process waits.
        let Reader::Stream { mut inbox, taken: _taken } = never_read else { panic!("not a stream") };
        let mut size = 0;
        while let Ok(chunk) = inbox.try_recv() {
            size += chunk.unwrap().len();
        }
        assert!((1..=OUTPUT_CREDIT as usize).contains(&size), "{size}");
        chatty.signal(9).await;
        assert_eq!(chatty.wait().await, 137);
    });
}

#[test]
fn an_output_ends_with_its_process_though_a_child_keeps_the_pipe() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let process = container.exec(&["sh", "-c", "sleep 1000 & echo done; echo bad >&2"]).start().await;
        let agent = guest.agent();
        let mut stdout = agent.reader(process.target(), Stream::Stdout).await.unwrap();
        let mut stderr = agent.reader(process.target(), Stream::Stderr).await.unwrap();
        assert_eq!(stdout.next().await.unwrap(), b"done\n");
        assert_eq!(stderr.next().await.unwrap(), b"bad\n");
        let ends = async { tokio::join!(stdout.next(), stderr.next()) };
        let ends = tokio::time::timeout(Duration::from_secs(20), ends).await.expect("both end");
        assert_eq!((ends.0.unwrap(), ends.1.unwrap()), (vec![], vec![]));
        assert_eq!(process.wait().await, 0);
    });
}

#[test]
fn a_stream_of_nobody_is_refused_as_a_call_would_be() {
    test(async |guest| {
        let container = guest.container("c1").terminal().args(&["sleep", "1000"]).start().await;
        let id = container.id();
        for (container, exec, stream, code) in [
            ("nosuch", "", Stream::Stdout, Code::INVALID_ARGUMENT),
            (id, "nosuch", Stream::Stdout, Code::NOT_FOUND),
            (id, "", Stream::Stderr, Code::INTERNAL),
        ] {
            let target = husk::agent::Target { container: container.into(), exec_id: exec.into() };
            let mut reader = guest.agent().reader(&target, stream).await.unwrap();
            assert_eq!(e2e::code(&reader.next().await), code, "{target:?}");
        }
        // An enum's number that no version knows.
        let request = OutputRequest {
            container_id: id.into(),
            stream: protobuf::EnumOrUnknown::from_i32(9),
            ..Default::default()
        };
        let mut stream = guest.agent().husk().output(context::Context::default()).await.unwrap();
        stream.send(&request).await.unwrap();
        assert_eq!(status(stream.recv().await).0, Code::INVALID_ARGUMENT);
    });
}

#[test]
fn the_boot_is_told_step_by_step() {
    test(async |guest| {
        let ctx = context::with_duration(Duration::from_secs(20));
        let timeline = guest.agent().husk().get_timeline(ctx, &GetTimelineRequest::new()).await.unwrap();
        let steps: Vec<&str> = timeline.stamps.iter().map(|stamp| stamp.step.as_str()).collect();
        let wanted = [
            "agent started",
            "mount kernel file systems",
            "guest set up",
            "event loop running",
            "transports open",
            "serving",
            "sandbox created",
        ];
        let places: Vec<_> =
            wanted.iter().map(|wanted| steps.iter().position(|step| step == wanted)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{steps:?}");
        assert!(timeline.stamps.is_sorted_by_key(|stamp| stamp.nanoseconds), "{timeline:?}");
        assert!(timeline.stamps[0].nanoseconds > 0);
    });
}

#[test]
fn a_clone_becomes_another_machine_in_one_call() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").sees_guest().args(&["sleep", "1000"]).start().await;
        let request = RefreshRequest {
            entropy: vec![0x5a; 64],
            clock: Some(Time { seconds: 2_000_000_000, nanoseconds: 7, ..Default::default() }).into(),
            hostname: "another".into(),
            machine_id: "0123456789abcdef0123456789ABCDEF".into(),
            ..Default::default()
        };
        // Nothing of a request is applied that has a bad part in it, wherever that is.
        let link = Link { name: "nosuch0".into(), hw_addr: "02:00:00:00:00:01".into(), ..Default::default() };
        let (code, message) =
            status(refresh(guest, &RefreshRequest { links: vec![link], ..request.clone() }).await);
        assert!(code == Code::INVALID_ARGUMENT && message.contains("links"), "{code:?} {message}");
        let seen = async || {
            let now: u64 = container.sh("date +%s").await.parse().unwrap();
            (container.sh("hostname").await, now / 1_000_000_000 == 2)
        };
        assert_eq!(seen().await, ("e2e".into(), false));

        let applied = refresh(guest, &request).await.unwrap().applied;
        assert_eq!(applied, ["entropy", "clock", "hostname", "machine_id"]);
        assert_eq!(seen().await, ("another".into(), true));
        let name = container.sh("cat /guest/proc/1/root/etc/machine-id").await;
        assert_eq!(name, "0123456789abcdef0123456789abcdef");
        let nothing = refresh(guest, &RefreshRequest::new()).await.unwrap();
        assert!(nothing.applied.is_empty());
    });
}

#[test]
fn a_clone_gets_an_address_of_its_own() {
    let nic = ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=02:00:00:00:00:01"];
    Boot::new().qemu(&nic).test(async |guest| {
        let container = guest.container("c1").sees_guest().args(&["sleep", "1000"]).start().await;
        let link = Link { name: "eth0".into(), hw_addr: "02:00:00:00:00:0b".into(), ..Default::default() };
        let request = RefreshRequest { links: vec![link], ..Default::default() };
        assert_eq!(refresh(guest, &request).await.unwrap().applied, ["links"]);
        assert_eq!(container.sh("cat /sys/class/net/eth0/address").await, "02:00:00:00:00:0b");
    });
}

async fn refresh(guest: &Guest, request: &RefreshRequest) -> ttrpc::Result<RefreshResponse> {
    guest.agent().husk().refresh(context::with_duration(Duration::from_secs(20)), request).await
}

/// How much comes until the end.
async fn rest(reader: &mut Reader) -> usize {
    let mut size = 0;
    while let data = reader.next().await.unwrap()
        && !data.is_empty()
    {
        size += data.len();
    }
    size
}

fn status<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().into()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
