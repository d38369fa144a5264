//! D-Bus messages as bytes: calls written, replies and signals read. No sockets here.
//!
//! What is written is little-endian whatever the machine, as each message says of itself which it is; what is read may
//! be either. Only the types that systemd's calls and answers are made of are known (D-Bus specification, "Marshaling").

/// The longest message that is read. The specification allows 128 MiB; what systemd has to say to us takes hundreds of
/// bytes, and what it tells everybody about its units a few thousand.
pub(super) const LONGEST: usize = 256 << 10;

/// What systemd goes by.
const NAME: &str = "org.freedesktop.systemd1";

/// The bytes of a message that tell how long it is.
pub(super) const START: usize = 16;

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(st)`
    Rates(Vec<(String, u64)>),
}

/// A property of a unit: its name and value.
pub(crate) type Property = (&'static str, Value);

/// The arguments of a call, in their order.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    signature: String,
    body: Writer,
}

/// A message that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial number of the call that it answers.
    pub(super) answers: Option<u32>,
    pub(super) interface: Option<String>,
    pub(super) member: Option<String>,
    /// The name of the error that it is.
    pub(super) error: Option<String>,
    signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
    /// One that is to be ignored.
    Other,
}

/// Bytes that are no message, or not the one that was due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    what: &'static str,
    at: usize,
}

type Result<T> = std::result::Result<T, Malformed>;

/// A method call to systemd, with a destination as its own tools send it.
pub(super) fn call(serial: u32, path: &str, interface: &str, member: &str, arguments: &Arguments) -> Vec<u8> {
    let mut out = Writer(vec![b'l', 1, 0, 1]);
    out.word(arguments.body.0.len() as u32);
    out.word(serial);
    out.array(8, |fields| {
        let to = [(1, "o", path), (3, "s", member), (2, "s", interface), (6, "s", NAME)];
        for (code, kind, value) in to {
            fields.pad(8);
            fields.0.push(code);
            fields.signature(kind);
            fields.text(value);
        }
        if !arguments.signature.is_empty() {
            fields.pad(8);
            fields.0.push(8);
            fields.signature("g");
            fields.signature(&arguments.signature);
        }
    });
    out.pad(8);
    out.0.extend(&arguments.body.0);
    out.0
}

/// How long a message is, from its first [`START`] bytes.
pub(super) fn length(start: &[u8; START]) -> Result<usize> {
    let mut reader = Reader { bytes: start, at: 0, big_endian: endianness(start[0])? };
    if start[3] != 1 {
        return Err(Malformed { what: "a version of the protocol that is not 1", at: 3 });
    }
    reader.at = 4;
    let body = reader.word()? as usize;
    reader.at = 12;
    let fields = reader.word()? as usize;
    let total = fields.checked_next_multiple_of(8).and_then(|fields| fields.checked_add(body + START));
    match total {
        Some(total) if total <= LONGEST => Ok(total),
        _ => Err(Malformed { what: "a message that is too long", at: 4 }),
    }
}

impl Message {
    /// Reads a whole message.
    pub(super) fn decode(bytes: &[u8]) -> Result<Message> {
        let start = bytes.first_chunk().ok_or(Malformed { what: "the end", at: bytes.len() })?;
        let total = length(start)?;
        if total != bytes.len() {
            return Err(Malformed { what: "not the end", at: total.min(bytes.len()) });
        }
        let mut message = Message {
            kind: match bytes[1] {
                1 => Kind::Call,
                2 => Kind::Return,
                3 => Kind::Error,
                4 => Kind::Signal,
                _ => Kind::Other,
            },
            answers: None,
            interface: None,
            member: None,
            error: None,
            signature: String::new(),
            body: Vec::new(),
            big_endian: endianness(bytes[0])?,
        };
        let mut reader = Reader { bytes, at: 12, big_endian: message.big_endian };
        let end = reader.word()? as usize + START;
        while reader.at < end {
            reader.pad(8)?;
            let code = reader.byte()?;
            let kind = reader.signature()?;
            match (code, kind.as_str()) {
                (2, "s") => message.interface = Some(reader.text()?),
                (3, "s") => message.member = Some(reader.text()?),
                (4, "s") => message.error = Some(reader.text()?),
                (5, "u") => message.answers = Some(reader.word()?),
                (8, "g") => message.signature = reader.signature()?,
                // Path, destination and sender, and what later versions may add.
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.word()?),
                (_, "g") => drop(reader.signature()?),
                _ => return Err(reader.fault("a header field of an unknown type")),
            }
        }
        if reader.at != end {
            return Err(reader.fault("a header field that is longer than its header"));
        }
        reader.pad(8)?;
        message.body = bytes[reader.at..].to_vec();
        Ok(message)
    }

    /// The object path that it consists of.
    pub(super) fn object(&self) -> Result<String> {
        self.body("o")?.text()
    }

    /// The text in the variant that it consists of.
    pub(super) fn text_in_variant(&self) -> Result<String> {
        let mut body = self.body("v")?;
        match body.signature()?.as_str() {
            "s" => body.text(),
            _ => Err(body.fault("a value that is no text")),
        }
    }

    /// The texts among its first `N` values, which are texts, object paths or numbers.
    pub(super) fn words<const N: usize>(&self) -> Result<[String; N]> {
        let mut body = Reader { bytes: &self.body, at: 0, big_endian: self.big_endian };
        let mut out = [const { String::new() }; N];
        let kinds = self.signature.bytes().map(Some).chain(std::iter::repeat(None));
        for (slot, kind) in out.iter_mut().zip(kinds) {
            match kind {
                Some(b's' | b'o') => *slot = body.text()?,
                Some(b'u') => *slot = body.word()?.to_string(),
                _ => return Err(body.fault("no text")),
            }
        }
        Ok(out)
    }

    fn body(&self, signature: &str) -> Result<Reader<'_>> {
        let reader = Reader { bytes: &self.body, at: 0, big_endian: self.big_endian };
        if self.signature == signature { Ok(reader) } else { Err(reader.fault("values of other types")) }
    }
}

impl Arguments {
    /// `s`
    pub(super) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.body.text(text);
        self
    }

    /// `b`
    pub(super) fn bool(mut self, value: bool) -> Self {
        self.signature.push('b');
        self.body.word(value.into());
        self
    }

    /// `a(sv)`
    pub(super) fn properties(mut self, properties: &[Property]) -> Self {
        self.signature.push_str("a(sv)");
        self.body.array(8, |out| {
            for (name, value) in properties {
                out.pad(8);
                out.text(name);
                out.variant(value);
            }
        });
        self
    }

    /// `a(sa(sv))`, which only systemd's own tools fill.
    pub(super) fn no_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        self.body.array(8, |_| ());
        self
    }
}

fn endianness(mark: u8) -> Result<bool> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(Malformed { what: "neither of the two byte orders", at: 0 }),
    }
}

/// Values one after the other, each where its type may begin. The first byte is at a multiple of eight.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn word(&mut self, value: u32) {
        self.pad(4);
        self.0.extend(value.to_le_bytes());
    }

    fn long(&mut self, value: u64) {
        self.pad(8);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements begin at a multiple of `alignment`. The padding before the first is not counted.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Writer)) {
        self.word(0);
        let length_at = self.0.len() - 4;
        self.pad(alignment);
        let begin = self.0.len();
        fill(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Bool(value) => {
                self.signature("b");
                self.word((*value).into());
            }
            Value::Number(value) => {
                self.signature("t");
                self.long(*value);
            }
            Value::Numbers(values) => {
                self.signature("au");
                self.array(4, |out| values.iter().for_each(|value| out.word(*value)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |out| out.0.extend(bytes));
            }
            Value::Rates(rates) => {
                self.signature("a(st)");
                self.array(8, |out| {
                    for (device, rate) in rates {
                        out.pad(8);
                        out.text(device);
                        out.long(*rate);
                    }
                });
            }
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    big_endian: bool,
}

impl<'b> Reader<'b> {
    fn fault(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        let taken = taken.ok_or_else(|| self.fault("the end"))?;
        self.at += count;
        Ok(taken)
    }

    fn pad(&mut self, to: usize) -> Result<()> {
        let padding = self.take(self.at.next_multiple_of(to) - self.at)?;
        if padding.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err(self.fault("padding that is not zero"))
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u32> {
        self.pad(4)?;
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Result<String> {
        let length = self.word()? as usize;
        self.characters(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?;
        self.characters(length.into())
    }

    fn characters(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 || bytes.contains(&0) {
            return Err(self.fault("a text that does not end where it should"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| self.fault("a text that is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
