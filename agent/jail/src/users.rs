//! `/etc/passwd` and `/etc/group`, and what a user's name means by them. Values in, values out.

use crate::identity::Identity;
use crate::plan::User;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Reads a line of `/etc/passwd`; `None` if it is none.
pub(crate) fn passwd(line: &str) -> Option<Passwd> {
    let mut words = line.split(':');
    let name = words.next()?.to_owned();
    let uid = words.nth(1)?.parse().ok()?;
    let gid = words.next()?.parse().ok()?;
    let home = words.nth(1).unwrap_or("").to_owned();
    Some(Passwd { name, uid, gid, home }).filter(|entry| !entry.name.is_empty())
}

/// Reads a line of `/etc/group`; `None` if it is none.
pub(crate) fn group(line: &str) -> Option<Group> {
    let mut words = line.split(':');
    let name = words.next()?.to_owned();
    let gid = words.nth(1)?.parse().ok()?;
    let members = words.next().unwrap_or("").trim_end().split(',').filter(|name| !name.is_empty());
    Some(Group { name, gid, members: members.map(str::to_owned).collect() })
        .filter(|entry| !entry.name.is_empty())
}

/// Who `user` is, by these files.
///
/// Without a name the ids count as they are. A name is `user` or `user:group`, each a name of the files or a number;
/// a name wins over a number, as in every runtime. Without a group the user's own group holds, and the groups that
/// list the user as a member come along.
pub(crate) fn resolve(user: &User, passwd: &[Passwd], groups: &[Group]) -> Result<Identity, String> {
    let Some(text) = &user.name else {
        let home = home(passwd.iter().find(|entry| entry.uid == user.uid));
        return Ok(Identity { uid: user.uid, gid: user.gid, groups: user.groups.clone(), home });
    };
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text.as_str(), None),
    };
    let number = name.parse::<u32>().ok();
    let by_name = passwd.iter().find(|entry| entry.name == name);
    let entry = by_name.or_else(|| passwd.iter().find(|entry| Some(entry.uid) == number));
    let uid = match (entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) if name.is_empty() => user.uid,
        (None, None) => {
            return Err(format!("user {name:?}: no such user in the container's \"/etc/passwd\""));
        }
    };
    let mut further = user.groups.clone();
    let gid = match group {
        Some(group) => {
            let by_name = groups.iter().find(|entry| entry.name == group).map(|entry| entry.gid);
            by_name
                .or_else(|| group.parse().ok())
                .ok_or_else(|| format!("group {group:?}: no such group in the container's \"/etc/group\""))?
        }
        None => {
            let member = |group: &&Group| entry.is_some_and(|entry| group.members.contains(&entry.name));
            further.extend(groups.iter().filter(member).map(|group| group.gid));
            entry.map_or(user.gid, |entry| entry.gid)
        }
    };
    further.sort_unstable();
    further.dedup();
    Ok(Identity { uid, gid, groups: further, home: home(entry) })
}

fn home(entry: Option<&Passwd>) -> String {
    entry.map(|entry| entry.home.clone()).filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (Vec<Passwd>, Vec<Group>) {
        let users = [
            "root:x:0:0:root:/root:/bin/sh",
            "web:x:33:34::/srv:",
            "7:x:70:70::/seven:",
            "",
            "bad",
            "#x:y:z",
        ];
        let teams = ["root:x:0:", "www:x:34:", "tape:x:26:web,other", "audio:x:29:web", "", "bad:x"];
        (
            users.iter().filter_map(|line| passwd(line)).collect(),
            teams.iter().filter_map(|line| group(line)).collect(),
        )
    }

    fn named(name: &str) -> Result<Identity, String> {
        let (users, teams) = files();
        resolve(&User { name: Some(name.to_owned()), groups: vec![5], ..User::default() }, &users, &teams)
    }

    fn is(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<Identity, String> {
        Ok(Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(named("web"), is(33, 34, &[5, 26, 29], "/srv"));
        assert_eq!(named("33"), is(33, 34, &[5, 26, 29], "/srv"));
        assert_eq!(named("web:tape"), is(33, 26, &[5], "/srv"));
        assert_eq!(named("web:4000"), is(33, 4000, &[5], "/srv"));
        assert_eq!(named("1000"), is(1000, 0, &[5], "/"));
        assert_eq!(named("1000:1001"), is(1000, 1001, &[5], "/"));
        assert_eq!(named("web:"), is(33, 34, &[5, 26, 29], "/srv"));
        // A user whose name is a number.
        assert_eq!(named("7"), is(70, 70, &[5], "/seven"));
    }

    #[test]
    fn who_is_not_in_the_files_is_nobody() {
        assert!(named("nosuch").unwrap_err().contains("\"nosuch\""));
        assert!(named("web:nosuch").unwrap_err().contains("\"nosuch\""));
        assert!(named("-1").is_err());
    }

    #[test]
    fn ids_count_as_they_are() {
        let (users, teams) = files();
        let user = User { uid: 33, gid: 1, groups: vec![9, 8], ..User::default() };
        assert_eq!(resolve(&user, &users, &teams), is(33, 1, &[9, 8], "/srv"));
        assert_eq!(resolve(&User::default(), &[], &[]), is(0, 0, &[], "/"));
    }
}
