//! Lives of containers, and what several of them share.

use std::time::Duration;

use agent_api::agent::Storage;
use e2e::{Boot, code, test};
use protobuf::MessageField;
use ttrpc::Code;

#[test]
fn a_created_container_waits_for_its_start() {
    test(async |guest| {
        let container = guest.container("c1").sh("echo started").create().await;
        let early = tokio::time::timeout(Duration::from_millis(500), container.init().read(10)).await;
        assert!(early.is_err(), "it said {early:?} before it was started");
        container.start().await;
        assert_eq!(container.init().output().await.ok(), "started");
    });
}

#[test]
fn a_container_starts_once() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        assert_eq!(code(&container.try_start().await), Code::INTERNAL);
        assert_eq!(container.sh("echo up").await, "up");
        container.init().signal(9).await;
        container.init().wait().await;
        assert_eq!(code(&container.try_start().await), Code::INTERNAL);
    });
}

#[test]
fn removal_ends_whatever_runs_and_frees_the_name() {
    test(async |guest| {
        for _ in 0..2 {
            let container = guest.container("c1").sh("trap '' TERM; sleep 1000 & sleep 1000").start().await;
            let process = container.exec(&["sleep", "1000"]).start().await;
            let wait = process.try_wait();
            let (status, ()) = tokio::join!(wait, container.remove());
            assert_eq!(status.unwrap(), 137);
        }
        let created = guest.container("c1").sh("true").create().await;
        created.remove().await;
        guest.container("c1").sh("true").run().await.ok();
    });
}

#[test]
fn two_containers_share_ipc_and_uts_and_network_but_no_processes_and_no_mounts() {
    test(async |guest| {
        let one = guest.container("one").args(&["sleep", "1000"]).start().await;
        let two = guest.container("two").args(&["sleep", "1000"]).start().await;
        for (kind, shared) in
            [("ipc", true), ("uts", true), ("net", true), ("pid", false), ("mnt", false), ("cgroup", false)]
        {
            let ask = format!("readlink /proc/self/ns/{kind}");
            let (first, second) = (one.sh(&ask).await, two.sh(&ask).await);
            assert_eq!(first == second, shared, "{kind}: {first} and {second}");
        }
        one.sh("touch /tmp/mine").await;
        two.sh("test ! -e /tmp/mine").await;
        assert_eq!(two.sh("echo $$ > /tmp/p; ps | grep -c '[s]leep 1000'").await, "1");
    });
}

#[test]
fn a_container_can_join_the_shared_pid_namespace() {
    Boot::new().test(async |guest| {
        let first = guest.container("first").args(&["sleep", "1234"]).start().await;
        let apart = guest.container("apart").args(&["sleep", "1000"]).start().await;
        let joined = guest.container("joined").args(&["sleep", "1000"]);
        let joined = joined.request(|request| request.sandbox_pidns = true).start().await;
        let ask = "readlink /proc/self/ns/pid";
        assert_eq!(joined.sh(ask).await, first.sh(ask).await);
        assert_ne!(apart.sh(ask).await, first.sh(ask).await);
        assert_eq!(joined.sh("ps | grep -c '[s]leep 1234'").await, "1");
        assert_eq!(apart.sh("ps | grep -c '[s]leep 1234' || true").await, "0");
    });
}

#[test]
fn the_host_name_is_the_sandboxes() {
    test(async |guest| {
        let container = guest.container("c1").args(&["hostname"]).spec(|spec| spec.Hostname = "other".into());
        assert_eq!(container.run().await.ok(), "e2e");
    });
}

#[test]
fn a_request_that_lacks_something_is_refused_and_leaves_nothing() {
    test(async |guest| {
        let no_spec = guest.container("c1").request(|request| request.OCI = MessageField::none());
        let no_spec = no_spec.try_create().await;
        assert_eq!(code(&no_spec), Code::INTERNAL);
        assert!(no_spec.unwrap_err().to_string().contains("EINVAL"));

        let no_process = guest.container("c1").spec(|spec| spec.Process = MessageField::none());
        assert_eq!(code(&no_process.try_create().await), Code::INTERNAL);

        let no_root = guest.container("c1").spec(|spec| spec.Root = MessageField::none());
        assert_eq!(code(&no_root.try_create().await), Code::INTERNAL);

        let no_args = guest.container("c1").args(&[]);
        assert_eq!(code(&no_args.try_create().await), Code::INTERNAL);

        guest.container("c1").sh("true").run().await.ok();
    });
}

#[test]
fn a_root_that_is_not_there_is_named() {
    test(async |guest| {
        let lost =
            guest.container("c1").spec(|spec| spec.Root.mut_or_insert_default().Path = "/no/root".into());
        let lost = lost.try_create().await;
        assert_eq!(code(&lost), Code::INTERNAL);
        let text = lost.unwrap_err().to_string();
        assert!(text.contains("/no/root") && text.contains("no such file or directory"), "{text}");
    });
}

#[test]
fn a_storage_is_mounted_for_its_container_and_gone_with_it() {
    test(async |guest| {
        let point = format!("/run/kata-containers/sandbox/ephemeral/{}", std::process::id());
        let storage = |driver: &str| Storage {
            driver: driver.into(),
            source: "tmpfs".into(),
            fstype: "tmpfs".into(),
            mount_point: point.clone(),
            ..Default::default()
        };
        let unknown = guest.container("c1").request(|request| request.storages = vec![storage("floppy")]);
        let unknown = unknown.try_create().await;
        assert_eq!(code(&unknown), Code::INTERNAL);
        assert!(unknown.unwrap_err().to_string().contains("floppy"));

        let with = |name| {
            let builder = guest.container(name).args(&["sleep", "1000"]).mount(
                "/data",
                "bind",
                &point,
                &["rbind", "rw"],
            );
            builder.request(|request| request.storages = vec![storage("ephemeral")])
        };
        let (one, two) = (with("one").start().await, with("two").start().await);
        one.sh("echo shared > /data/file").await;
        assert_eq!(two.sh("cat /data/file").await, "shared");
        one.remove().await;
        assert_eq!(two.sh("cat /data/file").await, "shared", "two still holds it");
        two.remove().await;
        let watch = guest.container("watch").sees_guest().sh("cat /guest/proc/1/mounts").run().await.ok();
        assert!(!watch.contains(&point), "{watch}");
    });
}
