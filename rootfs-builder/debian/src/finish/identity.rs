//! Who the machine is: names, and files about the root file system.

use guest_tree::{Node, Origin, Tree};

use super::{Finish, put_unless_there};
use crate::error::Error;

const STEP: &str = "identity";

/// Writes them, each unless the recipe has.
pub(super) fn write(tree: &mut Tree, options: &Finish<'_>, origin: &Origin) -> Result<(), Error> {
    let hostname = hostname(options.hostname)?;
    let fstab: String = options.fstab.iter().map(|line| format!("{line}\n")).collect();
    let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
    let files = [
        // There and empty: each boot gets an identity of its own, and none is a "first boot", at which
        // systemd would enable what its presets say (machine-id(5)).
        ("etc/machine-id", String::new(), 0o444),
        ("etc/hostname", format!("{hostname}\n"), 0o644),
        ("etc/hosts", hosts.to_owned(), 0o644),
        // The agent writes the containers' own; the guest itself asks nobody.
        ("etc/resolv.conf", String::new(), 0o644),
        ("etc/fstab", fstab, 0o644),
    ];
    for (path, text, mode) in files {
        put_unless_there(tree, path, Node::file(mode, text.as_str(), origin))?;
    }
    put_unless_there(tree, "etc/mtab", Node::symlink("../proc/self/mounts", origin))?;
    // base-files' own link, for an image without that package.
    if tree.get("usr/lib/os-release").is_some() {
        put_unless_there(tree, "etc/os-release", Node::symlink("../usr/lib/os-release", origin))?;
    }
    Ok(())
}

/// As hostname(7) allows it, one label or several.
fn hostname(name: &str) -> Result<&str, Error> {
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        plain && !label.is_empty() && label.len() < 64 && !label.starts_with('-') && !label.ends_with('-')
    };
    match name.len() <= 64 && name.split('.').all(label) {
        true => Ok(name),
        false => Err(Error::Finish { step: STEP, what: format!("{name:?} is no host name") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finish::text_of;

    #[test]
    fn each_file_unless_it_is_there() {
        let origin = Origin::from("test");
        let mut tree = Tree::new();
        tree.put("etc/hosts", Node::file(0o644, "mine", &origin)).unwrap();
        let fstab = ["tmpfs /var tmpfs".to_owned()];
        write(&mut tree, &Finish { hostname: "husk", fstab: &fstab, ..Finish::default() }, &origin).unwrap();
        let text = |path| text_of(&tree, path, STEP).unwrap().unwrap();
        assert_eq!((text("etc/hosts"), text("etc/hostname")), ("mine".to_owned(), "husk\n".to_owned()));
        assert_eq!(
            (text("etc/machine-id"), text("etc/fstab")),
            (String::new(), "tmpfs /var tmpfs\n".to_owned())
        );
        assert!(tree.get("etc/os-release").is_none() && tree.get("etc/mtab").is_some());
    }

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "a b", "-a", "a-", "a..b", "ä", &"a".repeat(65)] {
            assert!(hostname(name).is_err(), "{name:?}");
        }
        assert!(hostname("a.b-c").is_ok());
    }
}
