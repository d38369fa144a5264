//! The text form of Prometheus metrics, as far as a scrape needs it: families with a help line, a type and samples
//! (prometheus.io, "Exposition formats", text format 0.0.4).

use std::fmt::{Display, Write as _};

/// What the value of a family does over time.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It may be anything.
    Gauge,
}

/// An exposition that is being written. Families come one after the other, each once.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a family. It is written with its first sample: one without samples is left out.
    pub(super) fn family<'t>(&'t mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'t> {
        Family { text: &mut self.0, name, head: Some((kind, help)) }
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &'static str, kind: Kind, help: &'static str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// The family that is being written.
pub(super) struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
    head: Option<(Kind, &'static str)>,
}

impl Family<'_> {
    /// One sample. The labels, in this order, tell it from every other of its family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let name = self.name;
        // Writing to a string cannot fail.
        if let Some((kind, help)) = self.head.take() {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            escape(text, self.text);
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_with_its_first_sample_and_not_without_one() {
        let mut text = Text::default();
        text.family("empty", Kind::Gauge, "Nothing.");
        text.single("scrapes", Kind::Counter, "Scrapes so far.", 3);
        let mut family = text.family("load", Kind::Gauge, "Load.");
        family.sample(&[("item", "load1")], 0.25);
        family.sample(&[("item", "load5"), ("cpu", "0")], 1);
        let expected = "# HELP scrapes Scrapes so far.\n# TYPE scrapes counter\nscrapes 3\n\
                        # HELP load Load.\n# TYPE load gauge\n\
                        load{item=\"load1\"} 0.25\nload{item=\"load5\",cpu=\"0\"} 1\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.family("x", Kind::Gauge, "X.").sample(&[("mount", "/a\"b\\c\nd")], 1);
        assert!(text.finish().ends_with("x{mount=\"/a\\\"b\\\\c\\nd\"} 1\n"));
    }
}
