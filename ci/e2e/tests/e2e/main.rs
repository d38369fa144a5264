//! End-to-end tests, a file per subject. What they are written in is the crate's library.
//!
//! | file | what goes in it |
//! |---|---|
//! | `arches` | what has to work on every architecture, each of which runs these tests |
//! | `boot` | a VM's way up and down: Health, Version, details, logs, power-off |
//! | `startup` | how the guest is set up: mounts, settings, the log, the debug console |
//! | `roots` | roots on disks, in every format: booted, verified, tampered with |
//! | `extensions` | images beside the root: mounted, checked, refused |
//! | `vsock` | the same agent over the other transport |
//! | `wire` | the protocol itself: unknown services and methods, status codes, many calls at once |
//! | `exit` | how programs end, and programs that cannot run |
//! | `stdio` | pipes: stdin, stdout, stderr and their ends |
//! | `husk_service` | our own service: streams, timeline, refresh |
//! | `terminal` | the same on a terminal, and its size |
//! | `exec` | further processes in a container |
//! | `identity` | ids of processes and containers, and waiting for them |
//! | `signals` | signals |
//! | `containers` | lives of containers, and what several of them share |
//! | `limits` | cgroup limits and figures |
//! | `update` | limits of a running container |
//! | `pause` | pausing and resuming |
//! | `oom` | kills for lack of memory, and who hears of them |
//! | `stats` | figures |
//! | `cgroup_v1` | a guest with a hierarchy of cgroups for each controller |
//! | `systemd_cgroup` | a guest with systemd, which makes the cgroups |
//! | `devices_rules` | which devices a container may use |
//! | `process` | what a process is: user, groups, capabilities, rlimits, environment |
//! | `mounts` | what a container sees: mounts, devices, covered paths, sysctls |
//! | `storage` | storages: each driver and its options, references, what is left when they go |
//! | `layers` | root file systems of read-only layers, their hashes, and encrypted volumes |
//! | `copy_file` | files the host sends |
//! | `volumes` | how full a volume is, making it larger, and a container's last words |
//! | `cdi` | devices that containers ask for by name |
//! | `devices` | devices of the VM: found, waited for, and put into containers |
//! | `namespaces` | the namespaces of a container, and whose they are |
//! | `seccomp` | filters of system calls, and what other security modules are asked for |
//! | `hooks` | programs that run at the turns of a container's life |
//! | `user_namespace` | containers with user ids of their own |
//! | `metrics` | the figures of the agent and of the guest |
//! | `network` | interfaces, routes, neighbours, and what goes through them |
//! | `resources` | processors, memory, swap, time and random numbers of a running guest |
//! | `cycles` | many containers one after the other leave nothing behind |
//! | `load` | many clients at once, and something that is stuck beside them |
//! | `model` | random sequences of calls against a model of their answers, and what they leave |
//! | `peers` | the recorded orders of calls of both known runtimes |
//! | `bad_requests` | every field of every request as it should not be |
//! | `cli` | the `husk` binary |
//! | `bad_input` | what `husk` says and leaves behind when it cannot do what it was asked for |

mod arches;
mod bad_input;
mod bad_requests;
mod boot;
mod cdi;
mod cgroup_v1;
mod cli;
mod containers;
mod copy_file;
mod cycles;
mod devices;
mod devices_rules;
mod exec;
mod exit;
mod extensions;
mod hooks;
mod husk_service;
mod identity;
mod layers;
mod limits;
mod load;
mod metrics;
mod model;
mod mounts;
mod namespaces;
mod network;
mod oom;
mod pause;
mod peers;
mod process;
mod resources;
mod roots;
mod seccomp;
mod signals;
mod startup;
mod stats;
mod stdio;
mod storage;
mod systemd_cgroup;
mod terminal;
mod update;
mod user_namespace;
mod variants;
mod volumes;
mod vsock;
mod wire;

/// How a call of the generated client that the agent refused ended.
fn refusal<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (ttrpc::Code, String) {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().into()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Bytes that look random and are the same each time.
struct Noise {
    state: u64,
    left: usize,
}

fn noise(size: usize) -> Noise {
    Noise { state: 0x9e37_79b9_7f4a_7c15, left: size }
}

impl Noise {
    /// The next bytes, at most `size`; `None` at the end.
    fn next_chunk(&mut self, size: usize) -> Option<Vec<u8>> {
        let size = size.min(self.left);
        self.left -= size;
        let mut chunk = Vec::with_capacity(size + 8);
        while chunk.len() < size {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.extend_from_slice(&self.state.to_le_bytes());
        }
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }
}
