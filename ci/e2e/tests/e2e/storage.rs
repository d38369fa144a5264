//! Storages: each driver and its options, references, and what is left when they go.

use std::time::{Duration, Instant};

use agent_api::agent::{FSGroup, Storage};
use agent_api::oci::LinuxDeviceCgroup;
use agent_api::paths::SHARE_ROOT;
use e2e::{Boot, ContainerBuilder, Disk, Guest, code, storage, test};
use ttrpc::Code;

const SANDBOX: &str = "/run/kata-containers/sandbox";

/// A container that is given storages, one of them at `/vol`.
fn with<'g>(container: ContainerBuilder<'g>, storages: &[Storage], seen: &str) -> ContainerBuilder<'g> {
    let storages = storages.to_vec();
    container.request(|request| request.storages = storages).mount("/vol", "bind", seen, &["rbind", "rw"])
}

#[test]
fn block_volumes_are_mounted_used_and_let_go() {
    let (ext4, xfs) = (Disk::ext4(32), Disk::xfs(320));
    let scsi = Disk::ext4(32);
    let boot = Boot::new().disk(&ext4).disk(&xfs);
    let boot = boot.qemu(&["-drive", &scsi.drive("s"), "-device", "virtio-scsi-pci,id=scsi"]);
    let boot = boot.qemu(&["-device", "scsi-hd,drive=s,bus=scsi.0,scsi-id=3,lun=1"]);
    boot.test(async |guest| {
        let point = |name: &str| format!("{SANDBOX}/storage/{name}");
        for (driver, source, fstype, options) in [
            ("blk", "10", "ext4", &["rw", "nodev"][..]),
            ("blk", "11", "xfs", &["nouuid", "nosuid"]),
            ("scsi", "3:1", "ext4", &["noatime"]),
            ("mmioblk", "/dev/vda", "ext4", &[]),
        ] {
            let at = point(fstype);
            let volume = storage(driver, source, fstype, options, &at);
            let script = "mount | grep ' /vol '; echo written > /vol/file; cat /vol/file";
            let container = with(guest.container("c1").sh(script), &[volume], &at);
            let said = container.run().await.ok();
            assert!(
                said.ends_with("written") && said.contains(&format!("type {fstype}")),
                "{driver}: {said}"
            );
            assert_eq!(guest.mounts("/storage/").await, [""; 0], "{driver}");
        }
        // The next container finds what the first one wrote, and a read-only volume takes nothing.
        let at = point("again");
        let volume = storage("blk", "10", "ext4", &["ro"], &at);
        let script = "cat /vol/file; echo x 2>/dev/null > /vol/file || echo sealed";
        let said = with(guest.container("c2").sh(script), &[volume], &at).run().await.ok();
        assert_eq!(said, "written\nsealed");
        let bad = storage("blk", "10", "ext4", &["loop"], &at);
        assert_eq!(code(&with(guest.container("c3"), &[bad], &at).try_create().await), Code::INTERNAL);
    });
}

#[test]
fn a_block_volume_without_a_file_system_is_a_device() {
    let disk = Disk::with(b"raw content");
    Boot::new().disk(&disk).test(async |guest| {
        let at = format!("{SANDBOX}/storage/raw");
        let volume = storage("blk", "10", "bind", &["bind"], &at);
        let script =
            "test -b /dev/raw && head -c 11 /dev/raw && echo new | dd of=/dev/raw conv=notrunc 2>/dev/null";
        let container = guest.container("c1").privileged().sh(script);
        let container = container.request(|request| request.storages = vec![volume]);
        let container = container.mount("/dev/raw", "bind", &at, &["bind"]).resources(|resources| {
            let all = LinuxDeviceCgroup {
                Allow: true,
                Type: "a".into(),
                Access: "rwm".into(),
                ..Default::default()
            };
            resources.Devices.push(all);
        });
        assert_eq!(container.run().await.ok(), "raw content");
        assert_eq!(guest.mounts("/storage/").await, [""; 0]);
        let mut start = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&disk.file(), &mut start, 0).unwrap();
        assert_eq!(&start, b"new\n");
    });
}

/// WEAK: the peer's agent leaves the size to a later remount. TRAP: that remount names the size alone.
#[test]
fn a_shm_has_its_size_from_the_start_and_another_when_told_so() {
    test(async |guest| {
        let at = format!("{SANDBOX}/shm-test");
        let shm = storage(
            "ephemeral",
            "shm",
            "tmpfs",
            &["noexec", "nosuid", "nodev", "mode=1777", "size=8388608"],
            &at,
        );
        let container = with(guest.container("c1").args(&["sleep", "1000"]), &[shm], &at).start().await;
        let size = "df -k /vol | tail -n 1 | awk '{print $2}'";
        assert_eq!(container.sh(size).await, "8192");
        guest.update_ephemeral_mounts(&[]).await.unwrap();
        let update = storage("ephemeral", "shm", "tmpfs", &["remount", "size=4M"], &at);
        guest.update_ephemeral_mounts(std::slice::from_ref(&update)).await.unwrap();
        assert_eq!(container.sh(size).await, "4096");
        let flags = guest.mounts("/shm-test").await.remove(0);
        for flag in ["noexec", "nosuid", "nodev"] {
            assert!(flags.contains(flag), "{flag} in {flags}");
        }
        for bad in [
            Storage { driver: "blk".into(), ..update.clone() },
            Storage { mount_point: "/proc".into(), ..update.clone() },
            Storage { options: vec!["remount".into(), "size=many".into()], ..update },
        ] {
            let refused = guest.update_ephemeral_mounts(&[bad]).await;
            assert!(
                matches!(&refused, Err(ttrpc::Error::RpcStatus(status)) if status.code() == Code::INTERNAL)
            );
        }
        assert_eq!(container.sh(size).await, "4096");
        container.remove().await;
        assert_eq!(guest.mounts("/shm-test").await, [""; 0]);
    });
}

#[test]
fn huge_pages_are_counted_out_and_given_back() {
    Boot::new().test(async |guest| {
        let at = format!("{SANDBOX}/ephemeral/huge");
        let pages = async || {
            let file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
            guest.container("look").args(&["cat", file]).run().await.ok()
        };
        let huge = |size: u64| {
            storage("ephemeral", "nodev", "hugetlbfs", &[&format!("pagesize=2097152,size={size}")], &at)
        };
        let script = "mount | grep -c ' /vol type hugetlbfs .*pagesize=2M'";
        let container =
            with(guest.container("c1").args(&["sleep", "1000"]), &[huge(4 << 20)], &at).start().await;
        assert_eq!(container.sh(script).await, "1");
        assert_eq!(pages().await, "2");
        container.remove().await;
        assert_eq!(pages().await, "0");
        // More than the guest has.
        let refused = with(guest.container("c2"), &[huge(1 << 30)], &at).try_create().await;
        assert_eq!(code(&refused), Code::INTERNAL);
        assert_eq!(pages().await, "0", "what could be had was given back");
        assert_eq!(guest.mounts("/huge").await, [""; 0]);
    });
}

#[test]
fn volumes_in_memory_belong_to_their_group() {
    test(async |guest| {
        let memory = format!("{SANDBOX}/ephemeral/group");
        let local = format!("{SHARE_ROOT}/local-group");
        let storages = [
            storage("ephemeral", "tmpfs", "tmpfs", &["fsgid=4711"], &memory),
            storage("local", "local", "local", &["mode=0777", "fsgid=4712"], &local),
        ];
        let script = "stat -c '%g %a' /vol /local; id -G; touch /vol/f && stat -c '%g' /vol/f";
        let container = with(guest.container("c1").sh(script).user(1000, 1000), &storages, &memory)
            .mount("/local", "bind", &local, &["rbind"])
            .process(|process| process.User.mut_or_insert_default().AdditionalGids = vec![4711]);
        let said = container.run().await.ok();
        assert_eq!(said, "4711 3777\n4712 2777\n1000 4711\n4711");
        assert_eq!(guest.mounts("/ephemeral/group").await, [""; 0]);
    });
}

#[test]
fn fs_group_is_for_all_files_and_their_top_tells_whether_it_was_done() {
    let disk = Disk::ext4(32);
    Boot::new().disk(&disk).test(async |guest| {
        let at = format!("{SANDBOX}/storage/group");
        let volume = |policy: i32, gid: u32| Storage {
            fs_group: Some(FSGroup {
                group_id: gid,
                group_change_policy: protobuf::EnumOrUnknown::from_i32(policy),
                ..Default::default()
            })
            .into(),
            ..storage("blk", "10", "ext4", &[], &at)
        };
        let make = "mkdir -p /vol/a/b; echo x > /vol/a/b/f; chmod 600 /vol/a/b/f; chmod 700 /vol/a; ln -s /etc /vol/l";
        with(guest.container("c0").sh(make), &[storage("blk", "10", "ext4", &[], &at)], &at).run().await.ok();
        let look = "stat -c '%g %a' /vol /vol/a /vol/a/b/f";
        let seen = with(guest.container("c1").sh(look), &[volume(0, 4711)], &at).run().await.ok();
        assert_eq!(seen, "4711 2775\n4711 2770\n4711 660");
        let undo = "chgrp 0 /vol/a/b/f";
        with(guest.container("c2").sh(undo), &[volume(1, 4711)], &at).run().await.ok();
        let seen = with(guest.container("c3").sh(look), &[volume(1, 4711)], &at).run().await.ok();
        assert!(seen.ends_with("\n0 660"), "the top fits, so the rest is left alone: {seen}");
        let seen = with(guest.container("c4").sh(look), &[volume(1, 4712)], &at).run().await.ok();
        assert!(seen.ends_with("\n4712 660"), "{seen}");
    });
}

#[test]
fn references_are_counted_and_shared_volumes_stay() {
    test(async |guest| {
        let at = format!("{SANDBOX}/ephemeral/counted");
        let memory = storage("ephemeral", "tmpfs", "tmpfs", &["size=1m"], &at);
        let one = with(guest.container("c1").args(&["sleep", "1000"]), std::slice::from_ref(&memory), &at)
            .start()
            .await;
        one.sh("echo kept > /vol/file").await;
        let two = with(guest.container("c2").args(&["sleep", "1000"]), std::slice::from_ref(&memory), &at)
            .start()
            .await;
        one.remove().await;
        assert_eq!(two.sh("cat /vol/file").await, "kept");
        assert_eq!(guest.mounts("/counted").await.len(), 1);
        two.remove().await;
        assert_eq!(guest.mounts("/counted").await, [""; 0]);

        let shared = Storage { shared: true, ..memory };
        with(guest.container("c3").sh("echo stays > /vol/file"), std::slice::from_ref(&shared), &at)
            .run()
            .await
            .ok();
        let said = with(guest.container("c4").sh("cat /vol/file"), &[shared], &at).run().await.ok();
        assert_eq!(said, "stays");
        assert_eq!(guest.mounts("/counted").await.len(), 1, "until the sandbox ends");
    });
}

#[test]
fn one_storage_that_fails_takes_the_others_along() {
    test(async |guest| {
        let at = |name: &str| format!("{SANDBOX}/half/{name}");
        let good = storage("ephemeral", "tmpfs", "tmpfs", &[], &at("good"));
        for bad in [
            storage("ephemeral", "tmpfs", "tmpfs", &["size=what"], &at("bad")),
            storage("mmioblk", "/dev/no-such-disk", "ext4", &[], &at("bad")),
            storage("floppy", "/dev/fd0", "vfat", &[], &at("bad")),
            storage("image_guest_pull", "pause", "overlay", &[], &at("bad")),
            storage("ephemeral", "tmpfs", "tmpfs", &[], &format!("{SHARE_ROOT}/rootfs/planted/x")),
        ] {
            std::fs::create_dir_all(guest.rootfs()).unwrap();
            let _ = std::os::unix::fs::symlink("/etc", guest.rootfs().join("planted"));
            let refused =
                with(guest.container("c1"), &[good.clone(), bad.clone()], &at("good")).try_create().await;
            assert_eq!(code(&refused), Code::INTERNAL, "{bad:?}");
            let said = refused.unwrap_err().to_string();
            assert!(said.contains(&bad.mount_point), "{said}");
            assert_eq!(guest.mounts("/half").await, [""; 0]);
        }
        let look = guest
            .container("look")
            .mount("/guest", "bind", SANDBOX, &["rbind"])
            .sh("ls -a /guest | grep half");
        assert_eq!(look.run().await.status, 1, "no directory is left either");
    });
}

#[test]
fn an_overlay_gets_a_layer_to_write_to() {
    test(async |guest| {
        std::fs::create_dir_all(guest.rootfs().join("lower")).unwrap();
        std::fs::write(guest.rootfs().join("lower/file"), "lower").unwrap();
        let id = "overlay-owner";
        let at = format!("/run/kata-containers/{id}/rootfs");
        let lower = format!("lowerdir={SHARE_ROOT}/rootfs/lower");
        let writable = "io.katacontainers.fs-opt.overlay-rw";
        let overlay = storage("overlayfs", "none", "overlay", &[&lower, writable], &at);
        let script = "echo upper > /vol/file; cat /vol/file";
        let container = with(guest.container("c1").sh(script), &[overlay], &at);
        let container = container.request(|request| request.container_id = id.into());
        assert_eq!(container.run().await.ok(), "upper");
        assert_eq!(std::fs::read_to_string(guest.rootfs().join("lower/file")).unwrap(), "lower");
        assert_eq!(guest.mounts(id).await, [""; 0]);
        let look = guest.container("look").mount("/guest", "bind", "/run/kata-containers", &["rbind"]);
        assert_eq!(look.sh(&format!("ls -A /guest/{id} 2>/dev/null")).run().await.text(), "");
    });
}

/// A directory of the share whose files programs want events for.
fn watchable(guest: &Guest, name: &str) -> (std::path::PathBuf, Storage, String) {
    let source = guest.rootfs().join(name);
    std::fs::create_dir_all(&source).unwrap();
    let at = format!("{SHARE_ROOT}/watchable/{name}");
    let from = format!("{SHARE_ROOT}/rootfs/{name}");
    (source, storage("watchable-bind", &from, "bind", &[], &at), at)
}

#[test]
fn a_watchable_directory_follows_its_source() {
    test(async |guest| {
        let (source, watched, at) = watchable(guest, "config");
        std::fs::create_dir(source.join("..v1")).unwrap();
        std::fs::write(source.join("..v1/key"), "one").unwrap();
        std::os::unix::fs::symlink("..v1", source.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", source.join("key")).unwrap();
        let container = with(guest.container("c1").args(&["sleep", "1000"]), &[watched], &at).start().await;
        assert_eq!(container.sh("cat /vol/key; mount | grep ' /vol ' | cut -d ' ' -f 5").await, "onetmpfs");
        std::fs::create_dir(source.join("..v2")).unwrap();
        std::fs::write(source.join("..v2/key"), "two").unwrap();
        std::os::unix::fs::symlink("..v2", source.join("..new")).unwrap();
        std::fs::rename(source.join("..new"), source.join("..data")).unwrap();
        std::fs::remove_dir_all(source.join("..v1")).unwrap();
        let script = "for i in $(seq 100); do test $(cat /vol/key) = two && test ! -e /vol/..v1 && exit; sleep 0.2; done; exit 1";
        container.sh(script).await;
        container.remove().await;
        let look =
            guest.container("look").mount("/w", "bind", &format!("{SHARE_ROOT}/watchable"), &["rbind"]);
        assert_eq!(look.sh("test -e /w/config && echo left; true").run().await.ok(), "");
    });
}

#[test]
fn a_watchable_directory_that_is_large_is_shown_itself() {
    test(async |guest| {
        let (source, watched, at) = watchable(guest, "large");
        for number in 0..17 {
            std::fs::write(source.join(number.to_string()), "x").unwrap();
        }
        let container = with(guest.container("c1").args(&["sleep", "1000"]), &[watched], &at).start().await;
        assert_eq!(
            container.sh("ls /vol | wc -l; mount | grep ' /vol ' | grep -c tmpfs; true").await,
            "17\n0"
        );
        std::fs::write(source.join("new"), "at once").unwrap();
        assert_eq!(container.sh("cat /vol/new").await, "at once");
        container.remove().await;
        let (_, mut elsewhere, _) = watchable(guest, "elsewhere");
        elsewhere.mount_point = format!("{SANDBOX}/elsewhere");
        let refused = with(guest.container("c2"), &[elsewhere], SANDBOX).try_create().await;
        assert_eq!(code(&refused), Code::INTERNAL, "only known places take copies");
    });
}

#[test]
fn changes_in_memory_are_told_and_not_looked_for() {
    test(async |guest| {
        let memory = format!("{SHARE_ROOT}/in-memory");
        let at = format!("{SHARE_ROOT}/watchable/told");
        let storages = [
            storage("ephemeral", "tmpfs", "tmpfs", &[], &memory),
            storage("watchable-bind", &format!("{memory}/source"), "bind", &[], &at),
        ];
        // The first one keeps the file system there in which the source is made.
        let keeper =
            with(guest.container("c0").args(&["sleep", "1000"]), &storages[..1], &memory).start().await;
        keeper.sh("mkdir /vol/source; echo one > /vol/source/f").await;
        let container = with(guest.container("c1").args(&["sleep", "1000"]), &storages, &at).start().await;
        assert_eq!(container.sh("cat /vol/f").await, "one");
        keeper.sh("sleep 0.5; mkdir /vol/source/d; echo two > /vol/source/d/g").await;
        // Looking takes place every two seconds, and what is written right after one look waits for the next; events
        // come at once, also from a directory that was just made.
        let mut told = Vec::new();
        for round in 0..5 {
            keeper.sh(&format!("echo {round} > /vol/source/d/g")).await;
            let begun = Instant::now();
            let script = format!(
                "for i in $(seq 500); do test \"$(cat /vol/d/g)\" = {round} && exit; sleep 0.02; done; exit 1"
            );
            container.sh(&script).await;
            told.push(begun.elapsed());
        }
        told.sort_unstable();
        assert!(told[2] < Duration::from_millis(1500), "{told:?}");
    });
}

/// A host that does not answer keeps its own container waiting and nobody else, and what comes too late is undone.
#[test]
fn a_mount_that_hangs_is_its_own_containers_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let mut daemon = Daemon::start(&socket, &source);
    let chardev = format!("socket,id=stuck,path={}", socket.display());
    let boot =
        Boot::new().qemu(&["-chardev", &chardev, "-device", "vhost-user-fs-pci,chardev=stuck,tag=stuck"]);
    boot.test(async |guest| {
        daemon.signal(nix::sys::signal::Signal::SIGSTOP);
        let at = format!("{SANDBOX}/stuck");
        let mut share = storage("virtio-fs", "stuck", "virtiofs", &[], &at);
        // Giving it to a group needs an answer of the host's.
        share.fs_group = Some(FSGroup { group_id: 4711, ..Default::default() }).into();
        let hanging = with(guest.container("stuck"), &[share.clone()], &at);
        let given_up = tokio::time::timeout(Duration::from_secs(3), hanging.try_create()).await;
        assert!(given_up.is_err(), "{given_up:?}");

        let begun = Instant::now();
        guest.container("c1").sh("true").run().await.ok();
        let memory = storage("ephemeral", "tmpfs", "tmpfs", &[], &format!("{SANDBOX}/unstuck"));
        with(guest.container("c2").sh("touch /vol/f"), &[memory], &format!("{SANDBOX}/unstuck"))
            .run()
            .await
            .ok();
        assert!(begun.elapsed() < Duration::from_secs(20), "others wait too: {:?}", begun.elapsed());

        let mut id = String::new();
        drop(guest.container("stuck").request(|request| id.clone_from(&request.container_id)));
        guest.agent().remove_container(&id).await.unwrap();
        assert_eq!(guest.mounts("/stuck").await.len(), 1, "it is there until the host lets it go");
        daemon.signal(nix::sys::signal::Signal::SIGCONT);
        let begun = Instant::now();
        while !guest.mounts("/stuck").await.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is still there");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}

/// A virtiofsd of the test's own.
struct Daemon(std::process::Child);

impl Daemon {
    fn start(socket: &std::path::Path, source: &std::path::Path) -> Daemon {
        let mut command = std::process::Command::new("/usr/lib/qemu/virtiofsd");
        command
            .arg(format!("--socket-path={}", socket.display()))
            .args(["-f", "-o"])
            .arg(format!("source={}", source.display()));
        let child = command
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("virtiofsd comes with QEMU's packages");
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "virtiofsd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Daemon(child)
    }

    /// To all of it: the one that was started waits for a child that does the work.
    fn signal(&mut self, signal: nix::sys::signal::Signal) {
        for pid in children(self.0.id()).into_iter().chain([self.0.id()]) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
