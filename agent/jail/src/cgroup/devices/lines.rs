//! Device rules as lines for version 1's controller.
//!
//! That controller knows a set of what is allowed and nothing of order, so a list of rules is first boiled down to such
//! a set. A rule that takes a part out of something larger has no place in it and is refused.

use super::DeviceRules;
use super::rules::{ANY_ACCESS, Kind, MKNOD, READ, Rule, WRITE};
use crate::cgroup::Result;
use crate::cgroup::settings::refused;

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

/// What to write to get from `now`, the text of `devices.list`, to the rules: what is added first, so that nothing that
/// is allowed before and after is forbidden in between.
pub(super) fn of(rules: &DeviceRules, now: &str) -> Result<Vec<(&'static str, String)>> {
    let all_now = now.lines().any(|line| line.starts_with('a'));
    if rules.allow_everything() && all_now {
        return Ok(Vec::new());
    }
    let wanted: Vec<_> = allowed(rules)?.iter().map(line).collect();
    if all_now {
        // Everything is allowed: one line ends that. A new cgroup has nobody in it who could notice.
        let mut out = vec![(DENY, "a".to_owned())];
        out.extend(wanted.into_iter().map(|line| (ALLOW, line)));
        return Ok(out);
    }
    let added = wanted.iter().filter(|line| !now.lines().any(|old| old == *line));
    let removed = now.lines().filter(|old| !wanted.iter().any(|line| line == old));
    let removed: Vec<_> = removed.map(str::to_owned).collect();
    let mut out: Vec<_> = added.map(|line| (ALLOW, line.clone())).collect();
    for old in removed {
        out.push((DENY, old.clone()));
        // One line of the kernel's holds all accesses to a device: what stays of it is said again.
        let device = old.rsplit_once(' ').map_or("", |(device, _)| device);
        let kept =
            wanted.iter().filter(|line| line.rsplit_once(' ').is_some_and(|(other, _)| other == device));
        out.extend(kept.map(|line| (ALLOW, line.clone())));
    }
    Ok(out)
}

/// The set of what is allowed, one rule for each kind and number.
fn allowed(rules: &DeviceRules) -> Result<Vec<Rule>> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules.0.iter().flat_map(of_one_kind) {
        let same =
            |other: &Rule| (other.kind, other.major, other.minor) == (rule.kind, rule.major, rule.minor);
        if rule.allow {
            match out.iter_mut().find(|other| same(other)) {
                Some(other) => other.access |= rule.access,
                None => out.push(rule),
            }
            continue;
        }
        for other in &mut out {
            if covers(&rule, other) {
                other.access &= !rule.access;
            } else if overlaps(&rule, other) {
                return refused(
                    "device rule that cgroup version 1 cannot express",
                    format!("deny {}", line(&rule)),
                );
            }
        }
        out.retain(|other| other.access != 0);
    }
    Ok(out)
}

/// A rule about any kind is one about block devices and one about character devices.
fn of_one_kind(rule: &Rule) -> Vec<Rule> {
    match rule.kind {
        Kind::Any => vec![Rule { kind: Kind::Block, ..*rule }, Rule { kind: Kind::Char, ..*rule }],
        _ => vec![*rule],
    }
}

fn covers(large: &Rule, small: &Rule) -> bool {
    large.kind == small.kind
        && large.major.is_none_or(|number| small.major == Some(number))
        && large.minor.is_none_or(|number| small.minor == Some(number))
}

/// Whether some access to some device is in both.
fn overlaps(one: &Rule, other: &Rule) -> bool {
    let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    one.kind == other.kind
        && one.access & other.access != 0
        && meet(one.major, other.major)
        && meet(one.minor, other.minor)
}

fn line(rule: &Rule) -> String {
    let kind = match rule.kind {
        Kind::Any => 'a',
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    let access: String = letters
        .iter()
        .filter(|(bit, _)| rule.access & ANY_ACCESS & bit != 0)
        .map(|(_, letter)| letter)
        .collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> DeviceRules {
        let json = format!(r#"{{"resources":{{"devices":{json}}}}}"#);
        let mut rules = DeviceRules::of(Some(&serde_json::from_str(&json).unwrap())).unwrap();
        let defaults = DeviceRules::defaults().0.len();
        rules.0.truncate(rules.0.len() - defaults);
        rules
    }

    fn written(json: &str, now: &str) -> Vec<String> {
        of(&rules(json), now).unwrap().into_iter().map(|(file, line)| format!("{file} {line}")).collect()
    }

    const DISK: &str = r#"[{"allow":false},{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"}]"#;

    #[test]
    fn a_new_cgroup_may_do_everything_at_first() {
        assert_eq!(written(DISK, "a *:* rwm\n"), ["devices.deny a", "devices.allow b 8:0 rw"]);
        let everything = DeviceRules::of(Some(
            &serde_json::from_str(r#"{"resources":{"devices":[{"allow":true}]}}"#).unwrap(),
        ));
        let everything = everything.unwrap();
        assert!(of(&everything, "a *:* rwm\n").unwrap().is_empty());
        let opened = of(&everything, "c 1:3 rwm\n").unwrap();
        let opened: Vec<_> = opened.iter().map(|(file, line)| format!("{file} {line}")).collect();
        assert_eq!(opened, ["devices.allow b *:* rwm", "devices.allow c *:* rwm", "devices.deny c 1:3 rwm"]);
    }

    #[test]
    fn what_stays_is_not_forbidden_in_between() {
        let got = written(DISK, "c 1:3 rwm\nb 8:0 rw\n");
        assert_eq!(got, ["devices.deny c 1:3 rwm"]);
        let less = written(DISK, "b 8:0 rwm\n");
        assert_eq!(less, ["devices.allow b 8:0 rw", "devices.deny b 8:0 rwm", "devices.allow b 8:0 rw"]);
    }

    #[test]
    fn a_part_of_something_larger_cannot_be_forbidden() {
        let hole = r#"[{"allow":true,"type":"b","major":8},{"allow":false,"type":"b","major":8,"minor":1}]"#;
        let error = of(&rules(hole), "a *:* rwm").unwrap_err().to_string();
        assert!(error.contains("deny b 8:1 rwm"), "{error}");
        let whole = r#"[{"allow":true,"type":"b","major":8},{"allow":false,"type":"b","access":"w"}]"#;
        assert_eq!(written(whole, "c 9:9 r\n"), ["devices.allow b 8:* rm", "devices.deny c 9:9 r"]);
    }
}
