//! The demo image: an OCI image layout with one layer, which is Debian's static busybox, two users and the empty
//! directories a container expects. It is what the demo and the end-to-end tests run.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};
use guest_arch::Arch;
use guest_inputs::{Cache, Key, Pin, Progress, fetch, unpack_deb};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, at};

const FILE: &str = "rootfs-builder/demo.toml";
const PINS: &str = include_str!("../demo.toml");

/// Change it when this file makes something else of the same busybox.
const RECIPE: &str = "demo-image/v3";

/// Where the program is in its package: Debian has had all of `/bin` in `/usr/bin` since trixie.
const BUSYBOX: [&str; 2] = ["bin/busybox", "usr/bin/busybox"];

const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\n";
const DIRECTORIES: [(&str, u32); 6] =
    [("bin/", 0o755), ("dev/", 0o755), ("etc/", 0o755), ("proc/", 0o555), ("sys/", 0o555), ("tmp/", 0o1777)];

/// What is pinned for one architecture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// What busybox is linked with.
    libc: String,
    busybox: Pin,
}

/// The image layout for `arch`, with the reference `latest`; made now if the cache has none.
pub fn demo_image(cache: &Cache, arch: Arch, progress: &Progress) -> Result<PathBuf, Error> {
    let mut recipes: BTreeMap<String, Recipe> =
        toml::from_str(PINS).map_err(|e| Error::PinFile { file: FILE, source: Box::new(e) })?;
    let recipe = recipes.remove(arch.name()).ok_or(Error::NoBusybox(arch))?;
    let platform = arch.row().oci;
    let key = Key::new(RECIPE)
        .field("platform", platform)
        .field("libc", &recipe.libc)
        .field("busybox", &recipe.busybox.sha256);
    let entry = cache.build("demo-image", &key, |into| {
        let deb = fetch(cache, &recipe.busybox, progress)?;
        let package = into.join("package");
        unpack_deb(&deb, &package)?;
        let paths = BUSYBOX.map(|path| package.join(path));
        let path = paths.iter().find(|path| path.exists()).unwrap_or(&paths[0]);
        let busybox = fs::read(path).map_err(at("read", path))?;
        let Some(applets) = applets(&busybox) else {
            return Err(at("find the table of applets in", path)(std::io::ErrorKind::InvalidData.into()));
        };
        let layout = into.join("layout");
        let layer = layer(&busybox, &applets).map_err(at("write a layer for", &layout))?;
        write_layout(&layout, &layer, platform, &recipe)?;
        fs::remove_dir_all(&package).map_err(at("remove", &package))
    })?;
    Ok(entry.join("layout"))
}

/// The names busybox answers to. They are read from its table, NUL after NUL, because the program itself may be for
/// another architecture.
fn applets(busybox: &[u8]) -> Option<Vec<&str>> {
    const START: &[u8] = b"[\0[[\0"; // whatever lies before it
    let start = busybox.windows(START.len()).position(|window| window == START)?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"[_-.".contains(b);
    let names = busybox[start..].split(|b| *b == 0).take_while(|name| !name.is_empty());
    let names = names.map(|name| std::str::from_utf8(name).ok().filter(|_| name.iter().all(plain)));
    let names: Vec<_> = names.collect::<Option<_>>()?;
    names.contains(&"sh").then_some(names)
}

/// The layer's tar: in a fixed order, owned by root, at time zero.
fn layer(busybox: &[u8], applets: &[&str]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode) in DIRECTORIES {
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), name, &[][..])?;
    }
    for (name, mode, content) in [
        ("bin/busybox", 0o755, busybox),
        ("etc/group", 0o644, GROUP.as_bytes()),
        ("etc/passwd", 0o644, PASSWD.as_bytes()),
    ] {
        tar.append_data(&mut header(tar::EntryType::Regular, mode, content.len()), name, content)?;
    }
    // The table has busybox itself in it: that link would be to itself.
    for applet in applets.iter().filter(|applet| **applet != "busybox") {
        let link = &mut header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(link, format!("bin/{applet}"), "busybox")?;
    }
    tar.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Writes `dir`: the layer, the configuration that names it, the manifest that names both, and the index.
fn write_layout(dir: &Path, layer: &[u8], platform: &str, recipe: &Recipe) -> Result<(), Error> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(at("create", &blobs))?;
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best()); // its time stamp is zero unless set
    let packed =
        gzip.write_all(layer).and_then(|()| gzip.finish()).map_err(at("compress a layer for", dir))?;
    let config = json!({
        "architecture": platform,
        "os": "linux",
        "config": {
            "User": "app",
            "Env": ["PATH=/bin"],
            "Cmd": ["sh"],
            "WorkingDir": "/",
            "Labels": { "busybox": recipe.busybox.version, "libc": recipe.libc },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
        "layers": [blob(&blobs, "application/vnd.oci.image.layer.v1.tar+gzip", &packed)?],
    });
    let mut entry =
        blob(&blobs, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    entry["platform"] = json!({ "architecture": platform, "os": "linux" });
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    for (name, value) in [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))] {
        let path = dir.join(name);
        fs::write(&path, value.to_string()).map_err(at("write", &path))?;
    }
    Ok(())
}

/// Stores a blob under its digest; gives its descriptor.
fn blob(blobs: &Path, media_type: &str, content: &[u8]) -> Result<Value, Error> {
    let digest = digest(content);
    let path = blobs.join(digest.trim_start_matches("sha256:"));
    fs::write(&path, content).map_err(at("write", &path))?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": content.len() }))
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", guest_inputs::sha256(content))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(dir: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let content = fs::read(dir.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(super::digest(&content), digest);
        assert_eq!(content.len() as u64, descriptor["size"].as_u64().unwrap());
        content
    }

    #[test]
    fn applets_are_read_from_the_table() {
        assert_eq!(applets(b"\x7fELF..\0[\0[[\0ash\0sh\0\0other\0"), Some(vec!["[", "[[", "ash", "sh"]));
        assert_eq!(applets(b" [\0[[\0sh\0\0"), Some(vec!["[", "[[", "sh"]));
        assert_eq!(applets(b"\0[\0[[\0ash\0\0"), None, "no sh");
        assert_eq!(applets(b"\0[\0[[\0../evil\0sh\0\0"), None, "no file name");
        assert_eq!(applets(b"no table"), None);
    }

    #[test]
    fn every_digest_in_the_layout_holds() {
        let dir = tempfile::tempdir().unwrap();
        let tar = layer(b"busybox", &["ls", "sh"]).unwrap();
        let recipe = recipes().remove("s390x").unwrap();
        write_layout(dir.path(), &tar, "s390x", &recipe).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "latest");
        let manifest: Value = serde_json::from_slice(&read(dir.path(), &index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&read(dir.path(), &manifest["config"])).unwrap();
        assert_eq!((&config["architecture"], &config["config"]["User"]), (&json!("s390x"), &json!("app")));
        assert_eq!(config["config"]["Labels"]["libc"], recipe.libc.as_str());
        let mut unpacked = Vec::new();
        let packed = read(dir.path(), &manifest["layers"][0]);
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, tar);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&tar).as_str());
    }

    #[test]
    fn the_layer_is_roots_from_no_time() {
        let tar = layer(b"busybox", &["busybox", "sh"]).unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap().map(|e| {
            let header = e.unwrap().header().clone();
            let is_link = header.entry_type().is_symlink();
            assert_eq!(
                is_link,
                header.path().unwrap() == Path::new("bin/sh"),
                "busybox is no link to itself"
            );
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            (header.path().unwrap().to_string_lossy().into_owned(), header.mode().unwrap())
        });
        let entries: BTreeMap<_, _> = entries.collect();
        assert_eq!(entries["tmp/"], 0o1777);
        assert_eq!(entries["bin/busybox"], 0o755);
        assert!(entries.contains_key("bin/sh"));
    }

    fn recipes() -> BTreeMap<String, Recipe> {
        toml::from_str(PINS).unwrap()
    }

    #[test]
    fn every_architecture_has_a_busybox_of_its_own() {
        let recipes = recipes();
        assert_eq!(recipes.len(), Arch::ALL.len());
        for arch in Arch::ALL {
            let Recipe { libc, busybox } = &recipes[arch.name()];
            let version = busybox.version.trim_start_matches("1:");
            let file = format!("/busybox-static_{version}_{}.deb", arch.row().debian);
            assert!(busybox.path.ends_with(&file), "{} is not {file}", busybox.path);
            assert!(libc.starts_with("glibc "), "{libc}");
        }
    }
}
