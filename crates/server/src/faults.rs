//! Faults on purpose in every call of the store and of the blobs: for storms, and only in a binary made with the feature
//! `faults`, which nothing that people run has.
//!
//! The variable [`VARIABLE`] holds `ONE_IN:FILE`: as long as there is a file at `FILE`, about one of `ONE_IN` calls goes
//! wrong. Each is told on the standard error as `fault: CALL KIND`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use store::blob::{BlobFault, Blobs, FaultyBlobs};
use store::{Fault, FaultyStore};

use crate::notices;
use crate::parts::Database;

/// Where it is written how often calls go wrong.
const VARIABLE: &str = "ROPEWALK_FAULTS";
/// How long a slow call takes.
const SLOW: Duration = Duration::from_millis(300);
/// Of the faults that end a shell, since nothing can be stored, so many become passing ones.
const FATAL_ONE_IN: u64 = 8;
/// How many bytes of a content come before its connection breaks.
const CUT_AFTER: u64 = 100;

/// Draws numbers, and says whether a call goes wrong.
struct Schedule {
    one_in: u64,
    file: PathBuf,
    state: AtomicU64,
}

impl Schedule {
    /// `None` if nothing is to go wrong. Every process has a schedule of its own.
    fn of_environment(salt: u64) -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let (one_in, file) = text.split_once(':').expect("ROPEWALK_FAULTS is ONE_IN:FILE");
        let one_in = one_in.parse().ok().filter(|one_in| *one_in > 0).expect("ONE_IN is a number from 1");
        let seed = (u64::from(std::process::id()) << 8) ^ salt;
        notices::info(&format!("faults: about one of {one_in} calls goes wrong while there is {file}"));
        Some(Self {
            one_in,
            file: PathBuf::from(file),
            state: AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        })
    }

    /// A number from SplitMix64 (Steele et al. 2014).
    fn draw(&self) -> u64 {
        let number = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// One of `kinds`, if this call goes wrong.
    fn pick<T: Copy + std::fmt::Debug>(&self, call: &str, kinds: &[T]) -> Option<T> {
        if !self.draw().is_multiple_of(self.one_in) || !self.file.exists() {
            return None;
        }
        let kind = kinds[usize::try_from(self.draw() % kinds.len() as u64).ok()?];
        notices::info(&format!("fault: {call} {kind:?}"));
        Some(kind)
    }
}

/// A database whose calls go wrong by schedule.
pub fn database(database: impl Database + 'static) -> Arc<dyn Database> {
    let Some(schedule) = Schedule::of_environment(1) else { return Arc::new(database) };
    let passing = [Fault::Busy, Fault::Lost, Fault::Unanswered, Fault::Slow];
    let plan = move |call: &'static str| {
        let is_mild = call == "append" && !schedule.draw().is_multiple_of(FATAL_ONE_IN);
        if is_mild { schedule.pick(call, &passing) } else { schedule.pick(call, &Fault::ALL) }
    };
    Arc::new(FaultyStore::with_plan(database, plan, || sleep(SLOW)))
}

/// Contents whose calls go wrong by schedule.
pub fn contents(blobs: impl Blobs + 'static) -> Arc<dyn Blobs> {
    let Some(schedule) = Schedule::of_environment(2) else { return Arc::new(blobs) };
    let kinds = [
        BlobFault::Full,
        BlobFault::Io,
        BlobFault::Lost,
        BlobFault::AnswerLost,
        BlobFault::Slow(SLOW),
        BlobFault::Cut(CUT_AFTER),
    ];
    Arc::new(FaultyBlobs::new(blobs, move |call| schedule.pick(call, &kinds)))
}
