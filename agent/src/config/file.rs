//! The configuration file: TOML, flat but for times.

use toml::de::{DeTable, DeValue};

use super::knobs::{KNOBS, Knob};
use super::value::Kind;

/// What a file says of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A setting, by its place in the table, and its value as text.
    Known { knob: usize, text: String },
    /// A setting whose value has the wrong type.
    WrongType { knob: usize, value: String },
    /// No setting.
    Unknown(String),
}

/// Reads a file's text. It is no TOML: the error says where.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let table = DeTable::parse(text).map_err(|error| error.to_string().trim_end().to_string())?;
    let entries = table.get_ref().iter().map(|(key, value)| {
        let key = key.get_ref();
        let Some(knob) = KNOBS.iter().position(|knob| knob.names.file_key() == key) else {
            return Entry::Unknown(key.to_string());
        };
        let value = value.get_ref();
        match as_text(value, &KNOBS[knob]) {
            Some(text) => Entry::Known { knob, text },
            None => Entry::WrongType { knob, value: type_name(value).to_string() },
        }
    });
    Ok(entries.collect())
}

/// A value in the form the kernel command line has it, if it is of the setting's type.
fn as_text(value: &DeValue<'_>, knob: &Knob) -> Option<String> {
    match (knob.kind, value) {
        (Kind::Bool, DeValue::Boolean(value)) => Some(value.to_string()),
        (Kind::Number | Kind::Time, value @ DeValue::Integer(_)) => integer(value).map(|n| n.to_string()),
        (Kind::Text, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Time, DeValue::Table(table)) => {
            let part = |name: &str| match table.get(name) {
                Some(part) => integer(part.get_ref()),
                None => Some(0),
            };
            let (seconds, nanos) = (part("secs")?, part("nanos")?);
            let known = table.keys().all(|key| matches!(&**key.get_ref(), "secs" | "nanos"));
            (known && (0..1_000_000_000).contains(&nanos)).then(|| format!("{seconds}.{nanos:09}"))
        }
        _ => None,
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
