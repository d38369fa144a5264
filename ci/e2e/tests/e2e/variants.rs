//! The recipes beside the default one, each for what it promises: `debug`, and `confidential` with a policy of ours.

use std::time::Duration;

use agent_api::agent::SetPolicyRequest;
use agent_api::ports;
use e2e::{Boot, Settings};
use guest_manifest::Manifest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ttrpc::context;

#[test]
fn a_kernel_to_look_into_knows_its_types_its_symbols_and_its_configuration() {
    let config = Manifest::load(&Settings::debug()).unwrap().kernel_config.sha256;
    Boot::debug().test(async |guest| {
        let script = "zcat /proc/config.gz | sha256sum | cut -d ' ' -f 1; head -c 2 /sys/kernel/btf/vmlinux | od -An -tx2; \
            grep -c tracefs /proc/filesystems; grep -c ' [tT] ' /proc/kallsyms";
        let told = guest.container("look").privileged().sh(script).run().await.ok();
        let told: Vec<_> = told.lines().map(str::trim).collect();
        // A number in the guest's own order of bytes, as the types begin with.
        assert_eq!(told[..3], [config.as_str(), "eb9f", "1"]);
        assert!(told[3].parse::<u32>().unwrap() > 10_000, "{told:?}");
    });
}

#[test]
fn a_guest_to_look_around_in_has_a_shell_with_tools() {
    let boot = Boot::debug().cmdline("agent.debug_console").cmdline("agent.debug_console_vport=1026");
    boot.test(async |guest| {
        let mut console = guest.vm().connect(ports::DEBUG_CONSOLE).await.unwrap();
        // Not as it is echoed.
        console
            .write_all(b"ps | grep -c '[/]sbin/init'; wget --help 2>&1 | head -n 1; exit\n")
            .await
            .unwrap();
        let mut said = Vec::new();
        console.read_to_end(&mut said).await.unwrap();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("BusyBox v1."), "{said}");
    });
}

#[test]
fn a_measured_guest_is_locked_down_and_its_root_is_verified() {
    Boot::confidential().test(async |guest| {
        let script = "mkdir /tmp/s && mount -t securityfs none /tmp/s && cat /tmp/s/lockdown || exit 1; \
            grep ' / / ' /guest/proc/1/mountinfo; cat /sys/class/block/dm-0/dev; cat /proc/cmdline";
        let told = guest.container("look").sees_guest().sh(script).run().await.ok();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[0], "none integrity [confidentiality]");
        assert!(lines[1].contains(&format!(" {} / / ro", lines[2])), "{told}");
        assert!(told.contains("dm-mod.create="), "{told}");
    });
}

#[test]
fn a_measured_policy_is_obeyed_and_stays() {
    Boot::confidential().test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let refused = container.exec(&["true"]).try_start().await.unwrap_err().to_string();
        assert!(refused.contains("policy: ExecProcessRequest is not allowed"), "{refused}");
        let request = SetPolicyRequest { policy: "package agent_policy".into(), ..Default::default() };
        let refused = guest
            .agent()
            .service()
            .set_policy(context::with_duration(Duration::from_secs(10)), &request)
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("policy: SetPolicyRequest is not allowed"), "{refused}");
        assert_eq!(guest.container("c2").sh("exit 5").run().await.status, 5);
    });
}
