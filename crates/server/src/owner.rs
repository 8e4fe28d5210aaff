//! Whose the place of blobs is: the records have an id, and the place is marked with it. Blobs that nothing names are removed only from a place that is ours: what the
//! records of another server name is nothing to these, and would be taken for what nobody needs.
//!
//! An empty place becomes that of the first server which starts on it. One that holds blobs and no mark, as earlier releases left them, becomes that of records
//! which name most of a sample that is there. Records that were restored take over no place by themselves: the server of which they are a copy may still use it.

use graph::Timestamp;
use serde::{Deserialize, Serialize};
use store::blob::{BlobError, Blobs};

use crate::named::Named;
use crate::parts::fresh_id;
use crate::records::{Document, RecordError, Records};

/// The key of the one record.
const KEY: &str = "present";
/// Of how many blobs that the records name it is asked whether they are in a place without a mark.
const SAMPLE: usize = 100;

/// Which records these are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Installation {
    /// Drawn at random, and again when they are restored.
    id: String,
    /// How they came to be.
    origin: Origin,
}

/// How records came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    /// A server began them, or was told that the place of blobs is theirs.
    #[default]
    Begun,
    /// From a backup.
    Restored,
}

impl Document for Installation {
    const KIND: &'static str = "installation";
}

/// Whose the place of blobs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is that of these records.
    These,
    /// It has no mark, and is to have theirs.
    Free,
    /// It is marked as that of others.
    Others,
    /// It holds blobs and no mark, and these records have no claim to it.
    Unknown,
}

/// Why it cannot be told, or noted.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// A record refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The blobs refused.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

impl Owner {
    /// Why no blob is removed; `None` if it is.
    #[must_use]
    pub const fn why_none_is_removed(self) -> Option<&'static str> {
        match self {
            Self::These | Self::Free => None,
            Self::Others => {
                Some("the place of blobs is that of another installation: its records name what these do not")
            }
            Self::Unknown => {
                Some("the place of blobs holds blobs, and nothing says that they are those of these records")
            }
        }
    }
}

/// What to do about a place of blobs that is not that of the records.
pub const NEXT: &str = "see that `store.url` and `blobs.url` belong together, or give this server a place of its own by `blobs.url`; if no other server \
                        uses that one any more, `ropewalk serve --take-blobs` takes it over";

/// Whose the place is; marks it if it is free, or, by what the records name, theirs. Without `named` it is not taken over by that.
/// Blocks.
///
/// # Errors
/// [`OwnerError`].
pub fn settle(records: &Records, blobs: &dyn Blobs, named: Option<&Named>, at: Timestamp) -> Result<Owner, OwnerError> {
    let installation = read(records)?;
    let owner = judge(installation.as_ref(), blobs, named)?;
    if owner != Owner::Free {
        return Ok(owner);
    }
    // The mark last: as long as it is not there, the place is looked at anew.
    let ours = records.change(KEY, at, |before| before.unwrap_or_else(Installation::begun))?;
    blobs.mark(&ours.id)?;
    Ok(Owner::These)
}

/// As [`settle`], and changes nothing.
///
/// # Errors
/// [`OwnerError`].
pub fn look(records: &Records, blobs: &dyn Blobs, named: &Named) -> Result<Owner, OwnerError> {
    Ok(judge(read(records)?.as_ref(), blobs, Some(named))?)
}

/// Makes the place that of these records, by somebody's word.
///
/// # Errors
/// [`OwnerError`].
pub fn take(records: &Records, blobs: &dyn Blobs, at: Timestamp) -> Result<(), OwnerError> {
    let ours = records.change(KEY, at, |before| Installation {
        origin: Origin::Begun,
        ..before.unwrap_or_else(Installation::begun)
    })?;
    Ok(blobs.mark(&ours.id)?)
}

/// Gives restored records an id of their own, and marks their place of blobs if it is new.
///
/// # Errors
/// [`OwnerError`].
pub fn restored(records: &Records, fresh_place: Option<&dyn Blobs>, at: Timestamp) -> Result<(), OwnerError> {
    let ours = Installation { id: fresh_id(), origin: Origin::Restored };
    records.write(KEY, &ours, at)?;
    if let Some(blobs) = fresh_place {
        blobs.mark(&ours.id)?;
    }
    Ok(())
}

impl Installation {
    fn begun() -> Self {
        Self { id: fresh_id(), origin: Origin::Begun }
    }
}

fn read(records: &Records) -> Result<Option<Installation>, RecordError> {
    Ok(records.read::<Installation>(KEY)?.map(|(installation, _)| installation))
}

fn judge(ours: Option<&Installation>, blobs: &dyn Blobs, named: Option<&Named>) -> Result<Owner, BlobError> {
    if let Some(mark) = blobs.marked()? {
        return Ok(if ours.is_some_and(|ours| ours.id == mark) { Owner::These } else { Owner::Others });
    }
    if blobs.page(None, 1)?.is_empty() {
        return Ok(Owner::Free);
    }
    match named {
        Some(named) if !is_restored(ours) && has_most(blobs, named)? => Ok(Owner::Free),
        _ => Ok(Owner::Unknown),
    }
}

fn is_restored(ours: Option<&Installation>) -> bool {
    ours.is_some_and(|ours| ours.origin == Origin::Restored)
}

/// Whether most of a sample of what is named is there.
fn has_most(blobs: &dyn Blobs, named: &Named) -> Result<bool, BlobError> {
    let step = (named.blobs.len() / SAMPLE).max(1);
    let (mut asked, mut there) = (0, 0);
    for digest in named.blobs.iter().step_by(step).take(SAMPLE) {
        asked += 1;
        there += usize::from(blobs.contains(*digest)?);
    }
    Ok(there * 2 > asked)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::MemoryStore;
    use store::blob::MemoryBlobs;

    use super::*;

    fn records() -> Records {
        Records::new(Arc::new(MemoryStore::new()))
    }

    fn naming(blobs: &[graph::Digest]) -> Named {
        let mut blobs = blobs.to_vec();
        blobs.sort_unstable();
        Named { blobs, unreadable: Vec::new() }
    }

    const NOW: Timestamp = Timestamp(1);

    #[test]
    fn an_empty_place_is_that_of_the_first_who_comes() {
        let (first, second, blobs) = (records(), records(), MemoryBlobs::default());
        let settle = |records: &Records| settle(records, &blobs, None, NOW).expect("settled");
        assert_eq!(settle(&first), Owner::These);
        blobs.put(b"something").expect("put");
        assert_eq!(settle(&first), Owner::These);
        assert_eq!(settle(&second), Owner::Others);
        take(&second, &blobs, NOW).expect("taken");
        assert_eq!(settle(&second), Owner::These);
        assert_eq!(settle(&first), Owner::Others, "the one before stops");
    }

    #[test]
    fn a_place_without_a_mark_is_that_of_records_that_name_most_of_what_they_need_there() {
        let blobs = MemoryBlobs::default();
        let there = ["one", "two", "three"].map(|content| blobs.put(content.as_bytes()).expect("put"));
        let gone = ["four", "five"].map(|content| store::blob::digest(content.as_bytes()));
        let records = records();
        let settle = |named: Option<&Named>| settle(&records, &blobs, named, NOW).expect("settled");
        assert_eq!(settle(None), Owner::Unknown);
        assert_eq!(settle(Some(&naming(&[]))), Owner::Unknown, "records that hold nothing");
        assert_eq!(settle(Some(&naming(&[there[0], gone[0], gone[1]]))), Owner::Unknown, "other records");
        let named = naming(&[there[0], there[1], gone[0]]);
        assert_eq!(look(&records, &blobs, &named).expect("looked"), Owner::Free);
        assert_eq!(blobs.marked().expect("read"), None, "looking changes nothing");
        assert_eq!(settle(Some(&named)), Owner::These);
        assert_eq!(settle(None), Owner::These, "from now on it is marked");
    }

    #[test]
    fn restored_records_take_over_nothing_by_themselves() {
        let (fresh, used) = (MemoryBlobs::default(), MemoryBlobs::default());
        let kept = used.put(b"something").expect("put");
        let records = records();
        assert_eq!(settle(&records, &fresh, None, NOW).expect("settled"), Owner::These);
        let before = fresh.marked().expect("read");
        restored(&records, Some(&fresh), NOW).expect("restored");
        assert_ne!(fresh.marked().expect("read"), before, "an id of their own");
        assert_eq!(settle(&records, &fresh, None, NOW).expect("settled"), Owner::These);
        assert_eq!(settle(&records, &used, Some(&naming(&[kept])), NOW).expect("settled"), Owner::Unknown);
    }
}
