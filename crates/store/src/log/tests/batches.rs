//! Batches at their boundary: what is encoded is decoded, what is not a batch is refused.

use graph::BuildId;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::log::{BATCH_BYTES_MAX, BATCH_RUNS_MAX, BATCHES_MAX, Batch, BatchError, StepEnd};

fn batch(first_byte: u64, runs: &[(Stream, u64, &[u8])]) -> Batch {
    let mut batch = Batch::new(BuildId(12), KEY, first_byte);
    for (stream, time_us, bytes) in runs {
        assert_eq!(batch.push(*stream, *time_us, bytes), b"");
    }
    batch
}

fn encoded(batches: &[Batch]) -> Vec<u8> {
    let mut body = Vec::new();
    batches.iter().for_each(|batch| batch.encode(&mut body));
    body
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let run = (prop::sample::select(Stream::ALL.to_vec()), any::<u64>(), vec(any::<u8>(), 0..400));
    let end = prop::sample::select(vec![None, Some(StepEnd::Closed), Some(StepEnd::CutShort)]);
    (any::<u64>(), any::<u32>(), any::<u16>(), any::<u64>(), any::<Option<u64>>(), end, vec(run, 0..8)).prop_map(
        |(build, attempt, step, first_byte, lost_lines, end, runs)| {
            let mut batch = Batch::new(BuildId(build), StreamKey { attempt, step }, first_byte);
            (batch.lost_lines, batch.end) = (lost_lines, end);
            runs.iter().for_each(|(stream, time_us, bytes)| assert!(batch.push(*stream, *time_us, bytes).is_empty()));
            batch
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(batches in vec(any_batch(), 0..4)) {
        prop_assert_eq!(Batch::decode_all(&encoded(&batches)).unwrap(), batches);
    }

    #[test]
    fn any_change_is_seen(batch in any_batch(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mut body = encoded(&[batch]);
        let at = at.index(body.len());
        body[at] ^= flip;
        prop_assert!(Batch::decode_all(&body).is_err());
        prop_assert!(Batch::decode_all(&body[..at]).is_err() || at == 0);
    }

    /// Also with a right sum, which anybody can make.
    #[test]
    fn any_bytes_are_refused_or_read(rest in vec(any::<u8>(), 0..300)) {
        let mut body = b"RWb1".to_vec();
        body.extend_from_slice(&u32::try_from(rest.len()).unwrap().to_le_bytes());
        body.extend_from_slice(&crate::log::frame::sum(&rest).to_le_bytes());
        body.extend_from_slice(&rest);
        if let Ok(batches) = Batch::decode_all(&body) {
            prop_assert!(batches.iter().all(|batch| batch.content().len() <= BATCH_BYTES_MAX));
        }
        let _ = Batch::decode_all(&rest);
    }

    #[test]
    fn a_cut_takes_bytes_from_the_beginning_only(batch in any_batch(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(batch.content().len() + 1);
        let after = batch.after(cut);
        prop_assert_eq!(after.content(), &batch.content()[cut..]);
        prop_assert_eq!(after.first_byte, batch.first_byte.saturating_add(cut as u64));
        let bytes = |batch: &Batch, stream| -> Vec<u8> {
            batch.runs().filter(|(run, _)| run.stream == stream).flat_map(|(_, bytes)| bytes.to_vec()).collect()
        };
        for stream in Stream::ALL {
            prop_assert!(bytes(&batch, stream).ends_with(&bytes(&after, stream)));
        }
    }
}

#[test]
fn a_batch_takes_no_more_than_its_bounds() {
    let mut full = Batch::new(BuildId(1), KEY, 0);
    assert_eq!(full.push(Stream::Stdout, 1, &vec![b'x'; BATCH_BYTES_MAX + 3]).len(), 3);
    assert_eq!(full.push(Stream::Stdout, 1, b"more"), b"more");
    assert_eq!(Batch::decode_all(&encoded(std::slice::from_ref(&full))), Ok(vec![full]));
    let mut crowded = Batch::new(BuildId(1), KEY, 0);
    for time_us in 0..BATCH_RUNS_MAX as u64 {
        assert!(crowded.push(Stream::Stdout, time_us, b"x").is_empty());
    }
    assert_eq!(crowded.push(Stream::Stdout, u64::MAX, b"x"), b"x");
    assert_eq!(Batch::decode_all(&encoded(std::slice::from_ref(&crowded))), Ok(vec![crowded]));
}

#[test]
fn a_body_has_a_bounded_number_of_batches() {
    let one = encoded(&[batch(0, &[])]);
    assert_eq!(Batch::decode_all(&one.repeat(BATCHES_MAX)).unwrap().len(), BATCHES_MAX);
    let at = one.len() * BATCHES_MAX;
    assert_eq!(Batch::decode_all(&one.repeat(BATCHES_MAX + 1)), Err(BatchError::TooLarge { at }));
}

#[test]
fn the_bytes_of_a_batch_are_those_that_other_versions_know() {
    let mut known = batch(300, &[(Stream::Stdout, 1_000_000, b"hi\n"), (Stream::Stderr, 1_000_001, b"oh")]);
    (known.lost_lines, known.end) = (Some(2), Some(StepEnd::Closed));
    let hex: String = encoded(&[known]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

/// Never edited: a new shape gets a new magic.
const GOLDEN: &str = "5257623117000000a75110d6b8c84f0b060c0701ac0202c0843d050b68690a6f68000003010102";

#[test]
fn a_pack_gives_its_output_in_batches() {
    let pack = Pack::new();
    pack.write(|stream| {
        stream.write(Stream::Stdout, &build_output(700_000), 5).unwrap();
        stream.write(Stream::Stderr, b"warning", 6).unwrap();
        stream.flush().unwrap();
        stream.write(Stream::Stdout, &build_output(900_000), 7).unwrap();
    });
    let reader = pack.reader(Writing::Over);
    let whole = raw(&reader, Selection::All);
    for first in [0, 1, 262_143, 262_144, 700_100, whole.len() - 1, whole.len()] {
        let batches: Vec<Batch> = reader.batches(BuildId(1), KEY, first as u64).map(Result::unwrap).collect();
        let mut next = first as u64;
        for batch in &batches {
            assert_eq!(batch.first_byte, next);
            next = batch.next_byte();
        }
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| batch.content().to_vec()).collect();
        assert!(bytes == whole[first..], "from {first}");
        assert_eq!(batches.last().unwrap().end, Some(StepEnd::Closed));
        assert_eq!(batches.iter().filter(|batch| batch.end.is_some()).count(), 1);
        let part = reader.raw_from(KEY, Selection::All, first as u64).flat_map(|part| match part.unwrap() {
            RawPart::Bytes(bytes) => bytes.to_vec(),
            RawPart::Gap(gap) => panic!("{gap:?}"),
        });
        assert!(part.collect::<Vec<u8>>() == whole[first..], "from {first}");
    }
}
