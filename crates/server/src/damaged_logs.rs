//! Logs that are not whole: found by reading them to their end. Those that are nowhere are another matter (`lost_logs.rs`).

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use graph::{BuildId, Failure, Outcome, with_causes};
use store::Store;
use store::log::{GapCause, LogError, LogReader, Raw, RawPart, Selection, Writing};
use store::rows::AttemptRow;

use crate::records::{Document, StoredLog};

/// What is wrong with the pack at `path`, the log of a build; `None` if nothing is, or it is gone.
pub fn damage_of(store: &dyn Store, build: BuildId, path: &Path) -> Option<String> {
    // What another server of the database finished stands in a blob, which is looked at as such; here is what this one had of it.
    if matches!(store.record(StoredLog::KIND, &build.to_string()), Ok(Some(_))) {
        return None;
    }
    let has_ended = matches!(store.build(build), Ok(Some(row)) if row.finished.is_some());
    let writing = if has_ended { Writing::Over } else { Writing::Going };
    read_log(path, writing, &cut_short(store, build)).err()
}

/// The attempts of a build whose output may end before its end, as is shown: those that nobody could finish. None if that cannot be told.
fn cut_short(store: &dyn Store, build: BuildId) -> BTreeSet<u32> {
    let is_cut_short = |row: &AttemptRow| {
        let outcome = row.ended.as_ref().map(|end| &end.outcome);
        matches!(outcome, Some(Outcome::Failed(Failure::Lost | Failure::Canceled { .. })))
    };
    let rows = store.attempts(build, None).unwrap_or_default();
    rows.into_iter().filter(is_cut_short).map(|row| row.attempt.0).collect()
}

/// Reads a log to its end.
fn read_log(path: &Path, writing: Writing, cut_short: &BTreeSet<u32>) -> Result<(), String> {
    let reader = match LogReader::open(path, writing) {
        Ok(reader) => reader,
        // It went with its build.
        Err(LogError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(with_causes(&error)),
    };
    let keys: Vec<_> = reader.streams().map(|stream| stream.key).collect();
    for key in keys {
        let raw: Raw = reader.raw(key, Selection::All);
        for part in raw {
            match part {
                Ok(RawPart::Gap(gap)) if gap.cause == GapCause::CutShort && cut_short.contains(&key.attempt) => {}
                Ok(RawPart::Gap(_)) => return Err("a part of it is lost".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(with_causes(&error)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use store::log::{Batch, Logs, LogsSettings, Sharing, Stream, StreamKey};

    use super::*;

    #[test]
    fn output_that_nobody_could_finish_is_no_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = LogsSettings {
            root: folder.path().to_owned(),
            durability: store::Durability::Process,
            sharing: Sharing::Never,
        };
        let logs = Logs::open(settings).expect("opened");
        let mut batch = Batch::new(BuildId(1), StreamKey { attempt: 1, step: 0 }, 0);
        batch.push(Stream::Stdout, 7, b"half a log\n");
        assert_eq!(logs.append(&[batch]).len(), 1);
        drop(logs);
        let (_, path) = crate::backup::packs(folder.path()).expect("listed").pop().expect("one");
        let read = |attempts: &[u32]| read_log(&path, Writing::Over, &attempts.iter().copied().collect());
        assert_eq!(read(&[1]), Ok(()));
        assert_eq!(read(&[2]), Err("a part of it is lost".to_owned()));
    }
}
