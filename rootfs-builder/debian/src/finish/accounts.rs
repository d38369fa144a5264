//! `/etc/passwd` and its three companions: Debian's fixed accounts, and those that packages declare.
//!
//! Numbers that nobody asks for go from 999 down, to names in their order: the same packages give the same
//! numbers, on any machine, in whatever order they are unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use guest_tree::{Attributes, Kind, Node, Origin, Tree};

use super::sysusers::{self, GroupOf, Id, Line};
use super::text_of;
use crate::error::Error;

const STEP: &str = "accounts";
const MASTERS: [&str; 2] = ["usr/share/base-passwd/passwd.master", "usr/share/base-passwd/group.master"];
/// Files in the second take the place of those of the same name in the first.
const DIRECTORIES: [&str; 2] = ["usr/lib/sysusers.d", "etc/sysusers.d"];
/// What Debian leaves to packages, whose numbers are made up as they come (policy 9.2.2).
const DYNAMIC: std::ops::RangeInclusive<u32> = 100..=999;

/// All accounts of a system.
#[derive(Debug, Default)]
struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug)]
struct User {
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
    /// Expired too, not only without a password.
    locked: bool,
}

#[derive(Debug)]
struct Group {
    gid: u32,
    members: BTreeSet<String>,
}

/// Writes the four files. `extra` are lines as in sysusers.d(5) beside those of the packages.
pub(super) fn write<'a>(
    tree: &mut Tree,
    extra: impl Iterator<Item = &'a str>,
    origin: &Origin,
) -> Result<(), Error> {
    let wrong = |what: String| Error::Finish { step: STEP, what };
    let mut accounts = Accounts::default();
    if let [Some(passwd), Some(group)] = [text_of(tree, MASTERS[0], STEP)?, text_of(tree, MASTERS[1], STEP)?]
    {
        accounts = Accounts::of_masters(&passwd, &group).map_err(wrong)?;
    }
    let mut lines = declared(tree)?;
    for line in extra {
        lines.extend(sysusers::read(line).map_err(|what| wrong(format!("{line:?}: {what}")))?);
    }
    accounts.declare(&lines, |path| owner(tree, path)).map_err(wrong)?;
    let shadow = accounts.groups.get("shadow").map_or(0, |group| group.gid);
    let files = [
        ("etc/passwd", accounts.passwd(), 0o644, 0),
        ("etc/group", accounts.group(), 0o644, 0),
        ("etc/shadow", accounts.shadow(), 0o640, shadow),
        ("etc/gshadow", accounts.gshadow(), 0o640, shadow),
    ];
    for (path, text, mode, gid) in files {
        let attributes = Attributes { gid, ..Attributes::root(mode) };
        tree.put(path, Node::new(Kind::File(text.as_str().into()), attributes, origin))?;
    }
    Ok(())
}

/// The lines of all packages' files, in the order of the files' names.
fn declared(tree: &Tree) -> Result<Vec<Line>, Error> {
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        for (path, _) in tree.below(Path::new(directory)) {
            let direct = path.parent() == Some(Path::new(directory));
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".conf"));
            if let (Some(name), true) = (name, direct) {
                files.insert(name.to_owned(), format!("{directory}/{name}"));
            }
        }
    }
    let mut lines = Vec::new();
    for path in files.values() {
        // A link to /dev/null: an administrator's way to switch a file off.
        let Some(text) = text_of(tree, path, STEP)? else { continue };
        let wrong = |what| Error::Finish { step: STEP, what: format!("/{path}: {what}") };
        lines.extend(sysusers::read(&text).map_err(wrong)?);
    }
    Ok(lines)
}

fn owner(tree: &Tree, path: &str) -> Option<(u32, u32)> {
    let node = tree.get(tree.resolve(path)?)?;
    Some((node.attributes.uid, node.attributes.gid))
}

impl Accounts {
    /// base-passwd's two files, in the forms of passwd(5) and group(5).
    fn of_masters(passwd: &str, group: &str) -> Result<Self, String> {
        let mut accounts = Accounts::default();
        let number = |text: &str, line: &str| text.parse::<u32>().map_err(|_| format!("odd line {line:?}"));
        for line in group.lines().filter(|line| !line.is_empty()) {
            let &[name, _, gid, members] = &line.split(':').collect::<Vec<_>>()[..] else {
                return Err(format!("odd line {line:?}"));
            };
            let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            accounts.groups.insert(name.to_owned(), Group { gid: number(gid, line)?, members });
        }
        for line in passwd.lines().filter(|line| !line.is_empty()) {
            let &[name, _, uid, gid, gecos, home, shell] = &line.split(':').collect::<Vec<_>>()[..] else {
                return Err(format!("odd line {line:?}"));
            };
            let user = User {
                uid: number(uid, line)?,
                gid: number(gid, line)?,
                gecos: gecos.to_owned(),
                home: home.to_owned(),
                shell: shell.to_owned(),
                locked: false,
            };
            accounts.users.insert(name.to_owned(), user);
        }
        Ok(accounts)
    }

    /// Adds what lines declare. What is there stays as it is; of two declarations the first counts.
    fn declare(&mut self, lines: &[Line], owner: impl Fn(&str) -> Option<(u32, u32)>) -> Result<(), String> {
        let lines = with_members(lines);
        // Numbers that are asked for come first, whichever line they are in.
        for line in &lines {
            match line {
                Line::Group { name, id } => {
                    if let Some(gid) = fixed(id, |path| owner(path).map(|(_, gid)| gid))? {
                        self.add_group(name, gid);
                    }
                }
                Line::User { name, id, group, .. } => {
                    let uid = fixed(id, |path| owner(path).map(|(uid, _)| uid))?;
                    if let (Some(uid), None) = (uid, group) {
                        self.add_group(name, uid);
                    }
                    if let Some(uid) = uid {
                        self.add_user(line, uid)?;
                    }
                }
                Line::Member { .. } | Line::Range(_) => {}
            }
        }
        let mut pool = Pool::of(&lines);
        let unnumbered: BTreeSet<&str> = lines.iter().filter_map(|line| self.unnumbered(line)).collect();
        for name in unnumbered {
            // One number for a user and the group of the same name.
            let there = self.groups.get(name).map(|group| group.gid).filter(|gid| !self.is_uid(*gid));
            let id = match there {
                Some(gid) => gid,
                None => pool.take(|id| self.is_uid(id) || self.is_gid(id))?,
            };
            let user =
                lines.iter().find(|line| matches!(line, Line::User { name: user, .. } if user == name));
            if !matches!(user, Some(Line::User { group: Some(_), .. })) {
                self.add_group(name, id);
            }
            if let Some(user) = user {
                self.add_user(user, id)?;
            }
        }
        for line in &lines {
            if let Line::Member { user, group } = line
                && let Some(group) = self.groups.get_mut(group)
            {
                group.members.insert(user.clone());
            }
        }
        Ok(())
    }

    /// The name that a line declares, if it has no number yet.
    fn unnumbered<'a>(&self, line: &'a Line) -> Option<&'a str> {
        match line {
            Line::User { name, .. } if !self.users.contains_key(name) => Some(name),
            Line::Group { name, .. } if !self.groups.contains_key(name) => Some(name),
            _ => None,
        }
    }

    fn add_group(&mut self, name: &str, gid: u32) {
        self.groups.entry(name.to_owned()).or_insert(Group { gid, members: BTreeSet::new() });
    }

    fn add_user(&mut self, line: &Line, uid: u32) -> Result<(), String> {
        let Line::User { name, group, gecos, home, shell, locked, .. } = line else { return Ok(()) };
        let group_name = match group {
            Some(GroupOf::Name(group)) => group,
            _ => name,
        };
        let gid = match (group, self.groups.get(group_name)) {
            (Some(GroupOf::Number(gid)), _) => *gid,
            (_, Some(group)) => group.gid,
            (_, None) => return Err(format!("user {name}: there is no group {group_name}")),
        };
        let text = |text: &String| text.clone();
        self.users.entry(name.clone()).or_insert_with(|| User {
            uid,
            gid,
            gecos: text(gecos),
            home: text(home),
            shell: text(shell),
            locked: *locked,
        });
        Ok(())
    }

    fn is_uid(&self, id: u32) -> bool {
        self.users.values().any(|user| user.uid == id)
    }

    fn is_gid(&self, id: u32) -> bool {
        self.groups.values().any(|group| group.gid == id)
    }

    fn by_uid(&self) -> Vec<(&String, &User)> {
        let mut all: Vec<_> = self.users.iter().collect();
        all.sort_by_key(|(name, user)| (user.uid, name.as_str()));
        all
    }

    fn by_gid(&self) -> Vec<(&String, &Group)> {
        let mut all: Vec<_> = self.groups.iter().collect();
        all.sort_by_key(|(name, group)| (group.gid, name.as_str()));
        all
    }

    fn passwd(&self) -> String {
        let line = |(name, u): (&String, &User)| {
            format!("{name}:x:{}:{}:{}:{}:{}\n", u.uid, u.gid, u.gecos, u.home, u.shell)
        };
        self.by_uid().into_iter().map(line).collect()
    }

    /// No account has a password. The day of its last change stays empty: a date is none of an image's
    /// business, and without it no password ages (shadow(5)).
    fn shadow(&self) -> String {
        let line = |(name, user): (&String, &User)| {
            let expires = if user.locked { "1" } else { "" };
            format!("{name}:!*::::::{expires}:\n")
        };
        self.by_uid().into_iter().map(line).collect()
    }

    fn group(&self) -> String {
        let line = |(name, group): (&String, &Group)| format!("{name}:x:{}:{}\n", group.gid, group.list());
        self.by_gid().into_iter().map(line).collect()
    }

    fn gshadow(&self) -> String {
        let line = |(name, group): (&String, &Group)| format!("{name}:!*::{}\n", group.list());
        self.by_gid().into_iter().map(line).collect()
    }
}

impl Group {
    fn list(&self) -> String {
        self.members.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    }
}

/// The lines, and a line for each user or group that only a membership speaks of.
fn with_members(lines: &[Line]) -> Vec<Line> {
    let mut all = lines.to_vec();
    for line in lines {
        let Line::Member { user, group } = line else { continue };
        let plain = format!("u {user}\ng {group}\n");
        all.extend(sysusers::read(&plain).unwrap_or_default());
    }
    all
}

fn fixed(id: &Id, owner: impl Fn(&str) -> Option<u32>) -> Result<Option<u32>, String> {
    match id {
        Id::Any => Ok(None),
        Id::Number(number) => Ok(Some(*number)),
        Id::Owner(path) => {
            owner(path).map(Some).ok_or_else(|| format!("{path}, whose owner is wanted, is not there"))
        }
    }
}

/// Numbers for those who have none, the highest first.
struct Pool(Vec<u32>);

impl Pool {
    fn of(lines: &[Line]) -> Self {
        let ranges = lines.iter().filter_map(|line| match line {
            // No more of it than there can be accounts to make.
            Line::Range(range) => Some(range.clone().rev().take(10_000).collect::<Vec<_>>()),
            _ => None,
        });
        let mut named: Vec<u32> = ranges.flatten().collect();
        if named.is_empty() {
            named = DYNAMIC.collect();
        }
        named.sort_unstable();
        named.dedup();
        Pool(named)
    }

    fn take(&mut self, is_used: impl Fn(u32) -> bool) -> Result<u32, String> {
        while let Some(id) = self.0.pop() {
            if !is_used(id) {
                return Ok(id);
            }
        }
        Err("all numbers for accounts are taken".to_owned())
    }
}

#[cfg(test)]
mod tests;
