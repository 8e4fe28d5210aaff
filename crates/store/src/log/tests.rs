//! Tests of logs at their boundary: what is written through [`LogWriter`] is read through [`LogReader`].

mod batches;
mod damage;
mod masking;
mod round_trip;
mod server;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{
    Item, LineEnd, LineStart, LogReader, LogWriter, Masker, RawPart, Selection, Stream, StreamKey, StreamWriter,
    Summary, Writing,
};

const KEY: StreamKey = StreamKey { attempt: 7, step: 1 };

struct Pack {
    folder: tempfile::TempDir,
}

impl Pack {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("12.log")
    }

    fn writer(&self) -> LogWriter {
        LogWriter::open(&self.path()).unwrap()
    }

    fn stream(&self) -> StreamWriter {
        self.writer().open_stream(KEY, &Masker::none())
    }

    fn reader(&self, writing: Writing) -> LogReader {
        LogReader::open(&self.path(), writing).unwrap()
    }

    /// Writes one step and closes it.
    fn write(&self, work: impl FnOnce(&mut StreamWriter)) -> Summary {
        let mut stream = self.stream();
        work(&mut stream);
        stream.close()
    }

    /// Everything of the step, one row a line.
    fn text(&self, writing: Writing) -> String {
        text(self.reader(writing).lines(KEY, 0..u64::MAX))
    }
}

/// Rows as `number stream@time bytes`, with `+` before a continued row and after an open one.
fn text(items: impl Iterator<Item = Result<Item, super::LogError>>) -> String {
    let mut text = String::new();
    for item in items {
        match item.unwrap() {
            Item::Gap(gap) => {
                let count = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
                let (lines, bytes) = (count(gap.lines), count(gap.bytes));
                writeln!(text, "{} gap {:?} lines={lines} bytes={bytes}", gap.first_line, gap.cause).unwrap();
            }
            Item::Line(line) => {
                let stream = ["out", "err", "note"][line.stream.index()];
                let start = if line.start == LineStart::Continued { "+" } else { "" };
                let end = if line.end == LineEnd::Open { "+" } else { "" };
                let bytes = line.bytes.escape_ascii();
                writeln!(text, "{} {stream}@{} {start}[{bytes}]{end}", line.number, line.time_us).unwrap();
            }
        }
    }
    text
}

/// The raw bytes; gaps must not occur.
fn raw(reader: &LogReader, selection: Selection) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in reader.raw(KEY, selection) {
        match part.unwrap() {
            RawPart::Bytes(part) => bytes.extend_from_slice(&part),
            RawPart::Gap(gap) => panic!("{gap:?}"),
        }
    }
    bytes
}

#[track_caller]
fn check(work: impl FnOnce(&mut StreamWriter), expected: &str) {
    let pack = Pack::new();
    pack.write(work);
    let expected: String =
        expected.lines().map(|line| format!("{}\n", line.trim())).filter(|line| line != "\n").collect();
    assert_eq!(pack.text(Writing::Over), expected);
}

/// Lines of the kind that builds print, about `bytes` of them.
fn build_output(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    let mut number = 0u64;
    while text.len() < bytes {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let line = format!("   Compiling crate-{:03} v1.{}.0 in {} ms\n", number >> 55, number >> 60, number >> 48);
        text.extend_from_slice(line.as_bytes());
    }
    text
}

fn copy_of(pack: &Path, bytes: &[u8]) -> Pack {
    let copy = Pack::new();
    assert_ne!(copy.path(), pack);
    std::fs::write(copy.path(), bytes).unwrap();
    copy
}
