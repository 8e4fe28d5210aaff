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
    /// What makes a request the same as another does not reach the engine.
    LostIdentity,
    /// What lets a build take the place of earlier ones does not reach the engine.
    LostRivalry,
    /// A rebuilt engine has not read that a lease was handed over.
    UnreadAdoption,
    /// A worker that is closed is said to be open.
    OpenDoor,
    /// That a pool is held does not reach the engine.
    UnheldPool,
    /// Facts that a standing holds already are folded as new.
    ChargedTwice,
    /// Which tests failed besides those that a retry asks for does not reach the engine.
    ForgottenFailures,
    /// Nor does which tests never ran.
    ForgottenTests,
    /// While a job waits for a worker that has it warm, no time passes for the engine.
    EndlessPatience,
    /// That an attempt is to stop never reaches its worker.
    LostStop,
    /// That results were evicted does not reach the engine.
    UntoldEviction,
}

impl Sabotage {
    /// Every fault that storms must catch.
    pub const ALL: [Self; 20] = [
        Self::StaleResult,
        Self::IgnoredNeed,
        Self::UnwrittenFact,
        Self::UnfencedRecovery,
        Self::GroupLeak,
        Self::ExtraSlot,
        Self::UnequalOperation,
        Self::LostGrowth,
        Self::MeltedJob,
        Self::LostIdentity,
        Self::LostRivalry,
        Self::UnreadAdoption,
        Self::OpenDoor,
        Self::UnheldPool,
        Self::ChargedTwice,
        Self::EndlessPatience,
        Self::ForgottenFailures,
        Self::ForgottenTests,
        Self::LostStop,
        Self::UntoldEviction,
    ];
}
