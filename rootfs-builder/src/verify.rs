//! Whether a set of artefacts is what its manifest says: every digest, every hash tree block by block, every command line.
//! Nothing of it is believed but the manifest itself, and of that nothing that can be computed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use guest_formats::Uuid;
use guest_formats::verity::{self, BLOCK, HashPlace, RootHash, Superblock};
use guest_manifest::{Artefact, Manifest, Verity};

use crate::contents::{self, Contents};
use crate::error::{Error, at};
use crate::format::Format;
use crate::image::{SUMS, sums};
use crate::write;

/// One thing that is not what it should be, in a sentence.
pub type Finding = String;

/// Checks the set in `dir`; gives everything that is wrong with it, and its manifest.
pub fn verify(dir: &Path) -> Result<(Manifest, Vec<Finding>), Error> {
    let manifest = Manifest::load(dir)?;
    let mut findings = files(dir, &manifest)?;
    for image in &manifest.images {
        let Ok(format) = image.format.parse::<Format>() else {
            findings.push(format!("{}: there is no format {:?}", image.artefact.file, image.format));
            continue;
        };
        let mapping = write::mapping_of(format);
        if mapping.is_some() != image.verity.is_some() {
            findings.push(format!("{}: a hash tree is missing, or should not be there", image.artefact.file));
        }
        if let (Some(mapping), Some(verity)) = (&mapping, &image.verity) {
            findings.extend(hash_tree(dir, &image.artefact.file, verity, mapping)?);
        }
        let predicted = write::cmdline(format, &manifest.cmdline, image.verity.as_ref());
        if predicted != image.cmdline {
            findings.push(format!(
                "{}: the command line is not the one it has to be booted with",
                image.artefact.file
            ));
        }
    }
    for (index, extension) in (0..).zip(&manifest.extensions) {
        let partitions = write::partitions_of_extension(index);
        let mapping = write::mapping_of_extension(&extension.name, index, &partitions);
        let file = &extension.artefact.file;
        findings.extend(hash_tree(dir, file, &extension.verity, &mapping)?);
        if extension.cmdline != write::cmdline_of_extension(&extension.name, &extension.verity) {
            findings.push(format!("{file}: its word of the command line is not the one for this tree"));
        }
    }
    findings.extend(agent(dir, &manifest)?);
    Ok((manifest, findings))
}

/// Digests, the list of them, and files that nobody speaks of.
fn files(dir: &Path, manifest: &Manifest) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for artefact in manifest.artefacts() {
        let found = Artefact::measure(dir, &artefact.file)?;
        if found.sha256 != artefact.sha256 {
            let (file, found, expected) = (&artefact.file, &found.sha256, &artefact.sha256);
            findings.push(format!("{file}: its sha256 is {found}, the manifest says {expected}"));
        }
    }
    let path = dir.join(SUMS);
    let listed = fs::read_to_string(&path).map_err(at("read", &path))?;
    if listed != sums(manifest, &Artefact::measure(dir, guest_manifest::FILE)?) {
        findings.push(format!("{SUMS}: it is not the list of these files"));
    }
    let known: BTreeSet<&str> =
        manifest.artefacts().into_iter().map(|artefact| artefact.file.as_str()).collect();
    for entry in fs::read_dir(dir).map_err(at("list", dir))? {
        let name = entry.map_err(at("list", dir))?.file_name().to_string_lossy().into_owned();
        if !known.contains(name.as_str()) && name != SUMS && name != guest_manifest::FILE {
            findings.push(format!("{name}: the manifest does not know it"));
        }
    }
    findings.sort();
    Ok(findings)
}

/// Recomputes a hash tree from the data, and the kernel's argument from the tree.
fn hash_tree(
    dir: &Path,
    file: &str,
    said: &Verity,
    mapping: &verity::Mapping<'_>,
) -> Result<Vec<Finding>, Error> {
    let path = dir.join(file);
    let part = |offset: u64, blocks: u64| -> Result<_, Error> {
        let mut part = File::open(&path).map_err(at("open", &path))?;
        part.seek(SeekFrom::Start(offset)).map_err(at("read", &path))?;
        Ok(part.take(blocks.saturating_mul(BLOCK as u64)))
    };
    let wrong = |what: String| Ok(vec![format!("{file}: {what}")]);
    let has_superblock = !matches!(mapping.hash, HashPlace::Bare(_));
    if said.superblock != has_superblock {
        return wrong("verity: the manifest is wrong about there being a superblock".to_owned());
    }
    let Some(described) = superblock_of(said) else {
        return wrong("verity: what the manifest describes is no hash tree of ours".to_owned());
    };
    let mut tree_offset = said.hash_offset;
    if has_superblock {
        let mut block = [0; BLOCK];
        if part(said.hash_offset, 1)?.read_exact(&mut block).is_err() {
            return wrong("verity: it ends before its hash tree".to_owned());
        }
        match Superblock::decode(&block) {
            Ok(superblock) if superblock == described => tree_offset += BLOCK as u64,
            Ok(_) => {
                return wrong("verity: the superblock is not the one that the manifest describes".to_owned());
            }
            Err(error) => return wrong(error.to_string()),
        }
    }
    let Ok(root) = said.root_hash.parse::<RootHash>() else {
        return wrong(format!("verity: {:?} is no root hash", said.root_hash));
    };
    let superblock = described.encode();
    let expected = verity::Verity { root, superblock: described };
    let whole = part(said.data_offset, said.data_blocks)?
        .chain(&superblock[..])
        .chain(part(tree_offset, hash_blocks(said.data_blocks))?);
    let mut findings = Vec::new();
    if let Err(error) = verity::verify(whole, &expected) {
        findings.push(format!("{file}: {error}"));
    }
    if mapping.kernel_argument(&expected)? != said.dm_mod_create {
        findings.push(format!("{file}: verity: dm-mod.create is not the one for this tree"));
    }
    Ok(findings)
}

/// The superblock with which a manifest describes a tree, if it is one.
fn superblock_of(said: &Verity) -> Option<Superblock> {
    let bytes = |text: &str| -> Option<Vec<u8>> {
        let pairs = text.as_bytes().chunks(2).map(std::str::from_utf8);
        pairs.map(|pair| u8::from_str_radix(pair.ok()?, 16).ok()).collect()
    };
    let uuid = Uuid(bytes(&said.uuid.replace('-', ""))?.try_into().ok()?);
    let salt = bytes(&said.salt).filter(|salt| salt.len() <= verity::MAX_SALT)?;
    (said.block_size == BLOCK as u32).then_some(Superblock { uuid, salt, data_blocks: said.data_blocks })
}

/// How many blocks the levels of a tree have: each block holds the digests of 128 blocks of the level below.
fn hash_blocks(data_blocks: u64) -> u64 {
    let (mut level, mut all) = (data_blocks, 0);
    while level > 1 {
        level = level.div_ceil(BLOCK as u64 / 32);
        all += level;
    }
    all
}

/// The agent on its own is the one in the images.
fn agent(dir: &Path, manifest: &Manifest) -> Result<Vec<Finding>, Error> {
    let contents = Contents::load(dir)?;
    let ours =
        contents.root.iter().filter(|entry| entry.origin == crate::compose::AGENT && entry.kind == "file");
    let wrong = ours.filter(|entry| entry.sha256.as_deref() != Some(&manifest.agent.sha256));
    let said =
        wrong.map(|entry| format!("{}: {} is not {}", contents::FILE, entry.path, manifest.agent.file));
    Ok(said.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::{made_of, made_with};
    use crate::recipe::Recipe;

    const FORMATS: [Format; 4] = [
        Format::Erofs,
        Format::Squashfs,
        Format::Disk(guest_formats::disk::Scheme::Gpt),
        Format::Kata(guest_formats::kata::Head::Dax),
    ];

    /// What is found after a change.
    fn found(change: impl FnOnce(&Path)) -> Vec<Finding> {
        let dir = tempfile::tempdir().unwrap();
        let image = made_with(dir.path(), &FORMATS);
        change(&image.dir);
        verify(&image.dir).unwrap().1
    }

    fn flip(path: &Path, offset: u64) {
        let mut bytes = fs::read(path).unwrap();
        bytes[usize::try_from(offset).unwrap()] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn manifest_of(dir: &Path, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = Manifest::load(dir).unwrap();
        change(&mut manifest);
        manifest.write(dir).unwrap();
        let itself = Artefact::measure(dir, guest_manifest::FILE).unwrap();
        fs::write(dir.join(SUMS), sums(&manifest, &itself)).unwrap();
    }

    #[test]
    fn what_was_built_is_what_it_says() {
        assert_eq!(found(|_| ()), Vec::<Finding>::new());
    }

    #[test]
    fn a_changed_byte_is_found_by_its_digest_and_by_the_tree() {
        for format in FORMATS {
            let findings = found(|dir| {
                let image = Manifest::load(dir).unwrap().image(format.name()).unwrap().clone();
                flip(&dir.join(format.file()), image.verity.unwrap().data_offset + 10);
            });
            assert_eq!(findings.len(), 2, "{findings:?}");
            assert!(findings[0].starts_with(&format!("{}: its sha256 is ", format.file())), "{findings:?}");
            assert!(findings[1].contains("data block 0 (from byte 0)"), "{findings:?}");
        }
    }

    #[test]
    fn a_manifest_that_was_changed_with_its_sums_is_found_by_what_can_be_computed() {
        let findings = found(|dir| {
            manifest_of(dir, |manifest| {
                let verity = manifest.images[0].verity.as_mut().unwrap();
                verity.root_hash = "0".repeat(64);
                verity.dm_mod_create =
                    verity.dm_mod_create.replace("panic_on_corruption", "ignore_corruption");
                manifest.images[1].cmdline = Some("init=/bin/sh".to_owned());
            });
        });
        let found = |text: &str| findings.iter().any(|finding| finding.contains(text));
        assert!(found("rootfs.erofs: verity: ") && found("is not what the root hash says"), "{findings:?}");
        assert!(found("rootfs.erofs: verity: dm-mod.create is not the one"), "{findings:?}");
        assert!(found("rootfs.erofs: the command line is not the one"), "{findings:?}");
        assert!(found("rootfs.squashfs: the command line is not the one"), "{findings:?}");
    }

    #[test]
    fn a_file_that_nobody_speaks_of_and_a_wrong_list_are_found() {
        let findings = found(|dir| {
            fs::write(dir.join("extra"), "").unwrap();
            fs::write(dir.join(SUMS), "").unwrap();
        });
        assert_eq!(
            findings,
            ["SHA256SUMS: it is not the list of these files", "extra: the manifest does not know it"]
        );
    }

    #[test]
    fn an_extension_is_a_disk_of_katas_and_is_verified_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::write(dir.path().join("tree/tool"), "tool").unwrap();
        let path = dir.path().join("mine.toml");
        let text = "extends = 'minimal'\n[[extension]]\nname = 'tools'\nfrom = 'tree'\n";
        fs::write(&path, text).unwrap();
        let recipe = Recipe::load(path.to_str().unwrap()).unwrap();
        let image = made_of(dir.path(), &recipe, &[Format::Erofs]);
        assert_eq!(verify(&image.dir).unwrap().1, Vec::<Finding>::new());

        let extension = &image.manifest.extensions[0];
        let file = image.dir.join(&extension.artefact.file);
        let disk = fs::read(&file).unwrap();
        let parts = crate::parts::of(&extension.artefact.file, &disk).unwrap();
        let named = |name: &str| parts.iter().any(|part| part.name == name);
        assert!(named("partition 1: /tool") && named("partition 2: the hash tree"), "{parts:?}");
        let word = format!("kata.extension.tools.verity_params={}", extension.verity.kata_params());
        assert_eq!(extension.cmdline, word);

        flip(&file, extension.verity.data_offset + 10);
        manifest_of(&image.dir, |manifest| manifest.extensions[0].cmdline.push(','));
        let findings = verify(&image.dir).unwrap().1;
        assert!(findings[1].contains("data block 0 (from byte 0)"), "{findings:?}");
        assert!(findings[2].contains("its word of the command line is not the one"), "{findings:?}");
    }

    #[test]
    fn hash_blocks_are_those_of_every_level() {
        for (data, hashes) in [(1, 0), (2, 1), (128, 1), (129, 3), (128 * 128, 129), (128 * 128 + 1, 132)] {
            assert_eq!(hash_blocks(data), hashes, "{data}");
        }
    }
}
