//! Crypto queues of s390x, which containers use through one node that serves them all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::resolve::Found;
use super::{Devices, Error};

/// The node.
const NODE: &str = "/dev/z90crypt";

/// A queue: adapter and domain, in hexadecimal: `0a.003f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queue {
    adapter: u8,
    domain: u16,
}

impl FromStr for Queue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |text: &str, digits: usize| {
            let plain =
                (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u16::from_str_radix(text, 16).ok()).flatten()
        };
        let read = || {
            let (adapter, domain) = text.split_once('.')?;
            Some(Self { adapter: hex(adapter, 2)? as u8, domain: hex(domain, 4)? })
        };
        let shown = text.chars().take(64).collect::<String>();
        read().ok_or_else(|| format!("{shown:?} is not a queue of the form xx.xxxx, in hexadecimal"))
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{:04x}", self.adapter, self.domain)
    }
}

impl Devices {
    /// Waits for queues, and for the node.
    pub(super) async fn crypto_node(&self, queues: &[Queue]) -> Result<Found, Error> {
        // The bus looks for new queues twice a minute, and at once when told to.
        let _ = std::fs::write(self.tree.sysfs().join("bus/ap/scans"), "1");
        for queue in queues {
            let card = format!("devices/ap/card{:02x}", queue.adapter);
            let dir: PathBuf = self.tree.sysfs().join(card).join(queue.to_string());
            self.wait_for(format!("crypto queue {queue}"), || Ok(dir.is_dir().then_some(()))).await?;
        }
        let node = self.wait_for(NODE, || Ok(self.tree.node(Path::new(NODE)))).await?;
        Ok(Found { node: Some(node), ..Default::default() })
    }
}
