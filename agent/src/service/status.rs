//! Domain errors as ttrpc codes: the only place that chooses a code.

use ttrpc::{Code, Error};

use crate::{container, diagnostics, network, policy, refresh, stdio};

/// The code of an error where callers tell the cases apart: an unknown container is INVALID_ARGUMENT, an unknown
/// process NOT_FOUND.
pub(super) fn lookup(error: container::Error) -> Error {
    let code = match error {
        container::Error::Unknown(_) => Code::INVALID_ARGUMENT,
        container::Error::UnknownProcess { .. } => Code::NOT_FOUND,
        _ => Code::INTERNAL,
    };
    status(code, error)
}

/// The code of an error of the network: a field that cannot be is INVALID_ARGUMENT.
pub(super) fn network(error: network::Error) -> Error {
    match error {
        network::Error::Field(_) => status(Code::INVALID_ARGUMENT, error),
        _ => internal(error),
    }
}

/// A field that there has to be.
pub(super) fn missing(field: &str) -> Error {
    invalid_argument(format!("{field}: it is missing"))
}

/// The code of an error where callers expect INTERNAL whatever happened.
pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    status(Code::INTERNAL, error)
}

/// A stream of our own service has broken off.
pub(crate) fn streaming(error: stdio::Error) -> Error {
    match error {
        stdio::Error::Overrun { .. } => invalid_argument(error),
        _ => internal(error),
    }
}

/// A kind of data that there is not is the caller's mistake.
pub(super) fn diagnostic(error: diagnostics::Error) -> Error {
    match error {
        diagnostics::Error::LogType(_) => invalid_argument(error),
        _ => internal(error),
    }
}

/// A policy said no, or was not taken.
pub(crate) fn policy(error: policy::Error) -> Error {
    #[cfg(feature = "policy")]
    let code = match error {
        policy::Error::Denied { .. } => Code::PERMISSION_DENIED,
        policy::Error::Unreadable { .. } | policy::Error::Bad(_) => Code::INVALID_ARGUMENT,
    };
    // What callers take for an agent that knows no policies.
    #[cfg(not(feature = "policy"))]
    let code = match error {
        policy::Error::NotBuilt => Code::NOT_FOUND,
    };
    status(code, error)
}

/// A cloned guest was not made another one.
pub(super) fn refreshing(error: refresh::Error) -> Error {
    match error {
        refresh::Error::Invalid { .. } => invalid_argument(error),
        refresh::Error::Step { .. } => internal(error),
    }
}

/// The process has no terminal.
pub(super) fn unavailable(error: impl std::fmt::Display) -> Error {
    status(Code::UNAVAILABLE, error)
}

/// A field of the request cannot be what it is.
pub(super) fn invalid_argument(error: impl std::fmt::Display) -> Error {
    status(Code::INVALID_ARGUMENT, error)
}

/// A defect of the agent's.
pub(super) fn panicked(method: &str, reason: &str) -> ttrpc::Status {
    ttrpc::get_status(Code::INTERNAL, format!("{method}: the agent panicked: {reason}"))
}

fn status(code: Code, error: impl std::fmt::Display) -> Error {
    Error::RpcStatus(ttrpc::get_status(code, error.to_string()))
}
