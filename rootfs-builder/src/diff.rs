//! What differs between two sets of artefacts, for a person: sizes, packages, options of the kernel, files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use guest_manifest::Manifest;

use crate::contents::{Contents, Entry};
use crate::error::{Error, at};

/// A set, as far as it can be compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// "recipe", "kernel version", the command lines.
    settings: BTreeMap<String, String>,
    /// Bytes of each file of the set.
    sizes: BTreeMap<String, String>,
    packages: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

/// The differences between the sets in two directories, a line each, by section. Nothing if there is none.
pub fn diff(before: &Path, after: &Path) -> Result<Vec<String>, Error> {
    let (before, after) = (Facts::load(before)?, Facts::load(after)?);
    let mut lines = Vec::new();
    for (title, section) in [
        ("settings", (|facts| &facts.settings) as fn(&Facts) -> &BTreeMap<String, String>),
        ("artefacts", |facts| &facts.sizes),
        ("packages", |facts| &facts.packages),
        ("kernel options", |facts| &facts.options),
        ("files", |facts| &facts.files),
    ] {
        let found = compare(section(&before), section(&after));
        if !found.is_empty() {
            lines.push(format!("{title}:"));
            lines.extend(found.into_iter().map(|line| format!("  {line}")));
        }
    }
    Ok(lines)
}

fn compare(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let line = |name: &&String| match (before.get(*name), after.get(*name)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => Some(format!("~ {name}: {old} -> {new}")),
        (Some(old), None) => Some(format!("- {name}: {old}")),
        (None, new) => Some(format!("+ {name}: {}", new.map_or("", String::as_str))),
    };
    names.iter().filter_map(line).collect()
}

impl Facts {
    fn load(dir: &Path) -> Result<Facts, Error> {
        let manifest = Manifest::load(dir)?;
        let contents = Contents::load(dir)?;
        let path = dir.join(&manifest.kernel_config.file);
        let config = fs::read_to_string(&path).map_err(at("read", &path))?;
        Ok(Facts::of(&manifest, &contents, &config))
    }

    fn of(manifest: &Manifest, contents: &Contents, config: &str) -> Facts {
        let mut facts = Facts { options: options(config), ..Facts::default() };
        for (name, value) in [
            ("arch", manifest.arch.clone()),
            ("recipe", manifest.recipe.clone()),
            ("kernel variant", manifest.variant.clone()),
            ("kernel version", manifest.kernel_version.clone()),
            ("features of the agent", manifest.features.join(" ")),
            ("command line", manifest.cmdline.clone()),
        ] {
            facts.settings.insert(name.to_owned(), value);
        }
        for artefact in manifest.artefacts() {
            let said =
                format!("{} bytes ({})", artefact.size, &artefact.sha256[..artefact.sha256.len().min(12)]);
            facts.sizes.insert(artefact.file.clone(), said);
        }
        let named = contents.extensions.iter().map(|(name, entries)| (format!("{name}:"), entries));
        for (prefix, entries) in [(String::new(), &contents.root)].into_iter().chain(named) {
            for entry in entries {
                if let Some((name, version)) = package(&entry.origin) {
                    facts.packages.insert(name.to_owned(), version.to_owned());
                }
                facts.files.insert(format!("{prefix}{}", entry.path), said_of(entry));
            }
        }
        facts
    }
}

/// "package bash 5.2-1".
fn package(origin: &str) -> Option<(&str, &str)> {
    origin.strip_prefix("package ")?.split_once(' ')
}

/// Not the origin: the same file from a newer package is the same file.
fn said_of(entry: &Entry) -> String {
    let mut said = format!("{} {} {}:{}", entry.kind, entry.mode, entry.owner.0, entry.owner.1);
    if let (Some(size), Some(digest)) = (entry.size, &entry.sha256) {
        said += &format!(" {size} bytes ({})", &digest[..digest.len().min(12)]);
    }
    entry.target.iter().for_each(|target| said += &format!(" {target}"));
    entry.xattrs.iter().for_each(|(name, value)| said += &format!(" {name}={value}"));
    said
}

/// Symbols that are set; one that is not is the same as one that is not there.
fn options(config: &str) -> BTreeMap<String, String> {
    let set = config.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::image::tests::made_with;

    #[test]
    fn a_set_does_not_differ_from_itself() {
        let dir = tempfile::tempdir().unwrap();
        let set = made_with(dir.path(), &[Format::Erofs]).dir;
        assert_eq!(diff(&set, &set).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_difference_has_its_section() {
        let dir = tempfile::tempdir().unwrap();
        let image = made_with(dir.path(), &[Format::Erofs]);
        let mut contents = Contents::load(&image.dir).unwrap();
        contents.root[1].origin = "package base-files 12".to_owned();
        let before = Facts::of(&image.manifest, &contents, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=3\n");
        let mut manifest = image.manifest;
        manifest.kernel.size = 9;
        manifest.variant = "debug".to_owned();
        contents.root[1].origin = "package base-files 13".to_owned();
        contents.root.retain(|entry| entry.path != "/init");
        contents.root[1].mode = "0700".to_owned();
        let after = Facts::of(&manifest, &contents, "CONFIG_B=y\nCONFIG_C=4\n");
        let found =
            |section: fn(&Facts) -> &BTreeMap<String, String>| compare(section(&before), section(&after));
        assert_eq!(found(|f| &f.settings), ["~ kernel variant: lean -> debug"]);
        assert_eq!(found(|f| &f.packages), ["~ base-files: 12 -> 13"]);
        assert_eq!(found(|f| &f.options), ["- CONFIG_A: y", "+ CONFIG_B: y", "~ CONFIG_C: 3 -> 4"]);
        let files = found(|f| &f.files);
        assert_eq!(files.len(), 2, "{files:?}");
        assert_eq!(files[0], "~ /dev: directory 0755 0:0 -> directory 0700 0:0");
        assert!(files[1].starts_with("- /init: link 0777 0:0 /sbin/init"), "{files:?}");
        assert!(found(|f| &f.sizes)[0].starts_with("~ vmlinux: 7 bytes ("));
    }
}
