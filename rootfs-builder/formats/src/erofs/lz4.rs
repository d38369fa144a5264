//! LZ4 the other way round: not how short some bytes get, but how many of them fit a block. The libraries
//! that do this are C; the format is small (lz4: `doc/lz4_Block_format.md`).

use super::BLOCK;

/// A match has at least this many bytes: what a token cannot say is not worth one.
const MIN_MATCH: usize = 4;

/// The last match begins at least so many bytes before the end, and the last bytes are literals: decoders
/// copy in steps.
const MATCH_END: usize = 12;
const LAST_LITERALS: usize = 5;

const MAX_DISTANCE: usize = 65535;

/// How many earlier places with the same beginning are tried. More gain next to nothing within so little
/// output.
const ATTEMPTS: usize = 64;

const HASH_BITS: u32 = 13;
const NONE: u32 = u32::MAX;

/// As much of `source` from its start as fits a block when compressed; says how much that is.
pub(super) fn fill_block(source: &[u8]) -> (usize, Vec<u8>) {
    let mut chains = Chains::new(source);
    let mut out = Vec::with_capacity(BLOCK);
    let (mut literals_from, mut at) = (0, 0);
    while let Some((start, mut found)) = next_match(source, &mut chains, at) {
        let literals = &source[literals_from..start];
        // Behind a match there must be room for an end that is long enough for the rules above.
        let room = BLOCK.checked_sub(out.len() + 1 + MATCH_END);
        let Some(longest) = room.and_then(|room| longest_match(room, literals.len())) else { break };
        found.length = found.length.min(longest);
        put_sequence(&mut out, literals, found);
        at = start + found.length;
        literals_from = at;
    }
    let room = BLOCK - out.len();
    let rest = source.len() - literals_from;
    let last = (0..=rest.min(room)).rev().find(|&n| 1 + extra_size(n) + n <= room).unwrap_or(0);
    put_literals(&mut out, &source[literals_from..literals_from + last], 0);
    (literals_from + last, out)
}

#[derive(Debug, Clone, Copy)]
struct Match {
    distance: usize,
    length: usize,
}

/// The next match worth taking from `from` on, and where it begins: not the first, if the next byte has a
/// longer one.
fn next_match(source: &[u8], chains: &mut Chains, from: usize) -> Option<(usize, Match)> {
    // Beyond a block of literals there is no room for a match.
    let end = source.len().checked_sub(MATCH_END)?.min(from + BLOCK);
    let mut at = from;
    loop {
        if at > end {
            return None;
        }
        let Some(mut found) = chains.longest(source, at) else {
            at += 1;
            continue;
        };
        while at < end
            && let Some(better) = chains.longest(source, at + 1)
            && better.length > found.length
        {
            (at, found) = (at + 1, better);
        }
        return Some((at, found));
    }
}

/// Where each four bytes were seen before: the last place by their hash, and from each place the one before
/// it.
struct Chains {
    last: Vec<u32>,
    before: Vec<u32>,
}

impl Chains {
    fn new(source: &[u8]) -> Self {
        Chains { last: vec![NONE; 1 << HASH_BITS], before: Vec::with_capacity(source.len().min(4 * BLOCK)) }
    }

    /// The longest match for what is at `at`, the nearest of those.
    fn longest(&mut self, source: &[u8], at: usize) -> Option<Match> {
        self.note_until(source, at);
        let limit = source.len() - LAST_LITERALS;
        let mut best: Option<Match> = None;
        let mut candidate = self.last[hash(source, at)];
        for _ in 0..ATTEMPTS {
            if candidate == NONE || at - candidate as usize > MAX_DISTANCE {
                break;
            }
            let place = candidate as usize;
            let same = source[at..limit].iter().zip(&source[place..]).take_while(|(a, b)| a == b).count();
            if same >= MIN_MATCH && best.is_none_or(|best| same > best.length) {
                best = Some(Match { distance: at - place, length: same });
            }
            if at + same == limit {
                break;
            }
            candidate = self.before[place];
        }
        best
    }

    /// Makes all places before `at` known.
    fn note_until(&mut self, source: &[u8], at: usize) {
        for place in self.before.len()..at {
            let last = &mut self.last[hash(source, place)];
            self.before.push(std::mem::replace(last, place as u32));
        }
    }
}

fn hash(source: &[u8], at: usize) -> usize {
    let four = u32::from_le_bytes([source[at], source[at + 1], source[at + 2], source[at + 3]]);
    (four.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

/// How many bytes a length takes beyond its four bits in the token.
fn extra_size(length: usize) -> usize {
    if length < 15 { 0 } else { 1 + (length - 15) / 255 }
}

/// The longest match that has room behind so many literals.
fn longest_match(room: usize, literals: usize) -> Option<usize> {
    match room.checked_sub(1 + extra_size(literals) + literals + 2)? {
        0 => Some(MIN_MATCH + 14),
        extra => Some(MIN_MATCH + 15 + 255 * extra - 1),
    }
}

fn put_sequence(out: &mut Vec<u8>, literals: &[u8], found: Match) {
    let matched = found.length - MIN_MATCH;
    put_literals(out, literals, matched.min(15) as u8);
    out.extend_from_slice(&(found.distance as u16).to_le_bytes());
    put_extra(out, matched);
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8], low: u8) {
    out.push((literals.len().min(15) as u8) << 4 | low);
    put_extra(out, literals.len());
    out.extend_from_slice(literals);
}

fn put_extra(out: &mut Vec<u8>, length: usize) {
    if let Some(mut left) = length.checked_sub(15) {
        while left >= 255 {
            out.push(255);
            left -= 255;
        }
        out.push(left as u8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the letter of the format's description.
    fn decompress(mut block: &[u8]) -> Vec<u8> {
        fn take<'a>(block: &mut &'a [u8], n: usize) -> &'a [u8] {
            let (head, tail) = block.split_at(n);
            *block = tail;
            head
        }
        fn length(block: &mut &[u8], in_token: u8) -> usize {
            let (mut length, mut more) = (usize::from(in_token), if in_token == 15 { 255 } else { 0 });
            while more == 255 {
                more = take(block, 1)[0];
                length += usize::from(more);
            }
            length
        }
        let (mut out, mut last_match) = (Vec::new(), None);
        loop {
            let token = take(&mut block, 1)[0];
            let literals = length(&mut block, token >> 4);
            out.extend_from_slice(take(&mut block, literals));
            if block.is_empty() {
                if let Some(start) = last_match {
                    assert!(literals >= LAST_LITERALS && out.len() - start >= MATCH_END, "ends too early");
                }
                return out;
            }
            let distance = usize::from(u16::from_le_bytes(take(&mut block, 2).try_into().unwrap()));
            last_match = Some(out.len());
            for _ in 0..length(&mut block, token & 15) + MIN_MATCH {
                out.push(out[out.len() - distance]);
            }
        }
    }

    fn check(source: &[u8]) -> (usize, usize) {
        let (consumed, block) = fill_block(source);
        assert!(block.len() <= BLOCK);
        assert!(decompress(&block) == source[..consumed]);
        (consumed, block.len())
    }

    #[test]
    fn text_fits_in_several_times_its_size() {
        let text: Vec<u8> =
            (0..4000).flat_map(|n| format!("line {n} of a text, {}\n", n * n).into_bytes()).collect();
        let (consumed, used) = check(&text);
        assert!(consumed > 2 * BLOCK && used > BLOCK - 16, "{consumed} in {used}");
    }

    #[test]
    fn zeros_fit_255_to_one_and_noise_not_at_all() {
        let (consumed, _) = check(&vec![0; 1 << 21]);
        assert!(consumed > 250 * BLOCK, "{consumed}");
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..3 * BLOCK).map(|_| noise()).collect();
        assert!(check(&noise).0 < BLOCK);
    }

    #[test]
    fn what_is_short_is_all_there() {
        for length in 0..40 {
            assert_eq!(check(&vec![b'a'; length]).0, length);
        }
    }

    proptest! {
        /// Bytes of few kinds, so that there are matches of all lengths.
        #[test]
        fn what_fits_can_be_read_back(
            words in prop::collection::vec(prop::collection::vec(0..3_u8, 1..40), 0..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..3000),
        ) {
            let words = if words.is_empty() { vec![vec![]] } else { words };
            check(&order.iter().flat_map(|at| at.get(&words).clone()).collect::<Vec<u8>>());
        }
    }
}
