//! The policy that every request must meet, in Rego, evaluated by the regorus crate.
//!
//! A request is shown to the rule of its message's name in package `agent_policy`, as JSON under the names that the
//! peer's policies use ([`json`]). The rule answers yes or no, or yes with changes to its own state, which is the data
//! document and begins as `{"pstate": {}}`. No answer, two answers, an error and a policy that is not there are all no,
//! unless the policy itself says `AllowRequestsFailingPolicy`.

mod json;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_api::agent::CopyFileRequest;
use agent_api::fields;
use nix::libc;
use protobuf::Message;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

/// Where images keep the policy to begin with.
const DEFAULT_FILE: &str = "/etc/kata-opa/default-policy.rego";

/// The largest policy that is taken, in bytes: that of a pod with many containers has some hundred thousand.
const MAX_POLICY: usize = 4 << 20;

/// How long one decision may take. Policies of pods take milliseconds; one that takes this long decides nothing.
const DECISION: Duration = Duration::from_secs(5);

/// A request was not allowed, or a policy not taken.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("policy: {rule} is not allowed: {reason}")]
    Denied { rule: String, reason: String },
    #[error("policy: {rule}: the request cannot be read: {cause}")]
    Unreadable { rule: String, cause: String },
    #[error("policy: not a policy: {0}")]
    Bad(String),
}

/// What decides about requests, cheap to clone. Decisions are made one after the other, because each may change the state.
#[derive(Clone)]
pub(crate) struct Policy(Arc<Mutex<Rules>>);

/// The policy's rules and its state.
enum Rules {
    Loaded(Box<Loaded>),
    /// There are none, and this is why. Nothing is allowed.
    Missing(String),
}

struct Loaded {
    engine: Engine,
    allow_failures: bool,
}

impl Policy {
    /// The policy to begin with, from the configured file or that of the image.
    pub(crate) fn load(file: Option<&Path>) -> Self {
        let file = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_path_buf);
        let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        let loaded = read.and_then(|text| Loaded::from(text).map_err(|error| error.to_string()));
        let rules = match loaded {
            Ok(loaded) => Rules::Loaded(Box::new(loaded)),
            Err(cause) => {
                let reason = format!("{}: {cause}", file.display());
                tracing::error!(reason, "there is no policy: nothing is allowed");
                Rules::Missing(reason)
            }
        };
        Self(Arc::new(Mutex::new(rules)))
    }

    /// Replaces the policy, and forgets the state of the old one. A bad one changes nothing.
    pub(crate) async fn set(&self, text: String) -> Result<(), Error> {
        self.blocking("SetPolicyRequest", |rules| {
            *rules = Rules::Loaded(Box::new(Loaded::from(text)?));
            Ok(())
        })
        .await
    }

    /// Whether a request may be served: the rule is that of its message.
    pub(crate) async fn admit(&self, request: &'static fields::Message, bytes: &[u8]) -> Result<(), Error> {
        let input = input(request, bytes)
            .map_err(|cause| Error::Unreadable { rule: request.name.to_string(), cause })?;
        self.blocking(request.name, move |rules| match rules {
            Rules::Loaded(loaded) => loaded.decide(request.name, input),
            Rules::Missing(reason) => Err(denied(request.name, reason.clone())),
        })
        .await
    }

    /// Works with the rules where nobody is held up. A panic on the way allows nothing, then or later: nobody knows in
    /// what state it left the rules.
    async fn blocking(
        &self,
        rule: &'static str,
        work: impl FnOnce(&mut Rules) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let rules = self.0.clone();
        let done = tokio::task::spawn_blocking(move || match rules.lock() {
            Ok(mut rules) => work(&mut rules),
            Err(_) => Err(denied(rule, "the policy broke on an earlier request".to_string())),
        });
        done.await.unwrap_or_else(|_| Err(denied(rule, "the policy broke on this request".to_string())))
    }
}

impl Loaded {
    fn from(text: String) -> Result<Self, Error> {
        if text.len() > MAX_POLICY {
            return Err(Error::Bad(format!("it has more than {MAX_POLICY} bytes")));
        }
        let bad = |error: anyhow::Error| Error::Bad(format!("{error:#}"));
        let mut engine = Engine::new();
        // What existing policies are written in; `import rego.v1` makes a policy's own language the new one.
        engine.set_rego_v0(true);
        engine.set_strict_builtin_errors(false);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: DECISION,
            check_interval: NonZeroU32::MIN.saturating_add(1023),
        });
        let package = engine.add_policy("agent_policy".to_string(), text).map_err(bad)?;
        if package != "data.agent_policy" {
            return Err(Error::Bad(format!("its package is {package}, not data.agent_policy")));
        }
        engine.add_data_json(r#"{"pstate": {}}"#).map_err(bad)?;
        let mut loaded = Self { engine, allow_failures: false };
        // The first query is also when most mistakes of a policy are found.
        loaded.allow_failures = match loaded.ask("AllowRequestsFailingPolicy").map_err(Error::Bad)? {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(_) => return Err(Error::Bad("AllowRequestsFailingPolicy is not true or false".to_string())),
        };
        Ok(loaded)
    }

    fn decide(&mut self, rule: &str, input: serde_json::Value) -> Result<(), Error> {
        self.engine.set_input(Value::from(input));
        match self.ask(rule).and_then(|answer| self.understand(answer)) {
            Ok(()) => Ok(()),
            Err(reason) if self.allow_failures => {
                tracing::warn!(rule, reason, "a request that fails the policy is allowed");
                Ok(())
            }
            Err(reason) => {
                tracing::warn!(rule, reason, "a request is denied");
                Err(denied(rule, reason))
            }
        }
    }

    /// A rule's value; `None` if it has none.
    fn ask(&mut self, rule: &str) -> Result<Option<Value>, String> {
        let query = format!("data.agent_policy.{rule}");
        let answers = self.engine.eval_query(query, false).map_err(|error| format!("{error:#}"))?;
        let mut answers = answers.result.into_iter();
        match (answers.next(), answers.next()) {
            (None, _) => Ok(None),
            (Some(answer), None) if answer.expressions.len() == 1 => {
                Ok(answer.expressions.into_iter().next().map(|expression| expression.value))
            }
            _ => Err("the rule has several answers".to_string()),
        }
    }

    /// Yes: `true`, or an object that says `allowed` and how the state changes.
    fn understand(&mut self, answer: Option<Value>) -> Result<(), String> {
        let no = || "the rule says no".to_string();
        match answer {
            None | Some(Value::Undefined) => {
                Err("the policy has no rule for it, or none that holds".to_string())
            }
            Some(Value::Bool(true)) => Ok(()),
            Some(Value::Bool(false)) => Err(no()),
            Some(answer @ Value::Object(_)) => {
                let answer = serde_json::to_value(&answer).map_err(|error| error.to_string())?;
                match answer.get("allowed") {
                    Some(serde_json::Value::Bool(true)) => self.change_state(answer.get("ops")),
                    Some(serde_json::Value::Bool(false)) => Err(no()),
                    _ => Err("the rule does not say whether it is allowed".to_string()),
                }
            }
            Some(_) => Err("the rule is neither true, false nor an object".to_string()),
        }
    }

    /// Applies a JSON patch (RFC 6902) to the data document: all of it, or nothing and the request is denied.
    fn change_state(&mut self, operations: Option<&serde_json::Value>) -> Result<(), String> {
        let operations = match operations {
            None | Some(serde_json::Value::Null) => return Ok(()),
            Some(operations) => operations,
        };
        let patch: json_patch::Patch =
            serde_json::from_value(operations.clone()).map_err(|error| format!("ops: {error}"))?;
        let mut state = serde_json::to_value(self.engine.get_data()).map_err(|error| error.to_string())?;
        json_patch::patch(&mut state, &patch).map_err(|error| format!("ops: {error}"))?;
        if !state.is_object() {
            return Err("ops: the state must stay an object".to_string());
        }
        self.engine.clear_data();
        self.engine.add_data(Value::from(state)).map_err(|error| format!("{error:#}"))
    }
}

fn denied(rule: &str, reason: String) -> Error {
    Error::Denied { rule: rule.to_string(), reason }
}

/// A request as the policy sees it.
fn input(request: &'static fields::Message, bytes: &[u8]) -> Result<serde_json::Value, String> {
    let mut input = json::decode(request, bytes)?;
    if request.name == "CopyFileRequest"
        && let serde_json::Value::Object(fields) = &mut input
    {
        // A file's content may be large and says little; a symbolic link's target is what matters about it.
        let copy = CopyFileRequest::parse_from_bytes(bytes).map_err(|error| error.to_string())?;
        let is_link = copy.file_mode & libc::S_IFMT == libc::S_IFLNK;
        let target = if is_link { String::from_utf8_lossy(&copy.data).into_owned() } else { String::new() };
        fields.remove("data");
        fields.insert("symlink_src".to_string(), target.into());
    }
    Ok(input)
}
