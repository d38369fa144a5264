//! An agent without policies: every request is allowed, and none can be set. The feature `policy` puts another module in
//! the place of this one.

use std::path::Path;

/// A request was not allowed, or a policy not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("policy: this agent is built without policies")]
    NotBuilt,
}

/// What decides about requests.
pub(crate) struct Policy;

impl Policy {
    /// The policy to begin with. The configuration refuses a file that could not be enforced.
    pub(crate) fn load(_file: Option<&Path>) -> Self {
        Self
    }

    /// Replaces the policy.
    pub(crate) async fn set(&self, _text: String) -> Result<(), Error> {
        Err(Error::NotBuilt)
    }
}
