//! The test bench: a root file system of one busybox, a spec to change, a process to start, what became of it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jail::{ChildIo, Context, Control, Message, Plan, Spawned, oci};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe};
use serde_json::{Value, json};

/// No step of any test takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A container that is not there yet.
pub(crate) struct Bench {
    directory: Rc<Directory>,
    pub(crate) spec: Value,
    pub(crate) context: Context,
    /// Called where the agent would run its hooks.
    pub(crate) when_mounted: fn(&Running),
}

/// Goes when neither its bench nor a process in it needs it any more.
struct Directory(PathBuf);

/// What became of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    /// Exit code, or 128 and the signal.
    pub(crate) code: i32,
}

/// A started process.
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    control: Option<Control>,
    pub(crate) pty: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    reaped: bool,
    _directory: Rc<Directory>,
}

impl Bench {
    /// A container with mounts and limits as engines send them; its program is `args`.
    pub(crate) fn new(args: &[&str]) -> Bench {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("husk-jail-test-{}-{number}", std::process::id()));
        make_rootfs(&directory.join("rootfs"));
        // Not where cargo put it: root of a user namespace may not get there.
        fs::copy(std::env::current_exe().unwrap(), directory.join("jail")).unwrap();
        let root_is_ramfs = fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" / / rw - rootfs ");
        let context =
            Context { id: "test".into(), bundle: directory.clone(), root_is_ramfs, ..Context::default() };
        Bench { directory: Rc::new(Directory(directory)), spec: spec(args), context, when_mounted: |_| () }
    }

    /// Merges `change` into the spec, at a JSON pointer.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Bench {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.spec.pointer_mut(parent).unwrap()[name] = value;
        self
    }

    pub(crate) fn mount(mut self, mount: Value) -> Bench {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.0.join("rootfs")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    pub(crate) fn plan(&self) -> Plan {
        let spec: oci::Spec = serde_json::from_value(self.spec.clone()).unwrap();
        jail::plan::container(&spec, &self.context).unwrap()
    }

    /// Starts it and waits for `Ready`, or gives the failure's text.
    pub(crate) fn create(&self) -> Result<Running, String> {
        self.launch(&self.plan(), None)
    }

    /// Starts it and lets it go.
    pub(crate) fn start(&self) -> Result<Running, String> {
        let running = self.create()?;
        running.release();
        match running.message() {
            Message::Executed => Ok(running),
            Message::Failed(failure) => Err(failure.to_string()),
            other => panic!("{other:?} after it was ready"),
        }
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<Outcome, String> {
        Ok(self.start()?.finish())
    }

    /// One more process, in the container of `of`.
    pub(crate) fn exec(&self, of: &Running, process: Value) -> Result<Running, String> {
        let process: oci::Process = serde_json::from_value(process).unwrap();
        let plan = jail::plan::exec(&process, &self.plan()).unwrap();
        let running = self.launch(&plan, Some(&of.pidfd))?;
        match running.message() {
            Message::Executed => Ok(running),
            Message::Failed(failure) => Err(failure.to_string()),
            other => panic!("{other:?} after it was ready"),
        }
    }

    fn launch(&self, plan: &Plan, container: Option<&OwnedFd>) -> Result<Running, String> {
        let (stdin_read, stdin) = pipe().unwrap();
        let (stdout, stdout_write) = pipe().unwrap();
        let (stderr, stderr_write) = pipe().unwrap();
        for fd in [&stdin, &stdout, &stderr] {
            cloexec(fd);
        }
        let io = ChildIo {
            stdin: Some(stdin_read),
            stdout: Some(stdout_write),
            stderr: Some(stderr_write),
            container: container.map(AsFd::as_fd),
            mounts: jail::mapped_mounts(plan).map_err(|error| error.to_string())?,
        };
        let exe = CString::new(self.directory.0.join("jail").to_str().unwrap()).unwrap();
        let Spawned { pid, pidfd, control } =
            jail::spawn(plan, io, &exe).map_err(|error| error.to_string())?;
        let mut running = Running {
            pid,
            pidfd,
            control: Some(control),
            pty: None,
            stdin: Some(stdin),
            stdout,
            stderr,
            reaped: false,
            _directory: self.directory.clone(),
        };
        loop {
            match running.message() {
                Message::Mounted => {
                    (self.when_mounted)(&running);
                    running.release();
                }
                Message::Ready { pty } => {
                    running.pty = pty;
                    return Ok(running);
                }
                Message::Failed(failure) => return Err(failure.to_string()),
                Message::Executed => panic!("executed before it was ready"),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Running {
    pub(crate) fn message(&self) -> Message {
        loop {
            let control = self.control.as_ref().unwrap();
            if let Some(message) = control.recv().unwrap() {
                return message;
            }
            wait_readable(control);
        }
    }

    pub(crate) fn write(&self, text: &str) {
        nix::unistd::write(self.stdin.as_ref().unwrap(), text.as_bytes()).unwrap();
    }

    /// Waits until it has written something.
    pub(crate) fn await_output(&self) {
        wait_readable(&self.stdout);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Closes its stdin, reads its output to the end, and takes its status.
    pub(crate) fn finish(mut self) -> Outcome {
        self.stdin = None;
        let (mut out, mut err) = (String::new(), String::new());
        match self.pty.take() {
            Some(pty) => out = read_pty(pty),
            None => {
                wait_readable(&self.stdout);
                File::from(self.stdout.try_clone().unwrap()).read_to_string(&mut out).unwrap();
                File::from(self.stderr.try_clone().unwrap()).read_to_string(&mut err).unwrap();
            }
        }
        wait_readable(&self.pidfd);
        Outcome { out, err, code: self.reap() }
    }

    /// Hangs up on it before the start, and takes its exit code.
    pub(crate) fn abandon(mut self) -> i32 {
        self.control = None;
        self.finish().code
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.control.as_ref().unwrap().go_on().unwrap();
    }

    fn reap(&mut self) -> i32 {
        self.reaped = true;
        match waitpid(Pid::from_raw(self.pid), None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::SIGKILL);
            self.reap();
        }
    }
}

/// What a process of these args is for `exec`: without capabilities, as shims send it.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({ "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/" })
}

/// `sh -c script`
pub(crate) fn script(script: &str) -> Bench {
    Bench::new(&["sh", "-c", script])
}

/// Reads a terminal until its other side is gone.
pub(crate) fn read_pty(pty: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 1024];
    loop {
        wait_readable(&pty);
        match nix::unistd::read(&pty, &mut buffer) {
            Ok(0) | Err(nix::errno::Errno::EIO) => return String::from_utf8(bytes).unwrap(),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(errno) => panic!("terminal: {errno}"),
        }
    }
}

pub(crate) fn wait_readable(fd: &impl AsFd) {
    let start = Instant::now();
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::from(100_u16)).unwrap() == 0 {
        assert!(start.elapsed() < DEADLINE, "nothing came from descriptor {}", fd.as_fd().as_raw_fd());
    }
}

fn cloexec(fd: &OwnedFd) {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).unwrap();
}

fn make_rootfs(root: &Path) {
    for directory in ["bin", "etc", "tmp", "home/web", "data"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("/bin/busybox (package busybox-static)");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let tools = "sh cat id ls echo true sleep mount umount hostname stat touch mknod mkdir stty tty test \
                 readlink wc env pwd kill grep ulimit head chown find cut tr";
    for tool in tools.split_whitespace() {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\ntape:x:26:web\naudio:x:29:web\n").unwrap();
    fs::write(root.join("etc/hosts"), "image\n").unwrap();
}

fn spec(args: &[&str]) -> Value {
    let caps = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "husk-test",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "noNewPrivileges": true,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "pid" }],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/nosuch"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
