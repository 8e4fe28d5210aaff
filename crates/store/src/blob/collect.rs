//! Collection of blobs that nothing names.

use std::time::Duration;

use graph::{Digest, Timestamp};

use super::{BLOBS_PAGE_MAX, BlobError, Blobs};

/// A shorter grace is lengthened to this: whoever put or renewed a blob has so long to name it.
pub const GRACE_MIN: Duration = Duration::from_secs(2 * 60 * 60);

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that were deleted.
    pub deleted: u64,
    /// What they took in the store.
    pub deleted_bytes: u64,
    /// Blobs that nothing names and that are too young.
    pub young: u64,
    /// Blobs that are left.
    pub kept: u64,
    /// What they take in the store.
    pub kept_bytes: u64,
}

/// Deletes the blobs that nothing names and that were neither put nor renewed for `grace` before `now`.
///
/// Why nothing is lost: a blob is named by somebody who put or renewed it less than `grace` before (the rule of
/// this module), and [`Blobs::delete_stale`] never takes one that was renewed since, also if that happens while it looks.
/// So whoever is named after `is_named` was asked is young at its deletion. `now` comes from the clock of who
/// keeps the blobs, or one at most an hour from it: [`GRACE_MIN`] allows for that. One collection at a time.
///
/// Memory: one page. What an error leaves is done by the next collection.
///
/// # Errors
/// As the store refuses.
pub fn collect(
    blobs: &dyn Blobs,
    is_named: &dyn Fn(Digest) -> bool,
    grace: Duration,
    now: Timestamp,
) -> Result<Collected, BlobError> {
    let grace = i64::try_from(grace.max(GRACE_MIN).as_micros()).unwrap_or(i64::MAX);
    let since = Timestamp(now.0.saturating_sub(grace));
    let mut collected = Collected::default();
    let mut after = None;
    loop {
        let page = blobs.page(after, BLOBS_PAGE_MAX)?;
        let Some(last) = page.last() else { return Ok(collected) };
        after = Some(last.digest);
        for blob in page {
            let is_named = is_named(blob.digest);
            if !is_named && blob.renewed_at < since && blobs.delete_stale(blob.digest, since)? {
                collected.deleted += 1;
                collected.deleted_bytes += blob.stored_bytes;
                continue;
            }
            collected.young += u64::from(!is_named);
            collected.kept += 1;
            collected.kept_bytes += blob.stored_bytes;
        }
    }
}
