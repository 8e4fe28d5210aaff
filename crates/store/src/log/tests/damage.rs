//! What is lost is seen, and only that: torn ends, wrong bytes, full disks.

use std::process::Command;

use super::super::{FRAME_BYTES, LogError};
use super::*;

/// Three frames of this step, one of another between them.
fn small_pack() -> Pack {
    let pack = Pack::new();
    let writer = pack.writer();
    let mut log = writer.open_stream(KEY, &Masker::none());
    log.write(Stream::Stdout, b"one\n", 1).unwrap();
    log.flush().unwrap();
    let mut other = writer.open_stream(StreamKey { attempt: 8, step: 0 }, &Masker::none());
    other.write(Stream::Stdout, b"another\n", 1).unwrap();
    other.close();
    log.write(Stream::Stdout, "two ".repeat(100).as_bytes(), 2).unwrap();
    log.flush().unwrap();
    log.write(Stream::Stdout, b"\nthree\n", 3).unwrap();
    log.close();
    pack
}

#[test]
fn torn_at_every_byte() {
    let pack = small_pack();
    let bytes = std::fs::read(pack.path()).unwrap();
    let whole = raw(&pack.reader(Writing::Over), Selection::All);
    for length in 0..bytes.len() {
        let torn = copy_of(&pack.path(), &bytes[..length]);
        let live = raw(&torn.reader(Writing::Going), Selection::All);
        assert!(whole.starts_with(&live), "cut at {length}");
        let reader = torn.reader(Writing::Over);
        let text = text(reader.lines(KEY, 0..u64::MAX));
        let expected = match live.is_empty() && !text.contains("bytes=4") {
            true => text.is_empty(),
            false => text.lines().last().unwrap().contains("gap CutShort"),
        };
        assert!(expected, "cut at {length}: {text}");

        // Going on with it leaves the gap and adds the rest.
        torn.write(|log| log.write(Stream::Stdout, b"again\n", 9).unwrap());
        let resumed = raw(&torn.reader(Writing::Over), Selection::All);
        assert_eq!(resumed, [&live[..], b"again\n"].concat(), "cut at {length}");
    }
}

#[test]
fn a_torn_frame_says_how_much_it_held() {
    let pack = small_pack();
    let bytes = std::fs::read(pack.path()).unwrap();
    let torn = copy_of(&pack.path(), &bytes[..bytes.len() - 1]);
    let text = torn.text(Writing::Over);
    assert_eq!(text.lines().last(), Some("1 gap CutShort lines=1 bytes=7"));
}

#[test]
fn every_wrong_byte_is_a_gap_and_never_an_error_or_a_wrong_line() {
    let pack = small_pack();
    let bytes = std::fs::read(pack.path()).unwrap();
    let whole = pack.text(Writing::Over);
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x10;
        let wrong = copy_of(&pack.path(), &wrong);
        let reader = match LogReader::open(&wrong.path(), Writing::Over) {
            Ok(reader) => reader,
            Err(LogError::NotALog(_) | LogError::Newer(_)) if at < 12 => continue,
            Err(error) => panic!("{error} at {at}"),
        };
        let items =
            text(reader.lines(KEY, 0..u64::MAX)) + &text(reader.lines(StreamKey { attempt: 8, step: 0 }, 0..u64::MAX));
        let shown = items.lines().filter(|line| !line.contains("gap"));
        assert!(shown.clone().all(|line| whole.contains(line) || line == "0 out@1 [another]"), "at {at}: {items}");
        let intact = shown.count() == whole.lines().count() + 1;
        let lost_other = !items.contains("another");
        assert!(intact || lost_other || items.contains("gap"), "at {at}: {items}");
    }
}

#[test]
fn a_damaged_frame_in_the_middle_hides_nothing_else() {
    let pack = Pack::new();
    let output = build_output(3 * FRAME_BYTES);
    pack.write(|log| log.write(Stream::Stdout, &output, 1).unwrap());
    let lines = output.iter().filter(|byte| **byte == b'\n').count();
    let mut bytes = std::fs::read(pack.path()).unwrap();
    let middle = bytes.len() / 2;
    for at in [middle, middle + 1] {
        bytes[at] ^= 0xff;
    }
    std::fs::write(pack.path(), bytes).unwrap();
    let (mut shown, mut lost) = (0, 0);
    for item in pack.reader(Writing::Over).lines(KEY, 0..u64::MAX) {
        match item.unwrap() {
            Item::Line(_) => shown += 1,
            Item::Gap(gap) => lost += usize::try_from(gap.lines.unwrap()).unwrap(),
        }
    }
    assert!(lost > 0 && shown > lines / 2);
    assert_eq!(shown + lost, lines);
}

#[test]
fn what_a_step_prints_is_never_taken_for_a_frame() {
    let pack = small_pack();
    let frames = std::fs::read(pack.path()).unwrap()[16..].to_vec();
    let forged = Pack::new();
    forged.write(|log| log.write(Stream::Stdout, &frames[..150], 1).unwrap());
    let mut bytes = std::fs::read(forged.path()).unwrap();
    bytes[20] ^= 1;
    let forged = copy_of(&forged.path(), &bytes);
    assert_eq!(forged.reader(Writing::Over).streams().count(), 0);
}

#[test]
fn other_files_and_newer_formats_are_refused() {
    let refused =
        |bytes: &[u8]| LogReader::open(&copy_of(std::path::Path::new(""), bytes).path(), Writing::Over).unwrap_err();
    assert!(matches!(refused(b"#!/bin/sh\nthis is no log\n"), LogError::NotALog(_)));
    assert!(matches!(refused(b"no"), LogError::NotALog(_)));
    assert!(matches!(refused(b"RWLOGPAK\x02\0\0\0\0\0\0\0"), LogError::Newer(2)));
    let script = copy_of(std::path::Path::new(""), b"#!/bin/sh\nthis is no log\n");
    assert!(matches!(LogWriter::open(&script.path()), Err(LogError::NotALog(_))));
    assert_eq!(std::fs::read(script.path()).unwrap().len(), 25, "it is left as it was");
}

#[test]
fn dropped_without_close_keeps_the_output_and_says_so() {
    let pack = Pack::new();
    let mut log = pack.stream();
    log.write(Stream::Stderr, b"half", 1).unwrap();
    drop(log);
    assert_eq!(pack.text(Writing::Over), "0 err@1 [half]+\n1 gap CutShort lines=? bytes=?\n");
    assert_eq!(pack.text(Writing::Going), "0 err@1 [half]+\n");
}

const FULL_DISK_FOLDER: &str = "ROPEWALK_TEST_FULL_DISK";

/// Runs itself again under a limit of the file size, which the kernel answers as it answers a full disk.
#[test]
fn a_full_disk_is_told_once_and_blocks_nobody() {
    if let Some(folder) = std::env::var_os(FULL_DISK_FOLDER) {
        return write_more_than_fits(Path::new(&folder));
    }
    let pack = Pack::new();
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -f 1024; trap "" XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "log::tests::damage::a_full_disk_is_told_once_and_blocks_nobody", "--nocapture"])
        .env(FULL_DISK_FOLDER, pack.folder.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    let (mut kept, mut lost) = (0, 0);
    for part in pack.reader(Writing::Over).raw(KEY, Selection::All) {
        match part.unwrap() {
            RawPart::Bytes(bytes) => kept += bytes.len() as u64,
            RawPart::Gap(gap) => lost += gap.bytes.unwrap(),
        }
    }
    assert!(kept > FRAME_BYTES as u64, "what fitted is there");
    assert_eq!(kept + lost, 20 * 1024 * 1024, "what did not is counted");
}

fn write_more_than_fits(folder: &Path) {
    let writer = LogWriter::open(&folder.join("12.log")).unwrap();
    let mut log = writer.open_stream(KEY, &Masker::none());
    let mut noise = vec![0; 1024 * 1024];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let mut failures = Vec::new();
    for _ in 0..20 {
        failures.extend(log.write(Stream::Stdout, &noise, 1).err());
        failures.extend(log.flush().err());
    }
    let summary = log.close();
    assert!(matches!(failures[..], [LogError::Full(_)]), "{failures:?}");
    assert!(matches!(summary.failure, Some(LogError::Full(_))));
    assert_eq!(summary.bytes_stdout, 20 * 1024 * 1024);
}
