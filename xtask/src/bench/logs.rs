//! A step that prints 1 GiB, against `zstd -1` on the same bytes; and reading ranges of it back.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::{median, repository, time_ms};
use super::{Bench, Row};

/// How long the log is.
pub const BYTES: usize = 1 << 30;

/// Text such as compilers and test runners print, of exactly so many bytes.
pub fn write_text(path: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = String::new();
    let words = ["Compiling", "Checking", "Finished", "warning: unused", "test result: ok", "Running", "Downloaded"];
    while block.len() < 16 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = words[usize::try_from(state % 7).unwrap_or(0)];
        let _ = writeln!(
            block,
            "   {word} crate-{} v{}.{}.{} (/build/src/{:x})",
            state % 997,
            state % 5,
            state % 31,
            state % 17,
            state >> 40
        );
    }
    let mut left = bytes;
    while left > 0 {
        let taken = left.min(block.len());
        file.write_all(&block.as_bytes()[..taken])?;
        left -= taken;
    }
    file.flush()
}

/// The measurement.
pub fn logs(bench: &Bench) -> Result<Vec<Row>, String> {
    let text = bench.folder.join("text");
    write_text(&text, BYTES).map_err(|error| error.to_string())?;
    let folder = bench.folder.join("repository");
    let pipeline = format!(
        "defaults: {{ environment: host, workspace: in_place }}\njobs:\n  print: {{ run: \"cat {}\" }}\n",
        text.display()
    );
    repository(&folder, &[(".ropewalk/pipeline.yaml", pipeline)])?;
    let data = bench.folder.join("data");
    let ropewalk = |arguments: &[&str]| {
        let mut command = Command::new(&bench.ropewalk);
        command.args(arguments).current_dir(&folder).env("ROPEWALK_DATA", &data);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), 0_u64);
    for round in 0..=bench.rounds.min(3) {
        let _ = std::fs::remove_dir_all(&data);
        let started = Instant::now();
        let mut child = ropewalk(&["run", "--output", "quiet"]).spawn().map_err(|error| error.to_string())?;
        while child.try_wait().map_err(|error| error.to_string())?.is_none() {
            peak = peak.max(peak_kib(child.id()));
            std::thread::sleep(Duration::from_millis(5));
        }
        let our_ms = started.elapsed().as_secs_f64() * 1000.0;
        let their_ms = time_ms(
            Command::new("zstd")
                .args(["-1", "-q", "-f", "-T1"])
                .arg(&text)
                .arg("-o")
                .arg(bench.folder.join("text.zst")),
        )?;
        if round > 0 {
            ours.push(our_ms);
            theirs.push(their_ms);
        }
    }
    let speed = |ms: f64| BYTES as f64 / 1000.0 / ms;
    let mut rows = vec![
        Row::at_least(
            "1 GiB printed and recorded",
            "zstd -1 on the same bytes",
            speed(median(&mut ours)),
            speed(median(&mut theirs)),
            "MB/s",
            0.5,
        ),
        Row::at_most("memory of ropewalk meanwhile", "64 MiB", peak as f64 / 1024.0, 64.0, "MiB", 1.0),
    ];
    let mut reads = Vec::new();
    for index in 0..20_u64 {
        let from = 1 + index * 777_777;
        let range = format!("{from}-{}", from + 99);
        reads.push(time_ms(&mut ropewalk(&["logs", "last", "print", "--lines", &range]))?);
    }
    rows.push(Row::at_most("100 lines of it read back", "10 ms", median(&mut reads), 10.0, "ms", 1.0));
    Ok(rows)
}

/// The largest resident set so far of a process, in KiB; zero if it is gone.
pub fn peak_kib(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0)
}
