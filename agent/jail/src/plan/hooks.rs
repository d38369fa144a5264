//! Programs that somebody else wants to run at the turns of a container's life, and what they are told about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, PlanError, no_nul};
use crate::oci::{self, Spec};

/// How long a hook may take that says nothing of it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The hooks of a container, in the order in which they run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// Beside the agent, once the container's namespaces are there and before its root is entered.
    pub prestart: Vec<Hook>,
    /// The same, after those.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is entered.
    pub create_container: Vec<Hook>,
    /// In the container, right before its program.
    pub start_container: Vec<Hook>,
    /// Beside the agent, once the program runs.
    pub poststart: Vec<Hook>,
    /// Beside the agent, once the container is gone.
    pub poststop: Vec<Hook>,
    /// What each of them reads.
    pub state: State,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments, its name first. Empty: the path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a hook reads on its standard input: the state of its container. Incomplete without a status and a pid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    oci_version: String,
    id: String,
    bundle: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended.
    Stopped,
}

impl State {
    /// Where the container's configuration is.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The whole state as JSON. A process that has ended has no number any more.
    pub fn json(&self, status: Status, pid: Option<i32>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            state: &'a State,
            status: Status,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
        }
        serde_json::to_vec(&Whole { state: self, status, pid }).unwrap_or_default()
    }
}

impl Hooks {
    /// Whether the agent has something to do before the container's root is entered.
    pub fn before_root(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }

    /// The longest that the hooks inside the container may take together.
    pub fn time_inside(&self) -> Duration {
        self.create_container.iter().chain(&self.start_container).map(|hook| hook.timeout).sum()
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.create_container, &self.start_container, &self.poststart, &self.poststop];
        !self.before_root() && lists.iter().all(|list| list.is_empty())
    }
}

pub(super) fn of_spec(spec: &Spec, context: &Context) -> Result<Hooks, PlanError> {
    let Some(hooks) = spec.hooks() else { return Ok(Hooks::default()) };
    #[allow(deprecated)] // the specification has named them so since 1.0.2; everybody still sends them
    let prestart = hooks.prestart();
    let mut out = Hooks {
        prestart: list(prestart)?,
        create_runtime: list(hooks.create_runtime())?,
        create_container: list(hooks.create_container())?,
        start_container: list(hooks.start_container())?,
        poststart: list(hooks.poststart())?,
        poststop: list(hooks.poststop())?,
        state: State::default(),
    };
    if !out.is_empty() {
        out.state = State {
            oci_version: spec.version().clone(),
            id: context.id.clone(),
            bundle: context.bundle.clone(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        };
    }
    Ok(out)
}

fn list(hooks: &Option<Vec<oci::Hook>>) -> Result<Vec<Hook>, PlanError> {
    hooks.iter().flatten().map(one).collect()
}

fn one(hook: &oci::Hook) -> Result<Hook, PlanError> {
    let path = hook.path().clone();
    no_nul("hook", &path)?;
    if !path.is_absolute() {
        return Err(PlanError::Path { what: "hook", path });
    }
    let (args, env) = (hook.args().clone().unwrap_or_default(), hook.env().clone().unwrap_or_default());
    for word in args.iter().chain(&env) {
        no_nul("argument of a hook", word)?;
    }
    if let Some(entry) = env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(PlanError::Env(entry.clone()));
    }
    let timeout = match hook.timeout() {
        None => TIMEOUT,
        Some(seconds) => u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
            .ok_or_else(|| PlanError::Unsupported { what: "hook timeout", value: seconds.to_string() })?,
    };
    Ok(Hook { path, args, env, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn hooks(hooks: Value) -> Result<Hooks, PlanError> {
        let spec = json!({ "ociVersion": "1.0.2", "annotations": { "b": "2", "a": "1" }, "hooks": hooks });
        let context = Context { id: "c1".into(), bundle: "/run/c1".into(), ..Context::default() };
        of_spec(&serde_json::from_value(spec).unwrap(), &context)
    }

    #[test]
    fn every_turn_has_its_list() {
        let hook =
            |path: &str| json!([{ "path": path, "args": ["name", "arg"], "env": ["A=b"], "timeout": 3 }]);
        let got = hooks(json!({
            "prestart": hook("/1"), "createRuntime": hook("/2"), "createContainer": hook("/3"),
            "startContainer": hook("/4"), "poststart": hook("/5"), "poststop": hook("/6"),
        }))
        .unwrap();
        let lists = [&got.prestart, &got.create_runtime, &got.create_container, &got.start_container];
        for (list, path) in lists.into_iter().chain([&got.poststart, &got.poststop]).zip(1..) {
            assert_eq!(list[0].path, PathBuf::from(format!("/{path}")));
            assert_eq!((list[0].args.len(), list[0].timeout), (2, Duration::from_secs(3)));
        }
        assert!(got.before_root());
        assert_eq!(got.time_inside(), Duration::from_secs(6));
    }

    #[test]
    fn the_state_is_what_the_specification_says() {
        let got = hooks(json!({ "poststop": [{ "path": "/x" }] })).unwrap();
        assert_eq!(got.poststop[0].timeout, Duration::from_secs(10));
        let text = String::from_utf8(got.state.json(Status::Creating, Some(7))).unwrap();
        let expected = r#"{"ociVersion":"1.0.2","id":"c1","bundle":"/run/c1","annotations":{"a":"1","b":"2"},"status":"creating","pid":7}"#;
        assert_eq!(text, expected);
        let stopped: Value = serde_json::from_slice(&got.state.json(Status::Stopped, None)).unwrap();
        assert_eq!((&stopped["status"], stopped.get("pid")), (&json!("stopped"), None));
        assert_eq!(hooks(json!({})).unwrap(), Hooks::default());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for bad in [
            json!({ "path": "relative" }),
            json!({ "path": "" }),
            json!({ "path": "/x\0" }),
            json!({ "path": "/x", "timeout": 0 }),
            json!({ "path": "/x", "timeout": -1 }),
            json!({ "path": "/x", "args": ["a\0"] }),
            json!({ "path": "/x", "env": ["novalue"] }),
        ] {
            assert!(hooks(json!({ "createContainer": [bad] })).is_err(), "{bad}");
        }
    }
}
