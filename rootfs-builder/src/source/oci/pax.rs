//! The records before an entry of a tar archive (POSIX, pax): long names, large numbers, extended attributes.
//!
//! A record says how long it is, and its value may be any bytes. The tar crate ends one at a newline all the same, so that an
//! attribute with a newline in it is malformed to it, or is two records, the second of which may be a name. So they are read
//! here, by their lengths; an entry that the crate takes for another one because of that is refused.

use std::collections::{BTreeMap, HashMap};

use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// What the tar crate decides by records, of which there must be no two opinions.
const DECISIVE: [&str; 3] = ["path", "linkpath", "size"];

/// Keys and values; of those with one key the last counts.
pub(super) type Records = BTreeMap<String, Vec<u8>>;

/// The records of each entry that has any, by the place of its header in the archive.
pub(super) fn records(archive: &[u8]) -> Result<HashMap<u64, Records>, String> {
    let (mut all, mut pending) = (HashMap::new(), Records::new());
    let mut at = 0;
    while let Some(block) = archive.get(at..at + BLOCK) {
        let header = Header::from_byte_slice(block);
        let kind = header.entry_type();
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let size =
            pending.get("size").map_or_else(|| header.entry_size().map_err(text), |size| number(size))?;
        let mut data = at + BLOCK;
        // Behind such a header there may be more of its table of holes.
        let mut more = kind == EntryType::GNUSparse && block[482] != 0;
        while more {
            more = archive.get(data + 504).is_some_and(|flag| *flag != 0);
            data += BLOCK;
        }
        let cut = "the archive ends in the middle of an entry";
        let end = usize::try_from(size).ok().and_then(|size| data.checked_add(size)).ok_or(cut)?;
        let content = archive.get(data..end).ok_or(cut)?;
        match kind {
            EntryType::XHeader => pending = parse(content)?,
            EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink => {}
            _ if pending.is_empty() => {}
            _ => drop(all.insert(at as u64, std::mem::take(&mut pending))),
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(all)
}

/// Refuses an entry that the tar crate has read by other records than these.
pub(super) fn check<R: std::io::Read>(
    entry: &mut tar::Entry<'_, R>,
    records: &Records,
) -> Result<(), String> {
    let Some(theirs) = entry.pax_extensions().map_err(text)? else { return Ok(()) };
    let theirs: Vec<_> = theirs.filter_map(Result::ok).collect();
    for key in DECISIVE {
        let of_crate =
            theirs.iter().find(|record| record.key() == Ok(key)).map(|record| record.value_bytes());
        if of_crate != records.get(key).map(Vec::as_slice) {
            return Err(format!("its {key} can be read in two ways"));
        }
    }
    match records.keys().find(|key| key.starts_with("GNU.sparse.")) {
        Some(_) => Err("is a sparse file in a form that is not known".to_owned()),
        None => Ok(()),
    }
}

/// "LENGTH KEY=VALUE\n", again and again; the length is that of all of it.
fn parse(mut data: &[u8]) -> Result<Records, String> {
    let mut records = Records::new();
    while !data.is_empty() {
        let broken = || "a pax record is malformed".to_owned();
        let blank = data.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = usize::try_from(number(&data[..blank])?).map_err(|_| broken())?;
        let record = data.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| broken())?;
        records.insert(key.to_owned(), record[equals + 1..].to_vec());
        data = &data[length..];
    }
    Ok(records)
}

/// Decimal, without a sign.
pub(super) fn number(digits: &[u8]) -> Result<u64, String> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| "a number of a pax record is none".to_owned())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says() {
        let read = parse(b"12 path=a/b\n15 x=a\n8 y=b=c\n10 path=c\n").unwrap();
        assert_eq!(read["path"], b"c");
        assert_eq!(read["x"], b"a\n8 y=b=c");
        assert_eq!(parse(b"").unwrap(), Records::new());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for data in [
            &b"x"[..],
            b"5 a=b",
            b"7 a=b\n",
            b"6 a=bc",
            b"+6 a=b\n",
            b" a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"5 ab\n",
            b"99999999999999999999 a=b\n",
            b"6 \xff=b\n",
        ] {
            assert!(parse(data).is_err(), "{data:?}");
        }
    }
}
