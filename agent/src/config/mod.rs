//! What the agent was told, resolved once into one [`Config`] value.
//!
//! A setting has one entry in one table ([`knobs`]). Sources are read in this order, later ones win:
//!
//! - with `-c FILE`: the defaults, that file, the environment;
//! - with `agent.config_file=FILE` on the kernel command line: the defaults and that file, nothing else;
//! - otherwise: the defaults, the kernel command line, the environment.
//!
//! A value that does not parse is reported and leaves what was there, unless the agent would be less safe for it: then
//! it does not start ([`Error`]). Words of the command line that are not ours are the kernel's or somebody else's
//! business; a key of the file that is not ours is a mistake worth a warning.

mod file;
mod knobs;
mod print;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use knobs::Config;
use knobs::KNOBS;
pub(crate) use value::ServerAddress;

/// The word that names a file to be read instead of every other source.
const CONFIG_FILE: &str = "agent.config_file";

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    CommandLine,
    File,
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "the default",
            Self::CommandLine => "the kernel command line",
            Self::File => "the file",
            Self::Environment => "the environment",
        })
    }
}

/// A setting that was given and could not be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Warning {
    BadValue { key: &'static str, origin: Origin, value: String, help: &'static str },
    UnknownKey { file: PathBuf, key: String },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { key, origin, value, help } => {
                write!(f, "{key}: {value:?} of {origin} is ignored: {}", one_line(help))
            }
            Self::UnknownKey { file, key } => write!(f, "{}: {key}: no such setting", file.display()),
        }
    }
}

/// The agent must not start with these settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("configuration: {file}: {source}")]
    Read { file: String, source: io::Error },
    #[error("configuration: {file}: {message}")]
    Syntax { file: String, message: String },
    #[error("configuration: {key}: {value:?} of {origin}: {}", one_line(help))]
    Refused { key: &'static str, origin: Origin, value: String, help: &'static str },
    /// A policy that is asked for and not enforced would be worse than none.
    #[error("configuration: policy_file: this agent is built without policies")]
    NoPolicy,
    #[error("configuration: policy_file: {file}: {source}")]
    Policy { file: String, source: io::Error },
}

fn one_line(help: &str) -> String {
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the sources say, before any of it is looked at.
#[derive(Default)]
pub(crate) struct Sources {
    /// The file of the option `-c`.
    pub(crate) file: Option<PathBuf>,
    /// The kernel command line.
    pub(crate) cmdline: String,
    /// The values of those variables that are settings, by name.
    pub(crate) environment: Vec<(String, String)>,
}

impl Sources {
    /// What this process was given.
    pub(crate) fn of_this_process(file: Option<PathBuf>) -> io::Result<Self> {
        // Any byte can be on a command line, and none of them is a reason not to boot.
        let cmdline = String::from_utf8_lossy(&std::fs::read("/proc/cmdline")?).into_owned();
        let names = KNOBS.iter().filter_map(|knob| knob.names.env);
        let environment = names.filter_map(|name| {
            std::env::var_os(name).map(|value| (name.to_string(), value.to_string_lossy().into_owned()))
        });
        Ok(Self { file, cmdline, environment: environment.collect() })
    }
}

/// Settings and where each came from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) config: Config,
    /// What could not be used.
    pub(crate) warnings: Vec<Warning>,
    /// In the order of the table.
    origins: Vec<Origin>,
    file: Option<PathBuf>,
}

impl Resolved {
    /// Reads every source.
    pub(crate) fn from(sources: Sources) -> Result<Self, Error> {
        let mut resolved = Self::nothing_given();
        let named = words(&sources.cmdline).find(|(key, _)| *key == CONFIG_FILE).map(|(_, file)| file.into());
        match (sources.file, named) {
            (Some(file), _) => {
                resolved.read_file(file)?;
                resolved.read_environment(&sources.environment)?;
            }
            (None, Some(file)) => resolved.read_file(file)?,
            (None, None) => {
                resolved.read_cmdline(&sources.cmdline)?;
                resolved.read_environment(&sources.environment)?;
            }
        }
        resolved.check_policy()?;
        Ok(resolved)
    }

    /// Reads a file's text, whatever it says of other files.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn from_text(text: &str) -> Result<Self, Error> {
        let mut resolved = Self::nothing_given();
        resolved.read_text(PathBuf::from("text"), text)?;
        Ok(resolved)
    }

    fn nothing_given() -> Self {
        let origins = vec![Origin::Default; KNOBS.len()];
        Self { config: Config::default(), warnings: Vec::new(), origins, file: None }
    }

    fn read_cmdline(&mut self, cmdline: &str) -> Result<(), Error> {
        for (key, value) in words(cmdline) {
            if let Some(knob) = KNOBS.iter().position(|knob| knob.names.word == key) {
                self.set(knob, value, Origin::CommandLine)?;
            }
        }
        Ok(())
    }

    fn read_environment(&mut self, environment: &[(String, String)]) -> Result<(), Error> {
        for (name, value) in environment {
            if let Some(knob) = KNOBS.iter().position(|knob| knob.names.env == Some(name)) {
                self.set(knob, value, Origin::Environment)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: PathBuf) -> Result<(), Error> {
        let file = path.display().to_string();
        let text = read_bounded(&path).map_err(|source| Error::Read { file, source })?;
        self.read_text(path, &text)
    }

    fn read_text(&mut self, path: PathBuf, text: &str) -> Result<(), Error> {
        let file = path.display().to_string();
        let entries = file::parse(text).map_err(|message| Error::Syntax { file, message })?;
        for entry in entries {
            match entry {
                file::Entry::Known { knob, text } => self.set(knob, &text, Origin::File)?,
                file::Entry::WrongType { knob, value } => self.reject(knob, &value, Origin::File)?,
                file::Entry::Unknown(key) => {
                    self.warnings.push(Warning::UnknownKey { file: path.clone(), key });
                }
            }
        }
        self.file = Some(path);
        Ok(())
    }

    fn set(&mut self, knob: usize, text: &str, origin: Origin) -> Result<(), Error> {
        match (KNOBS[knob].set)(&mut self.config, text) {
            Some(()) => self.origins[knob] = origin,
            None => self.reject(knob, text, origin)?,
        }
        Ok(())
    }

    fn reject(&mut self, knob: usize, value: &str, origin: Origin) -> Result<(), Error> {
        let (names, help, value) = (&KNOBS[knob].names, KNOBS[knob].help, value.to_string());
        let key = if origin == Origin::CommandLine { names.word } else { names.file_key() };
        if names.refused {
            return Err(Error::Refused { key, origin, value, help });
        }
        self.warnings.push(Warning::BadValue { key, origin, value, help });
        Ok(())
    }

    fn check_policy(&self) -> Result<(), Error> {
        let Some(path) = &self.config.policy_file else { return Ok(()) };
        if !cfg!(feature = "policy") {
            return Err(Error::NoPolicy);
        }
        let file = path.display().to_string();
        std::fs::File::open(path).map(drop).map_err(|source| Error::Policy { file, source })
    }
}

/// The largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

/// The words of a kernel command line as keys and values; a word without a value has an empty one.
///
/// As in the kernel, white space within double quotes separates no words, and quotes around a value or a whole word
/// are not part of it (lib/cmdline.c, next_arg).
pub(crate) fn words(cmdline: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut quoted = false;
    let separates = move |character: char| {
        quoted ^= character == '"';
        !quoted && character.is_ascii_whitespace()
    };
    cmdline.split(separates).filter(|word| !word.is_empty()).map(|word| {
        let word = word.strip_prefix('"').map_or(word, |word| word.strip_suffix('"').unwrap_or(word));
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let value = value.strip_prefix('"').map_or(value, |value| value.strip_suffix('"').unwrap_or(value));
        (key, value)
    })
}
