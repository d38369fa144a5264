//! The table of the wire: every method, message and field.

use serde_json::Value;

/// The table.
pub(super) struct Table(Value);

/// A field of a message.
pub(super) struct Field<'t> {
    pub(super) number: u32,
    pub(super) name: &'t str,
    pub(super) kind: Kind<'t>,
    pub(super) repeated: bool,
}

/// What a field holds, as far as the wire tells it apart.
pub(super) enum Kind<'t> {
    Number,
    Text,
    Bytes,
    Message(&'t str),
    Map,
}

impl Table {
    pub(super) fn read() -> Self {
        let text = include_str!("../../../../../agent/api/tests/agent-api.json");
        Self(serde_json::from_str(text).expect("the table is JSON"))
    }

    /// The name of a method's request.
    pub(super) fn request(&self, method: &str) -> &str {
        let methods = self.0["files"]["agent.proto"]["services"]["grpc.AgentService"].as_array();
        let found = methods.expect("a list").iter().find(|row| row["name"] == method);
        found.and_then(|row| row["request"].as_str()).unwrap_or_else(|| panic!("no method {method}"))
    }

    /// Every method.
    pub(super) fn methods(&self) -> Vec<&str> {
        let methods = self.0["files"]["agent.proto"]["services"]["grpc.AgentService"].as_array();
        methods.expect("a list").iter().filter_map(|row| row["name"].as_str()).collect()
    }

    /// The fields of a message.
    pub(super) fn fields(&self, message: &str) -> Vec<Field<'_>> {
        let files = self.0["files"].as_object().expect("files by name");
        let rows = files.values().find_map(|file| file["messages"][message].as_array());
        rows.unwrap_or_else(|| panic!("no message {message}")).iter().map(field).collect()
    }
}

fn field(row: &Value) -> Field<'_> {
    let of_type = row["type"].as_str().expect("a type");
    let kind = match (of_type, row["kind"].as_str()) {
        (message, Some("message")) => Kind::Message(message),
        ("string", _) => Kind::Text,
        ("bytes", _) => Kind::Bytes,
        (map, _) if map.starts_with("map<") => Kind::Map,
        _ => Kind::Number,
    };
    Field {
        number: row["n"].as_u64().expect("a number") as u32,
        name: row["name"].as_str().expect("a name"),
        kind,
        repeated: row["label"] == "repeated",
    }
}
