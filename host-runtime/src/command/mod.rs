//! The verbs of the command line, one a file. Each takes its resolved options and says what became of it.

mod delete;
mod exec;
mod kill;
mod list;
mod run;

pub use delete::delete;
pub use exec::{ExecOptions, exec};
pub use kill::kill;
pub use list::{list_json, list_table};
pub use run::{RunOptions, Source, run};

use crate::error::Chained;
use crate::{agent, image, state, vm};

/// What a verb can fail with. Its text is the whole line after `husk: `.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument.
    #[error("arguments: {object}: {cause}")]
    Arguments {
        /// The argument.
        object: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The image or root file system.
    #[error("image: {0}")]
    Image(Chained<image::Error>),
    /// The state directory.
    #[error("state: {0}")]
    State(Chained<state::Error>),
    /// The VM.
    #[error("{0}")]
    Vm(vm::Error),
    /// The agent.
    #[error("agent: {0}")]
    Agent(Chained<agent::Error>),
    /// A signal before there was a workload to take it.
    #[error("{stage}: {object}: interrupted by signal {signal}")]
    Interrupted {
        /// What was going on.
        stage: &'static str,
        /// For whom.
        object: String,
        /// The signal.
        signal: u32,
    },
    /// Something of the process itself.
    #[error("{object}: {}", crate::error::plain(source))]
    System {
        /// What was attempted.
        object: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code for it: 126 and 127 are the command's own fault, 128 and up a signal, 125 is husk's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Agent(Chained(error)) => error.exec_code().unwrap_or(125),
            Error::Interrupted { signal, .. } => 128u8.saturating_add(*signal as u8),
            _ => 125,
        }
    }
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Error {
        Error::State(error.into())
    }
}

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Error {
        Error::Image(error.into())
    }
}

impl From<vm::Error> for Error {
    fn from(error: vm::Error) -> Error {
        Error::Vm(error)
    }
}

impl From<agent::Error> for Error {
    fn from(error: agent::Error) -> Error {
        Error::Agent(error.into())
    }
}
