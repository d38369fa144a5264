//! OCI image layouts (OCI image specification, `image-layout.md`): a directory with one image, which has the
//! tree as its one layer. Container engines run it, and Husk's recipes take it as a base.
//!
//! Every blob is known by its digest, so it is enough that each is written in one way: documents with their
//! keys in the order of the specification, a layer as the [`layer`] module says, packed with gzip without a
//! time.

mod layer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use guest_arch::Arch;
use guest_tree::Tree;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, writing};

const FORMAT: &str = "oci";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The annotation by which a layout names its images.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What a tree does not say.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of every file, in seconds since 1970.
    pub time: u64,
    /// Whose programs they are.
    pub arch: Arch,
    /// The name of the image in the layout: "latest".
    pub reference: String,
    /// What runs in a container of the image.
    pub process: Process,
}

/// The process that a container is started for, unless its user wants another. What is empty is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Process {
    /// Name or number, with a group behind a colon if wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// "NAME=value" each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program, with arguments that stay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace; without an entrypoint the program too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// What else is to be known of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The manifest's digest, by which the image is known everywhere.
    pub manifest: String,
    /// All files of the layout, below its directory, sorted.
    pub files: Vec<PathBuf>,
}

/// Writes a layout into `dir`, which is made, and has to be empty if it is there.
pub fn write(tree: &Tree, options: &Options, dir: &Path) -> Result<Written, Error> {
    layer::check(tree)?;
    let mut layout = Layout::create(dir).map_err(writing(FORMAT))?;
    let (layer, diff_id) = layout.layer(tree, options.time)?;
    let manifest = layout.documents(layer, diff_id, options).map_err(writing(FORMAT))?;
    layout.files.sort();
    Ok(Written { manifest, files: layout.files })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize, Clone, Copy)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

#[derive(Serialize)]
struct Config<'a> {
    #[serde(flatten)]
    platform: Platform,
    config: &'a Process,
    rootfs: Rootfs,
}

#[derive(Serialize)]
struct Rootfs {
    r#type: &'static str,
    diff_ids: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: [Descriptor; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: [Descriptor; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    image_layout_version: &'static str,
}

/// A layout under construction.
struct Layout<'a> {
    dir: &'a Path,
    files: Vec<PathBuf>,
}

impl<'a> Layout<'a> {
    fn create(dir: &'a Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                format!("{} is not empty", dir.display()),
            ));
        }
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        Ok(Layout { dir, files: Vec::new() })
    }

    /// Gives the layer's descriptor, and the digest of what is in it.
    fn layer(&mut self, tree: &Tree, time: u64) -> Result<(Descriptor, String), Error> {
        // It has a name only when it has been written.
        let unnamed = self.dir.join("layer");
        let file = File::create_new(&unnamed).map_err(writing(FORMAT))?;
        // There is no time and no name in its head unless they are set.
        let packer = GzEncoder::new(Hashing::new(BufWriter::new(file)), flate2::Compression::best());
        let archive = layer::write(tree, time, Hashing::new(packer))?;
        let diff_id = digest_text(archive.digest);
        let finish = || {
            let mut packed = archive.to.finish()?;
            packed.to.flush()?;
            let digest = digest_text(packed.digest);
            fs::rename(&unnamed, self.dir.join(blob_path(&digest)))?;
            Ok((digest, packed.length))
        };
        let (digest, size) = finish().map_err(writing(FORMAT))?;
        self.files.push(blob_path(&digest));
        Ok((Descriptor::new(LAYER, digest, size), diff_id))
    }

    /// All but the layer; gives the manifest's digest.
    fn documents(&mut self, layer: Descriptor, diff_id: String, options: &Options) -> io::Result<String> {
        let platform = Platform { architecture: options.arch.row().oci, os: "linux" };
        let rootfs = Rootfs { r#type: "layers", diff_ids: [diff_id] };
        let config = self.blob(CONFIG, &Config { platform, config: &options.process, rootfs })?;
        let manifest = self
            .blob(MANIFEST, &Manifest { schema_version: 2, media_type: MANIFEST, config, layers: [layer] })?;
        let digest = manifest.digest.clone();
        let manifest = Descriptor {
            platform: Some(platform),
            annotations: BTreeMap::from([(REF_NAME, options.reference.clone())]),
            ..manifest
        };
        let index = Index { schema_version: 2, media_type: INDEX, manifests: [manifest] };
        self.file("index.json".into(), &json(&index)?)?;
        self.file("oci-layout".into(), &json(&Version { image_layout_version: "1.0.0" })?)?;
        Ok(digest)
    }

    fn blob(&mut self, media_type: &'static str, document: &impl Serialize) -> io::Result<Descriptor> {
        let bytes = json(document)?;
        let digest = digest_text(Sha256::new_with_prefix(&bytes));
        self.file(blob_path(&digest), &bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    fn file(&mut self, path: PathBuf, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.dir.join(&path), bytes)?;
        self.files.push(path);
        Ok(())
    }
}

impl Descriptor {
    fn new(media_type: &'static str, digest: String, size: u64) -> Self {
        Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() }
    }
}

/// Passes bytes on, and remembers what they were.
struct Hashing<W> {
    to: W,
    digest: Sha256,
    length: u64,
}

impl<W> Hashing<W> {
    fn new(to: W) -> Self {
        Hashing { to, digest: Sha256::new(), length: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn json(document: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(document)?)
}

fn digest_text(digest: Sha256) -> String {
    let digest = digest.finalize();
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn blob_path(digest: &str) -> PathBuf {
    Path::new("blobs").join(digest.replacen(':', "/", 1))
}
