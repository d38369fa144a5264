//! Further processes in a container.

use agent_api::agent::ExecProcessRequest;
use agent_api::oci::LinuxCapabilities;
use e2e::{code, test};
use protobuf::MessageField;
use ttrpc::{Code, context};

#[test]
fn it_is_in_all_namespaces_and_the_cgroup_of_the_first() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user"] {
            let links =
                container.sh(&format!("readlink /proc/1/ns/{kind}; readlink /proc/self/ns/{kind}")).await;
            let (first, own) = links.split_once('\n').unwrap();
            assert_eq!(first, own);
        }
        let cgroups = container.sh("cat /proc/1/cgroup /proc/self/cgroup").await;
        assert_eq!(cgroups, "0::/\n0::/", "the container's cgroup is the root of its view");
    });
}

#[test]
fn it_sees_the_files_and_processes_of_the_first() {
    test(async |guest| {
        let container = guest.container("c1").sh("echo hello > /tmp/file; exec sleep 1000").start().await;
        assert_eq!(container.sh("until test -s /tmp/file; do :; done; cat /tmp/file").await, "hello");
        assert_eq!(container.sh("tr '\\0' ' ' < /proc/1/cmdline").await, "sleep 1000");
    });
}

#[test]
fn absent_capabilities_are_the_containers_and_given_ones_hold() {
    test(async |guest| {
        let some = || MessageField::some(capabilities(&["CAP_CHOWN", "CAP_KILL"]));
        let builder = guest.container("c1").args(&["sleep", "1000"]);
        let container = builder.process(|process| process.Capabilities = some()).start().await;
        let ask = ["sh", "-c", "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status"];
        let inherited = container.exec(&ask).run().await.ok();
        let chown_and_kill = "0000000000000021";
        assert_eq!(inherited.matches(chown_and_kill).count(), 3, "{inherited}");
        let fewer = container.exec(&ask).process(|process| {
            process.Capabilities = MessageField::some(capabilities(&["CAP_KILL"]));
        });
        let fewer = fewer.run().await.ok();
        assert_eq!(fewer.matches("0000000000000020").count(), 3, "{fewer}");
    });
}

#[test]
fn it_has_a_user_a_directory_and_an_environment_of_its_own() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let done = container.exec(&["sh", "-c", "id -u; id -g; pwd; echo $COLOUR"]).user(1000, 2000);
        let done = done.process(|process| {
            process.Cwd = "/etc".into();
            process.Env.push("COLOUR=blue".into());
        });
        assert_eq!(done.run().await.ok(), "1000\n2000\n/etc\nblue");
    });
}

#[test]
fn an_id_is_taken_until_the_status_was_told() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let first = container.exec(&["sleep", "1000"]).id("same").start().await;
        let second = container.exec(&["true"]).id("same").try_start().await;
        assert_eq!(code(&second), Code::INTERNAL);
        first.signal(9).await;
        assert_eq!(first.wait().await, 137);
        let third = container.exec(&["sh", "-c", "exit 5"]).id("same").run().await;
        assert_eq!(third.status, 5);
        for own in ["", container.id()] {
            assert_eq!(code(&container.exec(&["true"]).id(own).try_start().await), Code::INTERNAL, "{own:?}");
        }
    });
}

#[test]
fn a_container_that_does_not_run_takes_none() {
    test(async |guest| {
        let created = guest.container("created").args(&["sleep", "1000"]).create().await;
        assert_eq!(code(&created.exec(&["true"]).try_start().await), Code::INTERNAL);
        let stopped = guest.container("stopped").args(&["true"]).start().await;
        assert_eq!(stopped.init().wait().await, 0);
        assert_eq!(code(&stopped.exec(&["true"]).try_start().await), Code::INTERNAL);
    });
}

#[test]
fn a_request_without_a_process_is_refused() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let container_id = container.id().to_string();
        let request = ExecProcessRequest { container_id, exec_id: "e1".into(), ..Default::default() };
        let (agent, ctx) = (guest.agent(), context::with_duration(e2e::LIMIT));
        match agent.service().exec_process(ctx, &request).await {
            Err(ttrpc::Error::RpcStatus(status)) => assert_eq!(status.code(), Code::INTERNAL),
            other => panic!("expected a refusal, got {other:?}"),
        }
    });
}

#[test]
fn many_at_once_do_not_mix_up() {
    test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let one = async |number: i32| {
            let script = format!("echo {number}; echo {number} >&2; exit {number}");
            let done = container.exec(&["sh", "-c", &script]).run().await;
            let text = number.to_string();
            assert_eq!((done.status, done.text(), done.error_text()), (number, text.as_str(), text.as_str()));
        };
        tokio::join!(one(1), one(2), one(3), one(4), one(5), one(6), one(7), one(8));
    });
}

fn capabilities(names: &[&str]) -> LinuxCapabilities {
    let all = || names.iter().map(ToString::to_string).collect::<Vec<_>>();
    LinuxCapabilities { Bounding: all(), Effective: all(), Permitted: all(), ..Default::default() }
}
