//! A message's bytes as JSON, by the table of its fields.
//!
//! Names are those of the generated code, numbers are numbers, a field that is absent has its default, an absent message
//! is null: what the peer's policies are written for. Bytes are base64 where the peer has a list of numbers: a
//! write of a megabyte must not become a million of them.
//!
//! A policy must see what the handler will see. So each value is read by the function that the generated code reads it
//! with, and like there the last of several wins, and what has another wire type than its field is skipped.

use agent_api::fields::{Field, Kind, MESSAGES, Message};
use protobuf::rt::WireType;
use protobuf::{CodedInputStream, Result};
use serde_json::{Map, Value};

/// How deep messages may nest. Our protocols need six levels.
const MAX_DEPTH: usize = 32;

/// The JSON of a message.
pub(super) fn decode(message: &'static Message, bytes: &[u8]) -> std::result::Result<Value, String> {
    let mut input = CodedInputStream::from_bytes(bytes);
    read_message(message, &mut input, 0).map_err(|error| error.to_string())
}

fn read_message(message: &'static Message, input: &mut CodedInputStream<'_>, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(std::io::Error::other("messages nest too deep").into());
    }
    let mut object = Map::new();
    for field in message.fields {
        object.insert(field.name.to_string(), default(field));
    }
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let Some(wire) = WireType::new(tag & 7) else {
            return Err(std::io::Error::other("no such wire type").into());
        };
        let known = message.fields.iter().find(|field| field.number == tag >> 3);
        let packed =
            |field: &Field| field.repeated && wire == WireType::LengthDelimited && is_number(field.kind);
        match known {
            Some(field) if packed(field) => {
                let bytes = input.read_bytes()?;
                let mut values = CodedInputStream::from_bytes(&bytes);
                while !values.eof()? {
                    let value = read_value(field.kind, &mut values, depth)?;
                    put(&mut object, field, value);
                }
            }
            Some(field) if wire == wire_type(field.kind) => {
                let value = read_value(field.kind, input, depth)?;
                put(&mut object, field, value);
            }
            _ => input.skip_field(wire)?,
        }
    }
    Ok(Value::Object(object))
}

fn put(object: &mut Map<String, Value>, field: &Field, value: Value) {
    match (object.get_mut(field.name), field.kind) {
        (Some(Value::Array(values)), _) if field.repeated => values.push(value),
        (Some(Value::Object(entries)), Kind::Map(_)) => {
            let key = match &value["key"] {
                Value::String(key) => key.clone(),
                other => other.to_string(),
            };
            entries.insert(key, value["value"].clone());
        }
        _ => drop(object.insert(field.name.to_string(), value)),
    }
}

fn read_value(kind: Kind, input: &mut CodedInputStream<'_>, depth: usize) -> Result<Value> {
    Ok(match kind {
        Kind::Bool => input.read_bool()?.into(),
        Kind::Int32 => input.read_int32()?.into(),
        Kind::Int64 => input.read_int64()?.into(),
        Kind::Uint32 => input.read_uint32()?.into(),
        Kind::Uint64 => input.read_uint64()?.into(),
        Kind::Double => input.read_double()?.into(),
        Kind::String => input.read_string()?.into(),
        Kind::Bytes => base64(&input.read_bytes()?).into(),
        Kind::Message(place) | Kind::Map(place) => {
            let bytes = input.read_bytes()?;
            read_message(&MESSAGES[place], &mut CodedInputStream::from_bytes(&bytes), depth + 1)?
        }
    })
}

fn default(field: &Field) -> Value {
    if field.repeated {
        return Value::Array(Vec::new());
    }
    match field.kind {
        Kind::Map(_) => Value::Object(Map::new()),
        _ if field.optional => Value::Null,
        Kind::Message(_) => Value::Null,
        Kind::Bool => false.into(),
        Kind::String | Kind::Bytes => "".into(),
        Kind::Double => 0.0.into(),
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => 0.into(),
    }
}

fn is_number(kind: Kind) -> bool {
    wire_type(kind) != WireType::LengthDelimited
}

fn wire_type(kind: Kind) -> WireType {
    match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => WireType::Varint,
        Kind::Double => WireType::Fixed64,
        Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Map(_) => WireType::LengthDelimited,
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = DIGITS[(word >> (18 - 6 * digit)) as usize & 63];
            text.push(if digit <= chunk.len() { char::from(value) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::agent::{CreateContainerRequest, GetMetricsRequest, Storage, WriteStreamRequest};
    use agent_api::{fields, oci};
    use protobuf::{EnumOrUnknown, Message as _, MessageField};
    use serde_json::json;

    fn message(name: &str) -> &'static Message {
        MESSAGES.iter().find(|message| message.name == name).unwrap()
    }

    #[test]
    fn a_request_has_the_names_that_policies_use() {
        let process = oci::Process {
            Args: vec!["sh".into(), "-c".into()],
            User: MessageField::some(oci::User {
                UID: 7,
                AdditionalGids: vec![1, 300],
                ..Default::default()
            }),
            ..Default::default()
        };
        let spec = oci::Spec {
            Process: MessageField::some(process),
            Mounts: vec![oci::Mount { type_: "bind".into(), ..Default::default() }],
            Annotations: [("a".to_string(), "b".to_string())].into(),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            container_id: "c1".into(),
            storages: vec![Storage { fstype: "ext4".into(), ..Default::default() }],
            OCI: MessageField::some(spec),
            sandbox_pidns: true,
            ..Default::default()
        };
        let input = decode(message("CreateContainerRequest"), &request.write_to_bytes().unwrap()).unwrap();
        assert_eq!(input["container_id"], "c1");
        assert_eq!(input["sandbox_pidns"], true);
        assert_eq!(input["string_user"], Value::Null);
        assert_eq!(input["devices"], json!([]));
        assert_eq!(input["storages"][0]["fstype"], "ext4");
        assert_eq!(input["OCI"]["Process"]["Args"], json!(["sh", "-c"]));
        assert_eq!(input["OCI"]["Process"]["User"]["AdditionalGids"], json!([1, 300]));
        assert_eq!(input["OCI"]["Process"]["User"]["UID"], 7);
        assert_eq!(input["OCI"]["Mounts"][0]["type_"], "bind");
        assert_eq!(input["OCI"]["Annotations"], json!({"a": "b"}));
        assert_eq!(input["OCI"]["Process"]["Terminal"], false);
    }

    #[test]
    fn every_request_of_every_method_can_be_shown() {
        for method in fields::METHODS {
            let request = fields::request_of(method.service, method.name).unwrap();
            assert!(decode(request, &[]).unwrap().is_object(), "{}", request.name);
        }
        assert_eq!(
            decode(message("GetMetricsRequest"), &GetMetricsRequest::new().write_to_bytes().unwrap()),
            Ok(json!({}))
        );
    }

    #[test]
    fn the_last_of_several_wins_and_a_wrong_wire_type_is_nothing() {
        let ids = |ids: &[&str]| {
            let parts = ids.iter().map(|id| {
                let request = WriteStreamRequest { container_id: id.to_string(), ..Default::default() };
                request.write_to_bytes().unwrap()
            });
            parts.collect::<Vec<_>>().concat()
        };
        let mut bytes = ids(&["seen", "used"]);
        // Field 1 as a number: the handler skips it.
        bytes.extend([0x08, 0x05]);
        let handler = WriteStreamRequest::parse_from_bytes(&bytes).unwrap();
        let input = decode(message("WriteStreamRequest"), &bytes).unwrap();
        assert_eq!((handler.container_id.as_str(), &input["container_id"]), ("used", &json!("used")));
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [&[0x0a, 0xff][..], &[0x0a, 0x02, 0xff, 0xfe], &[0x0f], &[0xff; 20]] {
            assert!(decode(message("WriteStreamRequest"), bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_are_base64() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        let request =
            agent_api::husk::OutputRequest { stream: EnumOrUnknown::from_i32(1), ..Default::default() };
        let input = decode(message("OutputRequest"), &request.write_to_bytes().unwrap()).unwrap();
        assert_eq!(input["stream"], 1);
    }
}
