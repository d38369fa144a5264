//! `GetMetrics`: the text is what a Prometheus server reads, and its figures are the guest's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_api::agent::GetMetricsRequest;
use e2e::{Guest, test};
use ttrpc::context;

/// A scrape: family, labels as they were written, value.
type Samples = BTreeMap<(String, String), f64>;

#[test]
fn the_guest_tells_its_figures() {
    test(async |guest| {
        let first = scrape(guest).await;
        let second = scrape(guest).await;
        let figure = |samples: &Samples, family: &str, labels: &str| {
            let key = (family.to_string(), labels.to_string());
            *samples.get(&key).unwrap_or_else(|| panic!("{family}{{{labels}}} is missing"))
        };
        let scrapes = |samples| figure(samples, "kata_agent_scrape_count", "");
        assert!(scrapes(&second) > scrapes(&first));
        for (family, labels, low, high) in [
            ("kata_agent_threads", "", 1.0, 50.0),
            ("kata_agent_total_time", "", 0.0, 1e6),
            ("kata_agent_total_vm", "", 1e5, 1e9),
            ("kata_agent_total_rss", "", 1e5, 1e8),
            ("kata_agent_proc_status", r#"item="vmrss""#, 1e2, 1e5),
            ("kata_agent_proc_stat", r#"item="utime""#, 0.0, 1e9),
            ("kata_agent_io_stat", r#"item="rchar""#, 1.0, 1e12),
            ("kata_guest_load", r#"item="load15""#, 0.0, 1e3),
            ("kata_guest_tasks", r#"item="max""#, 2.0, 1e5),
            ("kata_guest_cpu_time", r#"cpu="total",item="system""#, 1.0, 1e9),
            ("kata_guest_cpu_time", r#"cpu="0",item="user""#, 0.0, 1e9),
            ("kata_guest_vm_stat", r#"item="nr_free_pages""#, 1.0, 1e9),
            ("kata_guest_netdev_stat", r#"interface="lo",item="sent_bytes""#, 0.0, 1e12),
            ("kata_guest_meminfo", r#"item="mem_total""#, 1e8, 3e8),
        ] {
            let value = figure(&second, family, labels);
            assert!((low..=high).contains(&value), "{family}{{{labels}}} = {value}");
        }
    });
}

async fn scrape(guest: &Guest) -> Samples {
    let ctx = context::with_duration(Duration::from_secs(20));
    let answer = guest.agent().service().get_metrics(ctx, &GetMetricsRequest::new()).await.unwrap();
    parse(&answer.metrics)
}

/// Every line is a help, a type or a sample; a family comes in one piece, help and type first; no series comes twice.
fn parse(text: &str) -> Samples {
    let mut families = BTreeSet::new();
    let mut current = String::new();
    let mut typed = false;
    let mut samples = Samples::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(families.insert(name.to_string()), "{name} comes twice");
            assert!(!words.is_empty() && name.starts_with("kata_"), "{line}");
            (current, typed) = (name.to_string(), false);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(name == current && !typed && ["gauge", "counter"].contains(&kind), "{line}");
            typed = true;
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(name == current && typed, "{line}");
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let twice = samples.insert((name.to_string(), labels.to_string()), value);
            assert!(twice.is_none(), "{series} comes twice");
        }
    }
    assert!(text.ends_with('\n') && families.len() > 10, "{families:?}");
    samples
}
