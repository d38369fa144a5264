//! The words of the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use husk::artefacts::{self, ExtensionName};
use husk::command::{self, Error, ExecOptions, RunOptions, Source};
use husk::image::Reference;
use husk::name::Name;
use husk::size::Memory;
use husk::state::{self, Store};
use husk::{share, signals, transport};

/// Run containers, each in a small virtual machine of its own.
#[derive(Parser)]
#[command(name = "husk", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where the state of containers is kept [default: /run/husk for root, else $XDG_RUNTIME_DIR/husk]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Guest artefacts: the directory with manifest.json [default: ./out/<arch>/minimal, else /usr/lib/husk/<arch>/minimal]
    #[arg(long, global = true, value_name = "DIR", env = "HUSK_ARTEFACTS")]
    artefacts: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a command in a new container, in a new VM
    Run(Box<RunArgs>),
    /// Run one more command in a container that runs
    Exec(ExecArgs),
    /// Send a signal to a container
    Kill {
        /// The container
        name: Name,
        /// Number or name
        #[arg(default_value = "TERM", value_parser = signals::parse)]
        signal: u32,
    },
    /// List containers
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a container that has stopped
    Delete {
        /// Kill it first if it runs; no error if it does not exist
        #[arg(long, short)]
        force: bool,
        /// The container
        name: Name,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Keep nothing of it when it has ended
    #[arg(long)]
    rm: bool,
    /// An image in an OCI layout: oci:DIR or oci:DIR:REF
    #[arg(long, value_name = "IMAGE", required_unless_present = "rootfs", conflicts_with = "rootfs")]
    image: Option<Reference>,
    /// A root file system, used in place
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    #[command(flatten)]
    process: ProcessArgs,
    /// The VM's memory
    #[arg(long, default_value = "256M", value_name = "SIZE")]
    memory: Memory,
    /// The VM's processors
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// How the agent is reached: serial or vsock
    #[arg(long, default_value = "serial")]
    transport: transport::Kind,
    /// How the root file system is shared: auto, virtiofs or 9p
    #[arg(long, default_value = "auto")]
    share: share::Kind,
    /// The image that the VM boots: initrd, erofs, squashfs, ext4, disk, disk-mbr, kata, kata-dax, uki or another format of
    /// the artefacts [default: initrd, else the first that boots]
    #[arg(long, value_name = "FORMAT")]
    boot: Option<String>,
    /// A read-only image for the guest beside its root, of the artefacts or of those in DIR; may be repeated. The agent checks
    /// it and mounts it at /run/kata-extensions/NAME
    #[arg(long, value_name = "[DIR:]NAME")]
    extension: Vec<ExtensionName>,
    /// How long the guest may take until its agent answers: one with an init system of its own takes longer than ours
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    boot_timeout: u64,
    /// More words for the guest's kernel command line
    #[arg(long, value_name = "WORD")]
    kernel_arg: Vec<String>,
    /// The container's name
    name: Name,
    /// The command and its arguments [default: the image's]
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct ExecArgs {
    #[command(flatten)]
    process: ProcessArgs,
    /// The container
    name: Name,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct ProcessArgs {
    /// Give it a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Give it our stdin
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Environment, may be repeated
    #[arg(short = 'e', long = "env", value_name = "KEY=VALUE", value_parser = env_word)]
    env: Vec<String>,
    /// Working directory
    #[arg(short = 'w', long, value_name = "DIR", value_parser = absolute_path)]
    workdir: Option<String>,
    /// User, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long)]
    user: Option<String>,
}

/// Does what was asked and returns the exit code.
pub(crate) async fn dispatch(cli: Cli) -> Result<u8, Error> {
    let store = Store::new(cli.root.clone().unwrap_or_else(state::default_root));
    match cli.verb {
        Verb::Run(args) => {
            let data = match &cli.root {
                Some(root) => root.join(".data"),
                None => state::default_data(),
            };
            let artefacts = cli.artefacts.unwrap_or_else(artefacts::default_dir);
            Ok(exit_code(command::run(&store, run_options(*args, artefacts, data)).await?))
        }
        Verb::Exec(args) => {
            let options = ExecOptions {
                name: args.name,
                command: args.command,
                env: args.process.env,
                workdir: args.process.workdir,
                user: args.process.user,
                terminal: args.process.tty,
                interactive: args.process.interactive,
            };
            Ok(exit_code(command::exec(&store, options).await?))
        }
        Verb::Kill { name, signal } => command::kill(&store, &name, signal).await.map(|()| 0),
        Verb::List { json } => {
            let text = if json { command::list_json(&store)? } else { command::list_table(&store)? };
            print(&text);
            Ok(0)
        }
        Verb::Delete { force, name } => command::delete(&store, &name, force).await.map(|()| 0),
    }
}

/// Help goes to stdout; a usage error is one line, and 125 like all of husk's own failures.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        print(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{text}");
    } else {
        let said: Vec<&str> = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
            .filter(|line| !line.is_empty())
            .collect();
        let said = said.join(" ");
        eprintln!("husk: arguments: {}", said.strip_prefix("error: ").unwrap_or(&said));
    }
    ExitCode::from(125)
}

/// An error as the one line it is printed as.
pub(crate) fn one_line(error: &Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn run_options(args: RunArgs, artefacts: PathBuf, data: PathBuf) -> RunOptions {
    let source = match (args.image, args.rootfs) {
        (Some(image), _) => Source::Image(image),
        (None, rootfs) => Source::Rootfs(rootfs.unwrap_or_default()),
    };
    RunOptions {
        name: args.name,
        source,
        command: args.command,
        remove: args.rm,
        terminal: args.process.tty,
        interactive: args.process.interactive,
        memory: args.memory,
        cpus: args.cpus,
        env: args.process.env,
        workdir: args.process.workdir,
        user: args.process.user,
        transport: args.transport,
        share: args.share,
        artefacts,
        boot: args.boot,
        extensions: args.extension,
        boot_timeout: Duration::from_secs(args.boot_timeout),
        data,
        cmdline: args.kernel_arg,
    }
}

/// A closed stdout is not worth a panic.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(255)
}

fn env_word(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains('\0') => Ok(text.to_string()),
        _ => Err("expected KEY=VALUE".into()),
    }
}

fn absolute_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_string()) } else { Err("expected an absolute path".into()) }
}
