//! Making a cloned VM another one than its template: new random numbers, time, names and addresses in one call.
//!
//! All of a request is looked at before any of it is applied, and it is applied in a fixed order: entropy first, so
//! that nothing else that draws random numbers meanwhile draws the template's.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use agent_api::husk::{Link, RefreshRequest};
use agent_api::paths;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::sethostname;

use crate::sys;

/// Fewer bytes would not make the numbers of two clones independent.
const LEAST_ENTROPY: usize = 32;
/// More would make the call wait for no gain.
const MOST_ENTROPY: usize = 4096;
/// The longest host name Linux takes, in bytes (uname(2)).
const MAX_HOSTNAME: usize = 64;

/// Where systemd and others look for the machine's id (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// A field that cannot be what it is, or a step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{field}: {cause}")]
    Invalid { field: &'static str, cause: String },
    #[error("{field}: {step}: {source}; applied so far: {applied:?}")]
    Step { field: &'static str, step: &'static str, source: io::Error, applied: Vec<&'static str> },
}

/// What a request asks for, every part of it known to be possible as far as that can be known.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    entropy: Option<Vec<u8>>,
    clock: Option<Duration>,
    hostname: Option<String>,
    links: Vec<(String, [u8; 6])>,
    machine_id: Option<String>,
}

/// Applies a request, and says which fields of it. May block for a moment.
pub(crate) fn apply(request: &RefreshRequest) -> Result<Vec<&'static str>, Error> {
    let plan = plan(request, |name| Path::new("/sys/class/net").join(name).exists())?;
    let mut applied = Vec::new();
    let mut did = |field, step, done: io::Result<()>| match done {
        Ok(()) => {
            if !applied.contains(&field) {
                applied.push(field);
            }
            Ok(())
        }
        Err(source) => Err(Error::Step { field, step, source, applied: applied.clone() }),
    };
    if let Some(entropy) = &plan.entropy {
        did("entropy", "reseed", sys::add_entropy(entropy))?;
    }
    if let Some(now) = plan.clock {
        let set = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(now));
        did("clock", "set", set.map_err(io::Error::from))?;
    }
    if let Some(name) = &plan.hostname {
        did("hostname", "set", sethostname(name).map_err(io::Error::from))?;
        did("hostname", "set in the sandbox", rename_sandbox(name))?;
    }
    for (name, address) in &plan.links {
        did("links", "set the address", sys::set_hardware_address(name, *address))?;
    }
    if let Some(id) = &plan.machine_id {
        did("machine_id", "write", write_machine_id(id))?;
    }
    Ok(applied)
}

fn plan(request: &RefreshRequest, link_exists: impl Fn(&str) -> bool) -> Result<Plan, Error> {
    let invalid = |field, cause: String| Err(Error::Invalid { field, cause });
    let entropy = match request.entropy.len() {
        0 => None,
        LEAST_ENTROPY..=MOST_ENTROPY => Some(request.entropy.clone()),
        size => return invalid("entropy", format!("{size} bytes are not {LEAST_ENTROPY} to {MOST_ENTROPY}")),
    };
    let clock = match request.clock.as_ref() {
        None => None,
        Some(time) if time.seconds > 0 && time.nanoseconds < 1_000_000_000 => {
            Some(Duration::new(time.seconds.unsigned_abs(), time.nanoseconds))
        }
        Some(time) => {
            return invalid("clock", format!("{} s, {} ns is not a time", time.seconds, time.nanoseconds));
        }
    };
    let hostname = match request.hostname.as_str() {
        "" => None,
        name if name.len() <= MAX_HOSTNAME && !name.contains(['\0', '/', '\n']) => Some(name.to_string()),
        name => return invalid("hostname", format!("{name:?} is not a name")),
    };
    let mut links = Vec::new();
    for Link { name, hw_addr, .. } in &request.links {
        if name.is_empty() || name.contains(['/', '\0']) || name == ".." || !link_exists(name) {
            return invalid("links", format!("{name:?}: no such interface"));
        }
        let Some(address) = hardware_address(hw_addr) else {
            return invalid("links", format!("{name:?}: {hw_addr:?} is not the address of one station"));
        };
        if links.iter().any(|(other, _)| other == name) {
            return invalid("links", format!("{name:?} comes twice"));
        }
        links.push((name.clone(), address));
    }
    let machine_id = match request.machine_id.as_str() {
        "" => None,
        id if id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            Some(id.to_ascii_lowercase())
        }
        id => return invalid("machine_id", format!("{id:?} is not 32 hexadecimal digits")),
    };
    Ok(Plan { entropy, clock, hostname, links, machine_id })
}

/// Six bytes in hexadecimal; neither a group's address nor none at all.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        // A plus would be read as a sign.
        let digits = |part: &&str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        let part = parts.next().filter(digits)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let group = address[0] & 1 != 0;
    (parts.next().is_none() && !group && address != [0; 6]).then_some(address)
}

/// The containers' name, where there is a sandbox already. A thread of its own visits its namespace and ends there.
fn rename_sandbox(name: &str) -> io::Result<()> {
    let namespace = match File::open(Path::new(paths::SANDBOX_NAMESPACES).join("uts")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    std::thread::scope(|scope| {
        let visit = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWUTS)?;
            Ok(sethostname(name)?)
        });
        visit.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Where the root file system cannot be written to, the new id is mounted over the old.
fn write_machine_id(id: &str) -> io::Result<()> {
    let text = format!("{id}\n");
    // A guest that has nothing but the agent has no such directory yet.
    let made = fs::create_dir_all("/etc").and_then(|()| fs::write(MACHINE_ID, &text));
    match made {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
        done => return done,
    }
    let file = Path::new("/run/husk/machine-id");
    fs::create_dir_all("/run/husk")?;
    fs::write(file, &text)?;
    let none = None::<&str>;
    Ok(mount(Some(file), MACHINE_ID, none, MsFlags::MS_BIND, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::husk::Time;

    fn whole() -> RefreshRequest {
        RefreshRequest {
            entropy: vec![7; 64],
            clock: Some(Time { seconds: 1_800_000_000, nanoseconds: 5, ..Default::default() }).into(),
            hostname: "clone-1".into(),
            links: vec![Link {
                name: "eth0".into(),
                hw_addr: "02:00:00:00:00:0A".into(),
                ..Default::default()
            }],
            machine_id: "0123456789ABCDEF0123456789abcdef".into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_field_may_be_absent() {
        let nothing = Plan { entropy: None, clock: None, hostname: None, links: vec![], machine_id: None };
        assert_eq!(plan(&RefreshRequest::new(), |_| false).unwrap(), nothing);
        assert_eq!(apply(&RefreshRequest::new()).unwrap(), [""; 0]);
        let all = plan(&whole(), |_| true).unwrap();
        assert_eq!(all.links, [("eth0".to_string(), [2, 0, 0, 0, 0, 10])]);
        assert_eq!(all.machine_id.as_deref(), Some("0123456789abcdef0123456789abcdef"));
        assert_eq!(all.clock, Some(Duration::new(1_800_000_000, 5)));
    }

    #[test]
    fn a_bad_field_is_named() {
        type Spoil = fn(&mut RefreshRequest);
        let cases: [(&str, Spoil); 14] = [
            ("entropy", |request| request.entropy = vec![1; 31]),
            ("entropy", |request| request.entropy = vec![1; 4097]),
            ("clock", |request| request.clock.mut_or_insert_default().seconds = -1),
            ("clock", |request| request.clock.mut_or_insert_default().nanoseconds = 1_000_000_000),
            ("hostname", |request| request.hostname = "x".repeat(65)),
            ("hostname", |request| request.hostname = "a\0b".into()),
            ("links", |request| request.links[0].name = "eth9".into()),
            ("links", |request| request.links[0].name = "../eth0".into()),
            ("links", |request| request.links[0].hw_addr = "02:00:00:00:00".into()),
            ("links", |request| request.links[0].hw_addr = "01:00:00:00:00:01".into()),
            ("links", |request| request.links[0].hw_addr = "02:00:00:00:00:+1".into()),
            ("links", |request| request.links.push(request.links[0].clone())),
            ("machine_id", |request| request.machine_id = "0123".into()),
            ("machine_id", |request| request.machine_id = "g".repeat(32)),
        ];
        for (field, spoil) in cases {
            let mut request = whole();
            spoil(&mut request);
            match plan(&request, |name| name == "eth0") {
                Err(Error::Invalid { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
