//! `--print-config`: every setting, what it means, its value and where that came from, as a configuration file.

use std::fmt::{self, Display, Formatter};

use super::knobs::{Config, KNOBS};
use super::{CONFIG_FILE, Resolved};

/// A text that is a configuration file with the same settings.
impl Display for Resolved {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => writeln!(f, "# The file is {}.", file.display())?,
            None => writeln!(f, "# On the kernel command line, {CONFIG_FILE} names a file like this.")?,
        }
        for warning in &self.warnings {
            writeln!(f, "# Warning: {}", warning.to_string().replace('\n', " "))?;
        }
        let default = Config::default();
        for (knob, origin) in KNOBS.iter().zip(&self.origins) {
            writeln!(f)?;
            for line in knob.help.lines() {
                writeln!(f, "#{line}")?;
            }
            let word = if knob.names.word.is_empty() { "none" } else { knob.names.word };
            write!(f, "# Word: {word}. Default: {}.", (knob.to_toml)(&default))?;
            if let Some(variable) = knob.names.env {
                write!(f, " Variable: {variable}.")?;
            }
            let value = (knob.to_toml)(&self.config);
            writeln!(f, "\n{} = {value} # from {origin}", knob.names.file_key())?;
        }
        Ok(())
    }
}
