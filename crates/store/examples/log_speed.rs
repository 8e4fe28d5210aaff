//! Measures how fast logs are written and read, against `zstd -1` on the same bytes in the same process.
//!
//! `cargo run --release -p ropewalk-store --example log_speed [MiB [ROUNDS]]`; medians of the rounds, which alternate.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use regex::bytes::Regex;
use ropewalk_store::log::{
    Item, LogReader, LogWriter, Masker, RawPart, Selection, Stream, StreamKey, StreamWriter, Writing,
};

const CHUNKS: [usize; 3] = [64 * 1024, 256 * 1024, 1024 * 1024];
const KEY: StreamKey = StreamKey { attempt: 1, step: 0 };
const JOBS: u32 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let text = build_output(64 * 1024 * 1024);
    let repeats = mib.div_ceil(64);
    let bytes = text.len() * repeats;
    println!("{} MiB of build output, {rounds} rounds", bytes >> 20);

    let secrets = [
        "correct-horse-battery-staple",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "-----BEGIN\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\n-----END",
    ];
    let masker = Masker::new(secrets)?;
    let names = ["zstd -1", "write 64 KiB", "write 256 KiB", "write 1 MiB", "write 64 KiB, 3 secrets"];
    let mut times = vec![Vec::new(); names.len()];
    let mut stored = 0;
    for _ in 0..rounds {
        times[0].push(zstd_alone(&text, repeats, &folder.path().join("alone"))?);
        for (index, chunk) in CHUNKS.into_iter().enumerate() {
            times[index + 1].push(write(&folder.path().join("one.log"), &text, repeats, chunk, &Masker::none())?);
        }
        times[4].push(write(&folder.path().join("one.log"), &text, repeats, CHUNKS[0], &masker)?);
        stored = fs::metadata(folder.path().join("one.log"))?.len();
    }
    let base = median(&mut times[0]);
    for (name, times) in names.iter().zip(&mut times) {
        report(name, bytes, median(times), base);
    }
    println!("stored {:.1} %", stored as f64 * 100.0 / bytes as f64);
    read(&folder.path().join("one.log"), bytes)?;
    tiny(&folder.path().join("tiny.log"))?;
    println!("peak memory of all: {}", peak_memory());
    Ok(())
}

/// One context, frames of 256 KiB, to a file: what the log does without lines, order, times, sums.
fn zstd_alone(text: &[u8], repeats: usize, path: &Path) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut file = fs::File::create(path)?;
    let mut context = zstd::bulk::Compressor::new(1)?;
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(256 * 1024));
    let start = Instant::now();
    for _ in 0..repeats {
        for frame in text.chunks(256 * 1024) {
            context.compress_to_buffer(frame, &mut out)?;
            file.write_all(&out)?;
        }
    }
    let elapsed = start.elapsed();
    fs::remove_file(path)?;
    Ok(elapsed)
}

fn write(
    path: &Path,
    text: &[u8],
    repeats: usize,
    chunk: usize,
    masker: &Masker,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let _ = fs::remove_file(path);
    let start = Instant::now();
    let writer = LogWriter::open(path)?;
    let mut log: StreamWriter = writer.open_stream(KEY, masker);
    let mut time_us = 0;
    for _ in 0..repeats {
        for chunk in text.chunks(chunk) {
            time_us += 100;
            log.write(Stream::Stdout, chunk, time_us)?;
        }
    }
    log.close();
    drop(writer);
    Ok(start.elapsed())
}

fn read(path: &Path, bytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut raw = 0;
    let mut gaps = 0;
    for part in LogReader::open(path, Writing::Over)?.raw(KEY, Selection::All) {
        match part? {
            RawPart::Bytes(part) => raw += part.len(),
            RawPart::Gap(_) => gaps += 1,
        }
    }
    let elapsed = start.elapsed();
    report("read raw", bytes, elapsed, elapsed);
    assert!(gaps == 0 && raw == bytes, "everything is read back");

    let start = Instant::now();
    let reader = LogReader::open(path, Writing::Over)?;
    println!("open: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    let lines = reader.stream(KEY).map_or(0, |stream| stream.lines);
    let start = Instant::now();
    let read = reader.lines(KEY, 0..u64::MAX).filter(|item| matches!(item, Ok(Item::Line(_)))).count();
    report(&format!("read {read} lines"), bytes, start.elapsed(), start.elapsed());

    let mut ranges = Vec::new();
    for index in 0..200 {
        let from = (lines - 100) / 199 * index;
        let start = Instant::now();
        let reader = LogReader::open(path, Writing::Over)?;
        assert_eq!(reader.lines(KEY, from..from + 100).count(), 100, "100 lines are there");
        ranges.push(start.elapsed());
    }
    ranges.sort_unstable();
    println!("open and read 100 lines: p50 {:?}, worst {:?}", ranges[100], ranges[199]);

    for pattern in ["error", r"(?i)\b(error|failed):"] {
        let start = Instant::now();
        let hits = reader.search(KEY, &Regex::new(pattern)?, 0, 100)?.hits.len();
        report(&format!("search {pattern}, {hits} hits"), bytes, start.elapsed(), start.elapsed());
    }
    Ok(())
}

/// As many steps that print one line each.
fn tiny(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let writer = LogWriter::open(path)?;
    for attempt in 0..JOBS {
        let mut log = writer.open_stream(StreamKey { attempt, step: 0 }, &Masker::none());
        log.write(Stream::Stdout, b"ok: one line of a small job\n", 1)?;
        log.close();
    }
    drop(writer);
    println!("{JOBS} jobs of one line: {:?} each", start.elapsed() / JOBS);
    let start = Instant::now();
    let count = LogReader::open(path, Writing::Over)?.streams().count();
    println!("open their log ({count} streams): {:?}", start.elapsed());
    Ok(())
}

fn report(name: &str, bytes: usize, time: Duration, base: Duration) {
    let speed = bytes as f64 / time.as_secs_f64() / 1e6;
    println!("{name:40} {speed:7.0} MB/s  {:.2}", base.as_secs_f64() / time.as_secs_f64());
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("unknown").to_owned()
}

/// Lines of compilers, tests and downloads with changing names and numbers.
fn build_output(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 200);
    let mut state = 1u64;
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (a, b, c) = (state & 0xfff, (state >> 12) & 0xff, (state >> 20) & 0xf_ffff);
        let written = match state >> 61 {
            0 | 1 => writeln!(text, "   Compiling package-{b:x} v{}.{}.{} (registry)", a & 3, a & 31, b),
            2 | 3 => writeln!(text, "test module_{b}::case_{a} ... ok ({}.{:03} ms)", a & 63, c & 511),
            4 => writeln!(
                text,
                "2026-11-21T04:{:02}:{:02}.{c:06}Z INFO request id={state:016x} took {a} us",
                b & 31,
                a & 31
            ),
            5 => writeln!(
                text,
                "Downloading https://registry.example/files/{b:02x}/{c:05x}/archive-{a}.tar.gz ({c} bytes)"
            ),
            6 => writeln!(
                text,
                "src/module_{b}/file_{a}.c:{}:{}: warning: unused variable `value_{b}`",
                c & 1023,
                a & 63
            ),
            _ => writeln!(text, "[{a:4}/4096] cc -O2 -Wall -c -o out/obj_{c:05x}.o src/module_{b}/file_{a}.c"),
        };
        written.expect("writing to memory succeeds");
    }
    text
}
