//! What became of the VM: one value, set once, that every wait on the guest watches.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::log;
use crate::process::Watch;
use crate::qemu::config::AGENT_PORT_ID;
use crate::qemu::qmp::{Event, Events};

/// A handle on the VM's fate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fate(watch::Receiver<Option<Arc<str>>>);

/// The VM is gone, and why: `guest panicked: …`, `qemu exited with status 1: …`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Gone(Arc<str>);

impl Gone {
    pub(crate) fn new(reason: String) -> Gone {
        Gone(reason.into())
    }
}

impl Fate {
    /// Waits for the end.
    pub async fn gone(&self) -> Gone {
        let mut receiver = self.0.clone();
        let reason = match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        Gone(reason.unwrap_or_else(|| "the VM was stopped".into()))
    }

    /// `work`, unless the VM ends first.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            gone = self.gone() => Err(gone),
        }
    }
}

/// The files an end is explained with.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) console: PathBuf,
    pub(crate) qemu_stderr: PathBuf,
}

/// The task that follows QEMU's events and its process.
#[derive(Debug)]
pub(crate) struct Monitor {
    tasks: Vec<JoinHandle<()>>,
    tell: Arc<watch::Sender<Option<Arc<str>>>>,
    fate: Fate,
    port: watch::Receiver<bool>,
}

impl Monitor {
    /// Follows `process` and `events`; `console` ends when all the guest said is in its file.
    pub(crate) fn start(
        process: Watch,
        events: Events,
        console: JoinHandle<()>,
        evidence: Evidence,
    ) -> Monitor {
        let (tell, fate) = watch::channel(None);
        let tell = Arc::new(tell);
        let (open, port) = watch::channel(false);
        let teller = tell.clone();
        let task = tokio::spawn(async move {
            let mut reset = None;
            tokio::select! {
                () = follow(events, open, &mut reset) => {}
                how = process.exited() => {
                    let _ = tokio::time::timeout(Duration::from_secs(1), console).await;
                    teller.send_replace(Some(explain(&how, reset.as_deref(), &evidence).into()));
                }
            }
        });
        Monitor { tasks: vec![task], tell, fate: Fate(fate), port }
    }

    /// Counts `end`, of something the guest cannot do without, as the end of the VM, unless QEMU's own end, which
    /// takes everything with it, explains it within a moment.
    pub(crate) fn follow(&mut self, end: impl Future<Output = String> + Send + 'static) {
        let tell = self.tell.clone();
        self.tasks.push(tokio::spawn(async move {
            let reason = end.await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            tell.send_if_modified(|fate| {
                let first = fate.is_none();
                if first {
                    *fate = Some(reason.into());
                }
                first
            });
        }));
    }

    pub(crate) fn fate(&self) -> &Fate {
        &self.fate
    }

    /// Waits until the guest has opened the agent's port.
    pub(crate) async fn port_open(&self) -> Result<(), Gone> {
        let mut port = self.port.clone();
        let open = async {
            // Who would tell is gone because QEMU is: why, the fate says in a moment.
            if port.wait_for(|open| *open).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        self.fate.guard(open).await
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Reads events for ever; a channel that breaks is no news, the process's end is.
async fn follow(mut events: Events, open: watch::Sender<bool>, reset: &mut Option<String>) {
    loop {
        match events.next().await {
            Ok(Event::Port { id, open: now }) if id == AGENT_PORT_ID => {
                open.send_replace(now);
            }
            Ok(Event::Shutdown { reason }) => *reset = Some(reason),
            Ok(_) => {}
            Err(_) => std::future::pending().await,
        }
    }
}

/// Why QEMU ended, most telling evidence first.
pub(crate) fn explain(how: &str, shutdown: Option<&str>, evidence: &Evidence) -> String {
    if let Some(line) = log::panic_line(&evidence.console) {
        return format!("guest panicked: {line}");
    }
    match shutdown {
        Some("guest-shutdown") => match log::last_line(&evidence.console) {
            // The agent's own words: it ends the VM when it cannot boot it.
            reason if reason.starts_with("husk-agent: ") => format!("the guest powered off: {reason}"),
            _ => "the guest powered off".into(),
        },
        Some("guest-reset") => {
            format!("the guest reset itself; its console ends with: {}", log::last_line(&evidence.console))
        }
        _ => format!("qemu {how}: {}", log::last_line(&evidence.qemu_stderr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(console: &str, stderr: &str) -> (tempfile::TempDir, Evidence) {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence { console: dir.path().join("c"), qemu_stderr: dir.path().join("e") };
        std::fs::write(&evidence.console, console).unwrap();
        std::fs::write(&evidence.qemu_stderr, stderr).unwrap();
        (dir, evidence)
    }

    #[test]
    fn a_panic_beats_everything() {
        let (_dir, evidence) = evidence("x\n[1] Kernel panic - not syncing: VFS\r\n", "qemu: warning\n");
        assert_eq!(
            explain("exited with status 0", Some("guest-reset"), &evidence),
            "guest panicked: Kernel panic - not syncing: VFS"
        );
    }

    #[test]
    fn an_agent_that_gave_up_is_quoted() {
        let (_dir, console) = evidence("quiet\nhusk-agent: boot: set hostname: EPERM\r\n", "");
        let told = explain("exited with status 0", Some("guest-shutdown"), &console);
        assert_eq!(told, "the guest powered off: husk-agent: boot: set hostname: EPERM");
        let (_dir, console) = evidence("reboot: Power down\n", "");
        assert_eq!(
            explain("exited with status 0", Some("guest-shutdown"), &console),
            "the guest powered off"
        );
    }

    #[test]
    fn qemu_that_dies_is_quoted() {
        let (_dir, evidence) = evidence("", "qemu: -kernel: could not load\n");
        assert_eq!(
            explain("exited with status 1", None, &evidence),
            "qemu exited with status 1: qemu: -kernel: could not load"
        );
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_vm() {
        let (tell, receiver) = watch::channel(None);
        let fate = Fate(receiver);
        assert_eq!(fate.guard(async { 7 }).await.unwrap(), 7);
        tell.send_replace(Some("it fell".into()));
        let error = fate.guard(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.to_string(), "it fell");
    }
}
