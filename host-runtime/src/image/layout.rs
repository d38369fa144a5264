//! From a layout's index to one image: its layers in order and what it says about its process.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use guest_arch::Arch;
use oci_spec::image::{self, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use serde::de::DeserializeOwned;

use super::blob::Blobs;
use super::{Error, ImageConfig, Reference};

/// The annotation by which a layout names its images.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How deep indexes may nest.
const DEPTH: usize = 4;
const MAX_INDEX: u64 = 4 << 20;

/// One image of a layout.
pub(super) struct Image {
    /// Bottom to top.
    pub(super) layers: Vec<Layer>,
    pub(super) config: ImageConfig,
}

/// One layer.
pub(super) struct Layer {
    pub(super) blob: Descriptor,
    /// Digest of its uncompressed content.
    pub(super) diff_id: String,
}

/// Finds the image a reference means, for this architecture.
pub(super) fn find(reference: &Reference, arch: Arch, blobs: &Blobs) -> Result<Image, Error> {
    let index = read_index(&reference.dir)?;
    let missing = |cause: String| Error::NoSuchImage { reference: reference.to_string(), cause };
    let named: Vec<Descriptor> = match &reference.name {
        None => index.manifests().clone(),
        Some(name) => index.manifests().iter().filter(|d| name_of(d) == Some(name)).cloned().collect(),
    };
    if named.is_empty() {
        let names: Vec<&String> = index.manifests().iter().filter_map(name_of).collect();
        let known = if names.is_empty() { "none with a name".into() } else { join(&names) };
        return Err(missing(format!("no such image; the layout has {known}")));
    }
    let mut names: Vec<&String> = named.iter().filter_map(name_of).collect();
    names.dedup();
    if reference.name.is_none() && names.len() > 1 {
        return Err(missing(format!("several images; name one of {}", join(&names))));
    }
    let manifest =
        for_arch(arch, named, blobs, DEPTH).map_err(|e| e.unwrap_or_else(|| wrong_arch(reference, arch)))?;
    let manifest: ImageManifest = parse(&manifest, blobs.document(&manifest)?)?;
    read_config(reference, arch, &manifest, blobs)
}

fn join(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn name_of(descriptor: &Descriptor) -> Option<&String> {
    descriptor.annotations().as_ref()?.get(REF_NAME)
}

fn wrong_arch(reference: &Reference, arch: Arch) -> Error {
    let cause = format!("not made for this machine, which is linux/{}", arch.row().oci);
    Error::NoSuchImage { reference: reference.to_string(), cause }
}

/// `index.json`, which has no digest: it is where trust in a layout begins.
fn read_index(dir: &Path) -> Result<ImageIndex, Error> {
    for name in ["oci-layout", "index.json"] {
        let path = dir.join(name);
        path.metadata().map_err(|e| Error::File(path, e))?;
    }
    let path = dir.join("index.json");
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_INDEX).read_to_end(&mut bytes));
    read.map_err(|e| Error::File(path.clone(), e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Document { path, cause: e.to_string() })
}

/// The first manifest for an architecture, through nested indexes. `Err(None)`: there is none.
fn for_arch(
    arch: Arch,
    candidates: Vec<Descriptor>,
    blobs: &Blobs,
    depth: usize,
) -> Result<Descriptor, Option<Error>> {
    for descriptor in candidates {
        let fits = descriptor
            .platform()
            .as_ref()
            .is_none_or(|p| *p.architecture() == in_oci(arch) && *p.os() == Os::Linux);
        if !fits {
            continue;
        }
        if !is_index(descriptor.media_type()) {
            return Ok(descriptor);
        }
        if depth == 0 {
            let kind = "a deeper nesting of indexes".to_string();
            return Err(Some(Error::Unsupported { digest: descriptor.digest().to_string(), kind }));
        }
        let document = blobs.document(&descriptor).map_err(Some)?;
        let inner: ImageIndex = parse(&descriptor, document).map_err(Some)?;
        match for_arch(arch, inner.manifests().clone(), blobs, depth - 1) {
            Err(None) => {}
            found => return found,
        }
    }
    Err(None)
}

fn in_oci(arch: Arch) -> image::Arch {
    image::Arch::from(arch.row().oci)
}

fn is_index(kind: &MediaType) -> bool {
    *kind == MediaType::ImageIndex
        || kind.to_string() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

fn parse<T: DeserializeOwned>(descriptor: &Descriptor, bytes: Vec<u8>) -> Result<T, Error> {
    let path = descriptor.digest().to_string().into();
    serde_json::from_slice(&bytes).map_err(|e| Error::Document { path, cause: e.to_string() })
}

fn read_config(
    reference: &Reference,
    arch: Arch,
    manifest: &ImageManifest,
    blobs: &Blobs,
) -> Result<Image, Error> {
    let config: ImageConfiguration = parse(manifest.config(), blobs.document(manifest.config())?)?;
    if *config.architecture() != in_oci(arch) {
        return Err(wrong_arch(reference, arch));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != manifest.layers().len() {
        let cause = format!("{} layers, {} diff_ids", manifest.layers().len(), diff_ids.len());
        return Err(Error::Document { path: manifest.config().digest().to_string().into(), cause });
    }
    let layers = manifest
        .layers()
        .iter()
        .zip(diff_ids)
        .map(|(blob, diff_id)| Layer { blob: blob.clone(), diff_id: diff_id.clone() })
        .collect();
    Ok(Image { layers, config: process_of(&config) })
}

fn process_of(config: &ImageConfiguration) -> ImageConfig {
    let Some(config) = config.config() else { return ImageConfig::default() };
    let mut command = config.entrypoint().clone().unwrap_or_default();
    command.extend(config.cmd().clone().unwrap_or_default());
    ImageConfig {
        command,
        env: config.env().clone().unwrap_or_default(),
        workdir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
    }
}
