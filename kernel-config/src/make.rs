//! Runs the kernel's own tools in its tree. Their output goes to a log; what a person sees is a count, or on failure
//! the log's last lines.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use guest_arch::Arch;
use guest_inputs::Task;

use crate::{
    Variant,
    error::{Error, at},
};

/// About how many objects a kernel of ours has: how long the progress bar is, nothing else.
const OBJECTS: u64 = 2000;
/// How much of the log an error shows.
const TAIL_LINES: usize = 30;

/// A source tree, and how to build in it.
pub(crate) struct Make {
    tree: PathBuf,
    /// Where its products go, if not into the tree.
    out: Option<PathBuf>,
    log: PathBuf,
    env: Vec<(&'static str, String)>,
    variant: Variant,
    row: &'static guest_arch::Row,
}

/// What fills in for symbols that no fragment names.
#[derive(Clone, Copy)]
pub(crate) enum Base {
    /// Nothing: what is not asked for is off.
    Nothing,
    /// The defaults of the kernel's authors.
    Defaults,
}

impl Make {
    pub(crate) fn new(
        tree: &Path,
        arch: Arch,
        variant: Variant,
        timestamp: &str,
        log: PathBuf,
    ) -> Result<Self, Error> {
        if tree.to_string_lossy().contains(|c: char| c == ':' || c.is_whitespace()) {
            return Err(Error::Place(tree.to_owned()));
        }
        let map = format!("-ffile-prefix-map={}=/linux", tree.display());
        // With these the same inputs give the same bytes, whoever builds, wherever and whenever.
        let env = vec![
            ("ARCH", arch.row().kernel_arch.to_owned()),
            ("CROSS_COMPILE", cross_compile(arch).to_owned()),
            ("KBUILD_BUILD_TIMESTAMP", timestamp.to_owned()),
            ("KBUILD_BUILD_USER", "husk".to_owned()),
            ("KBUILD_BUILD_VERSION", "1".to_owned()),
            ("KCFLAGS", map.clone()),
            ("KAFLAGS", map),
        ];
        Ok(Make { tree: tree.to_owned(), out: None, log, env, variant, row: arch.row() })
    }

    /// Leaves the tree as it is, and writes into this directory.
    pub(crate) fn out(self, dir: &Path) -> Self {
        Make { out: Some(dir.to_owned()), ..self }
    }

    /// Resolves the settings of all fragments, none of which stands in two, over `base`: the text of `.config`.
    pub(crate) fn configure(&self, settings: &Path, base: Base) -> Result<String, Error> {
        let mut make = self.make();
        make.arg(match base {
            Base::Nothing => "allnoconfig",
            Base::Defaults => "alldefconfig",
        });
        make.env("KCONFIG_ALLCONFIG", settings);
        self.run("resolving the configuration", make, |_| ())?;
        crate::read(&self.out.as_ref().unwrap_or(&self.tree).join(".config"))
    }

    /// Builds both images. The kernel will say that it was built on this host.
    pub(crate) fn images(&self, host: &str, task: &Task) -> Result<(), Error> {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let target = |image: &'static str| image.rsplit('/').next().unwrap_or(image);
        let mut make = self.make();
        make.env("KBUILD_BUILD_HOST", host);
        make.arg(format!("-j{jobs}")).arg(target(self.row.kernel_image));
        if self.row.compressed_image != self.row.kernel_image {
            make.arg(target(self.row.compressed_image));
        }
        let mut done = 0;
        task.count("compiling", done, OBJECTS);
        self.run("building the images", make, |line| {
            if is_object(line) {
                done += 1;
                task.count("compiling", done, OBJECTS.max(done));
            }
        })
    }

    /// Tools that this kernel does not need are kept from it: their versions would get into its configuration.
    fn make(&self) -> Command {
        // Who ends us by a signal means make too, which would go on for minutes in a directory that nobody owns any more.
        let mut make = self.command("setpriv");
        make.args(["--pdeathsig", "TERM", "make"]);
        make.arg("RUSTC=none");
        if !self.variant.has_types() {
            make.arg("PAHOLE=none");
        }
        if let Some(out) = &self.out {
            let mut to = std::ffi::OsString::from("O=");
            to.push(out);
            make.arg(to);
        }
        make
    }

    /// A program that runs in the tree and sees nothing of our environment but where programs are.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = bare(program);
        command.current_dir(&self.tree).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs to the end, both outputs to the log, and each line of the first to `watch`.
    fn run(
        &self,
        step: &'static str,
        mut command: Command,
        mut watch: impl FnMut(&str),
    ) -> Result<(), Error> {
        let log = File::options().create(true).append(true).open(&self.log);
        let mut log = log.map_err(at("open", &self.log))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let cannot = |source| Error::Run { program: program.clone(), source };
        // One pipe for both, so that an error stands in the log where it happened.
        let (output, input) = std::io::pipe().map_err(cannot)?;
        command.stdin(Stdio::null()).stdout(input.try_clone().map_err(cannot)?).stderr(input);
        let mut child = command.spawn().map_err(cannot)?;
        // It holds the pipe open on our side.
        drop(command);
        let logged = BufReader::new(output).split(b'\n').try_for_each(|line| {
            let mut line = line?;
            watch(&String::from_utf8_lossy(&line));
            line.push(b'\n');
            log.write_all(&line)
        });
        if logged.is_err() {
            let _already_gone = child.kill();
        }
        let status = child.wait().map_err(cannot)?;
        logged.map_err(at("write", &self.log))?;
        if status.success() {
            return Ok(());
        }
        let bytes = std::fs::read(&self.log).map_err(at("read", &self.log))?;
        Err(Error::Make { step, status, tail: tail(&String::from_utf8_lossy(&bytes)) })
    }
}

/// What the compiler, the linker and, if it is of use, `pahole` call themselves: inputs of every kernel they make.
pub fn tools(arch: Arch, variant: Variant) -> Result<String, Error> {
    let first_line = |program: String| {
        let output = bare(&program).arg("--version").output();
        let output = output.map_err(|source| Error::Run { program, source })?;
        Ok::<_, Error>(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    let mut programs = ["gcc", "ld"].map(|program| format!("{}{program}", cross_compile(arch))).to_vec();
    programs.extend(variant.has_types().then(|| "pahole".to_owned()));
    Ok(programs.into_iter().map(first_line).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// On its own architecture a kernel needs no cross compiler.
fn cross_compile(arch: Arch) -> &'static str {
    if arch == Arch::host() { "" } else { arch.row().cross_compile }
}

fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    for name in ["PATH", "TMPDIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

/// Whether make says with this line that it makes something: "  HOSTCC  scripts/kconfig/conf.o".
fn is_progress(line: &str) -> bool {
    let what = line.strip_prefix("  ").and_then(|line| line.split(' ').next());
    what.is_some_and(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// Whether make says with this line that it compiles something for the kernel.
fn is_object(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    matches!(words.next(), Some("CC" | "AS")) && words.next().is_some_and(|file| file.ends_with(".o"))
}

/// The end of a log, without the lines that say what is being made: with several jobs at once the one that failed has said
/// so long before the last of the others is done.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !is_progress(line)).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_in(dir: &Path) -> Make {
        Make::new(dir, Arch::host(), Variant::Lean, "2026-01-01", dir.join("log")).unwrap()
    }

    #[test]
    fn objects_are_counted_and_nothing_else() {
        assert!(is_object("  CC      mm/shuffle.o"));
        assert!(is_object("  AS      arch/x86/entry/entry.o"));
        for line in ["  LD      vmlinux.o", "  CC", "  HOSTCC  scripts/kconfig/conf.o", "CC is gcc", ""] {
            assert!(!is_object(line), "{line:?}");
        }
    }

    #[test]
    fn a_failing_step_shows_the_end_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let make = make_in(dir.path());
        let mut command = make.command("sh");
        command.args(["-c", "seq 1 100; echo oops >&2; exit 3"]);
        let mut seen = 0;
        let error = make.run("testing", command, |_| seen += 1).unwrap_err().to_string();
        assert_eq!(seen, 101);
        assert!(error.starts_with("kernel: testing failed (exit status: 3); "), "{error}");
        assert!(error.contains("oops") && error.contains("\n99\n") && !error.contains("\n50\n"), "{error}");
    }

    #[test]
    fn what_failed_is_not_lost_among_what_went_well() {
        let log =
            "x.c:1:2: error: no y\nmake: *** x.o\n".to_owned() + &"  CC      z.o\n  HOSTCC  w\n".repeat(50);
        assert_eq!(tail(&log), "x.c:1:2: error: no y\nmake: *** x.o");
    }

    #[test]
    fn a_place_that_the_makefile_refuses_is_named() {
        for place in ["/a b/linux", "/a:b/linux", "/a\tb"] {
            let new =
                Make::new(Path::new(place), Arch::host(), Variant::Lean, "2026-01-01", PathBuf::from("log"));
            let error = new.err().unwrap().to_string();
            assert!(error.contains(place) && error.contains("XDG_CACHE_HOME"), "{error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let make = make_in(dir.path());
        let error = make.run("testing", make.command("no-such-program"), |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "kernel: cannot run no-such-program");
    }

    #[test]
    fn the_environment_of_a_build_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let make = make_in(dir.path());
        let mut lines = Vec::new();
        make.run("testing", make.command("env"), |line| lines.push(line.to_owned())).unwrap();
        let names: Vec<_> = lines.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"KBUILD_BUILD_TIMESTAMP"));
        let foreign = names.iter().find(|name| name.starts_with("CARGO"));
        assert_eq!(foreign, None, "cargo sets CARGO_MANIFEST_DIR for this test, and a build must not see it");
    }
}
