//! Files the host sends.

use agent_api::agent::CopyFileRequest;
use agent_api::paths::SHARE_ROOT;
use e2e::{Guest, test};
use ttrpc::Code;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

fn file(path: &str, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: format!("{SHARE_ROOT}/{path}"),
        file_size: data.len() as i64,
        file_mode: S_IFREG | 0o640,
        data: data.to_vec(),
        ..Default::default()
    }
}

/// What a container sees of the share.
async fn look(guest: &Guest, script: &str) -> String {
    guest
        .container("look")
        .privileged()
        .sh(script)
        .mount("/share", "bind", SHARE_ROOT, &["rbind"])
        .run()
        .await
        .ok()
}

#[test]
fn files_directories_and_links_arrive_as_they_are_sent() {
    test(async |guest| {
        let sent = CopyFileRequest { uid: 1000, gid: 1001, ..file("copied/a/file", b"content") };
        guest.copy_file(&sent).await.unwrap();
        let directory = CopyFileRequest {
            file_mode: S_IFDIR | 0o2750,
            dir_mode: 1 << 31 | 0o700,
            ..file("copied/d", b"")
        };
        guest.copy_file(&directory).await.unwrap();
        guest
            .copy_file(&CopyFileRequest { file_mode: S_IFLNK | 0o777, ..file("copied/l", b"a/file") })
            .await
            .unwrap();
        guest.copy_file(&file("copied/empty", b"")).await.unwrap();
        let script = "cd /share/copied; cat l; stat -c ' %n %a %u:%g' a a/file d empty";
        // TRAP: one of the peers sends a dir_mode of zero with files.
        let seen = look(guest, script).await;
        assert_eq!(seen, "content a 755 1000:1001\n a/file 640 1000:1001\n d 2750 0:0\n empty 640 0:0");
    });
}

#[test]
fn a_large_file_comes_in_chunks() {
    test(async |guest| {
        let mut noise = crate::noise(2 * (1 << 20) + 4711);
        let mut whole = Vec::new();
        while let Some(chunk) = noise.next_chunk(1 << 20) {
            whole.extend(chunk);
        }
        for (number, chunk) in whole.chunks(1 << 20).enumerate() {
            let offset = (number << 20) as i64;
            let request = CopyFileRequest { offset, file_size: whole.len() as i64, ..file("large", chunk) };
            guest.copy_file(&request).await.unwrap();
        }
        let host = guest.rootfs().parent().unwrap().join("large");
        assert!(std::fs::read(host).unwrap() == whole);
        let gap = CopyFileRequest { offset: 5, file_size: 10, ..file("gap", b"x") };
        assert_refused(guest.copy_file(&gap).await, "offset");
        let many = CopyFileRequest { file_size: 2, ..file("many", b"xyz") };
        assert_refused(guest.copy_file(&many).await, "data");
    });
}

/// A container has part of the share, and does there what it likes.
#[test]
fn no_link_leads_a_copy_out_of_the_share() {
    test(async |guest| {
        let plant = "ln -sfn /run /out; ln -sfn ../../../../../run /up; ln -sfn /proc/1/root/run /magic; ln -sf /etc/passwd /last";
        guest.container("c1").sh(plant).run().await.ok();
        for path in ["rootfs/out/planted", "rootfs/up/planted", "rootfs/magic/planted", "rootfs/last"] {
            let _ = guest.copy_file(&file(path, b"harm")).await;
        }
        let guest_run = guest.container("look").mount("/guest-run", "bind", "/run", &["bind"]);
        assert_eq!(guest_run.sh("test -e /guest-run/planted && echo escaped; true").run().await.ok(), "");
        let passwd = std::fs::read_to_string(guest.rootfs().join("etc/passwd")).unwrap();
        assert!(!passwd.contains("harm"), "the link was replaced, not followed");
        assert!(!std::path::Path::new("/run/planted").exists(), "and nothing is on the host");
        for path in ["/etc/passwd", "/run/x", "relative", "", &format!("{SHARE_ROOT}/../x"), SHARE_ROOT] {
            let request = CopyFileRequest { path: path.to_string(), ..file("x", b"harm") };
            assert_refused(guest.copy_file(&request).await, "path");
        }
    });
}

#[test]
fn numbers_that_are_none_are_refused_by_name() {
    test(async |guest| {
        for (request, field) in [
            (CopyFileRequest { file_size: -1, ..file("x", b"x") }, "file_size"),
            (CopyFileRequest { offset: -1, ..file("x", b"x") }, "offset"),
            (CopyFileRequest { file_size: i64::MAX, offset: i64::MAX, ..file("x", b"x") }, "data"),
            (CopyFileRequest { uid: -1, ..file("x", b"x") }, "uid"),
        ] {
            assert_refused(guest.copy_file(&request).await, field);
        }
        assert!(!guest.rootfs().parent().unwrap().join("x").exists());
    });
}

fn assert_refused(result: ttrpc::Result<()>, field: &str) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => {
            assert_eq!(status.code(), Code::INTERNAL);
            assert!(status.message().contains(field), "{field} in {}", status.message());
        }
        other => panic!("expected {field} to be refused, got {other:?}"),
    }
}
