//! `logs` over real packs.

use clap::Parser;
use engine::fact::What;
use graph::{AttemptNumber, AttemptReport, LeaseId, Outcome, Timestamp};
use store::log::{Masker, Stream, StreamKey};

use super::*;
use crate::args::{Arguments, Command};
use crate::places::kept::Kept;
use crate::places::log_path;

const OUT: Stream = Stream::Stdout;
const ERR: Stream = Stream::Stderr;
const PIPE: Reader = Reader::Pipe(Paint::Plain);

fn arguments(line: &str) -> Logs {
    let words = ["ropewalk", "logs"].into_iter().chain(line.split_whitespace());
    match Arguments::try_parse_from(words).expect("arguments that parse").command {
        Command::Logs(logs) => logs,
        other => panic!("{other:?} is not `logs`"),
    }
}

fn told(kept: &Kept, line: &str, reader: Reader) -> Result<(String, String), String> {
    let mut written = Vec::new();
    let said = tell(&arguments(line), &kept.places(), &kept.calendar(), reader, &mut written);
    said.map(|said| (String::from_utf8(written).expect("text"), said.note)).map_err(|stop| stop.message)
}

#[track_caller]
fn check(kept: &Kept, line: &str, expected: &str) {
    assert_eq!(told(kept, line, PIPE), Ok((expected.to_owned(), String::new())), "{line}");
}

/// Two jobs at once, the first with two steps, and a third of several tries.
fn kept() -> Kept {
    let mut kept = Kept::new();
    let mut build = kept.build(&["a", "long-name"]);
    build.pass("a", 1).pass("long-name", 1);
    build.print(&[
        (1, 0, OUT, "one\n"),
        (2, 0, OUT, "uno\n"),
        (1, 0, ERR, "two\n"),
        (1, 1, OUT, "three\n"),
        (2, 0, OUT, "due\n"),
        (1, 1, OUT, "four\nfive"),
    ]);
    build.end();
    kept
}

#[test]
fn what_is_of_one_job_means_the_only_one_of_a_build() {
    let mut kept = kept();
    kept.build(&["only"]).pass("only", 1).print(&[(1, 0, OUT, "one\ntwo\n")]).end();
    check(&kept, "2 --lines 2", "two\n");
    check(&kept, "2 --raw", "one\ntwo\n");
    for flag in ["--lines 2", "--raw"] {
        let refused = format!(
            "{} is of one job: name it behind the build; build 1 has a, long-name",
            &flag[..flag.find(' ').unwrap_or(flag.len())]
        );
        assert_eq!(told(&kept, &format!("1 {flag}"), PIPE), Err(refused));
    }
    let beyond = Ok((String::new(), "the log of only in build 2 has 2 lines".to_owned()));
    assert_eq!(told(&kept, "2 only --lines 3-9", PIPE), beyond);
    assert_eq!(told(&kept, "2 only --lines 200-", PIPE), beyond);
}

#[test]
fn a_build_is_told_by_time_and_a_job_step_by_step() {
    let kept = kept();
    check(
        &kept,
        "1",
        "a         | one\nlong-name | uno\na         | two\na         | three\nlong-name | due\n\
         a         | four\na         | five\n",
    );
    check(&kept, "1 a", "one\ntwo\nthree\nfour\nfive\n");
    check(&kept, "1 a --timestamps --lines 3", "04:00:00.000 three\n");
}

#[test]
fn headings_are_told_and_fold() {
    let mut kept = Kept::new();
    let mut build = kept.build(&["a"]);
    build.pass("a", 1);
    build.print(&[
        (1, 0, OUT, "::group::Build\ncompiling\n"),
        (1, 0, ERR, "::group::not one\n"),
        (1, 0, OUT, "::group::Link\n::warning::old\n::endgroup::\n::pending::a runner\n::endgroup::\nend\n"),
    ]);
    build.end();
    let told = "▾ Build\n  compiling\n  ::group::not one\n  ▾ Link\n    warning: old\n  waits: a runner\nend\n";
    check(&kept, "1 a", told);
    check(&kept, "1 a --folded", "▸ Build\n    warning: old\nend\n");
    check(&kept, "1 a --grep group --tail 1", "::endgroup::\n");
    assert!(told_raw(&kept).starts_with("::group::Build\ncompiling\n"));
}

fn told_raw(kept: &Kept) -> String {
    told(kept, "1 a --raw", PIPE).expect("a log").0
}

#[test]
fn ranges_count_through_the_steps() {
    let kept = kept();
    check(&kept, "1 a --lines 2-3", "two\nthree\n");
    check(&kept, "1 a --lines 4-", "four\nfive\n");
    check(&kept, "1 a --lines 1-1", "one\n");
    check(&kept, "1 a --tail 3", "three\nfour\nfive\n");
    check(&kept, "1 a --tail 0", "");
    check(&kept, "1 --tail 3", "long-name | due\na         | four\na         | five\n");
    let wrong = "--lines takes FROM-TO, counted from 1, such as `100-199`, not `3-2`";
    assert_eq!(told(&kept, "1 a --lines 3-2", PIPE), Err(wrong.to_owned()));
    assert!(told(&kept, "1 a --lines 0-2", PIPE).is_err());
}

#[test]
fn lines_that_match_with_those_around_them() {
    let kept = kept();
    check(&kept, "1 --grep ^.o?ur?$|due", "long-name | due\na         | four\n");
    check(&kept, "1 a --grep one|five --context 1", "one\ntwo\n--\nfour\nfive\n");
    check(&kept, "1 a --grep e --tail 2", "three\nfive\n");
    let note = "no line matches `no-such-line`".to_owned();
    assert_eq!(told(&kept, "1 a --grep no-such-line", PIPE), Ok((String::new(), note)));
    let terminal = told(&kept, "1 a --grep fo", Reader::Terminal(Paint::Coloured)).expect("it tells").0;
    assert_eq!(terminal, "\u{1b}[2m4: \u{1b}[0m\u{1b}[1;31mfo\u{1b}[0mur\n");
    assert!(told(&kept, "1 --grep (", PIPE).is_err());
}

#[test]
fn bytes_go_without_colours_into_a_pipe_and_harmless_to_a_terminal() {
    let mut kept = Kept::new();
    let mut build = kept.build(&["a"]);
    build.pass("a", 1);
    build.print(&[
        (1, 0, OUT, "10%\r20%\r\n\u{1b}[31mred\u{7}\n"),
        (1, 0, Stream::Note, "noted\n"),
        (1, 0, OUT, "end"),
    ]);
    check(&kept, "1 a", "10%\r20%\r\nred\u{7}\nnote: noted\nend\n");
    check(&kept, "1 a --grep ^red", "red\u{7}\n");
    let forced = told(&kept, "1 a", Reader::Pipe(Paint::Coloured)).expect("it tells").0;
    assert_eq!(forced, "10%\r20%\r\n\u{1b}[31mred\u{7}\n\u{1b}[36mnote:\u{1b}[0m noted\nend\n");
    check(&kept, "1 a --raw", "10%\r20%\r\n\u{1b}[31mred\u{7}\nend");
    let plain = told(&kept, "1 a", Reader::Terminal(Paint::Plain)).expect("it tells").0;
    assert_eq!(plain, "20%\nred\nnote: noted\nend\n");
    let coloured = told(&kept, "1 a", Reader::Terminal(Paint::Coloured)).expect("it tells").0;
    assert_eq!(coloured, "20%\n\u{1b}[31mred\u{1b}[0m\n\u{1b}[36mnote:\u{1b}[0m noted\nend\n");
}

#[test]
fn a_line_that_another_stream_cuts_is_told_in_pieces() {
    let mut kept = Kept::new();
    let mut build = kept.build(&["a"]);
    build.pass("a", 1);
    let path = log_path(&kept.places().data, BuildId(1));
    let writer = store::log::LogWriter::open(&path).expect("a log");
    let mut stream = writer.open_stream(StreamKey { attempt: 1, step: 0 }, &Masker::default());
    let mut write = |stream_of, text: &str| {
        stream.write(stream_of, text.as_bytes(), 1).expect("the log takes it");
        stream.flush().expect("the log takes it");
    };
    write(OUT, "begin ");
    write(OUT, "middle ");
    write(ERR, "error\n");
    write(OUT, "end\n");
    drop(stream);
    let (text, _) = told(&kept, "1 a", PIPE).expect("it tells");
    let gap = "··· the end may be lost: whoever wrote it was killed ···\n";
    assert_eq!(text, format!("begin middle \nerror\nend\n{gap}"));
    check(&kept, "1 a --grep middle.end", &format!("begin middle end\n{gap}"));
}

#[test]
fn a_build_that_is_followed_is_told_to_its_end() {
    let mut kept = Kept::new();
    kept.build(&["a"]);
    let places = kept.places();
    let claim = places.store.claim(BuildId(1)).expect("the store answers");
    let writer = store::log::LogWriter::open(&log_path(&places.data, BuildId(1))).expect("a log");
    let mut stream = writer.open_stream(StreamKey { attempt: 1, step: 0 }, &Masker::default());
    let mut write = |text: &str| {
        stream.write(OUT, text.as_bytes(), 1).expect("the log takes it");
        stream.flush().expect("the log takes it");
    };
    write("one\ntw");
    let (sender, written) = std::sync::mpsc::channel();
    let calendar = kept.calendar();
    let following = std::thread::spawn(move || {
        tell(&arguments("1 a --follow"), &places, &calendar, PIPE, Sent(sender)).map_err(|stop| stop.message)
    });
    // It may be told of the attempt before or after it looks for the first time.
    kept.go_on(BuildId(1)).lease("a");
    // Each piece is waited for, so that each comes in a pass of its own.
    let mut text = String::new();
    let mut wait_for = |end: &str| {
        while !text.ends_with(end) {
            text.push_str(&written.recv().expect("more is told"));
        }
    };
    wait_for("one\ntw");
    write("o");
    wait_for("two");
    write("\nthree\n");
    wait_for("two\nthree\n");
    stream.close();
    drop(claim);
    let said = following.join().expect("it ends");
    let expected = "build 1 has not ended and no process runs it: ropewalk run --resume 1";
    assert_eq!(said.map(|said| said.note).as_deref(), Ok(expected));
    assert_eq!(written.try_iter().collect::<String>(), "");
}

#[test]
fn a_job_that_is_followed_is_told_to_its_end_though_its_build_goes_on() {
    let mut kept = Kept::new();
    kept.build(&["a", "b"]).lease("a");
    let places = kept.places();
    let _claim = places.store.claim(BuildId(1)).expect("the store answers");
    let writer = store::log::LogWriter::open(&log_path(&places.data, BuildId(1))).expect("a log");
    let mut stream = writer.open_stream(StreamKey { attempt: 1, step: 0 }, &Masker::default());
    stream.write(OUT, b"one\n", 1).expect("the log takes it");
    stream.flush().expect("the log takes it");
    let (sender, written) = std::sync::mpsc::channel();
    let calendar = kept.calendar();
    let following = std::thread::spawn(move || {
        tell(&arguments("1 a --follow"), &places, &calendar, PIPE, Sent(sender)).map_err(|stop| stop.message)
    });
    let mut text = String::new();
    while text != "one\n" {
        text.push_str(&written.recv().expect("more is told"));
    }
    stream.write(OUT, b"two\n", 2).expect("the log takes it");
    stream.close();
    let report = Box::new(AttemptReport::of(Outcome::passed(), Timestamp(1)));
    let (attempt, lease) = (AttemptNumber(1), LeaseId(1));
    kept.go_on(BuildId(1)).fact(What::AttemptFinished { job: "a".into(), attempt, lease, report, retry_at: None });
    assert_eq!(following.join().expect("it ends").map(|said| said.note).as_deref(), Ok(""));
    assert_eq!(written.try_iter().collect::<String>(), "two\n");
}

/// Hands on what is flushed.
struct Sent(std::sync::mpsc::Sender<String>);

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(text).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_cached_job_has_the_log_of_the_build_that_ran_it() {
    let mut kept = kept();
    let mut build = kept.build(&["a", "b"]);
    build.reuse("a", 1, 1);
    let expected = "one\ntwo\nthree\nfour\nfive\n".to_owned();
    let note = "a was cached in build 2: this is its log of build 1".to_owned();
    assert_eq!(told(&kept, "2 a", PIPE), Ok((expected, note)));
    let note = "b has not begun in build 2".to_owned();
    assert_eq!(told(&kept, "2 b", PIPE), Ok((String::new(), note)));
    let note = "build 2 printed nothing, or its log was removed".to_owned();
    assert_eq!(told(&kept, "2", PIPE), Ok((String::new(), note)));
}

#[test]
fn a_log_that_is_gone_is_missed_if_reports_name_lines_of_it() {
    let mut kept = Kept::new();
    let mut build = kept.build(&["a", "b", "c"]);
    build.attempt("a", 1, |report| report.steps[0].lines = 4).attempt("b", 1, |report| report.steps[0].lines = 1);
    build.pass("c", 1).end();
    for (line, expected) in [
        ("1", "the log of build 1 was removed or lost: its 5 lines are not there"),
        ("1 a", "the log of a in build 1 was removed or lost: its 4 lines are not there"),
        ("1 c", "c printed nothing in build 1, or its log was removed"),
    ] {
        assert_eq!(told(&kept, line, PIPE), Ok((String::new(), expected.to_owned())));
    }
}
