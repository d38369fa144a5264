//! The protocol is wire compatible: every service, method, message, field and enum of `proto/` is compared with the
//! table of facts in `agent-api.json`, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use serde_json::Value;

/// What the wire consists of, in one comparable form: a name and all that is true of it.
#[derive(Default, Debug, PartialEq)]
struct Wire {
    methods: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
    messages: BTreeSet<String>,
    enum_values: BTreeMap<String, i64>,
}

#[test]
fn the_protocol_files_match_the_table() {
    let table = from_table(include_str!("agent-api.json"));
    let proto = from_proto();
    assert_eq!(table.methods.len(), 44, "the table holds 42 methods of the agent and 2 of health");
    assert_eq!(table.methods, proto.methods);
    assert_eq!(table.messages, proto.messages);
    assert_eq!(table.enum_values, proto.enum_values);
    for (field, facts) in &table.fields {
        assert_eq!(Some(facts), proto.fields.get(field), "{field}");
    }
    assert_eq!(table.fields.len(), proto.fields.len());
}

fn from_table(text: &str) -> Wire {
    let table: Value = serde_json::from_str(text).expect("the table is JSON");
    let mut wire = Wire::default();
    for file in table["files"].as_object().unwrap().values() {
        for (service, methods) in file["services"].as_object().unwrap() {
            for method in methods.as_array().unwrap() {
                let name = format!("{service}/{}", method["name"].as_str().unwrap());
                let types = format!("{} -> {}", method["request"], method["response"]).replace('"', "");
                wire.methods.insert(name, types);
            }
        }
        for (message, fields) in file["messages"].as_object().unwrap() {
            wire.messages.insert(message.clone());
            for field in fields.as_array().unwrap() {
                let text = |key: &str| field[key].as_str().unwrap_or_default();
                let json = if text("json").is_empty() { text("name") } else { text("json") };
                let facts =
                    format!("{} {} {} {} {}", field["n"], text("label"), text("type"), json, text("oneof"));
                wire.fields.insert(format!("{message}.{}", text("name")), facts);
            }
        }
        for (name, values) in file["enums"].as_object().unwrap() {
            for (value, number) in values.as_object().unwrap() {
                wire.enum_values.insert(format!("{name}.{value}"), number.as_i64().unwrap());
            }
        }
    }
    wire
}

fn from_proto() -> Wire {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let parsed = protobuf_parse::Parser::new()
        .pure()
        .include(proto)
        .inputs(["agent", "oci", "csi", "types", "health"].map(|stem| format!("{proto}/{stem}.proto")))
        .parse_and_typecheck()
        .expect("proto/ parses");
    let mut wire = Wire::default();
    for file in &parsed.file_descriptors {
        add_file(&mut wire, file);
    }
    wire
}

fn add_file(wire: &mut Wire, file: &FileDescriptorProto) {
    assert_eq!(file.syntax(), "proto3", "{}", file.name());
    for service in &file.service {
        for method in &service.method {
            let streams = method.client_streaming() || method.server_streaming();
            assert!(!streams, "the peer's protocol has no streams");
            let types = format!("{} -> {}", absolute(method.input_type()), absolute(method.output_type()));
            wire.methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()), types);
        }
    }
    for message in &file.message_type {
        add_message(wire, file.package(), message);
    }
    for descriptor in &file.enum_type {
        add_enum(wire, file.package(), descriptor);
    }
}

fn add_message(wire: &mut Wire, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        wire.fields.insert(format!("{name}.{}", field.name()), facts_of(message, field));
    }
    for descriptor in &message.enum_type {
        add_enum(wire, &name, descriptor);
    }
    wire.messages.insert(name);
}

fn add_enum(wire: &mut Wire, scope: &str, descriptor: &EnumDescriptorProto) {
    for value in &descriptor.value {
        wire.enum_values
            .insert(format!("{scope}.{}.{}", descriptor.name(), value.name()), value.number().into());
    }
}

fn facts_of(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let map = map_entry(message, field);
    let label = match field.label() {
        _ if map.is_some() => "map",
        Label::LABEL_REPEATED => "repeated",
        _ if field.proto3_optional() => "optional",
        _ => "",
    };
    let type_ = map.map_or_else(
        || type_name(field),
        |entry| format!("map<{},{}>", type_name(&entry.field[0]), type_name(&entry.field[1])),
    );
    let oneof = match field.oneof_index {
        Some(index) if !field.proto3_optional() => message.oneof_decl[index as usize].name(),
        _ => "",
    };
    format!("{} {label} {type_} {} {oneof}", field.number(), json_name(field))
}

/// A map field is a repeated message that the compiler nests and marks.
fn map_entry<'a>(message: &'a DescriptorProto, field: &FieldDescriptorProto) -> Option<&'a DescriptorProto> {
    let entry = field.type_name().rsplit('.').next()?;
    message.nested_type.iter().find(|nested| nested.options.map_entry() && nested.name() == entry)
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.type_() {
        Type::TYPE_MESSAGE | Type::TYPE_ENUM => absolute(field.type_name()),
        scalar => format!("{scalar:?}").trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn absolute(name: &str) -> String {
    name.trim_start_matches('.').to_string()
}

/// The JSON mapping's name: what the descriptor says, else lower camel case.
fn json_name(field: &FieldDescriptorProto) -> String {
    if field.has_json_name() {
        return field.json_name().to_string();
    }
    let mut name = String::new();
    let mut upper = false;
    for letter in field.name().chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                name.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ => name.push(letter),
        }
    }
    name
}
