//! Volumes that are there: how full they are, making them larger. And a container's last words.

use std::time::{Duration, Instant};

use agent_api::csi::volume_usage::Unit;
use agent_api::paths::SHARE_ROOT;
use e2e::{Boot, Disk, Guest, storage, test};
use ttrpc::Code;

const VOLUMES: &str = "/run/kata-containers/sandbox/storage";

fn refusal<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().into()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_volume_tells_how_full_it_is() {
    test(async |guest| {
        let at = "/run/kata-containers/sandbox/ephemeral/stats";
        let memory = storage("ephemeral", "tmpfs", "tmpfs", &["size=8m", "nr_inodes=100"], at);
        let container = guest.container("c1").args(&["sleep", "1000"]);
        let container = container.request(|request| request.storages = vec![memory]);
        let container = container.mount("/vol", "bind", at, &["rbind"]).start().await;
        container.sh("head -c 1048576 /dev/zero > /vol/file").await;
        let answer = guest.volume_stats(at).await.unwrap();
        let [bytes, inodes] = &answer.usage[..] else { panic!("{answer:?}") };
        assert_eq!((bytes.unit.enum_value(), inodes.unit.enum_value()), (Ok(Unit::BYTES), Ok(Unit::INODES)));
        assert_eq!((bytes.total, bytes.used, bytes.available), (8 << 20, 1 << 20, 7 << 20));
        assert_eq!((inodes.total, inodes.used, inodes.available), (100, 2, 98));
        let condition = &answer.volume_condition;
        assert_eq!((condition.abnormal, condition.message.as_str()), (false, "OK"));
        for path in ["", "vol", "/no/such/volume", "/run/../etc"] {
            let (code, message) = refusal(guest.volume_stats(path).await);
            assert_eq!(code, Code::INTERNAL, "{path:?}: {message}");
        }
    });
}

#[test]
fn volumes_grow_with_their_disks() {
    let (ext4, xfs) = (Disk::ext4(64), Disk::xfs(320));
    Boot::new().disk(&ext4).disk(&xfs).test(async |guest| {
        for (disk, source, fstype, from, to) in
            [("disk0", "10", "ext4", 64, 128), ("disk1", "11", "xfs", 320, 448)]
        {
            let at = format!("{VOLUMES}/{fstype}");
            let volume = storage("blk", source, fstype, &[], &at);
            let container = guest.container("c1").args(&["sleep", "1000"]);
            let container = container.request(|request| request.storages = vec![volume]);
            let container = container.mount("/vol", "bind", &at, &["rbind"]).start().await;
            container.sh("echo kept > /vol/file").await;
            let total = async || guest.volume_stats(&at).await.unwrap().usage[0].total >> 20;
            let before = total().await;
            assert!(before <= from && before > from * 3 / 4, "{before} MiB");

            let (code, message) = refusal(guest.resize_volume(&at, to << 20).await);
            assert!(code == Code::INTERNAL && message.contains("size"), "the disk has not grown: {message}");
            resize_disk(guest, disk, to << 20).await;
            guest.resize_volume(&at, to << 20).await.unwrap();
            let after = total().await;
            assert!(after > before + (to - from) * 3 / 4, "{fstype}: {before} MiB, then {after}");
            assert_eq!(container.sh("cat /vol/file").await, "kept");
            let (code, message) = refusal(guest.resize_volume(&at, from << 20).await);
            assert!(code == Code::INTERNAL && message.contains("larger"), "{message}");

            resize_disk(guest, disk, (to + 64) << 20).await;
            // All there is: which the guest hears of a moment after QEMU has answered.
            let begun = Instant::now();
            loop {
                guest.resize_volume(&at, 0).await.unwrap();
                if total().await > after {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(10), "no size means all there is");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            container.remove().await;
        }
        for (path, word) in [("/proc", "cannot grow"), ("", "volume_guest_path"), ("/no/such", "open")] {
            let (code, message) = refusal(guest.resize_volume(path, 1 << 20).await);
            assert!(code == Code::INTERNAL && message.contains(word), "{path:?}: {message}");
        }
    });
}

async fn resize_disk(guest: &Guest, disk: &str, bytes: u64) {
    guest.qmp("block_resize", serde_json::json!({ "device": disk, "size": bytes })).await;
}

/// TRAP: only one type of data is known, and a file that is not there is no error.
#[test]
fn a_containers_last_words_are_read_and_nothing_else() {
    test(async |guest| {
        let name = "words-0123456789abcdef-termination-log";
        let host = guest.rootfs().parent().unwrap().join(name);
        std::fs::write(&host, "").unwrap();
        let container =
            guest.container("c1").sh("printf 'it was \\377 me' > /dev/termination-log; exec sleep 1000");
        let container = container
            .mount("/dev/termination-log", "bind", &format!("{SHARE_ROOT}/{name}"), &["bind"])
            .start()
            .await;
        while std::fs::read(&host).unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let words = guest.diagnostic_data(container.id(), "termination_log").await.unwrap();
        assert_eq!(words, "it was \u{fffd} me");
        std::fs::write(&host, "x".repeat(5000)).unwrap();
        assert_eq!(guest.diagnostic_data(container.id(), "termination_log").await.unwrap().len(), 4096);
        let (code, message) = refusal(guest.diagnostic_data(container.id(), "dmesg").await);
        assert!(code == Code::INVALID_ARGUMENT && message.contains("log_type"), "{message}");
        assert_eq!(
            refusal(guest.diagnostic_data("no-such", "termination_log").await).0,
            Code::INVALID_ARGUMENT
        );

        // Another place, in the container's own root; and one that leads out of it.
        let place = |path: &'static str| {
            let key = "io.kubernetes.container.terminationMessagePath".to_string();
            move |spec: &mut agent_api::oci::Spec| drop(spec.Annotations.insert(key, path.into()))
        };
        let own = guest
            .container("c2")
            .sh("echo own > /words; exec sleep 1000")
            .spec(place("/words"))
            .start()
            .await;
        let mut words = String::new();
        while words.is_empty() {
            words = guest.diagnostic_data(own.id(), "termination_log").await.unwrap();
        }
        assert_eq!(words, "own\n");
        own.sh("rm /words; ln -s /proc/1/environ /words").await;
        assert_eq!(guest.diagnostic_data(own.id(), "termination_log").await.unwrap(), "");
        own.sh("rm /words; mkfifo /words").await;
        assert_eq!(refusal(guest.diagnostic_data(own.id(), "termination_log").await).0, Code::INTERNAL);
        own.sh("rm /words").await;
        assert_eq!(guest.diagnostic_data(own.id(), "termination_log").await.unwrap(), "");
    });
}
