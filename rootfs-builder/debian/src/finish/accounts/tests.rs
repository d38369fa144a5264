use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, text) in files {
        tree.put(path, Node::file(0o644, *text, &Origin::from("test"))).unwrap();
    }
    tree
}

fn run(files: &[(&str, &str)], extra: &[&str]) -> Result<Tree, String> {
    let mut tree = tree(files);
    let done = write(&mut tree, extra.iter().copied(), &Origin::from("test"));
    done.map(|()| tree).map_err(|error| error.to_string())
}

fn text(tree: &Tree, path: &str) -> String {
    text_of(tree, path, STEP).unwrap().unwrap()
}

const PASSWD: &str = "root:*:0:0:root:/root:/bin/bash\ngames:*:5:60:games:/usr/games:/usr/sbin/nologin\n";
const GROUP: &str = "root:*:0:\nshadow:*:42:\ngames:*:60:\nadm:*:4:root,games\n";

#[test]
fn masters_and_declarations_together() {
    let tree = run(
        &[
            (MASTERS[0], PASSWD),
            (MASTERS[1], GROUP),
            (
                "usr/lib/sysusers.d/b.conf",
                "u _chrony - \"Chrony, daemon\" /var/lib/chrony\nu! zed\nm zed adm\n",
            ),
            ("usr/lib/sysusers.d/a.conf", "g systemd-journal - -\nu root 0\nu games 77\n"),
        ],
        &["g kvm"],
    )
    .unwrap();
    assert_eq!(
        text(&tree, "etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\n\
         games:x:5:60:games:/usr/games:/usr/sbin/nologin\n\
         zed:x:996:996::/:/usr/sbin/nologin\n\
         _chrony:x:999:999:Chrony, daemon:/var/lib/chrony:/usr/sbin/nologin\n"
    );
    assert_eq!(
        text(&tree, "etc/group"),
        "root:x:0:\nadm:x:4:games,root,zed\nshadow:x:42:\ngames:x:60:\nzed:x:996:\nsystemd-journal:x:997:\nkvm:x:998:\n\
         _chrony:x:999:\n"
    );
    assert!(text(&tree, "etc/shadow").contains("zed:!*::::::1:\n_chrony:!*:::::::\n"));
    assert!(text(&tree, "etc/gshadow").contains("adm:!*::games,root,zed\n"));
    let shadow = &tree.get("etc/shadow").unwrap().attributes;
    assert_eq!((shadow.mode, shadow.gid), (0o640, 42));
}

#[test]
fn numbers_depend_on_names_and_not_on_the_order_of_lines() {
    let files = |text: &'static str| [("usr/lib/sysusers.d/x.conf", text)];
    let one = run(&files("u a\nu b\ng c\nu d 998\n"), &[]).unwrap();
    let two = run(&files("u d 998\ng c\nu b\nu a\n"), &[]).unwrap();
    for path in ["etc/passwd", "etc/group"] {
        assert_eq!(text(&one, path), text(&two, path));
    }
    assert!(
        text(&one, "etc/passwd").contains("a:x:999:999") && text(&one, "etc/passwd").contains("b:x:997:997")
    );
}

#[test]
fn groups_owners_and_ranges() {
    let mut base = vec![("srv/x", "")];
    base.push((
        "usr/lib/sysusers.d/x.conf",
        "u a 7:late\nu o /srv/x\nu n 4:65534\nu p -:late\nr - 500-501\ng late -\n",
    ));
    let error = run(&base, &[]).unwrap_err();
    assert_eq!(error, "finish: accounts: user a: there is no group late");
    base[1].1 = "g early 30\nu a 7:early\nu o /srv/x\nu n 4:65534\nu p -:early\nr - 500-501\ng late -\n";
    let tree = run(&base, &[]).unwrap();
    let passwd = text(&tree, "etc/passwd");
    for line in ["a:x:7:30:", "o:x:0:0:", "n:x:4:65534:", "p:x:500:30:"] {
        assert!(passwd.contains(line), "{line} in {passwd}");
    }
    assert!(text(&tree, "etc/group").contains("late:x:501:"));
    let error = run(&base, &["u q", "u r"]).unwrap_err();
    assert_eq!(error, "finish: accounts: all numbers for accounts are taken");
    assert!(run(&[], &["u o /none"]).unwrap_err().contains("/none, whose owner is wanted, is not there"));
}

#[test]
fn a_file_of_the_administrator_s_takes_the_place_of_a_package_s() {
    let tree = run(
        &[
            ("usr/lib/sysusers.d/x.conf", "u a\n"),
            ("etc/sysusers.d/x.conf", "u b\n"),
            ("etc/sysusers.d/y", "u c\n"),
        ],
        &[],
    )
    .unwrap();
    assert!(
        text(&tree, "etc/passwd").starts_with("b:x:999:999:")
            && text(&tree, "etc/passwd").lines().count() == 1
    );
}

#[test]
fn what_is_odd_names_its_file() {
    let error = run(&[("usr/lib/sysusers.d/x.conf", "u a\nz\n")], &[]).unwrap_err();
    assert_eq!(error, "finish: accounts: /usr/lib/sysusers.d/x.conf: line 2: \"\" is no account's name");
    let error = run(&[], &["u a:b"]).unwrap_err();
    assert!(error.starts_with("finish: accounts: \"u a:b\": line 1: "), "{error}");
    let error = run(&[(MASTERS[0], "root:0\n"), (MASTERS[1], "")], &[]).unwrap_err();
    assert_eq!(error, "finish: accounts: odd line \"root:0\"");
}
