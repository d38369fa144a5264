//! The demo image: an OCI image layout with one layer, which is Debian's static busybox, two users and the empty
//! directories a container expects. It is what the demo and the end-to-end tests run.

use std::{collections::BTreeMap, fs, path::PathBuf};

use guest_arch::Arch;
use guest_formats::oci;
use guest_inputs::{Cache, Key, Pin, Progress, fetch, unpack_deb};
use guest_tree::{Node, Origin, Tree};
use serde::Deserialize;

use crate::error::{Error, at};

const FILE: &str = "rootfs-builder/demo.toml";
const PINS: &str = include_str!("../demo.toml");

/// Change it when this file makes something else of the same busybox.
const RECIPE: &str = "demo-image/v4";

/// Where the program is in its package: Debian has had all of `/bin` in `/usr/bin` since trixie.
const BUSYBOX: [&str; 2] = ["bin/busybox", "usr/bin/busybox"];

const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\n";
const DIRECTORIES: [(&str, u32); 6] =
    [("/bin", 0o755), ("/dev", 0o755), ("/etc", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/tmp", 0o1777)];

/// What is pinned for one architecture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// What busybox is linked with.
    libc: String,
    busybox: Pin,
}

/// What is pinned, by the guest architecture's name.
pub(crate) fn pins() -> Result<Vec<(String, Pin)>, Error> {
    let recipes: BTreeMap<String, Recipe> =
        toml::from_str(PINS).map_err(|e| Error::PinFile { file: FILE, source: Box::new(e) })?;
    Ok(recipes.into_iter().map(|(arch, recipe)| (arch, recipe.busybox)).collect())
}

/// The image layout for `arch`, with the reference `latest`; made now if the cache has none.
pub fn demo_image(cache: &Cache, arch: Arch, progress: &Progress) -> Result<PathBuf, Error> {
    let mut recipes: BTreeMap<String, Recipe> =
        toml::from_str(PINS).map_err(|e| Error::PinFile { file: FILE, source: Box::new(e) })?;
    let recipe = recipes.remove(arch.name()).ok_or(Error::NoBusybox(arch))?;
    let key = Key::new(RECIPE)
        .field("platform", arch.row().oci)
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
        oci::write(&tree(&busybox, &applets)?, &options(arch, &recipe), &layout)?;
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

/// What is in the image.
fn tree(busybox: &[u8], applets: &[&str]) -> Result<Tree, guest_tree::Error> {
    let origin = Origin::from("the demo image");
    let mut tree = Tree::new();
    for (path, mode) in DIRECTORIES {
        tree.put(path, Node::directory(mode, &origin))?;
    }
    tree.put("/bin/busybox", Node::file(0o755, busybox.to_vec(), &origin))?;
    tree.put("/etc/group", Node::file(0o644, GROUP, &origin))?;
    tree.put("/etc/passwd", Node::file(0o644, PASSWD, &origin))?;
    // The table has busybox itself in it: that link would be to itself.
    for applet in applets.iter().filter(|applet| **applet != "busybox") {
        tree.put(format!("/bin/{applet}"), Node::symlink("busybox", &origin))?;
    }
    Ok(tree)
}

fn options(arch: Arch, recipe: &Recipe) -> oci::Options {
    let labels = [("busybox", &recipe.busybox.version), ("libc", &recipe.libc)];
    let process = oci::Process {
        user: "app".into(),
        env: vec!["PATH=/bin".into()],
        cmd: vec!["sh".into()],
        working_dir: "/".into(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.clone())).into(),
        ..oci::Process::default()
    };
    oci::Options { time: 0, arch, reference: "latest".into(), process }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use guest_tree::Kind;

    use super::*;

    #[test]
    fn applets_are_read_from_the_table() {
        assert_eq!(applets(b"\x7fELF..\0[\0[[\0ash\0sh\0\0other\0"), Some(vec!["[", "[[", "ash", "sh"]));
        assert_eq!(applets(b" [\0[[\0sh\0\0"), Some(vec!["[", "[[", "sh"]));
        assert_eq!(applets(b"\0[\0[[\0ash\0\0"), None, "no sh");
        assert_eq!(applets(b"\0[\0[[\0../evil\0sh\0\0"), None, "no file name");
        assert_eq!(applets(b"no table"), None);
    }

    #[test]
    fn every_applet_is_a_link_but_busybox() {
        let tree = tree(b"busybox", &["busybox", "sh"]).unwrap();
        assert_eq!(tree.get("/bin/sh").unwrap().kind, Kind::Symlink("busybox".into()));
        assert_eq!(tree.get("/bin/busybox").unwrap().kind, Kind::File(b"busybox".to_vec().into()));
        assert_eq!(tree.get("/tmp").unwrap().attributes.mode, 0o1777);
        let is_roots = |(_, node): (&Path, &Node)| (node.attributes.uid, node.attributes.gid) == (0, 0);
        assert!(tree.iter().all(is_roots));
    }

    #[test]
    fn what_it_is_made_of_stands_in_its_labels() {
        let recipe = recipes().remove("s390x").unwrap();
        let options = options(Arch::S390x, &recipe);
        assert_eq!((options.arch, options.process.user.as_str()), (Arch::S390x, "app"));
        assert_eq!(options.process.labels["libc"], recipe.libc);
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
