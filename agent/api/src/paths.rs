//! Guest paths and mount tags that requests name.

/// Everything the agent makes at run time lies below this directory.
pub const RUN: &str = "/run/kata-containers";

/// Where the file system shared with the host is mounted.
pub const SHARE_ROOT: &str = "/run/kata-containers/shared/containers";

/// The tag of that file system, with virtio-fs and 9p alike.
pub const SHARE_TAG: &str = "kataShared";

/// What belongs to the sandbox: shm, resolv.conf, ephemeral volumes.
pub const SANDBOX: &str = "/run/kata-containers/sandbox";

/// The sandbox's own ipc and uts namespaces, bound to files `ipc` and `uts`.
pub const SANDBOX_NAMESPACES: &str = "/run/sandbox-ns";

/// Where the guest's extensions are mounted, each in a directory of its name.
pub const EXTENSIONS: &str = "/run/kata-extensions";
