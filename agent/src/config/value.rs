//! What a setting can be: how its text becomes a value, and how the value is written down.
//!
//! Every source is text in the end. What a configuration file has as a table or a number arrives here as the words of
//! the kernel command line would.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

/// What a configuration file holds for a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Number,
    Text,
    /// A table `{ secs, nanos }`, or a whole number of seconds.
    Time,
}

/// A type of setting.
pub(crate) trait Value: Sized {
    const KIND: Kind;

    /// The value of a text; `None` if it is not one.
    fn parse(text: &str) -> Option<Self>;

    /// The value as a configuration file has it.
    fn to_toml(&self) -> String;
}

impl Value for bool {
    const KIND: Kind = Kind::Bool;

    /// A bare word is a flag that is set.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "true" => Some(true),
            "false" => Some(false),
            number => number.parse::<i64>().ok().map(|number| number != 0),
        }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// A port or a size, where 0 means that there is none.
impl Value for Option<u32> {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Option<Self> {
        let number = parse_number(text).filter(|number| *number <= i32::MAX as u32)?;
        Some((number > 0).then_some(number))
    }

    fn to_toml(&self) -> String {
        self.unwrap_or_default().to_string()
    }
}

impl Value for u8 {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Option<Self> {
        parse_number(text)
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// Whole numbers of a file are signed, and so are ours.
impl Value for u64 {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Option<Self> {
        parse_number(text).filter(|number| *number <= i64::MAX as u64)
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// Digits and nothing else: Rust would take a plus sign too.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Seconds, more than none; a file may have nanoseconds beside them, which arrive as a fraction.
impl Value for Duration {
    const KIND: Kind = Kind::Time;

    fn parse(text: &str) -> Option<Self> {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let seconds: u32 = parse_number(seconds)?;
        if fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let nanos: u32 = parse_number(&format!("{fraction:0<9}"))?;
        Some(Duration::new(seconds.into(), nanos)).filter(|time| !time.is_zero())
    }

    fn to_toml(&self) -> String {
        format!("{{ secs = {}, nanos = {} }}", self.as_secs(), self.subsec_nanos())
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_string())
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

/// A file; an empty name means that there is none.
impl Value for Option<PathBuf> {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Option<Self> {
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn to_toml(&self) -> String {
        quoted(&self.as_deref().unwrap_or("".as_ref()).to_string_lossy())
    }
}

/// Peers name levels as their own logger does, so `critical`, `fatal` and `panic` are ours too.
impl Value for Level {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "trace" => Some(Level::TRACE),
            "debug" => Some(Level::DEBUG),
            "info" => Some(Level::INFO),
            "warn" | "warning" => Some(Level::WARN),
            "error" | "critical" | "fatal" | "panic" => Some(Level::ERROR),
            _ => None,
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.as_str().to_ascii_lowercase())
    }
}

/// A word out of a few.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident: $default:literal $(| $other:literal)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(&'static str);

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl Value for $name {
            const KIND: Kind = Kind::Text;

            fn parse(text: &str) -> Option<Self> {
                [$default $(, $other)*].into_iter().find(|word| *word == text).map(Self)
            }

            fn to_toml(&self) -> String {
                quoted(self.0)
            }
        }
    };
}

choice! {
    /// Up to which of a peer's guest components would be started.
    GuestComponents: "api-server-rest" | "none" | "attestation-agent" | "confidential-data-hub"
}
choice! {
    /// Which calls such a component would answer.
    RestApi: "resource" | "all" | "attestation"
}

/// Where the ttrpc services listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    /// In a VM. Without a context id: on every transport the VM has.
    Vm { cid: Option<u32>, port: u32 },
    /// A unix socket at this absolute path.
    Unix(PathBuf),
    /// A unix socket with this name in the network namespace, and no file.
    Abstract(String),
    /// TCP, unencrypted and for whoever can connect.
    Tcp(SocketAddr),
}

impl Default for ServerAddress {
    fn default() -> Self {
        Self::Vm { cid: None, port: agent_api::ports::AGENT }
    }
}

/// The longest path or name of a unix socket, in bytes (unix(7), with the terminating or the leading null byte).
const MAX_UNIX: usize = 107;

impl Value for ServerAddress {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "vsock" => {
                let (cid, port) = rest.split_once(':')?;
                let cid = match cid {
                    "-1" => None,
                    // 0 is the hypervisor and 2 the host (vsock(7)): no guest has them.
                    cid => Some(parse_number(cid).filter(|cid| !matches!(cid, 0 | 2))?),
                };
                // The highest port stands for "any", which nobody could connect to.
                let port = parse_number(port).filter(|port| !matches!(port, 0 | &u32::MAX))?;
                Some(Self::Vm { cid, port })
            }
            "unix" => {
                if rest.len() > MAX_UNIX || rest.contains('\0') {
                    return None;
                }
                match rest.strip_prefix('@') {
                    Some(name) => (!name.is_empty()).then(|| Self::Abstract(name.to_string())),
                    None => (rest.starts_with('/') && !rest.ends_with('/')).then(|| Self::Unix(rest.into())),
                }
            }
            // No name but this one: a guest that boots has nobody to ask.
            "tcp" => {
                let address: SocketAddr = rest.replacen("localhost:", "127.0.0.1:", 1).parse().ok()?;
                (address.port() > 0).then_some(Self::Tcp(address))
            }
            _ => None,
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm { cid: None, port } => write!(f, "vsock://-1:{port}"),
            Self::Vm { cid: Some(cid), port } => write!(f, "vsock://{cid}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => write!(f, "unix://@{name}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A basic string of TOML. Its escapes are JSON's, but for one character that JSON leaves as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
