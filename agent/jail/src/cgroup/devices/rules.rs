//! Device rules: where they come from and what they say.

use crate::cgroup::settings::refused;
use crate::cgroup::{CgroupError, Result};
use crate::oci::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

/// What an access does. The kernel's own bits (`BPF_DEVCG_ACC_*`).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ANY_ACCESS: u8 = MKNOD | READ | WRITE;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Block,
    Char,
}

/// One rule. A number that is `None` fits all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

/// What every container may use: nodes it can do no harm with, its terminals, tunnels; and any node may be made, as
/// making one is not using it.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, u8); 12] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ANY_ACCESS),    // null
    (Kind::Char, Some(1), Some(5), ANY_ACCESS),    // zero
    (Kind::Char, Some(1), Some(7), ANY_ACCESS),    // full
    (Kind::Char, Some(1), Some(8), ANY_ACCESS),    // random
    (Kind::Char, Some(1), Some(9), ANY_ACCESS),    // urandom
    (Kind::Char, Some(5), Some(0), ANY_ACCESS),    // tty
    (Kind::Char, Some(5), Some(1), ANY_ACCESS),    // console
    (Kind::Char, Some(5), Some(2), ANY_ACCESS),    // ptmx
    (Kind::Char, Some(136), None, ANY_ACCESS),     // pts/*
    (Kind::Char, Some(10), Some(200), ANY_ACCESS), // net/tun
];

/// An ordered list of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRules(pub(super) Vec<Rule>);

impl DeviceRules {
    /// What every container may use, and nothing else.
    pub fn defaults() -> DeviceRules {
        let rule = |(kind, major, minor, access)| Rule { allow: true, kind, major, minor, access };
        DeviceRules(DEFAULTS.map(rule).to_vec())
    }

    /// The rules of a container.
    ///
    /// First the nodes of `linux.devices`: peers clear the rules that an engine made for them. Then the rules of the
    /// spec, which may take those back. The defaults come last, since engines begin their rules with "nothing at all"
    /// and mean it to leave the container its terminal; unless the spec allows everything.
    pub fn of(linux: Option<&Linux>) -> Result<DeviceRules> {
        let nodes = linux.and_then(|linux| linux.devices().as_deref());
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        DeviceRules::of_lists(nodes.unwrap_or_default(), rules.unwrap_or_default())
    }

    /// The same, from the nodes and the rules of a spec.
    pub fn of_lists(nodes: &[LinuxDevice], rules: &[LinuxDeviceCgroup]) -> Result<DeviceRules> {
        let mut out = Vec::new();
        for node in nodes {
            let kind = match node.typ() {
                LinuxDeviceType::B => Kind::Block,
                LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
                LinuxDeviceType::P | LinuxDeviceType::A => continue,
            };
            let (major, minor) = (number(Some(node.major()))?, number(Some(node.minor()))?);
            out.push(Rule { allow: true, kind, major, minor, access: ANY_ACCESS });
        }
        for rule in rules {
            out.extend(of_spec(rule)?);
        }
        let mut out = DeviceRules(out);
        if !out.allow_everything() {
            out.0.extend(DeviceRules::defaults().0);
        }
        Ok(out)
    }

    /// Whether every access to every device is allowed.
    pub fn allow_everything(&self) -> bool {
        let later = self.0.iter().rev().take_while(|rule| rule.allow);
        later.into_iter().any(|rule| {
            (rule.kind, rule.major, rule.minor, rule.access) == (Kind::Any, None, None, ANY_ACCESS)
        })
    }

    /// Allows everything that `other` allows somewhere, for a pod's cgroup, which must not forbid what one of its
    /// containers may do. Tells whether that changed anything.
    pub fn admit(&mut self, other: &DeviceRules) -> bool {
        if self.allow_everything() {
            return false;
        }
        if other.allow_everything() {
            let (kind, access) = (Kind::Any, ANY_ACCESS);
            self.0 = vec![Rule { allow: true, kind, major: None, minor: None, access }];
            return true;
        }
        let before = self.0.len();
        for rule in other.0.iter().filter(|rule| rule.allow) {
            if !self.0.contains(rule) {
                self.0.push(*rule);
            }
        }
        self.0.len() > before
    }

    /// What the list says of one access.
    #[cfg(test)]
    pub(super) fn decide(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let of_bit = |bit: u8| {
            let fits = |rule: &&Rule| {
                rule.access & bit != 0
                    && (rule.kind == Kind::Any || rule.kind == kind)
                    && rule.major.is_none_or(|number| number == major)
                    && rule.minor.is_none_or(|number| number == minor)
            };
            self.0.iter().rev().find(fits).is_some_and(|rule| rule.allow)
        };
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(of_bit)
    }
}

fn of_spec(rule: &LinuxDeviceCgroup) -> Result<Option<Rule>> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => Kind::Any,
        Some(LinuxDeviceType::B) => Kind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Char,
        // A named pipe is no device: nothing asks.
        Some(LinuxDeviceType::P) => return Ok(None),
    };
    let text = rule.access().as_deref().unwrap_or("");
    let mut access = 0;
    for letter in text.chars() {
        access |= match letter {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => return refused("device access, which is of the letters rwm", format!("{text:?}")),
        };
    }
    // No letters: all of them, as the specification has it.
    let access = if access == 0 { ANY_ACCESS } else { access };
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    Ok(Some(Rule { allow: rule.allow(), kind, major, minor, access }))
}

/// Absent and negative numbers fit all.
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(..0) => Ok(None),
        Some(value) => match i32::try_from(value) {
            Ok(value) => Ok(Some(value as u32)),
            Err(_) => Err(CgroupError::Limit { what: "device number", value: value.to_string() }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(devices: &str, rules: &str) -> Result<DeviceRules> {
        let json = format!(r#"{{"devices":{devices},"resources":{{"devices":{rules}}}}}"#);
        DeviceRules::of(Some(&serde_json::from_str(&json).unwrap()))
    }

    const FUSE: &str = r#"[{"path":"/dev/fuse","type":"c","major":10,"minor":229}]"#;

    #[test]
    fn a_container_without_rules_has_its_nodes_and_the_defaults() {
        let rules = rules(FUSE, "[]").unwrap();
        assert!(rules.decide(Kind::Char, 10, 229, READ | WRITE));
        assert!(rules.decide(Kind::Char, 1, 3, READ | WRITE) && rules.decide(Kind::Char, 136, 77, READ));
        assert!(rules.decide(Kind::Block, 254, 0, MKNOD) && !rules.decide(Kind::Block, 254, 0, READ));
        assert!(!rules.decide(Kind::Char, 1, 1, READ), "memory is not for containers");
        assert_eq!(DeviceRules::of(None).unwrap(), DeviceRules::defaults());
    }

    #[test]
    fn the_last_rule_that_fits_decides_each_access() {
        let deny_all = r#"[{"allow":false,"access":"rwm"}]"#;
        let none = rules(FUSE, deny_all).unwrap();
        assert!(!none.decide(Kind::Char, 10, 229, READ) && none.decide(Kind::Char, 1, 3, READ));
        let some = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"rw"},
                       {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#;
        let some = rules("[]", some).unwrap();
        assert!(some.decide(Kind::Block, 8, 0, READ | WRITE));
        assert!(some.decide(Kind::Block, 8, 1, READ) && !some.decide(Kind::Block, 8, 1, READ | WRITE));
        assert!(!some.decide(Kind::Char, 8, 0, READ));
    }

    #[test]
    fn everything_is_a_rule_of_its_own() {
        let all = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","access":"rwm"}]"#;
        let all = rules("[]", all).unwrap();
        assert!(all.allow_everything() && all.decide(Kind::Char, 1, 1, ANY_ACCESS));
        let but_one = r#"[{"allow":true,"type":"a","access":"rwm"},{"allow":false,"type":"c","major":1,"minor":1,"access":"w"}]"#;
        let but_one = rules("[]", but_one).unwrap();
        assert!(!but_one.allow_everything() && !but_one.decide(Kind::Char, 1, 1, WRITE));
        assert!(but_one.decide(Kind::Char, 1, 1, READ));
    }

    #[test]
    fn a_pod_forbids_nothing_that_a_container_may_do() {
        let mut pod = DeviceRules::defaults();
        assert!(!pod.admit(&DeviceRules::defaults()), "nothing new");
        assert!(pod.admit(&rules(FUSE, "[]").unwrap()) && pod.decide(Kind::Char, 10, 229, READ));
        assert!(!pod.decide(Kind::Block, 8, 0, READ));
        let all = rules("[]", r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        assert!(pod.admit(&all) && pod.allow_everything() && !pod.admit(&all));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        assert!(rules("[]", r#"[{"allow":true,"access":"rx"}]"#).is_err());
        assert!(rules("[]", r#"[{"allow":true,"major":4294967296}]"#).is_err());
        assert!(rules("[]", r#"[{"allow":true,"type":"p"}]"#).is_ok());
    }
}
