//! The logs of a server at their boundary: [`Logs`].

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use graph::{BuildId, Digest};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::blob::{Blobs, MemoryBlobs};
use crate::chunk::LogChunks;
use crate::log::{
    Batch, BatchEnd, LogPlace, Logs, LogsSettings, PACKS_OPEN_MAX, Receipt, SharedLogs, Sharing, StepEnd, WATCHERS_MAX,
};
use crate::{Durability, MemoryStore};

const BUILD: BuildId = BuildId(12);

/// A folder, and what servers share if they do.
struct Place {
    folder: tempfile::TempDir,
    durability: Durability,
    shared: Option<SharedLogs>,
    /// Of [`BUILD`].
    recorded: Arc<Mutex<Option<Digest>>>,
}

impl Place {
    fn alone(durability: Durability) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), durability, shared: None, recorded: Arc::default() }
    }

    /// Two servers that share storage, each with its folder.
    fn pair() -> [Self; 2] {
        let chunks: Arc<dyn LogChunks> = Arc::new(MemoryStore::default());
        let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::default());
        let recorded = Arc::new(Mutex::new(None));
        let read = Arc::clone(&recorded);
        let shared = SharedLogs { chunks, blobs, recorded: Arc::new(move |_| Ok(*read.lock().unwrap())) };
        [0, 1].map(|_| Self {
            shared: Some(shared.clone()),
            recorded: Arc::clone(&recorded),
            ..Self::alone(Durability::Process)
        })
    }

    fn open(&self) -> Logs {
        self.open_with(self.shared.clone().map_or(Sharing::Never, Sharing::Now))
    }

    /// Once logs are not shared any more.
    fn open_alone(&self) -> Logs {
        self.open_with(Sharing::Before(self.shared().clone()))
    }

    fn open_with(&self, sharing: Sharing) -> Logs {
        let root = self.folder.path().join("logs");
        Logs::open(LogsSettings { root, durability: self.durability, sharing }).unwrap()
    }

    fn shared(&self) -> &SharedLogs {
        self.shared.as_ref().unwrap()
    }
}

/// Runs the check on logs of each kind.
fn check(test: impl Fn(&Place)) {
    test(&Place::alone(Durability::Process));
    test(&Place::alone(Durability::Power));
    test(&Place::pair()[0]);
}

fn batch(first_byte: u64, text: &str) -> Batch {
    let mut batch = Batch::new(BUILD, KEY, first_byte);
    batch.push(Stream::Stdout, 1, text.as_bytes());
    batch
}

fn of(build: u64, batch: Batch) -> Batch {
    let mut batch = batch;
    batch.build = BuildId(build);
    batch
}

fn closed(mut batch: Batch) -> Batch {
    batch.end = Some(StepEnd::Closed);
    batch
}

/// What became of it, and the next byte.
fn answer(logs: &Logs, batch: Batch) -> String {
    let [Receipt { next_byte, end, .. }] = logs.append(&[batch]).try_into().unwrap();
    match end {
        BatchEnd::Failed(error) => panic!("{error}"),
        end => format!("{end:?} {next_byte}"),
    }
}

fn lines(logs: &Logs, place: LogPlace) -> String {
    logs.reader(BUILD, place).unwrap().map_or("none".to_owned(), |reader| text(reader.lines(KEY, 0..u64::MAX)))
}

#[test]
fn repeats_are_cut_and_gaps_refused() {
    check(|place| {
        let logs = place.open();
        assert_eq!(answer(&logs, batch(0, "one\n")), "Taken 4");
        assert_eq!(answer(&logs, batch(0, "one\n")), "Taken 4");
        assert_eq!(answer(&logs, batch(2, "e\ntwo\n")), "Taken 8");
        assert_eq!(answer(&logs, batch(9, "four\n")), "Gap 8");
        assert_eq!(answer(&logs, batch(8, "three\n")), "Taken 14");
        assert_eq!(lines(&logs, LogPlace::Live), "0 out@1 [one]\n1 out@1 [two]\n2 out@1 [three]\n");
    });
}

#[test]
fn a_frame_that_is_told_in_parts_is_read_once() {
    let place = Place::alone(Durability::Process);
    let logs = place.open();
    let rows: String = (0..5000).map(|row| format!("this is row {row}\n")).collect();
    answer(&logs, closed(batch(0, &rows)));
    let read = |logs: &Logs, rows: std::ops::Range<u64>| {
        let reader = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
        text(reader.lines(KEY, rows).take(3))
    };
    let begun = read(&logs, 0..512);
    assert!(begun.starts_with("0 out@1 [this is row 0]\n"), "{begun}");
    // From here on it is not there to be read, and what remains of it is told all the same.
    let path = place.folder.path().join("logs/0c/12.log");
    let mut pack = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (mut bytes, half) = (Vec::new(), std::fs::metadata(&path).unwrap().len() / 2);
    std::io::Read::read_to_end(&mut pack, &mut bytes).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&pack, b"xxxx", half).unwrap();
    let rest = read(&logs, 512..1024);
    assert!(rest.starts_with("512 out@1 [this is row 512]\n"), "{rest}");
    // Who begins anew reads the file.
    let anew = read(&place.open(), 512..1024);
    assert!(anew.contains("gap"), "{anew}");
    // What another pack has at the same place is not taken for it.
    std::os::unix::fs::FileExt::write_all_at(&pack, &bytes, 0).unwrap();
    logs.delete(BUILD).unwrap();
    answer(&logs, closed(batch(0, &rows.replace("row", "ROW"))));
    assert!(read(&logs, 0..512).starts_with("0 out@1 [this is ROW 0]\n"));
}

#[test]
fn a_closed_step_takes_no_more() {
    check(|place| {
        let logs = place.open();
        assert_eq!(answer(&logs, closed(batch(0, "one\n"))), "Taken 4");
        assert_eq!(answer(&logs, closed(batch(0, "one\n"))), "Taken 4");
        assert_eq!(answer(&logs, batch(4, "late\n")), "AfterEnd 4");
        let logs = {
            drop(logs);
            place.open()
        };
        assert_eq!(answer(&logs, batch(4, "late\n")), "AfterEnd 4");
    });
}

#[test]
fn what_a_worker_lost_is_a_gap_in_its_place() {
    check(|place| {
        let logs = place.open();
        answer(&logs, batch(0, "one\n"));
        let mut after = closed(batch(104, "two\n"));
        after.lost_lines = Some(10);
        assert_eq!(answer(&logs, after.clone()), "Taken 108");
        assert_eq!(answer(&logs, after), "Taken 108");
        let text = lines(&logs, LogPlace::Live);
        assert!(text.contains("100") && text.ends_with("11 out@1 [two]\n"), "{text}");
    });
}

#[test]
fn a_gap_of_which_no_lines_are_known_is_told_right_before_what_follows() {
    check(|place| {
        let logs = place.open();
        let lost = |first_byte, text| {
            let mut batch = batch(first_byte, text);
            batch.lost_lines = Some(0);
            batch
        };
        assert_eq!(answer(&logs, lost(14, "one\n")), "Taken 18");
        assert_eq!(answer(&logs, lost(30, "two\n")), "Taken 34");
        answer(&logs, closed(batch(34, "")));
        for _ in 0..2 {
            let reader = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
            let (first, second) =
                ("0 gap Missing lines=0 bytes=14\n0 out@1 [one]\n", "1 gap Missing lines=0 bytes=12\n1 out@1 [two]\n");
            assert_eq!(text(reader.lines(KEY, 0..u64::MAX)), format!("{first}{second}"));
            // Told by parts, each gap is in one of them.
            assert_eq!(
                (text(reader.lines(KEY, 0..1)), text(reader.lines(KEY, 1..2))),
                (first.to_owned(), second.to_owned())
            );
            assert_eq!(text(reader.lines(KEY, 2..u64::MAX)), "");
            assert_eq!(reader.stream(KEY).unwrap().first_time_us, 1);
            let raw = reader.raw(KEY, Selection::All).map(|part| match part.unwrap() {
                RawPart::Bytes(bytes) => bytes.len() as u64,
                RawPart::Gap(gap) => gap.bytes.unwrap(),
            });
            assert_eq!(raw.collect::<Vec<_>>(), [14, 4, 12, 4]);
            // And they stay when small frames are joined.
            crate::log::merge::merge(reader.path(), &Arc::default(), Durability::Process).unwrap();
        }
    });
}

#[test]
fn a_line_goes_on_after_a_restart() {
    check(|place| {
        answer(&place.open(), batch(0, "half "));
        answer(&place.open(), batch(5, "a line\nnext"));
        let logs = place.open();
        answer(&logs, closed(batch(16, " line\n")));
        let reader = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
        assert_eq!(reader.stream(KEY).unwrap().lines, 2);
    });
}

#[test]
fn one_call_may_hold_many_builds_and_one_bad_batch() {
    check(|place| {
        let logs = place.open();
        let batches: Vec<Batch> = (0..20).map(|index| of(index, batch(u64::from(index == 7), "text\n"))).collect();
        let receipts = logs.append(&batches);
        for (batch, receipt) in batches.iter().zip(receipts) {
            assert_eq!(receipt.build, batch.build);
            let expected = if batch.build.0 == 7 { "Gap" } else { "Taken" };
            assert_eq!(format!("{:?}", receipt.end), expected);
        }
    });
}

#[test]
fn more_builds_than_packs_are_open() {
    let place = Place::alone(Durability::Process);
    let logs = place.open();
    for round in 0..2u64 {
        for build in 0..PACKS_OPEN_MAX as u64 + 10 {
            let verdict = logs.append(&[of(build, batch(round * 5, "text\n"))]);
            assert_eq!(verdict[0].next_byte, round * 5 + 5);
        }
    }
}

#[test]
fn watchers_are_told_of_appends_the_end_and_deletion() {
    check(|place| {
        let logs = place.open();
        let (sender, told) = mpsc::channel();
        let watch = logs.watch(BUILD, move || sender.send(()).unwrap()).unwrap();
        answer(&logs, batch(0, "one\n"));
        assert_eq!(told.try_iter().count(), 1);
        let other = logs.append(&[of(1, batch(0, "other\n"))]);
        assert_eq!(other[0].next_byte, 6);
        assert_eq!(told.try_iter().count(), 0);
        logs.end(BUILD, LogPlace::Live, |_| Ok(())).unwrap();
        logs.delete(BUILD).unwrap();
        assert_eq!(told.try_iter().count(), 2);
        drop(watch);
        assert!(told.recv().is_err(), "the callback is gone");
    });
}

#[test]
fn the_end_of_a_log_makes_the_folder_of_the_next() {
    check(|place| {
        let logs = place.open();
        answer(&logs, batch(0, "one\n"));
        let folder = |build: u64| place.folder.path().join(format!("logs/{build:02x}"));
        assert!(folder(BUILD.0).is_dir() && !folder(BUILD.0 + 1).exists());
        logs.end(BUILD, LogPlace::Live, |_| Ok(())).unwrap();
        assert!(folder(BUILD.0 + 1).is_dir());
        // That it is there already is no fault, nor that there is no next build.
        logs.end(BUILD, LogPlace::Ended, |_| Ok(())).unwrap();
        assert!(logs.end(BuildId(u64::MAX), LogPlace::Live, |_| Ok(())).unwrap().is_none());
    });
}

#[test]
fn watchers_have_a_bound() {
    let logs = Place::alone(Durability::Process).open();
    let watches: Vec<_> = (0..WATCHERS_MAX).map(|_| logs.watch(BUILD, || {}).unwrap()).collect();
    assert!(logs.watch(BUILD, || {}).is_err());
    drop(watches);
    assert!(logs.watch(BUILD, || {}).is_ok());
}

#[test]
fn a_deleted_log_is_gone_for_good() {
    check(|place| {
        let logs = place.open();
        answer(&logs, batch(0, "one\n"));
        logs.delete(BUILD).unwrap();
        assert_eq!(lines(&logs, LogPlace::Live), "none");
        drop(logs);
        assert_eq!(lines(&place.open(), LogPlace::Live), "none");
    });
}

/// Line by line, as a follower wants it: the pack must not become much larger than its content for that.
#[test]
fn a_slow_log_is_joined_while_it_runs_and_at_its_end() {
    let place = Place::alone(Durability::Process);
    let logs = place.open();
    let mut follower = None;
    let (mut next_byte, mut expected) = (0, String::new());
    for index in 0..3000u64 {
        let line = format!("line {index} of what a slow step prints\n");
        let mut batch = Batch::new(BUILD, KEY, next_byte);
        batch.push(if index % 7 == 0 { Stream::Stderr } else { Stream::Stdout }, index, line.as_bytes());
        assert_eq!(answer(&logs, batch), format!("Taken {}", next_byte + line.len() as u64));
        next_byte += line.len() as u64;
        expected += &line;
        if index == 0 {
            follower = logs.reader(BUILD, LogPlace::Live).unwrap();
        }
    }
    let mut follower = follower.unwrap();
    follower.refresh().unwrap();
    assert_eq!(String::from_utf8(raw(&follower, Selection::All)).unwrap(), expected);
    let before = text(follower.lines(KEY, 0..u64::MAX));
    let live_bytes = std::fs::metadata(follower.path()).unwrap().len();
    let ended = logs.end(BUILD, LogPlace::Live, |_| Ok(())).unwrap().unwrap();
    assert!(live_bytes < next_byte * 2, "{live_bytes} for {next_byte}");
    assert!(ended.pack_bytes < next_byte / 3, "{} for {next_byte}", ended.pack_bytes);
    follower.refresh().unwrap();
    assert_eq!(text(follower.lines(KEY, 0..u64::MAX)), before);
}

/// The journal holds what the packs lost with the power.
#[test]
fn power_loss_takes_nothing_that_was_acknowledged() {
    let place = Place::alone(Durability::Power);
    let logs = place.open();
    answer(&logs, batch(0, "one\n"));
    answer(&logs, batch(4, "two\n"));
    let path = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap().path().to_owned();
    drop(logs);
    let whole = std::fs::read(&path).unwrap();
    for left in [0, 10, 16, 50, whole.len() - 1] {
        std::fs::write(&path, &whole[..left]).unwrap();
        let journal = place.folder.path().join("logs/journal");
        let kept: Vec<_> = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path()).collect();
        let bytes: Vec<u8> = kept.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(lines(&place.open(), LogPlace::Live), "0 out@1 [one]\n1 out@1 [two]\n");
        // For the next round the journal is again what it was.
        for entry in std::fs::read_dir(&journal).unwrap() {
            std::fs::write(entry.unwrap().path(), &bytes).unwrap();
        }
    }
}

#[test]
fn another_server_goes_on_where_one_died() {
    let [one, other] = Place::pair();
    let (first, second) = (one.open(), other.open());
    answer(&first, batch(0, "one\n"));
    assert_eq!(answer(&second, batch(4, "two\n")), "Taken 8");
    assert_eq!(answer(&first, batch(8, "three\n")), "Taken 14");
    let expected = "0 out@1 [one]\n1 out@1 [two]\n2 out@1 [three]\n";
    assert_eq!(lines(&first, LogPlace::Live), expected);
    assert_eq!(lines(&second, LogPlace::Live), expected);
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let _watch = first
        .watch(BUILD, move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    first.refresh(BUILD).unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 0, "nothing new");
    answer(&second, batch(14, "four\n"));
    first.refresh(BUILD).unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn an_ended_log_is_a_blob_for_every_server() {
    let [one, other] = Place::pair();
    let (first, second) = (one.open(), other.open());
    answer(&first, batch(0, "one\n"));
    assert_eq!(lines(&second, LogPlace::Live), "0 out@1 [one]\n");
    answer(&first, closed(batch(4, "two\n")));
    let mut recorded = None;
    let ended = first.end(BUILD, LogPlace::Live, |digest| keep(&mut recorded, digest)).unwrap().unwrap();
    assert_eq!(ended.digest, recorded);
    assert!(one.shared().chunks.log_chunks(BUILD, 0, 9).unwrap().is_empty());
    let place = LogPlace::Stored(recorded.unwrap());
    for logs in [&first, &second, &other.open()] {
        assert_eq!(lines(logs, place), "0 out@1 [one]\n1 out@1 [two]\n");
        assert_eq!(logs.end(BUILD, place, |_| panic!("recorded already")).unwrap(), Some(ended));
    }
    assert_eq!(first.trim(0).unwrap(), 0);
    assert_eq!(lines(&first, place), "0 out@1 [one]\n1 out@1 [two]\n", "fetched again");
    assert_eq!(lines(&first, LogPlace::Stored(Digest([9; 32]))), "none");
}

#[test]
fn what_was_shared_is_read_when_it_is_shared_no_more() {
    for durability in [Durability::Process, Durability::Power] {
        let [one, mut other] = Place::pair();
        other.durability = durability;
        let logs = one.open();
        answer(&logs, closed(batch(0, "ended\n")));
        let mut recorded = None;
        logs.end(BUILD, LogPlace::Live, |digest| keep(&mut recorded, digest)).unwrap();
        let stored = LogPlace::Stored(recorded.unwrap());
        let batches = [of(13, batch(0, "begun ")), of(14, closed(batch(0, "over, and not recorded\n")))];
        assert_eq!(logs.append(&batches).len(), 2);
        drop(logs);
        // With a folder in which nothing of it is.
        let read = |logs: &Logs, build, place| {
            logs.reader(BuildId(build), place)
                .unwrap()
                .map_or("none".to_owned(), |reader| text(reader.lines(KEY, 0..u64::MAX)))
        };
        let logs = other.open_alone();
        assert_eq!(read(&logs, BUILD.0, stored), "0 out@1 [ended]\n");
        assert_eq!(read(&logs, 14, LogPlace::Ended), "0 out@1 [over, and not recorded]\n");
        // What goes on is kept here, behind what was shared.
        assert_eq!(logs.append(&[of(13, batch(6, "and going"))])[0].next_byte, 15);
        assert_eq!(one.shared().chunks.log_chunks(BuildId(13), 0, 9).unwrap().len(), 1);
        // A server that still shares has put more there.
        assert_eq!(one.open().append(&[of(15, batch(0, "one\n"))])[0].next_byte, 4);
        assert_eq!(read(&logs, 15, LogPlace::Live), "0 out@1 [one]\n");
        assert_eq!(one.open().append(&[of(15, batch(4, "two\n"))])[0].next_byte, 8);
        assert_eq!(logs.append(&[of(15, batch(8, "three\n"))])[0].next_byte, 14);
        drop(logs);
        let logs = other.open_alone();
        assert_eq!(logs.append(&[of(13, closed(batch(15, " on\n")))])[0].next_byte, 19);
        logs.end(BuildId(13), LogPlace::Live, |_| panic!("it stays here")).unwrap();
        assert_eq!(read(&logs, 13, LogPlace::Ended), "0 out@1 [begun ]+\n0 out@1 +[and going]+\n0 out@1 +[ on]\n");
        assert_eq!(read(&logs, 15, LogPlace::Live), "0 out@1 [one]\n1 out@1 [two]\n2 out@1 [three]\n");
        // And when it is shared again, all of it comes to where others see it.
        drop(logs);
        let (logs, mut recorded) = (other.open(), None);
        logs.end(BuildId(13), LogPlace::Ended, |digest| keep(&mut recorded, digest)).unwrap();
        let expected = read(&logs, 13, LogPlace::Stored(recorded.unwrap()));
        assert_eq!(read(&one.open(), 13, LogPlace::Stored(recorded.unwrap())), expected);
        assert!(expected.ends_with("[ on]\n"), "{expected}");
    }
}

/// A job of a build that had ended is retried: its lines join those that stand in the blob, wherever they are read, and whichever server
/// ends it again.
#[test]
fn a_log_that_was_stored_goes_on_when_its_build_runs_again() {
    let again = StreamKey { attempt: 8, step: 0 };
    let both = |logs: &Logs, place| {
        let reader = logs.reader(BUILD, place).unwrap().unwrap();
        text(reader.lines(KEY, 0..u64::MAX)) + &text(reader.lines(again, 0..u64::MAX))
    };
    let retried = |first_byte, text| {
        let mut batch = batch(first_byte, text);
        batch.key = again;
        batch
    };
    let first = "0 out@1 [one]\n1 out@1 [two]\n";
    let all = format!("{first}0 out@1 [three]\n1 out@1 [four]\n");
    for ends in 0..2 {
        let places = Place::pair();
        let (logs, other) = (places[0].open(), places[1].open());
        answer(&logs, batch(0, "one\n"));
        answer(&logs, closed(batch(4, "two\n")));
        // The other server has seen more chunks than there will be once they are numbered anew.
        assert_eq!(lines(&other, LogPlace::Live), first);
        let mut recorded = None;
        logs.end(BUILD, LogPlace::Ended, |digest| keep(&mut recorded, digest)).unwrap();
        let before = recorded.unwrap();
        assert_eq!(both(&logs, LogPlace::Stored(before)), first);

        let growing = LogPlace::Reopened(before);
        let mut follower = logs.reader(BUILD, growing).unwrap().unwrap();
        assert_eq!(answer(&logs, retried(0, "three\n")), "Taken 6");
        follower.refresh().unwrap();
        assert_eq!(text(follower.lines(again, 0..u64::MAX)), "0 out@1 [three]\n");
        assert_eq!(raw(&follower, Selection::All), b"one\ntwo\n");
        for logs in [&logs, &other, &logs] {
            assert_eq!(both(logs, growing), format!("{first}0 out@1 [three]\n"), "{ends}");
        }
        drop(logs);
        // Nothing is read before it goes on, and it may go on at the other.
        let logs = places[0].open();
        assert_eq!(answer([&logs, &other][ends], closed(retried(6, "four\n"))), "Taken 11");
        for logs in [&logs, &other] {
            assert_eq!(both(logs, growing), all, "{ends}");
            // It has ended, and is not stored again yet.
            assert_eq!(both(logs, LogPlace::Stored(before)), all, "{ends}");
        }
        drop(logs);
        let logs = [&places[0].open(), &other][ends].clone();
        logs.end(BUILD, LogPlace::Stored(before), |_| Err(refusal())).unwrap_err();
        assert_eq!(both(&logs, LogPlace::Stored(before)), all, "{ends}");
        let ended = logs.end(BUILD, LogPlace::Stored(before), |digest| keep(&mut recorded, digest)).unwrap().unwrap();
        assert_eq!(ended.digest, recorded);
        assert!(places[0].shared().chunks.log_chunks(BUILD, 0, 9).unwrap().is_empty());
        let place = LogPlace::Stored(recorded.unwrap());
        let nowhere = Place { folder: tempfile::tempdir().unwrap(), ..places.into_iter().next().unwrap() };
        for logs in [&logs, &other, &nowhere.open()] {
            assert_eq!(both(logs, place), all, "{ends}");
            assert_eq!(logs.end(BUILD, place, |_| panic!("recorded already")).unwrap(), Some(ended));
        }
    }
}

#[test]
fn a_log_that_was_stored_goes_on_when_logs_are_shared_no_more() {
    let again = StreamKey { attempt: 8, step: 0 };
    for durability in [Durability::Process, Durability::Power] {
        let [one, mut other] = Place::pair();
        other.durability = durability;
        let logs = one.open();
        answer(&logs, closed(batch(0, "one\n")));
        let mut recorded = None;
        logs.end(BUILD, LogPlace::Ended, |digest| keep(&mut recorded, digest)).unwrap();
        let (growing, stored) = (LogPlace::Reopened(recorded.unwrap()), LogPlace::Stored(recorded.unwrap()));
        let both = |logs: &Logs, place| {
            let reader = logs.reader(BUILD, place).unwrap().unwrap();
            text(reader.lines(KEY, 0..u64::MAX)) + &text(reader.lines(again, 0..u64::MAX))
        };
        let expected = "0 out@1 [one]\n0 out@1 [two]\n";
        let mut batch = closed(batch(0, "two\n"));
        batch.key = again;
        assert_eq!(answer(&other.open_alone(), batch), "Taken 4");
        let logs = other.open_alone();
        assert_eq!(both(&logs, growing), expected);
        assert_eq!(both(&logs, stored), expected);
        logs.end(BUILD, stored, |_| panic!("it stays here")).unwrap();
        assert_eq!(both(&logs, stored), expected);
        drop(logs);
        assert_eq!(both(&other.open_alone(), stored), expected);
        // And when it is shared again, all of it comes to where others see it.
        other.open().end(BUILD, stored, |digest| keep(&mut recorded, digest)).unwrap();
        assert_eq!(both(&one.open(), LogPlace::Stored(recorded.unwrap())), expected);
    }
}

/// Its build is canceled, and the attempt goes on for another one.
#[test]
fn a_step_goes_on_behind_what_was_stored() {
    let all = "0 out@1 [one]\n1 out@1 [two]\n";
    for goes_on in 0..5 {
        let places = Place::pair();
        let (logs, other) = (places[0].open(), places[1].open());
        answer(&logs, batch(0, "one\n"));
        if goes_on == 2 {
            // Of the other server too there is a chunk, of which there will be one with the same number.
            assert_eq!(lines(&other, LogPlace::Live), "0 out@1 [one]\n");
        }
        let store = |logs: &Logs, place| {
            logs.end(BUILD, place, |digest| keep(&mut places[0].recorded.lock().unwrap(), digest)).unwrap().unwrap();
            LogPlace::Stored(places[0].recorded.lock().unwrap().unwrap())
        };
        let mut from_before = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
        let stored = store(&logs, LogPlace::Ended);
        let mut follower = match stored {
            LogPlace::Stored(digest) if goes_on < 2 => logs.reader(BUILD, LogPlace::Reopened(digest)).unwrap(),
            _ => None,
        };
        let logs = match goes_on {
            0 | 1 => logs,
            2 | 3 => other.clone(),
            _ => {
                drop(logs);
                places[0].open_alone()
            }
        };
        if goes_on == 1 {
            // What was here goes, as it would of one that has ended, cut short.
            let told = lines(&logs, stored);
            assert!(told.starts_with("0 out@1 [one]\n1 gap CutShort"), "{told}");
        }
        assert_eq!(answer(&logs, closed(batch(4, "two\n"))), "Taken 8", "{goes_on}");
        assert_eq!(lines(&logs, stored), all, "{goes_on}");
        for follower in follower.iter_mut().chain((goes_on < 2).then_some(&mut from_before)) {
            follower.refresh().unwrap();
            assert_eq!(text(follower.lines(KEY, 0..u64::MAX)), all, "{goes_on}");
        }
        let logs = if goes_on == 4 { places[0].open() } else { logs };
        let stored = store(&logs, stored);
        for logs in [&logs, &other, &places[1].open()] {
            assert_eq!(lines(logs, stored), all, "{goes_on}");
        }
    }
}

/// Dies after each step of the end in turn; the same or another server, with or without its folder, ends it.
#[test]
fn an_end_that_was_cut_anywhere_is_done_again() {
    for die_at in 0..3 {
        for next in 0..2 {
            let places = Place::pair();
            let logs = places[0].open();
            answer(&logs, batch(0, "one\n"));
            lines(&places[1].open(), LogPlace::Live);
            answer(&logs, closed(batch(4, "two\n")));
            let mut recorded = None;
            let shared = places[0].shared();
            let chunks = shared.chunks.log_chunks(BUILD, 0, 9).unwrap();
            match die_at {
                // The blob is there, nobody knows it.
                0 => drop(logs.end(BUILD, LogPlace::Live, |_| Err(refusal())).unwrap_err()),
                // It is recorded, the chunks are there.
                1 => {
                    logs.end(BUILD, LogPlace::Live, |digest| keep(&mut recorded, digest)).unwrap();
                    let chunks: Vec<_> = chunks.into_iter().map(|chunk| (BUILD, chunk.body)).collect();
                    shared.chunks.append_log_chunks(&chunks).unwrap();
                }
                // All was done but the answer was lost.
                _ => drop(logs.end(BUILD, LogPlace::Live, |digest| keep(&mut recorded, digest)).unwrap()),
            }
            drop(logs);
            let logs = places[next].open();
            let place = recorded.map_or(LogPlace::Live, LogPlace::Stored);
            logs.end(BUILD, place, |digest| keep(&mut recorded, digest)).unwrap().unwrap();
            let place = LogPlace::Stored(recorded.unwrap());
            for logs in [logs, places[1 - next].open()] {
                assert_eq!(lines(&logs, place), "0 out@1 [one]\n1 out@1 [two]\n", "{die_at} {next}");
            }
            assert!(shared.chunks.log_chunks(BUILD, 0, 9).unwrap().is_empty());
        }
    }
}

fn keep(recorded: &mut Option<Digest>, digest: Digest) -> Result<(), crate::StoreError> {
    *recorded = Some(digest);
    Ok(())
}

fn refusal() -> crate::StoreError {
    crate::StoreError::Lost(std::io::Error::other("the server died").into())
}

/// Set for the process that is killed: the folder of its logs, and its durability.
const VICTIM: &str = "ROPEWALK_TEST_LOGS";

/// What the victim runs: appends lines, and says how far it was acknowledged. Nothing if nobody wants it.
#[test]
fn victim() {
    let Some((root, durability)) = std::env::var(VICTIM).ok().and_then(|told| {
        let (root, durability) = told.rsplit_once(':')?;
        Some((PathBuf::from(root), if durability == "power" { Durability::Power } else { Durability::Process }))
    }) else {
        return;
    };
    let logs = Logs::open(LogsSettings { root, durability, sharing: Sharing::Never }).unwrap();
    let mut next_byte = logs.next_byte(BUILD, KEY).unwrap();
    loop {
        let text = format!("line at {next_byte}\n");
        next_byte = logs.append(&[batch(next_byte, &text)])[0].next_byte;
        println!("acknowledged {next_byte}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    // With the durability of a disk each append waits for it.
    for (name, durability, appends) in [("process", Durability::Process, 400), ("power", Durability::Power, 30)] {
        let place = Place::alone(durability);
        for kill in 1..8 {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "log::tests::server::victim", "--nocapture"])
                .env(VICTIM, format!("{}:{name}", place.folder.path().join("logs").display()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let told = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
            let told = told.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
            // The merges of small frames are among what is cut.
            let acknowledged = told.take(kill * appends).last().unwrap();
            victim.kill().unwrap();
            victim.wait().unwrap();
            let logs = place.open();
            assert!(logs.next_byte(BUILD, KEY).unwrap() >= acknowledged);
            let reader = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
            let mut expected = String::new();
            for line in String::from_utf8(raw(&reader, Selection::All)).unwrap().lines() {
                assert_eq!(line, format!("line at {}", expected.len()));
                expected += line;
                expected.push('\n');
            }
        }
    }
}

#[test]
fn many_threads_append_at_once() {
    check(|place| {
        let logs = place.open();
        std::thread::scope(|scope| {
            for attempt in 0..8u32 {
                let logs = &logs;
                scope.spawn(move || {
                    for index in 0..30u64 {
                        let mut batch = batch(index * 5, "text\n");
                        batch.key = StreamKey { attempt, step: 0 };
                        let receipts = logs.append(&[batch]);
                        assert_eq!(receipts[0].next_byte, (index + 1) * 5);
                    }
                });
            }
        });
        let reader = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
        assert!(reader.streams().all(|stream| stream.lines == 30));
        assert_eq!(reader.streams().count(), 8);
    });
}

proptest! {
    /// However the output is cut, repeated and restarted upon, it is the output.
    #[test]
    fn any_delivery_gives_the_output(
        cuts in vec((0..40u64, 0..60u64, any::<bool>()), 1..30),
        text_seed in vec(prop::sample::select(b"ab\n\r".to_vec()), 200..=200),
    ) {
        let place = Place::alone(Durability::Process);
        let mut logs = place.open();
        let mut next = 0u64;
        for (back, length, restart) in cuts {
            let first = next.saturating_sub(back);
            let end = (first + length).min(text_seed.len() as u64);
            let mut batch = Batch::new(BUILD, KEY, first);
            for at in first..end {
                let stream = Stream::ALL[(at / 7 % 3) as usize];
                batch.push(stream, at, &text_seed[at as usize..=at as usize]);
            }
            next = next.max(end);
            prop_assert_eq!(answer(&logs, batch), format!("Taken {next}"));
            if restart {
                drop(logs);
                logs = place.open();
            }
        }
        answer(&logs, closed(Batch::new(BUILD, KEY, next)));
        let reader = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
        prop_assert_eq!(&raw(&reader, Selection::All), &text_seed[..next as usize]);
        let before = text(reader.lines(KEY, 0..u64::MAX));
        crate::log::merge::merge(reader.path(), &Arc::default(), Durability::Process).unwrap();
        let merged = LogReader::open(reader.path(), Writing::Over).unwrap();
        prop_assert_eq!(text(merged.lines(KEY, 0..u64::MAX)), before);
    }
}

#[test]
fn a_large_log_is_read_as_it_stands_however_often_it_was_opened() {
    check(|place| {
        let logs = place.open();
        let mut next_byte = 0;
        let mut print = |logs: &Logs, count: u64| {
            let line = |_| {
                let text = format!("{next_byte}\n");
                let printed = batch(next_byte, &text);
                next_byte = printed.next_byte();
                printed
            };
            let batches: Vec<Batch> = (0..count).map(line).collect();
            let receipts = logs.append(&batches);
            assert!(receipts.iter().all(|receipt| matches!(receipt.end, BatchEnd::Taken)));
        };
        let count = |logs: &Logs| lines(logs, LogPlace::Live).lines().count();
        print(&logs, 100);
        assert_eq!([count(&logs), count(&logs)], [100; 2]);
        let before = logs.reader(BUILD, LogPlace::Live).unwrap().unwrap();
        print(&logs, 2000);
        // Joined meanwhile, maybe: the pack is another file then.
        assert_eq!([count(&logs), count(&logs)], [2100; 2]);
        assert_eq!(before.stream(KEY).unwrap().lines, 100, "a reader learns of more when it is asked to");
        logs.delete(BUILD).unwrap();
        assert_eq!(lines(&logs, LogPlace::Live), "none");
    });
}
