//! What the kernel says in `/proc`, as numbers: plain functions from the text of one file to its figures.
//!
//! A line that is not understood is left out: the kernel adds lines and fields over time, and one strange line must
//! not cost all the others.

/// What the kernel counts processor time in, per second. It is 100 for every architecture that guests run on
/// (`USER_HZ`, proc_stat(5)).
const TICKS: u64 = 100;

/// `/proc/PID/stat`: what of it concerns time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessTimes {
    /// In the names and ticks of proc_pid_stat(5): `utime`, `stime`, and the same of children that were waited for.
    pub(super) items: [(&'static str, u64); 4],
}

impl ProcessTimes {
    pub(super) fn read(stat: &str) -> Option<Self> {
        // The program's name may have blanks and brackets in it: fields are counted from behind it, the third first.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut from_utime = fields.split_ascii_whitespace().skip(11);
        let mut next = || from_utime.next()?.parse().ok();
        let items = [("utime", next()?), ("stime", next()?), ("cutime", next()?), ("cstime", next()?)];
        Some(Self { items })
    }

    /// The process's own time, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        (self.items[0].1 + self.items[1].1) as f64 / TICKS as f64
    }
}

/// `/proc/PID/status`: each line that is a number, by its key in lower case. Sizes are in kB, as the kernel gives them.
pub(super) fn status(text: &str) -> Vec<(String, u64)> {
    let keep = |key: &str| {
        key.starts_with("Vm")
            || key.starts_with("Rss")
            || key == "HugetlbPages"
            || key.ends_with("ctxt_switches")
    };
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(key, _)| keep(key))
        .filter_map(|(key, value)| Some((key.to_ascii_lowercase(), number(value)?)))
        .collect()
}

/// One figure of `/proc/PID/status`.
pub(super) fn status_figure(text: &str, wanted: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(wanted)?.strip_prefix(':')?))
}

/// `/proc/PID/io`, `/proc/vmstat`: a key and a number a line.
pub(super) fn keyed(text: &str) -> Vec<(&str, u64)> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once([':', ' '])?;
            Some((key, number(value)?))
        })
        .collect()
}

/// `/proc/meminfo` in bytes, but for counts of pages, which have no unit there either. Keys are in the snake case in
/// which peers' tools know them.
pub(super) fn meminfo(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let unit = if value.trim_end().ends_with("kB") { 1024 } else { 1 };
            Some((snake(key), number(value)? * unit))
        })
        .collect()
}

/// `SReclaimable` is `s_reclaimable`, `Active(anon)` `active_anon`, `DirectMap4k` `direct_map_4k`. Huge pages are one
/// word to the tools.
fn snake(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let mut name = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| letters[index]);
        let starts_word = match before {
            Some(before) if letter.is_ascii_uppercase() => {
                let after = letters.get(index + 1);
                before.is_ascii_lowercase()
                    || before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)
            }
            Some(before) => letter.is_ascii_digit() && before.is_ascii_alphabetic(),
            None => false,
        };
        if (starts_word || matches!(letter, '_' | '(')) && !name.ends_with('_') {
            name.push('_');
        }
        if letter.is_ascii_alphanumeric() {
            name.push(letter.to_ascii_lowercase());
        }
    }
    name.replace("huge_page", "hugepage")
}

/// `/proc/loadavg`: the three averages, and the tasks that run and that there are.
pub(super) fn load(text: &str) -> Option<([f64; 3], [u64; 2])> {
    let mut words = text.split_ascii_whitespace();
    let mut average = || words.next()?.parse::<f64>().ok();
    let averages = [average()?, average()?, average()?];
    let (running, all) = words.next()?.split_once('/')?;
    Some((averages, [running.parse().ok()?, all.parse().ok()?]))
}

/// What a processor does with its time, in the order of `/proc/stat`.
const CPU_ITEMS: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// `/proc/stat`: processor (`total` or its number), item, milliseconds.
pub(super) fn cpu_times(text: &str) -> Vec<(&str, &'static str, u64)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("cpu"));
    lines
        .flat_map(|line| {
            let (cpu, times) = line.split_once(' ').unwrap_or((line, ""));
            let cpu = if cpu.is_empty() { "total" } else { cpu };
            let times = times.split_ascii_whitespace().map_while(|ticks| ticks.parse::<u64>().ok());
            CPU_ITEMS.into_iter().zip(times).map(move |(item, ticks)| (cpu, item, ticks * 1000 / TICKS))
        })
        .collect()
}

/// What is counted of an interface, in the order of `/proc/net/dev`.
const NET_ITEMS: [&str; 16] = [
    "recv_bytes",
    "recv_packets",
    "recv_errs",
    "recv_drop",
    "recv_fifo",
    "recv_frame",
    "recv_compressed",
    "recv_multicast",
    "sent_bytes",
    "sent_packets",
    "sent_errs",
    "sent_drop",
    "sent_fifo",
    "sent_colls",
    "sent_carrier",
    "sent_compressed",
];

/// `/proc/net/dev`: interface, item, count. Its two lines of headings have no colon.
pub(super) fn interfaces(text: &str) -> Vec<(&str, &'static str, u64)> {
    // The last colon: a name may have some of its own.
    rows(
        text.lines().filter_map(|line| line.rsplit_once(':')).map(|(name, counts)| (name.trim(), counts)),
        &NET_ITEMS,
    )
}

/// What is counted of a disk, in the order of `/proc/diskstats` (Documentation/admin-guide/iostats.rst).
const DISK_ITEMS: [&str; 17] = [
    "reads",
    "merged",
    "sectors_read",
    "time_reading",
    "writes",
    "writes_merged",
    "sectors_written",
    "time_writing",
    "in_progress",
    "time_in_progress",
    "weighted_time_in_progress",
    "discards",
    "discards_merged",
    "sectors_discarded",
    "time_discarding",
    "flushes",
    "time_flushing",
];

/// `/proc/diskstats`: disk, item, count.
pub(super) fn disks(text: &str) -> Vec<(&str, &'static str, u64)> {
    let lines = text.lines().filter_map(|line| {
        let (_major, rest) = line.trim_start().split_once(char::is_whitespace)?;
        let (_minor, rest) = rest.trim_start().split_once(char::is_whitespace)?;
        rest.trim_start().split_once(' ')
    });
    rows(lines, &DISK_ITEMS)
}

fn rows<'t>(
    lines: impl Iterator<Item = (&'t str, &'t str)>,
    items: &'static [&'static str],
) -> Vec<(&'t str, &'static str, u64)> {
    let counts = |text: &'t str| text.split_ascii_whitespace().map_while(|count| count.parse::<u64>().ok());
    lines
        .flat_map(|(name, text)| {
            items.iter().zip(counts(text)).map(move |(item, count)| (name, *item, count))
        })
        .collect()
}

/// The number at the head of a value.
fn number(value: &str) -> Option<u64> {
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[path = "proc_tests.rs"]
mod tests;
