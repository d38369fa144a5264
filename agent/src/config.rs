//! What the agent was told: the kernel command line, resolved once into one [`Config`] value.
//!
//! Every knob is one entry of [`KNOBS`]: its key, what it means, and how its text becomes a value. A value that does
//! not parse is reported and leaves the default, because a guest that boots with a default is easier to mend than one
//! that does not boot. Keys that are not ours are the kernel's or somebody else's business.

use std::fmt;

use agent_api::cmdline;
use tracing::Level;

/// The agent's settings, after every source was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Records below this level are not written.
    pub(crate) log_level: Level,
    /// Port that serves the log; `None`: the log goes to the console.
    pub(crate) log_port: Option<u32>,
    /// Size of a workload's output pipes in bytes; `None`: the kernel's default.
    pub(crate) pipe_size: Option<u32>,
    /// Where the ttrpc services listen.
    pub(crate) server: ServerAddress,
}

/// Where the ttrpc services listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    /// Every transport the VM has, on this port.
    Vm {
        /// The port, `agent_api::ports::AGENT` unless told otherwise.
        port: u32,
    },
    /// A unix socket at this path; no VM needed.
    Unix(String),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: Level::INFO,
            log_port: None,
            pipe_size: None,
            server: ServerAddress::Vm { port: agent_api::ports::AGENT },
        }
    }
}

/// One setting.
struct Knob {
    key: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
}

const KNOBS: &[Knob] = &[
    Knob {
        key: cmdline::LOG,
        help: "least level that is logged: trace, debug, info, warn, error or critical (default info)",
        set: |config, text| {
            config.log_level = parse_level(text)?;
            Some(())
        },
    },
    Knob {
        key: cmdline::LOG_VPORT,
        help: "port that serves the log as JSON lines, above 0 (default: the console)",
        set: |config, text| {
            config.log_port = Some(text.parse().ok().filter(|port| *port > 0)?);
            Some(())
        },
    },
    Knob {
        key: cmdline::CONTAINER_PIPE_SIZE,
        help: "size of a workload's output pipes in bytes, 0 for the kernel's default (default 0)",
        set: |config, text| {
            let bytes = text.parse().ok().filter(|bytes| *bytes <= i32::MAX as u32)?;
            config.pipe_size = (bytes > 0).then_some(bytes);
            Some(())
        },
    },
    Knob {
        key: cmdline::SERVER_ADDR,
        help: "where to listen: vsock://-1:PORT (every transport of the VM) or unix://PATH (default vsock://-1:1024)",
        set: |config, text| {
            config.server = parse_server(text)?;
            Some(())
        },
    },
];

/// A setting that was given and could not be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    key: &'static str,
    value: String,
    help: &'static str,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} is ignored: {}", self.key, self.value, self.help)
    }
}

impl Config {
    /// Reads a kernel command line, as `/proc/cmdline` gives it. What could not be used comes back beside the result.
    pub(crate) fn from_cmdline(cmdline: &str) -> (Self, Vec<BadValue>) {
        let mut config = Self::default();
        let mut bad = Vec::new();
        for word in cmdline.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let Some(knob) = KNOBS.iter().find(|knob| knob.key == key) else { continue };
            if (knob.set)(&mut config, value).is_none() {
                bad.push(BadValue { key: knob.key, value: value.to_string(), help: knob.help });
            }
        }
        (config, bad)
    }
}

/// Peers name levels as their own logger does, so `critical`, `fatal` and `panic` are ours too.
fn parse_level(text: &str) -> Option<Level> {
    match text {
        "trace" => Some(Level::TRACE),
        "debug" => Some(Level::DEBUG),
        "info" => Some(Level::INFO),
        "warn" | "warning" => Some(Level::WARN),
        "error" | "critical" | "fatal" | "panic" => Some(Level::ERROR),
        _ => None,
    }
}

fn parse_server(text: &str) -> Option<ServerAddress> {
    if let Some(path) = text.strip_prefix("unix://") {
        return (!path.is_empty()).then(|| ServerAddress::Unix(path.to_string()));
    }
    let (_cid, port) = text.strip_prefix("vsock://")?.split_once(':')?;
    Some(ServerAddress::Vm { port: port.parse().ok().filter(|port| *port > 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_means_defaults() {
        let (config, bad) = Config::from_cmdline("console=hvc0 quiet panic=-1 agent.unknown=1\n");
        assert_eq!(config, Config::default());
        assert!(bad.is_empty());
    }

    #[test]
    fn every_knob_is_read() {
        let line = "agent.log=debug agent.log_vport=1025 agent.container_pipe_size=65536 \
                    agent.server_addr=unix:///run/a.sock";
        let (config, bad) = Config::from_cmdline(line);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!(config.log_level, Level::DEBUG);
        assert_eq!(config.log_port, Some(1025));
        assert_eq!(config.pipe_size, Some(65536));
        assert_eq!(config.server, ServerAddress::Unix("/run/a.sock".into()));
    }

    #[test]
    fn a_bad_value_names_its_key_and_leaves_the_default() {
        let line =
            "agent.log=loud agent.log_vport=0 agent.container_pipe_size=-4 agent.server_addr=tcp agent.log";
        let (config, bad) = Config::from_cmdline(line);
        assert_eq!(config, Config::default());
        let keys: Vec<_> = bad.iter().map(|bad| bad.key).collect();
        assert_eq!(
            keys,
            [
                cmdline::LOG,
                cmdline::LOG_VPORT,
                cmdline::CONTAINER_PIPE_SIZE,
                cmdline::SERVER_ADDR,
                cmdline::LOG
            ]
        );
        assert!(bad[0].to_string().starts_with("agent.log=\"loud\" is ignored"));
    }

    #[test]
    fn the_last_of_two_wins() {
        assert_eq!(Config::from_cmdline("agent.log=warn agent.log=trace").0.log_level, Level::TRACE);
    }
}
