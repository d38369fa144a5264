//! Bytes of systemd's own implementation, and bytes that are broken.

use super::*;

/// What `busctl` of systemd 252 sends for
///
/// ```text
/// busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
///     StartTransientUnit 'ssa(sv)a(sa(sv))' c1.scope fail 6 Description s "Husk container c1" PIDs au 1 42 \
///     Delegate b true MemoryMax t 1048576 AllowedCPUs ay 1 3 IOReadBandwidthMax 'a(st)' 1 /dev/block/8:0 7 0
/// ```
const CALL: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/call");

/// What systemd 252 answers on its private socket: to `GetUnit` of a unit that is not there and of `init.scope`, to `Get`
/// of that one's `ControlGroup`; and what it says of a slice that was started.
const ERROR: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/error");
const OBJECT: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/object");
const VARIANT: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/variant");
const JOB_REMOVED: &[u8] = include_bytes!("../../../../fuzz/seeds/systemd/job_removed");

#[test]
fn a_call_is_what_systemds_own_tool_sends() {
    let properties = [
        ("Description", Value::Text("Husk container c1".to_owned())),
        ("PIDs", Value::Numbers(vec![42])),
        ("Delegate", Value::Bool(true)),
        ("MemoryMax", Value::Number(1 << 20)),
        ("AllowedCPUs", Value::Bytes(vec![3])),
        ("IOReadBandwidthMax", Value::Rates(vec![("/dev/block/8:0".to_owned(), 7)])),
    ];
    let arguments = Arguments::default().text("c1.scope").text("fail").properties(&properties).no_units();
    let interface = "org.freedesktop.systemd1.Manager";
    let mut call = call(2, "/org/freedesktop/systemd1", interface, "StartTransientUnit", &arguments);
    // It is a tool for people, whom systemd may ask for a password.
    assert_eq!(std::mem::replace(&mut call[2], 4), 0);
    assert_eq!(call, CALL);
    let read = Message::decode(CALL).unwrap();
    assert_eq!((read.kind, read.member.as_deref()), (Kind::Call, Some("StartTransientUnit")));
    assert_eq!(read.words().unwrap(), ["c1.scope", "fail"]);
}

#[test]
fn answers_of_systemd_are_read() {
    let error = Message::decode(ERROR).unwrap();
    assert_eq!((error.kind, error.answers), (Kind::Error, Some(1)));
    assert_eq!(error.error.as_deref(), Some("org.freedesktop.systemd1.NoSuchUnit"));
    assert_eq!(error.words().unwrap(), ["Unit nosuch.scope not loaded."]);
    let object = Message::decode(OBJECT).unwrap();
    assert_eq!((object.kind, object.answers), (Kind::Return, Some(2)));
    assert_eq!(object.object().unwrap(), "/org/freedesktop/systemd1/unit/init_2escope");
    assert_eq!(Message::decode(VARIANT).unwrap().text_in_variant().unwrap(), "/init.scope");
    let signal = Message::decode(JOB_REMOVED).unwrap();
    assert_eq!(
        (signal.kind, signal.answers, signal.member.as_deref()),
        (Kind::Signal, None, Some("JobRemoved"))
    );
    let words = signal.words().unwrap();
    assert_eq!(words, ["194", "/org/freedesktop/systemd1/job/194", "husk-cap3.slice", "done"]);
}

#[test]
fn the_other_byte_order_is_read_as_well() {
    let mut big = VARIANT.to_vec();
    big[0] = b'B';
    // The lengths and numbers: of the body, serial, fields; the answered serial, the sender, the text.
    for at in [4, 8, 12, 20, 28, 76] {
        big[at..at + 4].reverse();
    }
    let message = Message::decode(&big).unwrap();
    assert_eq!((message.answers, message.text_in_variant().unwrap().as_str()), (Some(3), "/init.scope"));
}

#[test]
fn values_of_other_types_are_refused() {
    let object = Message::decode(OBJECT).unwrap();
    assert_eq!(object.text_in_variant().unwrap_err().to_string(), "values of other types at byte 0");
    assert!(object.words::<2>().is_err());
    assert!(Message::decode(VARIANT).unwrap().object().is_err());
    assert!(Message::decode(VARIANT).unwrap().words::<1>().is_err());
}

#[test]
fn broken_messages_are_refused() {
    for whole in [CALL, ERROR, OBJECT, VARIANT, JOB_REMOVED] {
        for end in 0..whole.len() {
            assert!(Message::decode(&whole[..end]).is_err(), "cut at {end}");
        }
        assert!(Message::decode(&[whole, b"x"].concat()).is_err());
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = OBJECT.to_vec();
        bytes[at] = byte;
        Message::decode(&bytes).map(|message| message.object()).map_or_else(
            |error| error.to_string(),
            |object| object.map_or_else(|error| error.to_string(), |object| panic!("{at}: {object}")),
        )
    };
    for (at, byte, wanted) in [
        (0, b'x', "neither of the two byte orders at byte 0"),
        (3, 2, "a version of the protocol that is not 1 at byte 3"),
        (7, 1, "a message that is too long at byte 4"),
        (15, 0xff, "a message that is too long at byte 4"),
        (18, b'a', "a header field of an unknown type at byte 20"),
        (12, 0x34, "a header field that is longer than its header at byte 71"),
        (71, 1, "padding that is not zero at byte 72"),
        (40, 0xff, "a text that is not UTF-8"),
        (72, 0x2a, "a text that does not end where it should"),
        (72, 0xff, "the end at byte 4"),
        (80, 0, "a text that does not end where it should"),
    ] {
        assert!(changed(at, byte).starts_with(wanted), "{at}: {}", changed(at, byte));
    }
}

#[test]
fn a_length_is_told_before_the_rest_is_read() {
    let start = |body: u32, fields: u32| {
        let mut start = [b'l', 4, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        start[4..8].copy_from_slice(&body.to_le_bytes());
        start[12..].copy_from_slice(&fields.to_le_bytes());
        length(&start)
    };
    assert_eq!(start(5, 9), Ok(16 + 16 + 5));
    assert_eq!(start(LONGEST as u32 - 16, 0), Ok(LONGEST));
    assert!(start(LONGEST as u32 - 15, 0).is_err());
    assert!(start(u32::MAX, u32::MAX).is_err());
}
