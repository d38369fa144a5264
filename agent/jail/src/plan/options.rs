//! The words of a mount's option list: one table.
//!
//! A word that is not in the table is data for the file system.

use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::sys::attr;

/// What an option list says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MountOptions {
    /// `mount_setattr` attributes that were asked for.
    pub set: u64,
    /// `mount_setattr` attributes that were asked not to be (`rw`, `suid`, `dev`, `exec`).
    pub clear: u64,
    /// The same two for the mount and everything below it (`rro` and so on).
    pub set_below: u64,
    /// See `set_below`.
    pub clear_below: u64,
    /// Flags of the super block (`MS_SYNCHRONOUS` and so on).
    pub flags: u64,
    /// A bind mount.
    pub bind: bool,
    /// A bind mount with everything below it.
    pub recursive: bool,
    /// Change an existing mount.
    pub remount: bool,
    /// Fill a new tmpfs with what it covers.
    pub copy_up: bool,
    /// Map the owners of files, of everything below too if true.
    pub id_map: Option<bool>,
    /// Propagation (`MS_SHARED` and so on), each with whether it holds for everything below; in order.
    pub propagation: Vec<(u64, bool)>,
    /// What the file system itself reads.
    pub data: Vec<String>,
}

enum Word {
    Set(u64),
    Clear(u64),
    SetBelow(u64),
    ClearBelow(u64),
    Flag(u64),
    Unflag(u64),
    Propagation(u64, bool),
    Bind(bool),
    Remount,
    CopyUp,
    IdMap(bool),
    Nothing,
    Refused,
}

const MS_SYNCHRONOUS: u64 = 1 << 4;
const MS_MANDLOCK: u64 = 1 << 6;
const MS_DIRSYNC: u64 = 1 << 7;
const MS_SILENT: u64 = 1 << 15;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;
const MS_I_VERSION: u64 = 1 << 23;
const MS_LAZYTIME: u64 = 1 << 25;

const TABLE: &[(&str, Word)] = &[
    ("acl", Word::Nothing),
    ("async", Word::Unflag(MS_SYNCHRONOUS)),
    ("atime", Word::Clear(attr::NOATIME)),
    ("bind", Word::Bind(false)),
    ("defaults", Word::Nothing),
    ("dev", Word::Clear(attr::NODEV)),
    ("diratime", Word::Clear(attr::NODIRATIME)),
    ("dirsync", Word::Flag(MS_DIRSYNC)),
    ("exec", Word::Clear(attr::NOEXEC)),
    ("idmap", Word::IdMap(false)),
    ("iversion", Word::Flag(MS_I_VERSION)),
    ("lazytime", Word::Flag(MS_LAZYTIME)),
    ("loop", Word::Refused),
    ("loud", Word::Unflag(MS_SILENT)),
    ("mand", Word::Flag(MS_MANDLOCK)),
    ("noatime", Word::Set(attr::NOATIME)),
    ("nodev", Word::Set(attr::NODEV)),
    ("nodiratime", Word::Set(attr::NODIRATIME)),
    ("noexec", Word::Set(attr::NOEXEC)),
    ("noiversion", Word::Unflag(MS_I_VERSION)),
    ("nolazytime", Word::Unflag(MS_LAZYTIME)),
    ("nomand", Word::Unflag(MS_MANDLOCK)),
    ("norelatime", Word::Clear(attr::ATIME)),
    ("nostrictatime", Word::Clear(attr::STRICTATIME)),
    ("nosuid", Word::Set(attr::NOSUID)),
    ("nosymfollow", Word::Set(attr::NOSYMFOLLOW)),
    ("private", Word::Propagation(MS_PRIVATE, false)),
    ("ratime", Word::ClearBelow(attr::NOATIME)),
    ("rbind", Word::Bind(true)),
    ("rdev", Word::ClearBelow(attr::NODEV)),
    ("rdiratime", Word::ClearBelow(attr::NODIRATIME)),
    ("relatime", Word::Set(attr::RELATIME)),
    ("remount", Word::Remount),
    ("rexec", Word::ClearBelow(attr::NOEXEC)),
    ("ridmap", Word::IdMap(true)),
    ("rnoatime", Word::SetBelow(attr::NOATIME)),
    ("rnodev", Word::SetBelow(attr::NODEV)),
    ("rnodiratime", Word::SetBelow(attr::NODIRATIME)),
    ("rnoexec", Word::SetBelow(attr::NOEXEC)),
    ("rnosuid", Word::SetBelow(attr::NOSUID)),
    ("rnosymfollow", Word::SetBelow(attr::NOSYMFOLLOW)),
    ("ro", Word::Set(attr::RDONLY)),
    ("rprivate", Word::Propagation(MS_PRIVATE, true)),
    ("rrelatime", Word::SetBelow(attr::RELATIME)),
    ("rro", Word::SetBelow(attr::RDONLY)),
    ("rrw", Word::ClearBelow(attr::RDONLY)),
    ("rshared", Word::Propagation(MS_SHARED, true)),
    ("rslave", Word::Propagation(MS_SLAVE, true)),
    ("rstrictatime", Word::SetBelow(attr::STRICTATIME)),
    ("rsuid", Word::ClearBelow(attr::NOSUID)),
    ("rsymfollow", Word::ClearBelow(attr::NOSYMFOLLOW)),
    ("runbindable", Word::Propagation(MS_UNBINDABLE, true)),
    ("rw", Word::Clear(attr::RDONLY)),
    ("shared", Word::Propagation(MS_SHARED, false)),
    ("silent", Word::Flag(MS_SILENT)),
    ("slave", Word::Propagation(MS_SLAVE, false)),
    ("strictatime", Word::Set(attr::STRICTATIME)),
    ("suid", Word::Clear(attr::NOSUID)),
    ("symfollow", Word::Clear(attr::NOSYMFOLLOW)),
    ("sync", Word::Flag(MS_SYNCHRONOUS)),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", Word::Propagation(MS_UNBINDABLE, false)),
];

impl MountOptions {
    /// Reads the option list of a mount that is made outside of any container.
    pub fn read(words: &[String]) -> Result<MountOptions, PlanError> {
        parse(words)
    }

    /// The same as mount(2) takes it: its flags and its data.
    pub fn for_mount(&self) -> (u64, String) {
        const MS_NOSYMFOLLOW: u64 = 1 << 8;
        const MS_NOATIME: u64 = 1 << 10;
        const MS_NODIRATIME: u64 = 1 << 11;
        const MS_STRICTATIME: u64 = 1 << 24;
        // The first four attributes have the numbers of the flags.
        let mut flags = self.flags | self.set & (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC);
        for (attribute, flag) in [
            (attr::NOATIME, MS_NOATIME),
            (attr::STRICTATIME, MS_STRICTATIME),
            (attr::NODIRATIME, MS_NODIRATIME),
            (attr::NOSYMFOLLOW, MS_NOSYMFOLLOW),
        ] {
            if self.set & attribute != 0 {
                flags |= flag;
            }
        }
        (flags, self.data.join(","))
    }
}

/// Reads an option list. A later word overrules an earlier one.
pub(super) fn parse(words: &[String]) -> Result<MountOptions, PlanError> {
    let mut out = MountOptions::default();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let Some((_, meaning)) = TABLE.iter().find(|(name, _)| name == word) else {
            super::no_nul("mount option", word)?;
            out.data.push(word.clone());
            continue;
        };
        match *meaning {
            Word::Set(bits) => overrule(&mut out.set, &mut out.clear, bits, true, names_atime(word)),
            Word::Clear(bits) => overrule(&mut out.set, &mut out.clear, bits, false, false),
            Word::SetBelow(bits) => {
                overrule(&mut out.set_below, &mut out.clear_below, bits, true, names_atime(word));
            }
            Word::ClearBelow(bits) => overrule(&mut out.set_below, &mut out.clear_below, bits, false, false),
            Word::Flag(bits) => out.flags |= bits,
            Word::Unflag(bits) => out.flags &= !bits,
            Word::Propagation(bits, below) => out.propagation.push((bits, below)),
            Word::Bind(recursive) => {
                out.bind = true;
                out.recursive |= recursive;
            }
            Word::Remount => out.remount = true,
            Word::CopyUp => out.copy_up = true,
            Word::IdMap(below) => out.id_map = Some(below),
            Word::Nothing => {}
            Word::Refused => {
                return Err(PlanError::Unsupported { what: "mount option", value: word.clone() });
            }
        }
    }
    Ok(out)
}

/// The propagation of a container's root.
pub(super) fn root_propagation(word: &str) -> Result<Option<(u64, bool)>, PlanError> {
    if word.is_empty() {
        return Ok(None);
    }
    match TABLE.iter().find(|(name, _)| *name == word) {
        Some((_, Word::Propagation(bits, below))) => Ok(Some((*bits, *below))),
        _ => Err(PlanError::Unsupported { what: "root propagation", value: word.to_owned() }),
    }
}

/// The access time attributes are one field of the kernel's, not bits: setting one means clearing the field.
fn names_atime(word: &str) -> bool {
    matches!(word.strip_prefix('r').unwrap_or(word), "noatime" | "strictatime" | "elatime" | "relatime")
}

fn overrule(set: &mut u64, clear: &mut u64, bits: u64, on: bool, atime: bool) {
    if atime {
        *set &= !attr::ATIME;
        *clear |= attr::ATIME;
        *set |= bits;
    } else if on {
        *set |= bits;
        *clear &= !bits;
    } else if bits & attr::ATIME != 0 {
        *set &= !bits;
        *clear |= attr::ATIME;
    } else {
        *set &= !bits;
        *clear |= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> MountOptions {
        parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn flags_and_data_part_ways() {
        let got = words("nosuid,noexec,nodev,mode=1777,size=65536k");
        assert_eq!(got.set, attr::NOSUID | attr::NOEXEC | attr::NODEV);
        assert_eq!(got.data, ["mode=1777", "size=65536k"]);
        assert_eq!(got.flags, 0);
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(words("ro,rw").set, 0);
        assert_eq!(words("ro,rw").clear, attr::RDONLY);
        assert_eq!(words("rw,ro").set, attr::RDONLY);
        assert_eq!(words("rw,ro").clear, 0);
        assert_eq!(words("sync,async").flags, 0);
    }

    #[test]
    fn access_time_is_one_field() {
        for text in ["noatime,relatime", "strictatime,relatime", "relatime"] {
            assert_eq!((words(text).set, words(text).clear), (attr::RELATIME, attr::ATIME), "{text}");
        }
        assert_eq!((words("strictatime").set, words("strictatime").clear), (attr::STRICTATIME, attr::ATIME));
        assert_eq!(
            (words("rnoatime").set_below, words("rnoatime").clear_below),
            (attr::NOATIME, attr::ATIME)
        );
    }

    #[test]
    fn binds_and_propagation() {
        let got = words("rbind,rprivate,rro");
        assert!(got.bind && got.recursive);
        assert_eq!(got.propagation, [(MS_PRIVATE, true)]);
        assert_eq!(got.set_below, attr::RDONLY);
        assert!(!words("bind").recursive);
        assert_eq!((words("bind").id_map, words("rbind,ridmap").id_map), (None, Some(true)));
        assert_eq!(words("shared,slave").propagation, [(MS_SHARED, false), (MS_SLAVE, false)]);
    }

    #[test]
    fn what_we_do_not_do_is_refused() {
        assert!(parse(&["loop".to_owned()]).is_err());
        assert!(parse(&["a\0b".to_owned()]).is_err());
        assert_eq!(root_propagation("rshared"), Ok(Some((MS_SHARED, true))));
        assert_eq!(root_propagation(""), Ok(None));
        assert!(root_propagation("bind").is_err());
    }

    #[test]
    fn the_table_is_sorted_and_has_no_word_twice() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
