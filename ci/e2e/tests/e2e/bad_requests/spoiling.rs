//! A message with one field spoilt, as bytes: what no type of ours could hold.

use super::table::{Field, Kind, Table};

/// A spoilt request.
pub(super) struct Form {
    /// Which field, and how.
    pub(super) what: String,
    /// The field alone.
    field: String,
    pub(super) bytes: Vec<u8>,
}

/// A field as it is on the wire: its number and the bytes of its value, length and all.
type Wire = (u32, u8, Vec<u8>);

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// Every way to spoil one field of a message, those of its messages included.
pub(super) fn forms(table: &Table, message: &str, bytes: &[u8]) -> Vec<Form> {
    let wire = read(bytes);
    let mut forms = Vec::new();
    for field in table.fields(message) {
        let others: Vec<&Wire> = wire.iter().filter(|(number, ..)| *number != field.number).collect();
        let with =
            |values: &[Wire]| -> Vec<u8> { others.iter().copied().chain(values).flat_map(write).collect() };
        for (how, values) in ways(&field, &wire) {
            let what = format!("{}: {how}", field.name);
            forms.push(Form { what, field: field.name.to_string(), bytes: with(&values) });
        }
        let Kind::Message(inner) = field.kind else { continue };
        let Some((.., value)) = wire.iter().find(|(number, ..)| *number == field.number) else { continue };
        for form in self::forms(table, inner, value) {
            let bytes = with(&[(field.number, LENGTH, form.bytes)]);
            let what = format!("{}.{}", field.name, form.what);
            forms.push(Form { what, field: format!("{}.{}", field.name, form.field), bytes });
        }
    }
    forms
}

/// Of the ways to spoil a field one, and for the next field the next.
pub(super) fn one_a_field(forms: Vec<Form>) -> Vec<Form> {
    let mut chosen: Vec<Form> = Vec::new();
    let mut all = forms.into_iter().peekable();
    let mut turn = 0;
    while let Some(first) = all.next() {
        let mut of_field = vec![first];
        while let Some(next) = all.next_if(|form| form.field == of_field[0].field) {
            of_field.push(next);
        }
        let position = turn % of_field.len();
        chosen.push(of_field.swap_remove(position));
        turn += 1;
    }
    chosen
}

/// How a field can be spoilt, and what is in its place then.
fn ways(field: &Field<'_>, wire: &[Wire]) -> Vec<(String, Vec<Wire>)> {
    let one = |how: &str, kind: u8, value: Vec<u8>| (how.to_string(), vec![(field.number, kind, value)]);
    let mut ways = vec![("missing".to_string(), Vec::new())];
    match field.kind {
        Kind::Number => {
            let numbers =
                [0, 1, 99, u64::from(u32::MAX), i64::MAX as u64, u64::MAX, i64::MIN as u64, i32::MIN as u64];
            ways.extend(numbers.map(|n| one(&n.cast_signed().to_string(), VARINT, varint(n))));
        }
        Kind::Text => ways.extend([
            one("empty", LENGTH, Vec::new()),
            one("huge", LENGTH, vec![b'a'; 70_000]),
            one("..", LENGTH, b"../../../../etc/bad-path".to_vec()),
            one("a NUL", LENGTH, b"bad\0text".to_vec()),
            one("a line break", LENGTH, b"bad\ntext".to_vec()),
            one("not UTF-8", LENGTH, vec![b'b', 0xff, 0xfe]),
        ]),
        Kind::Bytes => {
            ways.extend([one("empty", LENGTH, Vec::new()), one("huge", LENGTH, vec![0xff; 1 << 20])])
        }
        Kind::Message(_) => {
            ways.extend([one("empty", LENGTH, Vec::new()), one("not a message", LENGTH, vec![0xff; 7])])
        }
        Kind::Map => ways.extend([
            one("an empty entry", LENGTH, Vec::new()),
            one("a huge key", LENGTH, write(&(1, LENGTH, vec![b'k'; 70_000]))),
            one("a key with ..", LENGTH, write(&(1, LENGTH, b"../../bad".to_vec()))),
        ]),
    }
    if field.repeated {
        let there: Vec<Wire> = wire.iter().filter(|(number, ..)| *number == field.number).cloned().collect();
        let thousand = there.iter().cycle().take(if there.is_empty() { 0 } else { 1000 }).cloned().collect();
        ways.push(("each twice".to_string(), there.iter().chain(&there).cloned().collect()));
        ways.push(("a thousand".to_string(), thousand));
    }
    ways
}

fn read(mut bytes: &[u8]) -> Vec<Wire> {
    let mut wire = Vec::new();
    while !bytes.is_empty() {
        let tag = read_varint(&mut bytes);
        let kind = (tag & 7) as u8;
        let length = match kind {
            VARINT => bytes.iter().position(|byte| byte & 0x80 == 0).expect("a varint ends") + 1,
            FIXED64 => 8,
            FIXED32 => 4,
            _ => read_varint(&mut bytes) as usize,
        };
        let (value, rest) = bytes.split_at(length);
        wire.push(((tag >> 3) as u32, kind, value.to_vec()));
        bytes = rest;
    }
    wire
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn write((number, kind, value): &Wire) -> Vec<u8> {
    let mut bytes = varint(u64::from(*number) << 3 | u64::from(*kind));
    if *kind == LENGTH {
        bytes.extend(varint(value.len() as u64));
    }
    bytes.extend(value);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn a_message_is_read_and_written_and_every_field_spoilt() {
    use protobuf::Message;
    let request = agent_api::agent::ExecProcessRequest {
        container_id: "c1".into(),
        process: protobuf::MessageField::some(agent_api::oci::Process {
            Args: vec!["a".into(), "b".into()],
            OOMScoreAdj: -5,
            ..Default::default()
        }),
        ..Default::default()
    };
    let bytes = request.write_to_bytes().unwrap();
    assert_eq!(read(&bytes).iter().flat_map(write).collect::<Vec<_>>(), bytes);
    let forms = forms(&Table::read(), "grpc.ExecProcessRequest", &bytes);
    let find =
        |what: &str| &forms.iter().find(|form| form.what == what).unwrap_or_else(|| panic!("{what}")).bytes;
    let parse = |what| agent_api::agent::ExecProcessRequest::parse_from_bytes(find(what));
    assert_eq!(parse("container_id: missing").unwrap().container_id, "");
    assert_eq!(parse("process.Args: each twice").unwrap().process.Args, ["a", "b", "a", "b"]);
    assert_eq!(parse("process.OOMScoreAdj: -1").unwrap().process.OOMScoreAdj, -1);
    assert!(parse("process.Cwd: not UTF-8").is_err());
    let fields: std::collections::BTreeSet<_> = forms.iter().map(|form| form.field.clone()).collect();
    assert_eq!(one_a_field(forms).len(), fields.len());
}
