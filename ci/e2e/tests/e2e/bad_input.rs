//! What `husk` says and leaves behind when it cannot do what it was asked for: one line, a code, nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use e2e::Cli;

/// husk's own failures.
const OURS: i32 = 125;

#[test]
fn an_image_that_is_not_there() {
    Cli::test(async |cli| {
        let run =
            async |image: &str| cli.husk(&["run", "--rm", "--image", image, "c1", "--", "true"]).run().await;
        run("oci:/no/such/layout").await.complains(OURS, &["image", "/no/such/layout", "o such file"]);
        run("nonsense").await.complains(OURS, &["nonsense"]);
        let unknown = format!("{}:nosuchref", cli.image());
        run(&unknown).await.complains(OURS, &["image", "nosuchref"]);
        cli.nothing_is_left().await;
        let rootfs =
            cli.husk(&["run", "--rm", "--rootfs", "/no/such/rootfs", "c1", "--", "true"]).run().await;
        rootfs.complains(OURS, &["/no/such/rootfs", "o such file"]);
    });
}

#[test]
fn a_layer_that_is_not_what_its_digest_says() {
    Cli::test(async |cli| {
        let layout = cli.dir().join("layout");
        copy_tree(&cli.settings().image, &layout);
        let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
        // The layer is the largest blob.
        let layer = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let mut bytes = fs::read(&layer).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&layer, &bytes).unwrap();
        let image = format!("oci:{}", layout.display());
        let digest = layer.file_name().unwrap().to_str().unwrap();
        let done = cli.husk(&["run", "--rm", "--image", &image, "c1", "--", "true"]).run().await;
        done.complains(OURS, &["image", digest]);
        cli.nothing_is_left().await;
        bytes.truncate(middle);
        fs::write(&layer, &bytes).unwrap();
        let done = cli.husk(&["run", "--rm", "--image", &image, "c1", "--", "true"]).run().await;
        done.complains(OURS, &["image", digest]);
    });
}

#[test]
fn artefacts_that_are_not_there() {
    Cli::test(async |cli| {
        let set = cli.dir().join("artefacts");
        let run = async || cli.run(&[], &["true"]).env("HUSK_ARTEFACTS", &set).run().await;
        run().await.complains(OURS, &["artefacts", "manifest.json", "o such file"]);
        copy_tree(&cli.settings().artefacts, &set);
        fs::remove_file(set.join("vmlinux")).unwrap();
        run().await.complains(OURS, &["artefacts", "vmlinux", "o such file"]);
        fs::write(set.join("vmlinux"), "short").unwrap();
        run().await.complains(OURS, &["artefacts", "vmlinux", "5 bytes"]);
        fs::write(set.join("manifest.json"), "{").unwrap();
        run().await.complains(OURS, &["artefacts", "manifest.json"]);
    });
}

#[test]
fn numbers_and_names_that_cannot_be() {
    Cli::test(async |cli| {
        cli.run(&["--memory", "1M"], &["true"]).run().await.complains(OURS, &["memory", "1M"]);
        cli.run(&["--memory", "lots"], &["true"]).run().await.complains(OURS, &["memory", "lots"]);
        cli.run(&["--cpus", "0"], &["true"]).run().await.complains(OURS, &["cpus", "0"]);
        cli.run(&["--env", "=x"], &["true"]).run().await.complains(OURS, &["env"]);
        cli.run(&["--workdir", "tmp"], &["true"]).run().await.complains(OURS, &["workdir"]);
        cli.run(&["--nosuchflag"], &["true"]).run().await.complains(OURS, &["nosuchflag"]);
        let image = cli.image();
        cli.husk(&["run", "--rm", "--image", &image, "../up", "--", "true"])
            .run()
            .await
            .complains(OURS, &["../up"]);
        cli.husk(&["exec", "nobody", "--", "true"])
            .run()
            .await
            .complains(OURS, &["nobody", "no such container"]);
        cli.husk(&["kill", "nobody"]).run().await.complains(OURS, &["nobody", "no such container"]);
        cli.husk(&["kill", "nobody", "NOSIG"]).run().await.complains(OURS, &["NOSIG"]);
    });
}

#[test]
fn a_user_that_the_container_does_not_know() {
    Cli::test(async |cli| {
        cli.run(&["--user", "nosuchuser"], &["true"]).run().await.complains(OURS, &["nosuchuser"]);
    });
}

#[test]
fn a_name_in_use() {
    Cli::test(async |cli| {
        let running = cli.start(cli.run(&[], &["sleep", "1000"])).await;
        cli.run(&[], &["true"]).run().await.complains(OURS, &["c1", "in use", "running"]);
        assert_eq!(cli.husk(&["exec", "c1", "--", "echo", "unharmed"]).run().await.ok(), "unharmed");
        cli.husk(&["kill", "c1", "KILL"]).run().await.ok();
        assert_eq!(running.ended().await.status, 137);
    });
}

#[test]
fn no_qemu() {
    Cli::test(async |cli| {
        let empty = cli.dir().join("bin");
        fs::create_dir(&empty).unwrap();
        cli.run(&[], &["true"]).env("PATH", &empty).run().await.complains(OURS, &["qemu", "not found"]);
    });
}

#[test]
fn a_qemu_that_dies_at_once() {
    Cli::test(async |cli| {
        let path = instead_of_qemu(cli, "echo 'qemu: no can do' >&2; exit 1");
        cli.run(&[], &["true"])
            .env("PATH", path)
            .run()
            .await
            .complains(OURS, &["qemu", "no can do", "status 1"]);
    });
}

#[test]
fn a_qemu_that_is_killed_by_a_signal() {
    Cli::test(async |cli| {
        let path = instead_of_qemu(cli, "kill -SEGV $$");
        cli.run(&[], &["true"]).env("PATH", path).run().await.complains(OURS, &["qemu", "SIGSEGV"]);
    });
}

#[test]
fn a_guest_that_panics() {
    Cli::test(async |cli| {
        let done = cli.run(&["--kernel-arg", "rdinit=/no/such/init"], &["true"]).run().await;
        done.complains(OURS, &["boot", "guest panicked", "Kernel panic"]);
        cli.nothing_is_left().await;
        // An initial ramdisk of garbage, described truly by its manifest.
        let set = cli.dir().join("artefacts");
        copy_tree(&cli.settings().artefacts, &set);
        let manifest = fs::read_to_string(set.join("manifest.json")).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let images = manifest["images"].as_array_mut().unwrap();
        let initrd = images.iter_mut().find(|image| image["format"] == "initrd").unwrap();
        let file = initrd["artefact"]["file"].as_str().unwrap().to_string();
        fs::write(set.join(file), "garbage").unwrap();
        initrd["artefact"]["size"] = 7.into();
        fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
        let done = cli.run(&[], &["true"]).env("HUSK_ARTEFACTS", &set).run().await;
        done.complains(OURS, &["boot", "guest panicked", "Kernel panic"]);
    });
}

#[test]
fn a_guest_that_panics_while_it_runs() {
    Cli::test(async |cli| {
        let mut running = cli.run(&[], &["sh", "-c", "echo up; exec sleep 1000"]).start();
        running.read_until("up").await;
        // What a host's operator would see when a guest dies: the process is gone in the middle of everything.
        let qemu = cli.process_of("qemu-system").expect("it runs");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), nix::sys::signal::Signal::SIGKILL).unwrap();
        let ended = running.ended().await;
        assert_eq!(ended.status, OURS, "{ended:?}");
        assert!(ended.stderr.contains("qemu") && ended.stderr.contains("SIGKILL"), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    });
}

/// A PATH on which QEMU is this script, and everything else is as ever.
fn instead_of_qemu(cli: &Cli, script: &str) -> std::ffi::OsString {
    let bin = cli.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let fake = bin.join("fake");
    fs::write(&fake, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    for arch in ["x86_64", "aarch64", "s390x", "ppc64", "riscv64"] {
        symlink(&fake, bin.join(format!("qemu-system-{arch}"))).unwrap();
    }
    let old = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&old))).unwrap()
}

fn copy_tree(from: &Path, to: &PathBuf) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
