//! Hooks: those of a container's spec and those the guest brings along.
//!
//! The guest has no shell of its own, so hooks beside the agent are scripts in the share, run by the busybox there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use agent_api::agent::CreateSandboxRequest;
use agent_api::oci::{Hook, Hooks};
use agent_api::paths;
use e2e::{Boot, ContainerBuilder, Guest, code, test};
use serde_json::Value;
use ttrpc::Code;

#[test]
fn each_runs_at_its_turn_with_the_state() {
    test(async |guest| {
        let scripts = Scripts::new(guest, "turns");
        let note = |turn: &str| {
            scripts
                .add(turn, &format!("cat > {}/{turn}.state; echo {turn} $1 $A >> {0}/log", scripts.inside()))
        };
        let inside = "#!/bin/sh\ncat > /startContainer.state; echo startContainer $1 $A >> /tmp/order; id -u >> /tmp/order\n";
        scripts.add_to_image("start-hook", inside);
        let hooks = Hooks {
            Prestart: vec![note("prestart")],
            CreateRuntime: vec![note("createRuntime")],
            CreateContainer: vec![note("createContainer")],
            StartContainer: vec![hook("/start-hook")],
            Poststart: vec![note("poststart")],
            Poststop: vec![note("poststop")],
            ..Default::default()
        };
        let container = with(guest.container("c1").sh("cat /tmp/order; exec sleep 1000"), hooks);
        let annotated = container.spec(|spec| drop(spec.Annotations.insert("key".into(), "value".into())));
        let container = annotated.create().await;
        let log = || fs::read_to_string(scripts.outside("log")).unwrap();
        assert_eq!(log(), "prestart arg b\ncreateRuntime arg b\ncreateContainer arg b\n");
        container.start().await;
        assert_eq!(container.init().read(100).await, b"startContainer arg b\n0\n");
        assert!(log().ends_with("poststart arg b\n"), "{}", log());
        let id = container.id().to_owned();
        container.remove().await;
        assert!(log().ends_with("poststop arg b\n"), "{}", log());

        let state = |turn: &str| -> Value {
            serde_json::from_str(&fs::read_to_string(scripts.outside(&format!("{turn}.state"))).unwrap())
                .unwrap()
        };
        for (turn, status) in [
            ("prestart", "creating"),
            ("createRuntime", "creating"),
            ("createContainer", "creating"),
            ("poststart", "running"),
            ("poststop", "stopped"),
        ] {
            let state = state(turn);
            assert_eq!((&state["status"], &state["id"]), (&status.into(), &id.as_str().into()), "{turn}");
            assert_eq!(state["annotations"]["key"], "value");
            assert_eq!(state["bundle"], format!("{}/{id}", paths::RUN));
        }
        assert_eq!(state("createContainer")["pid"], 1, "as the container counts");
        assert!(state("prestart")["pid"].as_i64().unwrap() > 1, "as the guest counts");
        assert_eq!(state("poststop").get("pid"), None);
        let inside: Value =
            serde_json::from_str(&fs::read_to_string(guest.rootfs().join("startContainer.state")).unwrap())
                .unwrap();
        assert_eq!((&inside["status"], &inside["pid"]), (&"created".into(), &1.into()));
    });
}

#[test]
fn hooks_beside_the_agent_find_a_bundle_and_the_containers_namespaces() {
    test(async |guest| {
        let scripts = Scripts::new(guest, "bundle");
        let text = format!(
            "pid=$(grep -o '\"pid\":[0-9]*' | cut -d : -f 2); ls > {0}/files; cat config.json > {0}/config; \
             readlink /proc/$pid/ns/mnt > {0}/namespaces; readlink /proc/self/ns/mnt >> {0}/namespaces",
            scripts.inside()
        );
        let hooks = Hooks { CreateRuntime: vec![scripts.add("look", &text)], ..Default::default() };
        let container = with(guest.container("c1").args(&["readlink", "/proc/self/ns/mnt"]), hooks);
        let own = container.run().await.ok();
        let read = |name: &str| fs::read_to_string(scripts.outside(name)).unwrap();
        assert_eq!(read("files"), "config.json\n");
        let config: Value = serde_json::from_str(&read("config")).unwrap();
        assert_eq!(config["root"]["path"], format!("{}/rootfs", paths::SHARE_ROOT));
        let namespaces = read("namespaces");
        let (theirs, ours) = namespaces.trim().split_once('\n').unwrap();
        assert_eq!((theirs, ours == own), (own.as_str(), false));
    });
}

#[test]
fn one_that_fails_ends_the_creation_and_leaves_nothing() {
    test(async |guest| {
        let scripts = Scripts::new(guest, "failing");
        let bad = scripts.add("bad", "echo this is why >&2; exit 3");
        let after = scripts.add("after", &format!("echo gone >> {}/log", scripts.inside()));
        for (count, hooks) in [
            Hooks { Prestart: vec![bad.clone()], ..Default::default() },
            Hooks { CreateRuntime: vec![bad.clone()], ..Default::default() },
            Hooks { CreateContainer: vec![bad.clone()], ..Default::default() },
        ]
        .into_iter()
        .enumerate()
        {
            let hooks = Hooks { Poststop: vec![after.clone()], ..hooks };
            let failed = with(guest.container("c1").sh("true"), hooks).try_create().await;
            assert_eq!(code(&failed), Code::INTERNAL);
            let text = failed.unwrap_err().to_string();
            assert!(text.contains("/bad") && text.contains("3: this is why"), "{text}");
            let log = fs::read_to_string(scripts.outside("log")).unwrap();
            assert_eq!(log.lines().count(), count + 1, "poststop hooks run for what was not made either");
            guest.container("c1").sh("true").run().await.ok();
        }
        let missing = Hooks { CreateRuntime: vec![hook("/no/such/hook")], ..Default::default() };
        let failed = with(guest.container("c1").sh("true"), missing).try_create().await;
        assert!(failed.unwrap_err().to_string().contains("/no/such/hook"));
        let negative = Hook { Timeout: -1, ..hook("/x") };
        let negative = Hooks { Poststop: vec![negative], ..Default::default() };
        let failed = with(guest.container("c1").sh("true"), negative).try_create().await;
        assert!(failed.unwrap_err().to_string().contains("hook timeout"));
        let watch = guest.container("watch").sees_guest().sh("ls /guest/cgroup/e2e | grep -c '^c1' || true");
        assert_eq!(watch.run().await.ok(), "0");
    });
}

#[test]
fn one_that_fails_in_the_container_ends_the_start() {
    test(async |guest| {
        let scripts = Scripts::new(guest, "start");
        scripts.add_to_image("bad-start-hook", "#!/bin/sh\necho not today >&2\nexit 9\n");
        let hooks = Hooks { StartContainer: vec![hook("/bad-start-hook")], ..Default::default() };
        let container = with(guest.container("c1").sh("touch /it-ran"), hooks).create().await;
        let failed = container.try_start().await;
        assert_eq!(code(&failed), Code::INTERNAL);
        let text = failed.unwrap_err().to_string();
        assert!(
            text.contains("startContainer hook \"/bad-start-hook\"") && text.contains("not today"),
            "{text}"
        );
        assert!(!guest.rootfs().join("it-ran").exists());
        container.remove().await;
    });
}

#[test]
fn what_comes_after_may_fail_and_hang_and_the_container_goes_on() {
    test(async |guest| {
        let scripts = Scripts::new(guest, "after");
        let bad = scripts.add("bad", "exit 1");
        let slow = Hook { Timeout: 1, ..scripts.add("slow", "sleep 1000") };
        let last = scripts.add("last", &format!("echo last >> {}/log", scripts.inside()));
        let all = vec![bad, slow, last];
        let hooks = Hooks { Poststart: all.clone(), Poststop: all, ..Default::default() };
        let container = with(guest.container("c1").args(&["sleep", "1000"]), hooks).start().await;
        assert_eq!(container.sh("echo up").await, "up");
        container.remove().await;
        assert_eq!(fs::read_to_string(scripts.outside("log")).unwrap(), "last\nlast\n");
    });
}

#[test]
fn a_slow_hook_keeps_no_other_container_waiting() {
    test(async |guest| {
        let scripts = Scripts::new(guest, "slow");
        let slow = scripts.add("slow", "sleep 3");
        let hooks = Hooks { CreateRuntime: vec![slow], ..Default::default() };
        let begun = std::time::Instant::now();
        let slow = async {
            with(guest.container("slow").sh("true"), hooks).run().await.ok();
            begun.elapsed()
        };
        let quick = async {
            guest.container("quick").sh("true").run().await.ok();
            begun.elapsed()
        };
        let (slow, quick) = tokio::join!(slow, quick);
        assert!(quick < slow && slow.as_secs() >= 3, "{quick:?} {slow:?}");
    });
}

/// Not dropped when the spec has hooks of its own, as the peer's agent does.
#[test]
fn the_guests_hooks_run_for_every_container_also_beside_its_own() {
    Boot::new().bare().test(async |guest| {
        let scripts = Scripts::new(guest, "guest");
        let note = format!("echo $1 $0 $(hostname) >> {}/log", scripts.inside());
        for turn in ["prestart", "poststart", "poststop"] {
            scripts.add(&format!("hooks/{turn}/b-second"), &note);
            scripts.add(&format!("hooks/{turn}/a-first"), &note);
            fs::write(scripts.outside(&format!("hooks/{turn}/readme")), "not a program").unwrap();
            symlink("a-first", scripts.outside(&format!("hooks/{turn}/link"))).unwrap();
        }
        let path = format!("{}/hooks", scripts.inside());
        guest
            .create_sandbox_with(|request: &mut CreateSandboxRequest| request.guest_hook_path = path)
            .await
            .unwrap();
        guest.container("plain").sh("true").run().await.ok();
        let log = fs::read_to_string(scripts.outside("log")).unwrap();
        let turns: Vec<_> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(
            turns,
            ["prestart", "prestart", "poststart", "poststart", "poststop", "poststop"],
            "{log}"
        );
        assert!(log.lines().next().unwrap().contains("a-first"), "{log}");

        let own = scripts.add("own", &note);
        let hooks = Hooks { Poststop: vec![own], ..Default::default() };
        with(guest.container("own").sh("true"), hooks).run().await.ok();
        let log = fs::read_to_string(scripts.outside("log")).unwrap();
        assert_eq!(log.lines().count(), 6 + 7, "{log}");
        assert!(log.lines().nth(6 + 4).unwrap().starts_with("arg "), "the spec's own come first: {log}");
    });
}

#[test]
fn a_hook_path_that_leads_nowhere_means_no_hooks() {
    Boot::new().bare().test(async |guest| {
        let with = |path: &'static str| {
            move |request: &mut CreateSandboxRequest| request.guest_hook_path = path.into()
        };
        for path in ["/no/such/directory", "relative", "../..", "/proc/self"] {
            guest.create_sandbox_with(with(path)).await.unwrap();
            guest.container("c1").sh("true").run().await.ok();
        }
        guest.agent().check().await.unwrap();
    });
}

const BUSYBOX: &str = "/run/kata-containers/shared/containers/rootfs/bin/busybox";

/// A directory for hooks and what they leave, as the guest and as the host sees it.
struct Scripts {
    guest: PathBuf,
    host: PathBuf,
    image: PathBuf,
}

impl Scripts {
    fn new(guest: &Guest, name: &str) -> Scripts {
        let image = guest.rootfs();
        let host = image.join("hooks").join(name);
        fs::create_dir_all(&host).unwrap();
        let guest = Path::new(paths::SHARE_ROOT).join("rootfs/hooks").join(name);
        Scripts { guest, host, image }
    }

    fn inside(&self) -> &str {
        self.guest.to_str().unwrap()
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.host.join(name)
    }

    /// A hook that runs these lines of shell.
    fn add(&self, name: &str, text: &str) -> Hook {
        let tools = ["cat", "cut", "grep", "hostname", "ls", "readlink", "sleep"];
        let tools = tools.map(|tool| format!("{tool}() {{ {BUSYBOX} {tool} \"$@\"; }}\n")).concat();
        write(&self.host.join(name), &format!("#!{BUSYBOX} sh\n{tools}{text}\n"));
        hook(self.guest.join(name).to_str().unwrap())
    }

    /// A program at the top of the containers' root.
    fn add_to_image(&self, name: &str, text: &str) {
        write(&self.image.join(name), text);
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn hook(path: &str) -> Hook {
    Hook {
        Path: path.into(),
        Args: vec![path.into(), "arg".into()],
        Env: vec!["A=b".into(), "PATH=/bin".into()],
        ..Default::default()
    }
}

fn with(builder: ContainerBuilder<'_>, hooks: Hooks) -> ContainerBuilder<'_> {
    builder.spec(|spec| spec.Hooks = Some(hooks).into())
}
