//! What a container sees: mounts, devices, covered paths, sysctls.

use e2e::{code, test};
use ttrpc::Code;

#[test]
fn only_its_own_mounts_are_there() {
    test(async |guest| {
        let said = guest.container("c1").sh("cut -d ' ' -f 2 /proc/mounts").run().await.ok();
        let mut points: Vec<&str> = said.lines().collect();
        points.sort_unstable();
        let expected = ["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/sys", "/sys/fs/cgroup", "/tmp"];
        assert_eq!(points, expected);
    });
}

#[test]
fn the_usual_devices_and_links_are_there_and_work() {
    test(async |guest| {
        let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done
            for l in fd stdin stdout stderr ptmx; do test -L /dev/$l || echo no link $l; done
            echo gone > /dev/null; head -c 4 /dev/zero | wc -c; echo x 2>/dev/null > /dev/full || echo full
            echo again > /dev/stdout; stat -c '%t %T %a' /dev/null";
        let said = guest.container("c1").sh(script).run().await.ok();
        assert_eq!(said, "4\nfull\nagain\n1 3 666");
    });
}

#[test]
fn a_tmpfs_has_the_size_it_was_given() {
    test(async |guest| {
        let script =
            "df -k /small | tail -n 1 | awk '{print $2}'; head -c 3000000 /dev/zero > /small/f || echo full";
        let container =
            guest.container("c1").sh(script).mount("/small", "tmpfs", "tmpfs", &["size=1m", "mode=700"]);
        assert_eq!(container.run().await.ok(), "1024\nfull");
    });
}

#[test]
fn a_bind_mount_shows_its_source_and_may_be_read_only() {
    test(async |guest| {
        std::fs::create_dir_all(guest.rootfs().join("bound/below")).unwrap();
        std::fs::write(guest.rootfs().join("bound/file"), "from the host").unwrap();
        let source = format!("{}/rootfs/bound", agent_api::paths::SHARE_ROOT);
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let container = container.mount("/rw", "bind", &source, &["rbind", "rw"]);
        let container = container.mount("/ro", "", &source, &["bind", "ro", "nosuid", "noexec"]);
        let container =
            container.mount("/one", "bind", &format!("{source}/file"), &["bind", "ro"]).start().await;
        assert_eq!(container.sh("cat /ro/file /one").await, "from the hostfrom the host");
        container.sh("echo new > /rw/new; ! touch /ro/other 2>/dev/null; ! echo x 2>/dev/null > /one").await;
        assert_eq!(std::fs::read_to_string(guest.rootfs().join("bound/new")).unwrap(), "new\n");
        let options = container.sh("grep ' /ro ' /proc/mounts | cut -d ' ' -f 4").await;
        for option in ["ro", "nosuid", "noexec"] {
            assert!(options.split(',').any(|word| word == option), "{option} in {options}");
        }
    });
}

#[test]
fn the_bind_option_wins_over_the_type() {
    test(async |guest| {
        // An emptyDir, as the most common peer sends it: a path of the guest, of the type "local".
        let container = guest.container("c1").sh("test -d /empty/kata-containers && echo bound");
        assert_eq!(container.mount("/empty", "local", "/run", &["rbind"]).run().await.ok(), "bound");
    });
}

#[test]
fn attributes_hold_for_all_below_where_they_say_so() {
    test(async |guest| {
        let script = "touch /guest/run/x 2>/dev/null || echo read-only";
        let container =
            guest.container("c1").sh(script).mount("/guest", "bind", "/", &["rbind", "rro", "rnosuid"]);
        assert_eq!(container.run().await.ok(), "read-only");
        let top =
            guest.container("c1").sh("touch /guest/run/husk-test && rm /guest/run/husk-test && echo written");
        assert_eq!(top.mount("/guest", "bind", "/", &["rbind", "ro"]).run().await.ok(), "written");
    });
}

#[test]
fn a_mount_that_leads_outside_is_refused() {
    test(async |guest| {
        for destination in ["/../up", "relative", "/a/../../b"] {
            let container = guest.container("c1").mount(destination, "tmpfs", "tmpfs", &[]);
            let refused = container.try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL, "{destination}");
        }
    });
}

#[test]
fn a_link_in_the_image_leads_nowhere_but_inside() {
    test(async |guest| {
        let script =
            "mkdir -p /links /target; ln -sfn /../../../target /links/up; ln -sfn /proc/sys /links/proc";
        guest.container("c0").sh(script).run().await.ok();
        let inside = guest.container("c1").sh("grep -c ' /target tmpfs' /proc/mounts");
        let inside = inside.mount("/links/up", "tmpfs", "tmpfs", &[]);
        assert_eq!(inside.run().await.ok(), "1");
        let proc = guest.container("c1").mount("/links/proc", "tmpfs", "tmpfs", &[]);
        assert_eq!(code(&proc.try_create().await), Code::INTERNAL);
    });
}

#[test]
fn a_link_in_the_image_that_leads_nowhere_gets_its_target_made() {
    test(async |guest| {
        // As in images whose resolv.conf is a link below /run, which is empty until something runs.
        let script = "mkdir -p /links; ln -sfn ../run/resolve/file /links/file; ln -sfn /run/directory /links/directory";
        guest.container("c0").sh(script).run().await.ok();
        let source = format!("{}/rootfs/etc/passwd", agent_api::paths::SHARE_ROOT);
        let container =
            guest.container("c1").sh("cut -d : -f 1 /run/resolve/file | head -n 1; ls -d /run/directory");
        let container = container.mount("/links/file", "bind", &source, &["bind", "ro"]);
        let container = container.mount("/links/directory", "tmpfs", "tmpfs", &[]);
        assert_eq!(container.run().await.ok(), "root\n/run/directory");
    });
}

#[test]
fn the_inside_of_proc_is_not_for_mounts() {
    test(async |guest| {
        for destination in ["/proc/sys", "/proc/1", "/proc/self/attr", "/proc/sysrq-trigger"] {
            let container = guest.container("c1").mount(destination, "tmpfs", "tmpfs", &[]);
            let refused = container.try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL, "{destination}");
        }
        let source = format!("{}/rootfs/etc/passwd", agent_api::paths::SHARE_ROOT);
        let harmless = guest.container("c1").sh("head -n 1 /proc/uptime | cut -d : -f 1");
        assert_eq!(harmless.mount("/proc/uptime", "bind", &source, &["bind"]).run().await.ok(), "root");
    });
}

#[test]
fn a_source_that_is_not_there_is_named() {
    test(async |guest| {
        let container = guest.container("c1").mount("/data", "bind", "/no/source", &["bind"]);
        let refused = container.try_create().await;
        assert_eq!(code(&refused), Code::INTERNAL);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("/no/source") && text.contains("/data"), "{text}");
    });
}

#[test]
fn a_read_only_root_takes_no_writes_and_its_tmpfs_does() {
    test(async |guest| {
        let script =
            "touch /file 2>/dev/null && echo written; touch /tmp/file && echo tmp; touch /dev/x && echo dev";
        let container =
            guest.container("c1").sh(script).spec(|spec| spec.Root.mut_or_insert_default().Readonly = true);
        assert_eq!(container.run().await.ok(), "tmp\ndev");
        let writable = guest.container("c1").sh("touch /root-is-writable && echo written").run().await.ok();
        assert_eq!(writable, "written", "only that container's view was read-only");
    });
}

#[test]
fn masked_paths_are_empty_and_protected_ones_read_only() {
    test(async |guest| {
        let script = "cat /proc/meminfo | wc -c; ls /sys/kernel | wc -l; touch /sys/kernel/x 2>/dev/null || echo sealed
            echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo protected; test -r /proc/sys/kernel/panic && echo readable";
        let container = guest.container("c1").sh(script).privileged().linux(|linux| {
            linux.MaskedPaths = ["/proc/meminfo", "/sys/kernel", "/not/there"].map(String::from).into();
            linux.ReadonlyPaths = ["/proc/sys", "/not/there/either"].map(String::from).into();
        });
        assert_eq!(container.run().await.ok(), "0\n0\nsealed\nprotected\nreadable");
    });
}

#[test]
fn sysctls_of_its_namespaces_are_set_and_others_refused() {
    test(async |guest| {
        let set = |name: &'static str, value: &'static str| {
            move |linux: &mut agent_api::oci::Linux| drop(linux.Sysctl.insert(name.into(), value.into()))
        };
        let container = guest.container("c1").args(&["cat", "/proc/sys/kernel/shmmax"]);
        assert_eq!(container.linux(set("kernel.shmmax", "1234567")).run().await.ok(), "1234567");
        let container = guest.container("c1").args(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
        let container = container.linux(set("net.ipv4.ip_unprivileged_port_start", "80"));
        assert_eq!(container.run().await.ok(), "80");
        for name in ["kernel.panic", "vm.swappiness", "kernel.hostname", "net/../kernel/panic"] {
            let container = guest.container("c1").sh("true").linux(set(name, "1"));
            let refused = container.try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL, "{name}");
            assert!(refused.unwrap_err().to_string().contains(name));
        }
    });
}

#[test]
fn a_pipe_is_a_device_too() {
    test(async |guest| {
        let container =
            guest.container("c1").sh("(echo through > /dev/pipe &); cat /dev/pipe").linux(|linux| {
                let pipe = |path: &str, kind: &str| agent_api::oci::LinuxDevice {
                    Path: path.into(),
                    Type: kind.into(),
                    Major: 1,
                    Minor: 3,
                    ..Default::default()
                };
                linux.Devices = vec![pipe("/dev/pipe", "p"), pipe("/dev/unbuffered", "u")];
            });
        assert_eq!(container.run().await.ok(), "through");
    });
}

#[test]
fn a_device_of_the_spec_is_made() {
    test(async |guest| {
        let container = guest.container("c1").sh("stat -c '%F %t %T %a %u %g' /dev/mine").linux(|linux| {
            linux.Devices.push(agent_api::oci::LinuxDevice {
                Path: "/dev/mine".into(),
                Type: "c".into(),
                Major: 1,
                Minor: 5,
                FileMode: 0o640,
                UID: 3,
                GID: 4,
                ..Default::default()
            });
        });
        assert_eq!(container.run().await.ok(), "character special file 1 5 640 3 4");
    });
}
