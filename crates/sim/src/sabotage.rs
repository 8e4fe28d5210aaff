//! Faults planted on purpose, around the engine rather than in it: each corrupts what goes in or what is kept, as the
//! bug it is named after would. A test shows for ever that storms catch every one.

/// One planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing is planted.
    None,
    /// The report of a lease that was lost counts for the one that replaced it.
    StaleResult,
    /// A job starts without one of its needs.
    IgnoredNeed,
    /// A fact is not written.
    UnwrittenFact,
    /// A rebuilt engine does not know that a lease was lost and replaced.
    UnfencedRecovery,
    /// A job runs outside of its concurrency group.
    GroupLeak,
    /// A worker is said to have more slots than it has.
    ExtraSlot,
    /// An equal operation is not recognized.
    UnequalOperation,
    /// A job that has grown is not in what the engine is told.
    LostGrowth,
    /// A job changes after it has begun, and nobody is told.
    MeltedJob,
}

impl Sabotage {
    /// Every fault that storms must catch.
    pub const ALL: [Self; 9] = [
        Self::StaleResult,
        Self::IgnoredNeed,
        Self::UnwrittenFact,
        Self::UnfencedRecovery,
        Self::GroupLeak,
        Self::ExtraSlot,
        Self::UnequalOperation,
        Self::LostGrowth,
        Self::MeltedJob,
    ];
}
