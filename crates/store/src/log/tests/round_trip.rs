//! What comes back is what went in: bytes, order, times, numbers; at any size; while it is written.

use proptest::collection::vec;
use proptest::prelude::*;
use regex::bytes::Regex;

use super::super::{
    FRAME_BYTES, FRAMES_QUEUED_MAX, LogError, PARTIAL_BYTES_MAX, RUNS_MAX, SearchBudget, SearchEnd, StreamState,
};
use super::*;

#[test]
fn streams_are_apart_and_in_order() {
    check(
        |log| {
            log.write(Stream::Stdout, b"a\nb\n", 10).unwrap();
            log.write(Stream::Stderr, b"oops\n", 11).unwrap();
            log.write(Stream::Stdout, b"c\n", 12).unwrap();
            log.write(Stream::Note, b"ended\n", 13).unwrap();
        },
        "0 out@10 [a]
         1 out@10 [b]
         2 err@11 [oops]
         3 out@12 [c]
         4 note@13 [ended]",
    );
}

#[test]
fn a_line_cut_by_a_read_stays_one() {
    check(
        |log| {
            log.write(Stream::Stdout, b"first\nsec", 1).unwrap();
            log.write(Stream::Stderr, b"warning\n", 2).unwrap();
            log.write(Stream::Stdout, b"ond\nlast", 3).unwrap();
        },
        "0 out@1 [first]
         1 err@2 [warning]
         2 out@3 [second]
         3 out@3 [last]+",
    );
}

#[test]
fn a_line_cut_by_a_flush_keeps_its_number_unless_another_stream_writes() {
    check(
        |log| {
            log.write(Stream::Stdout, b"1 of ", 1).unwrap();
            log.flush().unwrap();
            log.write(Stream::Stdout, b"2 of ", 2).unwrap();
            log.flush().unwrap();
            log.write(Stream::Stderr, b"x\n", 3).unwrap();
            log.write(Stream::Stdout, b"3\nnext\n", 4).unwrap();
        },
        "0 out@1 [1 of ]+
         0 out@2 +[2 of ]+
         1 err@3 [x]
         2 out@4 +[3]
         3 out@4 [next]",
    );
}

#[test]
fn any_byte_is_kept() {
    check(
        |log| log.write(Stream::Stdout, b"10%\r20%\r\n\0\xff\xfe\n\n\xc3", 1).unwrap(),
        r"0 out@1 [10%\r20%\r]
          1 out@1 [\x00\xff\xfe]
          2 out@1 []
          3 out@1 [\xc3]+",
    );
}

#[test]
fn time_never_goes_back() {
    check(
        |log| {
            log.write(Stream::Stdout, b"a\n", 9).unwrap();
            log.write(Stream::Stdout, b"b\n", 5).unwrap();
        },
        "0 out@9 [a]
         1 out@9 [b]",
    );
}

#[test]
fn a_silent_step_is_listed() {
    let pack = Pack::new();
    let summary = pack.write(|_| {});
    assert_eq!((summary.lines, summary.bytes_stdout, summary.first_stderr_line), (0, 0, None));
    let reader = pack.reader(Writing::Over);
    let streams: Vec<_> = reader.streams().map(|stream| (stream.key, stream.lines, stream.state)).collect();
    assert_eq!(streams, [(KEY, 0, StreamState::Closed)]);
    assert_eq!(text(reader.lines(KEY, 0..u64::MAX)), "");
    assert_eq!(text(reader.lines(StreamKey { attempt: 8, step: 0 }, 0..u64::MAX)), "");
}

#[test]
fn more_runs_than_a_frame_takes() {
    let pack = Pack::new();
    let count = RUNS_MAX as u64 * 2 + 5;
    pack.write(|log| (0..count).for_each(|time| log.write(Stream::Stdout, b".\n", time).unwrap()));
    let reader = pack.reader(Writing::Over);
    assert_eq!(reader.stream(KEY).unwrap().lines, count);
    let last = count - 1;
    assert_eq!(text(reader.tail(KEY, 1)), format!("{last} out@{last} [.]\n"));
}

#[test]
fn ranges_and_tail_of_many_frames() {
    let pack = Pack::new();
    let count = 100_000;
    pack.write(|log| {
        (0..count).for_each(|line| log.write(Stream::Stdout, format!("line {line:020}\n").as_bytes(), line).unwrap());
    });
    let reader = pack.reader(Writing::Over);
    let row = |line: u64| format!("{line} out@{line} [line {line:020}]\n");
    for start in [0, 1, 9_999, 10_000, 54_321, count - 2, count] {
        let expected: String = (start..(start + 3).min(count)).map(row).collect();
        assert_eq!(text(reader.lines(KEY, start..start + 3)), expected);
    }
    assert_eq!(text(reader.tail(KEY, 2)), row(count - 2) + &row(count - 1));
}

#[test]
fn the_side_file_says_what_a_scan_says() {
    let pack = Pack::new();
    let output = build_output(100 * FRAME_BYTES);
    pack.write(|log| output.chunks(70_000).for_each(|chunk| log.write(Stream::Stdout, chunk, 1).unwrap()));
    let side = pack.path().with_extension("idx");
    let lines = |reader: LogReader| text(reader.lines(KEY, 555_000..555_009));
    let with = lines(pack.reader(Writing::Over));
    assert!(with.starts_with("555000 out@1 [   Compiling crate-"), "{with}");

    let bytes = std::fs::read(&side).unwrap();
    for wrong in [&bytes[..bytes.len() / 2], &bytes[..5], &[0xff; 4000], b""] {
        std::fs::write(&side, wrong).unwrap();
        assert_eq!(lines(pack.reader(Writing::Over)), with);
    }
    let mut flipped = bytes;
    flipped[5000] ^= 1;
    std::fs::write(&side, flipped).unwrap();
    assert_eq!(lines(pack.reader(Writing::Over)), with);
    std::fs::remove_file(&side).unwrap();
    let reader = pack.reader(Writing::Over);
    assert!(raw(&reader, Selection::Only(Stream::Stdout)) == output);
    assert_eq!(lines(reader), with);
}

#[test]
fn one_line_of_100_mib_is_one_line_and_needs_little_memory() {
    let pack = Pack::new();
    let writer = pack.writer();
    let mut log = writer.open_stream(KEY, &Masker::none());
    let chunk = build_output(FRAME_BYTES * 3).into_iter().filter(|byte| *byte != b'\n').collect::<Vec<_>>();
    let chunk = &chunk[..FRAME_BYTES + 1];
    log.write(Stream::Stdout, b"before\n", 1).unwrap();
    for _ in 0..400 {
        log.write(Stream::Stdout, chunk, 2).unwrap();
    }
    log.write(Stream::Stdout, b"\nafter\n", 3).unwrap();
    assert_eq!(log.close().lines, 3);
    // The queue, the frame in the compressor's hands, the one that waits for a place, the one that is filled next;
    // each with room for its table.
    let frames = FRAMES_QUEUED_MAX + 3;
    let bound = frames * (FRAME_BYTES + 16 * 1024) + 3 * PARTIAL_BYTES_MAX + 64 * 1024;
    assert!((FRAME_BYTES..=bound).contains(&writer.buffers_bytes_peak()), "{}", writer.buffers_bytes_peak());

    let reader = pack.reader(Writing::Over);
    let (mut long, mut end) = (0, LineEnd::Open);
    for item in reader.lines(KEY, 1..2) {
        let Item::Line(line) = item.unwrap() else { panic!("a gap") };
        assert_eq!((line.number, end), (1, LineEnd::Open));
        assert_eq!(line.start == LineStart::Fresh, long == 0);
        long += line.bytes.len();
        end = line.end;
    }
    assert_eq!((long, end), (400 * chunk.len(), LineEnd::LineFeed));
    assert_eq!(text(reader.lines(KEY, 2..9)), "2 out@3 [after]\n");
}

#[test]
fn a_follower_sees_what_was_flushed() {
    let pack = Pack::new();
    let mut log = pack.stream();
    let mut reader = pack.reader(Writing::Going);
    assert_eq!(reader.refresh().unwrap(), 0);
    log.write(Stream::Stdout, b"one\nwork", 1).unwrap();
    assert_eq!(reader.refresh().unwrap(), 0);
    log.flush().unwrap();
    assert_eq!(reader.refresh().unwrap(), 1);
    assert_eq!(text(reader.lines(KEY, 0..u64::MAX)), "0 out@1 [one]\n1 out@1 [work]+\n");
    assert_eq!(reader.stream(KEY).unwrap().state, StreamState::Open);
    log.write(Stream::Stdout, b"ing\n", 2).unwrap();
    log.close();
    assert_eq!(reader.refresh().unwrap(), 1);
    assert_eq!(text(reader.lines(KEY, 1..u64::MAX)), "1 out@1 [work]+\n1 out@2 +[ing]\n");
    assert_eq!(reader.stream(KEY).unwrap().state, StreamState::Closed);
}

#[test]
fn many_steps_share_a_pack() {
    let pack = Pack::new();
    let writer = pack.writer();
    std::thread::scope(|scope| {
        for attempt in 0..8u32 {
            let writer = writer.clone();
            scope.spawn(move || {
                for step in 0..50u16 {
                    let mut log = writer.open_stream(StreamKey { attempt, step }, &Masker::none());
                    let text = format!("{attempt} {step}\n").repeat(usize::from(step) * 1000);
                    log.write(Stream::Stdout, text.as_bytes(), 1).unwrap();
                    assert!(log.close().failure.is_none());
                }
            });
        }
    });
    drop(writer);
    let reader = pack.reader(Writing::Over);
    assert_eq!(reader.streams().count(), 400);
    for stream in reader.streams() {
        let StreamKey { attempt, step } = stream.key;
        assert_eq!(stream.lines, u64::from(step) * 1000);
        let expected = format!("{attempt} {step}");
        for item in reader.lines(stream.key, 0..u64::MAX) {
            let Item::Line(line) = item.unwrap() else { panic!("a gap in {attempt} {step}") };
            assert_eq!(&*line.bytes, expected.as_bytes());
        }
    }
}

#[test]
fn a_pack_has_one_writer_and_can_be_gone_on_with() {
    let pack = Pack::new();
    let writer = pack.writer();
    assert!(matches!(LogWriter::open(&pack.path()), Err(LogError::Busy(_))));
    drop(writer);
    pack.write(|log| log.write(Stream::Stdout, b"one\n", 1).unwrap());
    pack.write(|log| log.write(Stream::Stdout, b"two\n", 2).unwrap());
    assert_eq!(pack.text(Writing::Over), "0 out@1 [one]\n1 out@2 [two]\n");
}

#[test]
fn search_finds_lines_and_stops_at_the_limit() {
    let pack = Pack::new();
    pack.write(|log| {
        log.write(Stream::Stdout, b"ok\nerror: a\n", 1).unwrap();
        log.write(Stream::Stderr, b"error: ", 2).unwrap();
        log.flush().unwrap();
        log.write(Stream::Stdout, b"between\n", 3).unwrap();
        log.write(Stream::Stderr, b"b\nno error\n", 4).unwrap();
        log.write(Stream::Stdout, b"error: c", 5).unwrap();
    });
    let reader = pack.reader(Writing::Over);
    let search = |pattern: &str, from: u64, limit: usize| {
        let result = reader.search(KEY, &Regex::new(pattern).unwrap(), from, limit).unwrap();
        assert!(result.gaps.is_empty());
        let hits: Vec<_> =
            result.hits.into_iter().map(|hit| (hit.number, String::from_utf8(hit.bytes).unwrap())).collect();
        (hits, result.end)
    };
    let hit = |number: u64, line: &str| (number, line.to_owned());
    let all = vec![hit(1, "error: a"), hit(2, "error: b"), hit(6, "error: c")];
    assert_eq!(search("^error: .$", 0, 9), (all.clone(), SearchEnd::Complete));
    assert_eq!(search("^error: .$", 0, 1), (all[..1].to_vec(), SearchEnd::Limit { next: 2 }));
    assert_eq!(search("^error: .$", 2, 9), (all[1..].to_vec(), SearchEnd::Complete));
    assert_eq!(search("absent", 0, 9), (vec![], SearchEnd::Complete));
}

#[test]
fn a_search_in_pieces_finds_what_one_in_a_whole_does() {
    let pack = Pack::new();
    pack.write(|log| {
        for index in 0..2000u64 {
            log.write(Stream::Stdout, format!("line {index}\n").as_bytes(), index).unwrap();
            if index % 100 == 0 {
                log.write(Stream::Stderr, b"half of ", index).unwrap();
                log.flush().unwrap();
            } else if index % 100 == 3 {
                log.write(Stream::Stderr, b"line 7 in pieces\n", index).unwrap();
            }
        }
    });
    let reader = pack.reader(Writing::Over);
    let regex = Regex::new("line [0-9]*7").unwrap();
    let whole = reader.search(KEY, &regex, 0, usize::MAX).unwrap().hits;
    assert_eq!(whole.len(), 562);
    let past = std::time::Instant::now();
    for (hits, bytes, deadline) in [(7, u64::MAX, None), (usize::MAX, 500, None), (usize::MAX, u64::MAX, Some(past))] {
        let (mut found, mut from, mut calls) = (Vec::new(), 0, 0);
        loop {
            let budget = SearchBudget { hits, bytes, deadline };
            let result = reader.search_within(KEY, &regex, from, budget).unwrap();
            found.extend(result.hits);
            calls += 1;
            match result.end {
                SearchEnd::Complete => break,
                SearchEnd::Limit { next } | SearchEnd::Budget { next } => from = next,
            }
        }
        assert!(calls > 5, "{calls}");
        assert!(found == whole, "{} of {}", found.len(), whole.len());
    }
}

#[test]
fn search_finds_a_line_that_two_frames_share() {
    let pack = Pack::new();
    pack.write(|log| {
        let mut long = vec![b'.'; FRAME_BYTES + PARTIAL_BYTES_MAX];
        long[FRAME_BYTES - 3..FRAME_BYTES + 3].copy_from_slice(b"needle");
        long.push(b'\n');
        log.write(Stream::Stdout, &long, 1).unwrap();
    });
    let result = pack.reader(Writing::Over).search(KEY, &Regex::new("needle").unwrap(), 0, 9).unwrap();
    let [hit] = &result.hits[..] else { panic!("{} hits", result.hits.len()) };
    assert_eq!((hit.number, &hit.bytes[hit.matched.clone()]), (0, &b"needle"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// An expression with a flag that speaks of line ends is tried line by line; many lines at once find the same.
    #[test]
    fn a_search_over_many_lines_at_once_finds_what_one_line_by_line_does(
        writes in prop::collection::vec((0..3_usize, "[ab\n]{0,6}|\x1b\\[1m|a\r", any::<bool>()), 0..40),
        pattern in prop::sample::select(vec!["a$", "^b", "ab", "a\\s*b", "^$", "\\bb", "[^a]b", "(?i-u)B\\b", "^a\r$"]),
        from in 0..20_u64,
    ) {
        let pack = Pack::new();
        pack.write(|log| for (index, (stream, text, flushes)) in writes.iter().enumerate() {
            log.write(Stream::ALL[*stream], text.as_bytes(), index as u64 * 50).unwrap();
            if *flushes {
                log.flush().unwrap();
            }
        });
        let reader = pack.reader(Writing::Over);
        let found = |pattern: &str| reader.search(KEY, &Regex::new(pattern).unwrap(), from, usize::MAX).unwrap().hits;
        prop_assert_eq!(found(pattern), found(&format!("(?-m:){pattern}")));
    }
}

#[derive(Clone, Debug)]
enum Action {
    Write(Stream, Vec<u8>, u64),
    Flush,
}

fn action() -> impl Strategy<Value = Action> {
    let stream = prop::sample::select(Stream::ALL.to_vec());
    let short = vec(prop_oneof![3 => any::<u8>(), 2 => Just(b'\n')], 0..40);
    let long = (1..3 * FRAME_BYTES, 1..2 * PARTIAL_BYTES_MAX).prop_map(|(length, period)| {
        (0..length).map(|at| if at % period == period - 1 { b'\n' } else { b'x' }).collect::<Vec<_>>()
    });
    prop_oneof![
        20 => (stream.clone(), short, 0..3u64).prop_map(|(stream, bytes, time)| Action::Write(stream, bytes, time)),
        2 => (stream, long, 0..3u64).prop_map(|(stream, bytes, time)| Action::Write(stream, bytes, time)),
        2 => Just(Action::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_writes_come_back(actions in vec(action(), 0..60)) {
        let pack = Pack::new();
        let mut written: [Vec<u8>; 3] = Default::default();
        let summary = pack.write(|log| {
            let mut time_us = 0;
            for action in &actions {
                match action {
                    Action::Flush => log.flush().unwrap(),
                    Action::Write(stream, bytes, time) => {
                        time_us += time;
                        written[stream.index()].extend_from_slice(bytes);
                        log.write(*stream, bytes, time_us).unwrap();
                    }
                }
            }
        });
        let reader = pack.reader(Writing::Over);
        prop_assert_eq!(reader.stream(KEY).unwrap().lines, summary.lines);
        for stream in Stream::ALL {
            prop_assert!(raw(&reader, Selection::Only(stream)) == written[stream.index()]);
        }

        let mut joined: [Vec<u8>; 3] = Default::default();
        let (mut next, mut time_us) = (0, 0);
        for item in reader.lines(KEY, 0..u64::MAX) {
            let Item::Line(line) = item.unwrap() else { panic!("a gap") };
            let joined = &mut joined[line.stream.index()];
            let begins = joined.is_empty() || joined.ends_with(b"\n");
            prop_assert_eq!(line.start == LineStart::Fresh, begins);
            let same_row = line.start == LineStart::Continued && line.number + 1 == next;
            prop_assert!(line.number == next || same_row);
            next = line.number + 1;
            prop_assert!(line.time_us >= time_us);
            time_us = line.time_us;
            joined.extend_from_slice(&line.bytes);
            if line.end == LineEnd::LineFeed {
                joined.push(b'\n');
            }
        }
        prop_assert_eq!(next, summary.lines);
        prop_assert!(joined == written);
    }

    #[test]
    fn whole_lines_keep_their_order(lines in vec((prop::sample::select(Stream::ALL.to_vec()), "[a-z]{0,9}\n"), 0..200)) {
        let pack = Pack::new();
        pack.write(|log| {
            for (stream, line) in &lines {
                log.write(*stream, line.as_bytes(), 1).unwrap();
            }
        });
        let expected: String = lines.iter().map(|(_, line)| line.as_str()).collect();
        prop_assert_eq!(raw(&pack.reader(Writing::Over), Selection::All), expected.into_bytes());
    }
}
