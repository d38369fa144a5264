//! What is left to do when all packages are unpacked, and what their scripts would have done: accounts,
//! units, a few files that belong to no package. Each step is one function on a tree, in one order, and asks
//! nothing of this machine.
//!
//! Left out for a reason:
//! - `/etc/ld.so.cache`: the dynamic linker looks into `/lib/TRIPLET` and `/usr/lib/TRIPLET` without it,
//!   where all of Debian's libraries are; programs with private ones name the directory. The cache saves a
//!   few failed opens and is one more file to keep right.
//! - the journal's catalogue, udev's hardware database, dpkg's lists of files: nothing in a guest reads them.
//! - temporary files and state directories: systemd-tmpfiles makes them at each boot.

mod accounts;
mod identity;
mod scripts;
mod sysusers;
mod units;

use guest_tree::{Node, Origin, Tree};

use crate::error::Error;
use crate::laid::Laid;
use crate::status;

/// What a recipe says of the finished system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finish<'a> {
    /// The name until the host gives another.
    pub hostname: &'a str,
    /// The unit that is booted into unless the kernel's command line names another.
    pub default_target: Option<&'a str>,
    /// Units to enable: what their `[Install]` section says.
    pub enable: &'a [String],
    /// Units that must not start, whoever wants them.
    pub mask: &'a [String],
    /// Accounts beside those of the packages, as in sysusers.d(5).
    pub sysusers: &'a [String],
    /// Lines of /etc/fstab.
    pub fstab: &'a [String],
}

/// Finishes what was laid and pruned, and what the recipe has put to it.
pub fn finish(laid: Laid, options: &Finish<'_>) -> Result<Tree, Error> {
    let Laid { mut tree, status: stanzas, .. } = laid;
    let origin = Origin::from("the finish of a Debian image");
    let scripts = scripts::of(stanzas.keys().map(String::as_str))?;
    scripts.apply(&mut tree, &origin)?;
    let extra = scripts.sysusers().chain(options.sysusers.iter().map(String::as_str));
    accounts::write(&mut tree, extra, &origin)?;
    units::enable_all(&mut tree, options.enable, &origin)?;
    units::mask_all(&mut tree, options.mask, &origin)?;
    units::set_default(&mut tree, options.default_target, &origin)?;
    identity::write(&mut tree, options, &origin)?;
    skip_update_services(&mut tree, &origin)?;
    status::write(&mut tree, &stanzas, &origin)?;
    Ok(tree)
}

/// ConditionNeedsUpdate= compares the time of these stamps with that of /usr (systemd.unit(5)). All files of
/// an image have one time, so nothing is out of date, and no boot rebuilds the linker's cache, the catalogue
/// and the accounts.
fn skip_update_services(tree: &mut Tree, origin: &Origin) -> Result<(), Error> {
    for stamp in ["etc/.updated", "var/.updated"] {
        tree.put(stamp, Node::file(0o644, "", origin))?;
    }
    Ok(())
}

/// Puts something where a recipe has not put something else already.
fn put_unless_there(tree: &mut Tree, path: &str, node: Node) -> Result<(), Error> {
    if tree.get(path).is_none() {
        tree.put(path, node)?;
    }
    Ok(())
}

/// The text of a file in the tree; none if there is no such file.
fn text_of(tree: &Tree, path: &str, step: &'static str) -> Result<Option<String>, Error> {
    let wrong = |what: String| Error::Finish { step, what: format!("/{path}: {what}") };
    let node = tree.resolve(path).and_then(|path| tree.get(path));
    let Some(guest_tree::Kind::File(content)) = node.map(|node| &node.kind) else { return Ok(None) };
    let bytes = content.bytes().map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| wrong("is not text".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn laid() -> Laid {
        let origin = Origin::from("package p 1");
        let mut tree = Tree::new();
        let unit = "[Install]\nWantedBy=x.target\n";
        for (path, text) in [
            ("usr/lib/systemd/system/p.service", unit),
            ("usr/lib/systemd/system/x.target", "[Unit]\n"),
            ("usr/lib/sysusers.d/p.conf", "u p\n"),
        ] {
            tree.put(path, Node::file(0o644, text, &origin)).unwrap();
        }
        tree.put("var/run", Node::directory(0o755, &origin)).unwrap();
        let status = BTreeMap::from([("base-files".to_owned(), "Package: base-files\n".to_owned())]);
        Laid { tree, copyrights: BTreeMap::new(), set_id: Vec::new(), status }
    }

    #[test]
    fn every_step_is_done_and_a_failing_one_is_named() {
        let [enable, mask] = [["p.service".to_owned()], ["getty.target".to_owned()]];
        let options = Finish {
            hostname: "husk",
            default_target: Some("x.target"),
            enable: &enable,
            mask: &mask,
            sysusers: &["u q".to_owned()],
            ..Finish::default()
        };
        let error = finish(laid(), &options).unwrap_err().to_string();
        assert_eq!(
            error,
            "finish: scripts: base-files: has no /usr/share/base-files/profile: has the recipe pruned it?"
        );
        let mut whole = laid();
        let profile = Node::file(0o644, "", &Origin::from("package p 1"));
        whole.tree.put("usr/share/base-files/profile", profile).unwrap();
        let tree = finish(whole, &options).unwrap();
        for path in [
            "etc/.updated",
            "etc/passwd",
            "etc/profile",
            "etc/machine-id",
            "etc/systemd/system/default.target",
            "etc/systemd/system/getty.target",
            "etc/systemd/system/x.target.wants/p.service",
            "opt",
            "var/lib/dpkg/status",
        ] {
            assert!(tree.get(path).is_some(), "{path}");
        }
        let passwd = text_of(&tree, "etc/passwd", "test").unwrap().unwrap();
        assert_eq!(passwd, "q:x:998:998::/:/usr/sbin/nologin\np:x:999:999::/:/usr/sbin/nologin\n");
        let foreign = tree.iter().filter(|(_, node)| node.origin.starts_with("the finish")).count();
        assert!(foreign > 15, "origins tell what a package did not bring");
    }
}
