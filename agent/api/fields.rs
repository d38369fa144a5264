//! The table of fields: every message of `proto/` with its fields, and every method with its request.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, FieldDescriptorProto};

/// The Rust source of the table, as `src/fields.rs` includes it.
pub(crate) fn table(files: &[&str]) -> std::io::Result<String> {
    let parsed = protobuf_parse::Parser::new()
        .pure()
        .include("proto")
        .inputs(files.iter().map(|path| format!("proto/{path}.proto")))
        .parse_and_typecheck()
        .map_err(std::io::Error::other)?;
    let mut messages = Vec::new();
    for file in &parsed.file_descriptors {
        for message in &file.message_type {
            collect(&mut messages, &format!(".{}", file.package()), message);
        }
    }
    let places: BTreeMap<_, _> =
        messages.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();

    let mut text = String::from("pub static MESSAGES: &[Message] = &[\n");
    for (_, message) in &messages {
        let fields: Vec<_> = message.field.iter().map(|field| entry(field, &messages, &places)).collect();
        let name = message.name();
        writeln!(text, "Message {{ name: {name:?}, fields: &[{}] }},", fields.join(", ")).expect("a string");
    }
    text.push_str("];\npub static METHODS: &[Method] = &[\n");
    for file in &parsed.file_descriptors {
        for service in &file.service {
            let owner = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let (name, request) = (method.name(), places[method.input_type()]);
                writeln!(text, "Method {{ service: {owner:?}, name: {name:?}, request: {request} }},")
                    .expect("a string");
            }
        }
    }
    text.push_str("];\n");
    Ok(text)
}

fn collect(messages: &mut Vec<(String, DescriptorProto)>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(messages, &name, nested);
    }
    messages.push((name, message.clone()));
}

fn entry(
    field: &FieldDescriptorProto,
    messages: &[(String, DescriptorProto)],
    places: &BTreeMap<String, usize>,
) -> String {
    let target = || places[field.type_name()];
    let kind = match field.type_() {
        Type::TYPE_MESSAGE if messages[target()].1.options.map_entry() => format!("Map({})", target()),
        Type::TYPE_MESSAGE => format!("Message({})", target()),
        Type::TYPE_STRING => "String".into(),
        Type::TYPE_BYTES => "Bytes".into(),
        Type::TYPE_BOOL => "Bool".into(),
        Type::TYPE_DOUBLE => "Double".into(),
        Type::TYPE_INT32 | Type::TYPE_ENUM => "Int32".into(),
        Type::TYPE_INT64 => "Int64".into(),
        Type::TYPE_UINT32 => "Uint32".into(),
        Type::TYPE_UINT64 => "Uint64".into(),
        other => panic!("{}: {other:?} is not in the table's vocabulary yet", field.name()),
    };
    let repeated = field.label() == Label::LABEL_REPEATED && !kind.starts_with("Map");
    let optional = field.proto3_optional() || field.oneof_index.is_some();
    // The one word of our protocols that is Rust's as well: the generated field, and with it the names that existing
    // policies use, has an underscore behind it.
    let name = if field.name() == "type" { "type_" } else { field.name() };
    let number = field.number();
    format!(
        "Field {{ number: {number}, name: {name:?}, kind: Kind::{kind}, repeated: {repeated}, optional: {optional} }}"
    )
}
