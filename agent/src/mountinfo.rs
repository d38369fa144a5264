//! What is mounted: `/proc/thread-self/mountinfo`, as far as the agent asks for it (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Major and minor number of the device, which a file system without one makes up.
    pub(crate) device: (u32, u32),
    /// Where it is.
    pub(crate) point: PathBuf,
    /// Type of its file system.
    pub(crate) fstype: String,
}

/// Every mount of the agent, in the order of mounting.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/thread-self/mountinfo")?))
}

/// The mount that is seen at `point`, if one is mounted right there: the last one hides the others.
pub(crate) fn at(point: &Path) -> io::Result<Option<Mount>> {
    Ok(read()?.into_iter().rfind(|mount| mount.point == point))
}

/// Reads the table. A line that is not of its form is left out.
pub(crate) fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let (major, minor) = text(words.nth(2)?)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let point = PathBuf::from(OsString::from_vec(unescape(words.nth(1)?)));
    // A varying number of words, then one that is a dash.
    let fstype = text(words.skip_while(|word| *word != b"-").nth(1)?)?.to_string();
    Some(Mount { device, point, fstype })
}

fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

/// Blanks, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\').then(|| text(after.get(..3)?)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_optional_words() {
        let table = b"36 35 98:0 /mnt1 /mnt\\040two\\134x rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
            22 1 0:21 / /proc rw - proc proc rw\nnonsense\n1 2 3:x / / rw - a b c\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            (mounts[0].point.as_path(), mounts[0].fstype.as_str()),
            (Path::new("/mnt two\\x"), "ext3")
        );
        assert_eq!(mounts[0].device, (98, 0));
        assert_eq!((mounts[1].point.as_path(), mounts[1].fstype.as_str()), (Path::new("/proc"), "proc"));
    }

    #[test]
    fn a_stray_backslash_stays() {
        assert_eq!(unescape(br"a\b\04"), br"a\b\04");
        assert_eq!(unescape(br"\011\\"), b"\t\\\\");
    }

    #[test]
    fn the_last_mount_at_a_point_is_the_one_that_is_seen() {
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}
