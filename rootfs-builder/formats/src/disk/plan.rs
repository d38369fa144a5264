//! Where partitions go.

use std::ops::Range;

use super::{ALIGNMENT, FORMAT, SECTOR, Scheme, gpt, mbr};
use crate::error::Error;

/// The order of a disk, in sectors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) partitions: Vec<Range<u64>>,
    /// All of the disk.
    pub(super) sectors: u64,
}

/// Places images of these lengths, one after the other. The disk ends with the last of them, or with the copy
/// of the table.
pub(super) fn plan(lengths: &[u64], scheme: Scheme) -> Result<Plan, Error> {
    let (most, behind) = match scheme {
        Scheme::Gpt => (gpt::ENTRIES, gpt::COPY),
        Scheme::Mbr => (mbr::ENTRIES, 0),
    };
    let refused = |what| Err(Error::Limit { format: FORMAT, what });
    if lengths.is_empty() || lengths.len() > most {
        return refused(format!("{} partitions, and the table is for 1 to {most}", lengths.len()));
    }
    let step = ALIGNMENT / SECTOR;
    let mut partitions: Vec<Range<u64>> = Vec::new();
    for (number, length) in (1..).zip(lengths) {
        if *length == 0 {
            return refused(format!("partition {number} would be empty"));
        }
        let start = partitions.last().map_or(1, |last| last.end).next_multiple_of(step);
        partitions.push(start..start + length.div_ceil(SECTOR));
    }
    let sectors = partitions.last().map_or(0, |last| last.end) + behind;
    if scheme == Scheme::Mbr && u32::try_from(sectors).is_err() {
        return refused(format!("{sectors} sectors, and an MBR has 32 bits to count them"));
    }
    Ok(Plan { partitions, sectors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lengths: &[u64], scheme: Scheme) -> String {
        plan(lengths, scheme).unwrap_err().to_string()
    }

    #[test]
    fn partitions_begin_at_a_mib_and_are_as_long_as_their_images() {
        let expected = Plan { partitions: vec![2048..2049, 4096..6145, 8192..8194], sectors: 8194 };
        assert_eq!(plan(&[1, (1 << 20) + 1, 1024], Scheme::Mbr).unwrap(), expected);
        let gpt = plan(&[1, (1 << 20) + 1, 1024], Scheme::Gpt).unwrap();
        assert_eq!(gpt, Plan { sectors: 8194 + 33, ..expected });
    }

    #[test]
    fn what_no_table_can_say_is_refused() {
        assert_eq!(refusal(&[], Scheme::Gpt), "disk: 0 partitions, and the table is for 1 to 128");
        assert_eq!(refusal(&[1; 5], Scheme::Mbr), "disk: 5 partitions, and the table is for 1 to 4");
        assert_eq!(refusal(&[1, 0], Scheme::Gpt), "disk: partition 2 would be empty");
        let most = (u64::from(u32::MAX) - 2048) * SECTOR;
        assert!(plan(&[most], Scheme::Mbr).is_ok() && plan(&[most + 1], Scheme::Gpt).is_ok());
        assert!(refusal(&[most + 1], Scheme::Mbr).contains("4294967296 sectors"));
    }
}
