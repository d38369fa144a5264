//! Layouts written here, well-formed and hostile, and what unpacking makes of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

/// A layout in the making.
struct Layout {
    dir: TempDir,
    manifests: Vec<Value>,
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

impl Layout {
    fn new() -> Layout {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Layout { dir, manifests: Vec::new() }
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.path().join("blobs").join(digest.replace(':', "/"))
    }

    /// An image of plain tar layers.
    fn image(&mut self, name: &str, arch: &str, layers: &[Vec<u8>]) -> &mut Layout {
        let blobs = layers.iter().map(|layer| (self.blob(TAR, layer), sha256(layer))).collect();
        self.image_of(name, arch, blobs)
    }

    fn image_of(&mut self, name: &str, arch: &str, layers: Vec<(Value, String)>) -> &mut Layout {
        let (blobs, diff_ids): (Vec<Value>, Vec<String>) = layers.into_iter().unzip();
        let config = json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Env": ["A=1"], "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"], "WorkingDir": "/w", "User": "u:g"}});
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": blobs,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        let mut descriptor =
            self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.manifests.push(descriptor);
        self
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Unpacks `name` (or the only image) into `rootfs` beside a file that must stay as it is.
    fn unpack(&self, name: Option<&str>) -> Result<(TempDir, PathBuf, ImageConfig), Error> {
        self.write_index();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "untouched").unwrap();
        let rootfs = outside.path().join("rootfs");
        let reference = Reference { dir: self.dir.path().to_path_buf(), name: name.map(String::from) };
        let unpacked = unpack(&reference, guest_arch::Arch::host(), &rootfs, &AtomicBool::new(false));
        assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "untouched");
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.len() <= 2, "{names:?}");
        unpacked.map(|config| (outside, rootfs, config))
    }
}

fn host_arch() -> String {
    guest_arch::Arch::host().row().oci.into()
}

/// One entry of a tar: path, type, link target, content. Paths go into the header as they are, dots and all.
fn tar_of(entries: &[(&str, tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(if *kind == tar::EntryType::Directory { 0o750 } else { 0o4711 });
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_mtime(1_000_000);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

use tar::EntryType::{Directory as DIR, Link as HARD, Regular as FILE, Symlink as SYM};

fn unpack_layers(layers: &[Vec<u8>]) -> Result<(TempDir, PathBuf, ImageConfig), Error> {
    Layout::new().image("x", &host_arch(), layers).unpack(None)
}

#[test]
fn references() {
    let parsed = |text: &str| Reference::from_str(text).map(|r| (r.dir, r.name));
    assert_eq!(parsed("oci:/a/b"), Ok(("/a/b".into(), None)));
    assert_eq!(parsed("oci:dir:docker.io/x:1"), Ok(("dir".into(), Some("docker.io/x:1".into()))));
    for bad in ["", "oci:", "oci::x", "oci:x:", "docker:x", "/a"] {
        assert!(parsed(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_layer_becomes_files_with_modes_times_and_links() {
    let layer = tar_of(&[
        ("./bin", DIR, "", ""),
        ("bin/tool", FILE, "", "#!"),
        ("bin/hard", HARD, "bin/tool", ""),
        ("bin/soft", SYM, "/bin/tool", ""),
        ("deep/er/file", FILE, "", "x"),
    ]);
    let (_dir, root, config) = unpack_layers(&[layer]).unwrap();
    let tool = fs::metadata(root.join("bin/tool")).unwrap();
    assert_eq!((tool.permissions().mode() & 0o7777, tool.mtime(), tool.nlink()), (0o4711, 1_000_000, 2));
    assert_eq!(tool.ino(), fs::metadata(root.join("bin/hard")).unwrap().ino());
    assert_eq!(fs::read_link(root.join("bin/soft")).unwrap(), Path::new("/bin/tool"));
    let bin = fs::metadata(root.join("bin")).unwrap();
    assert_eq!((bin.permissions().mode() & 0o7777, bin.mtime()), (0o750, 1_000_000));
    assert_eq!(fs::read_to_string(root.join("deep/er/file")).unwrap(), "x");
    assert_eq!(config.command, ["/bin/sh", "-c", "true"]);
    assert_eq!(
        (config.env, config.workdir.as_str(), config.user.as_str()),
        (vec!["A=1".into()], "/w", "u:g")
    );
}

#[test]
fn upper_layers_replace_and_hide() {
    let lower = tar_of(&[
        ("keep", FILE, "", "1"),
        ("gone", FILE, "", "1"),
        ("dir/old", FILE, "", "1"),
        ("dir/sub/old", FILE, "", "1"),
        ("file-to-dir", FILE, "", "1"),
        ("dir-to-file/x", FILE, "", "1"),
    ]);
    let upper = tar_of(&[
        // The new file comes before the marker that hides its siblings, which must not hide it.
        ("dir/new", FILE, "", "2"),
        ("dir/.wh..wh..opq", FILE, "", ""),
        (".wh.gone", FILE, "", ""),
        (".wh.never-was", FILE, "", ""),
        ("file-to-dir/x", FILE, "", "2"),
        ("dir-to-file", FILE, "", "2"),
    ]);
    let with_dir = tar_of(&[("file-to-dir", DIR, "", "")]);
    let (_dir, root, _) = unpack_layers(&[lower, with_dir, upper]).unwrap();
    let names = |dir: &str| {
        let mut names: Vec<String> = fs::read_dir(root.join(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("dir"), ["new"]);
    assert_eq!(names(""), ["dir", "dir-to-file", "file-to-dir", "keep"]);
    assert_eq!(fs::read_to_string(root.join("dir-to-file")).unwrap(), "2");
    assert_eq!(fs::read_to_string(root.join("file-to-dir/x")).unwrap(), "2");
}

#[test]
fn links_that_point_out_lead_back_in() {
    let layer = tar_of(&[
        ("abs", SYM, "/", ""),
        ("abs/one", FILE, "", "1"),
        ("up", SYM, "../../../..", ""),
        ("up/two", FILE, "", "2"),
        ("up/secret", FILE, "", "stolen"),
        ("grab", HARD, "up/one", ""),
        ("up/.wh.abs", FILE, "", ""),
    ]);
    let (_dir, root, _) = unpack_layers(&[layer]).unwrap();
    for (name, content) in [("one", "1"), ("two", "2"), ("secret", "stolen"), ("grab", "1")] {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), content);
    }
}

#[test]
fn what_would_leave_the_tree_is_refused() {
    let hostile: [&[_]; 5] = [
        &[("../secret", FILE, "", "stolen")],
        &[("a/../../secret", FILE, "", "stolen")],
        &[("d", DIR, "", ""), ("leak", HARD, "../secret", "")],
        &[("out", SYM, "..", ""), ("leak", HARD, "out/secret", "")],
        &[("a/.wh...", FILE, "", "")],
    ];
    for entries in hostile {
        let error = unpack_layers(&[tar_of(entries)]).unwrap_err();
        assert!(matches!(error, Error::Entry { .. }), "{entries:?}: {error}");
    }
}

#[test]
fn absolute_paths_mean_the_tree() {
    let (_dir, root, _) = unpack_layers(&[tar_of(&[("/etc/x", FILE, "", "in")])]).unwrap();
    assert_eq!(fs::read_to_string(root.join("etc/x")).unwrap(), "in");
}

#[test]
fn compressed_layers() {
    let layer = tar_of(&[("f", FILE, "", "content")]);
    for (kind, bytes) in [("+gzip", gzip(&layer)), ("+zstd", zstd::encode_all(&layer[..], 1).unwrap())] {
        let mut layout = Layout::new();
        let blob = layout.blob(&format!("{TAR}{kind}"), &bytes);
        layout.image_of("x", &host_arch(), vec![(blob, sha256(&layer))]);
        let (_dir, root, _) = layout.unpack(Some("x")).unwrap();
        assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "content", "{kind}");
    }
}

#[test]
fn a_changed_layer_is_noticed_before_it_is_unpacked() {
    let layer = gzip(&tar_of(&[("f", FILE, "", &"content".repeat(1000))]));
    let mut layout = Layout::new();
    let blob = layout.blob(&format!("{TAR}+gzip"), &layer);
    layout.image_of("x", &host_arch(), vec![(blob, "sha256:0".into())]);
    let mut broken = layer.clone();
    broken[layer.len() / 2] ^= 1;
    fs::write(layout.blob_path(&sha256(&layer)), &broken).unwrap();
    let error = layout.unpack(None).unwrap_err();
    assert!(matches!(&error, Error::Digest { digest, .. } if *digest == sha256(&layer)), "{error}");

    fs::write(layout.blob_path(&sha256(&layer)), &layer[1..]).unwrap();
    assert!(matches!(layout.unpack(None), Err(Error::Size { .. })));

    fs::remove_file(layout.blob_path(&sha256(&layer))).unwrap();
    assert!(matches!(layout.unpack(None), Err(Error::File(..))));
}

#[test]
fn content_that_is_not_the_configs_is_refused() {
    let mut layout = Layout::new();
    let blob = layout.blob(TAR, &tar_of(&[("f", FILE, "", "1")]));
    let other = sha256(b"something else");
    layout.image_of("x", &host_arch(), vec![(blob, other.clone())]);
    let error = layout.unpack(None).unwrap_err();
    assert!(matches!(&error, Error::Digest { digest, .. } if *digest == other), "{error}");
}

#[test]
fn one_of_several_images_is_named() {
    let mut layout = Layout::new();
    layout.image("a", &host_arch(), &[tar_of(&[("a", FILE, "", "")])]);
    layout.image("b", &host_arch(), &[tar_of(&[("b", FILE, "", "")])]);
    let (_dir, root, _) = layout.unpack(Some("b")).unwrap();
    assert!(root.join("b").exists());
    assert!(layout.unpack(None).unwrap_err().to_string().ends_with("several images; name one of a, b"));
    assert!(
        layout.unpack(Some("c")).unwrap_err().to_string().ends_with("no such image; the layout has a, b")
    );
}

#[test]
fn an_index_of_several_machines_gives_ours() {
    let mut layout = Layout::new();
    let other = if host_arch() == "s390x" { "amd64" } else { "s390x" };
    layout.image("x", other, &[tar_of(&[("theirs", FILE, "", "")])]);
    layout.image("x", &host_arch(), &[tar_of(&[("ours", FILE, "", "")])]);
    let mut inner = std::mem::take(&mut layout.manifests);
    for (descriptor, arch) in inner.iter_mut().zip([other, &host_arch()]) {
        descriptor["platform"] = json!({"architecture": arch, "os": "linux"});
    }
    let index = json!({"schemaVersion": 2, "manifests": inner}).to_string();
    let descriptor = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    layout.manifests = vec![descriptor];
    let (_dir, root, _) = layout.unpack(None).unwrap();
    assert!(root.join("ours").exists() && !root.join("theirs").exists());

    layout.manifests = vec![inner[0].clone()];
    let error = layout.unpack(None).unwrap_err().to_string();
    assert!(error.contains("not made for this machine"), "{error}");
}

#[test]
fn what_is_no_layout_is_named() {
    let reference = Reference { dir: "/no/such".into(), name: None };
    let error =
        unpack(&reference, guest_arch::Arch::host(), Path::new("/no/rootfs"), &AtomicBool::new(false))
            .unwrap_err();
    assert_eq!(error.to_string(), "/no/such/oci-layout");
}

#[test]
fn unpacking_stops_when_told() {
    let mut layout = Layout::new();
    layout.image("x", &host_arch(), &[tar_of(&[("f", FILE, "", "")])]).write_index();
    let reference = Reference { dir: layout.dir.path().to_path_buf(), name: None };
    let rootfs = layout.dir.path().join("rootfs");
    assert!(matches!(
        unpack(&reference, guest_arch::Arch::host(), &rootfs, &AtomicBool::new(true)),
        Err(Error::Stopped)
    ));
}
