//! Containers with user ids of their own.

use agent_api::oci::{LinuxIDMapping, LinuxNamespace};
use e2e::{ContainerBuilder, code, test};
use ttrpc::Code;

const OUTSIDE: u32 = 100_000;

#[test]
fn ids_are_mapped() {
    test(async |guest| {
        let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -L -c %u /proc/self";
        let said = mapped(guest.container("c1").sh(script)).run().await.ok();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words, ["0", "100000", "65536", "0", "100000", "65536", "0", "0"]);
    });
}

#[test]
fn root_in_it_is_nobody_outside() {
    test(async |guest| {
        let container = mapped(guest.container("c1").args(&["sleep", "4321"])).start().await;
        let script = "for p in /guest/proc/[0-9]*; do
            grep -q 'sleep.4321' $p/cmdline && grep Uid $p/status; done 2>/dev/null; true";
        let seen = guest.container("watch").sees_guest().sh(script).run().await.ok();
        assert_eq!(seen.split_whitespace().nth(1), Some("100000"), "{seen}");
        container.sh("! touch /from-user-namespace 2>/dev/null").await;
    });
}

#[test]
fn everything_else_works_in_it() {
    test(async |guest| {
        let container = mapped(guest.container("c1").args(&["sleep", "1000"])).start().await;
        let script = "test -c /dev/null && echo > /dev/null && test -d /sys/kernel && touch /tmp/x && hostname && id -u";
        assert_eq!(container.sh(script).await, "e2e\n0");
        let ids =
            container.exec(&["sh", "-c", "id -u; readlink /proc/self/ns/user; readlink /proc/1/ns/user"]);
        let said = ids.run().await.ok();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((lines[0], lines[1]), ("0", lines[2]));
        let terminal = container.exec(&["sh", "-c", "tty && test -t 2"]).terminal().run().await;
        assert_eq!((terminal.status, terminal.text()), (0, "/dev/pts/0"));
    });
}

#[test]
fn a_user_namespace_needs_maps() {
    test(async |guest| {
        let container = guest.container("c1").linux(|linux| linux.Namespaces.push(user_namespace()));
        assert_eq!(code(&container.try_create().await), Code::INTERNAL);
    });
}

fn mapped(builder: ContainerBuilder<'_>) -> ContainerBuilder<'_> {
    let map = || LinuxIDMapping { ContainerID: 0, HostID: OUTSIDE, Size: 65_536, ..Default::default() };
    builder.linux(|linux| {
        linux.Namespaces.push(user_namespace());
        linux.UIDMappings = vec![map()];
        linux.GIDMappings = vec![map()];
    })
}

fn user_namespace() -> LinuxNamespace {
    LinuxNamespace { Type: "user".into(), ..Default::default() }
}
