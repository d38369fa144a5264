//! Golden bytes and refusals.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::*;

fn small() -> Initrd {
    let initrd = Initrd::new().char_device("/dev/console", 0o600, 5, 1).unwrap();
    initrd.file("/init", 0o755, b"hello".to_vec()).unwrap().symlink("/sbin", "bin").unwrap()
}

#[test]
fn golden() {
    // One line per part of the file; `.` stands for a NUL.
    let expected = [
        "070701 00000001 000041ed 00000000 00000000 00000002 00000000 00000000",
        "00000000 00000000 00000000 00000000 00000004 00000000 dev. ..",
        "070701 00000002 00002180 00000000 00000000 00000001 00000000 00000000",
        "00000000 00000000 00000005 00000001 0000000c 00000000 dev/console. ..",
        "070701 00000003 000081ed 00000000 00000000 00000001 00000000 00000005",
        "00000000 00000000 00000000 00000000 00000005 00000000 init. . hello ...",
        "070701 00000004 0000a1ff 00000000 00000000 00000001 00000000 00000003",
        "00000000 00000000 00000000 00000000 00000005 00000000 sbin. . bin .",
        "070701 00000000 00000000 00000000 00000000 00000001 00000000 00000000",
        "00000000 00000000 00000000 00000000 0000000b 00000000 TRAILER!!!. ...",
    ];
    let cpio = small().to_cpio().unwrap();
    let shown: String = cpio.iter().map(|b| if *b == 0 { '.' } else { char::from(*b) }).collect();
    assert_eq!(shown, expected.concat().replace(' ', ""));
}

#[test]
fn the_order_of_calls_does_not_matter() {
    let other =
        Initrd::new().symlink("/sbin", "bin").unwrap().file("/init", 0o755, b"hello".to_vec()).unwrap();
    let other = other.char_device("/dev/console", 0o600, 5, 1).unwrap().directory("/dev", 0o755).unwrap();
    assert_eq!(other.to_cpio().unwrap(), small().to_cpio().unwrap());
}

#[test]
fn a_directory_comes_before_what_is_in_it() {
    let initrd = Initrd::new().file("/a/b", 0o644, vec![]).unwrap().file("/a-b", 0o644, vec![]).unwrap();
    let names: Vec<_> = initrd.entries.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "a-b", "a/b"]);
}

#[test]
fn an_implied_directory_takes_the_mode_it_is_given_later() {
    let initrd = Initrd::new().file("/tmp/x", 0o644, vec![]).unwrap().directory("/tmp", 0o1777).unwrap();
    assert_eq!(initrd.entries["tmp"].mode, 0o1777);
    assert_eq!(initrd.directory("/tmp", 0o755).unwrap_err(), Error::Duplicate { path: "tmp".into() });
}

#[test]
fn what_cannot_be_is_refused() {
    let file = |path: &str| small().file(path, 0o644, vec![]).map(|_| ());
    for path in ["", "/", "init", "/a/", "/a//b", "/./a", "/a/../b", "/a\0b"] {
        assert_eq!(file(path), Err(Error::Path { path: path.to_owned() }));
    }
    assert_eq!(file("/init"), Err(Error::Duplicate { path: "init".into() }));
    assert_eq!(file("/dev"), Err(Error::Duplicate { path: "dev".into() }));
    assert_eq!(file("/init/x"), Err(Error::NotADirectory { path: "init".into() }));
    let long = format!("/{}", "x".repeat(4095));
    assert_eq!(file(&long), Err(Error::TooLong { path: long.clone(), length: 4096 }));
    assert_eq!(file(&long[..4095]), Ok(()));
}

#[test]
fn compression_keeps_the_bytes_and_repeats() {
    let cpio = small().to_cpio().unwrap();
    let packed = compress(&cpio).unwrap();
    assert_eq!(packed, compress(&cpio).unwrap());
    assert_eq!(zstd::bulk::decompress(&packed, cpio.len()).unwrap(), cpio);
}

/// Another reader's opinion, where one is installed.
#[test]
fn cpio_lists_it() {
    let started = Command::new("cpio").arg("-t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut cpio) = started else { return };
    cpio.stdin.take().unwrap().write_all(&small().to_cpio().unwrap()).unwrap();
    let listed = cpio.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "dev\ndev/console\ninit\nsbin\n");
}
