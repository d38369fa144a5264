//! The table of settings, and the value they all make up.
//!
//! An entry is everything there is to know of a setting: what it means (the text that `--print-config` shows), its
//! name in the program, its type, its default, and what each source calls it. The type says how text becomes a value
//! ([`Value`]).

use std::path::PathBuf;
use std::time::Duration;

use agent_api::cmdline;
use tracing::Level;

use super::value::{GuestComponents, Kind, RestApi, ServerAddress, Value};

/// One setting.
pub(crate) struct Knob {
    /// What it means, one or more lines.
    pub(crate) help: &'static str,
    pub(crate) names: Names,
    pub(crate) kind: Kind,
    /// Sets the value that a text stands for; `None` if it stands for none.
    pub(crate) set: fn(&mut Config, &str) -> Option<()>,
    /// The value as a configuration file has it.
    pub(crate) to_toml: fn(&Config) -> String,
}

/// What the sources call a setting, and what becomes of a value that is none.
pub(crate) struct Names {
    /// On the kernel command line; empty where there it has no name.
    pub(crate) word: &'static str,
    /// In the file, where it differs from the word without `agent.`.
    file: Option<&'static str>,
    /// In the environment.
    pub(crate) env: Option<&'static str>,
    /// Whether a bad value ends the boot. Others are ignored with a warning, as a guest that boots with a default is
    /// easier to mend than one that does not boot.
    pub(crate) refused: bool,
}

const fn word(word: &'static str) -> Names {
    Names { word, file: None, env: None, refused: false }
}

impl Names {
    const fn file(self, file: &'static str) -> Self {
        Self { file: Some(file), ..self }
    }

    const fn env(self, env: &'static str) -> Self {
        Self { env: Some(env), ..self }
    }

    const fn refused(self) -> Self {
        Self { refused: true, ..self }
    }

    /// The name in a configuration file.
    pub(crate) fn file_key(&self) -> &'static str {
        self.file.unwrap_or_else(|| self.word.strip_prefix("agent.").unwrap_or(self.word))
    }
}

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $names:expr;)+) => {
        /// The agent's settings, after every source was read.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Config {
            $($(#[doc = $doc])+ pub(crate) $field: $type,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every setting.
        pub(crate) const KNOBS: &[Knob] = &[$(Knob {
            help: concat!($($doc, "\n"),+),
            names: $names,
            kind: <$type as Value>::KIND,
            set: |config, text| {
                config.$field = Value::parse(text)?;
                Some(())
            },
            to_toml: |config| config.$field.to_toml(),
        },)+];
    };
}

knobs! {
    /// Least level that is logged: trace, debug, info, warn, error or critical.
    log_level: Level = Level::INFO, word(cmdline::LOG).file("log_level").env("KATA_AGENT_LOG_LEVEL");
    /// Port that serves the log as JSON lines; 0: the console.
    log_port: Option<u32> = None, word(cmdline::LOG_VPORT);
    /// Where to listen: vsock://-1:PORT for every transport of the VM, vsock://CID:PORT for one address of one,
    /// unix:///PATH, unix://@NAME or tcp://ADDRESS:PORT.
    server: ServerAddress = ServerAddress::default(),
        word(cmdline::SERVER_ADDR).env("KATA_AGENT_SERVER_ADDR").refused();
    /// A shell for whoever can connect to the port of the next setting.
    debug_console: bool = false, word(cmdline::DEBUG_CONSOLE);
    /// Port of the debug console; 0: the VM's own console.
    debug_console_port: Option<u32> = None, word(cmdline::DEBUG_CONSOLE_VPORT);
    /// Whether processes of the guest may dump core, into the directory they run in.
    dev_mode: bool = false, word("agent.devmode").file("dev_mode");
    /// Size of a workload's output pipes in bytes; 0: the kernel's default.
    pipe_size: Option<u32> = None, word(cmdline::CONTAINER_PIPE_SIZE);
    /// Port on which a VMM hands over the streams of processes; 0: none.
    passfd_port: Option<u32> = None, word("agent.passfd_listener_port");
    /// How long to wait for a device that was plugged in.
    hotplug_timeout: Duration = Duration::from_secs(3), word("agent.hotplug_timeout");
    /// How long to wait for the description of a CDI device.
    cdi_timeout: Duration = Duration::from_secs(100), word("agent.cdi_timeout");
    /// How long a process may take from its creation to its program.
    launch_timeout: Duration = Duration::from_secs(6), word("agent.launch_process_timeout");
    /// Whether containers are shown the CDI devices of the guest.
    visible_cdi_devices: bool = false, word("agent.visible_cdi_devices");
    /// Send spans to the host, port 10240. Without effect in an agent built without `tracing-spans`.
    trace: bool = false, word("agent.trace").file("tracing").env("KATA_AGENT_TRACING");
    /// Policy that every request must meet. It must be readable, and the agent be built with `policy`.
    policy_file: Option<PathBuf> = None,
        Names { word: "", file: None, env: None, refused: true }.file("policy_file").env("KATA_AGENT_POLICY_FILE");
    /// Whether there is one hierarchy of cgroups (version 2) or one for each controller (version 1), which only a
    /// value that says so gets.
    unified_cgroups: bool = true,
        word("systemd.unified_cgroup_hierarchy").file("unified_cgroup_hierarchy");
    /// Controllers without version 1; `all` rules it out.
    cgroup_no_v1: String = String::new(), word("cgroup_no_v1");

    /// Without effect: Husk has no confidential data hub.
    cdh_api_timeout: Duration = Duration::from_secs(50), word("agent.cdh_api_timeout");
    /// Without effect: Husk pulls no images inside the guest.
    image_pull_timeout: Duration = Duration::from_secs(1200), word("agent.image_pull_timeout");
    /// Without effect: Husk's agent asks nothing of the network.
    https_proxy: String = String::new(), word("agent.https_proxy");
    /// Without effect, like https_proxy.
    no_proxy: String = String::new(), word("agent.no_proxy");
    /// Without effect: Husk starts no guest components.
    guest_components: GuestComponents = GuestComponents::default(), word("agent.guest_components_procs");
    /// Without effect, like guest_components_procs.
    guest_components_api: RestApi = RestApi::default(), word("agent.guest_components_rest_api");
    /// Without effect: Husk has no secure storage.
    secure_storage_integrity: bool = true, word("agent.secure_storage_integrity");

    /// Without effect, like all mem_agent settings: Husk reclaims no memory by itself.
    mem_agent: bool = false, word("agent.mem_agent_enable");
    /// Ageing of memory cgroups: off.
    mem_agent_memcg_disable: bool = false, word("agent.mem_agent_memcg_disable");
    /// Ageing of memory cgroups: whether it may swap.
    mem_agent_memcg_swap: bool = false, word("agent.mem_agent_memcg_swap");
    /// Ageing of memory cgroups: the most it swaps.
    mem_agent_memcg_swappiness_max: u8 = 50, word("agent.mem_agent_memcg_swappiness_max");
    /// Ageing of memory cgroups: seconds between two rounds.
    mem_agent_memcg_period_secs: u64 = 600, word("agent.mem_agent_memcg_period_secs");
    /// Ageing of memory cgroups: memory pressure above which a round is left out.
    mem_agent_memcg_period_psi_percent_limit: u8 = 1, word("agent.mem_agent_memcg_period_psi_percent_limit");
    /// Ageing of memory cgroups: memory pressure above which eviction stops.
    mem_agent_memcg_eviction_psi_percent_limit: u8 = 1,
        word("agent.mem_agent_memcg_eviction_psi_percent_limit");
    /// Ageing of memory cgroups: rounds before an eviction.
    mem_agent_memcg_eviction_run_aging_count_min: u64 = 3,
        word("agent.mem_agent_memcg_eviction_run_aging_count_min");
    /// Compaction: off.
    mem_agent_compact_disable: bool = false, word("agent.mem_agent_compact_disable");
    /// Compaction: seconds between two rounds.
    mem_agent_compact_period_secs: u64 = 600, word("agent.mem_agent_compact_period_secs");
    /// Compaction: memory pressure above which a round is left out.
    mem_agent_compact_period_psi_percent_limit: u8 = 1,
        word("agent.mem_agent_compact_period_psi_percent_limit");
    /// Compaction: memory pressure above which it stops.
    mem_agent_compact_psi_percent_limit: u8 = 5, word("agent.mem_agent_compact_psi_percent_limit");
    /// Compaction: the most seconds of a round.
    mem_agent_compact_sec_max: u64 = 300, word("agent.mem_agent_compact_sec_max");
    /// Compaction: the order of free pages it is after.
    mem_agent_compact_order: u8 = 9, word("agent.mem_agent_compact_order");
    /// Compaction: how many pages have to have become free since the last round.
    mem_agent_compact_threshold: u64 = 1024, word("agent.mem_agent_compact_threshold");
    /// Compaction: rounds left out before one is made all the same.
    mem_agent_compact_force_times: u64 = i64::MAX as u64, word("agent.mem_agent_compact_force_times");
}

impl Config {
    /// Whether somebody asked for a hierarchy of cgroups for each controller.
    pub(crate) fn wants_cgroup_v1(&self) -> bool {
        !self.unified_cgroups && self.cgroup_no_v1 != "all"
    }
}
