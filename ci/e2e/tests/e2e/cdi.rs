//! Devices that a container asks for by name, and that files in the guest describe.

use std::time::Duration;

use e2e::{Boot, ContainerBuilder, Guest, code, test};
use ttrpc::Code;

/// Two nodes, a variable and a mount, as a vendor's tool would write them.
const CARD: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/card",
    "devices": [{"name": "0", "containerEdits": {"deviceNodes": [
        {"path": "/dev/card0", "hostPath": "/dev/full", "permissions": "r"},
        {"path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 384, "uid": 7, "gid": 8}]}}],
    "containerEdits": {"env": ["CARD=yes", "PATH=/vendor:/bin"], "additionalGids": [44],
        "mounts": [{"hostPath": "/run/cdi", "containerPath": "/vendor/files", "options": ["ro", "bind"]}]}}"#;

/// The same kind of file in YAML.
const CLOCK: &str = "---\ncdiVersion: 0.5.0\nkind: vendor.com/clock\ndevices:\n- name: \"1\"\n  containerEdits:\n    \
                     env:\n    - CLOCK=ticks\n    deviceNodes:\n    - path: /dev/zero\n      hostPath: /dev/zero\n";

/// Writes a file where drivers of the guest would.
async fn write(guest: &Guest, name: &str, text: &str) {
    let script = format!("mkdir -p /guest/run/cdi; printf '%s' '{text}' > /guest/run/cdi/{name}");
    let writer = guest.container("writer").sh(&script).mount("/guest/run", "bind", "/run", &["bind"]);
    writer.run().await.ok();
}

fn asks<'g>(container: ContainerBuilder<'g>, names: &str) -> ContainerBuilder<'g> {
    container.spec(|spec| drop(spec.Annotations.insert("cdi.k8s.io/test".into(), names.into())))
}

#[test]
fn named_devices_are_waited_for_and_put_into_containers() {
    let boot = Boot::new().cmdline("agent.cdi_timeout=4").cmdline("agent.visible_cdi_devices=true");
    boot.test(async |guest| {
        let script = "stat -c '%n %F %t:%T %a %u %g' /dev/card0 /dev/made; echo $CARD $PATH; ls /vendor/files
            (echo x > /vendor/files/x) 2>/dev/null || echo sealed; /bin/id -G";
        let container = asks(guest.container("c1").sh(script), "vendor.com/card=0");
        let (said, ()) = tokio::join!(container.run(), async {
            // It waits by now.
            tokio::time::sleep(Duration::from_millis(500)).await;
            write(guest, "card.json", CARD).await;
        });
        let said = said.ok();
        let lines: Vec<&str> = said.lines().collect();
        let (full, made) =
            ("/dev/card0 character special file 1:7 666 0 0", "/dev/made character special file 1:5 600 7 8");
        assert_eq!(&lines[..5], [full, made, "yes /vendor:/bin", "card.json", "sealed"], "{said}");
        assert!(lines[5].split(' ').any(|group| group == "44"), "{said}");

        write(guest, "clock.yaml", CLOCK).await;
        let both = asks(
            guest.container("c2").sh("echo $CARD $CLOCK; ls /dev/card0"),
            "vendor.com/clock=1, vendor.com/card=0",
        );
        assert_eq!(both.run().await.ok(), "yes ticks\n/dev/card0");
        let by_environment = guest.container("c3").sh("echo $CLOCK");
        let by_environment = by_environment
            .process(|process| process.Env.push("VISIBLE_CDI_DEVICES=vendor.com/clock=1".into()));
        assert_eq!(by_environment.run().await.ok(), "ticks");
        // The pod's own container has the annotation of its pod, and no devices.
        let pod = asks(guest.container("c4").sh("echo \"$CLOCK.\""), "vendor.com/clock=1,vendor.com/none=1");
        let pod = pod.spec(|spec| {
            let kind = "io.katacontainers.pkg.oci.container_type".to_string();
            spec.Annotations.insert(kind, "pod_sandbox".into());
        });
        assert_eq!(pod.run().await.ok(), ".");
    });
}

#[test]
fn a_device_that_nothing_describes_is_named_when_the_time_is_up() {
    Boot::new().cmdline("agent.cdi_timeout=1").test(async |guest| {
        write(guest, "broken.yaml", "kind: [").await;
        for (names, text) in [
            ("vendor.com/card=7", "vendor.com/card=7: no file describes it; broken.yaml: "),
            ("vendor.com/card", "annotation cdi.k8s.io/test: \"vendor.com/card\" is not of the form"),
        ] {
            let refused = asks(guest.container("c1").sh("true"), names).try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL);
            let said = refused.unwrap_err().to_string();
            assert!(said.contains(text), "{said}");
        }
        // The variable means nothing where it is not allowed to.
        let container = guest.container("c1").sh("echo ran");
        let container =
            container.process(|process| process.Env.push("VISIBLE_CDI_DEVICES=vendor.com/card=7".into()));
        assert_eq!(container.run().await.ok(), "ran");
    });
}

#[test]
fn a_container_that_waits_for_a_device_can_be_removed() {
    test(async |guest| {
        let mut id = String::new();
        let waiting = asks(guest.container("c1").sh("true"), "vendor.com/card=8")
            .request(|request| id.clone_from(&request.container_id));
        let (created, removed) = tokio::join!(waiting.try_create(), async {
            // The contract's wait for such files is 100 s.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let removal = guest.agent().remove_container(&id).await;
            (removal, guest.container("c1").sh("echo again").run().await.text().to_string())
        });
        assert_eq!(code(&created), Code::INTERNAL);
        removed.0.unwrap();
        assert_eq!(removed.1, "again");
    });
}
