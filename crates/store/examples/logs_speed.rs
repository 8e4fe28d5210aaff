//! How fast the logs of a server are: `logs_speed [MIB]`.
//!
//! A log of so many MiB (1024 unless told) through `Logs::append` in batches of 1 MiB, as a worker sends a flood; small
//! appends one by one, with the durability of a process and of a disk, by one thread and by many; and what a slow step
//! costs, ten lines a second for an hour. Memory is the highest of the process, its batches included.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use graph::BuildId;
use ropewalk_store::Durability;
use ropewalk_store::log::{BATCH_BYTES_MAX, Batch, BatchEnd, LogPlace, Logs, LogsSettings, Sharing, Stream, StreamKey};

const KEY: StreamKey = StreamKey { attempt: 1, step: 0 };
const SLOW_LINES: u64 = 36_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(1024), |mib| mib.parse())?;
    let folder = tempfile::tempdir()?;
    for durability in [Durability::Process, Durability::Power] {
        println!("{durability:?}");
        let logs = open(folder.path(), durability)?;
        flood(&logs, mib)?;
        for threads in [1, 16] {
            small(&logs, threads, 2000)?;
        }
    }
    slow(&open(folder.path(), Durability::Process)?)?;
    Ok(())
}

fn open(folder: &Path, durability: Durability) -> Result<Logs, ropewalk_store::log::LogError> {
    let root = folder.join(format!("{durability:?}"));
    Logs::open(LogsSettings { root, durability, sharing: Sharing::Never })
}

fn line(number: u64) -> String {
    let mixed = number.wrapping_mul(6_364_136_223_846_793_005);
    format!("   Compiling crate-{:03} v1.{}.0 in {} ms\n", mixed >> 55, mixed >> 60, mixed >> 48)
}

fn taken(logs: &Logs, batch: Batch) -> Result<u64, Box<dyn Error>> {
    let receipts = logs.append(std::slice::from_ref(&batch));
    match &receipts[0].end {
        BatchEnd::Taken => Ok(receipts[0].next_byte),
        other => Err(format!("{other:?}").into()),
    }
}

fn flood(logs: &Logs, mib: u64) -> Result<(), Box<dyn Error>> {
    let text: String = (0..)
        .map(line)
        .scan(0, |length, line| {
            *length += line.len();
            (*length < BATCH_BYTES_MAX).then_some(line)
        })
        .collect();
    let (mut next_byte, mut spent, mut bytes) = (0, Duration::ZERO, 0);
    while bytes < mib << 20 {
        let mut batch = Batch::new(BuildId(1), KEY, next_byte);
        batch.push(Stream::Stdout, next_byte, text.as_bytes());
        let begun = Instant::now();
        next_byte = taken(logs, batch)?;
        spent += begun.elapsed();
        bytes += text.len() as u64;
    }
    let begun = Instant::now();
    let ended = logs.end(BuildId(1), LogPlace::Live, |_| Ok(()))?.ok_or("no log")?;
    let rate = bytes as f64 / 1e6 / spent.as_secs_f64();
    println!("  {mib} MiB: {rate:.0} MB/s, end {:?}, pack {} bytes, {}", begun.elapsed(), ended.pack_bytes, memory()?);
    Ok(())
}

fn memory() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown").to_owned())
}

fn small(logs: &Logs, threads: u64, count: u64) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let append = |thread: u64| {
        let (mut next_byte, mut spans) = (0, Vec::new());
        for number in 0..count {
            let key = StreamKey { attempt: threads as u32, step: 0 };
            let mut batch = Batch::new(BuildId(100 + thread), key, next_byte);
            batch.push(Stream::Stdout, number, line(number).as_bytes());
            let begun = Instant::now();
            next_byte = taken(logs, batch).expect("an append");
            spans.push(begun.elapsed());
        }
        spans
    };
    let append = &append;
    let spans = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || append(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect::<Vec<_>>()
    });
    let total = begun.elapsed();
    let mut spans = spans;
    spans.sort_unstable();
    let at = |share: f64| spans[((spans.len() - 1) as f64 * share) as usize].as_micros();
    let rate = spans.len() as f64 / total.as_secs_f64();
    println!("  one line, {threads} threads: p50 {} us, p99 {} us, {rate:.0}/s in all", at(0.5), at(0.99));
    Ok(())
}

fn slow(logs: &Logs) -> Result<(), Box<dyn Error>> {
    let (mut next_byte, begun) = (0, Instant::now());
    for number in 0..SLOW_LINES {
        let mut batch = Batch::new(BuildId(2), KEY, next_byte);
        batch.push(Stream::Stdout, number * 100_000, line(number).as_bytes());
        next_byte = taken(logs, batch)?;
    }
    let spent = begun.elapsed();
    let reader = logs.reader(BuildId(2), LogPlace::Live)?.ok_or("no log")?;
    let live = std::fs::metadata(reader.path())?.len();
    let ended = logs.end(BuildId(2), LogPlace::Live, |_| Ok(()))?.ok_or("no log")?;
    println!(
        "{SLOW_LINES} lines one by one, {next_byte} bytes: pack {live} bytes, at its end {}, {spent:?}",
        ended.pack_bytes
    );
    Ok(())
}
