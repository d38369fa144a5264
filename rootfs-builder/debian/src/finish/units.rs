//! systemd's units: which are enabled, which must not start, which one is booted into. What `systemctl
//! --root` would do with links, done to a tree.

use std::collections::BTreeSet;

use guest_tree::{Node, Origin, Tree};

use super::text_of;
use crate::error::Error;

const STEP: &str = "units";
/// What a package has goes there; on a system before the merge of /usr that is a link.
const OF_PACKAGES: &str = "usr/lib/systemd/system";
const OF_THE_SYSTEM: &str = "etc/systemd/system";

/// Makes the links that the units' `[Install]` sections ask for, and those of the units they name by `Also=`.
pub(super) fn enable_all(tree: &mut Tree, units: &[String], origin: &Origin) -> Result<(), Error> {
    let mut done = BTreeSet::new();
    let mut to_do: Vec<String> = units.iter().rev().cloned().collect();
    while let Some(unit) = to_do.pop() {
        if done.insert(unit.clone()) {
            to_do.extend(enable(tree, &unit, origin)?);
        }
    }
    Ok(())
}

/// Makes links to nothing in the place of units.
pub(super) fn mask_all(tree: &mut Tree, units: &[String], origin: &Origin) -> Result<(), Error> {
    for unit in units {
        is_unit(unit)?;
        tree.replace(format!("{OF_THE_SYSTEM}/{unit}"), Node::symlink("/dev/null", origin))?;
    }
    Ok(())
}

/// Links the unit that is booted into.
pub(super) fn set_default(tree: &mut Tree, unit: Option<&str>, origin: &Origin) -> Result<(), Error> {
    let Some(unit) = unit else { return Ok(()) };
    let (path, _) = read(tree, unit)?;
    tree.replace(format!("{OF_THE_SYSTEM}/default.target"), Node::symlink(path, origin))?;
    Ok(())
}

/// Enables one unit; gives the units that go with it.
fn enable(tree: &mut Tree, unit: &str, origin: &Origin) -> Result<Vec<String>, Error> {
    let (path, text) = read(tree, unit)?;
    let install = install_section(&text);
    let mut links = Vec::new();
    let mut also = Vec::new();
    for (key, value) in &install {
        for name in value.split_ascii_whitespace() {
            is_unit(name)?;
            match *key {
                "Alias" => links.push(name.to_owned()),
                "WantedBy" => links.push(format!("{name}.wants/{unit}")),
                "RequiredBy" => links.push(format!("{name}.requires/{unit}")),
                "UpheldBy" => links.push(format!("{name}.upholds/{unit}")),
                "Also" => also.push(name.to_owned()),
                _ => {}
            }
        }
    }
    if links.is_empty() && also.is_empty() {
        return Err(wrong(unit, "has no [Install] section that says who wants it"));
    }
    for link in links {
        tree.replace(format!("{OF_THE_SYSTEM}/{link}"), Node::symlink(&path, origin))?;
    }
    Ok(also)
}

/// Where a unit is in the guest, and what is in it. An instance of a template is in the template's file.
fn read(tree: &Tree, unit: &str) -> Result<(String, String), Error> {
    is_unit(unit)?;
    let template =
        unit.split_once('@').and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
    for file in [Some(unit.to_owned()), template].into_iter().flatten() {
        for directory in [OF_THE_SYSTEM, OF_PACKAGES] {
            let path = format!("{directory}/{file}");
            if let Some(text) = text_of(tree, &path, STEP)? {
                return Ok((format!("/{path}"), text));
            }
        }
    }
    Err(wrong(unit, "is in no package of this image, and not among the recipe's files"))
}

/// Keys and values of the `[Install]` section. A line that ends in a backslash goes on in the next.
fn install_section(text: &str) -> Vec<(&str, String)> {
    let mut section = "";
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().map(str::trim) {
        let (line, more) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        if goes_on {
            if section == "[Install]"
                && let Some((_, value)) = found.last_mut()
            {
                value.push(' ');
                value.push_str(line);
            }
        } else if line.starts_with('[') {
            section = line;
        } else if section == "[Install]"
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.push((key.trim(), value.trim().to_owned()));
        }
        goes_on = more;
    }
    found
}

/// A name that is one file, without specifiers: these are for running systems.
fn is_unit(name: &str) -> Result<(), Error> {
    const KINDS: [&str; 8] = ["service", "target", "socket", "mount", "timer", "path", "automount", "slice"];
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let kind = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, kind)| kind);
    match kind.is_some_and(|kind| KINDS.contains(&kind)) && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(wrong(name, "is no unit's name")),
    }
}

fn wrong(unit: &str, what: &str) -> Error {
    Error::Finish { step: STEP, what: format!("unit {unit} {what}") }
}

#[cfg(test)]
mod tests {
    use guest_tree::Kind;

    use super::*;

    fn tree(units: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        tree.put("usr/lib", Node::directory(0o755, &Origin::from("test"))).unwrap();
        tree.put("lib", Node::symlink("usr/lib", &Origin::from("test"))).unwrap();
        for (path, text) in units {
            tree.put(path, Node::file(0o644, *text, &Origin::from("test"))).unwrap();
        }
        tree
    }

    fn links(tree: &Tree) -> Vec<String> {
        let links = tree.iter().filter_map(|(path, node)| match &node.kind {
            Kind::Symlink(target) => Some(format!("{} -> {}", path.display(), target.display())),
            _ => None,
        });
        links.filter(|link| link.starts_with("etc")).collect()
    }

    fn enable(tree: &mut Tree, unit: &str) -> Result<(), String> {
        enable_all(tree, &[unit.to_owned()], &Origin::from("test")).map_err(|error| error.to_string())
    }

    #[test]
    fn links_are_as_systemctl_makes_them() {
        let mut tree = tree(&[
            (
                "lib/systemd/system/a.service",
                "[Unit]\nAlias=no.service\n[Install]\nAlias=b.service\nWantedBy=x.target \\\n y.target\nAlso=c.socket d@1.service\n",
            ),
            ("lib/systemd/system/c.socket", "[Install]\n# WantedBy=no.target\nRequiredBy=sockets.target\n"),
            ("etc/systemd/system/d@.service", "[Install]\nWantedBy=z.target\n"),
        ]);
        enable(&mut tree, "a.service").unwrap();
        assert_eq!(
            links(&tree),
            [
                "etc/systemd/system/b.service -> /usr/lib/systemd/system/a.service",
                "etc/systemd/system/sockets.target.requires/c.socket -> /usr/lib/systemd/system/c.socket",
                "etc/systemd/system/x.target.wants/a.service -> /usr/lib/systemd/system/a.service",
                "etc/systemd/system/y.target.wants/a.service -> /usr/lib/systemd/system/a.service",
                "etc/systemd/system/z.target.wants/d@1.service -> /etc/systemd/system/d@.service",
            ]
        );
    }

    #[test]
    fn masked_and_default() {
        let mut tree = tree(&[("usr/lib/systemd/system/husk.target", "[Unit]\n")]);
        let origin = Origin::from("test");
        mask_all(&mut tree, &["getty@.service".to_owned()], &origin).unwrap();
        set_default(&mut tree, Some("husk.target"), &origin).unwrap();
        assert_eq!(
            links(&tree),
            [
                "etc/systemd/system/default.target -> /usr/lib/systemd/system/husk.target",
                "etc/systemd/system/getty@.service -> /dev/null",
            ]
        );
    }

    #[test]
    fn what_cannot_be_enabled_is_named() {
        let mut tree = tree(&[
            ("lib/systemd/system/a.service", "[Unit]\n"),
            ("lib/systemd/system/b.service", "[Install]\nAlias=../x.service\n"),
            ("lib/systemd/system/c.service", "[Install]\nWantedBy=%i.target\n"),
        ]);
        for (unit, what) in [
            ("a.service", "finish: units: unit a.service has no [Install] section that says who wants it"),
            ("b.service", "finish: units: unit ../x.service is no unit's name"),
            ("c.service", "finish: units: unit %i.target is no unit's name"),
            (
                "none.service",
                "finish: units: unit none.service is in no package of this image, and not among the recipe's files",
            ),
            ("../a.service", "finish: units: unit ../a.service is no unit's name"),
            ("a", "finish: units: unit a is no unit's name"),
        ] {
            assert_eq!(enable(&mut tree, unit).unwrap_err(), what);
        }
    }
}
