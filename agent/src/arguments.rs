//! The agent's own command line.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the agent is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// To serve, with a configuration file if one is named.
    Serve { config: Option<PathBuf> },
    /// To be the first steps of a process in a container: how the agent starts itself.
    Jail,
    /// To hold a place: how the agent starts itself where systemd makes cgroups.
    Hold,
    /// To say which version it is.
    Version,
    /// To show its settings and where they come from.
    PrintConfig { config: Option<PathBuf> },
}

pub(crate) const USAGE: &str =
    "usage: husk-agent [-c FILE | --config FILE] [--print-config] [-v | --version]";

/// Arguments that are none of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("{0}: it needs a file\n{USAGE}")]
    NoFile(String),
    #[error("{0:?}: no such option\n{USAGE}")]
    Unknown(OsString),
}

/// Reads the arguments after the program's name.
///
/// The first process of a machine gets every word of the kernel command line that the kernel has no use for. It serves
/// whatever these are; an option is one all the same. (A jail is the first process too, of its pid namespace.)
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>, is_init: bool) -> Result<Command, Error> {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.peek().is_some_and(|first| first == "jail") {
        return Ok(Command::Jail);
    }
    if !is_init && arguments.peek().is_some_and(|first| first == crate::container::HOLD) {
        return Ok(Command::Hold);
    }
    let (mut config, mut print, mut version) = (None, false, false);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some(option @ ("-c" | "--config")) => {
                let file = arguments.next().ok_or_else(|| Error::NoFile(option.to_string()))?;
                config = Some(PathBuf::from(file));
            }
            Some("--print-config") => print = true,
            Some("-v" | "--version") => version = true,
            _ if is_init => {}
            _ => return Err(Error::Unknown(argument)),
        }
    }
    Ok(match (is_init, version, print) {
        (false, true, _) => Command::Version,
        (false, false, true) => Command::PrintConfig { config },
        _ => Command::Serve { config },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str], is_init: bool) -> Result<Command, Error> {
        parse(arguments.iter().map(OsString::from), is_init)
    }

    #[test]
    fn options_are_read() {
        let config = || Some(PathBuf::from("/a.toml"));
        assert_eq!(of(&[], false), Ok(Command::Serve { config: None }));
        assert_eq!(of(&["-c", "/a.toml"], false), Ok(Command::Serve { config: config() }));
        assert_eq!(
            of(&["--print-config", "--config", "/a.toml"], false),
            Ok(Command::PrintConfig { config: config() })
        );
        assert_eq!(of(&["-v"], false), Ok(Command::Version));
        assert_eq!(of(&["--version"], false), Ok(Command::Version));
        assert_eq!(of(&["jail"], false), Ok(Command::Jail));
        assert_eq!(of(&["hold"], false), Ok(Command::Hold));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        assert_eq!(of(&["-c"], false), Err(Error::NoFile("-c".into())));
        assert_eq!(of(&["serve"], false), Err(Error::Unknown("serve".into())));
        assert_eq!(of(&["-c", "x", "jail"], false), Err(Error::Unknown("jail".into())));
    }

    #[test]
    fn the_first_process_serves_whatever_the_kernel_hands_it() {
        for words in [&["quiet"][..], &["--version"], &["splash", "-v", "--print-config"], &["hold"]] {
            assert_eq!(of(words, true), Ok(Command::Serve { config: None }), "{words:?}");
        }
        let named = Command::Serve { config: Some("/a.toml".into()) };
        assert_eq!(of(&["splash", "-c", "/a.toml"], true), Ok(named));
    }
}
