//! The namespaces of a container, and whose they are.

use agent_api::agent::SharedMount;
use agent_api::oci::{LinuxIDMapping, LinuxIntelRdt, LinuxNamespace};
use e2e::{ContainerBuilder, code, test};
use ttrpc::Code;

#[test]
fn peers_spell_them_in_two_ways() {
    test(async |guest| {
        let ask = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
        let other = guest.container("other").args(&["sleep", "1000"]).start().await;
        let other = other.sh(ask).await;
        for kinds in [
            ["mount", "network", "pid", "ipc", "uts", "cgroup"],
            ["mnt", "net", "pid", "ipc", "uts", "cgroup"],
        ] {
            let builder = guest.container("c1").sh(ask).linux(|linux| {
                linux.Namespaces = kinds.map(|kind| namespace(kind, "")).into();
            });
            let said = builder.run().await.ok();
            let shared: Vec<_> = said.lines().zip(other.lines()).map(|(one, two)| one == two).collect();
            assert_eq!(shared, [false, true, false, true, false, true], "{kinds:?}");
        }
        let unknown = guest.container("c1").linux(|linux| linux.Namespaces.push(namespace("galaxy", "")));
        assert!(unknown.try_create().await.unwrap_err().to_string().contains("galaxy"));
    });
}

#[test]
fn those_of_the_sandbox_win_over_a_path() {
    test(async |guest| {
        let ask = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; hostname";
        let plain = guest.container("plain").sh(ask).run().await.ok();
        let elsewhere = guest.container("c1").sh(ask).linux(|linux| {
            linux.Namespaces = vec![namespace("ipc", "/proc/1/ns/ipc"), namespace("uts", "/proc/1/ns/uts")];
        });
        assert_eq!(elsewhere.run().await.ok(), plain);
    });
}

#[test]
fn clocks_can_be_its_own() {
    test(async |guest| {
        let with = |path: &'static str| {
            let builder = guest.container("c1").sh("readlink /proc/self/ns/time");
            builder.linux(|linux| linux.Namespaces.push(namespace("time", path)))
        };
        let theirs = guest.container("plain").sh("readlink /proc/self/ns/time").run().await.ok();
        assert_ne!(with("").run().await.ok(), theirs);
        assert_eq!(with("/proc/1/ns/time").run().await.ok(), theirs);
        let container = guest.container("c2").args(&["sleep", "1000"]);
        let container = container.linux(|linux| linux.Namespaces.push(namespace("time", ""))).start().await;
        let links = container.sh("readlink /proc/1/ns/time; readlink /proc/self/ns/time").await;
        let (first, own) = links.split_once('\n').unwrap();
        assert_eq!(first, own, "one more process has the container's clocks");
    });
}

#[test]
fn owners_are_mapped_with_the_containers_users() {
    test(async |guest| {
        let map = || LinuxIDMapping { ContainerID: 0, HostID: 100_000, Size: 65_536, ..Default::default() };
        let container = guest
            .container("c1")
            .sh("stat -c %u:%g /tmp/plain /tmp/mapped; touch /tmp/mapped/new; stat -c %u /tmp/mapped/new");
        let container = container.linux(|linux| {
            linux.Namespaces.push(namespace("user", ""));
            (linux.UIDMappings, linux.GIDMappings) = (vec![map()], vec![map()]);
        });
        // In /tmp, since the container's root may make nothing elsewhere in files that are not its own. And of the
        // guest's own /run, which is a tmpfs and can be mapped, as the share cannot.
        let container = container.mount("/tmp/plain", "bind", "/run", &["rbind"]);
        let container = container.mount("/tmp/mapped", "bind", "/run", &["bind", "idmap"]);
        assert_eq!(container.run().await.ok(), "65534:65534\n0:0\n0");
        let without = guest.container("c2").mount("/tmp/mapped", "bind", "/run", &["bind", "idmap"]);
        assert!(without.try_create().await.unwrap_err().to_string().contains("id-mapped mount"));
    });
}

#[test]
fn a_mount_of_one_container_shows_in_another() {
    test(async |guest| {
        let script = "mkdir -p /tmp/made; sleep 1; mount -t tmpfs t /tmp/made; echo shared > /tmp/made/file; sleep 1000";
        let source = named(guest.container("source").sh(script).privileged(), "giver").start().await;
        let mount = |from: &str, path: &str| SharedMount {
            name: "share".into(),
            src_ctr: from.into(),
            src_path: path.into(),
            dst_ctr: "taker".into(),
            dst_path: "/tmp/seen/here".into(),
            ..Default::default()
        };
        let taker = |mount: SharedMount| {
            let builder = named(guest.container("taker").args(&["sleep", "1000"]), "taker");
            builder.request(|request| request.shared_mounts = vec![mount])
        };
        let container = taker(mount("giver", "/tmp/made")).start().await;
        assert_eq!(
            container.sh("until test -s /tmp/seen/here/file; do :; done; cat /tmp/seen/here/file").await,
            "shared"
        );
        container.sh("echo back > /tmp/seen/here/answer").await;
        assert_eq!(source.sh("cat /tmp/made/answer").await, "back");
        container.remove().await;
        for (mount, field) in [
            (mount("giver", "/tmp/../proc"), "src_path"),
            (SharedMount { dst_ctr: "other".into(), ..mount("giver", "/tmp/made") }, "dst_ctr"),
            (SharedMount { dst_path: "relative".into(), ..mount("giver", "/tmp/made") }, "dst_path"),
        ] {
            let refused = taker(mount).try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL);
            assert!(refused.unwrap_err().to_string().contains(field), "{field}");
        }
        let begun = std::time::Instant::now();
        let nobody = taker(mount("nobody", "/tmp/made")).try_create().await.unwrap_err().to_string();
        assert!(nobody.contains("nobody") && begun.elapsed().as_secs() >= 9, "{nobody}");
        guest.container("taker").sh("true").run().await.ok();
    });
}

#[test]
fn what_is_left_to_others_is_refused() {
    test(async |guest| {
        let rdt = guest.container("c1").linux(|linux| {
            let rdt = LinuxIntelRdt { L3CacheSchema: "L3:0=f".into(), ..Default::default() };
            linux.IntelRdt = Some(rdt).into();
        });
        assert!(rdt.try_create().await.unwrap_err().to_string().contains("intelRdt"));
        let empty =
            guest.container("c1").sh("true").linux(|linux| linux.IntelRdt = Some(Default::default()).into());
        empty.run().await.ok();
    });
}

/// As engines call it within its pod.
fn named<'g>(container: ContainerBuilder<'g>, name: &str) -> ContainerBuilder<'g> {
    let key = "io.kubernetes.cri.container-name".to_owned();
    container.spec(|spec| drop(spec.Annotations.insert(key, name.to_owned())))
}

fn namespace(kind: &str, path: &str) -> LinuxNamespace {
    LinuxNamespace { Type: kind.into(), Path: path.into(), ..Default::default() }
}
