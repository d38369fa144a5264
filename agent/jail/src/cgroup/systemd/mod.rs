//! Cgroups that systemd makes: transient scopes, asked for and changed over its socket.
//!
//! Where systemd is PID 1 the tree is its, and what it was not told of it may undo. So a container whose `cgroupsPath` is
//! `slice:prefix:name` gets a scope, with its limits as properties: they are in `systemctl status`, and a
//! `daemon-reload` keeps them. What systemd has no property for (huge pages, rdma, a burst) is a file all the same,
//! and device rules stay our program, which systemd lets be as it has none of its own for a scope without `DeviceAllow=`.
//! On what it has a property for systemd has the last word: a quota of processor time is a whole percent, rounded up.
//!
//! A scope is made around a process that is there already, and is gone with the last one in it. So a placeholder holds
//! it until the container's first process is cloned into it; what is born in place is never seen anywhere else, and its
//! cgroup namespace begins there.
//!
//! `zbus` was looked at and left. It would bring 28 more crates (with tokio; 38 with its own runtime) to the agent's 105,
//! among them executors and a second serialisation framework, for four methods and one signal. What those take is the
//! few types of [`message`] and one blocking conversation in [`bus`], without a runtime, as the rest of this crate.
//! That systemd emits the end of every job to each connection of its private socket is what makes waiting sound: the
//! connection is there before the job is, so its end cannot be missed.

mod bus;
mod message;
mod name;
mod properties;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use message::Malformed;
pub use name::Scope;

use super::ROOT;
use super::settings::{Now, Setting};
use bus::Bus;
use message::{Arguments, Property, Value};

/// Where systemd listens for root.
const SOCKET: &str = "/run/systemd/private";

/// How long one operation may take, of which none does more than look at a few files. Callers with a limit of their own
/// wait 30 s or longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What systemd calls a unit that it has not loaded.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// What went wrong between us and systemd.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path in the form `slice:prefix:name` with a part that cannot be.
    #[error("cgroupsPath: {field} {value:?}: {why}")]
    Name {
        /// `slice`, `prefix` or `name`.
        field: &'static str,
        /// What it is.
        value: String,
        /// Why not.
        why: &'static str,
    },
    /// Nobody is there.
    #[error("systemd: {doing}: connect to {socket:?}: {source}")]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What for.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke.
    #[error("systemd: {doing}: {source}")]
    Talk {
        /// What was being done.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("systemd: {doing}: not done after {after:?}")]
    Deadline {
        /// What was being done.
        doing: String,
        /// How long it was given.
        after: Duration,
    },
    /// An answer that cannot be read.
    #[error("systemd: {doing}: an answer with {source}")]
    Malformed {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// It says no.
    #[error("systemd: {doing}: {name}: {text}")]
    Refused {
        /// What was being done.
        doing: String,
        /// The error's name on the bus.
        name: String,
        /// Its text.
        text: String,
    },
    /// It tried, and did not succeed.
    #[error("systemd: {doing}: its job is not done but {result}")]
    Job {
        /// What was being done.
        doing: String,
        /// `failed`, `canceled`, `timeout`, `dependency` or `skipped`.
        result: String,
    },
    /// The scope is not where its name says.
    #[error("systemd: {doing}: its cgroup is {found:?} and not {wanted:?}")]
    Elsewhere {
        /// What was being done.
        doing: String,
        /// Where systemd has put it.
        found: String,
        /// Where it belongs.
        wanted: String,
    },
}

impl Error {
    fn is_no_such_unit(&self) -> bool {
        matches!(self, Error::Refused { name, .. } if name == NO_SUCH_UNIT)
    }
}

impl Scope {
    /// Makes the scope, around a process that goes into it, with the limits for these files. Nothing is left of one that
    /// cannot be made.
    pub(super) fn start(
        &self,
        description: &str,
        pid: i32,
        settings: &[Setting],
        now: Now<'_>,
    ) -> Result<(), Error> {
        let mut wanted = self.properties(description, pid);
        wanted.extend(properties::of(settings, now));
        let mut bus = self.connect("start")?;
        let arguments = Arguments::default().text(self.unit()).text("fail").properties(&wanted).no_units();
        let started = match bus.run("StartTransientUnit", arguments) {
            // It is another's, or there is none.
            Err(error @ Error::Refused { .. }) => return Err(error),
            started => started,
        };
        let placed = started.and_then(|()| self.check_place(&mut bus));
        placed.inspect_err(|error| {
            // One that did not answer in time would not now: the scope goes with its process. The error to tell is the
            // first one.
            if !matches!(error, Error::Deadline { .. } | Error::Talk { .. }) {
                let _ = self.stop();
            }
        })
    }

    /// Tells systemd of new limits, for as long as the scope is there. All of them hold or none.
    pub(super) fn set(&self, settings: &[Setting], now: Now<'_>) -> Result<(), Error> {
        let properties = properties::of(settings, now);
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = Arguments::default().text(self.unit()).bool(true).properties(&properties);
        self.connect("set limits of")?.call("SetUnitProperties", arguments).map(drop)
    }

    /// Ends what is left in the scope, and the scope. One that is gone already is fine.
    pub(super) fn stop(&self) -> Result<(), Error> {
        stop(self.unit())
    }

    /// The paths of those of its slices that are not there yet, the outermost first.
    pub fn missing_slices(&self) -> Vec<PathBuf> {
        let mut path = PathBuf::from(ROOT);
        let paths = self.slices().into_iter().map(|slice| {
            path.push(slice);
            path.clone()
        });
        paths.filter(|path| directory_of(path).is_none()).collect()
    }

    fn properties(&self, description: &str, pid: i32) -> Vec<Property> {
        let text = |text: &str| Value::Text(text.to_owned());
        vec![
            ("Description", text(description)),
            ("Slice", text(self.slice())),
            ("PIDs", Value::Numbers(vec![pid as u32])),
            // What is below it is the container's.
            ("Delegate", Value::Bool(true)),
            // No order with shutdown.target and its like: the agent ends its containers itself.
            ("DefaultDependencies", Value::Bool(false)),
            // Nothing to reset when it has failed.
            ("CollectMode", text("inactive-or-failed")),
            ("TimeoutStopUSec", Value::Number(PATIENCE.as_micros() as u64 / 2)),
            ("CPUAccounting", Value::Bool(true)),
            ("MemoryAccounting", Value::Bool(true)),
            ("IOAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            // No limit is what a container has that asks for none.
            ("TasksMax", Value::Number(u64::MAX)),
        ]
    }

    fn check_place(&self, bus: &mut Bus) -> Result<(), Error> {
        let unit = bus.call("GetUnit", Arguments::default().text(self.unit()))?;
        let unit = unit.object().map_err(|source| bus.malformed(source))?;
        let arguments = Arguments::default().text("org.freedesktop.systemd1.Scope").text("ControlGroup");
        let found = bus.call_on(&unit, "org.freedesktop.DBus.Properties", "Get", arguments)?;
        let found = found.text_in_variant().map_err(|source| bus.malformed(source))?;
        let wanted = self.control_group();
        if found == wanted {
            return Ok(());
        }
        Err(Error::Elsewhere { doing: self.doing("start"), found, wanted })
    }

    fn connect(&self, verb: &str) -> Result<Bus, Error> {
        Bus::connect(Path::new(SOCKET), self.doing(verb), PATIENCE)
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} {}", self.unit())
    }
}

/// Whether systemd has a property for a file with this value.
pub(super) fn knows(setting: &Setting, now: Now<'_>) -> bool {
    !properties::of(std::slice::from_ref(setting), now).is_empty()
}

/// Stops a slice if nothing is in it, neither a scope nor a slice, and tells whether it is gone.
pub fn stop_slice(path: &Path) -> Result<bool, Error> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(false) };
    let Some(directory) = directory_of(path) else { return Ok(true) };
    let entries = directory.read_dir().into_iter().flatten().flatten();
    if entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        return Ok(false);
    }
    stop(name)?;
    // With version 1 there may be directories of ours in hierarchies that systemd does not know.
    for (hierarchy, _) in super::v1_hierarchies() {
        let below = path.strip_prefix(ROOT).unwrap_or(path);
        // One that is in use stays, as does one that was never there.
        let _ = std::fs::remove_dir(Path::new(ROOT).join(hierarchy).join(below));
    }
    Ok(true)
}

fn stop(unit: &str) -> Result<(), Error> {
    let mut bus = Bus::connect(Path::new(SOCKET), format!("stop {unit}"), PATIENCE)?;
    match bus.run("StopUnit", Arguments::default().text(unit).text("replace")) {
        Err(error) if error.is_no_such_unit() => Ok(()),
        stopped => stopped,
    }
}

/// Where systemd itself has a cgroup: in the one tree, or in the hierarchy that it has beside those of version 1.
fn directory_of(path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(ROOT).ok()?;
    ["", "unified", "systemd"]
        .iter()
        .map(|tree| Path::new(ROOT).join(tree).join(below))
        .find(|path| path.is_dir())
}

/// Whether it is PID 1 (sd_booted(3)).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What is read from the socket, for a fuzzer: a message that is read is one that its length says, and what is taken out
/// of it is in it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Some(start) = bytes.first_chunk() else { return };
    let Ok(length) = message::length(start) else { return };
    assert!((message::START..=message::LONGEST).contains(&length), "{length}");
    let Ok(message) = message::Message::decode(bytes) else { return };
    assert_eq!(length, bytes.len());
    let words = message.words::<1>().into_iter().flatten().chain(message.words::<4>().into_iter().flatten());
    let texts = words.chain(message.object()).chain(message.text_in_variant());
    for text in texts.chain(message.error).chain(message.interface).chain(message.member) {
        assert!(!text.contains('\0') && text.len() < bytes.len(), "{text:?}");
    }
}

#[cfg(test)]
mod tests;
