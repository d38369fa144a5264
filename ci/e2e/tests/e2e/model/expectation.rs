//! What a call is expected to answer.

use ttrpc::Code;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    Ok,
    /// This exit status; `None`: any.
    Status(Option<i32>),
    Refused(Code),
    /// No answer until the caller gives up.
    Blocks,
    /// Either way is right, but there is an answer.
    Answers,
    /// The model does not say, and the call is not made.
    Skip,
}

impl Expectation {
    /// Compares an answer with it.
    pub(super) fn meets(self, answer: &ttrpc::Result<Option<i32>>) -> Result<(), String> {
        let code = match answer {
            Ok(_) => None,
            Err(ttrpc::Error::RpcStatus(status)) => Some(status.code()),
            Err(ttrpc::Error::Others(text)) if text.contains("deadline") => Some(Code::DEADLINE_EXCEEDED),
            Err(error) => return Err(format!("the connection: {error}")),
        };
        let met = match self {
            Expectation::Ok => code.is_none(),
            Expectation::Status(status) => {
                matches!(answer, Ok(Some(told)) if status.is_none_or(|status| status == *told))
            }
            Expectation::Refused(expected) => code == Some(expected),
            Expectation::Blocks => code == Some(Code::DEADLINE_EXCEEDED),
            Expectation::Answers => code != Some(Code::DEADLINE_EXCEEDED),
            Expectation::Skip => true,
        };
        if met { Ok(()) } else { Err(format!("{answer:?} where the model says {self:?}")) }
    }
}
