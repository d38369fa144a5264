//! What fuzz targets call: bytes from a stranger go in, and a broken promise comes out as a panic. Of packages there are
//! more in `guest_debian::fuzz`.

use std::path::{Component, Path};

use guest_arch::Arch;
use guest_tree::{Kind, Origin, Tree};

use crate::recipe;
use crate::source::oci;

/// A target: what `rootfs-builder/fuzz` calls its program and its seeds, and what that runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("oci_layout", oci_layout), ("recipe", recipe)];

/// A recipe. What is wrong with it is told with its file.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else { return };
    if let Err(error) = recipe::of_text("fuzz.toml", text) {
        assert!(error.to_string().contains("fuzz.toml"), "{error}");
    }
}

/// An OCI image layout: what of it the bytes are is said by the first one. Every file is in a directory of the image, and
/// none is a device.
pub fn oci_layout(bytes: &[u8]) {
    let Some((what, bytes)) = bytes.split_first() else { return };
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("room for a layout");
        std::fs::write(path, bytes).expect("room for a layout");
    };
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = guest_inputs::sha256(bytes);
        put(&format!("blobs/sha256/{digest}"), bytes);
        let size = bytes.len();
        format!(
            "{{\"mediaType\":\"application/vnd.oci.image.{kind}\",\"digest\":\"sha256:{digest}\",\"size\":{size}}}"
        )
    };
    let index_of = |manifest: &str| {
        let manifest = blob("manifest.v1+json", manifest.as_bytes());
        format!("{{\"manifests\":[{manifest}]}}")
    };
    let layer = |kind: &str| index_of(&format!("{{\"layers\":[{}]}}", blob(kind, bytes)));
    let index = match what {
        b'i' => String::from_utf8_lossy(bytes).into_owned(),
        b'm' => index_of(&String::from_utf8_lossy(bytes)),
        b'g' => layer("layer.v1.tar+gzip"),
        b'z' => layer("layer.v1.tar+zstd"),
        _ => layer("layer.v1.tar"),
    };
    put("index.json", index.as_bytes());
    let mut tree = Tree::new();
    let origin = Origin::from("fuzz");
    let _ = oci::add_layout_within(&mut tree, dir.path(), None, Arch::X86_64, &origin, 16 << 20);
    for (path, node) in tree.iter() {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert!(!matches!(node.kind, Kind::CharDevice { .. }), "{path:?}");
        let above = path.parent().and_then(|above| tree.iter().find(|(path, _)| *path == above));
        assert!(
            path == Path::new("") || above.is_some_and(|(_, node)| node.kind == Kind::Directory),
            "{path:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_break_no_promise() {
        for (name, target) in TARGETS {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
            let mut seeds = std::fs::read_dir(seeds).unwrap().peekable();
            assert!(seeds.peek().is_some(), "{name} has no seeds");
            seeds.for_each(|seed| target(&std::fs::read(seed.unwrap().path()).unwrap()));
        }
    }
}
