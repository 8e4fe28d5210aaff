//! Where a file's bytes are cut into chunks, by what they are: a byte that is put in moves the cuts beside it and no
//! others. Pure.
//!
//! The method is that of FastCDC (Xia and others, USENIX ATC 2016): a rolling hash over the last 64 bytes, cut where its
//! upper bits are zero, with more bits asked below the mean than above it. It is forty lines, and the cuts must stay what they
//! are for as long as chunks are kept; so it is ours rather than a crate's.

/// No chunk but the last of a file is shorter.
pub const CHUNK_BYTES_MIN: usize = 16 << 10;
/// What chunks of random bytes have on the average, about.
pub const CHUNK_BYTES_MEAN: usize = 64 << 10;
/// No chunk is longer.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// The upper bits that must be zero below the mean: one place in 2^17 is a cut.
const STRICT: u64 = !0 << (64 - 17);
/// Above the mean: one place in 2^15.
const LOOSE: u64 = !0 << (64 - 15);

/// How many bytes the hash remembers: as many as it has bits.
const WINDOW: usize = 64;

/// A number for each value of a byte. They decide the cuts and never change.
const GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    // The finalizer of SplitMix64 over the multiples of its constant.
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[index] = value ^ (value >> 31);
        index += 1;
    }
    table
}

/// How long the first chunk of `bytes` is, which are the rest of a file or at least [`CHUNK_BYTES_MAX`] of it. All of them if they are
/// no more than the shortest chunk; 0 only for none.
#[must_use]
pub fn first_chunk(bytes: &[u8]) -> usize {
    let end = bytes.len().min(CHUNK_BYTES_MAX);
    if end <= CHUNK_BYTES_MIN {
        return end;
    }
    let mut hash = 0_u64;
    // The hash is warm when the first cut may come, so that a cut depends on the bytes before it alone.
    for &byte in &bytes[CHUNK_BYTES_MIN - WINDOW..CHUNK_BYTES_MIN] {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(byte)]);
    }
    let middle = end.min(CHUNK_BYTES_MEAN);
    for (range, mask) in [(CHUNK_BYTES_MIN..middle, STRICT), (middle..end, LOOSE)] {
        let start = range.start;
        for (index, &byte) in bytes[range].iter().enumerate() {
            if hash & mask == 0 {
                return start + index;
            }
            hash = (hash << 1).wrapping_add(GEAR[usize::from(byte)]);
        }
    }
    end
}

/// The chunks of a whole content.
#[cfg(test)]
pub fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(first_chunk(bytes));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Bytes that look random and follow from the seed.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        let mut bytes = vec![0; length];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn bounds_hold_and_the_mean_is_near() {
        let bytes = noise(1, 16 << 20);
        let chunks = chunks(&bytes);
        assert_eq!(chunks.concat(), bytes);
        let (last, whole) = chunks.split_last().expect("chunks");
        assert!(whole.iter().all(|chunk| (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk.len())));
        assert!(last.len() <= CHUNK_BYTES_MAX);
        let mean = bytes.len() / chunks.len();
        assert!((CHUNK_BYTES_MEAN * 3 / 4..CHUNK_BYTES_MEAN * 5 / 4).contains(&mean), "mean {mean}");
    }

    #[test]
    fn bytes_without_a_cut_are_cut_at_the_longest() {
        let lengths: Vec<usize> = chunks(&vec![0; 600 << 10]).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, [256 << 10, 256 << 10, 88 << 10]);
    }

    #[test]
    fn the_cuts_of_old_chunks_stay() {
        let lengths: Vec<usize> = chunks(&noise(7, 400_000)).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, LENGTHS_OF_SEVEN, "stored chunks would be known no more");
    }

    const LENGTHS_OF_SEVEN: [usize; 4] = [44_095, 194_822, 82_103, 78_980];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_change_moves_few_cuts(seed: u64, at in 0..1_000_000_usize, put in proptest::collection::vec(any::<u8>(), 0..100), taken in 0..100_usize) {
            let before = noise(seed, 1_000_000);
            let mut after = before.clone();
            after.splice(at..(at + taken).min(before.len()), put);
            let known: HashSet<&[u8]> = chunks(&before).into_iter().collect();
            let fresh = chunks(&after).into_iter().filter(|chunk| !known.contains(chunk)).count();
            // The chunk itself, and as many as it takes until both sequences have a cut in common again.
            prop_assert!(fresh <= 8, "{fresh} chunks are new");
        }

        #[test]
        fn a_cut_needs_no_more_than_the_longest_chunk(seed: u64, length in 0..700_000_usize) {
            let bytes = noise(seed, length);
            let seen = &bytes[..length.min(CHUNK_BYTES_MAX)];
            prop_assert_eq!(first_chunk(&bytes), first_chunk(seen));
        }
    }
}
