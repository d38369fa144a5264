use super::*;

/// Name, kind, what a link leads to, content.
pub(crate) type Part<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

const FILE: EntryType = EntryType::Regular;
const CONTROL: &str = "Package: p\nVersion: 1\n";

/// Headers are filled byte by byte: the tar crate refuses to write most of what must be refused here.
fn tar_of(parts: &[Part<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn deb_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        bytes.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes(),
        );
        bytes.extend(*content);
        bytes.extend(vec![b'\n'; content.len() % 2]);
    }
    bytes
}

/// Takes a package with these files apart.
pub(crate) fn package(parts: &[Part<'_>], into: &Path) -> Result<Unpacked, String> {
    with_budget(parts, into, BUDGET)
}

fn with_budget(parts: &[Part<'_>], into: &Path, budget: Budget) -> Result<Unpacked, String> {
    let control = tar_of(&[("./preinst", FILE, "", b"exit 1"), ("./control", FILE, "", CONTROL.as_bytes())]);
    let deb = deb_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar_of(parts))]);
    let path = into.join("p.deb");
    fs::write(&path, deb).unwrap();
    let directory = into.join("apart");
    fs::create_dir(&directory).unwrap();
    take_apart(&path, "p 1", &directory, budget)
        .and_then(|()| Unpacked::read(directory))
        .map_err(|error| error.to_string())
}

fn refused(parts: &[Part<'_>]) -> String {
    package(parts, tempfile::tempdir().unwrap().path()).unwrap_err()
}

#[test]
fn files_keep_modes_and_owners_and_hard_links_share_a_content() {
    let dir = tempfile::tempdir().unwrap();
    let apart = package(
        &[
            ("./", EntryType::Directory, "", b""),
            ("./a", FILE, "", b"text"),
            ("./b", EntryType::Link, "./a", b""),
            ("./c", EntryType::Symlink, "/../x", b""),
        ],
        dir.path(),
    )
    .unwrap();
    assert_eq!(apart.control, CONTROL);
    let kinds: Vec<_> = apart.entries.iter().map(|entry| (entry.path.as_str(), entry.kind.clone())).collect();
    let expected = [
        ("", Kind::Directory),
        ("a", Kind::File(0)),
        ("b", Kind::File(0)),
        ("c", Kind::Symlink("/../x".to_owned())),
    ];
    assert_eq!(kinds, expected);
    let file = &apart.entries[1];
    assert_eq!((file.mode, file.uid, file.gid), (0o4755, 7, 8));
    assert_eq!(fs::read(apart.content(0)).unwrap(), b"text");
}

#[test]
fn what_no_package_should_have_is_refused_by_name() {
    let cases: &[(&[Part<'_>], &str)] = &[
        (&[("/etc/passwd", FILE, "", b"x")], "\"/etc/passwd\" is absolute"),
        (&[("./a/../../x", FILE, "", b"x")], "\"./a/../../x\" has .. in its name"),
        (&[("dev/sda", EntryType::Block, "", b"")], "\"dev/sda\" is a device"),
        (&[("dev/null", EntryType::Char, "", b"")], "\"dev/null\" is a device"),
        (&[("p", EntryType::Fifo, "", b"")], "\"p\" is a pipe"),
        (&[("h", EntryType::Link, "../etc/shadow", b"")], "\"h\" has .. in its name"),
        (&[("h", EntryType::Link, "/etc/shadow", b"")], "\"h\" is absolute"),
        (
            &[("h", EntryType::Link, "etc/shadow", b"")],
            "\"h\" is a hard link to \"etc/shadow\", which is no file",
        ),
        (&[("l", EntryType::Symlink, "", b"")], "\"l\" links to nothing"),
        (&[("x", EntryType::new(b'?'), "", b"")], "\"x\" is neither file, directory nor link"),
    ];
    for (parts, what) in cases {
        let error = refused(parts);
        assert!(error.starts_with(&format!("package p 1: {what}")), "{error} / {what}");
    }
}

#[test]
fn the_budget_names_file_and_limit() {
    let run = |budget| {
        let dir = tempfile::tempdir().unwrap();
        with_budget(&[("a", FILE, "", &[0; 3000]), ("b", FILE, "", b"")], dir.path(), budget).map(|_| ())
    };
    let large = Budget { file: 3000, package: 10_000, entries: 2 };
    assert_eq!(run(large), Ok(()));
    let error = run(Budget { file: 2999, ..large }).unwrap_err();
    assert_eq!(error, "package p 1: \"a\" has 3000 bytes, more than the limit of 2999");
    let error = run(Budget { entries: 1, ..large }).unwrap_err();
    assert_eq!(error, "package p 1: \"b\" is one file more than the limit of 1");
    assert!(run(Budget { package: 2000, ..large }).is_err());
}

#[test]
fn a_sparse_file_is_refused_whatever_size_it_claims() {
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    // Nothing but a hole of four gigabytes.
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 32);
    gnu.sparse[0].offset = *b"40000000000\0";
    gnu.sparse[0].numbytes = *b"00000000000\0";
    header.set_cksum();
    let data = [&header.as_bytes()[..], &[0; 1024]].concat();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.deb");
    let control = tar_of(&[("control", FILE, "", CONTROL.as_bytes())]);
    fs::write(&path, deb_of(&[("control.tar", &control), ("data.tar", &data)])).unwrap();
    let error = take_apart(&path, "p 1", dir.path(), BUDGET).unwrap_err().to_string();
    assert_eq!(error, "package p 1: \"huge\" is a sparse file");
}

#[test]
fn what_extended_headers_say_is_refused_too() {
    let refused = |records: &[(&str, &[u8])]| {
        let mut data = tar::Builder::new(Vec::new());
        data.append_pax_extensions(records.iter().copied()).unwrap();
        let file = [data.into_inner().unwrap(), tar_of(&[("f", FILE, "", b"x")])].concat();
        // The end that the first builder has written.
        let data = [&file[..1024], &file[2048..]].concat();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.deb");
        let control = tar_of(&[("control", FILE, "", CONTROL.as_bytes())]);
        fs::write(&path, deb_of(&[("control.tar", &control), ("data.tar", &data)])).unwrap();
        take_apart(&path, "p 1", dir.path(), BUDGET).unwrap_err().to_string()
    };
    assert_eq!(refused(&[("path", b"/etc/shadow")]), "package p 1: \"/etc/shadow\" is absolute");
    assert_eq!(refused(&[("path", b"a/../../b")]), "package p 1: \"a/../../b\" has .. in its name");
    assert!(refused(&[("path", b"a\0b")]).ends_with("has a zero byte in its name"));
    let sparse: [(&str, &[u8]); 2] = [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"99999999999")];
    assert_eq!(refused(&sparse), "package p 1: \"f\" is a sparse file");
}

#[test]
fn a_name_that_fills_the_memory_is_refused() {
    let long = vec![b'a'; NAMES as usize + 1];
    let error = refused(&[("././@LongLink", EntryType::GNULongName, "", &long), ("f", FILE, "", b"x")]);
    assert!(error.starts_with("cannot read "), "{error}");
    let short = vec![b'a'; 300];
    let dir = tempfile::tempdir().unwrap();
    let parts: [Part<'_>; 2] =
        [("././@LongLink", EntryType::GNULongName, "", &short), ("f", FILE, "", &[0; 3 << 20])];
    assert_eq!(package(&parts, dir.path()).unwrap().entries[0].path.len(), 300);
}

#[test]
fn a_package_without_control_file_or_cut_short_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.deb");
    let run = |members: &[(&str, &[u8])]| {
        fs::write(&path, deb_of(members)).unwrap();
        take_apart(&path, "p 1", dir.path(), BUDGET).unwrap_err().to_string()
    };
    let control = tar_of(&[("control", FILE, "", CONTROL.as_bytes())]);
    let data = tar_of(&[("a", FILE, "", &[1; 2000])]);
    assert_eq!(
        run(&[("control.tar", &tar_of(&[])), ("data.tar", &data)]),
        "package p 1: has no control file"
    );
    assert!(run(&[("control.tar", &control)]).ends_with("has no data.tar"));
    assert!(run(&[("control.tar", &control), ("data.tar", &data[..1000])]).starts_with("cannot "));
}
