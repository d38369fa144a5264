//! sysusers.d: the accounts that packages declare (sysusers.d(5)). Read here; made in [`super::accounts`].

use std::ops::RangeInclusive;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// `u`, and `u!` for an account that nobody can use to log in.
    User {
        name: String,
        id: Id,
        group: Option<GroupOf>,
        gecos: String,
        home: String,
        shell: String,
        locked: bool,
    },
    /// `g`
    Group { name: String, id: Id },
    /// `m`
    Member { user: String, group: String },
    /// `r`
    Range(RangeInclusive<u32>),
}

/// Where a number comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Id {
    /// Any that is free.
    Any,
    /// This one.
    Number(u32),
    /// The owner of a file.
    Owner(String),
}

/// A user's own group, where it is not the one of the user's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupOf {
    Number(u32),
    Name(String),
}

/// Reads a file's lines; an error names the line.
pub(super) fn read(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let wanted = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', ';']));
    wanted.map(|(number, line)| parse(line).map_err(|what| format!("line {number}: {what}"))).collect()
}

/// `type name id gecos home shell`, of which all but the first two may be missing, or `-`.
fn parse(line: &str) -> Result<Line, String> {
    let fields = fields(line)?;
    let field =
        |at: usize| fields.get(at).map(String::as_str).filter(|field| !field.is_empty() && *field != "-");
    let kind = field(0).unwrap_or_default();
    let name = field(1).unwrap_or_default();
    if fields.len() > 6 {
        return Err("has more than six fields".to_owned());
    }
    let odd = |(at, field): (usize, &String)| field.contains('%') || field.contains(':') && at != 2;
    if fields.iter().enumerate().any(odd) {
        return Err("has a specifier or a colon, which are not supported here".to_owned());
    }
    if kind != "r" && !is_account_name(name) {
        return Err(format!("{name:?} is no account's name"));
    }
    match kind {
        "u" | "u!" => {
            let (id, group) = user_id(field(2))?;
            let text = |at, default: &str| field(at).unwrap_or(default).to_owned();
            let (home, shell) = match id {
                Id::Number(0) => ("/root", "/bin/sh"),
                _ => ("/", "/usr/sbin/nologin"),
            };
            Ok(Line::User {
                name: name.to_owned(),
                id,
                group,
                gecos: text(3, ""),
                home: text(4, home),
                shell: text(5, shell),
                locked: kind == "u!",
            })
        }
        "g" => Ok(Line::Group { name: name.to_owned(), id: id(field(2))? }),
        "m" => {
            let group = field(2).filter(|group| is_account_name(group)).ok_or("names no group")?;
            Ok(Line::Member { user: name.to_owned(), group: group.to_owned() })
        }
        "r" => {
            let range = field(2).ok_or("names no range")?;
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            let (low, high) = (number(low)?, number(high)?);
            Ok(Line::Range(low..=high))
        }
        other => Err(format!("{other:?} is no type of line")),
    }
}

/// `-`, a number, a path, `number:number` or `number:group`.
fn user_id(field: Option<&str>) -> Result<(Id, Option<GroupOf>), String> {
    let Some((user, group)) = field.and_then(|field| field.split_once(':')) else {
        return Ok((id(field)?, None));
    };
    let user = if user == "-" { Id::Any } else { Id::Number(number(user)?) };
    let group = match number(group) {
        Ok(number) => GroupOf::Number(number),
        Err(_) if is_account_name(group) => GroupOf::Name(group.to_owned()),
        Err(error) => return Err(error),
    };
    Ok((user, Some(group)))
}

fn id(field: Option<&str>) -> Result<Id, String> {
    match field {
        None => Ok(Id::Any),
        Some(path) if path.starts_with('/') => Ok(Id::Owner(path.to_owned())),
        Some(text) => number(text).map(Id::Number),
    }
}

/// Two numbers stand for "none" in the kernel.
fn number(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| plain && ![u32::MAX, 0xffff].contains(n));
    number.ok_or_else(|| format!("{text:?} is no account's number"))
}

/// As systemd takes them strictly, and with Debian's underscore in front.
pub(super) fn is_account_name(name: &str) -> bool {
    name.len() < 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Words parted by blanks; quotes of either kind hold one together.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (field, after) = match first {
            quote @ ('"' | '\'') => rest[1..].split_once(quote).ok_or("has a quote without its end")?,
            _ => rest.split_once([' ', '\t']).unwrap_or((rest, "")),
        };
        if field.contains(['\\', '\n']) {
            return Err("has a backslash, which is not supported here".to_owned());
        }
        fields.push(field.to_owned());
        rest = after.trim_start();
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_each_type() {
        let text = "# remark\n\nu! a-b - \"A, B\" /home\nu root 0\nu x 4:65534\nu y 4:g -\tq /bin/sh\n\
                    g g 7\ng h /etc\nm a-b g\nr - 500-900\n";
        let lines = read(text).unwrap();
        let Line::User { name, id, gecos, home, shell, locked, .. } = &lines[0] else { panic!() };
        assert_eq!((name.as_str(), id, gecos.as_str(), home.as_str()), ("a-b", &Id::Any, "A, B", "/home"));
        assert_eq!((shell.as_str(), *locked), ("/usr/sbin/nologin", true));
        assert!(matches!(&lines[1], Line::User { home, shell, .. } if home == "/root" && shell == "/bin/sh"));
        assert!(matches!(&lines[2], Line::User { group: Some(GroupOf::Number(65534)), .. }));
        assert!(
            matches!(&lines[3], Line::User { group: Some(GroupOf::Name(g)), home, .. } if g == "g" && home == "q")
        );
        assert_eq!(lines[4], Line::Group { name: "g".into(), id: Id::Number(7) });
        assert_eq!(lines[5], Line::Group { name: "h".into(), id: Id::Owner("/etc".into()) });
        assert_eq!(lines[6], Line::Member { user: "a-b".into(), group: "g".into() });
        assert_eq!(lines[7], Line::Range(500..=900));
    }

    #[test]
    fn what_is_odd_names_its_line() {
        for (line, what) in [
            ("u", "line 1: \"\" is no account's name"),
            ("x a", "is no type of line"),
            ("u a:b -", "a colon"),
            ("u %m", "a specifier"),
            ("u 1a", "is no account's name"),
            ("u ../a", "is no account's name"),
            ("u a 4294967295", "is no account's number"),
            ("u a 65535", "is no account's number"),
            ("u a +1", "is no account's number"),
            ("u a - \"x", "a quote without its end"),
            ("u a - \"x\\n\"", "a backslash"),
            ("u a - x:0:0", "a colon"),
            ("m a", "names no group"),
            ("r -", "names no range"),
            ("u a - b c d e", "more than six fields"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(what), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(text in "[ugmr!]{0,2}[ \t\"'a-c0-9:/%\u{e4}-]{0,30}") {
            let _ = read(&text);
        }
    }
}
