//! `husk kill`: a signal for a container's first process.

use super::Error;
use crate::agent::{Client, Target};
use crate::name::Name;
use crate::state::Store;
use crate::vm::AGENT_SOCKET;

/// Sends `signal` to the first process of `name`; SIGKILL ends all of its processes.
pub async fn kill(store: &Store, name: &Name, signal: u32) -> Result<(), Error> {
    store.running(name)?;
    let client = Client::connect(&store.dir(name).join(AGENT_SOCKET), None).await?;
    client.signal(&Target { container: name.to_string(), exec_id: String::new() }, signal).await?;
    Ok(())
}
