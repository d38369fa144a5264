//! Debian's control files: stanzas of `Field: value`, continued on lines that begin with a blank, parted by
//! empty lines. Read as hostile input: what is no field is an error that names the line.

/// More fields than any stanza of an archive has: they are looked through one by one.
const MAX_FIELDS: usize = 100;

/// One stanza: its fields in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stanza<'a> {
    /// Its text, without the empty line after it.
    pub(crate) text: &'a str,
    /// Where that begins in the file.
    pub(crate) start: usize,
    /// The line its first field is in, from 1.
    pub(crate) line: usize,
    fields: Vec<(&'a str, &'a str)>,
}

/// A line that is no field, and no continuation of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct Broken {
    /// From 1.
    pub(crate) line: usize,
    what: &'static str,
}

impl<'a> Stanza<'a> {
    /// The value of a field, whatever the case of its name; lines of a value are kept as they are.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Reads the only stanza of a text.
    pub(crate) fn only(text: &'a str) -> Result<Self, Broken> {
        let mut all = Stanzas::of(text);
        let first = all.next().unwrap_or(Err(Broken { line: 1, what: "there is nothing" }))?;
        match all.next() {
            None => Ok(first),
            Some(_) => Err(Broken { line: first.line, what: "there is more than one stanza" }),
        }
    }
}

/// The stanzas of a file, one after the other.
#[derive(Debug)]
pub(crate) struct Stanzas<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Stanzas<'a> {
    /// Of a file's text.
    pub(crate) fn of(text: &'a str) -> Self {
        Stanzas { text, at: 0, line: 0 }
    }

    /// The next line's start, and the line without its end; none at the end of the text.
    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let start = self.at;
        let length = rest.find('\n').unwrap_or(rest.len());
        self.at = (start + length + 1).min(self.text.len());
        self.line += 1;
        Some((start, &rest[..length]))
    }
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        let (mut begin, mut end, mut first_line) = (0, 0, 0);
        let mut value_start = 0;
        while let Some((start, line)) = self.next_line() {
            let broken = |what| Some(Err(Broken { line: self.line, what }));
            if line.trim().is_empty() {
                if fields.is_empty() {
                    continue;
                }
                break;
            }
            if line.starts_with('#') {
                continue;
            }
            end = start + line.len();
            if line.starts_with([' ', '\t']) {
                let Some((_, value)) = fields.last_mut() else {
                    return broken("continues nothing");
                };
                *value = &self.text[value_start..end];
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { return broken("has no colon") };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return broken("is no field: odd name");
            }
            if fields.len() == MAX_FIELDS {
                return broken("has too many fields before it");
            }
            if fields.iter().any(|(there, _)| there.eq_ignore_ascii_case(name)) {
                return broken("repeats a field");
            }
            if fields.is_empty() {
                (begin, first_line) = (start, self.line);
            }
            value_start = end - value.trim_start().len();
            fields.push((name, value.trim()));
        }
        let stanza = |fields| Stanza { text: &self.text[begin..end], start: begin, line: first_line, fields };
        (!fields.is_empty()).then(|| Ok(stanza(fields)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_and_their_continuations() {
        let text = "\n\nPackage: a\nDescription: short\n long\n .\n\tmore\nEmpty:\n# a remark\nX: y:z \n \nPackage: b\n";
        let all: Vec<_> = Stanzas::of(text).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].line, all[1].line), (3, 12));
        assert_eq!(all[0].get("package"), Some("a"));
        assert_eq!(all[0].get("Description"), Some("short\n long\n .\n\tmore"));
        assert_eq!((all[0].get("Empty"), all[0].get("X"), all[0].get("Y")), (Some(""), Some("y:z"), None));
        assert_eq!(all[1].text, "Package: b");
        assert!(all[0].text.starts_with("Package: a\n") && all[0].text.ends_with("X: y:z "));
    }

    #[test]
    fn a_value_that_begins_on_the_next_line() {
        let stanza = Stanza::only("SHA256:\n aa 1 x\n bb 2 y\n").unwrap();
        assert_eq!(
            stanza.get("SHA256").unwrap().lines().map(str::trim).collect::<Vec<_>>(),
            ["", "aa 1 x", "bb 2 y"]
        );
    }

    #[test]
    fn what_is_no_field_names_its_line() {
        let cases = [
            (" x\n", "line 1: continues nothing"),
            ("A: b\nnothing\n", "line 2: has no colon"),
            ("A: b\n\nB c: d\n", "line 3: is no field: odd name"),
            (": b\n", "line 1: is no field: odd name"),
            ("A: b\na: c\n", "line 2: repeats a field"),
        ];
        for (text, what) in cases {
            let error = Stanzas::of(text).find_map(Result::err).unwrap();
            assert_eq!(error.to_string(), what, "{text:?}");
        }
        assert!(Stanza::only("").is_err() && Stanza::only("A: b\n\nA: c\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "([A-Za-z:# \t\n\u{e4}-]{0,40}\n){0,8}") {
            for stanza in Stanzas::of(&text) {
                let Ok(stanza) = stanza else { break };
                prop_assert!(text.contains(stanza.text));
                let again = Stanza::only(stanza.text).unwrap();
                prop_assert_eq!(again.fields, stanza.fields);
            }
        }
    }
}
