//! What the guest holds, thing by thing, so that a test can name what was left behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{Container, Guest};

/// A container that sees the guest, and looks when asked.
pub struct Watch<'g>(Container<'g>);

/// What the guest held at one moment: mounts and cgroups, processes and the agent's descriptors, files of its run
/// directory; each with how many of it there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeMap<String, usize>);

/// How long what was removed may take to go.
const SETTLES: Duration = Duration::from_secs(10);

/// One line a thing. The watch's own processes are left out, threads of the kernel's too, which come and go; a pipe is a
/// pipe whatever its number, and so is a namespace: one that was made anew gets the old one's number only if the kernel
/// had freed that by then. A `for` that reads files itself is many times faster here than a program for each.
const LOOK: &str = r#"
while read -r _ _ _ root point _; do echo "mount ${root%%:\[*} at $point"; done < /guest/proc/1/mountinfo
find /guest/cgroup -type d | sed 's/^/cgroup /'
find /guest/run -xdev | sed 's/^/file /'
ls -l /guest/proc/1/fd | sed -n 's/.* -> \([a-z]*\):\[[0-9]*\]$/descriptor \1/p; t; s/.* -> /descriptor /p'
for dir in /guest/proc/[0-9]*; do
    name= parent=
    while read -r key value _; do
        case $key in Name:) name=$value ;; PPid:) parent=$value; break ;; esac
    done < $dir/status 2>/dev/null
    read -r place < $dir/cgroup 2>/dev/null || continue
    # What is in the looking container's own cgroup is seen at the root of its namespace.
    case $parent:$place in 2:*|*:0::/) ;; *) [ "$name" = kthreadd ] || echo "process $name" ;; esac
done
"#;

impl Guest {
    /// Starts to watch the guest. What there is of the watch itself is in its looks alike.
    pub async fn watch(&self) -> Watch<'_> {
        let container = self.container("watch").sees_guest();
        let container = container.mount("/guest/run", "bind", "/run", &["bind", "ro"]);
        Watch(container.args(&["sleep", "100000"]).start().await)
    }
}

impl Watch<'_> {
    /// What there is now.
    pub async fn look(&self) -> Traces {
        let mut traces = BTreeMap::new();
        for line in self.0.sh(LOOK).await.lines() {
            *traces.entry(line.to_string()).or_default() += 1;
        }
        Traces(traces)
    }

    /// Panics unless everything that was not there `before` goes within a moment.
    pub async fn nothing_is_left(&self, before: &Traces) {
        let left = self.left_since(before).await;
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// What was not there `before` and does not go within a moment.
    pub async fn left_since(&self, before: &Traces) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let left = self.look().await.beyond(before);
            if left.is_empty() || begun.elapsed() > SETTLES {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops watching: the watch itself goes.
    pub async fn end(self) {
        self.0.remove().await;
    }

    /// The container that looks.
    pub fn container(&self) -> &Container<'_> {
        &self.0
    }
}

impl Traces {
    /// What there is more of than in `other`.
    pub fn beyond(&self, other: &Traces) -> Vec<String> {
        let more = self.0.iter().filter_map(|(thing, count)| {
            let before = other.0.get(thing).copied().unwrap_or_default();
            (*count > before).then(|| format!("{thing} ({count}, {before} before)"))
        });
        more.collect()
    }

    /// Whether there is a thing whose line begins so.
    pub fn has(&self, begin: &str) -> bool {
        self.0.keys().any(|thing| thing.starts_with(begin))
    }
}
