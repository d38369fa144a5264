//! A copy of a few small files, made to be like the original again and again.
//!
//! What changes first is what others may point to: directories and files, then symbolic links, then what is gone. A
//! volume that Kubernetes updates by swapping one link is therefore never seen half-way.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc;

use super::done::remove_tree;

/// A source with more than this is not copied: it is shown itself, and its changes with it.
const MAX_ENTRIES: usize = 16;
const MAX_BYTES: u64 = 1 << 20;

/// The name under which a file is written before it takes its place.
const TEMPORARY: &str = ".husk-new";

/// A source, its copy, and what the copy was made from.
pub(super) struct Mirror {
    source: PathBuf,
    target: PathBuf,
    seen: BTreeMap<PathBuf, Entry>,
}

/// One file as it was when it was copied.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Directory,
    File { size: u64, modified: SystemTime, inode: u64 },
    Link(PathBuf),
}

/// The source is more than is copied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Mirror {
    /// A copy that does not exist yet. Nothing may be at `target`, but for the file that is a mount point.
    pub(super) fn new(source: &Path, target: &Path) -> Self {
        Self { source: source.to_path_buf(), target: target.to_path_buf(), seen: BTreeMap::new() }
    }

    /// The directories whose changes make a difference, or the source itself if it is a file.
    pub(super) fn watched(&self) -> impl Iterator<Item = PathBuf> {
        self.seen
            .iter()
            .filter(|(path, entry)| entry.kind == Kind::Directory || path.as_os_str().is_empty())
            .map(
                |(path, _)| {
                    if path.as_os_str().is_empty() { self.source.clone() } else { self.source.join(path) }
                },
            )
    }

    /// Makes the copy like its source.
    pub(super) fn update(&mut self) -> io::Result<Result<(), TooLarge>> {
        let Some(found) = scan(&self.source)? else { return Ok(Err(TooLarge)) };
        let of_kind =
            |links: bool| found.iter().filter(move |(_, entry)| matches!(entry.kind, Kind::Link(_)) == links);
        for (path, entry) in of_kind(false).chain(of_kind(true)) {
            if self.seen.get(path) != Some(entry) {
                self.copy(path, entry)?;
            }
        }
        let gone: Vec<_> = self.seen.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        for path in gone.iter().rev() {
            remove_tree(&self.target.join(path))?;
        }
        self.seen = found;
        Ok(Ok(()))
    }

    fn copy(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let (from, to) = (join(&self.source, path), join(&self.target, path));
        let before = self.seen.get(path).map(|entry| &entry.kind);
        if before.is_some_and(|before| std::mem::discriminant(before) != std::mem::discriminant(&entry.kind))
        {
            remove_tree(&to)?;
        }
        match &entry.kind {
            Kind::Directory => match fs::DirBuilder::new().mode(0o700).create(&to) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => set_owner_and_mode(&to, entry),
            },
            Kind::Link(target) => {
                let new = temporary(&to);
                remove_tree(&new)?;
                symlink(target, &new)?;
                lchown(&new, Some(entry.owner.0), Some(entry.owner.1))?;
                fs::rename(new, to)
            }
            // Containers have the very file, so it has to stay the same one.
            Kind::File { modified, .. } if path.as_os_str().is_empty() => write(&from, &to, *modified, entry),
            Kind::File { modified, .. } => {
                let new = temporary(&to);
                remove_tree(&new)?;
                write(&from, &new, *modified, entry)?;
                fs::rename(new, to)
            }
        }
    }
}

/// What a source holds, itself included under the empty name; `None` if that is too much.
fn scan(source: &Path) -> io::Result<Option<BTreeMap<PathBuf, Entry>>> {
    let mut found = BTreeMap::new();
    let mut bytes = 0;
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = join(source, &path);
        let metadata = fs::symlink_metadata(&full)?;
        let kind = if metadata.is_dir() {
            for entry in fs::read_dir(&full)? {
                todo.push(path.join(entry?.file_name()));
            }
            Kind::Directory
        } else if metadata.is_symlink() {
            Kind::Link(fs::read_link(&full)?)
        } else if metadata.is_file() {
            bytes += metadata.len();
            file_kind(&metadata)?
        } else {
            continue;
        };
        let owner = (metadata.uid(), metadata.gid());
        found.insert(path, Entry { kind, mode: metadata.mode() & 0o7777, owner });
        // The source itself is not counted.
        if found.len() - 1 > MAX_ENTRIES || todo.len() > MAX_ENTRIES || bytes > MAX_BYTES {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

fn file_kind(metadata: &Metadata) -> io::Result<Kind> {
    Ok(Kind::File { size: metadata.len(), modified: metadata.modified()?, inode: metadata.ino() })
}

fn write(from: &Path, to: &Path, modified: SystemTime, entry: &Entry) -> io::Result<()> {
    let mut content = Vec::new();
    let source = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from)?;
    // It may have grown since it was looked at; the next look will see that.
    source.take(MAX_BYTES).read_to_end(&mut content)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(to)?;
    file.write_all(&content)?;
    set_owner_and_mode(to, entry)?;
    file.set_modified(modified)
}

fn set_owner_and_mode(path: &Path, entry: &Entry) -> io::Result<()> {
    chown(path, Some(entry.owner.0), Some(entry.owner.1))?;
    // After the owner: a change of that takes the set-user bit away.
    fs::set_permissions(path, Permissions::from_mode(entry.mode))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    // A name is at most 255 bytes long.
    name.truncate(255 - TEMPORARY.len());
    name.extend_from_slice(TEMPORARY.as_bytes());
    path.with_file_name(std::ffi::OsStr::from_bytes(&name))
}

/// The path itself where there is nothing to add: a trailing slash would ask for a directory.
fn join(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { base.to_path_buf() } else { base.join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("husk-mirror-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("source")).unwrap();
            Self(path)
        }

        fn mirror(&self) -> Mirror {
            Mirror::new(&self.0.join("source"), &self.0.join("copy"))
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.join("copy").join(path)).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_volume_is_updated_as_kubernetes_does_it() {
        let scratch = Scratch::new("configmap");
        let source = scratch.0.join("source");
        fs::create_dir(source.join("..v1")).unwrap();
        fs::write(source.join("..v1/key"), "one").unwrap();
        symlink("..v1", source.join("..data")).unwrap();
        symlink("..data/key", source.join("key")).unwrap();
        let mut mirror = scratch.mirror();
        assert_eq!(mirror.update().unwrap(), Ok(()));
        assert_eq!(scratch.read("key"), "one");

        fs::create_dir(source.join("..v2")).unwrap();
        fs::write(source.join("..v2/key"), "two").unwrap();
        symlink("..v2", source.join("..new")).unwrap();
        fs::rename(source.join("..new"), source.join("..data")).unwrap();
        fs::remove_dir_all(source.join("..v1")).unwrap();
        mirror.update().unwrap().unwrap();
        assert_eq!(scratch.read("key"), "two");
        assert!(!scratch.0.join("copy/..v1").exists());
        let names: Vec<_> = fs::read_dir(scratch.0.join("copy")).unwrap().collect();
        assert_eq!(names.len(), 3, "no temporary name stays: {names:?}");
    }

    #[test]
    fn owners_modes_and_kinds_are_kept() {
        let scratch = Scratch::new("modes");
        let source = scratch.0.join("source");
        fs::write(source.join("a"), "x").unwrap();
        chown(source.join("a"), Some(11), Some(12)).unwrap();
        fs::set_permissions(source.join("a"), Permissions::from_mode(0o4750)).unwrap();
        let mut mirror = scratch.mirror();
        mirror.update().unwrap().unwrap();
        let copy = fs::metadata(scratch.0.join("copy/a")).unwrap();
        assert_eq!((copy.uid(), copy.gid(), copy.mode() & 0o7777), (11, 12, 0o4750));
        fs::remove_file(source.join("a")).unwrap();
        fs::create_dir(source.join("a")).unwrap();
        fs::write(source.join("a/b"), "y").unwrap();
        mirror.update().unwrap().unwrap();
        assert_eq!(scratch.read("a/b"), "y");
    }

    #[test]
    fn a_single_file_stays_the_same_file() {
        let scratch = Scratch::new("single");
        let (source, copy) = (scratch.0.join("source/f"), scratch.0.join("copy-f"));
        fs::write(&source, "one").unwrap();
        let mut mirror = Mirror::new(&source, &copy);
        mirror.update().unwrap().unwrap();
        let inode = fs::metadata(&copy).unwrap().ino();
        fs::write(&source, "longer").unwrap();
        mirror.update().unwrap().unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "longer");
        assert_eq!(fs::metadata(&copy).unwrap().ino(), inode);
        assert_eq!(mirror.watched().collect::<Vec<_>>(), [source]);
    }

    #[test]
    fn limits_are_those_of_the_peer() {
        let scratch = Scratch::new("limits");
        let source = scratch.0.join("source");
        for number in 0..MAX_ENTRIES {
            fs::write(source.join(number.to_string()), "").unwrap();
        }
        let mut mirror = scratch.mirror();
        assert_eq!(mirror.update().unwrap(), Ok(()), "sixteen are not too many");
        fs::write(source.join("one more"), "").unwrap();
        assert_eq!(mirror.update().unwrap(), Err(TooLarge));
        fs::remove_file(source.join("one more")).unwrap();
        fs::write(source.join("0"), vec![0; MAX_BYTES as usize]).unwrap();
        assert_eq!(mirror.update().unwrap(), Ok(()));
        fs::write(source.join("1"), "x").unwrap();
        assert_eq!(mirror.update().unwrap(), Err(TooLarge));
    }
}
