//! Fragments: what a person asks of the kernel's configuration, and whether it was granted.
//!
//! A line is `CONFIG_X=value` or `# CONFIG_X is not set`; the second is a promise like the first. A symbol stands in
//! one place only, so that there is one place to change it and one comment that says why.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, fs,
    path::Path,
};

use guest_arch::Arch;

use crate::{
    Variant,
    error::{Error, at},
};

/// Symbols and their values, by full name: "CONFIG_PVH" is "y". A symbol that is off has the value "n".
pub type Symbols = BTreeMap<String, String>;

/// One file of settings.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Where it is below `fragments/`, as "common/core.conf".
    pub name: String,
    /// What it says.
    pub text: String,
}

/// A symbol that did not get the value a fragment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Its full name.
    pub symbol: String,
    /// What a fragment says.
    pub wanted: String,
    /// What the kernel's tools made of it.
    pub got: String,
}

impl Mismatch {
    /// Its name without `CONFIG_`.
    pub fn name(&self) -> &str {
        self.symbol.strip_prefix("CONFIG_").unwrap_or(&self.symbol)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wanted {}, got {}", self.symbol, self.wanted, self.got)
    }
}

/// The directories a kernel is made of: what its machine has, its architecture's own, its variant's, and that variant's
/// for that architecture alone, where there is something of the kind.
pub fn shelves(fragments: &Path, arch: Arch, variant: Variant) -> Vec<String> {
    let own = format!("variants/{variant}/{arch}");
    let mut shelves: Vec<_> = arch.row().kernel_fragments.iter().map(|&shelf| shelf.to_owned()).collect();
    shelves.push(arch.name().to_owned());
    shelves.push(format!("variants/{variant}"));
    shelves.extend(fragments.join(&own).is_dir().then_some(own));
    shelves
}

/// Reads the fragments of each shelf, in the order of their names.
pub fn read(fragments: &Path, shelves: &[String]) -> Result<Vec<Fragment>, Error> {
    let mut all = Vec::new();
    for shelf in shelves {
        let dir = fragments.join(shelf);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(at("list", &dir))? {
            let name = entry.map_err(at("list", &dir))?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".conf") {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let text = crate::read(&dir.join(&name))?;
            all.push(Fragment { name: format!("{shelf}/{name}"), text });
        }
    }
    Ok(all)
}

/// Everything the fragments ask for. A symbol that two lines set is an error, even if they agree.
pub fn requested(fragments: &[Fragment]) -> Result<Symbols, Error> {
    let mut symbols = Symbols::new();
    let mut places = BTreeMap::new();
    let mut twice = Vec::new();
    for fragment in fragments {
        for (index, text) in fragment.text.lines().enumerate() {
            let wrong = |what| Error::Line {
                file: fragment.name.clone(),
                line: index + 1,
                text: text.to_owned(),
                what,
            };
            let Some((symbol, value)) = parse(text).map_err(wrong)? else { continue };
            let place = format!("{}:{}", fragment.name, index + 1);
            match places.entry(symbol.to_owned()) {
                Entry::Occupied(first) => twice.push(format!("{symbol} in {} and {place}", first.get())),
                Entry::Vacant(free) => {
                    free.insert(place);
                    symbols.insert(symbol.to_owned(), value.to_owned());
                }
            }
        }
    }
    if twice.is_empty() { Ok(symbols) } else { Err(Error::Twice(twice)) }
}

/// The requests as the kernel's tools read them, sorted.
pub fn settings(requested: &Symbols) -> String {
    let line = |(symbol, value): (&String, &String)| match value.as_str() {
        "n" => format!("# {symbol} is not set\n"),
        _ => format!("{symbol}={value}\n"),
    };
    requested.iter().map(line).collect()
}

/// The symbols of a resolved `.config`. The kernel's tools wrote it, so what is no setting is a comment.
pub fn resolved(config: &str) -> Symbols {
    let settings = config.lines().filter_map(|line| parse(line).ok().flatten());
    settings.map(|(symbol, value)| (symbol.to_owned(), value.to_owned())).collect()
}

/// Every request that was not granted. A symbol that `resolved` does not name is off.
pub fn mismatches(requested: &Symbols, resolved: &Symbols) -> Vec<Mismatch> {
    let got = |symbol| resolved.get(symbol).map_or("n", String::as_str);
    let differing = requested.iter().filter(|(symbol, wanted)| got(*symbol) != wanted.as_str());
    differing
        .map(|(symbol, wanted)| Mismatch {
            symbol: symbol.clone(),
            wanted: wanted.clone(),
            got: got(symbol).to_owned(),
        })
        .collect()
}

/// The setting on a line; none for a comment or an empty line.
fn parse(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    if let Some(comment) = line.strip_prefix('#') {
        let off = comment.strip_suffix(" is not set").map(str::trim_start);
        return match off.filter(|symbol| symbol.starts_with("CONFIG_")) {
            Some(symbol) if is_symbol(symbol) => Ok(Some((symbol, "n"))),
            Some(_) => Err("not a symbol's name"),
            // `#CONFIG_X=y` is a setting somebody took out: say so in a sentence or delete it.
            None if comment.trim_start().starts_with("CONFIG_") && comment.contains('=') => {
                Err("a setting that is commented out")
            }
            None => Ok(None),
        };
    }
    if line.is_empty() {
        return Ok(None);
    }
    let (symbol, value) = line.split_once('=').ok_or("neither a setting nor a comment")?;
    if !is_symbol(symbol) {
        return Err("not a symbol's name");
    }
    if is_value(value) { Ok(Some((symbol, value))) } else { Err("not a value: y, n, a number or a string") }
}

fn is_symbol(text: &str) -> bool {
    let name = text.strip_prefix("CONFIG_").unwrap_or_default();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `m` is no value: the kernel has no modules.
fn is_value(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let hex =
        text.strip_prefix("0x").is_some_and(|h| !h.is_empty() && h.bytes().all(|b| b.is_ascii_hexdigit()));
    let string = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    matches!(text, "y" | "n") || number || hex || string
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(name: &str, text: &str) -> Fragment {
        Fragment { name: name.to_owned(), text: text.to_owned() }
    }

    fn symbols(pairs: &[(&str, &str)]) -> Symbols {
        pairs.iter().map(|(symbol, value)| (format!("CONFIG_{symbol}"), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_promises_and_comments_are_told_apart() {
        let text = "# Why.\n\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=n\nCONFIG_N=-1\nCONFIG_H=0x1f\nCONFIG_S=\"a=b\"\n";
        let wanted =
            symbols(&[("A", "y"), ("B", "n"), ("C", "n"), ("N", "-1"), ("H", "0x1f"), ("S", "\"a=b\"")]);
        assert_eq!(requested(&[fragment("f", text)]).unwrap(), wanted);
    }

    #[test]
    fn settings_say_the_same_without_comments() {
        let fragment = fragment("f", "# Why.\nCONFIG_Z=y\nCONFIG_A=n\n\nCONFIG_S=\"a\"\n");
        let text = settings(&requested(&[fragment]).unwrap());
        assert_eq!(text, "# CONFIG_A is not set\nCONFIG_S=\"a\"\nCONFIG_Z=y\n");
    }

    #[test]
    fn a_line_that_says_nothing_is_an_error_with_its_place() {
        for line in
            ["CONFIG_A", "CONFIG_A=m", "CONFIG_A=", "A=y", "# CONFIG_A=y", " CONFIG_A=y", "CONFIG_A=y "]
        {
            let error = requested(&[fragment("common/f.conf", &format!("# x\n{line}\n"))]).unwrap_err();
            let start = format!("kernel fragment common/f.conf:2: {line:?} is ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }

    #[test]
    fn a_symbol_set_twice_names_both_places_even_if_they_agree() {
        let a = fragment("common/a.conf", "CONFIG_X=y\nCONFIG_Y=y\n");
        let b = fragment("x86_64/b.conf", "CONFIG_X=y\n# CONFIG_Y is not set\n");
        let error = requested(&[a, b]).unwrap_err().to_string();
        assert_eq!(
            error,
            "kernel fragments set a symbol twice: CONFIG_X in common/a.conf:1 and x86_64/b.conf:1; \
             CONFIG_Y in common/a.conf:2 and x86_64/b.conf:2"
        );
    }

    #[test]
    fn what_was_granted_is_no_mismatch() {
        let wanted = symbols(&[("A", "y"), ("B", "n"), ("C", "n"), ("N", "64")]);
        let got = resolved("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=64\nCONFIG_MORE=y\n");
        assert_eq!(mismatches(&wanted, &got), []);
    }

    #[test]
    fn what_was_not_granted_is_named_with_both_values() {
        let wanted = symbols(&[("A", "y"), ("B", "n"), ("N", "64"), ("S", "\"x\""), ("GONE", "y")]);
        let got = resolved("# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_N=640\nCONFIG_S=\"\"\n");
        let said: Vec<_> = mismatches(&wanted, &got).iter().map(Mismatch::to_string).collect();
        assert_eq!(
            said,
            [
                "CONFIG_A wanted y, got n",
                "CONFIG_B wanted n, got y",
                "CONFIG_GONE wanted y, got n",
                "CONFIG_N wanted 64, got 640",
                "CONFIG_S wanted \"x\", got \"\"",
            ]
        );
    }

    #[test]
    fn a_name_that_begins_with_another_is_another_symbol() {
        let mismatches = mismatches(&symbols(&[("RETPOLINE", "y")]), &symbols(&[("RETPOLINE_X", "y")]));
        assert_eq!(mismatches.len(), 1);
    }

    #[test]
    fn fragments_come_in_the_order_of_shelves_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["common/b.conf", "common/a.conf", "vax/a.conf", "common/notes.md", "pdp/a.conf"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let shelves = ["common".to_owned(), "vax".to_owned()];
        let names: Vec<_> = read(dir.path(), &shelves).unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["common/a.conf", "common/b.conf", "vax/a.conf"]);
    }

    #[test]
    fn a_variant_may_have_something_for_one_architecture() {
        let dir = tempfile::tempdir().unwrap();
        let all = |variant| shelves(dir.path(), Arch::S390x, variant);
        fs::create_dir_all(dir.path().join("variants/debug/s390x")).unwrap();
        assert_eq!(all(Variant::Lean), ["common", "s390x", "variants/lean"]);
        assert_eq!(all(Variant::Debug), ["common", "s390x", "variants/debug", "variants/debug/s390x"]);
    }
}
