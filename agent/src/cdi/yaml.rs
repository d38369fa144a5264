//! YAML, as far as it says what JSON can: one document, no aliases, keys that are texts.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Deeper than any description, and no more than what may be dropped recursively.
const MAX_DEPTH: usize = 32;

/// A list or a map that has not ended yet.
enum Open {
    List(Vec<Value>),
    /// With the key that waits for its value.
    Map(Map<String, Value>, Option<String>),
}

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, place) = event.map_err(|error| error.to_string())?;
        let at = |what: &str| format!("line {}: {what}", place.start.line());
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == MAX_DEPTH => {
                return Err(at("nested too deeply"));
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Value::Array(items),
                Some(Open::Map(fields, _)) => Value::Object(fields),
                None => return Err(at("an end without a beginning")),
            },
            // One that stands for much more text than it has itself.
            Event::Alias(_) => return Err(at("aliases are not supported")),
            Event::DocumentStart(_) if document.is_some() => return Err(at("more than one document")),
            _ => continue,
        };
        match open.last_mut() {
            None => document = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map(fields, key)) => match key.take() {
                Some(key) => drop(fields.insert(key, value)),
                None => {
                    let name = match value {
                        Value::String(name) => name,
                        Value::Number(name) => name.to_string(),
                        _ => return Err(at("a key that is not a text")),
                    };
                    if fields.contains_key(&name) {
                        return Err(at(&format!("{name:?} is there twice")));
                    }
                    *key = Some(name);
                }
            },
        }
    }
    document.ok_or_else(|| "it is empty".to_string())
}

/// What a word without quotes is. Fractions stay the texts that they are: versions are written like them.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    let number = match text.strip_prefix('0') {
        Some("") => Some(0),
        // Modes are written like this.
        Some(octal) if digits(octal, 8) => i64::from_str_radix(octal, 8).ok(),
        Some(rest) if rest.strip_prefix('o').is_some_and(|octal| digits(octal, 8)) => {
            i64::from_str_radix(&rest[1..], 8).ok()
        }
        Some(rest) if rest.strip_prefix('x').is_some_and(|hex| digits(hex, 16)) => {
            i64::from_str_radix(&rest[1..], 16).ok()
        }
        None if digits(text.strip_prefix('-').unwrap_or(text), 10) => text.parse().ok(),
        _ => None,
    };
    number.map_or_else(|| Value::String(text.to_string()), |number| Value::Number(Number::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_says_what_json_says() {
        let text = "---\ncdiVersion: 0.5.0\nkind: \"nvidia.com/gpu\"\ndevices:\n- name: \"0\"\n  containerEdits:\n    \
                    deviceNodes:\n    - path: /dev/nvidia0\n      fileMode: 0666\n      major: 0xc3\n- name: 1\n  \
                    empty: []\n  none:\n  flag: true\n  minus: -5\n  flow: {a: [1, 'b']}\n# the end\n";
        let expected = json!({
            "cdiVersion": "0.5.0",
            "kind": "nvidia.com/gpu",
            "devices": [
                {"name": "0", "containerEdits": {"deviceNodes": [
                    {"path": "/dev/nvidia0", "fileMode": 438, "major": 195}
                ]}},
                {"name": 1, "empty": [], "none": null, "flag": true, "minus": -5, "flow": {"a": [1, "b"]}}
            ]
        });
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read(&expected.to_string()).unwrap(), expected, "JSON is YAML too");
    }

    #[test]
    fn words_that_only_look_like_numbers_stay_words() {
        for word in ["0.6", "1.0.0", "08", "0x", "0o9", "-", "1_000", "1e3", "99999999999999999999", "yes"] {
            assert_eq!(plain(word), Value::String(word.to_string()));
        }
        assert_eq!((plain("0"), plain("0o17"), plain("00")), (json!(0), json!(15), json!(0)));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for (text, reason) in [
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("a: &x [1]\nb: *x\n", "aliases"),
            ("a: 1\na: 2\n", "\"a\" is there twice"),
            ("? [a]\n: 1\n", "not a text"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            ("a: [1\n", ""),
            ("a: \"\n", ""),
            ("\t- a: b\n\t c", ""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        for deep in ["[", "{a: ", "- ", "? "] {
            assert!(read(&deep.repeat(100_000)).is_err(), "{deep}");
        }
        assert!(read(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
        assert!(read(&format!("{}{}", "- ".repeat(MAX_DEPTH + 1), "x")).unwrap_err().contains("deep"));
    }
}
