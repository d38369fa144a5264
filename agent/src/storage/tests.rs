use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::plan::Work;
use super::*;
use crate::config::Config;
use crate::mountinfo;

fn storage(driver: &str, fstype: &str, options: &[&str]) -> Storage {
    Storage {
        driver: driver.into(),
        source: "src".into(),
        fstype: fstype.into(),
        options: options.iter().map(ToString::to_string).collect(),
        mount_point: "/run/x".into(),
        ..Default::default()
    }
}

fn at(storage: Storage, mount_point: &Path) -> Storage {
    Storage { mount_point: mount_point.display().to_string(), ..storage }
}

fn plan(storage: &Storage) -> Result<Plan, Error> {
    plan::all(std::slice::from_ref(storage), "c1").map(|mut plans| plans.remove(0))
}

/// Runs a test with a mount table and an event loop of its own. What the event loop starts on threads of its own has
/// the same table, because those threads are made by this one.
fn in_own_namespace<F: Future<Output = ()>>(test: impl FnOnce(PathBuf, Arc<Guest>) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let dir = std::env::temp_dir().join(format!(
            "husk-storage-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&dir).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(dir.clone(), Arc::new(Guest::new(Config::default()))).await });
        drop(runtime);
        // Nothing may be left, neither mounts nor directories.
        let left: Vec<_> =
            mountinfo::read().unwrap().into_iter().filter(|mount| mount.point.starts_with(&dir)).collect();
        assert!(left.is_empty(), "{left:?}");
        fs::remove_dir(&dir)
            .unwrap_or_else(|error| panic!("{error}: {:?}", fs::read_dir(&dir).unwrap().collect::<Vec<_>>()));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mounted(point: &Path) -> Option<String> {
    mountinfo::at(point).unwrap().map(|mount| mount.fstype)
}

/// WEAK: the peer's agent drops these options at the first mount.
#[test]
fn a_shm_storage_is_mounted_with_its_size() {
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"];
    let Work::Memory(memory) = plan(&storage("ephemeral", "tmpfs", &options)).unwrap().work else { panic!() };
    let mounting = memory.mounting;
    assert_eq!((mounting.source.as_str(), mounting.fstype.as_str()), ("src", "tmpfs"));
    assert_eq!(mounting.flags, MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    assert_eq!(mounting.data, "mode=1777,size=67108864");
}

#[test]
fn a_group_is_not_a_mount_option() {
    let Work::Memory(memory) = plan(&storage("ephemeral", "tmpfs", &["fsgid=1000"])).unwrap().work else {
        panic!()
    };
    assert_eq!(memory.mounting.data, "");
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let error = plan(&storage("floppy", "vfat", &[])).unwrap_err().to_string();
    assert_eq!(error, "storage \"/run/x\": driver: \"floppy\" is unknown");
    let error = plan(&storage("image_guest_pull", "overlay", &[])).unwrap_err().to_string();
    assert!(error.contains("UNIMPLEMENTED"), "{error}");
    for (storage, field) in [
        (storage("9p", "9p", &["loop"]), "options"),
        (storage("virtio-fs", "virtiofs", &["a\0b"]), "options"),
        (Storage { source: String::new(), ..storage("virtio-fs", "virtiofs", &[]) }, "source"),
        (storage("local", "local", &["mode=rwx"]), "options"),
        (storage("local", "local", &["mode=77777"]), "options"),
        (storage("local", "local", &["loop"]), "options"),
        (storage("local", "local", &["fsgid=staff"]), "options"),
        (storage("local", "local", &["fsgid=4294967295"]), "options"),
        (storage("local", "local", &["fsgid=-1"]), "options"),
        (storage("ephemeral", "ext4", &[]), "fstype"),
        (storage("blk", "ext4", &[]), "source"),
        (storage("bind", "bind", &["bind"]), "source"),
    ] {
        let error = plan(&storage).unwrap_err();
        assert!(matches!(&error, Error::Refused { field: named, .. } if *named == field), "{error}");
    }
    for mount_point in ["", "/", "run/x", "/run/../etc", "/run/\0", "//", "/./"] {
        let storage = Storage { mount_point: mount_point.into(), ..storage("local", "local", &[]) };
        let error = plan(&storage).unwrap_err();
        assert!(matches!(error, Error::Refused { field: "mount_point", .. }), "{mount_point:?}: {error}");
    }
}

#[test]
fn every_driver_is_planned_and_listed() {
    for driver in DRIVERS {
        let error = plan(&storage(driver, "x", &[]));
        assert!(!matches!(error, Err(Error::Driver { .. })), "{driver}");
    }
    assert!(DRIVERS.is_sorted());
}

#[test]
fn the_same_mount_point_is_one_however_it_is_written() {
    let one = plan(&at(storage("local", "local", &[]), Path::new("/run//x/"))).unwrap();
    assert_eq!(one.target, Path::new("/run/x"));
}

#[test]
fn layers_of_one_root_are_one_storage() {
    let layer = |source: &str, fstype: &str| Storage {
        source: source.into(),
        ..storage("mmioblk", fstype, &["X-kata.multi-layer=true"])
    };
    let plans = plan::all(
        &[layer("/dev/vda", "ext4"), layer("/dev/vdb", "erofs"), storage("local", "local", &[])],
        "c1",
    );
    assert_eq!(plans.unwrap().len(), 2);
}

#[test]
fn a_failing_storage_leaves_nothing_behind() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let local = at(storage("local", "local", &["mode=0700"]), &dir.join("a/b/local"));
        let memory = at(storage("ephemeral", "tmpfs", &["size=1m"]), &dir.join("c/memory"));
        // A tmpfs that the kernel refuses, after its mount point was made.
        let bad = at(storage("ephemeral", "tmpfs", &["size=what"]), &dir.join("d/e/f"));
        let error = storages.acquire(&guest, "c1", &[local, memory, bad]).await.unwrap_err().to_string();
        assert!(error.contains("d/e/f") && error.contains("size=what"), "{error}");
        assert!(storages.entries().is_empty());
    });
}

#[test]
fn references_are_counted_and_the_last_one_undoes() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let point = dir.join("memory");
        let memory = at(storage("ephemeral", "tmpfs", &["size=1m", "mode=700"]), &point);
        let first = storages.acquire(&guest, "c1", &[memory.clone(), memory.clone()]).await.unwrap();
        fs::write(point.join("file"), "kept").unwrap();
        let second = storages.acquire(&guest, "c2", &[memory]).await.unwrap();
        assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "kept", "it is the same one");
        storages.release(first).await;
        assert_eq!(mounted(&point).as_deref(), Some("tmpfs"));
        storages.release(second).await;
        assert_eq!(mounted(&point), None);
    });
}

#[test]
fn a_shared_storage_stays_until_the_end() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let point = dir.join("memory");
        let memory = Storage { shared: true, ..at(storage("ephemeral", "tmpfs", &[]), &point) };
        for _ in 0..2 {
            let held = storages.acquire(&guest, "c1", std::slice::from_ref(&memory)).await.unwrap();
            storages.release(held).await;
            assert_eq!(mounted(&point).as_deref(), Some("tmpfs"));
        }
        storages.clear().await;
        assert_eq!(mounted(&point), None);
        let bad = Storage { shared: true, ..at(storage("ephemeral", "tmpfs", &["size=x"]), &point) };
        storages.acquire(&guest, "c1", &[bad]).await.unwrap_err();
        assert!(storages.entries().is_empty(), "what was never there is not kept");
    });
}

#[test]
fn an_existing_mount_of_the_same_kind_is_taken_and_left() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let point = dir.join("memory");
        fs::create_dir(&point).unwrap();
        mount(Some("mine"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let memory = at(storage("ephemeral", "tmpfs", &[]), &point);
        let held = storages.acquire(&guest, "c1", &[memory]).await.unwrap();
        storages.release(held).await;
        assert_eq!(mounted(&point).as_deref(), Some("tmpfs"));
        nix::mount::umount(&point).unwrap();
        assert_eq!(mounted(&point), None, "there was one mount, not two");
        fs::remove_dir(&point).unwrap();
    });
}

#[test]
fn a_link_on_the_way_to_a_mount_point_is_refused() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        std::os::unix::fs::symlink("/tmp", dir.join("link")).unwrap();
        for path in ["link", "link/below"] {
            let memory = at(storage("ephemeral", "tmpfs", &[]), &dir.join(path));
            storages.acquire(&guest, "c1", &[memory]).await.unwrap_err();
        }
        fs::remove_file(dir.join("link")).unwrap();
    });
}

#[test]
fn binds_show_directories_and_files_with_their_flags() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        fs::create_dir(dir.join("source")).unwrap();
        fs::write(dir.join("source/file"), "content").unwrap();
        let bind = |source: &str, point: &str| Storage {
            source: dir.join(source).display().to_string(),
            ..at(storage("bind", "bind", &["rbind", "ro", "nosuid"]), &dir.join(point))
        };
        let held = storages
            .acquire(&guest, "c1", &[bind("source", "all"), bind("source/file", "one")])
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(dir.join("all/file")).unwrap(), "content");
        assert_eq!(fs::read_to_string(dir.join("one")).unwrap(), "content");
        let error = fs::write(dir.join("all/file"), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS));
        storages.release(held).await;
        assert!(!dir.join("all").exists() && !dir.join("one").exists());
        fs::remove_dir_all(dir.join("source")).unwrap();
    });
}

#[test]
fn a_local_volume_keeps_its_files_for_the_next_container() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let local = at(storage("local", "local", &["mode=0777", "fsgid=4711"]), &dir.join("vol"));
        let held = storages.acquire(&guest, "c1", std::slice::from_ref(&local)).await.unwrap();
        let found = fs::metadata(dir.join("vol")).unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (0o2777, 4711));
        fs::write(dir.join("vol/file"), "").unwrap();
        storages.release(held).await;
        let held = storages.acquire(&guest, "c2", &[local]).await.unwrap();
        fs::remove_file(dir.join("vol/file")).unwrap();
        storages.release(held).await;
        // The second found the directory, so it is nobody's to remove.
        fs::remove_dir(dir.join("vol")).unwrap();
    });
}

/// TRAP: a caller names the size alone, and the flags of the first mount must survive.
#[test]
fn an_update_changes_the_size_and_nothing_else() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let point = dir.join("shm");
        let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"];
        let shm = at(storage("ephemeral", "tmpfs", &options), &point);
        let held = storages.acquire(&guest, "sandbox", &[shm]).await.unwrap();
        let update = at(storage("ephemeral", "tmpfs", &["remount", "size=2M", "fsgid=4711"]), &point);
        update_ephemeral(vec![update.clone()]).await.unwrap();
        let now = nix::sys::statvfs::statvfs(&point).unwrap();
        assert_eq!(now.blocks() * now.fragment_size(), 2 << 20);
        use nix::sys::statvfs::FsFlags;
        assert!(now.flags().contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC));
        let found = fs::metadata(&point).unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (0o3777, 4711));

        update_ephemeral(Vec::new()).await.unwrap();
        for (bad, field) in [
            (Storage { driver: "blk".into(), ..update.clone() }, "driver"),
            (Storage { fstype: "ext4".into(), ..update.clone() }, "fstype"),
            (Storage { mount_point: "../x".into(), ..update.clone() }, "mount_point"),
        ] {
            let error = update_ephemeral(vec![bad]).await.unwrap_err();
            assert!(matches!(&error, Error::Refused { field: named, .. } if *named == field), "{error}");
        }
        let elsewhere = Storage { mount_point: "/proc".into(), ..update };
        assert!(update_ephemeral(vec![elsewhere]).await.unwrap_err().to_string().contains("no tmpfs"));
        storages.release(held).await;
    });
}

/// Whoever gives up does not leave behind what comes about later.
#[test]
fn what_comes_too_late_is_undone() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        let point = dir.join("memory");
        let memory = at(storage("ephemeral", "tmpfs", &[]), &point);
        // Somebody is busy with that mount point for a while.
        let made = storages.add_reference(&point, false);
        let busy = made.lock().await;
        let wanted = [memory];
        let acquiring = storages.acquire(&guest, "c1", &wanted);
        assert!(tokio::time::timeout(Duration::from_millis(50), acquiring).await.is_err());
        drop(busy);
        storages.release_all(vec![point.clone()]).await;
        for _ in 0..500 {
            if storages.entries().is_empty() && mounted(&point).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is still there");
    });
}

#[test]
fn an_overlay_is_laid_and_what_was_written_to_it_goes() {
    in_own_namespace(async |dir, guest| {
        let storages = Storages::default();
        // The layers lie on a tmpfs: an overlay cannot write to another overlay, which a test's host may be.
        let base = dir.join("base");
        fs::create_dir(&base).unwrap();
        mount(Some("base"), &base, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::create_dir(base.join("lower")).unwrap();
        fs::write(base.join("lower/file"), "lower").unwrap();
        let create = "io.katacontainers.volume.overlayfs.create_directory=";
        let overlay = Storage {
            source: "overlay".into(),
            driver_options: ["upper", "work"]
                .map(|name| format!("{create}{}", base.join(name).display()))
                .into(),
            ..at(
                storage(
                    "overlayfs",
                    "overlay",
                    &[
                        &format!("lowerdir={}", base.join("lower").display()),
                        &format!("upperdir={}", base.join("upper").display()),
                        &format!("workdir={}", base.join("work").display()),
                        "index=off",
                    ],
                ),
                &dir.join("root"),
            )
        };
        let held = storages.acquire(&guest, "c1", &[overlay]).await.unwrap();
        assert_eq!(fs::read_to_string(dir.join("root/file")).unwrap(), "lower");
        fs::write(dir.join("root/file"), "changed").unwrap();
        assert_eq!(fs::read_to_string(base.join("lower/file")).unwrap(), "lower");
        storages.release(held).await;
        assert_eq!(mounted(&dir.join("root")), None);
        nix::mount::umount(&base).unwrap();
        fs::remove_dir(&base).unwrap();
    });
}

#[test]
fn a_watched_copy_follows_the_events_of_its_source() {
    in_own_namespace(async |_, guest| {
        let storages = Storages::default();
        // Nobody else sees this.
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let share = Path::new(agent_api::paths::SHARE_ROOT);
        let (source, copy) = (share.join("source"), share.join("watchable/copy"));
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("file"), "one").unwrap();
        let watched = Storage {
            source: source.display().to_string(),
            ..at(storage("watchable-bind", "bind", &[]), &copy)
        };
        let held = storages.acquire(&guest, "c1", &[watched]).await.unwrap();
        assert_eq!(fs::read_to_string(copy.join("file")).unwrap(), "one");
        let begun = std::time::Instant::now();
        for (path, content) in [("file", "two"), ("new/deep/file", "three"), ("new/deep/file", "four")] {
            fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
            fs::write(source.join(path), content).unwrap();
            while fs::read_to_string(copy.join(path)).ok().as_deref() != Some(content) {
                // Without events it would be looked at after two seconds, each time.
                assert!(begun.elapsed() < Duration::from_secs(4), "{path} is not {content}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        storages.release(held).await;
        assert!(!copy.exists());
        fs::write(source.join("file"), "nobody follows").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!copy.exists());
        assert_eq!(mounted(&share.join("watchable")).as_deref(), Some("tmpfs"));
        storages.clear().await;
        assert_eq!(mounted(&share.join("watchable")), None);
        nix::mount::umount2("/run", nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_parent_of_several_goes_with_the_last_of_them() {
    in_own_namespace(|dir, guest| async move {
        let storages = Storages::default();
        let local = |name: &str| [at(storage("local", "local", &[]), &dir.join("parent").join(name))];
        let first = storages.acquire(&guest, "c1", &local("a")).await.unwrap();
        let second = storages.acquire(&guest, "c2", &local("b")).await.unwrap();
        storages.release(first).await;
        assert!(dir.join("parent/b").is_dir() && !dir.join("parent/a").exists());
        storages.release(second).await;
        assert!(!dir.join("parent").exists());
        assert!(storages.kept.lock().unwrap().is_empty());
    });
}
