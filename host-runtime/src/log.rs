//! Files that hold what the guest or a helper said: bounded on disk, and quoted with care in error messages.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much of one log is kept: the current file and the one before it, each half of this.
pub(crate) const LIMIT: u64 = 16 << 20;

/// Copies `from` into `path` until its end. When half of `limit` is full, that half moves to `<path>.1`.
pub(crate) async fn capture(mut from: impl AsyncRead + Unpin, path: PathBuf, limit: u64) -> io::Result<()> {
    let mut older = path.clone().into_os_string();
    older.push(".1");
    let mut file = File::create(&path)?;
    let mut written = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if written + read as u64 > limit / 2 {
            std::fs::rename(&path, &older)?;
            file = File::create(&path)?;
            written = 0;
        }
        file.write_all(&buffer[..read])?;
        written += read as u64;
    }
}

/// The last line that is not empty, fit for a one-line message.
pub(crate) fn last_line(path: &Path) -> String {
    let text = tail(path);
    text.lines().map(printable).rfind(|line| !line.is_empty()).unwrap_or_else(|| "it said nothing".into())
}

/// The kernel's panic line, if the console shows one. What dm-verity had against a root that was not mounted is not in that
/// line, but was said before.
pub(crate) fn panic_line(console: &Path) -> Option<String> {
    let text = tail(console);
    let (before, panic) = text.split_at(text.find("Kernel panic - not syncing")?);
    let panic = printable(panic.lines().next()?);
    Some(match objection(before) {
        Some(line) if panic.contains("Unable to mount root fs") => {
            format!("{panic}; dm-verity: {}", printable(line))
        }
        _ => panic,
    })
}

/// Why the device mapper did not set up a device (the first line says it, the rest is what came of that), or which block of
/// one was corrupted (the last says it: others tell of the hash function).
fn objection(console: &str) -> Option<&str> {
    let mut setup = console.lines().filter_map(|line| Some(&line[line.find("device-mapper: table: ")?..]));
    let mut checks = console.lines().filter_map(|line| Some(&line[line.find("device-mapper: verity: ")?..]));
    setup.next().or_else(|| checks.next_back())
}

/// Text of any origin as one printable line of bounded length.
pub(crate) fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    clean.trim().to_string()
}

/// The last 64 KiB.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 << 10)))?;
        let mut bytes = Vec::new();
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_fills_two_halves_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let flood = tokio::io::repeat(b'x').take(1 << 20);
        capture(flood, path.clone(), 128 << 10).await.unwrap();
        let kept = path.metadata().unwrap().len() + dir.path().join("log.1").metadata().unwrap().len();
        assert!(kept <= 128 << 10, "{kept}");
        assert!(kept >= 64 << 10, "{kept}");
    }

    #[test]
    fn quotes_are_one_clean_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "first\n\x1b[31mlast\x07 words\r\n\n \n").unwrap();
        assert_eq!(last_line(&path), "[31mlast  words");
        assert_eq!(last_line(&dir.path().join("absent")), "it said nothing");
        std::fs::write(&path, "[ 1.0] Kernel panic - not syncing: No init found.\n[ 1.1] more\n").unwrap();
        assert_eq!(panic_line(&path).unwrap(), "Kernel panic - not syncing: No init found.");
    }

    #[test]
    fn a_root_that_was_not_mounted_has_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,0)";
        for (said, around) in [
            (
                "device-mapper: table: 254:0: vda1 too small for target",
                ["device-mapper: init: attempting", "device-mapper: ioctl: unable to set up"],
            ),
            (
                "device-mapper: verity: 254:0: data block 0 is corrupted",
                ["device-mapper: verity: sha256 using shash", "erofs: cannot read"],
            ),
        ] {
            let [before, after] = around;
            let console = format!("{before}\r\n[ 1.1] {said}\r\n{after}\r\n[ 1.2] {panic}\r\n");
            std::fs::write(&path, console).unwrap();
            assert_eq!(panic_line(&path).unwrap(), format!("{panic}; dm-verity: {said}"));
        }
        std::fs::write(&path, format!("[ 1.2] {panic}\r\n")).unwrap();
        assert_eq!(panic_line(&path).unwrap(), panic);
    }
}
