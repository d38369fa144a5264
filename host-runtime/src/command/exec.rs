//! `husk exec`: one more process in a container that runs.

use agent_api::agent::ExecProcessRequest;
use protobuf::MessageField;

use super::Error;
use crate::agent::{Client, Target};
use crate::container::{self, Workload};
use crate::name::Name;
use crate::session::{self, Attach};
use crate::signals::Signals;
use crate::state::Store;
use crate::terminal;
use crate::vm::AGENT_SOCKET;

/// What `husk exec` was asked for.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The container.
    pub name: Name,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Words on top of the container's environment.
    pub env: Vec<String>,
    /// Instead of the container's working directory.
    pub workdir: Option<String>,
    /// Instead of the container's user.
    pub user: Option<String>,
    /// With a terminal.
    pub terminal: bool,
    /// With our stdin.
    pub interactive: bool,
}

/// Runs a process and returns its exit code.
pub async fn exec(store: &Store, options: ExecOptions) -> Result<i32, Error> {
    let mut signals =
        Signals::listen().map_err(|source| Error::System { object: "signals".into(), source })?;
    let name = &options.name;
    let record = store.running(name)?;
    let mut env = record.env;
    if options.terminal {
        env = container::merge_env(&env, &["TERM=xterm".into()]);
    }
    let workload = Workload {
        args: options.command,
        env: container::merge_env(&env, &options.env),
        cwd: options.workdir.unwrap_or(record.cwd),
        user: options.user.unwrap_or(record.user),
        terminal: options.terminal,
    };
    let mut process = container::process(&workload);
    // Absent capabilities mean the container's own.
    process.Capabilities = MessageField::none();
    let request = ExecProcessRequest {
        container_id: name.to_string(),
        exec_id: exec_id(),
        process: MessageField::some(process),
        ..Default::default()
    };
    let target = Target { container: request.container_id.clone(), exec_id: request.exec_id.clone() };
    let client = Client::connect(&store.dir(name).join(AGENT_SOCKET), None).await?;
    tokio::select! {
        started = client.exec_process(&request) => started?,
        signal = signals.stop() => {
            return Err(Error::Interrupted { stage: "exec", object: name.to_string(), signal });
        }
    }
    if let (true, Some((rows, columns))) = (options.terminal, terminal::size()) {
        client.resize(&target, rows, columns).await?;
    }
    let attach = Attach { terminal: options.terminal, interactive: options.interactive };
    Ok(session::attend(&client, &target, attach, &mut signals).await?)
}

/// An id no other process of the container has: our pid and the time it is.
fn exec_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("exec-{}-{:x}", std::process::id(), now.as_nanos())
}
