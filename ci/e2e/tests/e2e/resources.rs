//! What a running guest is given: processors, memory, swap, the time and random numbers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_api::agent::{
    AddSwapPathRequest, AddSwapRequest, CreateSandboxRequest, GuestDetailsRequest, GuestDetailsResponse,
    KernelModule, MemHotplugByProbeRequest, OnlineCPUMemRequest, ReseedRandomDevRequest,
    SetGuestDateTimeRequest,
};
use e2e::{Boot, Container, Disk, Guest, test};
use serde_json::json;
use ttrpc::{Code, context};

use crate::refusal;

#[test]
fn processors_that_are_offline_are_brought_online_as_many_as_are_wanted() {
    // As if they had been plugged in: this kernel reserves no room for such under TCG.
    Boot::new().cpus(3).cmdline("maxcpus=1").test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let online = async || container.sh("cat /sys/devices/system/cpu/online").await;
        for nothing in [0, 1] {
            bring_online(guest, nothing, false).await.unwrap();
            assert_eq!(online().await, "0");
        }
        let begun = Instant::now();
        for many in [4, u32::MAX] {
            let (code, text) = refusal(bring_online(guest, many, true).await);
            assert_eq!(code, Code::INTERNAL);
            assert!(text.contains(&format!("nb_cpus: {many}")) && text.contains("3 at most"), "{text}");
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "it can never have so many: {:?}", begun.elapsed());
        assert_eq!(online().await, "0");
        bring_online(guest, 2, true).await.unwrap();
        assert_eq!(online().await, "0-1");
        // What runs already may use it.
        assert_eq!(container.sh("nproc").await, "2");
        // The same again, from many callers, is no more.
        let (first, second) = tokio::join!(bring_online(guest, 3, false), bring_online(guest, 3, true));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert_eq!(online().await, "0-2");
    });
}

#[test]
fn memory_that_is_plugged_in_is_brought_online() {
    // Where the kernel puts nothing that cannot be moved out again.
    let boot = Boot::new()
        .qemu(&["-m", "256M,slots=2,maxmem=1G"])
        .cmdline("memhp_default_state=offline")
        .cmdline("memory_hotplug.online_policy=auto-movable");
    boot.test(async |guest| {
        let told = details(guest).await;
        assert!(
            told.mem_block_size_bytes.is_power_of_two() && told.mem_block_size_bytes >= 1 << 20,
            "{told:?}"
        );
        assert!(!told.support_mem_hotplug_probe, "x86 finds memory by itself");
        let probe = MemHotplugByProbeRequest { memHotplugProbeAddr: vec![1 << 32], ..Default::default() };
        let (agent, before) = (guest.agent(), blocks(guest).await);
        let (code, text) = refusal(agent.service().mem_hotplug_by_probe(ctx(), &probe).await);
        assert!(code == Code::INTERNAL && text.contains("memHotplugProbeAddr"), "{text}");

        let memory =
            json!({"qom-type": "memory-backend-memfd", "id": "mem1", "size": 256 << 20, "share": true});
        guest.qmp("object-add", memory).await;
        guest.qmp("device_add", json!({"driver": "pc-dimm", "id": "dimm1", "memdev": "mem1"})).await;
        let mut after = blocks(guest).await;
        while after.len() <= before.len() || after.values().any(|state| state != "online") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            bring_online(guest, 0, false).await.unwrap();
            after = blocks(guest).await;
        }
        // Blocks that come are brought online as they come; so that the call has something to do, one goes back.
        let new: Vec<_> = after.keys().filter(|block| !before.contains_key(*block)).cloned().collect();
        let script = format!(
            "cd /guest/memory; for b in {}; do echo offline > $b/state && echo $b && exit; done; exit 1",
            new.join(" ")
        );
        let container = guest.container("offline").privileged();
        let container =
            container.mount("/guest/memory", "bind", "/sys/devices/system/memory", &["bind", "rw"]);
        let block = &container.sh(&script).run().await.ok();
        assert_eq!(blocks(guest).await[block], "offline");
        bring_online(guest, 1, true).await.unwrap();
        assert_eq!(blocks(guest).await[block], "offline", "only processors were meant");
        bring_online(guest, 1, false).await.unwrap();
        assert_eq!(blocks(guest).await[block], "online");
    });
}

#[test]
fn swap_is_on_disks_by_their_place_and_by_their_path() {
    let (first, second, blank) = (swap_disk(8), swap_disk(16), Disk::new(4));
    Boot::new().disk(&first).disk(&second).disk(&blank).test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        add_swap(guest, &[0x10]).await.unwrap();
        add_swap_path(guest, "/dev/vdb").await.unwrap();
        let swaps = container.sh("cat /proc/swaps").await;
        for (node, kib) in [("/dev/vda", "8188"), ("/dev/vdb", "16380")] {
            let line = swaps.lines().find(|line| line.starts_with(node)).unwrap_or_else(|| panic!("{swaps}"));
            assert!(line.contains(kib), "{line}");
        }
        let refused = [
            ("PCIPath", refusal(add_swap(guest, &[]).await)),
            ("PCIPath", refusal(add_swap(guest, &[0x20, 0, 1]).await)),
            ("PCIPath", refusal(add_swap(guest, &[u32::MAX]).await)),
            ("1e/1e", refusal(add_swap(guest, &[0x1e, 0x1e]).await)),
            ("/dev/vda: swap on", refusal(add_swap(guest, &[0x10]).await)),
            ("/dev/vdc: swap on", refusal(add_swap(guest, &[0x12]).await)),
            ("path", refusal(add_swap_path(guest, "").await)),
            ("path", refusal(add_swap_path(guest, "dev/vdb").await)),
            ("/dev/none: open", refusal(add_swap_path(guest, "/dev/none").await)),
            // A link that could be a container's.
            ("/dev/fd/0: open", refusal(add_swap_path(guest, "/dev/fd/0").await)),
        ];
        for (object, (code, text)) in refused {
            assert_eq!(code, Code::INTERNAL, "{text}");
            assert!(text.starts_with(object) || text.contains(object), "{object}: {text}");
        }
        assert_eq!(container.sh("cat /proc/swaps").await, swaps);
    });
}

#[test]
fn the_clock_is_set_and_random_numbers_are_mixed() {
    Boot::new().test(async |guest| {
        let container = guest.container("c1").args(&["sleep", "1000"]).start().await;
        let (agent, future) = (guest.agent(), 2_000_000_000);
        let set = async |sec: i64, usec: i64| {
            let request = SetGuestDateTimeRequest { Sec: sec, Usec: usec, ..Default::default() };
            guest.agent().service().set_guest_date_time(ctx(), &request).await
        };
        set(future, 999_999).await.unwrap();
        let now = clock(&container).await;
        assert!((future..future + 60).contains(&now), "{now}");
        for (sec, usec, field) in [
            (-1, 0, "Sec"),
            (i64::MIN, 0, "Sec"),
            (i64::MAX, 0, "set the clock"),
            (1, -1, "Usec"),
            (1, 1_000_000, "Usec"),
        ] {
            let (code, text) = refusal(set(sec, usec).await);
            assert!(code == Code::INTERNAL && text.starts_with(field), "{field}: {text}");
        }
        assert!(clock(&container).await >= now, "a refused time changes nothing");
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        set(today, 0).await.unwrap();
        assert!((today..today + 60).contains(&clock(&container).await));

        let reseed = async |data: Vec<u8>| {
            let request = ReseedRandomDevRequest { data, ..Default::default() };
            agent.service().reseed_random_dev(ctx(), &request).await
        };
        // What a peer sends after a clone; a byte; and much more than the kernel's pool has.
        for size in [512, 1, 1 << 20] {
            reseed(vec![7; size]).await.unwrap();
        }
        let (code, text) = refusal(reseed(Vec::new()).await);
        assert!(code == Code::INTERNAL && text.starts_with("data: "), "{text}");
        assert_ne!(
            container.sh("head -c 16 /dev/urandom | od -An -tx1").await,
            container.sh("head -c 16 /dev/urandom | od -An -tx1").await
        );
    });
}

#[test]
fn a_module_that_cannot_be_loaded_is_named_and_nothing_is_made() {
    Boot::new().bare().test(async |guest| {
        for (name, text) in [("no_such_module", "no_such_module: "), ("../evil", "../evil"), ("-r", "-r")] {
            let module = KernelModule { name: name.into(), ..Default::default() };
            let request = CreateSandboxRequest {
                sandbox_id: "sandbox".into(),
                kernel_modules: vec![module],
                ..Default::default()
            };
            let (code, said) = refusal(guest.agent().service().create_sandbox(ctx(), &request).await);
            assert_eq!(code, Code::INTERNAL);
            assert!(said.contains("kernel_modules: ") && said.contains(text), "{said}");
        }
        // There is no sandbox yet, and there can be one.
        assert!(guest.container("c1").sh("true").try_create().await.is_err());
        guest.create_sandbox().await.unwrap();
        guest.container("c1").sh("true").run().await.ok();
    });
}

#[test]
fn the_guest_tells_what_it_can_do() {
    test(async |guest| {
        let told = details(guest).await.agent_details.unwrap();
        assert!(
            told.init_daemon && told.version.starts_with(|first: char| first.is_ascii_digit()),
            "{told:?}"
        );
        for kind in ["blk", "mmioblk", "scsi", "nvdimm", "vfio-pci"] {
            assert!(told.device_handlers.iter().any(|handler| handler == kind), "{kind}: {told:?}");
        }
        let nothing =
            guest.agent().service().get_guest_details(ctx(), &GuestDetailsRequest::new()).await.unwrap();
        assert_eq!(nothing.mem_block_size_bytes, 0, "nobody asked");
    });
}

/// A disk that `mkswap` might have made, of pages of 4 KiB (`union swap_header` in the kernel's `linux/swap.h`).
fn swap_disk(mib: u64) -> Disk {
    let mut header = vec![0; 4096];
    let last_page = (mib << 20) as u32 / 4096 - 1;
    header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&last_page.to_le_bytes());
    header[4086..].copy_from_slice(b"SWAPSPACE2");
    let disk = Disk::new(mib);
    std::os::unix::fs::FileExt::write_all_at(&disk.file(), &header, 0).unwrap();
    disk
}

/// The state of every block of memory.
async fn blocks(guest: &Guest) -> std::collections::BTreeMap<String, String> {
    let script = "cd /sys/devices/system/memory; for b in memory*; do echo $b $(cat $b/state); done";
    let text = guest.container("blocks").sh(script).run().await.ok();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(b, s)| (b.into(), s.into())).collect()
}

async fn clock(container: &Container<'_>) -> i64 {
    container.sh("date +%s").await.parse().unwrap()
}

fn ctx() -> context::Context {
    context::with_duration(Duration::from_secs(30))
}

async fn bring_online(guest: &Guest, nb_cpus: u32, cpu_only: bool) -> ttrpc::Result<()> {
    let request = OnlineCPUMemRequest { nb_cpus, cpu_only, ..Default::default() };
    guest.agent().service().online_cpu_mem(ctx(), &request).await.map(drop)
}

async fn add_swap(guest: &Guest, slots: &[u32]) -> ttrpc::Result<()> {
    let request = AddSwapRequest { PCIPath: slots.to_vec(), ..Default::default() };
    guest.agent().service().add_swap(ctx(), &request).await.map(drop)
}

async fn add_swap_path(guest: &Guest, path: &str) -> ttrpc::Result<()> {
    let request = AddSwapPathRequest { path: path.into(), ..Default::default() };
    guest.agent().service().add_swap_path(ctx(), &request).await.map(drop)
}

async fn details(guest: &Guest) -> GuestDetailsResponse {
    let request = GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
    guest.agent().service().get_guest_details(ctx(), &request).await.unwrap()
}
