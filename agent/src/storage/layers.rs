//! A root file system of layers: read-only erofs images, each on a device or a partition of its own, with one layer to
//! write to on top. What is mounted where is the containers' own: `/run/kata-containers/<id>/multi-layer`.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use agent_api::agent::Storage;
use agent_api::paths;
use nix::mount::MsFlags;

use super::block;
use super::done::{Done, Step};
use super::plan::{self, Refusal, refuse};
use super::point::{self, Mounting};
use super::verity::Checked;
use super::workplace::Workplace;
use super::{At as _, Fault};
use crate::devices::{Address, Tree};
use crate::dm;

const DRIVER: &str = "erofs.multi-layer";
const PREFIX: &str = "X-kata.";

/// The kernel takes one page of options, and keeps the rest of the words in it too.
const MAX_DATA: usize = 4000;

#[derive(Debug, PartialEq)]
pub(super) struct Layers {
    /// The layer to write to; `None`: a directory of the guest.
    upper: Option<Layer>,
    /// The topmost first.
    lowers: Vec<Layer>,
    /// Directories to be made once the layers are there.
    directories: Vec<Directory>,
    work: PathBuf,
}

#[derive(Debug, PartialEq)]
struct Layer {
    address: Address,
    /// Which partition of the device; `None`: the whole.
    partition: Option<u32>,
    checked: Option<Checked>,
    mounting: Mounting,
}

#[derive(Debug, PartialEq, Eq)]
struct Directory {
    in_upper: bool,
    path: PathBuf,
    mode: Option<u32>,
}

/// Whether a storage is a layer of a root file system rather than a file system by itself.
pub(super) fn is_layer(storage: &Storage) -> bool {
    storage.driver == DRIVER || storage.options.iter().any(|option| option == "X-kata.multi-layer=true")
}

impl Layers {
    pub(super) fn plan(storages: &[&Storage], owner: &str) -> Result<Self, Refusal> {
        let mut upper = None;
        let mut lowers = Vec::new();
        let mut directories = Vec::new();
        for storage in storages {
            for word in storage.options.iter().filter_map(|option| option.strip_prefix("X-kata.mkdir.path="))
            {
                directories.push(Directory::plan(word)?);
            }
            let (layer, number) = Layer::plan(storage)?;
            if !is_upper(storage)? {
                lowers.push((number.unwrap_or(u32::MAX), layer));
            } else if upper.replace(layer).is_some() {
                return refuse("options", "there are two layers to write to");
            }
        }
        if lowers.is_empty() {
            return refuse("options", "there is no layer with files (X-kata.overlay-lower)");
        }
        // The order of the request decides between layers without a number.
        lowers.sort_by_key(|(number, _)| *number);
        let lowers = lowers.into_iter().map(|(_, layer)| layer).collect();
        let work = Path::new(paths::RUN).join(owner).join("multi-layer");
        Ok(Self { upper, lowers, directories, work })
    }

    pub(super) fn make(&self, target: &Path, place: &Workplace, done: &mut Done) -> Result<(), Fault> {
        let upper = self.work.join("upper");
        match &self.upper {
            Some(layer) => layer.mount(&upper, place, done)?,
            None => point::scratch(&upper, done)?,
        }
        let mut lowers = Vec::new();
        for (number, layer) in self.lowers.iter().enumerate() {
            let lower = self.work.join(format!("lower-{number}"));
            layer.mount(&lower, place, done)?;
            lowers.push(lower);
        }
        // They are files of the layer, and go with it.
        let mut forgotten = Done::default();
        for directory in &self.directories {
            let top = if directory.in_upper { &upper } else { &lowers[0] };
            let path = top.join(&directory.path);
            let made = point::directory(&path, &mut forgotten)?;
            if let Some(mode) = directory.mode {
                set_mode(&made, mode).at(|| format!("set the mode of {path:?}"))?;
            }
        }
        let (files, work) = (upper.join("upper"), upper.join("work"));
        for directory in [&files, &work] {
            point::directory(directory, &mut forgotten)?;
        }
        overlay(&lowers, &files, &work, target, done)
    }
}

/// Lays the layers over each other at `target`.
fn overlay(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    done: &mut Done,
) -> Result<(), Fault> {
    let data = |lowers: &[PathBuf]| {
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
        format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), upper.display(), work.display())
    };
    let mut options = data(lowers);
    let open: Vec<OwnedFd>;
    if options.len() > MAX_DATA {
        // Shorter names for the same directories; the kernel asks for them once.
        open = lowers
            .iter()
            .map(|lower| point::open(lower).at(|| format!("open {lower:?}")))
            .collect::<Result<_, _>>()?;
        options = data(&open.iter().map(point::path_of).collect::<Vec<_>>());
    }
    let mounting = Mounting {
        source: "overlay".to_string(),
        fstype: "overlay".to_string(),
        flags: MsFlags::empty(),
        data: options,
    };
    mounting.mount(target, done)
}

impl Layer {
    /// A layer, and its number among those of its image.
    fn plan(storage: &Storage) -> Result<(Self, Option<u32>), Refusal> {
        let driver = match storage.driver.as_str() {
            DRIVER if storage.source.starts_with("/dev/") => "mmioblk",
            DRIVER => "blk",
            driver => driver,
        };
        let address = match Address::of(driver, &storage.source) {
            Ok(address) => address,
            Err(error) => return refuse("source", error.to_string()),
        };
        let value = |key: &str| storage.options.iter().find_map(|option| option.strip_prefix(key));
        let number = match value("X-kata.partition-number=").map(str::parse::<u32>) {
            None => None,
            Some(Ok(number)) if number > 0 => Some(number),
            Some(_) => return refuse("options", "X-kata.partition-number is not a number above 0"),
        };
        let partition = match value("X-kata.gpt-partitioned=") {
            Some("true") if number.is_none() => {
                return refuse("options", "X-kata.gpt-partitioned needs X-kata.partition-number");
            }
            Some("true") => number,
            _ => None,
        };
        let words: Vec<_> =
            storage.options.iter().filter(|option| !option.starts_with(PREFIX)).cloned().collect();
        let (mut flags, data) = plan::mount_options(&words)?;
        if storage.fstype == "erofs" {
            flags |= MsFlags::MS_RDONLY;
        }
        let checked = Checked::plan(&storage.options)?;
        let mounting = Mounting { source: String::new(), fstype: storage.fstype.clone(), flags, data };
        Ok((Self { address, partition, checked, mounting }, number))
    }

    fn mount(&self, target: &Path, place: &Workplace, done: &mut Done) -> Result<(), Fault> {
        let mut node = place.node(&self.address)?;
        if let Some(number) = self.partition {
            let found = Tree::default().partition(&node, number);
            let found = found.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound));
            node = found.at(|| format!("find partition {number} of {node:?}"))?;
        }
        if let Some(checked) = &self.checked {
            let table = checked.table(&node).at(|| format!("read the hashes of {node:?}"))?;
            let device =
                dm::verify(&node, &node, &table).at(|| format!("check {node:?} by its root hash"))?;
            node = device.node();
            done.note(Step::Device(device));
        }
        block::mount(&node, &self.mounting, target, done)
    }
}

/// Which of the two a layer is: its option says so, else its type.
fn is_upper(storage: &Storage) -> Result<bool, Refusal> {
    let has = |word: &str| storage.options.iter().any(|option| option == word);
    match (has("X-kata.overlay-upper"), has("X-kata.overlay-lower"), storage.fstype.as_str()) {
        (true, true, _) => refuse("options", "a layer cannot be both upper and lower"),
        (true, false, "erofs") => refuse("fstype", "nobody can write to an erofs"),
        (true, false, _) | (false, false, "ext4") => Ok(true),
        (false, true, _) | (false, false, "erofs") => Ok(false),
        _ => refuse("fstype", format!("{:?} is no layer", storage.fstype)),
    }
}

impl Directory {
    /// `<path>[:<octal mode>[:...]]`, the path beginning with `{{ mount 0 }}` (the upper layer) or `{{ mount 1 }}` (the
    /// first lower one).
    fn plan(word: &str) -> Result<Self, Refusal> {
        let mut parts = word.split(':');
        let path = parts.next().unwrap_or_default();
        let bad = || Refusal { field: "options", reason: format!("bad option \"X-kata.mkdir.path={word}\"") };
        let (in_upper, rest) = match path.strip_prefix("{{ mount 0 }}") {
            Some(rest) => (true, rest),
            None => (false, path.strip_prefix("{{ mount 1 }}").ok_or_else(bad)?),
        };
        let path = plan::absolute("options", rest)?;
        let mode = match parts.next().filter(|mode| !mode.is_empty()) {
            None => None,
            Some(mode) => {
                Some(u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(bad)?)
            }
        };
        let path = path.strip_prefix("/").map_err(|_| bad())?.to_path_buf();
        Ok(Self { in_upper, path, mode })
    }
}

fn set_mode(directory: &OwnedFd, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(point::path_of(directory), fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(source: &str, fstype: &str, options: &[&str]) -> Storage {
        let options = options.iter().map(|option| format!("{PREFIX}{option}"));
        Storage {
            driver: "mmioblk".into(),
            source: source.into(),
            fstype: fstype.into(),
            options: options.chain(["X-kata.multi-layer=true".into()]).collect(),
            mount_point: "/run/kata-containers/c1/rootfs".into(),
            ..Default::default()
        }
    }

    fn plan(storages: &[Storage]) -> Result<Layers, Refusal> {
        Layers::plan(&storages.iter().collect::<Vec<_>>(), "c1")
    }

    #[test]
    fn the_lower_number_is_the_upper_layer() {
        let number = |number: &str| format!("partition-number={number}");
        let storages = [
            layer("/dev/vda", "ext4", &["overlay-upper"]),
            layer("/dev/vdb", "erofs", &["overlay-lower", "gpt-partitioned=true", &number("2")]),
            layer("/dev/vdb", "erofs", &["overlay-lower", "gpt-partitioned=true", &number("1")]),
            layer("/dev/vdc", "erofs", &["overlay-lower"]),
        ];
        let layers = plan(&storages).unwrap();
        let partitions: Vec<_> = layers.lowers.iter().map(|layer| layer.partition).collect();
        assert_eq!(partitions, [Some(1), Some(2), None]);
        assert!(layers.upper.is_some());
        assert!(layers.lowers.iter().all(|layer| layer.mounting.flags.contains(MsFlags::MS_RDONLY)));
        assert!(layers.lowers.iter().all(|layer| layer.mounting.data.is_empty()), "markers are no options");
    }

    #[test]
    fn without_markers_the_type_decides_and_no_upper_is_fine() {
        assert!(plan(&[layer("/dev/vda", "erofs", &[])]).unwrap().upper.is_none());
        let both = plan(&[layer("/dev/vda", "erofs", &[]), layer("/dev/vdb", "ext4", &[])]).unwrap();
        assert!(both.upper.is_some());
    }

    #[test]
    fn what_makes_no_root_is_refused() {
        let ext4 = || layer("/dev/vda", "ext4", &["overlay-upper"]);
        let erofs = || layer("/dev/vdb", "erofs", &["overlay-lower"]);
        for storages in [
            vec![ext4()],
            vec![ext4(), ext4(), erofs()],
            vec![layer("/dev/vdb", "erofs", &["overlay-upper"]), erofs()],
            vec![layer("/dev/vdb", "vfat", &[]), erofs()],
            vec![layer("/dev/vdb", "erofs", &["overlay-upper", "overlay-lower"])],
            vec![layer("/dev/vdb", "erofs", &["gpt-partitioned=true"])],
            vec![layer("/dev/vdb", "erofs", &["partition-number=0"])],
            vec![layer("/dev/vdb", "erofs", &["mkdir.path={{ mount 0 }}/../x"])],
            vec![layer("/dev/vdb", "erofs", &["mkdir.path=/etc/x"])],
            vec![layer("/dev/vdb", "erofs", &["dmverity-enabled=true"])],
            vec![layer("vdb", "erofs", &[])],
        ] {
            assert!(plan(&storages).is_err(), "{storages:?}");
        }
    }

    #[test]
    fn directories_are_told_by_layer_and_mode() {
        let directory = Directory::plan("{{ mount 0 }}/upper/tmp:1777:0:0").unwrap();
        assert_eq!(directory, Directory { in_upper: true, path: "upper/tmp".into(), mode: Some(0o1777) });
        let directory = Directory::plan("{{ mount 1 }}/x").unwrap();
        assert_eq!(directory, Directory { in_upper: false, path: "x".into(), mode: None });
    }
}
