//! `GetMetrics`: the agent's and the guest's figures as Prometheus text, under the names that peers' dashboards know.
//!
//! The figures come from `/proc` ([`proc`]) and from the writable file systems ([`filesystems`]). What cannot be read
//! is left out: half of the figures are better than none.

mod filesystems;
mod proc;
mod text;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use filesystems::{Debtors, Usage};
use text::{Kind, Text};

/// What lasts from one scrape to the next.
#[derive(Default)]
pub(crate) struct Metrics {
    scrapes: AtomicU64,
    debtors: Debtors,
}

impl Metrics {
    /// The answer to one scrape.
    pub(crate) async fn scrape(&self) -> String {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        // These files are the kernel's own and answer at once; together they still take a while.
        let files = tokio::task::spawn_blocking(Files::read).await.unwrap_or_default();
        let usages = self.debtors.ask(&files.mountinfo).await;
        let mut text = Text::default();
        agent(&mut text, scrapes, &files);
        guest(&mut text, &files);
        filesystems(&mut text, &usages);
        text.finish()
    }
}

/// The texts a scrape is made of; empty where there is no such file.
#[derive(Default)]
struct Files {
    own_stat: String,
    own_status: String,
    own_io: String,
    loadavg: String,
    stat: String,
    vmstat: String,
    net_dev: String,
    diskstats: String,
    meminfo: String,
    mountinfo: String,
}

impl Files {
    fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            own_stat: read("/proc/self/stat"),
            own_status: read("/proc/self/status"),
            own_io: read("/proc/self/io"),
            loadavg: read("/proc/loadavg"),
            stat: read("/proc/stat"),
            vmstat: read("/proc/vmstat"),
            net_dev: read("/proc/net/dev"),
            diskstats: read("/proc/diskstats"),
            meminfo: read("/proc/meminfo"),
            mountinfo: read("/proc/self/mountinfo"),
        }
    }
}

fn agent(text: &mut Text, scrapes: u64, files: &Files) {
    text.single("kata_agent_scrape_count", Kind::Counter, "Metrics scrape count.", scrapes);
    if let Some(threads) = proc::status_figure(&files.own_status, "Threads") {
        text.single("kata_agent_threads", Kind::Gauge, "Agent process threads.", threads);
    }
    let times = proc::ProcessTimes::read(&files.own_stat);
    if let Some(times) = &times {
        text.single(
            "kata_agent_total_time",
            Kind::Gauge,
            "Agent process total time in seconds.",
            times.seconds(),
        );
    }
    let sizes = [
        ("kata_agent_total_vm", "VmSize", "Agent process virtual memory in bytes."),
        ("kata_agent_total_rss", "VmRSS", "Agent process resident memory in bytes."),
    ];
    for (name, key, help) in sizes {
        if let Some(kib) = proc::status_figure(&files.own_status, key) {
            text.single(name, Kind::Gauge, help, kib * 1024);
        }
    }
    let mut family = text.family("kata_agent_proc_status", Kind::Gauge, "Agent process status, sizes in kB.");
    for (item, value) in proc::status(&files.own_status) {
        family.sample(&[("item", &item)], value);
    }
    let mut family = text.family("kata_agent_io_stat", Kind::Gauge, "Agent process IO statistics.");
    for (item, value) in proc::keyed(&files.own_io) {
        family.sample(&[("item", item)], value);
    }
    let mut family = text.family("kata_agent_proc_stat", Kind::Gauge, "Agent process times in clock ticks.");
    for (item, value) in times.into_iter().flat_map(|times| times.items) {
        family.sample(&[("item", item)], value);
    }
}

fn guest(text: &mut Text, files: &Files) {
    if let Some((averages, tasks)) = proc::load(&files.loadavg) {
        let mut family = text.family("kata_guest_load", Kind::Gauge, "Guest system load.");
        for (item, value) in ["load1", "load5", "load15"].into_iter().zip(averages) {
            family.sample(&[("item", item)], value);
        }
        let mut family = text.family("kata_guest_tasks", Kind::Gauge, "Guest system tasks.");
        for (item, value) in ["cur", "max"].into_iter().zip(tasks) {
            family.sample(&[("item", item)], value);
        }
    }
    let mut family = text.family("kata_guest_cpu_time", Kind::Gauge, "Guest CPU time in milliseconds.");
    for (cpu, item, value) in proc::cpu_times(&files.stat) {
        family.sample(&[("cpu", cpu), ("item", item)], value);
    }
    let mut family = text.family("kata_guest_vm_stat", Kind::Gauge, "Guest virtual memory statistics.");
    for (item, value) in proc::keyed(&files.vmstat) {
        family.sample(&[("item", item)], value);
    }
    let mut family = text.family("kata_guest_netdev_stat", Kind::Gauge, "Guest network interfaces.");
    for (interface, item, value) in proc::interfaces(&files.net_dev) {
        family.sample(&[("interface", interface), ("item", item)], value);
    }
    let mut family = text.family("kata_guest_diskstat", Kind::Gauge, "Guest disks.");
    for (disk, item, value) in proc::disks(&files.diskstats) {
        family.sample(&[("disk", disk), ("item", item)], value);
    }
    let mut family = text.family("kata_guest_meminfo", Kind::Gauge, "Guest memory, sizes in bytes.");
    for (item, value) in proc::meminfo(&files.meminfo) {
        family.sample(&[("item", &item)], value);
    }
}

fn filesystems(text: &mut Text, usages: &[Usage]) {
    type Figures = fn(&Usage) -> [u64; 3];
    let families: [(_, _, Figures); 2] = [
        ("kata_guest_filesystem_bytes", "Guest file systems that can be written to, in bytes.", |usage| {
            usage.bytes
        }),
        ("kata_guest_filesystem_inodes", "Inodes of guest file systems that can be written to.", |usage| {
            usage.inodes
        }),
    ];
    for (name, help, figures) in families {
        let mut family = text.family(name, Kind::Gauge, help);
        for usage in usages {
            let (mount, device) = (usage.mounted.mount.as_str(), usage.mounted.device.as_str());
            for (item, value) in ["total", "used", "available"].into_iter().zip(figures(usage)) {
                family.sample(&[("mount", mount), ("device", device), ("item", item)], value);
            }
        }
    }
}
