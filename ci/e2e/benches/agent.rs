//! What the agent costs: time, processor time and memory of a container, of an exec and of output, each taken many
//! times in one VM. One JSON object a line, for `cargo xtask bench`.
//!
//! | figure | how it is taken |
//! |---|---|
//! | container, exec | the host's clock, from the first call to the last answer |
//! | CPU of an exec | the agent's times and those of the children it has waited for (`GetMetrics`), over 50 execs; less what the same `true` costs a shell in the guest |
//! | stdout | 16 MiB of zeroes from `head`, by calls of 32 KiB as peers make them, by larger ones, and by a stream |
//! | memory | the agent's resident set (`GetMetrics`) beside so many containers that sleep |

use std::time::{Duration, Instant};

use agent_api::agent::{GetMetricsRequest, ReadStreamRequest};
use e2e::{Boot, Container, Figure, Guest};
use husk::agent::Stream;
use ttrpc::context;

/// How often each figure is taken.
const RUNS: usize = 20;
/// How many execs one figure of processor time is spread over: it is counted in hundredths of a second.
const EXECS: usize = 50;
/// How much output one run reads.
const OUTPUT: usize = 16 << 20;
/// How long a part may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);
/// The most memory for one more idle container, in KB.
const IDLE_CONTAINER: f64 = 100.0;

fn main() {
    // cargo test runs bench targets too when it is told to build everything; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let boot = Boot::new().limit(LIMIT);
    boot.clone().test(containers);
    boot.clone().test(execs);
    boot.clone().test(output);
    boot.memory(512).test(memory);
}

async fn containers(guest: &Guest) {
    let mut runs = Vec::new();
    // The first ones fill caches.
    for round in 0..RUNS + 3 {
        let begun = Instant::now();
        let container = guest.container(&format!("c{round}")).args(&["true"]).start().await;
        assert_eq!(container.init().wait().await, 0);
        container.remove().await;
        runs.push(milliseconds(begun.elapsed()));
    }
    Figure::new("create+start+wait+remove of true", "ms").report(&runs[3..]);
}

async fn execs(guest: &Guest) {
    let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
    for _ in 0..EXECS {
        exec_true(&container).await;
    }
    let shell = shell_costs(&container).await;
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    let before = figures(guest).await;
    let begun = Instant::now();
    for _ in 0..RUNS {
        let before = figures(guest).await;
        for _ in 0..EXECS {
            let begun = Instant::now();
            exec_true(&container).await;
            times.push(milliseconds(begun.elapsed()));
        }
        costs.push((figures(guest).await.all_cpu - before.all_cpu) / EXECS as f64);
    }
    let total = begun.elapsed().as_secs_f64();
    let after = figures(guest).await;
    let own = (after.own_cpu - before.own_cpu) / (RUNS * EXECS) as f64;
    let beyond: Vec<f64> = costs.iter().map(|cost| cost - median(&shell)).collect();
    Figure::new("exec of true", "ms").report(&times);
    Figure::new("1000 execs of true, one by one", "s").report(&[total]);
    Figure::new("agent's growth over 1000 execs", "KB").report(&[(after.rss - before.rss) / 1e3]);
    Figure::new("CPU of fork+exec of true", "ms").report(&shell);
    Figure::new("CPU of exec beyond that", "ms").budget(5.0).report(&beyond);
    Figure::new("of which in the agent itself", "ms").report(&[own]);
}

async fn exec_true(container: &Container<'_>) {
    assert_eq!(container.exec(&["true"]).start().await.wait().await, 0);
}

/// What a shell in the guest pays for one `true`, in milliseconds of processor time.
async fn shell_costs(container: &Container<'_>) -> Vec<f64> {
    // Only the shell's own children count, and the path keeps it from doing it by itself.
    let script = format!(
        "i=0; while [ $i -lt {EXECS} ]; do /bin/true; i=$((i+1)); done; read -r stat < /proc/$$/stat; echo $stat"
    );
    let mut costs = Vec::new();
    for _ in 0..RUNS {
        let stat = container.sh(&script).await;
        let fields = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace().skip(11);
        let ticks: f64 = fields.take(4).map(|field| field.parse::<f64>().expect("a number")).sum();
        costs.push(ticks * 10.0 / EXECS as f64);
    }
    costs
}

#[derive(Clone, Copy)]
enum Way {
    Calls(u32),
    Stream,
}

async fn output(guest: &Guest) {
    let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
    let ways = [
        (Way::Calls(32 << 10), "stdout by calls of 32 KiB", "its CPU, calls of 32 KiB"),
        (Way::Calls(512 << 10), "stdout by calls of 512 KiB", "its CPU, calls of 512 KiB"),
        (Way::Stream, "stdout by stream", "its CPU, stream"),
    ];
    for (way, speed, cost) in ways {
        let (mut speeds, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let before = figures(guest).await;
            let begun = Instant::now();
            read_all(guest, &container, way).await;
            let mebibytes = OUTPUT as f64 / f64::from(1 << 20);
            speeds.push(mebibytes / begun.elapsed().as_secs_f64());
            costs.push((figures(guest).await.own_cpu - before.own_cpu) / mebibytes);
        }
        Figure::new(speed, "MiB/s").report(&speeds);
        Figure::new(cost, "ms/MiB").report(&costs);
    }
}

async fn read_all(guest: &Guest, container: &Container<'_>, way: Way) {
    let process = container.exec(&["head", "-c", &OUTPUT.to_string(), "/dev/zero"]).start().await;
    let (agent, target) = (guest.agent(), process.target());
    let mut size = 0;
    match way {
        Way::Calls(len) => {
            let request = ReadStreamRequest {
                container_id: target.container.clone(),
                exec_id: target.exec_id.clone(),
                len,
                ..Default::default()
            };
            loop {
                let answer = agent.service().read_stdout(context::Context::default(), &request).await;
                let data = answer.expect("ReadStdout").data;
                if data.is_empty() {
                    break;
                }
                size += data.len();
            }
        }
        Way::Stream => {
            let mut reader = agent.reader(target, Stream::Stdout).await.expect("Output");
            while let data = reader.next().await.expect("Output")
                && !data.is_empty()
            {
                size += data.len();
            }
        }
    }
    assert_eq!(size, OUTPUT);
    assert_eq!(process.wait().await, 0);
}

async fn memory(guest: &Guest) {
    let steps = [
        (1, Figure::new("agent's memory, 1 container", "MB").budget(5.0)),
        (10, Figure::new("agent's memory, 10 containers", "MB")),
        (100, Figure::new("agent's memory, 100 containers", "MB")),
    ];
    let mut idle = Vec::new();
    let mut medians = Vec::new();
    for (count, figure) in steps {
        while idle.len() < count {
            let name = format!("idle{}", idle.len());
            idle.push(guest.container(&name).args(&["sleep", "1000"]).start().await);
        }
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(figures(guest).await.rss / 1e6);
        }
        figure.report(&runs);
        medians.push(median(&runs));
    }
    let more = (medians[2] - medians[1]) * 1e3 / 90.0;
    Figure::new("one more idle container", "KB").budget(IDLE_CONTAINER).report(&[more]);
}

/// What the agent says of itself.
struct Figures {
    /// Resident memory in bytes.
    rss: f64,
    /// Its own processor time in milliseconds.
    own_cpu: f64,
    /// The same, with that of the children it has waited for.
    all_cpu: f64,
}

async fn figures(guest: &Guest) -> Figures {
    let ctx = context::with_duration(Duration::from_secs(20));
    let answer = guest.agent().service().get_metrics(ctx, &GetMetricsRequest::new()).await;
    let text = answer.expect("GetMetrics").metrics;
    let figure = |series: &str| -> f64 {
        let value = text.lines().find_map(|line| line.strip_prefix(series)).expect("the series is there");
        value.trim().parse().expect("a number")
    };
    let ticks = |item: &str| figure(&format!("kata_agent_proc_stat{{item=\"{item}\"}}"));
    let own = ticks("utime") + ticks("stime");
    let children = ticks("cutime") + ticks("cstime");
    Figures { rss: figure("kata_agent_total_rss"), own_cpu: own * 10.0, all_cpu: (own + children) * 10.0 }
}

fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
