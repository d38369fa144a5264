//! Which devices a container may use.

use agent_api::oci::{LinuxDevice, LinuxDeviceCgroup, LinuxResources};
use e2e::{Boot, Container, ContainerBuilder, test};

use crate::update::update;

#[test]
fn the_defaults_are_all_that_is_not_asked_for() {
    test(async |guest| {
        let container = guest.container("c1").privileged().args(&["sleep", "1000"]).start().await;
        assert_eq!(tried(&container).await, "made null random tty-less");
    });
}

#[test]
fn a_node_of_the_spec_may_be_used() {
    test(async |guest| {
        let with_node = guest.container("c1").privileged().args(&["sleep", "1000"]).linux(|linux| {
            let mut node = LinuxDevice { Major: 10, Minor: 237, ..Default::default() };
            (node.Path, node.Type) = ("/dev/loop-control".into(), "c".into());
            linux.Devices.push(node);
        });
        let container = with_node.start().await;
        assert_eq!(tried(&container).await, "made read write null random tty-less");
    });
}

#[test]
fn the_last_rule_decides() {
    test(async |guest| {
        let rules =
            [rule(false, "a", 0, 0, "rwm"), rule(true, "c", 10, 237, "rw"), rule(false, "c", 10, -1, "w")];
        let container = ruled(guest.container("c1"), &rules).start().await;
        assert_eq!(tried(&container).await, "made read null random tty-less");
    });
}

#[test]
fn all_devices_are_one_rule() {
    Boot::new().test(async |guest| {
        // In one pod: the one that came first is still held to its rules when another may do everything.
        let first = guest.container("c1").privileged().args(&["sleep", "1000"]).start().await;
        let second = ruled(guest.container("c2"), &[rule(true, "a", 0, 0, "rwm")]).start().await;
        assert_eq!(tried(&second).await, "made read write null random tty-less");
        assert_eq!(tried(&first).await, "made null random tty-less");
    });
}

#[test]
fn rules_of_a_running_container_are_replaced() {
    test(async |guest| {
        let container = guest.container("c1").privileged().args(&["sleep", "1000"]).start().await;
        for (access, wanted) in [("r", "read "), ("w", "write "), ("rwm", "read write "), ("m", "")] {
            let mut resources = LinuxResources::new();
            resources.Devices = vec![rule(true, "c", 10, 237, access)];
            update(guest, &container, Some(resources)).await.unwrap();
            assert_eq!(tried(&container).await, format!("made {wanted}null random tty-less"), "{access}");
        }
        update(guest, &container, Some(LinuxResources::new())).await.unwrap();
        assert_eq!(tried(&container).await, "made null random tty-less", "no rules: no change");
    });
}

#[test]
fn what_is_no_rule_leaves_no_container() {
    test(async |guest| {
        for bad in [rule(true, "q", 1, 1, "r"), rule(true, "c", 1, 1, "rx"), rule(true, "c", 1 << 40, 1, "r")]
        {
            let error = ruled(guest.container("c1"), &[bad]).try_create().await.unwrap_err().to_string();
            assert!(error.contains("device"), "{error}");
        }
        guest.container("c1").sh("true").run().await.ok();
    });
}

fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        Allow: allow,
        Type: kind.into(),
        Major: major,
        Minor: minor,
        Access: access.into(),
        ..Default::default()
    }
}

fn ruled<'g>(container: ContainerBuilder<'g>, rules: &[LinuxDeviceCgroup]) -> ContainerBuilder<'g> {
    container.privileged().args(&["sleep", "1000"]).resources(|all| all.Devices = rules.to_vec())
}

/// Tries a device that only some may use (10:237), and those that everybody may.
async fn tried(container: &Container<'_>) -> String {
    let script = "rm -f /dev/it; mknod /dev/it c 10 237 && echo made
        (: < /dev/it) 2> /dev/null && echo read
        (: >> /dev/it) 2> /dev/null && echo write
        echo x > /dev/null && echo null
        head -c 1 /dev/urandom > /dev/null && echo random
        (: < /dev/tty) 2> /dev/null || echo tty-less";
    container.sh(script).await.split_whitespace().collect::<Vec<_>>().join(" ")
}
