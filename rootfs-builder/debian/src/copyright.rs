//! A package's copyright file. What licence it gives is for others to read out of it.

use guest_tree::{Kind, Tree};

/// Longer than any copyright file.
const LIMIT: u64 = 4 << 20;

/// The copyright file of a package whose files are in a tree; none if it has none that is text.
pub(crate) fn text(tree: &Tree, package: &str) -> Option<String> {
    let path = tree.resolve(format!("usr/share/doc/{package}/copyright"))?;
    let Kind::File(content) = &tree.get(path)?.kind else { return None };
    if content.len() > LIMIT {
        return None;
    }
    String::from_utf8(content.bytes().ok()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use guest_tree::{Node, Origin};

    use super::*;

    #[test]
    fn it_is_found_through_links_between_packages() {
        let origin = Origin::from("test");
        let mut tree = Tree::new();
        tree.put("usr/share/doc/one/copyright", Node::file(0o644, "Expat", &origin)).unwrap();
        tree.put("usr/share/doc/two", Node::symlink("one", &origin)).unwrap();
        assert_eq!(text(&tree, "two").as_deref(), Some("Expat"));
        assert_eq!(text(&tree, "three"), None);
    }

    #[test]
    fn what_is_no_text_is_none() {
        let mut tree = Tree::new();
        let binary = Node::file(0o644, vec![0xff, 0xfe], &Origin::from("test"));
        tree.put("usr/share/doc/one/copyright", binary).unwrap();
        assert_eq!(text(&tree, "one"), None);
    }
}
