//! Processors: those that were plugged in are offline until somebody says otherwise.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Error, blocking};

/// How often, and for how long, to look for processors that are still on their way.
const PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings processors online until at least `wanted` are. Having them already is success.
pub(super) async fn online(system: &Path, wanted: u32) -> Result<(), Error> {
    online_within(system, wanted, PATIENCE).await
}

async fn online_within(system: &Path, wanted: u32, patience: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    // The kernel decides while it boots how many it will ever take.
    if let Some(possible) = list(&system.join("cpu/possible")).filter(|possible| *possible < wanted) {
        return Err(Error::TooManyProcessors { wanted, possible });
    }
    loop {
        let dir = system.join("cpu");
        let (online, refused) = blocking(move || Ok(attempt(&dir, wanted))).await?;
        if online >= wanted {
            return Ok(());
        }
        let waited = begun.elapsed();
        if waited >= patience {
            return Err(Error::Processors { wanted, online, waited, refused });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Brings as many of those that are there online as are wanted. Returns how many are then, and what the kernel said
/// last if it refused one.
fn attempt(dir: &Path, wanted: u32) -> (u32, Option<String>) {
    let mut online = list(&dir.join("online")).unwrap_or_default();
    let mut refused = None;
    for name in offline(dir) {
        if online >= wanted {
            break;
        }
        match fs::write(dir.join(&name).join("online"), "1") {
            Ok(()) => online += 1,
            Err(error) => refused = Some(format!("{name}: {error}")),
        }
    }
    (online, refused)
}

/// The processors that are there and offline, in the order of their numbers.
fn offline(dir: &Path) -> Vec<String> {
    let number = |name: &str| name.strip_prefix("cpu").and_then(|number| number.parse::<u32>().ok());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // The first processor often has no such file: it cannot go offline.
            let online = fs::read_to_string(entry.path().join("online")).ok()?;
            (online.trim() == "0").then(|| Some((number(&name)?, name)))?
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

/// How many processors a file lists, if there is one.
fn list(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok().and_then(|text| count(&text))
}

/// How many numbers a list has: `0-3,5` has 5 (Documentation/admin-guide/cputopology.rst).
fn count(list: &str) -> Option<u32> {
    let mut total: u32 = 0;
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        total = total.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn system(online: &str, possible: &str, cpus: &[(u32, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("cpu");
        fs::create_dir_all(dir.join("cpufreq")).unwrap();
        fs::write(dir.join("online"), online).unwrap();
        fs::write(dir.join("possible"), possible).unwrap();
        for (number, state) in cpus {
            let cpu = dir.join(format!("cpu{number}"));
            fs::create_dir_all(&cpu).unwrap();
            if !state.is_empty() {
                fs::write(cpu.join("online"), state).unwrap();
            }
        }
        root
    }

    fn state(root: &TempDir, number: u32) -> String {
        fs::read_to_string(root.path().join(format!("cpu/cpu{number}/online"))).unwrap()
    }

    #[test]
    fn lists_are_counted() {
        for (list, expected) in [("0\n", 1), ("0-3", 4), ("0-3,5,8-9\n", 7), ("\n", 0)] {
            assert_eq!(count(list), Some(expected), "{list:?}");
        }
        for list in ["x", "3-1", "0-", "0-4294967295", "-1"] {
            assert_eq!(count(list), None, "{list:?}");
        }
    }

    #[tokio::test]
    async fn no_more_are_brought_online_than_are_wanted() {
        let root = system("0\n", "0-10", &[(0, ""), (1, "0\n"), (10, "0\n"), (2, "0\n")]);
        online(root.path(), 3).await.unwrap();
        assert_eq!([1, 2, 10].map(|number| state(&root, number)), ["1", "1", "0\n"]);
    }

    #[tokio::test]
    async fn enough_is_enough() {
        let root = system("0-1\n", "0-3", &[(0, ""), (1, "1\n"), (2, "0\n")]);
        online(root.path(), 2).await.unwrap();
        assert_eq!(state(&root, 2), "0\n");
    }

    #[tokio::test]
    async fn one_that_comes_late_is_waited_for() {
        let root = system("0\n", "0-1", &[(0, "")]);
        let late = root.path().join("cpu/cpu1");
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(120)).await;
            fs::create_dir(&late).unwrap();
            fs::write(late.join("online"), "0\n").unwrap();
        });
        online(root.path(), 2).await.unwrap();
        assert_eq!(state(&root, 1), "1");
    }

    #[tokio::test]
    async fn too_few_are_told_with_their_number() {
        let root = system("0\n", "0-3", &[(0, ""), (1, "1\n")]);
        let error = online_within(root.path(), 2, Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(error.starts_with("nb_cpus: 2 processors are wanted, and 1 are online after "), "{error}");
        let begun = Instant::now();
        fs::write(root.path().join("cpu/cpu1/online"), "0\n").unwrap();
        let error = online(root.path(), u32::MAX).await.unwrap_err();
        assert!(matches!(error, Error::TooManyProcessors { possible: 4, .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(1), "nothing that comes later can make it right");
        assert_eq!(state(&root, 1), "0\n", "nothing is done by halves");
    }
}
