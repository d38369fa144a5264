//! What packages' scripts would have done, from the table in `scripts.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use guest_tree::{Kind, Node, Origin, Tree};
use serde::Deserialize;

use super::put_unless_there;
use crate::error::Error;

const TABLE: &str = include_str!("../../scripts.toml");
const STEP: &str = "scripts";

/// The rows of the table for the packages of one image.
#[derive(Debug)]
pub(super) struct Scripts(BTreeMap<String, Script>);

/// What is left of one package's scripts. The file says what each key means.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Script {
    directories: BTreeMap<String, String>,
    links: BTreeMap<String, String>,
    copies: BTreeMap<String, String>,
    bundles: BTreeMap<String, String>,
    sysusers: Vec<String>,
    tmpfiles: Vec<String>,
}

/// Those of some packages.
pub(super) fn of<'a>(packages: impl Iterator<Item = &'a str>) -> Result<Scripts, Error> {
    of_table(TABLE, packages)
}

fn of_table<'a>(table: &str, packages: impl Iterator<Item = &'a str>) -> Result<Scripts, Error> {
    let parsed = toml::from_str::<BTreeMap<String, Script>>(table);
    let mut all =
        parsed.map_err(|error| Error::Finish { step: STEP, what: format!("scripts.toml: {error}") })?;
    Ok(Scripts(packages.filter_map(|name| all.remove_entry(name)).collect()))
}

impl Scripts {
    /// Accounts that the scripts would make.
    pub(super) fn sysusers(&self) -> impl Iterator<Item = &str> {
        self.0.values().flat_map(|script| &script.sysusers).map(String::as_str)
    }

    /// Everything but the accounts.
    pub(super) fn apply(&self, tree: &mut Tree, origin: &Origin) -> Result<(), Error> {
        for (package, script) in &self.0 {
            let wrong = |what: String| Error::Finish { step: STEP, what: format!("{package}: {what}") };
            for (path, mode) in &script.directories {
                let mode = u32::from_str_radix(mode, 8).map_err(|_| wrong(format!("odd mode {mode:?}")))?;
                put_unless_there(tree, path, Node::directory(mode, origin))?;
            }
            for (path, target) in &script.links {
                link(tree, path, target, origin)?;
            }
            for (path, source) in &script.copies {
                copy(tree, path, source, origin)
                    .map_err(|error| error.unwrap_or_else(|| missing(package, source)))?;
            }
            for (path, pattern) in &script.bundles {
                let bundle = bundle(tree, pattern).map_err(wrong)?;
                put_unless_there(tree, path, Node::file(0o644, bundle, origin))?;
            }
            if !script.tmpfiles.is_empty() {
                let lines: String = script.tmpfiles.iter().map(|line| format!("{line}\n")).collect();
                let path = format!("usr/lib/tmpfiles.d/husk-{package}.conf");
                put_unless_there(tree, &path, Node::file(0o644, lines.as_str(), origin))?;
            }
        }
        Ok(())
    }
}

/// A link where nothing is, or an empty directory that a package has in its place.
fn link(tree: &mut Tree, path: &str, target: &str, origin: &Origin) -> Result<(), Error> {
    let there = tree.get(path).map(|node| &node.kind);
    match there {
        None | Some(Kind::Directory) => Ok(tree.replace(path, Node::symlink(target, origin))?),
        Some(_) => Ok(()),
    }
}

/// A copy with the modes of its source. Without an error of its own it failed because the source is not
/// there.
fn copy(tree: &mut Tree, path: &str, source: &str, origin: &Origin) -> Result<(), Option<Error>> {
    let from = tree.resolve(source).and_then(|source| tree.get(source)).ok_or(None)?;
    let copied = Node::new(from.kind.clone(), from.attributes.clone(), origin);
    put_unless_there(tree, path, copied).map_err(Some)
}

fn missing(package: &str, source: &str) -> Error {
    Error::Finish { step: STEP, what: format!("{package}: has no /{source}: has the recipe pruned it?") }
}

/// Files one after the other, by name, each with an end of line at its end. Of the pattern only a star in the
/// last part counts.
fn bundle(tree: &Tree, pattern: &str) -> Result<Vec<u8>, String> {
    let (directory, name) = pattern.rsplit_once('/').ok_or("odd pattern")?;
    let (start, end) = name.split_once('*').ok_or("odd pattern")?;
    let mut bundle = Vec::new();
    for (path, node) in tree.below(Path::new(directory)) {
        let named = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Kind::File(content) = &node.kind else { continue };
        if named.starts_with(start) && named.ends_with(end) && path.parent() == Some(Path::new(directory)) {
            bundle.extend_from_slice(&content.bytes().map_err(|e| format!("/{}: {e}", path.display()))?);
            if bundle.last().is_some_and(|last| *last != b'\n') {
                bundle.push(b'\n');
            }
        }
    }
    match bundle.is_empty() {
        true => Err(format!("has no /{pattern}")),
        false => Ok(bundle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finish::text_of;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        for (path, text) in files {
            tree.put(path, Node::file(0o640, *text, &Origin::from("test"))).unwrap();
        }
        tree
    }

    fn apply(table: &str, tree: &mut Tree) -> Result<Scripts, String> {
        let apply = |scripts: Scripts| scripts.apply(tree, &Origin::from("test")).map(|()| scripts);
        of_table(table, ["p"].into_iter()).and_then(apply).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_of_row() {
        let table = "[p]\ndirectories = { 'opt' = '0700' }\nlinks = { 'var/run' = '/run', 'bin/awk' = 'mawk' }\n\
             copies = { 'etc/c' = 'usr/c', 'etc/there' = 'usr/c' }\nbundles = { 'etc/b' = 'usr/b/*.crt' }\n\
             sysusers = ['u p']\ntmpfiles = ['d /x']\n[other]\nlinks = { 'no' = 'no' }\n";
        let mut tree = tree(&[
            ("usr/c", "c"),
            ("etc/there", "mine"),
            ("bin/awk", "mine"),
            ("usr/b/2.crt", "2\n"),
            ("usr/b/1.crt", "1"),
            ("usr/b/3.txt", "3"),
            ("usr/b/deep/4.crt", "4"),
        ]);
        tree.put("var/run", Node::directory(0o755, &Origin::from("test"))).unwrap();
        let scripts = apply(table, &mut tree).unwrap();
        let text = |path| text_of(&tree, path, STEP).unwrap().unwrap();
        assert_eq!(
            (text("etc/c"), text("etc/there"), text("bin/awk")),
            ("c".into(), "mine".into(), "mine".into())
        );
        assert_eq!(tree.get("etc/c").unwrap().attributes.mode, 0o640);
        assert_eq!(
            (text("etc/b"), text("usr/lib/tmpfiles.d/husk-p.conf")),
            ("1\n2\n".into(), "d /x\n".into())
        );
        assert_eq!(tree.get("opt").unwrap().attributes.mode, 0o700);
        assert_eq!(tree.get("var/run").unwrap().kind, Kind::Symlink("/run".into()));
        assert!(tree.get("no").is_none());
        assert_eq!(scripts.sysusers().collect::<Vec<_>>(), ["u p"]);
    }

    #[test]
    fn what_is_missing_names_the_package() {
        let run = |table: &str, files: &[(&str, &str)]| apply(table, &mut tree(files)).unwrap_err();
        assert_eq!(
            run("[p]\ncopies = { 'a' = 'b' }\n", &[]),
            "finish: scripts: p: has no /b: has the recipe pruned it?"
        );
        assert_eq!(run("[p]\nbundles = { 'a' = 'b/*' }\n", &[]), "finish: scripts: p: has no /b/*");
        assert_eq!(run("[p]\ndirectories = { 'a' = '9' }\n", &[]), "finish: scripts: p: odd mode \"9\"");
        assert!(run("[p]\nlinks = { 'a' = 'b' }\n", &[("a/x", "")]).contains("with something in it"));
        assert!(run("[p]\nlink = {}\n", &[]).contains("scripts.toml: "));
    }

    #[test]
    fn our_table_can_be_read() {
        let names = ["base-files", "chrony", "iptables"];
        assert_eq!(of(names.into_iter()).unwrap().0.len(), names.len());
    }
}
