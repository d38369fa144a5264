//! `CopyFile`: files the host sends instead of sharing them, whole or in chunks.
//!
//! Everything lands below the shared directory. Containers have parts of it and may plant links there, so a path is
//! resolved with that directory as its root, and its last name is never followed. A file is written under a random
//! name next to its place and takes it when it is complete: who has the old one open keeps it, nobody sees half of the
//! new one, and no sibling's name can collide with it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use agent_api::agent::CopyFileRequest;
use agent_api::paths;
use jail::inside;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

/// Files that may be half-way at a time. The one begun first gives way to another: its sender has gone.
const MAX_UPLOADS: usize = 64;

/// What parents are made with if the request does not say: some callers leave the field at zero.
const DIRECTORY_MODE: u32 = 0o755;

/// A file cannot be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("CopyFile: {field}: {reason}")]
    Field { field: &'static str, reason: String },
    #[error("CopyFile: {path:?}: {step}: {source}")]
    Step { path: PathBuf, step: &'static str, source: io::Error },
    #[error("CopyFile: {0}")]
    Panicked(String),
}

/// The files that have begun to arrive, by the paths they will have.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<PathBuf, Upload>>>);

/// A file that is not complete. Dropped as such, it is removed.
struct Upload {
    directory: OwnedFd,
    temporary: OsString,
    file: File,
    written: u64,
    /// Which of all uploads it was.
    number: u64,
}

/// Takes a file, a directory or a symbolic link, or the next chunk of a file.
pub(crate) async fn copy(uploads: &Uploads, request: CopyFileRequest) -> Result<(), Error> {
    let uploads = uploads.clone();
    let copied = tokio::task::spawn_blocking(move || uploads.take(&request, Path::new(paths::SHARE_ROOT)));
    copied.await.unwrap_or_else(|panic| Err(Error::Panicked(panic.to_string())))
}

/// Where a path leads below `root`: a relative path without `..`.
pub(crate) fn below(path: &str, root: &Path) -> Result<PathBuf, Error> {
    let refuse = |reason: &str| field("path", format!("{path:.512?} {reason}"));
    if path.contains('\0') {
        return Err(refuse("has a zero byte in it"));
    }
    let rest = Path::new(path).strip_prefix(root);
    let rest = rest.map_err(|_| refuse(&format!("is not below {}", root.display())))?;
    if rest.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refuse("has '..' in it"));
    }
    let clean: PathBuf = rest.components().filter(|part| *part != Component::CurDir).collect();
    if clean.as_os_str().is_empty() {
        return Err(refuse("is the shared directory itself"));
    }
    Ok(clean)
}

fn field(field: &'static str, reason: impl Into<String>) -> Error {
    Error::Field { field, reason: reason.into() }
}

/// A request whose numbers were checked.
struct Wanted<'r> {
    path: PathBuf,
    name: &'r OsStr,
    size: u64,
    offset: u64,
    mode: u32,
    parent_mode: u32,
    owner: (u32, u32),
    data: &'r [u8],
}

impl Uploads {
    /// Forgets what is half-way.
    pub(crate) fn clear(&self) {
        drop(std::mem::take(&mut *self.uploads()));
    }

    /// The same as [`copy`], at once and below any directory.
    pub(crate) fn take(&self, request: &CopyFileRequest, root: &Path) -> Result<(), Error> {
        let wanted = Wanted::of(request, root)?;
        let at = |step| wanted.step(step);
        let kind = request.file_mode & libc::S_IFMT;
        if kind == libc::S_IFDIR || kind == libc::S_IFLNK || wanted.offset == 0 {
            // Whatever of this name was on its way is not wanted any more.
            drop(self.uploads().remove(&wanted.path));
        }
        if kind != libc::S_IFDIR && kind != libc::S_IFLNK && wanted.offset > 0 {
            return self.go_on(&wanted);
        }
        let root =
            nix::fcntl::open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(at("open the shared directory"))?;
        let parent = wanted.path.parent().unwrap_or(Path::new(""));
        let parent = directories(&root, parent, &wanted).map_err(at("make its directory"))?;
        match kind {
            libc::S_IFDIR => make_directory(&parent, &wanted).map_err(at("make the directory")),
            libc::S_IFLNK => make_link(&parent, &wanted),
            _ => {
                let upload = self.begin(parent).map_err(at("make a file"))?;
                self.write(upload, &wanted)
            }
        }
    }

    fn begin(&self, directory: OwnedFd) -> nix::Result<Upload> {
        let temporary = temporary()?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&directory, temporary.as_os_str(), flags, Mode::from_bits_truncate(0o600))?;
        let number = self.uploads().values().map(|upload| upload.number + 1).max().unwrap_or(0);
        Ok(Upload { directory, temporary, file: file.into(), written: 0, number })
    }

    fn go_on(&self, wanted: &Wanted<'_>) -> Result<(), Error> {
        // Taken out while it is written to: of two requests for the same place only one can be the next.
        let Some(upload) = self.uploads().remove(&wanted.path) else {
            return Err(field("offset", format!("{} of a file that has not begun", wanted.offset)));
        };
        if upload.written != wanted.offset {
            let reason = format!("{} where {} is the next", wanted.offset, upload.written);
            self.keep(wanted, upload);
            return Err(field("offset", reason));
        }
        self.write(upload, wanted)
    }

    fn write(&self, mut upload: Upload, wanted: &Wanted<'_>) -> Result<(), Error> {
        upload.file.write_all(wanted.data).map_err(wanted.step("write"))?;
        upload.written += wanted.data.len() as u64;
        if upload.written == wanted.size {
            return upload.finish(wanted);
        }
        self.keep(wanted, upload);
        Ok(())
    }

    fn keep(&self, wanted: &Wanted<'_>, upload: Upload) {
        let mut uploads = self.uploads();
        uploads.insert(wanted.path.clone(), upload);
        if uploads.len() > MAX_UPLOADS {
            let oldest = uploads.iter().min_by_key(|(_, upload)| upload.number).map(|(path, _)| path.clone());
            let given_up = oldest.and_then(|path| uploads.remove(&path));
            drop(uploads);
            drop(given_up);
        }
    }

    fn uploads(&self) -> MutexGuard<'_, HashMap<PathBuf, Upload>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<'r> Wanted<'r> {
    fn of(request: &'r CopyFileRequest, root: &Path) -> Result<Self, Error> {
        let path = below(&request.path, root)?;
        let name = Path::new(&request.path).file_name().ok_or_else(|| field("path", "it has no name"))?;
        let number = |name, number: i64| {
            u64::try_from(number).map_err(|_| field(name, format!("{number} is below zero")))
        };
        let (size, offset) = (number("file_size", request.file_size)?, number("offset", request.offset)?);
        // Ids above two thousand millions come as negative numbers; all ones is nobody's.
        let id = |name, id: i32| if id == -1 { Err(field(name, "-1 is nobody")) } else { Ok(id as u32) };
        let owner = (id("uid", request.uid)?, id("gid", request.gid)?);
        let is_file = !matches!(request.file_mode & libc::S_IFMT, libc::S_IFDIR | libc::S_IFLNK);
        if is_file && size.checked_sub(offset).is_none_or(|room| (request.data.len() as u64) > room) {
            let end = u128::from(offset) + request.data.len() as u128;
            return Err(field("data", format!("it ends at {end}, beyond a file_size of {size}")));
        }
        if is_file && size > 0 && request.data.is_empty() {
            return Err(field("data", "it is empty"));
        }
        let parent_mode = match request.dir_mode & 0o777 {
            0 => DIRECTORY_MODE,
            mode => mode,
        };
        let (mode, data) = (request.file_mode & 0o7777, request.data.as_slice());
        Ok(Self { path, name, size, offset, mode, parent_mode, owner, data })
    }

    fn step<E: Into<io::Error>>(&self, step: &'static str) -> impl FnOnce(E) -> Error {
        let path = self.path.clone();
        move |source| Error::Step { path, step, source: source.into() }
    }
}

impl Upload {
    fn finish(mut self, wanted: &Wanted<'_>) -> Result<(), Error> {
        let (uid, gid) = wanted.owner;
        fchown(&self.file, Some(uid), Some(gid)).map_err(wanted.step("set the owner"))?;
        // After the owner: a change of that takes the set-user bit away.
        self.file
            .set_permissions(Permissions::from_mode(wanted.mode))
            .map_err(wanted.step("set the mode"))?;
        replace(&self.directory, &self.temporary, wanted.name).map_err(wanted.step("put it in its place"))?;
        self.temporary.clear();
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.temporary.is_empty() {
            let _ = unlinkat(&self.directory, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The directory at `path`, which is made with its parents if it is missing.
fn directories(root: &OwnedFd, path: &Path, wanted: &Wanted<'_>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match inside::open(root, path, flags) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let parent = directories(root, path.parent().unwrap_or(Path::new("")), wanted)?;
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => {
            own(&inside::open_plain(&parent, Path::new(name), flags)?, wanted.parent_mode, wanted.owner)?
        }
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    inside::open(root, path, flags)
}

fn make_directory(parent: &OwnedFd, wanted: &Wanted<'_>) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mode = if wanted.mode & 0o777 == 0 { wanted.parent_mode } else { wanted.mode };
    // Twice: the first attempt may find something else there, which is replaced.
    for replace in [true, false] {
        match mkdirat(parent, wanted.name, Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        match inside::open_plain(parent, Path::new(wanted.name), flags) {
            Err(Errno::ENOTDIR | Errno::ELOOP) if replace => {
                unlinkat(parent, wanted.name, UnlinkatFlags::NoRemoveDir)?;
            }
            opened => return own(&opened?, mode, wanted.owner),
        }
    }
    Err(Errno::ENOTDIR)
}

fn make_link(parent: &OwnedFd, wanted: &Wanted<'_>) -> Result<(), Error> {
    if wanted.data.is_empty() || wanted.data.contains(&0) {
        return Err(field("data", "it is no target of a symbolic link"));
    }
    let made = (|| {
        let new = temporary()?;
        symlinkat(OsStr::from_bytes(wanted.data), parent, new.as_os_str())?;
        let owner = (Some(Uid::from_raw(wanted.owner.0)), Some(Gid::from_raw(wanted.owner.1)));
        let placed = fchownat(parent, new.as_os_str(), owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)
            .and_then(|()| replace(parent, &new, wanted.name));
        if placed.is_err() {
            let _ = unlinkat(parent, new.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        placed
    })();
    made.map_err(wanted.step("make the symbolic link"))
}

/// Puts what is called `new` in the place of `name`. An empty directory gives way too.
fn replace(directory: &OwnedFd, new: &OsStr, name: &OsStr) -> nix::Result<()> {
    match renameat(directory, new, directory, name) {
        Err(Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
            unlinkat(directory, name, UnlinkatFlags::RemoveDir)?;
            renameat(directory, new, directory, name)
        }
        other => other,
    }
}

/// Sets owner and mode of a directory that was opened.
fn own(directory: &OwnedFd, mode: u32, (uid, gid): (u32, u32)) -> nix::Result<()> {
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(directory, c"", owner.0, owner.1, AtFlags::AT_EMPTY_PATH)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(directory));
    let changed = std::fs::set_permissions(path, Permissions::from_mode(mode));
    changed.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// A name that nobody else has or can guess.
fn temporary() -> nix::Result<OsString> {
    let mut random = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(".husk-{digits}").into())
}

#[cfg(test)]
mod tests;
