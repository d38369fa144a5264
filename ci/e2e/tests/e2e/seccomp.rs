//! Filters of system calls.

use agent_api::agent::GuestDetailsRequest;
use agent_api::oci::linux_syscall::ErrnoRet;
use agent_api::oci::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use e2e::{ContainerBuilder, code, test};
use protobuf::MessageField;
use ttrpc::{Code, context};

#[test]
fn a_refused_call_answers_the_number_of_the_rule() {
    test(async |guest| {
        let script = "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status";
        for promise in [true, false] {
            let refused = rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", Some(38));
            let container = filtered(guest.container("c1").sh(script), vec![refused]);
            let container = container.process(|process| process.NoNewPrivileges = promise);
            let said = container.run().await.ok();
            assert_eq!(said, "mkdir: can't create directory '/tmp/x': Function not implemented\nSeccomp:\t2");
        }
    });
}

#[test]
fn a_rule_without_a_number_means_not_permitted_and_0_means_nothing_is_done() {
    test(async |guest| {
        let with = async |number: Option<u32>| {
            let refused = rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", number);
            let script = "mkdir /tmp/x 2>/dev/null && echo claimed; test -d /tmp/x || echo absent";
            filtered(guest.container("c1").sh(script), vec![refused]).run().await.ok()
        };
        assert_eq!(with(None).await, "absent");
        assert_eq!(with(Some(0)).await, "claimed\nabsent");
    });
}

#[test]
fn arguments_are_looked_at() {
    test(async |guest| {
        let mut kill = rule(&["kill"], "SCMP_ACT_ERRNO", None);
        let arg = LinuxSeccompArg { Index: 1, Value: 15, Op: "SCMP_CMP_EQ".into(), ..Default::default() };
        kill.Args.push(arg);
        let script = "kill -0 $$ && echo may; kill -TERM $$ 2>/dev/null || echo may not";
        assert_eq!(filtered(guest.container("c1").sh(script), vec![kill]).run().await.ok(), "may\nmay not");
    });
}

#[test]
fn a_forbidden_call_kills() {
    test(async |guest| {
        for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
            let rules = vec![rule(&["mkdir", "mkdirat"], action, None)];
            let done = filtered(guest.container("c1").args(&["mkdir", "/tmp/x"]), rules).run().await;
            assert_eq!(done.status, 128 + 31, "{action}");
        }
    });
}

#[test]
fn a_list_of_what_is_allowed_need_not_know_the_agent() {
    test(async |guest| {
        let needed = "execve capset write exit_group exit brk mmap munmap mprotect arch_prctl set_tid_address \
                      set_robust_list rseq prlimit64 readlink readlinkat getrandom getuid geteuid getgid getegid \
                      rt_sigaction rt_sigprocmask uname prctl ioctl newfstatat fstat";
        let names: Vec<&str> = needed.split_whitespace().collect();
        let container = filtered(
            guest.container("c1").args(&["echo", "strict"]),
            vec![rule(&names, "SCMP_ACT_ALLOW", None)],
        );
        let container = container.linux(|linux| {
            linux.Seccomp.mut_or_insert_default().DefaultAction = "SCMP_ACT_ERRNO".into();
        });
        assert_eq!(container.run().await.ok(), "strict");
    });
}

#[test]
fn further_processes_are_filtered_too() {
    test(async |guest| {
        let rules = vec![rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", None)];
        let container = filtered(guest.container("c1").args(&["sleep", "1000"]), rules).start().await;
        assert_eq!(container.sh("mkdir /tmp/x 2>/dev/null || echo refused").await, "refused");
        let free = guest.container("c2").args(&["sleep", "1000"]).start().await;
        assert_eq!(free.sh("mkdir /tmp/x && echo made").await, "made");
    });
}

#[test]
fn what_engines_send_by_default_is_taken() {
    test(async |guest| {
        let rules = vec![
            rule(&["mkdir", "a_call_of_the_future"], "SCMP_ACT_ERRNO", None),
            rule(&["getpid"], "SCMP_ACT_ALLOW", None),
        ];
        let container = filtered(guest.container("c1").sh("echo runs"), rules).linux(|linux| {
            let seccomp = linux.Seccomp.mut_or_insert_default();
            let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
            seccomp.Architectures = architectures.map(String::from).into();
            let flags = ["LOG", "SPEC_ALLOW", "TSYNC"];
            seccomp.Flags = flags.map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}")).into();
        });
        assert_eq!(container.run().await.ok(), "runs");
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    test(async |guest| {
        for (action, word) in [("SCMP_ACT_NOTIFY", "SCMP_ACT_NOTIFY"), ("SCMP_ACT_MAYBE", "SCMP_ACT_MAYBE")] {
            let container = filtered(guest.container("c1").sh("true"), vec![rule(&["mkdir"], action, None)]);
            let refused = container.try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL);
            assert!(refused.unwrap_err().to_string().contains(word));
        }
        let container = guest.container("c1").sh("true").linux(|linux| {
            linux.Seccomp = MessageField::some(LinuxSeccomp::default());
        });
        assert_eq!(code(&container.try_create().await), Code::INTERNAL, "a filter without a default");
    });
}

#[test]
fn labels_are_refused_where_the_kernel_has_no_module_for_them() {
    test(async |guest| {
        let profile = guest.container("c1").process(|process| process.ApparmorProfile = "web".into());
        let label = guest.container("c1").process(|process| process.SelinuxLabel = "a:b:c:s0".into());
        let mount = guest.container("c1").linux(|linux| linux.MountLabel = "a:b:c:s0".into());
        for (container, word) in [(profile, "AppArmor"), (label, "SELinux"), (mount, "SELinux")] {
            let refused = container.try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL);
            assert!(refused.unwrap_err().to_string().contains(word), "{word}");
        }
    });
}

#[test]
fn the_guest_says_that_it_can() {
    test(async |guest| {
        let limit = context::with_duration(e2e::LIMIT);
        let answer = guest.agent().service().get_guest_details(limit, &GuestDetailsRequest::default()).await;
        let details = answer.unwrap().agent_details.unwrap();
        assert!(details.supports_seccomp);
        assert_eq!(details.extra_features[0], "seccomp");
        let line =
            |subject: &str| details.extra_features.iter().find(|line| line.starts_with(subject)).unwrap();
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
            assert!(line("namespaces=").split(['=', ',']).any(|word| word == kind), "{kind}");
        }
        for action in ["allow", "errno", "kill_process", "log", "trace", "trap"] {
            assert!(line("seccomp-actions=").split(['=', ',']).any(|word| word == action), "{action}");
        }
    });
}

fn rule(names: &[&str], action: &str, number: Option<u32>) -> LinuxSyscall {
    LinuxSyscall {
        Names: names.iter().map(ToString::to_string).collect(),
        Action: action.into(),
        ErrnoRet: number.map(ErrnoRet::Errnoret),
        ..Default::default()
    }
}

fn filtered(builder: ContainerBuilder<'_>, rules: Vec<LinuxSyscall>) -> ContainerBuilder<'_> {
    builder.linux(|linux| {
        let seccomp =
            LinuxSeccomp { DefaultAction: "SCMP_ACT_ALLOW".into(), Syscalls: rules, ..Default::default() };
        linux.Seccomp = MessageField::some(seccomp);
    })
}
