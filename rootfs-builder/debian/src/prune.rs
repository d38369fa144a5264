//! What an image leaves out of its packages: documentation, manual pages, translations.

use std::path::{Path, PathBuf};

use guest_tree::{Kind, Tree};

/// Patterns of paths, without a leading slash. `*` stands for any text, `/` included, as in dpkg's
/// `path-exclude`; `?` for one character.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prune<'a> {
    /// What goes, unless it is to stay.
    pub exclude: &'a [String],
    /// What stays all the same.
    pub keep: &'a [String],
}

/// Patterns that came to nothing, by their places in the lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Idle {
    /// Of those that exclude: nothing matches them.
    pub exclude: Vec<usize>,
    /// Of those that keep: nothing that would have gone matches them.
    pub keep: Vec<usize>,
}

/// Takes files and links out of a tree, and the directories that match and have nothing in them then. Says
/// which patterns did nothing.
pub fn prune(tree: &mut Tree, what: Prune<'_>) -> Idle {
    let paths = |among: &[String]| -> Vec<String> {
        let texts = tree.iter().filter_map(|(path, _)| path.to_str());
        texts
            .filter(|path| among.iter().any(|p| is_match(p.as_bytes(), path.as_bytes())))
            .map(str::to_owned)
            .collect()
    };
    let wanted_gone = paths(what.exclude);
    let idle = |patterns: &[String]| -> Vec<usize> {
        let is_idle =
            |pattern: &String| !wanted_gone.iter().any(|path| is_match(pattern.as_bytes(), path.as_bytes()));
        (0..).zip(patterns).filter(|(_, pattern)| is_idle(pattern)).map(|(place, _)| place).collect()
    };
    let idle = Idle { exclude: idle(what.exclude), keep: idle(what.keep) };
    let matches = |patterns: &[String], path: &Path| {
        path.to_str()
            .is_some_and(|path| patterns.iter().any(|pattern| is_match(pattern.as_bytes(), path.as_bytes())))
    };
    let doomed: Vec<(PathBuf, bool)> = tree
        .iter()
        .filter(|(path, _)| matches(what.exclude, path) && !matches(what.keep, path))
        .map(|(path, node)| (path.to_owned(), node.kind == Kind::Directory))
        .collect();
    // A directory comes before what is in it, so from the end.
    for (path, directory) in doomed.iter().rev() {
        if !directory || tree.below(path).next().is_none() {
            tree.remove(path);
        }
    }
    idle
}

/// Goes back to the last star when a text does not go on as the pattern does: at most their lengths
/// multiplied.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use guest_tree::{Node, Origin};

    use super::*;

    #[test]
    fn patterns() {
        let is = |pattern: &str, text: &str| is_match(pattern.as_bytes(), text.as_bytes());
        assert!(is("usr/share/doc/*", "usr/share/doc/a/b.gz") && is("*", "") && is("a?c", "abc"));
        assert!(is("usr/share/*/copyright", "usr/share/doc/x/copyright") && is("*.gz", "a.gz.gz"));
        assert!(
            !is("usr/share/doc/*", "usr/share/doc") && !is("a?c", "ac") && !is("", "a") && !is("a*b", "ac")
        );
        assert!(!is(&"*a".repeat(30), &"b".repeat(5000)), "in time");
    }

    #[test]
    fn files_go_and_directories_with_them() {
        let origin = Origin::from("test");
        let mut tree = Tree::new();
        for path in ["usr/share/doc/a/copyright", "usr/share/doc/b/README", "usr/share/man/m", "usr/bin/x"] {
            tree.put(path, Node::file(0o644, "12", &origin)).unwrap();
        }
        tree.put("usr/share/doc/c", Node::symlink("a", &origin)).unwrap();
        let exclude = ["usr/share/doc/*".to_owned(), "usr/share/man*".to_owned()];
        let keep = ["usr/share/doc/*/copyright".to_owned()];
        assert_eq!(prune(&mut tree, Prune { exclude: &exclude, keep: &keep }), Idle::default());
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        let left = ["", "usr", "usr/bin", "usr/bin/x", "usr/share", "usr/share/doc", "usr/share/doc/a"];
        assert_eq!(paths[..7], left);
        assert_eq!(paths[7..], ["usr/share/doc/a/copyright"]);
    }

    #[test]
    fn patterns_that_do_nothing_are_told() {
        let mut tree = Tree::new();
        for path in ["doc/a", "man/b"] {
            tree.put(path, Node::file(0o644, "", &Origin::from("test"))).unwrap();
        }
        let exclude = ["dco/*", "doc/*", "doc/a"].map(str::to_owned);
        // Nothing takes /man/b.
        let keep = ["man/*", "doc/?"].map(str::to_owned);
        let idle = prune(&mut tree, Prune { exclude: &exclude, keep: &keep });
        assert_eq!(idle, Idle { exclude: vec![0], keep: vec![0] });
        assert!(tree.get("doc/a").is_some());
    }
}
