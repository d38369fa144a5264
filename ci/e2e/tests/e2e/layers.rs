//! Root file systems of read-only layers, their hashes, and encrypted volumes: devices on top of devices.

use std::path::Path;

use agent_api::agent::Storage;
use e2e::{Boot, ContainerBuilder, Disk, Guest, Layer, code, partitioned, storage};
use ttrpc::Code;

/// A layer of the root file system of container `id`.
fn layer(id: &str, source: &str, fstype: &str, options: &[&str], more: Vec<String>) -> Storage {
    let mut layer = storage("blk", source, fstype, options, &format!("/run/kata-containers/{id}/rootfs"));
    layer.options.push("X-kata.multi-layer=true".into());
    layer.options.extend(more);
    layer
}

/// A container that sees its layers at `/vol`: they hold too little to be a root.
fn over<'g>(guest: &'g Guest, id: &str, layers: Vec<Storage>) -> ContainerBuilder<'g> {
    let at = format!("/run/kata-containers/{id}/rootfs");
    let container = guest.container("c").mount("/vol", "bind", &at, &["rbind", "rw"]);
    container.request(|request| {
        request.container_id = id.into();
        request.storages = layers;
    })
}

/// That neither mounts nor mapped devices are left.
async fn assert_nothing_is_left(guest: &Guest, id: &str) {
    assert_eq!(guest.mounts(id).await, [""; 0]);
    let mapped = guest.container("look").sh("ls /sys/block | grep dm-").run().await;
    assert_eq!(mapped.text(), "", "a mapped device");
}

#[test]
fn layers_are_checked_and_the_lower_number_is_on_top() {
    let top = Layer::new(&[("file", b"top"), ("only-top", b"1")]).with_hashes();
    let bottom = Layer::new(&[("file", b"bottom"), ("only-bottom", b"2")]).with_hashes();
    let (upper, lowers) = (Disk::ext4(32), Disk::with(&partitioned(&[&top.bytes, &bottom.bytes])));
    Boot::new().disk(&upper).disk(&lowers).test(async |guest| {
        let id = "layers-1";
        let part = |number: u32, layer_of: &Layer| {
            let mut options = layer_of.check_options();
            options
                .extend(["X-kata.gpt-partitioned=true".into(), format!("X-kata.partition-number={number}")]);
            layer(id, "11", "erofs", &["ro", "X-kata.overlay-lower"], options)
        };
        let directories = ["{{ mount 0 }}/upper:755", "{{ mount 0 }}/upper/made:1777"];
        let directories = directories.map(|path| format!("X-kata.mkdir.path={path}")).into();
        let layers = vec![
            part(2, &bottom),
            layer(id, "10", "ext4", &["rw", "X-kata.overlay-upper"], directories),
            part(1, &top),
        ];
        let script = "cd /vol; cat file only-top only-bottom; echo new > file; cat file; stat -c %a made";
        assert_eq!(over(guest, id, layers.clone()).sh(script).run().await.ok(), "top12new\n1777");
        assert_nothing_is_left(guest, id).await;
        let again = over(guest, id, layers.clone()).sh("cat /vol/file").run().await.ok();
        assert_eq!(again, "new", "the upper layer is a disk, and keeps what was written");

        let mut wrong = part(1, &bottom);
        wrong.options.retain(|option| !option.contains("partition-number"));
        let number = "X-kata.partition-number=9".to_string();
        wrong.options.push(number);
        let refused = over(guest, id, vec![wrong]).try_create().await;
        assert_eq!(code(&refused), Code::INTERNAL);
        assert!(refused.unwrap_err().to_string().contains("partition 9"));
        assert_nothing_is_left(guest, id).await;
    });
}

/// A layer with its hashes, and the same with one byte of a file changed.
pub(crate) fn whole_and_flipped() -> (Layer, Layer) {
    let content = crate::noise(64 << 10).next_chunk(64 << 10).unwrap();
    let whole = Layer::new(&[("file", &content), ("other", b"fine")]).with_hashes();
    let mut flipped = whole.clone();
    let at = flipped.bytes.windows(64).position(|window| window == &content[32 << 10..][..64]).unwrap();
    flipped.bytes[at] ^= 1;
    (whole, flipped)
}

#[test]
fn what_does_not_fit_its_hash_is_not_read() {
    let (whole, flipped) = whole_and_flipped();
    let (good, bad) = (Disk::with(&whole.bytes), Disk::with(&flipped.bytes));
    Boot::new().disk(&good).disk(&bad).test(async |guest| {
        let id = "layers-2";
        let lower = |source: &str, options: Vec<String>| {
            vec![layer(id, source, "erofs", &["X-kata.overlay-lower"], options)]
        };
        let script =
            "cat /vol/other; cat /vol/file > /dev/null && echo read; echo written > /vol/new && cat /vol/new";
        // Without a disk to write to, a directory of the guest takes it.
        let said = over(guest, id, lower("10", whole.check_options())).sh(script).run().await.ok();
        assert_eq!(said, "fineread\nwritten");
        assert_nothing_is_left(guest, id).await;
        let said = over(guest, id, lower("11", whole.check_options())).sh(script).run().await;
        assert_eq!(said.text(), "finewritten", "one byte is another, and its block is not read");
        let complaint = said.error_text();
        assert!(complaint.contains("I/O error") || complaint.contains("Input/output error"), "{complaint}");
        assert_nothing_is_left(guest, id).await;
        let unchecked = over(guest, id, lower("11", Vec::new())).sh(script).run().await.ok();
        assert_eq!(unchecked, "fineread\nwritten", "nobody asked");

        let mut other = whole.clone();
        other.root_hash = "ab".repeat(32);
        let refused = over(guest, id, lower("10", other.check_options())).try_create().await;
        assert_eq!(code(&refused), Code::INTERNAL, "another root hash");
        assert_nothing_is_left(guest, id).await;
        let mut worse = whole.check_options();
        worse.push("X-kata.dmverity.salt=00 1 restart_on_corruption".into());
        let refused = over(guest, id, lower("10", worse)).try_create().await;
        assert!(refused.unwrap_err().to_string().contains("options"));
    });
}

#[test]
fn a_file_system_is_made_on_request_and_encrypted_with_nobodys_key() {
    let (plain, secret) = (Disk::new(32), Disk::new(32));
    Boot::new().disk(&plain).disk(&secret).test(async |guest| {
        let at = "/run/kata-containers/sandbox/storage/made";
        let volume = |source: &str, options: &[&str]| Storage {
            driver_options: options.iter().map(ToString::to_string).collect(),
            ..storage("blk", source, "ext4", &[], at)
        };
        let with = |volume: Storage, script: &str| {
            let container = guest.container("c1").sh(script).mount("/vol", "bind", at, &["rbind"]);
            container.request(|request| request.storages = vec![volume])
        };
        let encrypted = ["create_filesystem", "encryption_key=ephemeral"];
        let refused = with(volume("11", &encrypted), "true").try_create().await;
        assert_eq!(code(&refused), Code::INTERNAL, "this guest has no mkfs");
        assert!(refused.unwrap_err().to_string().contains("mkfs.ext4"));
        assert_nothing_is_left(guest, "storage/made").await;

        give_mkfs(guest).await;
        let marker = "a marker that is found on a disk";
        let script =
            format!("for i in $(seq 2000); do echo '{marker}'; done > /vol/file; sync; tail -n 1 /vol/file");
        for (source, options) in [("10", &encrypted[..1]), ("11", &encrypted[..])] {
            assert_eq!(with(volume(source, options), &script).run().await.ok(), marker);
            assert_nothing_is_left(guest, "storage/made").await;
        }
        let holds = |disk: &Disk| {
            let bytes = std::fs::read(disk.path()).unwrap();
            bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
        };
        assert!(holds(&plain), "it is on the disk");
        assert!(!holds(&secret), "but not for everybody to read");
        let refused = with(volume("11", &encrypted[1..]), "true").try_create().await;
        assert!(refused.unwrap_err().to_string().contains("create_filesystem"));
    });
}

/// Puts the host's mkfs.ext4 and its libraries into the guest, at the same paths.
async fn give_mkfs(guest: &Guest) {
    let program =
        ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].into_iter().find(|path| Path::new(path).exists());
    let program = program.expect("e2fsprogs is among the packages of the tests");
    let listed = std::process::Command::new("ldd").arg(program).output().expect("ldd comes with the libc");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let copy = guest.rootfs().join("stage").join(&file[1..]);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
    let put = "cd /stage; find . -type f | while read f; do mkdir -p /guest/${f%/*}; cp $f /guest/$f; chmod 755 /guest/$f; done";
    guest.container("stage").privileged().sh(put).mount("/guest", "bind", "/", &["bind"]).run().await.ok();
}
