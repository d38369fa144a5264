//! What a process is: user, groups, capabilities, rlimits, environment.

use agent_api::oci::{LinuxCapabilities, POSIXRlimit, User};
use e2e::{code, test};
use protobuf::MessageField;
use ttrpc::Code;

#[test]
fn ids_and_groups_are_the_specs() {
    test(async |guest| {
        let container =
            guest.container("c1").sh("id -u; id -g; grep Groups /proc/self/status").process(|process| {
                let groups = vec![3000, 10];
                process.User = MessageField::some(User {
                    UID: 1234,
                    GID: 567,
                    AdditionalGids: groups,
                    ..Default::default()
                });
            });
        let said = container.run().await.ok();
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words, ["1234", "567", "Groups:", "10", "3000"]);
    });
}

#[test]
fn a_name_is_looked_up_in_the_containers_files() {
    test(async |guest| {
        let ask = "id -u; id -g; echo $HOME";
        let by = async |name: &str| guest.container("c1").sh(ask).username(name).run().await.ok();
        assert_eq!(by("app").await.lines().take(2).collect::<Vec<_>>(), ["1000", "1000"]);
        assert_eq!(by("app:root").await.lines().take(2).collect::<Vec<_>>(), ["1000", "0"]);
        assert_eq!(by("1000").await, by("app").await);
        assert_eq!(by("77:88").await, "77\n88\n/");
        let nobody = guest.container("c1").sh(ask).username("nosuchuser").try_start().await;
        assert_eq!(code(&nobody), Code::INTERNAL);
    });
}

#[test]
fn a_missing_user_is_named() {
    test(async |guest| {
        let nobody = guest.container("c1").sh("true").username("nosuchuser").try_start().await;
        let text = nobody.unwrap_err().to_string();
        assert!(text.contains("nosuchuser"), "{text}");
    });
}

#[test]
fn the_environment_is_the_specs_with_a_home() {
    test(async |guest| {
        let container = guest.container("c1").args(&["env"]).process(|process| {
            process.Env = ["PATH=/bin", "EMPTY=", "TWO=a b=c"].map(String::from).into();
        });
        let said = container.run().await.ok();
        let users = std::fs::read_to_string(guest.rootfs().join("etc/passwd")).unwrap();
        let root = users.lines().find(|line| line.starts_with("root:")).unwrap();
        let home = format!("HOME={}", root.split(':').nth(5).unwrap());
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["EMPTY=", &home, "PATH=/bin", "TWO=a b=c"]);
    });
}

#[test]
fn the_working_directory_is_made_and_entered() {
    test(async |guest| {
        let in_tmp = guest.container("c1").args(&["pwd"]).process(|process| process.Cwd = "/tmp/a/b".into());
        assert_eq!(in_tmp.run().await.ok(), "/tmp/a/b");
        let relative = guest.container("c1").args(&["pwd"]).process(|process| process.Cwd = "tmp".into());
        assert_eq!(code(&relative.try_create().await), Code::INTERNAL);
    });
}

#[test]
fn capabilities_are_the_specs_and_nothing_more() {
    test(async |guest| {
        let ask = "grep ^Cap /proc/self/status | cut -f 2 | tr '\\n' ' '";
        let none = guest.container("c1").sh(ask).run().await.ok();
        assert_eq!(none, ["0000000000000000"; 5].join(" "));
        let some = guest.container("c1").sh(ask).process(|process| {
            let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            process.Capabilities = MessageField::some(LinuxCapabilities {
                // As peers spell them, and one that no kernel knows.
                Bounding: names(&["CAP_CHOWN", "KILL", "\"CAP_SYS_ADMIN\"", "CAP_FLY"]),
                Permitted: names(&["CAP_CHOWN", "CAP_KILL"]),
                Effective: names(&["CAP_CHOWN"]),
                Inheritable: names(&["CAP_KILL"]),
                Ambient: names(&["CAP_KILL"]),
                ..Default::default()
            });
        });
        // Root's execute gives it the bounding set; what counts for root is that set. Others: see below.
        let some = some.run().await.ok();
        let words: Vec<&str> = some.split(' ').collect();
        assert_eq!((words[0], words[3]), ("0000000000000020", "0000000000200021"), "{some}");
    });
}

#[test]
fn a_user_keeps_only_ambient_capabilities() {
    test(async |guest| {
        let container = guest.container("c1").sh("grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status | cut -f 2");
        let container = container.user(1000, 1000).process(|process| {
            let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            process.Capabilities = MessageField::some(LinuxCapabilities {
                Bounding: names(&["CAP_CHOWN", "CAP_KILL"]),
                Permitted: names(&["CAP_CHOWN", "CAP_KILL"]),
                Effective: names(&["CAP_CHOWN", "CAP_KILL"]),
                Inheritable: names(&["CAP_KILL"]),
                Ambient: names(&["CAP_KILL"]),
                ..Default::default()
            });
        });
        assert_eq!(container.run().await.ok(), ["0000000000000020"; 3].join("\n"));
    });
}

#[test]
fn no_new_privileges_oom_score_and_rlimits_hold() {
    test(async |guest| {
        let ask = "grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn";
        let container = guest.container("c1").sh(ask).process(|process| {
            process.NoNewPrivileges = true;
            process.OOMScoreAdj = 321;
            let limit =
                |name: &str| POSIXRlimit { Type: name.into(), Soft: 99, Hard: 200, ..Default::default() };
            process.Rlimits = vec![limit("RLIMIT_NOFILE")];
        });
        assert_eq!(container.run().await.ok(), "NoNewPrivs:\t1\n321\n99\n200");
        let plain = guest.container("c1").sh("grep NoNewPrivs /proc/self/status").run().await.ok();
        assert_eq!(plain, "NoNewPrivs:\t0");
    });
}

#[test]
fn nothing_of_the_agents_leaks_into_it() {
    test(async |guest| {
        let run = async |args: &[&str]| guest.container("c1").args(args).run().await.ok();
        // 3 is the directory that ls reads.
        assert_eq!(run(&["ls", "/proc/self/fd"]).await, "0\n1\n2\n3");
        assert_eq!(run(&["sh", "-c", "umask"]).await, "0022");
        let signals = run(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).await;
        assert_eq!(signals, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000");
    });
}
