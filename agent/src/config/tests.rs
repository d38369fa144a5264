use std::time::Duration;

use tracing::Level;

use super::value::Value as _;
use super::*;

fn from_cmdline(cmdline: &str) -> Resolved {
    Resolved::from(Sources { cmdline: cmdline.into(), ..Sources::default() }).unwrap()
}

/// A file that is gone when the test is.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("husk-config-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn read(&self) -> Result<Resolved, Error> {
        Resolved::from(Sources { file: Some(self.0.clone()), ..Sources::default() })
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn nothing_given_means_defaults() {
    let resolved = from_cmdline("console=hvc0 quiet panic=-1 agent.unknown=1 agent.log2=debug\n");
    assert_eq!(resolved.config, Config::default());
    assert_eq!(resolved.warnings, []);
    assert!(!resolved.config.wants_cgroup_v1());
}

/// The contract's table of keys: word, a value other than the default, and the same value in a file.
const EVERY_KEY: &[(&str, &str, &str, &str)] = &[
    ("agent.log", "debug", "log_level", "\"debug\""),
    ("agent.debug_console", "", "debug_console", "true"),
    ("agent.devmode", "", "dev_mode", "true"),
    ("agent.debug_console_vport", "1026", "debug_console_vport", "1026"),
    ("agent.log_vport", "1025", "log_vport", "1025"),
    ("agent.passfd_listener_port", "1027", "passfd_listener_port", "1027"),
    ("agent.server_addr", "unix:///run/a.sock", "server_addr", "\"unix:///run/a.sock\""),
    ("agent.container_pipe_size", "65536", "container_pipe_size", "65536"),
    ("agent.hotplug_timeout", "7", "hotplug_timeout", "{ secs = 7, nanos = 0 }"),
    ("agent.cdi_timeout", "8", "cdi_timeout", "{ secs = 8, nanos = 0 }"),
    ("agent.launch_process_timeout", "9", "launch_process_timeout", "{ secs = 9, nanos = 0 }"),
    ("agent.cdh_api_timeout", "10", "cdh_api_timeout", "{ secs = 10, nanos = 0 }"),
    ("agent.image_pull_timeout", "11", "image_pull_timeout", "{ secs = 11, nanos = 0 }"),
    ("agent.trace", "", "tracing", "true"),
    ("agent.https_proxy", "http://p:1", "https_proxy", "\"http://p:1\""),
    ("agent.no_proxy", "a,b", "no_proxy", "\"a,b\""),
    ("agent.guest_components_procs", "none", "guest_components_procs", "\"none\""),
    ("agent.guest_components_rest_api", "all", "guest_components_rest_api", "\"all\""),
    ("agent.secure_storage_integrity", "false", "secure_storage_integrity", "false"),
    ("agent.visible_cdi_devices", "1", "visible_cdi_devices", "true"),
    ("agent.mem_agent_enable", "1", "mem_agent_enable", "true"),
    ("agent.mem_agent_memcg_disable", "true", "mem_agent_memcg_disable", "true"),
    ("agent.mem_agent_memcg_swap", "2", "mem_agent_memcg_swap", "true"),
    ("agent.mem_agent_memcg_swappiness_max", "51", "mem_agent_memcg_swappiness_max", "51"),
    ("agent.mem_agent_memcg_period_secs", "601", "mem_agent_memcg_period_secs", "601"),
    ("agent.mem_agent_memcg_period_psi_percent_limit", "2", "mem_agent_memcg_period_psi_percent_limit", "2"),
    (
        "agent.mem_agent_memcg_eviction_psi_percent_limit",
        "3",
        "mem_agent_memcg_eviction_psi_percent_limit",
        "3",
    ),
    (
        "agent.mem_agent_memcg_eviction_run_aging_count_min",
        "4",
        "mem_agent_memcg_eviction_run_aging_count_min",
        "4",
    ),
    ("agent.mem_agent_compact_disable", "1", "mem_agent_compact_disable", "true"),
    ("agent.mem_agent_compact_period_secs", "602", "mem_agent_compact_period_secs", "602"),
    (
        "agent.mem_agent_compact_period_psi_percent_limit",
        "3",
        "mem_agent_compact_period_psi_percent_limit",
        "3",
    ),
    ("agent.mem_agent_compact_psi_percent_limit", "6", "mem_agent_compact_psi_percent_limit", "6"),
    ("agent.mem_agent_compact_sec_max", "301", "mem_agent_compact_sec_max", "301"),
    ("agent.mem_agent_compact_order", "8", "mem_agent_compact_order", "8"),
    ("agent.mem_agent_compact_threshold", "1025", "mem_agent_compact_threshold", "1025"),
    ("agent.mem_agent_compact_force_times", "12", "mem_agent_compact_force_times", "12"),
    ("systemd.unified_cgroup_hierarchy", "false", "unified_cgroup_hierarchy", "false"),
    ("cgroup_no_v1", "all", "cgroup_no_v1", "\"all\""),
];

#[test]
fn every_key_means_the_same_on_the_command_line_and_in_a_file() {
    for (index, (word, value, key, in_file)) in EVERY_KEY.iter().enumerate() {
        let word = if value.is_empty() { word.to_string() } else { format!("{word}={value}") };
        let by_word = from_cmdline(&format!("quiet {word} panic=-1"));
        assert_eq!(by_word.warnings, [], "{word}");
        assert_ne!(by_word.config, Config::default(), "{word} changes nothing");
        let file = TestFile::new(&index.to_string(), &format!("{key} = {in_file}\n"));
        let by_file = file.read().unwrap();
        assert_eq!(by_file.warnings, [], "{key}");
        assert_eq!(by_word.config, by_file.config, "{word} and {key}");
    }
    // Beside these there is the policy, which the command line cannot name.
    assert_eq!(KNOBS.len(), EVERY_KEY.len() + 1);
}

#[test]
fn names_are_unique_and_explained() {
    for (index, knob) in KNOBS.iter().enumerate() {
        assert!(knob.help.trim().ends_with('.'), "{}", knob.help);
        for other in &KNOBS[..index] {
            assert_ne!(knob.names.file_key(), other.names.file_key());
            assert!(knob.names.word.is_empty() || knob.names.word != other.names.word);
        }
    }
}

#[test]
fn a_bad_value_names_its_key_and_leaves_what_was_there() {
    let bad = [
        "agent.log=loud",
        "agent.log",
        "agent.log_vport=-1",
        "agent.log_vport=+5",
        "agent.log_vport=4294967296",
        "agent.debug_console_vport=ten",
        "agent.container_pipe_size=-4",
        "agent.container_pipe_size=2147483648",
        "agent.hotplug_timeout=0",
        "agent.hotplug_timeout=-1",
        "agent.hotplug_timeout=1.",
        "agent.hotplug_timeout=5s",
        "agent.cdi_timeout=4294967296",
        "agent.guest_components_procs=all",
        "agent.secure_storage_integrity=no",
        "agent.mem_agent_memcg_swappiness_max=256",
        "agent.mem_agent_compact_force_times=9223372036854775808",
        "systemd.unified_cgroup_hierarchy=maybe",
    ];
    for word in bad {
        let resolved = from_cmdline(word);
        assert_eq!(resolved.config, Config::default(), "{word}");
        let [warning] = &resolved.warnings[..] else { panic!("{word}: {:?}", resolved.warnings) };
        let key = word.split('=').next().unwrap();
        assert!(warning.to_string().starts_with(&format!("{key}: ")), "{warning}");
        assert!(!warning.to_string().contains('\n'));
    }
    assert_eq!(from_cmdline("agent.log=warn agent.log=loud").config.log_level, Level::WARN);
}

#[test]
fn the_last_of_two_wins() {
    assert_eq!(from_cmdline("agent.log=warn agent.log=trace").config.log_level, Level::TRACE);
}

#[test]
fn levels_go_by_the_names_of_peers_too() {
    for (name, level) in [
        ("critical", Level::ERROR),
        ("fatal", Level::ERROR),
        ("panic", Level::ERROR),
        ("warning", Level::WARN),
        ("WARN", Level::WARN),
    ] {
        assert_eq!(Level::parse(name), Some(level), "{name}");
    }
}

#[test]
fn times_have_fractions_only_from_a_file() {
    let file = TestFile::new("times", "hotplug_timeout = { nanos = 5_000 }\n[cdi_timeout]\nsecs = 1\n");
    let config = file.read().unwrap().config;
    assert_eq!(config.hotplug_timeout, Duration::from_micros(5));
    assert_eq!(config.cdi_timeout, Duration::from_secs(1));
    for bad in [
        "{ secs = 1, nanos = 1000000000 }",
        "{ secs = -1, nanos = 0 }",
        "{ secs = 1, msecs = 1 }",
        "{ secs = 0, nanos = 0 }",
        "{}",
        "1.5",
        "\"3\"",
    ] {
        let resolved = TestFile::new("bad-time", &format!("hotplug_timeout = {bad}")).read().unwrap();
        assert_eq!(resolved.config, Config::default(), "{bad}");
        assert_eq!(resolved.warnings.len(), 1, "{bad}");
    }
}

#[test]
fn servers_are_where_they_say() {
    let good = [
        ("vsock://-1:1024", ServerAddress::default()),
        ("vsock://3:99", ServerAddress::Vm { cid: Some(3), port: 99 }),
        ("unix:///run/husk.sock", ServerAddress::Unix("/run/husk.sock".into())),
        ("unix://@husk", ServerAddress::Abstract("husk".into())),
        ("tcp://127.0.0.1:80", ServerAddress::Tcp("127.0.0.1:80".parse().unwrap())),
        ("tcp://localhost:80", ServerAddress::Tcp("127.0.0.1:80".parse().unwrap())),
        ("tcp://[::1]:80", ServerAddress::Tcp("[::1]:80".parse().unwrap())),
    ];
    for (text, address) in good {
        assert_eq!(ServerAddress::parse(text), Some(address.clone()), "{text}");
        assert_eq!(ServerAddress::parse(&address.to_string()), Some(address), "{text}");
    }
    let long = format!("unix:///{}", "a".repeat(107));
    let bad = [
        "",
        "vsock",
        "vsock://",
        "vsock://-1",
        "vsock://-1:",
        "vsock://-1:0",
        "vsock://-2:1024",
        "vsock://2:1024",
        "vsock://-1:4294967295",
        "vsock://-1:1024:5",
        "unix://",
        "unix://a.sock",
        "unix://@",
        "unix:///run/",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:99999",
        "tcp://example.com:80",
        "hvsock:///a:1",
        "http://127.0.0.1:1",
        &long,
    ];
    for text in bad {
        assert_eq!(ServerAddress::parse(text), None, "{text}");
    }
}

#[test]
fn an_agent_that_would_listen_elsewhere_does_not_start() {
    let sources = Sources { cmdline: "agent.server_addr=tcp".into(), ..Sources::default() };
    let error = Resolved::from(sources).err().unwrap().to_string();
    assert!(
        error.starts_with("configuration: agent.server_addr: \"tcp\" of the kernel command line"),
        "{error}"
    );
    let error = TestFile::new("server", "server_addr = 5").read().err().unwrap().to_string();
    assert!(error.contains("server_addr: \"an integer\" of the file"), "{error}");
}

#[test]
fn a_policy_that_cannot_be_enforced_ends_it() {
    let error = TestFile::new("policy", "policy_file = \"/nonexistent\"").read().err().unwrap();
    assert!(error.to_string().starts_with("configuration: policy_file: "), "{error}");
    assert!(TestFile::new("no-policy", "policy_file = \"\"").read().unwrap().config.policy_file.is_none());
}

#[test]
fn a_file_on_the_command_line_replaces_everything_else() {
    let file = TestFile::new("replaces", "log_vport = 1025");
    let cmdline = format!("agent.log=debug agent.config_file={} agent.debug_console", file.0.display());
    let environment = vec![("KATA_AGENT_LOG_LEVEL".to_string(), "trace".to_string())];
    let both = |file: Option<PathBuf>| {
        let sources = Sources { file, cmdline: cmdline.clone(), environment: environment.clone() };
        Resolved::from(sources).unwrap().config
    };
    assert_eq!(both(None), Config { log_port: Some(1025), ..Config::default() });
    let by_option = both(Some(file.0.clone()));
    assert_eq!(by_option, Config { log_level: Level::TRACE, log_port: Some(1025), ..Config::default() });
}

#[test]
fn the_environment_wins_over_the_command_line() {
    let variables = [
        ("KATA_AGENT_SERVER_ADDR", "unix://@e"),
        ("KATA_AGENT_LOG_LEVEL", "error"),
        ("KATA_AGENT_TRACING", "true"),
        ("KATA_AGENT_POLICY_FILE", ""),
    ];
    assert_eq!(KNOBS.iter().filter(|knob| knob.names.env.is_some()).count(), variables.len());
    let sources = Sources {
        cmdline: "agent.log=debug agent.hotplug_timeout=4 agent.server_addr=unix://@c".into(),
        environment: variables.map(|(name, value)| (name.to_string(), value.to_string())).to_vec(),
        ..Sources::default()
    };
    let config = Resolved::from(sources).unwrap().config;
    assert_eq!((config.log_level, config.trace), (Level::ERROR, true));
    assert_eq!(config.server, ServerAddress::Abstract("e".into()));
    assert_eq!(config.hotplug_timeout, Duration::from_secs(4));
}

#[test]
fn a_file_that_is_none_ends_it_and_says_where() {
    for (text, hint) in [("log_level = ", "line 1"), ("[[[", "line 1"), ("a = 1\na = 2", "duplicate")] {
        let error = TestFile::new("syntax", text).read().err().unwrap().to_string();
        assert!(error.contains("husk-config-") && error.contains(hint), "{error}");
    }
    let missing = Sources { cmdline: "agent.config_file=/nonexistent".into(), ..Sources::default() };
    let error = Resolved::from(missing).err().unwrap().to_string();
    assert!(error.starts_with("configuration: /nonexistent: "), "{error}");
    let huge = TestFile::new("huge", &"#".repeat(MAX_FILE as usize + 1));
    assert!(matches!(huge.read(), Err(Error::Read { .. })));
}

#[test]
fn an_unknown_key_of_a_file_is_a_warning() {
    let resolved = TestFile::new("unknown", "log_lvl = \"debug\"\nlog_vport = \"1025\"\n").read().unwrap();
    assert_eq!(resolved.config, Config::default());
    let warnings: Vec<_> = resolved.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.iter().any(|warning| warning.contains("log_lvl: no such setting")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("log_vport: \"a string\"")), "{warnings:?}");
}

#[test]
fn what_is_printed_is_a_file_with_the_same_settings() {
    let mut cmdline = String::new();
    for (word, value, ..) in EVERY_KEY {
        let equals = if value.is_empty() { "" } else { "=" };
        cmdline.push_str(&format!("{word}{equals}{value} "));
    }
    cmdline.push_str("agent.no_proxy=\"a b\" \"agent.https_proxy=\\\u{7f}\u{1}ü\" agent.hotplug_timeout=x");
    let resolved = from_cmdline(&cmdline);
    let printed = resolved.to_string();
    assert!(printed.contains("\nlog_level = \"debug\" # from the kernel command line\n"), "{printed}");
    assert!(printed.contains("\npolicy_file = \"\" # from the default\n"), "{printed}");
    assert!(printed.contains("# Warning: agent.hotplug_timeout: \"x\""), "{printed}");
    assert!(printed.contains("no_proxy = \"a b\""), "{printed}");
    let again = TestFile::new("printed", &printed).read().unwrap();
    assert_eq!(again.warnings, []);
    assert_eq!(again.config, resolved.config);
}

#[test]
fn words_are_split_as_the_kernel_does() {
    let split = |text| words(text).collect::<Vec<_>>();
    assert_eq!(split("a  b=c\td=\n"), [("a", ""), ("b", "c"), ("d", "")]);
    assert_eq!(split("a=\"b c\" \"d=e f\" g=\"h"), [("a", "b c"), ("d", "e f"), ("g", "h")]);
    assert_eq!(split("  \n"), []);
}

#[test]
fn cgroups_of_version_1_only_when_somebody_asks() {
    for (cmdline, v1) in [
        ("", false),
        ("systemd.unified_cgroup_hierarchy", false),
        ("systemd.unified_cgroup_hierarchy=1", false),
        ("systemd.unified_cgroup_hierarchy=0", true),
        ("systemd.unified_cgroup_hierarchy=false cgroup_no_v1=net_cls", true),
        ("systemd.unified_cgroup_hierarchy=false cgroup_no_v1=all", false),
    ] {
        assert_eq!(from_cmdline(cmdline).config.wants_cgroup_v1(), v1, "{cmdline}");
    }
}
