//! Memory that was plugged in: blocks of it that are offline, and the file by which some kernels are told of it.

use std::fs;
use std::io;
use std::path::Path;

use super::Error;

/// The size of a block of memory that can be plugged, in bytes; 0 in a guest that cannot
/// (Documentation/admin-guide/mm/memory-hotplug.rst: hexadecimal, without a prefix).
pub(crate) fn block_size(system: &Path) -> u64 {
    let text = fs::read_to_string(system.join("memory/block_size_bytes")).unwrap_or_default();
    u64::from_str_radix(text.trim(), 16).unwrap_or(0)
}

/// Whether the kernel has to be told of memory that was plugged in.
pub(crate) fn can_probe(system: &Path) -> bool {
    system.join("memory/probe").exists()
}

/// Tells the kernel of memory at these addresses.
pub(super) fn probe(system: &Path, addresses: &[u64]) -> Result<(), Error> {
    let file = system.join("memory/probe");
    for address in addresses {
        if let Err(source) = fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| io::Write::write_all(&mut file, format!("{address:#x}").as_bytes()))
        {
            return Err(match source.kind() {
                io::ErrorKind::NotFound => Error::NoProbe,
                _ => Error::Step {
                    object: format!("memHotplugProbeAddr: {address:#x}"),
                    step: "tell the kernel",
                    source,
                },
            });
        }
    }
    Ok(())
}

/// Brings every block online. One that fails keeps no other from it.
pub(super) fn online(system: &Path) -> Result<(), Error> {
    let mut failed = Ok(());
    for entry in fs::read_dir(system.join("memory")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_block = name.strip_prefix("memory").is_some_and(|number| number.parse::<u32>().is_ok());
        if !is_block || !is_offline(&entry.path()) {
            continue;
        }
        match fs::write(entry.path().join("online"), "1") {
            Ok(()) => tracing::info!(block = name, "memory is online"),
            // The kernel's own message that the block has come may have made somebody else do it.
            Err(_) if !is_offline(&entry.path()) => {}
            Err(source) => failed = Err(Error::Step { object: name, step: "bring online", source }),
        }
    }
    failed
}

fn is_offline(block: &Path) -> bool {
    fs::read_to_string(block.join("state")).is_ok_and(|state| state.trim() == "offline")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn system(blocks: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, state) in blocks {
            let block = root.path().join("memory").join(name);
            fs::create_dir_all(&block).unwrap();
            fs::write(block.join("state"), state).unwrap();
            fs::write(block.join("online"), if *state == "offline\n" { "0\n" } else { "1\n" }).unwrap();
        }
        root
    }

    #[test]
    fn only_blocks_that_are_offline_are_touched() {
        let root = system(&[("memory0", "online\n"), ("memory40", "offline\n"), ("memoryless", "offline\n")]);
        online(root.path()).unwrap();
        let state =
            |name: &str| fs::read_to_string(root.path().join("memory").join(name).join("online")).unwrap();
        assert_eq!(["memory0", "memory40", "memoryless"].map(state), ["1\n", "1", "0\n"]);
        online(&root.path().join("absent")).unwrap();
    }

    #[test]
    fn a_block_that_fails_is_named_and_keeps_no_other_from_it() {
        let root = system(&[("memory1", "offline\n"), ("memory2", "offline\n")]);
        let broken = root.path().join("memory/memory1/online");
        fs::remove_file(&broken).unwrap();
        fs::create_dir(&broken).unwrap();
        let error = online(root.path()).unwrap_err().to_string();
        assert!(error.starts_with("memory1: bring online: "), "{error}");
        assert_eq!(fs::read_to_string(root.path().join("memory/memory2/online")).unwrap(), "1");
    }

    #[test]
    fn the_block_size_is_hexadecimal_and_0_without_one() {
        let root = system(&[("memory0", "online\n")]);
        assert_eq!((block_size(root.path()), can_probe(root.path())), (0, false));
        fs::write(root.path().join("memory/block_size_bytes"), "8000000\n").unwrap();
        fs::write(root.path().join("memory/probe"), "").unwrap();
        assert_eq!((block_size(root.path()), can_probe(root.path())), (128 << 20, true));
    }

    #[test]
    fn addresses_are_written_in_hexadecimal() {
        let root = system(&[("memory0", "online\n")]);
        assert!(matches!(probe(root.path(), &[1 << 32]), Err(Error::NoProbe)));
        assert!(!root.path().join("memory/probe").exists(), "no file is made");
        fs::write(root.path().join("memory/probe"), "").unwrap();
        probe(root.path(), &[0x1_4000_0000]).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("memory/probe")).unwrap(), "0x140000000");
        probe(root.path(), &[]).unwrap();
    }
}
